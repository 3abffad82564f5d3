//! Tells of messages that were dropped for want of room, once in a while.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is told, at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was told of the messages that a session dropped.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// How many there were at the last time, and when.
    told: Option<(u64, Instant)>,
}

impl Losses {
    /// Takes the number dropped so far; returns how many to tell of now.
    pub(super) fn untold(&mut self, dropped: u64) -> Option<u64> {
        let before = self.told.map_or(0, |(before, _)| before);
        if dropped == before {
            return None;
        }
        let now = Instant::now();
        if self.told.is_some_and(|(_, at)| now < at + INTERVAL) {
            return None;
        }
        self.told = Some((dropped, now));
        Some(dropped - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_once_a_minute() {
        let mut losses = Losses::default();
        assert_eq!(losses.untold(0), None);
        assert_eq!(losses.untold(1), Some(1));
        assert_eq!(losses.untold(100), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(losses.untold(1), None);
        assert_eq!(losses.untold(150), Some(149));
        tokio::time::advance(INTERVAL * 2).await;
        assert_eq!(losses.untold(150), None);
    }
}
