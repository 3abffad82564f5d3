//! A bundle: all streams, and all carriers that they are spread over.

mod receive;
mod transmit;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::acks::{Acks, CLIENT_PACE, RELAY_PACE};
use crate::credit::Credit;
use crate::error::StripeError;
use crate::finished::FinishedIds;
use crate::frame::{Body, Frame, MAX_TEXT, StreamId, clip};
use crate::hello::{BundleId, Hello, HelloReply, MAX_SUBFLOWS};
use crate::incoming::Incoming;
use crate::limited::Limited;
use crate::outgoing::Outgoing;
use crate::subflow::{Subflow, SubflowState};

/// Maximum number of open streams of a bundle.
pub(crate) const MAX_STREAMS: usize = 4096;
/// Bytes by which all windows together may exceed the initial ones. A relay serves many bundles.
const SPARE_OF_CLIENT: u64 = 64 * 1024 * 1024;
const SPARE_OF_RELAY: u64 = 16 * 1024 * 1024;
/// Greatest credit of a carrier: towards the client the agent is slow, towards the relay it is not.
const MOST_CREDIT_OF_CLIENT: u64 = 1024 * 1024;
const MOST_CREDIT_OF_RELAY: u64 = 256 * 1024;

/// Side of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens carriers and streams.
    Client(BundleId),
    /// Accepts them.
    Relay,
}

/// Action of the peer, or a change that the driver waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleEvent {
    /// The peer opened a stream (relay only).
    Opened {
        /// The stream.
        id: StreamId,
        /// Where the client wants to go, as `HOST:PORT`.
        target: String,
    },
    /// Bytes of a stream, in order.
    Data {
        /// The stream.
        id: StreamId,
        /// At least one byte.
        data: Bytes,
    },
    /// The peer sends no more on this stream; it still receives.
    Finished(StreamId),
    /// The peer ended the stream in both directions. No more events carry this id.
    Reset {
        /// The stream.
        id: StreamId,
        /// Reason for a person.
        reason: String,
    },
    /// A stream whose [`room`](Bundle::room) was used up has room again.
    Writable(StreamId),
    /// The relay has accepted this subflow (client only).
    Ready(u8),
    /// A stream has waited for credit for 100 ms, in any direction, so more carriers would make it
    /// faster (client only). It comes again while that lasts.
    Limited,
    /// The relay has refused this subflow (client only). The driver closes its carrier.
    Refused {
        /// Index of the subflow.
        index: u8,
        /// Reason for a person.
        reason: String,
    },
}

/// Bytes for a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Index of the subflow whose carrier gets the bytes.
    pub index: u8,
    /// The bytes, whole frames.
    pub bytes: Bytes,
}

/// Both halves of a stream.
#[derive(Debug)]
struct StripedStream {
    /// The peer's OPEN has arrived, or this side opened it.
    is_open: bool,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Key in [`Bundle::waiting`].
    waits_as: Option<(u64, u64)>,
}

impl StripedStream {
    fn new(is_open: bool, now: Duration) -> Self {
        Self {
            is_open,
            incoming: Incoming::new(now),
            outgoing: Outgoing::new(),
            waits_as: None,
        }
    }
}

/// A frame that was not yet reported as received.
#[derive(Debug)]
struct Unsettled {
    frame: Frame,
    /// Number of carriers that hold it.
    copies: u8,
    /// It is in [`Bundle::first`].
    is_queued: bool,
}

/// All streams and carriers of one client at one relay.
///
/// Calling order: after each call that changes the bundle take
/// [`poll_transmit`](Self::poll_transmit) until it returns nothing, then all
/// [`poll_event`](Self::poll_event)s. Credit bounds the first, and windows the second, so the driver
/// may queue all of it.
///
/// A violation of the protocol by the peer ends the bundle: later calls return it, and nothing is
/// sent any more.
#[derive(Debug)]
pub struct Bundle {
    role: Role,
    subflows: BTreeMap<u8, Subflow>,
    /// Latest generation of each index.
    generations: [u16; MAX_SUBFLOWS as usize],
    streams: HashMap<StreamId, StripedStream>,
    finished: FinishedIds,
    next_id: Option<u32>,
    unsettled: HashMap<u64, Unsettled>,
    next_frame: u64,
    /// Frames that go before new data: OPEN, FIN, RESET, and what ended carriers had not delivered.
    first: VecDeque<u64>,
    /// Streams with data for a frame, those with the fewest bytes in flight first.
    waiting: BTreeSet<(u64, u64, StreamId)>,
    /// Number of chunks sent; the order of streams with equal bytes in flight.
    turn: u64,
    /// Time of the last chunk of a stream with little in flight, beside other streams.
    small_message: Option<Duration>,
    acks: Acks,
    /// Streams whose data waits for the peer's window.
    blocked: BTreeSet<StreamId>,
    limited: Limited,
    /// When to ask the peer for its reports, and the pause after that.
    ping: Option<(Duration, Duration)>,
    events: VecDeque<BundleEvent>,
    /// Growth of all windows.
    grown: u64,
    failed: Option<StripeError>,
}

