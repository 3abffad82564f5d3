//! What the driver and the streams of one session share, behind one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smux::{Session as Mux, StreamId};
use ssm_channel::Channel;
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use super::dials::Dials;
use crate::config::Endpoint;
use crate::tunnel::{TunnelError, TunnelTotals};

/// Bytes one stream may have queued for the agent before its writer waits. The channel sends at
/// most a window of 1 KiB messages ahead of the agent's acknowledgements, so more would only sit
/// here.
pub(super) const SEND_BUFFER: usize = 256 * 1024;

/// Bytes all sessions of a target together may hold unread. smux v1 has no window of its own, so
/// this is the only bound there is on what slow clients make us hold.
const RECEIVE_BUFFERS: usize = 64 * 1024 * 1024;
/// The least a session gets of them.
const LEAST_RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Unread bytes of one stream that show a client which has stopped reading, or is slower than the
/// tunnel; its session gets no new streams while there is a better one. At the agent's 0.7 MB/s a
/// client is a third of a second behind then.
const LAGGING: usize = 256 * 1024;

/// A stream that has moved a byte within this is moving bytes. People who open a second connection
/// are slower; programs that open several at once will use several at once.
const QUIET: Duration = Duration::from_millis(100);
/// A stream that waits for an answer counts as moving bytes for this long; an answer that takes
/// longer is being worked on, not being sent.
const ANSWERING: Duration = Duration::from_millis(500);

/// How long received bytes may wait for missing ones before new streams go elsewhere.
const GAP: Duration = Duration::from_secs(1);
/// A session that ends before this, and before anything came back through it, has failed. No limit of
/// an account is shorter.
pub(super) const EARLY: Duration = Duration::from_secs(60);

/// Bytes per piece of a stream's backlog.
const CHUNK: usize = 16 * 1024;

/// What the driver and the handles of one session share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the driver: there is something to send, or room to read again.
    pub(super) wake: Notify,
}

/// The two protocol machines and the streams above them.
pub(super) struct State {
    pub(super) channel: Channel,
    pub(super) mux: Mux,
    pub(super) streams: HashMap<StreamId, Slot>,
    /// Bytes that streams have written, and that have come for streams.
    sent: u64,
    received: u64,
    /// Bytes in all inboxes together.
    unread: usize,
    /// What they may hold before the socket is no longer read.
    receive_buffer: usize,
    /// Since when there has been no stream; `None` while there are some.
    idle_since: Option<Instant>,
    pub(super) dials: Dials,
    /// Why the session ended, once it has.
    pub(super) end: Option<TunnelError>,
    /// Someone asked the session to say goodbye.
    pub(super) closing: bool,
    /// The goodbye has been handed to the machines.
    pub(super) goodbye_queued: bool,
    /// No new streams: the session ends with its last one.
    pub(super) retired: bool,
    /// Since when the connection is being replaced, or the other side has asked for a pause.
    pub(super) interrupted: Option<Instant>,
    /// When something last came in.
    pub(super) heard: Instant,
    /// The last dial that showed an outcome was refused.
    pub(super) refused_last: bool,
    /// The agent has shown that it takes what streams send.
    pub(super) proven: bool,
    /// Since when the agent has been silent although it owes an answer, once that is too long.
    pub(super) silent_since: Option<Instant>,
    /// Since when received bytes have been waiting for missing ones.
    gap: Option<Instant>,
    created: Instant,
    /// Why the session was of no use at all.
    early_failure: Option<TunnelError>,
    /// That was counted.
    early_failure_counted: bool,
}

/// What a session carries, for the choice of the next stream's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    /// A client does not read, a dial has been unanswered for too long, or received bytes wait for
    /// missing ones: what is placed here may have to wait.
    pub(super) troubled: bool,
    /// Streams that are moving bytes.
    pub(super) busy: usize,
    /// All streams.
    pub(super) streams: usize,
}

/// What became of the agent's dial, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// Nothing has come back yet.
    Pending,
    /// The far side has sent something.
    Answered,
    /// The agent could not connect.
    Refused,
    /// The agent has not come to it: it is stuck in the dial of an earlier stream.
    Stranded,
    /// The agent has been silent for so long.
    Unheard(Duration),
    /// Whatever came back waits for messages that have been missing for so long.
    Delayed(Duration),
}

/// Whether the bytes that a stream sends first may be sent again through another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// They may.
    Repeatable,
    /// They must not: nothing is known of them.
    Irreplaceable,
}

