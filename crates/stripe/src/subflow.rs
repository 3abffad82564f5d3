//! One carrier of a bundle.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::credit::{Credit, Delivery};
use crate::frame::Parser;

/// Time without a report after which what a carrier holds goes over the others too. A killed
/// session is noticed at once; one that is frozen or being resumed is noticed by this only.
const STALL: Duration = Duration::from_millis(300);

/// A carrier this many times slower than the fastest one is left out: the data behind what it holds
/// would wait for longer than it saves.
const SLOW: u64 = 16;
/// Time after which a slow carrier is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// State of a carrier's hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubflowState {
    /// The reply is missing. Nothing but the hello may be sent.
    Starting,
    /// The reply is missing. It is the only carrier, so frames follow the hello at once.
    Hasty,
    /// Both sides know it.
    Ready,
    /// The relay has refused it.
    Refused,
}

/// A frame inside a carrier.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    /// Sent bytes up to the end of the frame.
    end: u64,
    number: u64,
    sent_at: Duration,
    /// Bytes that had arrived when it was sent, and the time of the report about them.
    arrived: (u64, Duration),
}

/// One carrier.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(crate) generation: u16,
    pub(crate) state: SubflowState,
    /// Hello or reply that is to be sent first.
    pub(crate) greeting: Option<Bytes>,
    pub(crate) parser: Parser,
    /// Bytes of counted frames that have arrived, and those of them that were reported.
    pub(crate) received: u64,
    pub(crate) reported: u64,
    /// Bytes of counted frames that were sent, and those of them that have arrived.
    sent: u64,
    arrived: u64,
    in_flight: VecDeque<InFlight>,
    credit: Credit,
    /// Last report, or the first frame after an idle time.
    progress: Duration,
    /// It made no progress for too long.
    pub(crate) is_stalled: bool,
}

impl Subflow {
    pub(crate) fn new(
        generation: u16,
        (state, greeting): (SubflowState, Bytes),
        credit: Credit,
        now: Duration,
    ) -> Self {
        Self {
            generation,
            state,
            greeting: Some(greeting),
            parser: Parser::default(),
            received: 0,
            reported: 0,
            sent: 0,
            arrived: 0,
            in_flight: VecDeque::new(),
            credit,
            progress: now,
            is_stalled: false,
        }
    }

    /// Returns true if frames may be sent.
    pub(crate) fn takes_frames(&self) -> bool {
        matches!(self.state, SubflowState::Ready | SubflowState::Hasty)
    }

    /// Returns the bytes inside the carrier.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.arrived
    }

    /// Returns the credit in bytes.
    pub(crate) fn credit(&self) -> u64 {
        self.credit.bytes()
    }

    /// Returns the sent bytes of counted frames.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the least round trip of this carrier.
    pub(crate) fn least_round_trip(&self) -> Option<Duration> {
        self.credit.least_round_trip()
    }

    /// Returns the last known rate in bytes per second.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.credit.rate()
    }

    /// Returns true if the carrier is to be left out beside one with the rate `best`.
    pub(crate) fn is_slow_beside(&self, best: u64, now: Duration) -> bool {
        let is_slow = self
            .rate()
            .is_some_and(|rate| rate.saturating_mul(SLOW) < best);
        is_slow && now.saturating_sub(self.progress) < TRY_AGAIN
    }

    /// Notes a counted frame that is sent.
    pub(crate) fn send(&mut self, number: u64, length: usize, now: Duration) {
        if self.in_flight.is_empty() {
            self.progress = now;
        }
        self.sent += length as u64;
        self.in_flight.push_back(InFlight {
            end: self.sent,
            number,
            sent_at: now,
            arrived: (self.arrived, self.progress),
        });
    }

    /// Takes a report of the peer and returns the frames that have arrived. An older report than
    /// the last one is ignored.
    pub(crate) fn report(&mut self, received: u64, now: Duration) -> Vec<u64> {
        if received <= self.arrived {
            return Vec::new();
        }
        self.arrived = received;
        self.progress = now;
        self.is_stalled = false;
        let mut arrived = Vec::new();
        let mut latest = None;
        while let Some(frame) = self.in_flight.front().copied() {
            if frame.end > received {
                break;
            }
            self.in_flight.pop_front();
            latest = Some(frame);
            arrived.push(frame.number);
        }
        if let Some(frame) = latest {
            let (before, since) = frame.arrived;
            let delivery = Delivery {
                bytes: received - before,
                time: now.saturating_sub(since),
                round_trip: now.saturating_sub(frame.sent_at),
            };
            self.credit.reported(now, delivery);
        }
        arrived
    }

    /// Returns the frames inside the carrier, the oldest first.
    pub(crate) fn held(&self) -> impl Iterator<Item = u64> {
        self.in_flight.iter().map(|frame| frame.number)
    }

    /// Returns the time at which the carrier counts as stalled; `None`: it holds nothing, or does
    /// already.
    pub(crate) fn stalls_at(&self) -> Option<Duration> {
        let waits = !self.is_stalled && !self.in_flight.is_empty();
        let usual = self.least_round_trip().unwrap_or_default();
        waits.then(|| self.progress + STALL + usual)
    }
}