impl Bundle {
    /// Creates a bundle without carriers and streams.
    #[must_use]
    pub fn new(role: Role) -> Self {
        let pace = match role {
            Role::Client(_) => CLIENT_PACE,
            Role::Relay => RELAY_PACE,
        };
        Self {
            role,
            subflows: BTreeMap::new(),
            generations: [0; MAX_SUBFLOWS as usize],
            streams: HashMap::new(),
            finished: FinishedIds::default(),
            next_id: Some(1),
            unsettled: HashMap::new(),
            next_frame: 0,
            first: VecDeque::new(),
            waiting: BTreeSet::new(),
            turn: 0,
            small_message: None,
            acks: Acks::new(pace),
            blocked: BTreeSet::new(),
            limited: Limited::new(),
            ping: None,
            events: VecDeque::new(),
            grown: 0,
            failed: None,
        }
    }

    /// Adds a carrier, at the client a new one, at the relay one whose [`Hello`] has arrived. A
    /// carrier of the same index is replaced. `now` is the time since any fixed moment.
    ///
    /// # Errors
    /// [`StripeError::Index`], [`StripeError::Generation`] unless `generation` is higher than that
    /// of every earlier carrier of this index, or the error that ended the bundle.
    pub fn attach(&mut self, index: u8, generation: u16, now: Duration) -> Result<(), StripeError> {
        self.check()?;
        let latest = self.generations.get_mut(usize::from(index));
        let latest = latest.ok_or(StripeError::Index(index))?;
        if generation <= *latest {
            return Err(StripeError::Generation {
                index,
                current: *latest,
                offered: generation,
            });
        }
        *latest = generation;
        self.remove(index, now);
        let (most, delay) = match self.role {
            Role::Client(_) => (MOST_CREDIT_OF_CLIENT, RELAY_PACE.delay),
            Role::Relay => (MOST_CREDIT_OF_RELAY, CLIENT_PACE.delay),
        };
        let begin = match self.role {
            Role::Client(bundle) => {
                let hello = Hello {
                    bundle,
                    index,
                    generation,
                };
                let state = match self.subflows.values().any(Subflow::takes_frames) {
                    true => SubflowState::Starting,
                    false => SubflowState::Hasty,
                };
                (state, hello.encode())
            }
            Role::Relay => (SubflowState::Ready, HelloReply::Accepted.encode()),
        };
        let credit = Credit::new(most, delay, now);
        let subflow = Subflow::new(generation, begin, credit, now);
        self.subflows.insert(index, subflow);
        self.report_everything(now);
        Ok(())
    }

    /// Removes a carrier that has ended. What it had not delivered goes over the others, or over
    /// the next one. A `generation` that was replaced already changes nothing.
    pub fn detach(&mut self, index: u8, generation: u16, now: Duration) {
        let is_current = |subflow: &Subflow| subflow.generation == generation;
        if self.subflows.get(&index).is_some_and(is_current) {
            self.remove(index, now);
        }
    }

    /// Returns the number of open streams.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream to `target` (client only).
    ///
    /// # Errors
    /// [`StripeError::TooLong`], [`StripeError::IdsExhausted`], or the error that ended the bundle.
    pub fn open(&mut self, target: &str, now: Duration) -> Result<StreamId, StripeError> {
        self.check()?;
        if target.len() > MAX_TEXT {
            return Err(StripeError::TooLong(target.len()));
        }
        let number = self.next_id.ok_or(StripeError::IdsExhausted)?;
        self.next_id = number.checked_add(1);
        let id = StreamId(number);
        self.streams.insert(id, StripedStream::new(true, now));
        self.queue_first(id, Body::Open(target.to_owned()));
        Ok(id)
    }