/// One stream of a session: what has arrived for it, and how it is doing.
pub(super) struct Slot {
    pub(super) endpoint: Endpoint,
    hello: Hello,
    inbox: VecDeque<BytesMut>,
    unread: usize,
    pub(super) dial: Dial,
    /// The agent closed the stream.
    pub(super) finished: bool,
    /// Its unread bytes were given up for the other streams' sake.
    pub(super) overrun: bool,
    /// When a byte last moved, in either direction.
    moved: Instant,
    /// When its client last took a byte.
    took: Instant,
    /// Since when something was written that has no answer yet.
    waiting: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Slot {
    pub(super) fn new(endpoint: Endpoint, hello: Hello) -> Self {
        Self {
            endpoint,
            hello,
            inbox: VecDeque::new(),
            unread: 0,
            dial: Dial::Pending,
            finished: false,
            overrun: false,
            moved: Instant::now(),
            took: Instant::now(),
            waiting: None,
            reader: None,
            writer: None,
        }
    }

    /// Bytes were written.
    pub(super) fn wrote(&mut self) {
        self.moved = Instant::now();
        self.waiting.get_or_insert(self.moved);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread > 0
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.unread > 0
            || now < self.moved + QUIET
            || self.waiting.is_some_and(|since| now < since + ANSWERING)
    }

    /// Moves unread bytes into `buf`; says how many.
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

    /// Appends bytes. They are copied, because a slice would keep the whole read buffer it came in,
    /// which may be many times its size.
    fn deliver(&mut self, mut data: &[u8]) {
        self.unread += data.len();
        self.moved = Instant::now();
        self.waiting = None;
        self.dial = Dial::Answered;
        while !data.is_empty() {
            let room = |chunk: &BytesMut| chunk.capacity() - chunk.len();
            if self.inbox.back().is_none_or(|chunk| room(chunk) == 0) {
                // A lone answer gets what it needs; with a backlog, more will follow.
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

    fn fail_dial(&mut self, dial: Dial) {
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

impl Shared {
    /// For one of at most `sessions` sessions of a target.
    pub(super) fn new(channel: Channel, mux: Mux, sessions: usize) -> Self {
        let share = RECEIVE_BUFFERS / sessions.max(1);
        Self {
            state: Mutex::new(State {
                channel,
                mux,
                streams: HashMap::new(),
                sent: 0,
                received: 0,
                unread: 0,
                receive_buffer: share.max(LEAST_RECEIVE_BUFFER),
                idle_since: Some(Instant::now()),
                dials: Dials::default(),
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

    /// Asks the driver to end the session in order: FIN to every stream, the terminate flag, then
    /// the end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// The state. A panic in another holder leaves the machines consistent enough to report an end,
    /// so poisoning is not passed on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The session is over; only the first reason counts. Wakes everyone who waits.
    pub(super) fn end(&mut self, reason: TunnelError) {
        if self.end.is_none() {
            if self.is_early(&reason) {
                self.early_failure.get_or_insert_with(|| reason.clone());
            }
            self.end = Some(reason);
            self.streams.values_mut().for_each(Slot::wake_all);
        }
    }

    /// Whether an end for this reason means that another session will fare no better: the bastion
    /// cannot resolve the name, or nothing has come back and a dial was waiting, or the session had
    /// just begun.
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

    /// Why the session was of no use at all, if it was not.
    pub(super) fn early_failure(&self) -> Option<&TunnelError> {
        self.early_failure.as_ref()
    }

    /// The same, once.
    pub(super) fn count_early_failure(&mut self) -> Option<TunnelError> {
        let failure = self.early_failure.as_ref()?;
        let counted = std::mem::replace(&mut self.early_failure_counted, true);
        (!counted).then(|| failure.clone())
    }

    /// Something came in: notes whether received bytes wait for missing ones.
    pub(super) fn note_gap(&mut self) {
        if self.channel.has_gap() {
            self.gap.get_or_insert_with(Instant::now);
        } else {
            self.gap = None;
        }
    }

    /// For how long received bytes have been waiting for missing ones, if that is too long.
    pub(super) fn long_gap(&self) -> Option<Duration> {
        let gap = self.gap.map(|since| since.elapsed());
        gap.filter(|gap| *gap >= GAP)
    }

    /// Adds a stream that the multiplexer has just opened.
    pub(super) fn admit(&mut self, id: StreamId, endpoint: Endpoint, hello: Hello) {
        self.streams.insert(id, Slot::new(endpoint, hello));
        self.dials.begin(id, Instant::now());
        self.idle_since = None;
    }

    /// What the session carries now. A dial that takes longer than `dial_timeout` is trouble.
    pub(super) fn load(&self, dial_timeout: Duration) -> Load {
        let now = Instant::now();
        let stuck = |since: Instant| now >= since + dial_timeout;
        Load {
            troubled: self.dials.waiting_since().is_some_and(stuck)
                || self.streams.values().any(|slot| slot.unread >= LAGGING)
                || self.long_gap().is_some(),
            busy: self.streams.values().filter(|s| s.is_busy(now)).count(),
            streams: self.streams.len(),
        }
    }

    /// What the session has done so far.
    pub(super) fn totals(&self) -> TunnelTotals {
        let stats = self.channel.stats();
        TunnelTotals {
            up: self.sent,
            down: self.received,
            resumes: stats.reconnects,
            retransmissions: stats.retransmitted,
        }
    }

    /// A stream has written so many bytes.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Since when there has been no stream.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Whether the streams hold all they may.
    pub(super) fn is_full(&self) -> bool {
        self.unread >= self.receive_buffer
    }

    /// Whether there is room for long enough that a stall counts as over.
    pub(super) fn has_ample_room(&self) -> bool {
        self.unread < self.receive_buffer / 2
    }

    /// Since when the stream has been waiting that waits longest for an answer, among those that
    /// have read all there is for them.
    pub(super) fn longest_wait(&self) -> Option<Instant> {
        let waits = |slot: &Slot| slot.waiting.filter(|_| !slot.has_unread());
        self.streams.values().filter_map(waits).min()
    }

    /// Moves unread bytes of a stream into `buf`; says how many.
    pub(super) fn take(&mut self, id: StreamId, buf: &mut ReadBuf<'_>) -> usize {
        let taken = self.streams.get_mut(&id).map_or(0, |slot| slot.take(buf));
        self.unread -= taken;
        taken
    }

    /// The stream that holds most, and when its client last took a byte.
    pub(super) fn fullest(&self) -> Option<(StreamId, Instant)> {
        let fullest = self.streams.iter().max_by_key(|(_, slot)| slot.unread);
        fullest.map(|(id, slot)| (*id, slot.took))
    }

    /// Gives up a stream and what it holds unread, so that the others can go on.
    pub(super) fn give_up(&mut self, id: StreamId) {
        if let Some(slot) = self.streams.get_mut(&id) {
            self.unread -= std::mem::take(&mut slot.unread);
            slot.inbox.clear();
            slot.overrun = true;
            slot.wake_all();
            self.mux.abandon(id);
        }
    }

    /// Forgets a stream and what it holds unread.
    pub(super) fn forget(&mut self, id: StreamId) {
        if let Some(slot) = self.streams.remove(&id) {
            self.unread -= slot.unread;
        }
        if self.streams.is_empty() {
            self.idle_since.get_or_insert_with(Instant::now);
        }
    }

    /// Puts the multiplexer's events into the streams' inboxes.
    pub(super) fn deliver(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            self.proven = true;
            match event {
                smux::Event::Data { id, data } => {
                    self.dials.succeeded(id, Instant::now());
                    self.refused_last = false;
                    self.received += data.len() as u64;
                    if let Some(slot) = self.streams.get_mut(&id) {
                        self.unread += data.len();
                        slot.deliver(&data);
                    }
                }
                smux::Event::Finished(id) => {
                    let refused = self.dials.finished(id, Instant::now());
                    match self.streams.get_mut(&id) {
                        Some(slot) if refused => {
                            slot.fail_dial(Dial::Refused);
                            self.refused_last = true;
                        }
                        Some(slot) => slot.finish(),
                        None => {}
                    }
                }
                // We had closed it before, perhaps while the agent was still dialling for it.
                smux::Event::Closed(id) => _ = self.dials.finished(id, Instant::now()),
                // Only a server opens streams towards us, and the agent is not one.
                smux::Event::Opened(id) => {
                    debug!(stream = %id, "the agent opened a stream; ignored")
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
                    slot.fail_dial(Dial::Refused);
                }
            }
            None => debug!("ConnectToPortError for a stream that was given up"),
        }
    }

    /// The agent is stuck in a dial: no new streams, and those it has not come to are told so.
    pub(super) fn strand(&mut self) {
        self.retired = true;
        let stuck_at = self.dials.first();
        for (id, slot) in &mut self.streams {
            if self.dials.is_pending(*id) && Some(*id) != stuck_at {
                slot.fail_dial(Dial::Stranded);
            }
        }
    }

    /// Missing messages have held up everything for `gap`, and a dial shows no outcome for too long:
    /// no new streams. Those whose dial can be made again elsewhere are told so.
    pub(super) fn delay(&mut self, gap: Duration) {
        self.retired = true;
        for slot in self.streams.values_mut() {
            if slot.dial == Dial::Pending && slot.hello == Hello::Repeatable {
                slot.fail_dial(Dial::Delayed(gap));
            }
        }
    }

    /// The agent has been silent for so long although it owes an answer: no new streams. Those whose
    /// dial shows no outcome, and which can be made again elsewhere, are told so; the others too once
    /// `dial_timeout` has passed.
    pub(super) fn unheard(&mut self, bastion: &str, silence: Duration, dial_timeout: Duration) {
        self.retired = true;
        self.silent_since = Instant::now().checked_sub(silence);
        if !self.proven {
            self.early_failure
                .get_or_insert_with(|| TunnelError::AgentSilent {
                    bastion: bastion.to_owned(),
                    after: silence,
                });
        }
        for (id, slot) in &mut self.streams {
            let gives_up = slot.hello == Hello::Repeatable || silence >= dial_timeout;
            if slot.dial == Dial::Pending && self.dials.is_pending(*id) && gives_up {
                slot.fail_dial(Dial::Unheard(silence));
            }
        }
    }

    /// Whether some stream sends bytes that cannot be sent again.
    pub(super) fn is_irreplaceable(&self) -> bool {
        let mut streams = self.streams.values();
        streams.any(|slot| slot.hello == Hello::Irreplaceable)
    }

    /// Whether everything we had to say has been sent and acknowledged.
    pub(super) fn is_said(&self) -> bool {
        self.channel.is_drained() && !self.mux.has_transmit()
    }
}
