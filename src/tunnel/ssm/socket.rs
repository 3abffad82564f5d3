//! The WebSocket of one session: messages out in batches, messages in without loss.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, StreamExt};
use ssm_channel::Transmit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::trace;

use crate::base::stream::Stream;

/// A WebSocket after its upgrade.
pub(super) type WebSocket = WebSocketStream<Stream>;

/// Messages moved to the socket per turn before it is polled again.
pub(super) const BATCH: usize = 64;
/// Timeout of the last messages, and of the close, when the session is over.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Event of the socket.
pub(super) enum SocketEvent {
    /// The batch is out, or cannot be sent.
    Written(Result<(), Error>),
    /// A message, an error, or the end.
    Read(Option<Result<Message, Error>>),
}

/// Both directions of the socket, polled by one task.
pub(super) struct ChannelSocket {
    sink: SplitSink<WebSocket, Message>,
    source: SplitStream<WebSocket>,
    outgoing: VecDeque<Message>,
    unflushed: bool,
}

impl ChannelSocket {
    pub(super) fn new(socket: WebSocket) -> Self {
        let (sink, source) = socket.split();
        Self {
            sink,
            source,
            outgoing: VecDeque::new(),
            unflushed: false,
        }
    }

    /// Adds a message to the batch.
    pub(super) fn push(&mut self, transmit: Transmit) {
        self.outgoing.push_back(match transmit {
            Transmit::Text(text) => Message::text(text),
            Transmit::Binary(bytes) => Message::Binary(bytes),
        });
    }

    /// Adds a ping to the batch.
    pub(super) fn push_ping(&mut self) {
        self.outgoing.push_back(Message::Ping(Bytes::new()));
    }

    /// Returns true if the batch accepts more.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < BATCH
    }

    /// Returns true if all messages have been handed to the socket.
    pub(super) fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Waits until the batch is written or, with `may_read`, a message arrives. Both are polled, so
    /// a peer that does not read cannot block our reading. Cancel-safe.
    pub(super) async fn ready(&mut self, may_read: bool) -> SocketEvent {
        poll_fn(|cx| {
            if (!self.outgoing.is_empty() || self.unflushed)
                && let Poll::Ready(written) = self.poll_write(cx)
            {
                return Poll::Ready(SocketEvent::Written(written));
            }
            if may_read {
                return self.source.poll_next_unpin(cx).map(SocketEvent::Read);
            }
            Poll::Pending
        })
        .await
    }

    /// Returns the message that is ready now, without waiting. The caller must handle it: it is not
    /// returned twice.
    pub(super) async fn already_here(&mut self) -> Option<Option<Result<Message, Error>>> {
        poll_fn(|cx| {
            Poll::Ready(match self.source.poll_next_unpin(cx) {
                Poll::Ready(message) => Some(message),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Writes the rest of the batch. Best effort: the peer may be gone.
    pub(super) async fn last_words(&mut self) {
        let written = poll_fn(|cx| self.poll_write(cx));
        let written = tokio::time::timeout(CLOSE_DEADLINE, written).await;
        if !matches!(written, Ok(Ok(()))) {
            trace!("the last messages were not sent");
        }
    }

    /// Closes the socket. Best effort.
    pub(super) async fn close(&mut self) {
        let close = poll_fn(|cx| Pin::new(&mut self.sink).poll_close(cx));
        if tokio::time::timeout(CLOSE_DEADLINE, close).await.is_err() {
            trace!("the WebSocket did not close in time");
        }
    }

    /// Writes and flushes the batch, keeping its position between calls.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut sink = Pin::new(&mut self.sink);
        while !self.outgoing.is_empty() {
            ready!(sink.as_mut().poll_ready(cx))?;
            if let Some(message) = self.outgoing.pop_front() {
                sink.as_mut().start_send(message)?;
                self.unflushed = true;
            }
        }
        ready!(sink.as_mut().poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}
