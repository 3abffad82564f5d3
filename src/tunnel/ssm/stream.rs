//! [`SsmStream`]: one smux stream of a session as [`AsyncRead`] + [`AsyncWrite`].
//!
//! The handle and the driver share the state behind one lock that is never held across an await.
//! Writing hands bytes to the multiplexer and wakes the driver; reading takes bytes that the driver
//! put into the stream's inbox. Both sides are bounded: a writer waits at [`SEND_BUFFER`], and a
//! full inbox stops the driver from reading the socket (see `driver.rs`).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smux::StreamId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::state::{DialOutcome, SEND_BUFFER, SessionMachines, SharedSession, StreamSlot};
use crate::base::names::NodeId;
use crate::tunnel::TunnelError;

/// One stream to the database, through the session's agent. Dropping it closes it.
pub struct SsmStream {
    id: StreamId,
    bastion: NodeId,
    shared: Arc<SharedSession>,
    shut_down: bool,
}

/// Reason why a session does not accept a stream.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// It is ending or retired; another one will accept the stream.
    Leaving,
    /// It has ended.
    Ended,
}

impl SsmStream {
    /// Opens a stream; its SYN leaves with the first bytes or at the driver's next turn.
    pub(super) fn open(
        shared: &Arc<SharedSession>,
        bastion: &NodeId,
        slot: StreamSlot,
    ) -> Result<Self, NotOpened> {
        let mut state = shared.lock();
        if state.end.is_some() {
            return Err(NotOpened::Ended);
        }
        if state.closing || state.retired {
            return Err(NotOpened::Leaving);
        }
        // After two thousand million streams the ids are used up.
        let Ok(id) = state.mux.open() else {
            state.retired = true;
            return Err(NotOpened::Leaving);
        };
        state.admit(id, slot);
        drop(state);
        shared.wake.notify_one();
        Ok(Self {
            id,
            bastion: bastion.clone(),
            shared: Arc::clone(shared),
            shut_down: false,
        })
    }

    /// Waits until something can be read: bytes, the end, or an error. Cancel-safe.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state
                .streams
                .get(&self.id)
                .is_some_and(StreamSlot::has_unread)
            {
                return Poll::Ready(Ok(()));
            }
            self.poll_end(&mut state, cx)
        })
        .await
    }

    /// Returns true if the agent has reached this stream's dial, as far as known.
    pub(super) fn was_dialled(&self) -> bool {
        let state = self.shared.lock();
        let slot = state.streams.get(&self.id);
        slot.is_some_and(|slot| {
            !matches!(slot.dial, DialOutcome::Stranded | DialOutcome::Delayed(_))
        })
    }

    /// Returns the end of a stream with nothing to read, or registers the waker.
    fn poll_end(&self, state: &mut SessionMachines, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(slot) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Ok(())); // Only Drop removes the slot.
        };
        if let Some(error) = self.failure(slot) {
            return Poll::Ready(Err(error.into_io()));
        }
        // A stream that the agent finished before the session ended is complete.
        if slot.is_over() {
            return Poll::Ready(Ok(()));
        }
        match &state.end {
            Some(end) => Poll::Ready(Err(end.clone().into_io())),
            None => {
                slot.wait_to_read(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Returns the error of this one stream.
    fn failure(&self, slot: &StreamSlot) -> Option<TunnelError> {
        match slot.dial {
            DialOutcome::Refused => Some(TunnelError::DialRefused {
                bastion: self.bastion.to_string(),
                endpoint: slot.endpoint.clone(),
            }),
            DialOutcome::Stranded => Some(TunnelError::Stranded {
                bastion: self.bastion.to_string(),
            }),
            DialOutcome::Unheard(after) => Some(TunnelError::AgentSilent {
                bastion: self.bastion.to_string(),
                after,
            }),
            DialOutcome::Delayed(after) => Some(TunnelError::Delayed {
                bastion: self.bastion.to_string(),
                after,
            }),
            DialOutcome::Pending | DialOutcome::Answered => {
                slot.overrun.then_some(TunnelError::Overrun)
            }
        }
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
        let was_full = state.is_full();
        if state.take(self.id, buf) > 0 {
            let room_again = was_full && !state.is_full();
            drop(guard);
            if room_again {
                self.shared.wake.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        self.poll_end(state, cx)
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
        let Some(slot) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if let Some(error) = self.failure(slot) {
            return Poll::Ready(Err(error.into_io()));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone().into_io()));
        }
        if slot.finished || self.shut_down {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = SEND_BUFFER.saturating_sub(state.mux.queued(self.id));
        if room == 0 {
            slot.wait_to_write(cx.waker());
            return Poll::Pending;
        }
        let n = room.min(buf.len());
        slot.note_write(n);
        let sent = state.mux.send(self.id, Bytes::copy_from_slice(&buf[..n]));
        state.count_sent(n);
        drop(guard);
        if sent.is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.shared.wake.notify_one();
        Poll::Ready(Ok(n))
    }

    /// Written bytes are already with the driver, which sends them.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Queues FIN after the written bytes. smux v1 has no half-close: the agent closes the whole
    /// stream when it receives the FIN.
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
        let was_full = state.is_full();
        state.forget(self.id);
        if !self.shut_down && !state.mux.abandon(self.id) {
            state.dials.forget(self.id, Instant::now());
        }
        drop(state);
        if was_full || !self.shut_down {
            self.shared.wake.notify_one();
        }
    }
}
