//! Copies bytes between two streams, one direction at a time.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::stream::Duplex;

/// Size of the copy buffer per direction. A full TLS record (16 KiB of plaintext) fits, so one read
/// never splits one.
const BUFFER: usize = 16 * 1024;

/// Time limit for the answer to a client that has closed its sending side; such a client may also
/// be gone.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(30);
/// Time limit for the closing side to accept its last bytes and our close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Maximum number of unused buffers that a thread keeps.
const MOST_SPARE: usize = 16;

thread_local! {
    /// Unused buffers of [`BUFFER`] bytes.
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Takes a buffer for a read. A thread reads one stream at a time, so few exist beside those that
/// hold bytes.
fn take_buffer() -> Box<[u8]> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
}

/// Gives a buffer back, for the next read of any stream of this thread.
fn give_back(buffer: Box<[u8]>) {
    if buffer.len() == BUFFER {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(buffer);
            }
        });
    }
}

/// Copies one direction, resumable at any point. Has a buffer only while it holds bytes.
pub(crate) struct Pump {
    /// Empty while it holds no bytes.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    unflushed: bool,
    /// Number of bytes written so far.
    pub(crate) copied: u64,
}

/// Reason why a direction ended.
pub(crate) enum PumpEnd {
    /// The reader ended: in order, or with an error.
    Read(Option<io::Error>),
    /// The writer failed.
    Write(io::Error),
}

impl Pump {
    /// Creates a direction that begins with `first`.
    pub(crate) fn new(first: &[u8]) -> Self {
        Self {
            buffer: first.into(),
            start: 0,
            end: first.len(),
            unflushed: false,
            copied: 0,
        }
    }

    /// Returns whether the writer has not accepted all bytes that were read.
    pub(crate) fn is_held_up(&self) -> bool {
        self.start < self.end
    }

    /// Copies bytes until it has to wait. Ready when this direction has ended.
    pub(crate) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        mut on_bytes: impl FnMut(&[u8]),
    ) -> Poll<PumpEnd>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        loop {
            while self.start < self.end {
                let chunk = &self.buffer[self.start..self.end];
                match ready!(Pin::new(&mut *writer).poll_write(cx, chunk)) {
                    Ok(0) => return Poll::Ready(PumpEnd::Write(io::ErrorKind::WriteZero.into())),
                    Ok(n) => {
                        on_bytes(&chunk[..n]);
                        self.start += n;
                        self.copied += n as u64;
                        self.unflushed = true;
                    }
                    Err(error) => return Poll::Ready(PumpEnd::Write(error)),
                }
            }
            if self.buffer.len() != BUFFER {
                self.buffer = take_buffer();
            }
            let mut read = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *reader).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    return Poll::Ready(PumpEnd::Read(None));
                }
                Poll::Ready(Ok(())) => (self.start, self.end) = (0, read.filled().len()),
                Poll::Ready(Err(error)) => return Poll::Ready(PumpEnd::Read(Some(error))),
                Poll::Pending => {
                    give_back(std::mem::take(&mut self.buffer));
                    // Flush only when there is nothing more to batch: TLS makes one record of it.
                    if self.unflushed {
                        if let Err(error) = ready!(Pin::new(&mut *writer).poll_flush(cx)) {
                            return Poll::Ready(PumpEnd::Write(error));
                        }
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Closes a stream in order (TLS close_notify, FIN), within `CLOSE_DEADLINE`. A failure only
/// means that the peer closed first.
pub(crate) async fn close(stream: &mut dyn Duplex) {
    let closed = tokio::time::timeout(CLOSE_DEADLINE, stream.shutdown()).await;
    if let Err(error) = closed.map_err(io::Error::from).flatten() {
        tracing::trace!(%error, "close");
    }
}
