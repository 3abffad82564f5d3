//! [`SsmStream`]: one smux stream of a session as [`AsyncRead`] + [`AsyncWrite`].
//!
//! The handle and the driver share the state behind one lock that is never held across an await.
//! Writing hands bytes to the multiplexer and wakes the driver; reading takes what the driver put
//! into the stream's inbox. Both sides are bounded: a writer waits at [`SEND_BUFFER`], and a full
//! inbox stops the driver from reading the socket (see [`super::driver`]).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use smux::{Session as Mux, StreamId};
use ssm_channel::Channel;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::dials::Dials;
use crate::config::Endpoint;
use crate::tunnel::TunnelError;

/// Bytes one stream may have queued for the agent before its writer waits. The channel sends at
/// most a window of 1 KiB messages ahead of the agent's acknowledgements, so more would only sit
/// here.
pub(super) const SEND_BUFFER: usize = 256 * 1024;

/// Bytes one stream may hold unread before the session's socket is no longer read. smux v1 has no
/// window of its own, so this is the only bound there is on what a slow client makes us hold.
pub(super) const RECEIVE_BUFFER: usize = 1024 * 1024;

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
    inbox: VecDeque<Bytes>,
    unread: usize,
    finished: bool,
    refused: bool,
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
            reader: None,
            writer: None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.unread >= RECEIVE_BUFFER
    }

    pub(super) fn deliver(&mut self, data: Bytes) {
        self.unread += data.len();
        self.inbox.push_back(data);
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

    pub(super) fn wake_all(&mut self) {
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

/// One stream to the database, through the session's agent. Dropping it closes it.
pub struct SsmStream {
    id: StreamId,
    bastion: Arc<str>,
    shared: Arc<Shared>,
    shut_down: bool,
}

impl SsmStream {
    /// Opens a stream; its SYN leaves with the first bytes or at the driver's next turn.
    pub(super) fn open(
        shared: &Arc<Shared>,
        bastion: &Arc<str>,
        endpoint: &Endpoint,
    ) -> Result<Self, TunnelError> {
        let mut state = shared.lock();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        if state.closing {
            return Err(TunnelError::ShuttingDown);
        }
        let id = state.mux.open().map_err(|error| TunnelError::Protocol {
            reason: error.to_string(),
        })?;
        state.streams.insert(id, Slot::new(endpoint.clone()));
        state.dials.begin(id);
        drop(state);
        shared.wake.notify_one();
        Ok(Self {
            id,
            bastion: Arc::clone(bastion),
            shared: Arc::clone(shared),
            shut_down: false,
        })
    }

    /// The error a finished or refused stream answers with, if it is one.
    fn ended(&self, state: &State, slot: &Slot) -> Option<TunnelError> {
        if slot.refused {
            return Some(TunnelError::DialRefused {
                bastion: self.bastion.to_string(),
                endpoint: slot.endpoint.clone(),
            });
        }
        state.end.clone()
    }
}

impl AsyncRead for SsmStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(slot) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Ok(())); // Only Drop removes the slot.
        };
        let was_full = slot.is_full();
        let mut taken = false;
        while buf.remaining() > 0 {
            let Some(chunk) = slot.inbox.front_mut() else {
                break;
            };
            let n = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..n]);
            chunk.advance(n);
            slot.unread -= n;
            taken |= n > 0;
            if chunk.is_empty() {
                slot.inbox.pop_front();
            }
        }
        if taken {
            let room_again = was_full && !slot.is_full();
            drop(guard);
            if room_again {
                self.shared.wake.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        let finished = slot.finished;
        let slot = &state.streams[&self.id];
        match self.ended(state, slot) {
            // A stream the peer finished before the session ended has ended well.
            Some(error) if slot.refused || !finished => Poll::Ready(Err(error.into_io())),
            _ if finished => Poll::Ready(Ok(())),
            _ => {
                if let Some(slot) = state.streams.get_mut(&self.id) {
                    slot.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for SsmStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(slot) = state.streams.get(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if let Some(error) = self.ended(state, slot) {
            return Poll::Ready(Err(error.into_io()));
        }
        if slot.finished || self.shut_down {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = SEND_BUFFER.saturating_sub(state.mux.queued(self.id));
        if room == 0 {
            if let Some(slot) = state.streams.get_mut(&self.id) {
                slot.writer = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let n = room.min(buf.len());
        let sent = state.mux.send(self.id, Bytes::copy_from_slice(&buf[..n]));
        drop(guard);
        if sent.is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.shared.wake.notify_one();
        Poll::Ready(Ok(n))
    }

    /// Written bytes are with the driver, which sends without further asking.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Queues FIN behind what was written. smux v1 has no half-close: the agent closes the whole
    /// stream when it sees the FIN.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut_down {
            self.shut_down = true;
            self.shared.lock().mux.finish(self.id);
            self.shared.wake.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SsmStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let was_full = state
            .streams
            .remove(&self.id)
            .is_some_and(|slot| slot.is_full());
        if !self.shut_down && !state.mux.abandon(self.id) {
            state.dials.forget(self.id);
        }
        drop(state);
        if was_full || !self.shut_down {
            self.shared.wake.notify_one();
        }
    }
}
