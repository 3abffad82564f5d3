//! State shared by the driver and the streams of one session, behind one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smux::{Mux, StreamId};
use ssm_channel::Channel;
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use crate::base::names::NodeId;
use crate::config::Endpoint;
use crate::tunnel::ssm::pending_dials::PendingDials;
use crate::tunnel::{SpareMark, TunnelError, TunnelTotals};

/// Most bytes one stream may have queued for the agent before its writer waits. The channel sends
/// at most a window of 1 KiB messages ahead of the agent's acknowledgements, so a larger queue
/// would not help.
pub(super) const SEND_BUFFER: usize = 256 * 1024;

/// Most unread bytes of all sessions of a target together. smux v1 has no window of its own, so
/// this is the only bound on the memory used by slow clients.
const RECEIVE_BUFFERS: usize = 64 * 1024 * 1024;
/// Minimum share of a session.
const LEAST_RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Unread bytes that show that a client has stopped reading, or is slower than the tunnel; its
/// session gets no new streams while there is a better one. At the agent's 0.7 MB/s a client is a
/// third of a second behind then.
const LAGGING: usize = 256 * 1024;

/// Time since its last byte within which a stream counts as moving bytes. Opening a second
/// connection by hand takes longer; programs that open several at once will use several at once.
const QUIET: Duration = Duration::from_millis(100);
/// Time for which a stream that waits for an answer counts as moving bytes; a longer wait means
/// that the server is still computing the answer.
const ANSWERING: Duration = Duration::from_millis(500);

/// Bytes up to which a stream that moves bytes is taken for a login and its first queries.
const LIGHT: usize = 64 * 1024;

/// Time that received bytes may wait for missing ones before new streams go elsewhere.
const GAP: Duration = Duration::from_secs(1);
/// A session that ends before this, and before it received any data, has failed early. No limit of
/// an account is shorter.
pub(super) const EARLY: Duration = Duration::from_secs(60);

/// Bytes per piece of a stream's backlog.
const CHUNK: usize = 16 * 1024;

/// State shared by the driver and the handles of one session.
pub(super) struct SharedSession {
    state: Mutex<SessionMachines>,
    /// Wakes the driver: there is something to send, or room to read again.
    pub(super) wake: Notify,
}

/// The two protocol machines and the streams above them.
pub(super) struct SessionMachines {
    pub(super) channel: Channel,
    pub(super) mux: Mux,
    pub(super) streams: HashMap<StreamId, StreamSlot>,
    /// Bytes written by streams, and bytes received for streams.
    sent: u64,
    received: u64,
    /// Bytes in all inboxes together.
    unread: usize,
    /// Limit at which the socket is no longer read.
    receive_buffer: usize,
    /// Time of the end of the last stream of a connection.
    last_used: Instant,
    pub(super) dials: PendingDials,
    /// Reason of the session's end.
    pub(super) end: Option<TunnelError>,
    /// The session was asked to end.
    pub(super) closing: bool,
    /// The terminate flag has been handed to the machines.
    pub(super) goodbye_queued: bool,
    /// Accepts no new streams: the session ends with its last one.
    pub(super) retired: bool,
    /// Time since which the connection is being replaced, or the other side has been away.
    pub(super) interrupted: Option<Instant>,
    /// Time of the last input.
    pub(super) heard: Instant,
    /// The last dial with a known outcome was refused.
    pub(super) refused_last: bool,
    /// The agent has proved that it accepts the streams' data.
    pub(super) proven: bool,
    /// Time since which the agent has owed an answer in silence, once that is too long.
    pub(super) silent_since: Option<Instant>,
    /// Time since which received bytes have been waiting for missing ones.
    gap: Option<Instant>,
    created: Instant,
    /// Reason of an early failure.
    early_failure: Option<TunnelError>,
    /// The early failure was counted.
    early_failure_counted: bool,
}

/// Load of a session, for placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionLoad {
    /// A client does not read, a dial has been unanswered for too long, or received bytes wait for
    /// missing ones: a new stream here may have to wait.
    pub(super) troubled: bool,
    /// Streams that are moving bytes.
    pub(super) busy: usize,
    /// All streams.
    pub(super) streams: usize,
}

