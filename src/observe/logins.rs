//! Duration of recent logins, for percentiles.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::names::TargetName;

/// Age up to which a login counts: the state of the path now, and still enough logins of a pool that
/// opens few connections.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Maximum number of logins that count for a target: the 99th percentile has five above it, in 12
/// kB.
const MOST: usize = 512;

/// Duration of the logins of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoginTimes {
    /// Logins since the start of the program.
    pub count: u64,
    /// Recent logins, which the percentiles are computed from.
    pub recent: usize,
    /// Median; `None` without a recent login.
    pub p50: Option<Duration>,
    /// 99th percentile.
    pub p99: Option<Duration>,
}

/// Durations of the recent logins of each target.
#[derive(Debug, Default)]
pub(super) struct RecentLogins(Mutex<HashMap<TargetName, VecDeque<(Instant, f64)>>>);

impl RecentLogins {
    /// Adds a login that took `seconds`.
    pub(super) fn note(&self, target: &TargetName, seconds: f64) {
        let now = Instant::now();
        let mut all = self.lock();
        let logins = match all.get_mut(target) {
            Some(logins) => logins,
            None => all.entry(target.to_owned()).or_default(),
        };
        forget_old(logins, now);
        if logins.len() >= MOST {
            logins.pop_front();
        }
        logins.push_back((now, seconds));
    }

    /// Returns the percentiles of a target; its count is left at 0.
    pub(super) fn of(&self, target: &TargetName) -> LoginTimes {
        let mut all = self.lock();
        let Some(logins) = all.get_mut(target) else {
            return LoginTimes::default();
        };
        forget_old(logins, Instant::now());
        let mut seconds: Vec<f64> = logins.iter().map(|(_, seconds)| *seconds).collect();
        drop(all);
        seconds.sort_by(f64::total_cmp);
        LoginTimes {
            count: 0,
            recent: seconds.len(),
            p50: percentile(&seconds, 50),
            p99: percentile(&seconds, 99),
        }
    }

    /// Returns age and duration of the recent logins of a target, oldest first.
    pub(super) fn list(&self, target: &TargetName) -> Vec<(Duration, f64)> {
        let mut all = self.lock();
        let Some(logins) = all.get_mut(target) else {
            return Vec::new();
        };
        let now = Instant::now();
        forget_old(logins, now);
        let aged = |(at, seconds): &(Instant, f64)| (now.duration_since(*at), *seconds);
        logins.iter().map(aged).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetName, VecDeque<(Instant, f64)>>> {
        // A panic cannot leave half of an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_old(logins: &mut VecDeque<(Instant, f64)>, now: Instant) {
    while let Some((at, _)) = logins.front()
        && now.duration_since(*at) > WINDOW
    {
        logins.pop_front();
    }
}

/// Returns a percentile of sorted values by the nearest rank: a value that was measured.
fn percentile(sorted: &[f64], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    let seconds = sorted.get(rank.checked_sub(1)?)?;
    Duration::try_from_secs_f64(*seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn percentiles_are_those_of_the_recent_logins() {
        let (logins, orders) = (RecentLogins::default(), "orders".into());
        assert_eq!(logins.of(&orders), LoginTimes::default());
        for hundredths in (1..=100).rev() {
            logins.note(&orders, f64::from(hundredths) / 100.0);
        }
        let times = logins.of(&orders);
        assert_eq!(times.recent, 100);
        assert_eq!(times.p50, Some(Duration::from_millis(500)));
        assert_eq!(times.p99, Some(Duration::from_millis(990)));
        assert_eq!(logins.of(&"reports".into()).recent, 0);
        tokio::time::advance(WINDOW).await;
        logins.note(&orders, 2.0);
        assert_eq!(logins.of(&orders).recent, 101);
        tokio::time::advance(Duration::from_secs(1)).await;
        let times = logins.of(&orders);
        assert_eq!((times.recent, times.p50), (1, Some(Duration::from_secs(2))));
        assert_eq!(times.p99, times.p50, "one login is every percentile");
        assert_eq!(logins.list(&orders), [(Duration::from_secs(1), 2.0)]);
        assert_eq!(logins.list(&"reports".into()), []);
    }

    #[test]
    fn memory_is_bounded() {
        let (logins, orders) = (RecentLogins::default(), "orders".into());
        for _ in 0..MOST {
            logins.note(&orders, 9.0);
        }
        for _ in 0..MOST {
            logins.note(&orders, 0.25);
        }
        let times = logins.of(&orders);
        assert_eq!(times.recent, MOST);
        assert_eq!(times.p99, Some(Duration::from_millis(250)));
    }
}
