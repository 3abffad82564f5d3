//! [`StripedStream`]: one stream of a bundle as [`AsyncRead`] + [`AsyncWrite`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use stripe::StreamId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refusal::{Refusal, StripingError};
use super::state::{Machines, Shared, StreamEnd};

/// One stream of a bundle. Shutting it down ends its own direction only. Dropping it before that
/// resets it; after that, its last bytes still go out.
pub struct StripedStream {
    id: StreamId,
    shared: Arc<Shared>,
    is_finished: bool,
}

impl StripedStream {
    pub(super) fn new(id: StreamId, shared: Arc<Shared>) -> Self {
        Self {
            id,
            shared,
            is_finished: false,
        }
    }

    /// Waits until something can be read: bytes, the end, or an error. Cancel-safe.
    ///
    /// # Errors
    /// The error of the stream, which carries a [`StripingError`].
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut machines = self.shared.lock();
            let slot = machines.streams.get(&self.id);
            match slot.is_some_and(|slot| !slot.inbox.is_empty()) {
                true => Poll::Ready(Ok(())),
                false => self.poll_end(&mut machines, cx),
            }
        })
        .await
    }

    /// Waits until the peer has reset the stream, or the bundle is over. Cancel-safe.
    pub async fn closed(&mut self) {
        poll_fn(|cx| {
            let mut machines = self.shared.lock();
            let is_over = machines.over.is_some();
            match machines.streams.get_mut(&self.id) {
                Some(slot) if !is_over && !matches!(slot.end, Some(StreamEnd::Reset(_))) => {
                    slot.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Takes the next received bytes; `None` at the end of the stream. They count as unread until
    /// [`consumed`](Self::consumed).
    ///
    /// # Errors
    /// The error of the stream, which carries a [`StripingError`].
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let mut machines = self.shared.lock();
        if let Some(slot) = machines.streams.get_mut(&self.id) {
            let data = slot.inbox.take();
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
        self.poll_end(&mut machines, cx).map_ok(|()| None)
    }

    /// Makes room in the window for bytes that were taken.
    pub fn consumed(&mut self, bytes: usize) {
        let id = self.id;
        self.shared
            .change(|machines, now| machines.bundle.consume(id, bytes, now));
    }

    /// Waits until the stream takes bytes, and returns how many.
    ///
    /// # Errors
    /// The error of the stream, which carries a [`StripingError`].
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut machines = self.shared.lock();
        self.check_writer(&machines)?;
        match machines.bundle.room(self.id) {
            0 => {
                if let Some(slot) = machines.streams.get_mut(&self.id) {
                    slot.writer = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Sends bytes, within the room of the stream.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send(&mut self, data: Bytes) -> io::Result<()> {
        let id = self.id;
        let sent = self
            .shared
            .change(|machines, _| machines.bundle.send(id, data));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Resets the stream with a reason for the peer.
    pub fn refuse(self, refusal: &Refusal) {
        let id = self.id;
        self.shared
            .change(|machines, _| machines.reset(id, refusal));
    }

    fn check_writer(&self, machines: &Machines) -> io::Result<()> {
        let slot = machines.streams.get(&self.id);
        if let Some(StreamEnd::Reset(refusal)) = slot.and_then(|slot| slot.end.as_ref()) {
            return Err(StripingError::Reset(refusal.clone()).into_io());
        }
        machines.check().map_err(StripingError::into_io)?;
        match slot.is_none() || self.is_finished {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    /// Returns the end of a stream with nothing to read, or registers the waker.
    fn poll_end(&self, machines: &mut Machines, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let over = machines.check();
        let Some(slot) = machines.streams.get_mut(&self.id) else {
            return Poll::Ready(Ok(()));
        };
        match (&slot.end, over) {
            // A stream that the peer ended before the bundle did is complete.
            (Some(StreamEnd::Finished), _) => Poll::Ready(Ok(())),
            (Some(StreamEnd::Reset(refusal)), _) => {
                Poll::Ready(Err(StripingError::Reset(refusal.clone()).into_io()))
            }
            (None, Err(over)) => Poll::Ready(Err(over.into_io())),
            (None, Ok(())) => {
                slot.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for StripedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let id = self.id;
        {
            let mut machines = self.shared.lock();
            let slot = machines.streams.get(&id);
            if slot.is_none_or(|slot| slot.inbox.is_empty()) {
                return self.poll_end(&mut machines, cx);
            }
        }
        self.shared.change(|machines, now| {
            let slot = machines.streams.get_mut(&id);
            let read = slot.map_or(0, |slot| slot.inbox.read(buffer));
            machines.bundle.consume(id, read, now);
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StripedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = std::task::ready!(self.poll_room(cx))?;
        let length = room.min(buffer.len());
        self.send(Bytes::copy_from_slice(&buffer[..length]))?;
        Poll::Ready(Ok(length))
    }

    /// Written bytes are already with the carriers, or wait for credit.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this direction after the written bytes.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_finished {
            self.is_finished = true;
            let id = self.id;
            self.shared.change(|machines, _| machines.bundle.finish(id));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StripedStream {
    fn drop(&mut self) {
        let (id, is_finished) = (self.id, self.is_finished);
        self.shared
            .change(|machines, now| machines.leave(id, is_finished, now));
    }
}
