//! How many bytes may wait inside one carrier.
//!
//! Everything that waits in a session is drained at about 0.7 MB/s, so each 64 KiB in it delay all
//! that comes behind by 90 ms. Neither the socket's buffer nor its readiness show that queue; only
//! the receiver's reports do. The credit is what the carrier delivers in one round of reports, and
//! a margin: without it the queue runs empty whenever a report is late.

use std::time::Duration;

use crate::frame::CHUNK;

/// Length of a bucket of the rate.
const BUCKET: Duration = Duration::from_millis(100);
/// Number of buckets: the rate is the maximum of the last second. An average would count pauses.
const BUCKETS: usize = 10;
/// Time that a carrier may work on what is queued in it.
const MARGIN: Duration = Duration::from_millis(30);
/// Time for which the least round trip is remembered. While data queues, no round trip is as short,
/// so after that time the credit falls to the least one until the round trip is known again.
const MEMORY: Duration = Duration::from_secs(10);

/// Time in which a carrier must be able to deliver its credit, beside the round trip: a slow one
/// holds back the streams by no more than that.
const QUEUE_TIME: Duration = Duration::from_millis(150);

/// Credit in bytes before anything is known, and while the round trip is measured.
const INITIAL: u64 = 16 * 1024;

/// Delivery between two moments, from the reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    /// Time from the sending of the last of these bytes to its report.
    pub(crate) round_trip: Duration,
}

/// Estimate of one carrier.
#[derive(Debug)]
pub(crate) struct Credit {
    most: u64,
    /// Delay of the peer's reports.
    report_delay: Duration,
    /// Greatest rate of each bucket, in bytes per second.
    rates: [u64; BUCKETS],
    /// The same while the carrier was in full use. Other rates are those of the writer.
    full_rates: [u64; BUCKETS],
    /// The last of the latter, however old.
    last_rate: Option<u64>,
    /// Number of the latest bucket since time zero.
    latest: u64,
    least_round_trip: Option<Duration>,
    /// When the least round trip was last found to be true.
    known_at: Duration,
    /// Since when the carrier is left to run empty.
    probe: Option<Duration>,
}

impl Credit {
    /// Creates an estimate with at most `most` bytes, for a peer that reports after `report_delay`.
    pub(crate) fn new(most: u64, report_delay: Duration, now: Duration) -> Self {
        Self {
            most,
            report_delay,
            rates: [0; BUCKETS],
            full_rates: [0; BUCKETS],
            last_rate: None,
            latest: bucket(now),
            least_round_trip: None,
            known_at: now,
            probe: None,
        }
    }

    /// Takes a report about a delivery.
    pub(crate) fn reported(&mut self, now: Duration, delivery: Delivery) {
        let Delivery {
            bytes,
            time,
            round_trip,
        } = delivery;
        self.advance(now);
        let micros = time.as_micros().max(1);
        let rate = u128::from(bytes) * 1_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let is_full = bytes >= self.bytes() / 2;
        let place = place(self.latest);
        self.rates[place] = rate.max(self.rates[place]);
        if is_full {
            self.full_rates[place] = rate.max(self.full_rates[place]);
            self.last_rate = Some(rate);
        }
        self.measured(now, round_trip);
    }

    fn measured(&mut self, now: Duration, round_trip: Duration) {
        if let Some(since) = self.probe {
            // The carrier held little when this was sent.
            if now.saturating_sub(round_trip) >= since {
                self.least_round_trip = Some(round_trip);
                self.known_at = now;
                self.probe = None;
            }
            return;
        }
        if self
            .least_round_trip
            .is_none_or(|least| round_trip <= least)
        {
            self.least_round_trip = Some(round_trip);
            self.known_at = now;
        }
        if now.saturating_sub(self.known_at) >= MEMORY {
            self.probe = Some(now);
        }
    }

