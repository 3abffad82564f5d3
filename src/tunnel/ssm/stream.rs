//! [`SsmStream`]: one smux stream of a session as [`AsyncRead`] + [`AsyncWrite`].
//!
//! The handle and the driver share the state behind one lock that is never held across an await.
//! Writing hands bytes to the multiplexer and wakes the driver; reading takes what the driver put
//! into the stream's inbox. Both sides are bounded: a writer waits at [`SEND_BUFFER`], and a full
//! inbox stops the driver from reading the socket (see `driver.rs`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smux::StreamId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::{SEND_BUFFER, Shared, Slot};
use crate::config::Endpoint;
use crate::tunnel::TunnelError;

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

    fn dial_refused(&self, slot: &Slot) -> TunnelError {
        TunnelError::DialRefused {
            bastion: self.bastion.to_string(),
            endpoint: slot.endpoint.clone(),
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
        let Some(slot) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Ok(())); // Only Drop removes the slot.
        };
        if slot.refused {
            return Poll::Ready(Err(self.dial_refused(slot).into_io()));
        }
        if slot.overrun {
            return Poll::Ready(Err(TunnelError::Overrun.into_io()));
        }
        // A stream the agent finished before the session ended has ended well.
        if slot.finished {
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
        if slot.refused {
            return Poll::Ready(Err(self.dial_refused(slot).into_io()));
        }
        if slot.overrun {
            return Poll::Ready(Err(TunnelError::Overrun.into_io()));
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
        let was_full = state.is_full();
        state.forget(self.id);
        if !self.shut_down && !state.mux.abandon(self.id) {
            state.dials.forget(self.id);
        }
        drop(state);
        if was_full || !self.shut_down {
            self.shared.wake.notify_one();
        }
    }
}
