//! When to tell the client that more carriers would make a stream faster.

use std::time::Duration;

/// Time that data waits for credit before more carriers are worth their start.
const PATIENCE: Duration = Duration::from_millis(100);
/// Pause before it is told again.
const AGAIN: Duration = Duration::from_millis(500);
/// A shorter time without waiting data is a pause between two writes of a fast writer.
const PAUSE: Duration = Duration::from_millis(20);

/// State of the data that waits for credit.
#[derive(Debug)]
pub(crate) struct Limited {
    /// Since when data waits.
    since: Duration,
    /// Since when none waits; `None`: some does.
    free_since: Option<Duration>,
    told: Option<Duration>,
}

impl Limited {
    pub(crate) fn new() -> Self {
        Self {
            since: Duration::ZERO,
            free_since: Some(Duration::ZERO),
            told: None,
        }
    }

    /// Notes that data waits for credit now, or does not. Returns true if it is time to tell it.
    pub(crate) fn note(&mut self, waits: bool, now: Duration) -> bool {
        if !waits {
            self.free_since.get_or_insert(now);
            return false;
        }
        let free_since = self.free_since.take();
        if free_since.is_some_and(|at| now.saturating_sub(at) >= PAUSE) {
            self.since = now;
        }
        let is_due = |at: Duration, after| now.saturating_sub(at) >= after;
        let tells =
            is_due(self.since, PATIENCE) && self.told.is_none_or(|told| is_due(told, AGAIN));
        if tells {
            self.told = Some(now);
        }
        tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_after_a_while_and_again_at_intervals() {
        let mut limited = Limited::new();
        let mut tells = |at, waits| limited.note(waits, Duration::from_millis(at));
        assert!(!tells(1_000, true));
        assert!(!tells(1_090, false));
        assert!(!tells(1_099, true), "a pause of 9 ms is none");
        assert!(tells(1_100, true));
        assert!(!tells(1_599, true));
        assert!(tells(1_600, true));
        assert!(!tells(2_000, false));
        assert!(!tells(2_110, true), "free for 110 ms");
        assert!(!tells(2_209, true));
        assert!(tells(2_210, true));
    }
}