/// Outcome of the agent's dial, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialOutcome {
    /// No answer yet.
    Pending,
    /// The far side has sent data.
    Answered,
    /// The agent could not connect.
    Refused,
    /// The agent has not reached it: it is stuck in the dial of an earlier stream.
    Stranded,
    /// The agent has been silent for this long.
    Unheard(Duration),
    /// All input has been waiting for missing messages for this long.
    Delayed(Duration),
}

/// Repeatability of a stream's first bytes through another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatability {
    /// They may be repeated.
    Repeatable,
    /// They must not be repeated: their meaning is unknown.
    Irreplaceable,
}

/// One stream of a session: its received data and its state.
pub(super) struct StreamSlot {
    pub(super) endpoint: Endpoint,
    hello: Repeatability,
    /// The stream is for a later connection, until that takes it.
    spare: Option<SpareMark>,
    /// Bytes that it has moved, in both directions.
    bytes: usize,
    inbox: VecDeque<BytesMut>,
    unread: usize,
    pub(super) dial: DialOutcome,
    /// The agent closed the stream.
    pub(super) finished: bool,
    /// Its unread bytes were dropped in favour of the other streams.
    pub(super) overrun: bool,
    /// Time at which a byte last moved, in either direction.
    moved: Instant,
    /// Time at which its client last took a byte.
    took: Instant,
    /// Time since which written data has had no answer.
    waiting: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamSlot {
    pub(super) fn new(endpoint: Endpoint, hello: Repeatability, spare: Option<SpareMark>) -> Self {
        Self {
            endpoint,
            hello,
            spare,
            bytes: 0,
            inbox: VecDeque::new(),
            unread: 0,
            dial: DialOutcome::Pending,
            finished: false,
            overrun: false,
            moved: Instant::now(),
            took: Instant::now(),
            waiting: None,
            reader: None,
            writer: None,
        }
    }

    /// Records written bytes.
    pub(super) fn note_write(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.moved = Instant::now();
        self.waiting.get_or_insert(self.moved);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread > 0
    }

    /// Returns true if no connection uses the stream.
    fn is_spare(&self) -> bool {
        let spare = self.spare.as_ref();
        spare.is_some_and(|mark| !mark.is_taken())
    }

    /// Returns true if nothing more is read from the stream: the agent closed it, or it was given
    /// up before a connection used it.
    pub(super) fn is_over(&self) -> bool {
        self.finished || self.spare.as_ref().is_some_and(SpareMark::is_released)
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.unread > 0
            || now < self.moved + QUIET
            || self.waiting.is_some_and(|since| now < since + ANSWERING)
    }

    /// Moves unread bytes into `buf`; returns their number.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let before = buf.filled().len();
        while buf.remaining() > 0
            && let Some(chunk) = self.inbox.front_mut()
        {
            let n = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..n]);
            chunk.advance(n);
            if chunk.is_empty() {
                self.inbox.pop_front();
            }
        }
        let taken = buf.filled().len() - before;
        self.unread -= taken;
        if taken > 0 {
            self.took = Instant::now();
        }
        taken
    }

    pub(super) fn wait_to_read(&mut self, waker: &Waker) {
        self.reader = Some(waker.clone());
    }

    pub(super) fn wait_to_write(&mut self, waker: &Waker) {
        self.writer = Some(waker.clone());
    }

    /// Appends bytes. They are copied, because a slice would keep its whole read buffer, which may
    /// be many times larger.
    fn deliver(&mut self, mut data: &[u8]) {
        self.unread += data.len();
        self.bytes = self.bytes.saturating_add(data.len());
        self.moved = Instant::now();
        self.waiting = None;
        self.dial = DialOutcome::Answered;
        while !data.is_empty() {
            let room = |chunk: &BytesMut| chunk.capacity() - chunk.len();
            if self.inbox.back().is_none_or(|chunk| room(chunk) == 0) {
                // A single answer gets the exact size; with a backlog, more will follow.
                let size = if self.inbox.is_empty() {
                    data.len()
                } else {
                    CHUNK
                };
                self.inbox.push_back(BytesMut::with_capacity(size));
            }
            if let Some(chunk) = self.inbox.back_mut() {
                let (now, later) = data.split_at(data.len().min(room(chunk)));
                chunk.extend_from_slice(now);
                data = later;
            }
        }
        wake(&mut self.reader);
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
        self.wake_all();
    }

    fn fail_dial(&mut self, dial: DialOutcome) {
        self.dial = dial;
        self.wake_all();
    }

    pub(super) fn wake_writer(&mut self) {
        wake(&mut self.writer);
    }

    fn wake_all(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl SharedSession {
    /// Creates the state of one of at most `sessions` sessions of a target.
    pub(super) fn new(channel: Channel, mux: Mux, sessions: usize) -> Self {
        let share = RECEIVE_BUFFERS / sessions.max(1);
        Self {
            state: Mutex::new(SessionMachines {
                channel,
                mux,
                streams: HashMap::new(),
                sent: 0,
                received: 0,
                unread: 0,
                receive_buffer: share.max(LEAST_RECEIVE_BUFFER),
                last_used: Instant::now(),
                dials: PendingDials::default(),
                end: None,
                closing: false,
                goodbye_queued: false,
                retired: false,
                interrupted: None,
                heard: Instant::now(),
                refused_last: false,
                proven: false,
                silent_since: None,
                gap: None,
                created: Instant::now(),
                early_failure: None,
                early_failure_counted: false,
            }),
            wake: Notify::new(),
        }
    }

    /// Requests an orderly end of the session: FIN to every stream, the terminate flag, then the
    /// end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Locks the state. A panic in another holder leaves the machines consistent enough to report
    /// an end, so poisoning is ignored.
    pub(super) fn lock(&self) -> MutexGuard<'_, SessionMachines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionMachines {
    /// Ends the session; only the first reason counts. Wakes all waiters.
    pub(super) fn end(&mut self, reason: TunnelError) {
        if self.end.is_none() {
            if self.is_early(&reason) {
                self.early_failure.get_or_insert_with(|| reason.clone());
            }
            self.end = Some(reason);
            self.streams.values_mut().for_each(StreamSlot::wake_all);
        }
    }

    /// Returns true if an end for this reason means that another session will fail as well: the
    /// bastion cannot resolve the name, or no data was received and a dial was waiting, or the
    /// session had just begun.
    fn is_early(&self, reason: &TunnelError) -> bool {
        let by_others = matches!(
            reason,
            TunnelError::SessionEnded { .. }
                | TunnelError::ChannelLost { .. }
                | TunnelError::Protocol { .. }
        );
        let dialling = self.dials.waiting_since().is_some();
        let useless = !self.proven && (dialling || self.created.elapsed() < EARLY);
        reason.is_about_the_name() || (by_others && useless)
    }

    /// Returns the reason of an early failure.
    pub(super) fn early_failure(&self) -> Option<&TunnelError> {
        self.early_failure.as_ref()
    }

    /// Returns the reason of an early failure, on the first call only.
    pub(super) fn count_early_failure(&mut self) -> Option<TunnelError> {
        let failure = self.early_failure.as_ref()?;
        let counted = std::mem::replace(&mut self.early_failure_counted, true);
        (!counted).then(|| failure.clone())
    }

    /// Records input: notes if received bytes wait for missing ones.
    pub(super) fn note_gap(&mut self) {
        if self.channel.has_gap() {
            self.gap.get_or_insert_with(Instant::now);
        } else {
            self.gap = None;
        }
    }

    /// Returns the time that received bytes have been waiting for missing ones, if that is too
    /// long.
    pub(super) fn long_gap(&self) -> Option<Duration> {
        let gap = self.gap.map(|since| since.elapsed());
        gap.filter(|gap| *gap >= GAP)
    }

    /// Adds a stream that the multiplexer has just opened.
    pub(super) fn admit(&mut self, id: StreamId, slot: StreamSlot) {
        self.streams.insert(id, slot);
        self.dials.begin(id, Instant::now());
    }

    /// Returns true if a connection uses a stream.
    pub(super) fn is_in_use(&self) -> bool {
        self.streams.values().any(|slot| !slot.is_spare())
    }

    /// Returns true if a stream that is moving bytes has moved more than a login does.
    pub(super) fn has_bulk(&self) -> bool {
        let now = Instant::now();
        let mut streams = self.streams.values();
        streams.any(|slot| !slot.is_spare() && slot.bytes > LIGHT && slot.is_busy(now))
    }

    /// Returns true if this stream for a later connection is here.
    pub(super) fn has_spare(&self, mark: &SpareMark) -> bool {
        let mut marks = self.streams.values().filter_map(|slot| slot.spare.as_ref());
        marks.any(|known| known.is_same(mark))
    }

    /// Gives up the streams for later connections. Their keeper sees the end of the stream, and
    /// closes it. A stream whose dial has no outcome yet is given up after that.
    pub(super) fn release_spares(&mut self) {
        for slot in self.streams.values_mut() {
            let answered = slot.dial == DialOutcome::Answered;
            if answered && slot.spare.as_ref().is_some_and(SpareMark::release) {
                slot.wake_all();
            }
        }
    }

    /// Returns the current load. A dial that takes longer than `dial_timeout` is trouble.
    pub(super) fn load(&self, dial_timeout: Duration) -> SessionLoad {
        let now = Instant::now();
        let stuck = |since: Instant| now >= since + dial_timeout;
        let used = || self.streams.values().filter(|slot| !slot.is_spare());
        SessionLoad {
            troubled: self.dials.waiting_since().is_some_and(stuck)
                || self.streams.values().any(|slot| slot.unread >= LAGGING)
                || self.long_gap().is_some(),
            busy: used().filter(|slot| slot.is_busy(now)).count(),
            streams: used().count(),
        }
    }

    /// Returns the totals so far.
    pub(super) fn totals(&self) -> TunnelTotals {
        let stats = self.channel.stats();
        TunnelTotals {
            up: self.sent,
            down: self.received,
            resumes: stats.reconnects,
            retransmissions: stats.retransmitted,
        }
    }

    /// Counts bytes written by a stream.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Returns the time since which no connection has used a stream.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (!self.is_in_use()).then_some(self.last_used)
    }

    /// Returns true if the streams' inboxes are full.
    pub(super) fn is_full(&self) -> bool {
        self.unread >= self.receive_buffer
    }

    /// Returns true if there is enough room for a stall to count as over.
    pub(super) fn has_ample_room(&self) -> bool {
        self.unread < self.receive_buffer / 2
    }

    /// Returns the start of the longest wait for an answer, among the streams that have read all
    /// their data.
    pub(super) fn longest_wait(&self) -> Option<Instant> {
        let waits = |slot: &StreamSlot| {
            let waits = !slot.has_unread() && !slot.is_spare();
            slot.waiting.filter(|_| waits)
        };
        self.streams.values().filter_map(waits).min()
    }

    /// Moves unread bytes of a stream into `buf`; returns their number.
    pub(super) fn take(&mut self, id: StreamId, buf: &mut ReadBuf<'_>) -> usize {
        let taken = self.streams.get_mut(&id).map_or(0, |slot| slot.take(buf));
        self.unread -= taken;
        taken
    }

    /// Returns the stream with the most unread bytes, and the time its client last took a byte.
    pub(super) fn fullest(&self) -> Option<(StreamId, Instant)> {
        let fullest = self.streams.iter().max_by_key(|(_, slot)| slot.unread);
        fullest.map(|(id, slot)| (*id, slot.took))
    }

    /// Closes a stream and drops its unread bytes, so that the others can continue.
    pub(super) fn give_up(&mut self, id: StreamId) {
        if let Some(slot) = self.streams.get_mut(&id) {
            self.unread -= std::mem::take(&mut slot.unread);
            slot.inbox.clear();
            slot.overrun = true;
            slot.wake_all();
            self.mux.abandon(id);
        }
    }

    /// Removes a stream and its unread bytes.
    pub(super) fn forget(&mut self, id: StreamId) {
        if let Some(slot) = self.streams.remove(&id) {
            self.unread -= slot.unread;
            if !slot.is_spare() {
                self.last_used = Instant::now();
            }
        }
    }

    /// Puts the multiplexer's events into the streams' inboxes.
    pub(super) fn deliver(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            self.proven = true;
            match event {
                smux::MuxEvent::Data { id, data } => {
                    self.dials.succeeded(id, Instant::now());
                    self.refused_last = false;
                    self.received += data.len() as u64;
                    if let Some(slot) = self.streams.get_mut(&id) {
                        self.unread += data.len();
                        slot.deliver(&data);
                    }
                }
                smux::MuxEvent::Finished(id) => {
                    let refused = self.dials.finished(id, Instant::now());
                    match self.streams.get_mut(&id) {
                        Some(slot) if refused => {
                            slot.fail_dial(DialOutcome::Refused);
                            self.refused_last = true;
                        }
                        Some(slot) => slot.finish(),
                        None => {}
                    }
                }
                // Closed before on this side, perhaps while the agent was still dialling for it.
                smux::MuxEvent::Closed(id) => _ = self.dials.finished(id, Instant::now()),
                // Only a server opens streams towards a client, and the agent is not one.
                smux::MuxEvent::Opened(id) => {
                    debug!(stream = %id, "ignored a stream that the agent opened")
                }
            }
        }
    }

    pub(super) fn refuse_oldest(&mut self) {
        let streams = &mut self.streams;
        let now = Instant::now();
        self.refused_last = true;
        self.proven = true;
        match self.dials.refused(|id| streams.contains_key(&id), now) {
            Some(id) => {
                if let Some(slot) = streams.get_mut(&id) {
                    slot.fail_dial(DialOutcome::Refused);
                }
            }
            None => debug!("ignored ConnectToPortError for an abandoned stream"),
        }
    }

    /// Handles an agent stuck in a dial: no new streams, and an error for those it has not reached.
    pub(super) fn strand(&mut self) {
        self.retired = true;
        let stuck_at = self.dials.first();
        for (id, slot) in &mut self.streams {
            if self.dials.is_pending(*id) && Some(*id) != stuck_at {
                slot.fail_dial(DialOutcome::Stranded);
            }
        }
    }

    /// Handles missing messages that have delayed everything for `gap`, and a dial without an
    /// outcome for too long: no new streams. Those with a dial that can be repeated elsewhere get
    /// an error.
    pub(super) fn delay(&mut self, gap: Duration) {
        self.retired = true;
        for slot in self.streams.values_mut() {
            if slot.dial == DialOutcome::Pending && slot.hello == Repeatability::Repeatable {
                slot.fail_dial(DialOutcome::Delayed(gap));
            }
        }
    }

    /// Handles an agent that has owed an answer in silence for this long: no new streams. Those
    /// without an outcome of their dial that can be repeated elsewhere get an error; the others too
    /// once `dial_timeout` has passed.
    pub(super) fn note_silent_agent(
        &mut self,
        bastion: &NodeId,
        silence: Duration,
        dial_timeout: Duration,
    ) {
        self.retired = true;
        self.silent_since = Instant::now().checked_sub(silence);
        if !self.proven {
            self.early_failure
                .get_or_insert_with(|| TunnelError::AgentSilent {
                    bastion: bastion.to_string(),
                    after: silence,
                });
        }
        for (id, slot) in &mut self.streams {
            let gives_up = slot.hello == Repeatability::Repeatable || silence >= dial_timeout;
            if slot.dial == DialOutcome::Pending && self.dials.is_pending(*id) && gives_up {
                slot.fail_dial(DialOutcome::Unheard(silence));
            }
        }
    }

    /// Returns true if some stream sends bytes that cannot be repeated.
    pub(super) fn is_irreplaceable(&self) -> bool {
        let mut streams = self.streams.values();
        streams.any(|slot| slot.hello == Repeatability::Irreplaceable)
    }

    /// Returns true if all output has been sent and acknowledged.
    pub(super) fn is_said(&self) -> bool {
        self.channel.is_drained() && !self.mux.has_transmit()
    }
}