    /// Returns the credit in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let Some(least) = self.least_round_trip else {
            return INITIAL;
        };
        if self.probe.is_some() {
            return INITIAL;
        }
        let greatest = |rates: &[u64]| rates.iter().max().copied().unwrap_or(0);
        let loop_time = least + MARGIN + self.report_delay;
        let delivered = in_time(greatest(&self.rates), loop_time);
        let credit = delivered.saturating_add(2 * CHUNK as u64).max(INITIAL);
        let bounded = match greatest(&self.full_rates) {
            0 => credit,
            full => credit.min(in_time(full, loop_time + QUEUE_TIME)),
        };
        bounded.clamp(CHUNK as u64, self.most)
    }

    /// Returns the last known rate of the carrier in bytes per second.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.last_rate
    }

    /// Returns the least round trip, the delay of reports included; `None`: nothing was reported.
    pub(crate) fn least_round_trip(&self) -> Option<Duration> {
        self.least_round_trip
    }

    fn advance(&mut self, now: Duration) {
        let current = bucket(now);
        let skipped = current.saturating_sub(self.latest).min(BUCKETS as u64);
        for number in 0..skipped {
            self.rates[place(current - number)] = 0;
            self.full_rates[place(current - number)] = 0;
        }
        self.latest = self.latest.max(current);
    }
}

/// Returns the bytes that a rate delivers in a time.
fn in_time(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_micros() / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn bucket(now: Duration) -> u64 {
    u64::try_from(now.as_micros() / BUCKET.as_micros()).unwrap_or(u64::MAX)
}

fn place(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn delivery(bytes: u64, time: u64, round_trip: u64) -> Delivery {
        Delivery {
            bytes,
            time: ms(time),
            round_trip: ms(round_trip),
        }
    }

    /// Drives a carrier of `rate` bytes per millisecond that always has its credit in flight.
    fn settled(rate: u64, round_trip: u64, most: u64) -> u64 {
        let mut credit = Credit::new(most, DELAY, ms(0));
        let mut now = 0;
        for _ in 0..100 {
            let in_flight = credit.bytes();
            let time = (round_trip + 20).max(in_flight / rate);
            now += time;
            credit.reported(ms(now), delivery(in_flight, time, time));
        }
        credit.bytes()
    }

    #[test]
    fn it_grows_to_what_the_carrier_delivers_and_no_further() {
        // 700 bytes per millisecond: the round trip, the delay of reports and the margin.
        for (round_trip, expected) in [(0, 35_000), (100, 105_000)] {
            let credit = settled(700, round_trip, 1 << 20);
            let bounds = expected..expected * 2;
            assert!(bounds.contains(&credit), "{round_trip}: {credit}");
        }
        assert_eq!(settled(1 << 20, 50, 1 << 20), 1 << 20);
    }

    #[test]
    fn a_pause_is_forgotten_after_a_second_only() {
        let mut credit = Credit::new(1 << 20, DELAY, ms(0));
        assert_eq!(credit.bytes(), INITIAL);
        credit.reported(ms(10), delivery(100_000, 100, 10));
        let busy = credit.bytes();
        assert_eq!(busy, 100_000 * 60 / 100 + 8192);
        credit.reported(ms(900), delivery(1, 10, 10));
        assert_eq!(credit.bytes(), busy);
        credit.reported(ms(1_100), delivery(1_000, 10, 10));
        assert_eq!(credit.bytes(), INITIAL);
    }

    #[test]
    fn the_least_round_trip_is_measured_again_with_an_empty_carrier() {
        let mut credit = Credit::new(1 << 20, DELAY, ms(0));
        let mut report = |at, round_trip| {
            credit.reported(ms(at), delivery(100_000, 10, round_trip));
            (credit.least_round_trip(), credit.bytes() == INITIAL)
        };
        assert_eq!(report(1, 30), (Some(ms(30)), false));
        assert_eq!(report(9_000, 50), (Some(ms(30)), false));
        assert_eq!(report(10_001, 50), (Some(ms(30)), true));
        // Sent before the carrier ran empty.
        assert_eq!(report(10_040, 50), (Some(ms(30)), true));
        assert_eq!(report(10_060, 45), (Some(ms(45)), false));
    }
}
