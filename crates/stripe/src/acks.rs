//! When to report what has arrived, and on which subflow.
//!
//! Reports cost bandwidth in both directions: each message of the client takes the agent's time
//! away from its sending, and each message of the relay takes one of the session's 700 turns per
//! second. So the client reports every 16 KiB of a subflow or after 15 ms, the relay every 64 KiB
//! or after 25 ms.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::frame::StreamId;

/// Pace of one side's reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AckPace {
    /// Bytes of one subflow after which a report is due at once.
    pub(crate) bytes: u64,
    /// Longest delay of a report.
    pub(crate) delay: Duration,
}

/// Pace of a client's reports.
pub(crate) const CLIENT_PACE: AckPace = AckPace {
    bytes: 16 * 1024,
    delay: Duration::from_millis(15),
};
/// Pace of a relay's reports.
pub(crate) const RELAY_PACE: AckPace = AckPace {
    bytes: 64 * 1024,
    delay: Duration::from_millis(25),
};

/// What is to be reported.
#[derive(Debug)]
pub(crate) struct Acks {
    pace: AckPace,
    /// Since when something is unreported.
    since: Option<Duration>,
    /// The next report is due at this time.
    due: Option<Duration>,
    /// Streams whose limit is to be reported.
    pub(crate) limits: BTreeSet<StreamId>,
    /// Subflows whose peer asked for a report of everything.
    pub(crate) asked: BTreeSet<u8>,
    /// Subflow of the last report; the next one goes over another.
    pub(crate) last: u8,
}

impl Acks {
    pub(crate) fn new(pace: AckPace) -> Self {
        Self {
            pace,
            since: None,
            due: None,
            limits: BTreeSet::new(),
            asked: BTreeSet::new(),
            last: 0,
        }
    }

    /// Notes that a subflow has `unreported` bytes.
    pub(crate) fn received(&mut self, unreported: u64, now: Duration) {
        match unreported >= self.pace.bytes {
            true => self.at_once(now),
            false => self.soon(now),
        }
    }

    /// Demands a report within the pace's delay.
    pub(crate) fn soon(&mut self, now: Duration) {
        let since = *self.since.get_or_insert(now);
        let due = since + self.pace.delay;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Demands a report now.
    pub(crate) fn at_once(&mut self, now: Duration) {
        self.since.get_or_insert(now);
        self.due = Some(self.due.map_or(now, |earlier| earlier.min(now)));
    }

    /// Returns the time of the next report.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Returns true if a report may join data that leaves anyway: half of its delay is over.
    pub(crate) fn may_join(&self, now: Duration) -> bool {
        self.since
            .is_some_and(|since| now.saturating_sub(since) * 2 >= self.pace.delay)
    }

    /// Notes that everything is reported.
    pub(crate) fn reported(&mut self) {
        self.since = None;
        self.due = None;
    }
}
