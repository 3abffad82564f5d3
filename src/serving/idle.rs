//! Time without clients, for servers that end when they are idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

/// Shortest and longest interval between two looks at the connections.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Counter of accepted clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<AtomicU64>);

impl Arrivals {
    /// Counts a client.
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Measures the time without clients.
#[derive(Debug)]
pub struct IdleClock {
    connections: TaskTracker,
    arrivals: Arrivals,
    seen: u64,
    since: Instant,
}

impl IdleClock {
    /// Starts now.
    pub(super) fn start(connections: TaskTracker, arrivals: Arrivals) -> Self {
        Self {
            connections,
            arrivals,
            seen: 0,
            since: Instant::now(),
        }
    }

    /// Waits until no client has been connected for `limit`, to the second. Cancel-safe.
    pub async fn idle_for(&mut self, limit: Duration) {
        loop {
            let arrived = self.arrivals.0.load(Ordering::Relaxed);
            let is_used = arrived != self.seen || !self.connections.is_empty();
            if is_used {
                self.seen = arrived;
                self.since = Instant::now();
            }
            let left = limit.saturating_sub(self.since.elapsed());
            if left.is_zero() && !is_used {
                return;
            }
            sleep(left.clamp(LOOK.0, LOOK.1)).await;
        }
    }

    /// Starts again, after the server could not end.
    pub fn restart(&mut self) {
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_start_the_time_again() {
        let (connections, arrivals) = (TaskTracker::new(), Arrivals::default());
        let mut clock = IdleClock::start(connections.clone(), arrivals.clone());
        let limit = Duration::from_secs(60);
        let began = Instant::now();
        // One that stays for 90 s, and one that came and went between two looks.
        connections.spawn(sleep(Duration::from_secs(90)));
        arrivals.count();
        let brief = async {
            sleep(Duration::from_millis(120_500)).await;
            arrivals.count();
        };
        tokio::join!(clock.idle_for(limit), brief);
        let taken = began.elapsed();
        assert_eq!(taken.as_secs(), 181, "{taken:?}");
        clock.idle_for(limit).await;
        assert_eq!(began.elapsed(), taken, "it stays idle");
        clock.restart();
        clock.idle_for(limit).await;
        assert_eq!((began.elapsed() - taken).as_secs(), 60);
        // Without a limit it still waits for a client.
        connections.spawn(sleep(Duration::from_secs(5)));
        let began = Instant::now();
        clock.idle_for(Duration::ZERO).await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}