    /// Queues bytes of a stream. Takes any amount; the driver keeps to [`room`](Self::room).
    ///
    /// # Errors
    /// [`StripeError::NotOpen`], or the error that ended the bundle.
    pub fn send(&mut self, id: StreamId, data: Bytes) -> Result<(), StripeError> {
        self.check()?;
        let stream = self.streams.get_mut(&id);
        let stream = stream.filter(|stream| stream.is_open && !stream.outgoing.is_closing);
        let stream = stream.ok_or(StripeError::NotOpen(id))?;
        if !data.is_empty() {
            stream.outgoing.push(data);
            stream.outgoing.wants_room = stream.outgoing.room() == 0;
            self.wait(id);
        }
        Ok(())
    }

    /// Returns the number of bytes that the driver should queue at most; 0 when the stream is
    /// unknown. After it was used up, [`BundleEvent::Writable`] follows.
    #[must_use]
    pub fn room(&self, id: StreamId) -> usize {
        let stream = self.streams.get(&id);
        stream.map_or(0, |stream| stream.outgoing.room())
    }

    /// Ends this side of a stream after its queued data.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.outgoing.is_closing = true;
            self.frame_end(id);
        }
    }

    /// Ends both sides of a stream and drops its data. A reason longer than
    /// [`MAX_TEXT`] is cut.
    pub fn reset(&mut self, id: StreamId, reason: &str) {
        if self.streams.contains_key(&id) {
            self.forget(id);
            self.queue_first(id, Body::Reset(clip(reason).to_owned()));
        }
    }

    /// Notes that the reader of a stream has taken `bytes` of the data in its events, which makes
    /// room in the stream's window.
    pub fn consume(&mut self, id: StreamId, bytes: usize, now: Duration) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let spare = match self.role {
            Role::Client(_) => SPARE_OF_CLIENT,
            Role::Relay => SPARE_OF_RELAY,
        };
        let spare = spare.saturating_sub(self.grown);
        self.grown += stream.incoming.consume(bytes as u64, spare, now);
        match stream.incoming.unreported_quarters() {
            0 => return,
            1 => self.acks.soon(now),
            _ => self.acks.at_once(now),
        }
        self.acks.limits.insert(id);
    }

    /// Returns the next event, oldest first.
    pub fn poll_event(&mut self) -> Option<BundleEvent> {
        self.events.pop_front()
    }

    /// Returns the time of the next [`handle_timeout`](Self::handle_timeout) and
    /// [`poll_transmit`](Self::poll_transmit); `None`: only input can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.failed.is_some() || !self.subflows.values().any(Subflow::takes_frames) {
            return None;
        }
        let stalls = self.subflows.values().filter_map(Subflow::stalls_at);
        let stall = stalls.min().filter(|_| self.healthy() > 1);
        let ping = self.ping.map(|(at, _)| at);
        [stall, ping, self.acks.due()].into_iter().flatten().min()
    }

    /// Does what is due: repeats what stalled carriers hold, and asks for missing reports.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.failed.is_none() {
            self.repeat_stalled(now);
            self.ask_for_reports(now);
        }
    }

    fn check(&self) -> Result<(), StripeError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Counts carriers that take frames and make progress.
    fn healthy(&self) -> usize {
        let healthy = |subflow: &&Subflow| subflow.takes_frames() && !subflow.is_stalled;
        self.subflows.values().filter(healthy).count()
    }

    /// Removes a stream and everything queued for it.
    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        self.grown -= stream.incoming.window() - crate::incoming::INITIAL_WINDOW;
        if let Some((in_flight, turn)) = stream.waits_as {
            self.waiting.remove(&(in_flight, turn, id));
        }
        self.blocked.remove(&id);
        self.acks.limits.remove(&id);
        self.finished.insert(id.0);
    }

    /// Removes a stream if both sides have ended it and know so.
    fn forget_if_over(&mut self, id: StreamId) {
        let is_over = |stream: &StripedStream| stream.outgoing.is_over() && stream.incoming.is_over;
        if self.streams.get(&id).is_some_and(is_over) {
            self.forget(id);
        }
    }

    /// Makes every report go out again: one that was in an ended carrier may be lost.
    fn report_everything(&mut self, now: Duration) {
        for subflow in self.subflows.values_mut() {
            subflow.reported = 0;
        }
        self.acks.limits.extend(self.streams.keys());
        self.acks.soon(now);
    }
}
