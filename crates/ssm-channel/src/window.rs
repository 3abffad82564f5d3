//! The send window. It is the only limit for sending in this crate.
//!
//! The unit is the message: 1 KiB of payload at most. The carrier is a WebSocket on TCP, so TCP
//! handles congestion of the network, and a message is lost only where a relay or the agent drops
//! it. The risk here is a *queue*: an agent that takes 700 messages a second from a sender with
//! 4,096 under way makes every new message wait six seconds. So the window is governed by delay
//! first, and by loss second.
//!
//! **Delay.** `base` is the smallest round trip: the path itself. `queue` is the additional time of
//! the fastest message of the last round. It is compared with
//! `target = clamp(base, 50 ms, 300 ms)`. A *round* is one round trip: it ends when a message is
//! acknowledged that was sent after its beginning. At its end:
//!
//! - In slow start, below `threshold`, every acknowledgement has added one message (the window
//!   doubles in a round); `queue > target / 2` sets the threshold.
//! - Above it the window changes by `size / 8 × (target − queue) / target`, at most by an eighth
//!   either way. It settles where `queue = target`: an agent that takes `r` messages a second has
//!   `r × (base + target)` under way, which is enough to keep it busy and adds `target` of delay.
//!   32 messages reach 4,096 in 7 rounds of slow start: 2 s at 300 ms a round. 4,096 messages in
//!   300 ms are 14 MB/s.
//!
//! It grows only while it is used up: an idle session proves nothing.
//!
//! A queue that never empties must not be mistaken for the path. So `base` only decreases, with one
//! exception: after [`BASE_LIFETIME`], a message that found the path nearly empty (fewer than
//! [`SMALLEST`] under way) sets it anew. A path that has become longer looks like a queue at first:
//! the window shrinks until there is such a message, and then opens again.
//!
//! **Loss.** When messages are overdue the window shrinks by half their share of the last few
//! hundred messages (two windows if that is more): by half when nothing gets through, by half a
//! percent when 1 % is lost, hardly at all for the one message that an agent drops because its port
//! handler is not ready. Only a message that was sent after the window last shrank for a loss
//! counts, so that happens at most once per round trip. With more than 1/8 lost the threshold comes
//! down with the window, but only once in a row: when an agent that was stuck continues, slow start
//! restores the window. Before the first measurement a loss has no effect: a slow path looks like a
//! lossy one. The window is never below [`SMALLEST`].

use std::time::Duration;

/// Largest distance of a message from the oldest unacknowledged one. The agent keeps 10,000
/// messages that arrive ahead of a missing one and drops the rest; staying below avoids that.
const MAX_SPAN: u64 = 8_192;
/// Window of a new connection. An agent takes as many at once without a measurable delay.
const INITIAL: usize = 32;
/// Smallest window, so that some message always measures the path.
const SMALLEST: usize = 4;
/// Time for which a smallest round trip is valid.
const BASE_LIFETIME: Duration = Duration::from_secs(10);
/// Bounds of the target delay. The lower one is more than the scheduling of an agent or a laptop
/// adds; the upper one keeps the round trip below the longest retransmission timeout.
const TARGET: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));

/// Minimum number of messages from which the share of losses is computed.
const MEMORY: usize = 256;

/// Data recorded about a message when it is handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendMark {
    serial: u64,
    /// It found the path nearly empty, so its round trip includes no queue of this side.
    alone: bool,
}

/// The send window: the number of messages that may be unacknowledged.
#[derive(Debug)]
pub(crate) struct SendWindow {
    cap: usize,
    size: usize,
    /// Upper end of slow start.
    threshold: usize,
    /// Size of the previous connection's window.
    proven: usize,
    /// Messages handed out so far; the number is their serial.
    serial: u64,
    /// The round ends with the acknowledgement of this serial or a later one.
    round_end: u64,
    /// The smallest round trip of this round.
    round_best: Option<Duration>,
    /// The most that was in flight in this round, and in the one before.
    peaks: [usize; 2],
    base: Option<Baseline>,
    /// Acknowledged and overdue messages; both are halved when they become many.
    arrived: usize,
    lost: usize,
    /// Messages handed out since the window last shrank for a loss have higher serials.
    last_cut: u64,
    /// A message was acknowledged since then.
    progress: bool,
}

#[derive(Debug, Clone, Copy)]
struct Baseline {
    trip: Duration,
    at: Duration,
}

