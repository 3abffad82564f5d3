//! What the driver and the streams of one session share, behind one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{Buf, BytesMut};
use smux::{Session as Mux, StreamId};
use ssm_channel::Channel;
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tracing::debug;

use super::dials::Dials;
use crate::config::Endpoint;
use crate::tunnel::TunnelError;

/// Bytes one stream may have queued for the agent before its writer waits. The channel sends at
/// most a window of 1 KiB messages ahead of the agent's acknowledgements, so more would only sit
/// here.
pub(super) const SEND_BUFFER: usize = 256 * 1024;

/// Bytes all streams of a session may hold unread before its socket is no longer read. smux v1 has
/// no window of its own, so this is the only bound there is on what slow clients make us hold. At
/// the agent's 0.7 MB/s it takes 45 s to fill.
pub(super) const RECEIVE_BUFFER: usize = 32 * 1024 * 1024;

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
    /// Bytes in all inboxes together.
    unread: usize,
    /// Bytes ever taken out of the inboxes.
    taken: u64,
    pub(super) dials: Dials,
    /// Why the session ended, once it has.
    pub(super) end: Option<TunnelError>,
    /// Someone asked the session to say goodbye.
    pub(super) closing: bool,
    /// The goodbye has been handed to the machines.
    pub(super) goodbye_queued: bool,
}

/// The receiving half of one stream.
pub(super) struct Slot {
    pub(super) endpoint: Endpoint,
    inbox: VecDeque<BytesMut>,
    unread: usize,
    /// The agent closed the stream.
    pub(super) finished: bool,
    /// The agent could not dial.
    pub(super) refused: bool,
    /// Its unread bytes were given up for the other streams' sake.
    pub(super) overrun: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Slot {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            inbox: VecDeque::new(),
            unread: 0,
            finished: false,
            refused: false,
            overrun: false,
            reader: None,
            writer: None,
        }
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

    pub(super) fn refuse(&mut self) {
        self.refused = true;
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
    pub(super) fn new(channel: Channel, mux: Mux) -> Self {
        Self {
            state: Mutex::new(State {
                channel,
                mux,
                streams: HashMap::new(),
                unread: 0,
                taken: 0,
                dials: Dials::default(),
                end: None,
                closing: false,
                goodbye_queued: false,
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
            self.end = Some(reason);
            self.streams.values_mut().for_each(Slot::wake_all);
        }
    }

    /// Whether the streams hold all they may.
    pub(super) fn is_full(&self) -> bool {
        self.unread >= RECEIVE_BUFFER
    }

    /// Moves unread bytes of a stream into `buf`; says how many.
    pub(super) fn take(&mut self, id: StreamId, buf: &mut ReadBuf<'_>) -> usize {
        let taken = self.streams.get_mut(&id).map_or(0, |slot| slot.take(buf));
        self.unread -= taken;
        self.taken += taken as u64;
        taken
    }

    /// Bytes ever taken by the streams' readers: whether anybody reads.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether there is room for long enough that a stall counts as over.
    pub(super) fn has_ample_room(&self) -> bool {
        self.unread < RECEIVE_BUFFER / 2
    }

    /// Gives up the stream that holds most, so that the others can go on.
    pub(super) fn give_up_fullest(&mut self) {
        let fullest = self.streams.iter_mut().max_by_key(|(_, slot)| slot.unread);
        if let Some((id, slot)) = fullest {
            self.unread -= std::mem::take(&mut slot.unread);
            slot.inbox.clear();
            slot.overrun = true;
            slot.wake_all();
            self.mux.abandon(*id);
        }
    }

    /// Forgets a stream and what it holds unread.
    pub(super) fn forget(&mut self, id: StreamId) {
        if let Some(slot) = self.streams.remove(&id) {
            self.unread -= slot.unread;
        }
    }

    /// Puts the multiplexer's events into the streams' inboxes.
    pub(super) fn deliver(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                smux::Event::Data { id, data } => {
                    self.dials.succeeded(id);
                    if let Some(slot) = self.streams.get_mut(&id) {
                        self.unread += data.len();
                        slot.deliver(&data);
                    }
                }
                smux::Event::Finished(id) => {
                    let refused = self.dials.finished(id);
                    match self.streams.get_mut(&id) {
                        Some(slot) if refused => slot.refuse(),
                        Some(slot) => slot.finish(),
                        None => {}
                    }
                }
                // Only a server opens streams towards us, and the agent is not one.
                smux::Event::Opened(id) => {
                    debug!(stream = %id, "the agent opened a stream; ignored")
                }
            }
        }
    }

    pub(super) fn refuse_oldest(&mut self) {
        let streams = &mut self.streams;
        match self.dials.refused(|id| streams.contains_key(&id)) {
            Some(id) => {
                if let Some(slot) = streams.get_mut(&id) {
                    slot.refuse();
                }
            }
            None => debug!("ConnectToPortError for a stream that was given up"),
        }
    }

    /// Whether everything we had to say has been sent and acknowledged.
    pub(super) fn is_said(&self) -> bool {
        self.channel.is_drained() && !self.mux.has_transmit()
    }
}
