//! One carrier: its task, and its handle.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use stripe::StripeError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::refusal::Refusal;
use super::state::{Machines, Shared};
use crate::base::pump;
use crate::base::stream::Stream;

/// Size of the buffer that a thread reads carriers into: a carrier without bytes needs none.
const BUFFER: usize = 64 * 1024;
/// Time for the peer to close a carrier that this side has closed.
const LAST_READS: Duration = Duration::from_secs(2);
/// Number of reads after which a carrier lets other tasks run.
const TURN: u32 = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Reason why a carrier has ended.
#[derive(Debug, Clone)]
pub enum CarrierEnd {
    /// The peer has closed it.
    Closed,
    /// Reading or writing has failed.
    Lost(Arc<io::Error>),
    /// The relay has refused it.
    Refused(Refusal),
    /// It does not lead to a relay, or to one of another version.
    NotRelay(StripeError),
    /// It was detached or replaced.
    Detached,
    /// The bundle is over.
    BundleOver,
}

/// Progress of a carrier.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    Starting,
    Ready,
    Ended(CarrierEnd),
}

/// An attached carrier. Dropping it changes nothing.
#[derive(Debug)]
pub struct Carrier {
    pub(super) progress: watch::Receiver<Progress>,
}

impl Carrier {
    /// Waits until the relay has accepted the carrier. The caller sets the deadline. Cancel-safe.
    ///
    /// # Errors
    /// The end of the carrier.
    pub async fn ready(&mut self) -> Result<(), CarrierEnd> {
        let known = |progress: &Progress| !matches!(progress, Progress::Starting);
        match self.progress.wait_for(known).await.as_deref() {
            Ok(Progress::Ready) => Ok(()),
            Ok(Progress::Ended(end)) => Err(end.clone()),
            Ok(Progress::Starting) | Err(_) => Err(CarrierEnd::BundleOver),
        }
    }

    /// Waits for the end of the carrier. Cancel-safe.
    pub async fn ended(&mut self) -> CarrierEnd {
        let is_over = |progress: &Progress| matches!(progress, Progress::Ended(_));
        match self.progress.wait_for(is_over).await.as_deref() {
            Ok(Progress::Ended(end)) => end.clone(),
            _ => CarrierEnd::BundleOver,
        }
    }
}

/// The task of a carrier.
pub(super) struct CarrierTask {
    pub(super) index: u8,
    pub(super) generation: u16,
    pub(super) stream: Stream,
    pub(super) shared: Arc<Shared>,
    /// Bytes that are being written.
    writing: BytesMut,
    is_unflushed: bool,
}

impl CarrierTask {
    pub(super) fn new((index, generation): (u8, u16), stream: Stream, shared: Arc<Shared>) -> Self {
        Self {
            index,
            generation,
            stream,
            shared,
            writing: BytesMut::new(),
            is_unflushed: false,
        }
    }

    /// Drives the carrier to its end, and tells it.
    pub(super) async fn run(mut self, progress: watch::Sender<Progress>) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        let (index, generation) = (self.index, self.generation);
        let reason = self.shared.change(|machines, now| {
            machines.bundle.detach(index, generation, now);
            let slot = machines.carriers.get(&index)?;
            let is_current = slot.generation == generation;
            is_current.then(|| machines.carriers.remove(&index))??.leave
        });
        // A refusal counts, even if the relay closed the carrier in the same moment.
        let end = reason.unwrap_or(end);
        let is_open = !matches!(end, CarrierEnd::Lost(_) | CarrierEnd::Closed);
        progress.send_replace(Progress::Ended(end));
        match is_open {
            true => close_gently(&mut self.stream).await,
            false => pump::close(&mut *self.stream).await,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CarrierEnd> {
        if let Poll::Ready(end) = self.poll_send(cx) {
            return Poll::Ready(end.unwrap_or_else(lost));
        }
        let end = ready!(self.poll_receive(cx));
        Poll::Ready(end.unwrap_or_else(lost))
    }

    /// Writes the outbox. Ready when the carrier ends.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CarrierEnd>> {
        loop {
            let closes = match self.next(cx) {
                Ok(closes) => closes,
                Err(end) => return Poll::Ready(Ok(end)),
            };
            if self.writing.is_empty() {
                if self.is_unflushed {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    self.is_unflushed = false;
                }
                return match closes {
                    true => Poll::Ready(Ok(CarrierEnd::BundleOver)),
                    false => Poll::Pending,
                };
            }
            while !self.writing.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.writing))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.writing.advance(written);
                self.is_unflushed = true;
            }
            self.writing = BytesMut::new();
        }
    }

    /// Takes the outbox if everything before it is written, and registers the waker. Returns true if
    /// the carrier ends after it.
    fn next(&mut self, cx: &mut Context<'_>) -> Result<bool, CarrierEnd> {
        let mut machines = self.shared.lock();
        let slot = machines.carriers.get_mut(&self.index);
        let slot = slot.filter(|slot| slot.generation == self.generation);
        let slot = slot.ok_or(CarrierEnd::Detached)?;
        if let Some(end) = slot.leave.take() {
            return Err(end);
        }
        if self.writing.is_empty() {
            self.writing = std::mem::take(&mut slot.outbox);
            slot.sent += self.writing.len() as u64;
        }
        if slot
            .task
            .as_ref()
            .is_none_or(|task| !task.will_wake(cx.waker()))
        {
            slot.task = Some(cx.waker().clone());
        }
        Ok(slot.closes)
    }

    /// Reads the bytes that have arrived. Ready when the carrier ends.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CarrierEnd>> {
        for _ in 0..TURN {
            let received = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                let bytes = buffer.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Ok(Some(CarrierEnd::Closed)));
                }
                let subflow = (self.index, self.generation);
                let change = |machines: &mut Machines, now| machines.receive(subflow, bytes, now);
                Poll::Ready(io::Result::Ok(self.shared.change(change)))
            });
            if let Some(end) = ready!(received)? {
                return Poll::Ready(Ok(end));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Closes a stream behind its last bytes, and reads what still comes: unread bytes would make the
/// system reset the connection, and the peer would lose the last ones.
pub async fn close_gently(stream: &mut Stream) {
    pump::close(&mut **stream).await;
    let mut nowhere = tokio::io::sink();
    let rest = tokio::io::copy(stream, &mut nowhere);
    _ = timeout(LAST_READS, rest).await;
}

fn lost(error: io::Error) -> CarrierEnd {
    CarrierEnd::Lost(Arc::new(error))
}