impl SendWindow {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            cap,
            size: INITIAL.min(cap),
            threshold: usize::MAX,
            proven: 0,
            serial: 0,
            round_end: 0,
            round_best: None,
            peaks: [0, 0],
            base: None,
            arrived: 0,
            lost: 0,
            last_cut: 0,
            progress: false,
        }
    }

    /// Starts again for a new connection with an unknown path.
    pub(crate) fn restart(&mut self) {
        let (serial, proven) = (self.serial, self.size.max(self.proven));
        *self = Self {
            serial,
            proven,
            round_end: serial,
            last_cut: serial,
            ..Self::new(self.cap)
        };
    }

    /// Returns the current window.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Returns the smallest recent round trip.
    pub(crate) fn base(&self) -> Option<Duration> {
        self.base.map(|base| base.trip)
    }

    /// Returns the number of further messages that may be taken, with `in_flight` unacknowledged
    /// ones (sent or waiting to be) and `span` numbers from the oldest of them to the next new one.
    pub(crate) fn room(&self, in_flight: usize, span: u64) -> usize {
        let by_span = usize::try_from(MAX_SPAN.saturating_sub(span)).unwrap_or(usize::MAX);
        self.size.saturating_sub(in_flight).min(by_span)
    }

    /// Returns true if one more message may be handed out, with `under_way` messages sent on this
    /// connection and neither acknowledged nor overdue. Messages beyond a window that has shrunk
    /// wait, so that not everything is repeated at once. A few are always allowed, whatever the
    /// configured limit: the handshake's messages do not count as data.
    pub(crate) fn may_hand_out(&self, under_way: usize) -> bool {
        under_way < self.size.max(SMALLEST)
    }

    /// Records a message handed out; `under_way` as above without it, `in_flight` with it.
    pub(crate) fn handed_out(&mut self, under_way: usize, in_flight: usize) -> SendMark {
        self.peaks[0] = self.peaks[0].max(in_flight);
        self.serial += 1;
        SendMark {
            serial: self.serial,
            alone: under_way < SMALLEST,
        }
    }

    /// Records an acknowledgement, after `trip` if that is known: the message was sent only once
    /// and was not delayed by a pause.
    pub(crate) fn acknowledged(&mut self, now: Duration, mark: SendMark, trip: Option<Duration>) {
        self.count(1, 0);
        self.progress = true;
        if let Some(trip) = trip {
            self.measured(now, trip, mark.alone);
        }
        // A repeated message measures nothing. If its acknowledgement is due to a queue and not a
        // loss, growing would lengthen the queue: grow only up to a proven size.
        let safe = trip.is_some() || self.threshold != usize::MAX || self.size < self.proven;
        // All acknowledgements of a round may come at once: by the last one the window is up to
        // twice the number in flight.
        let used = self.size < 2 * self.peak();
        if safe && used && self.size < self.threshold {
            self.size = (self.size + 1).min(self.cap);
        }
        if mark.serial > self.round_end {
            self.end_round();
        }
    }

    fn measured(&mut self, now: Duration, trip: Duration, alone: bool) {
        self.round_best = Some(self.round_best.map_or(trip, |best| best.min(trip)));
        let expired = self
            .base
            .is_some_and(|base| now.saturating_sub(base.at) > BASE_LIFETIME);
        let smaller = self.base.is_none_or(|base| trip <= base.trip);
        if smaller || (expired && alone) {
            self.base = Some(Baseline { trip, at: now });
        }
    }

    fn end_round(&mut self) {
        if let (Some(best), Some(base)) = (self.round_best, self.base) {
            self.adjust(best.saturating_sub(base.trip), base.trip);
        }
        self.round_end = self.serial;
        self.round_best = None;
        self.peaks = [0, self.peaks[0]];
    }

    fn peak(&self) -> usize {
        self.peaks[0].max(self.peaks[1])
    }

    /// Returns true if the window was used up in this round or the last, except for its growth
    /// since.
    fn used_up(&self) -> bool {
        self.peak() + self.size / 8 + 1 >= self.size
    }

    fn adjust(&mut self, queue: Duration, base: Duration) {
        let target = base.clamp(TARGET.0, TARGET.1);
        if self.size < self.threshold {
            if queue > target / 2 {
                self.threshold = self.size;
            }
            return;
        }
        let step = |by: Duration| {
            let share = by.min(target).as_micros() * self.size as u128;
            let step = usize::try_from(share / (8 * target.as_micros())).unwrap_or(0);
            step.max(1)
        };
        if queue > target {
            let smaller = self.size.saturating_sub(step(queue - target));
            self.size = smaller.max(SMALLEST.min(self.cap));
        } else if self.used_up() {
            self.size = (self.size + step(target - queue)).min(self.cap);
        }
        self.threshold = self.size;
    }

    /// Records a message that was not acknowledged in time.
    pub(crate) fn expired(&mut self, mark: SendMark) {
        if self.base.is_none() {
            return;
        }
        self.count(0, 1);
        if mark.serial <= self.last_cut {
            return;
        }
        let all = self.lost + self.arrived;
        let smaller = self.size - self.size * self.lost / (2 * all).max(1);
        self.size = smaller.max(SMALLEST.min(self.cap));
        if self.lost * 8 > all && self.progress {
            self.threshold = self.threshold.min(self.size);
        }
        self.progress = false;
        self.last_cut = self.serial;
    }

    fn count(&mut self, arrived: usize, lost: usize) {
        self.arrived += arrived;
        self.lost += lost;
        if self.arrived + self.lost > MEMORY.max(2 * self.size) {
            self.arrived /= 2;
            self.lost /= 2;
        }
    }
}

#[cfg(test)]
mod tests;
