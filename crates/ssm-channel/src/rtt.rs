//! The retransmission timeout: RFC 6298 with the bounds of the real programs.

use std::time::Duration;

/// Timeout before the first measurement, and the lower bound after it; the real programs start
/// there.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Upper bound of the timeout, as in the real programs. It also applies to repeated messages.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
/// Minimum allowance for variation on top of the smoothed round trip. RFC 6298 requires only the
/// clock's granularity. But on an even path the measured variation approaches zero, and then the
/// first full window, in which the last message waits for all others, would look like a loss. TCP
/// implementations use the same value.
const LEAST_ALLOWANCE: Duration = Duration::from_millis(200);

/// Minimum timeout of a message that the agent is likely to have dropped. Its port handler takes
/// some tens of milliseconds to start.
const QUICK: Duration = Duration::from_millis(30);
/// Minimum allowance on top of the round trip for such a message.
const QUICK_ALLOWANCE: Duration = Duration::from_millis(10);

/// Doublings that raise the lower bound above the upper one.
const MAX_DOUBLINGS: u32 = 3;

/// Smoothed round-trip time and the timeout derived from it.
#[derive(Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Doublings in force until the next measurement (RFC 6298, section 5.5 and Karn's algorithm).
    /// Without them a path slower than the timeout would never be measured, because every message
    /// on it is repeated before its acknowledgement comes.
    backoff: u32,
}

impl Rtt {
    /// Returns the smoothed round-trip time; `None` before the first measurement.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Records the round trip of a message that was sent exactly once.
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

    /// Records that a message sent once was not acknowledged in time, with its timeout doubled
    /// `doublings` times. Repetitions back off one by one: the delays of lost messages on a
    /// measured path are no reason to wait longer for the others.
    pub(crate) fn expired(&mut self, doublings: u32) {
        self.backoff = self.backoff.max(doublings + 1).min(MAX_DOUBLINGS);
    }

    /// Forgets the losses of the old connection on a new one; the measured round trip remains the
    /// best estimate.
    pub(crate) fn forget_losses(&mut self) {
        self.backoff = 0;
    }

    /// Returns the doublings of the timeout of a message handed out now, if its own repetitions
    /// require `own` doublings.
    pub(crate) fn doublings(&self, own: u32) -> u32 {
        self.backoff.max(own).min(MAX_DOUBLINGS)
    }

    /// Returns the timeout of a message that may have come too early for the agent: a little more
    /// than a round trip, so that few copies are sent in vain. Before the first measurement at
    /// least that of any other message.
    pub(crate) fn quick(&self) -> Duration {
        let ordinary = self.timeout(0);
        self.smoothed.map_or(ordinary, |smoothed| {
            let trip = smoothed + QUICK_ALLOWANCE.max(smoothed / 4);
            trip.max(QUICK).min(ordinary)
        })
    }

    /// Returns the timeout of a new message.
    pub(crate) fn current(&self) -> Duration {
        self.timeout(self.backoff)
    }

    /// Returns the timeout after `doublings` doublings.
    pub(crate) fn timeout(&self, doublings: u32) -> Duration {
        let plain = match self.smoothed {
            Some(smoothed) => smoothed + LEAST_ALLOWANCE.max(self.variation * 4),
            None => MIN_TIMEOUT,
        };
        let bounded = plain.clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        (bounded * (1 << doublings.min(MAX_DOUBLINGS))).min(MAX_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_quick_repetition_waits_for_the_round_trip() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.quick(), ms(200));
        for (trip, quick) in [(0, 30), (15, 30), (50, 62), (300, 375)] {
            rtt = Rtt::default();
            rtt.measured(ms(trip));
            assert_eq!(
                rtt.quick().as_millis(),
                quick.min(rtt.timeout(0).as_millis())
            );
        }
        for _ in 0..100 {
            rtt.measured(ms(5000));
        }
        assert_eq!(rtt.quick(), ms(1000));
    }

    #[test]
    fn starts_at_the_minimum_and_stays_within_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(0), ms(200));
        rtt.measured(ms(1));
        assert_eq!(rtt.timeout(0), ms(201));
        for _ in 0..100 {
            rtt.measured(ms(5000));
        }
        assert_eq!(rtt.timeout(0), ms(1000));
    }

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::default();
        rtt.measured(ms(100));
        assert_eq!(rtt.smoothed(), Some(ms(100)));
        assert_eq!(rtt.timeout(0), ms(100 + 4 * 50));
        rtt.measured(ms(180));
        assert_eq!(rtt.smoothed(), Some(ms(110)));
        // The variation is (3 * 50 + 80) / 4 = 57.5.
        assert_eq!(rtt.timeout(0), ms(110 + 4 * 57 + 2));
        for _ in 0..200 {
            rtt.measured(ms(300));
        }
        let settled = rtt.timeout(0);
        assert!(settled >= ms(499) && settled <= ms(500), "{settled:?}");
    }

    #[test]
    fn repeats_back_off_for_everyone_until_a_measurement() {
        let mut rtt = Rtt::default();
        assert_eq!(
            [0, 1, 2, 3, 9].map(|n| rtt.timeout(rtt.doublings(n))),
            [200, 400, 800, 1000, 1000].map(ms)
        );
        rtt.expired(0);
        rtt.expired(0);
        assert_eq!(
            rtt.current(),
            ms(400),
            "one round of losses is one doubling"
        );
        rtt.expired(1);
        assert_eq!(rtt.current(), ms(800));
        rtt.expired(1000);
        assert_eq!(rtt.current(), ms(1000));
        rtt.measured(ms(10));
        assert_eq!(rtt.current(), ms(210));
        rtt.expired(0);
        rtt.forget_losses();
        assert_eq!(rtt.current(), ms(210));
    }
}
