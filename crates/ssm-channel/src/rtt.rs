//! The retransmission timeout: RFC 6298 with the bounds of the real programs.

use std::time::Duration;

/// Before the first measurement, and the lower bound after it; the real programs start there.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// The upper bound, as in the real programs. It holds for repeated messages as well.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
/// Least allowance for variation (RFC 6298's G). Timers of the drivers are good to a few ms.
const GRANULARITY: Duration = Duration::from_millis(10);

/// Smoothed round-trip time and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Doublings in force until the next measurement (RFC 6298, section 5.5 and Karn's algorithm):
    /// without them a path slower than the timeout would never be measured, because every message
    /// on it is repeated before its acknowledgement comes.
    backoff: u32,
}

impl Rtt {
    /// The smoothed round-trip time; `None` before the first measurement.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// A round trip of a message that was sent exactly once.
    pub(crate) fn measured(&mut self, sample: Duration) {
        self.backoff = 0;
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    /// A message was not acknowledged in time although it had been sent `times` times.
    pub(crate) fn expired(&mut self, times: u32) {
        self.backoff = self.backoff.max(times);
    }

    /// How long to wait for the acknowledgement of a message sent for the `times`-th time.
    pub(crate) fn timeout(&self, times: u32) -> Duration {
        let plain = match self.smoothed {
            Some(smoothed) => smoothed + GRANULARITY.max(self.variation * 4),
            None => MIN_TIMEOUT,
        };
        let doublings = self.backoff.max(times.saturating_sub(1)).min(16);
        let bounded = plain.clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        (bounded * (1 << doublings)).min(MAX_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn starts_at_the_minimum_and_stays_within_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(1), ms(200));
        rtt.measured(ms(1));
        assert_eq!(rtt.timeout(1), ms(200));
        for _ in 0..100 {
            rtt.measured(ms(5000));
        }
        assert_eq!(rtt.timeout(1), ms(1000));
    }

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::default();
        rtt.measured(ms(100));
        assert_eq!(rtt.smoothed(), Some(ms(100)));
        assert_eq!(rtt.timeout(1), ms(100 + 4 * 50));
        rtt.measured(ms(180));
        assert_eq!(rtt.smoothed(), Some(ms(110)));
        // (3 * 50 + 80) / 4 = 57.5
        assert_eq!(rtt.timeout(1), ms(110 + 4 * 57 + 2));
        for _ in 0..200 {
            rtt.measured(ms(300));
        }
        let settled = rtt.timeout(1);
        assert!(settled >= ms(309) && settled <= ms(311), "{settled:?}");
    }

    #[test]
    fn repeats_back_off_for_everyone_until_a_measurement() {
        let mut rtt = Rtt::default();
        assert_eq!(
            [1, 2, 3, 4, 9].map(|n| rtt.timeout(n)),
            [200, 400, 800, 1000, 1000].map(ms)
        );
        rtt.expired(1);
        rtt.expired(1);
        assert_eq!(
            rtt.timeout(1),
            ms(400),
            "one round of losses is one doubling"
        );
        rtt.expired(2);
        assert_eq!(rtt.timeout(1), ms(800));
        rtt.expired(1000);
        assert_eq!(rtt.timeout(1), ms(1000));
        rtt.measured(ms(10));
        assert_eq!(rtt.timeout(1), ms(200));
    }
}
