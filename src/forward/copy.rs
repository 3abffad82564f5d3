//! Copies two byte streams both ways until both sides have ended.
//!
//! The tunnel cannot close one direction alone: a FIN ends a stream both ways (smux version 1, as
//! implemented by the SSM agent, which then closes its connection to the far side). So [`copy`]
//! delays a client's end while an answer may still come.
//! `printf 'GET / HTTP/1.0\r\n\r\n' | nc -N …` closes its sending side with the request, and would
//! otherwise never see the page. Once the answer has come and the far side has been silent for a
//! while, the stream is closed.
//!
//! A TCP connection can close one direction alone: [`copy_half_closing`] forwards the end at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::pump::{self, Pump, PumpEnd, UNANSWERED};
use crate::base::stream::Duplex;
use crate::observe::Traffic;
use crate::tunnel::TunnelError;

/// Silence of the far side after which a client's end is forwarded, if the client received data
/// after it last sent some. Such a client is most likely gone, not waiting. Several round trips of
/// a slow tunnel, and short enough that a loop of small programs does not fill the far side with
/// idle connections.
const ANSWERED: Duration = Duration::from_secs(1);
/// Minimum silence for a client that still waited for an answer at its end. Before the answer
/// begins, the silence is [`UNANSWERED`]; after that, twice the far side's longest silence, from
/// this up to [`UNANSWERED`]. So an answer in parts is not cut off, and a far side that answers at
/// once and then waits for more does not delay the end.
const ANSWERING: Duration = Duration::from_secs(3);
/// Silence for a connection without any data: some servers speak first, but most such clients only
/// probe the port.
const SILENT: Duration = Duration::from_secs(5);
/// Silence if the client's end was forwarded at once: the far side closes when it has finished.
/// Only limits the resources held by a far side that ignores the end.
const PASSED_ON: Duration = Duration::from_secs(60 * 60);
/// Time for which a client's further data is read after the far side has closed. Closing with bytes
/// unread would reset the connection, and could cost the client the last answer.
const LEFTOVER_DEADLINE: Duration = Duration::from_secs(2);

/// End of a connection.
#[derive(Debug)]
pub(super) enum ForwardEnd {
    /// The client closed first.
    Client,
    /// The far side closed first.
    Server,
    /// The client's connection broke.
    ClientLost(io::Error),
    /// The far side's connection or the tunnel broke.
    ServerLost(io::Error),
    /// The program is stopping.
    Stopped,
}

/// Result of the copy.
#[derive(Debug)]
pub(super) struct CopyResult {
    pub(super) end: ForwardEnd,
    /// Bytes client → server.
    pub(super) sent: u64,
    /// Bytes server → client.
    pub(super) received: u64,
}

/// Copies until both sides have ended in order, one has failed, or `stop` is cancelled. In the
/// first case both are closed; otherwise the caller closes the client. Updates `traffic` with each
/// chunk.
///
/// Delays the client's end while an answer may come, for a `server` with a shutdown that closes
/// both directions.
pub(super) async fn copy(
    client: &mut dyn Duplex,
    server: &mut dyn Duplex,
    traffic: &Traffic,
    stop: &CancellationToken,
) -> CopyResult {
    TwoWayCopy::new(client, server, traffic).run(stop).await
}

/// Copies for a `server` with a shutdown that closes only the sending direction: the client's end
/// is forwarded at once.
pub(super) async fn copy_half_closing(
    client: &mut dyn Duplex,
    server: &mut dyn Duplex,
    traffic: &Traffic,
    stop: &CancellationToken,
) -> CopyResult {
    let mut exchange = TwoWayCopy::new(client, server, traffic);
    exchange.half_closes = true;
    exchange.run(stop).await
}

struct TwoWayCopy<'a> {
    client: &'a mut dyn Duplex,
    server: &'a mut dyn Duplex,
    traffic: &'a Traffic,
    up: Pump,
    down: Pump,
    /// The error of writing to the far side, which may still have data on the way.
    refused: Option<io::Error>,
    /// The client has sent data since it last received some; `None`: neither yet.
    unanswered: Option<bool>,
    /// The far side's connection can close one direction alone.
    half_closes: bool,
    ended: Option<ClientEnded>,
}

/// Silence to wait for: it grows with the far side's longest silence.
#[derive(Clone, Copy, Debug)]
struct Patience {
    least: Duration,
    most: Duration,
}

impl Patience {
    fn exactly(silence: Duration) -> Self {
        Self {
            least: silence,
            most: silence,
        }
    }
}

/// State after the client's end.
struct ClientEnded {
    /// Minimum and maximum silence to wait for further data.
    patience: Patience,
    /// Start of the far side's current silence.
    since: Instant,
    /// Its longest completed silence.
    longest: Duration,
    /// Timer that fires when the far side has been silent for too long.
    quiet: Pin<Box<Sleep>>,
    /// The end has still to be forwarded to the far side.
    to_pass_on: bool,
}

impl ClientEnded {
    fn new(unanswered: Option<bool>, half_closes: bool) -> Self {
        let patience = match unanswered {
            _ if half_closes => Patience::exactly(PASSED_ON),
            Some(true) => Patience {
                least: ANSWERING,
                most: UNANSWERED,
            },
            Some(false) => Patience::exactly(ANSWERED),
            None => Patience::exactly(SILENT),
        };
        Self {
            patience,
            since: Instant::now(),
            longest: Duration::ZERO,
            quiet: Box::pin(sleep(patience.most)),
            to_pass_on: half_closes,
        }
    }

    /// Records data of the far side.
    fn note_input(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.since);
        self.wait_from(now);
    }

    /// Records that the far side is not silent: the client does not read its data.
    fn held_up(&mut self) {
        self.wait_from(Instant::now());
    }

    fn wait_from(&mut self, now: Instant) {
        let Patience { least, most } = self.patience;
        self.since = now;
        let patience = (2 * self.longest).clamp(least, most);
        self.quiet.as_mut().reset(now + patience);
    }
}

impl<'a> TwoWayCopy<'a> {
    fn new(client: &'a mut dyn Duplex, server: &'a mut dyn Duplex, traffic: &'a Traffic) -> Self {
        Self {
            client,
            server,
            traffic,
            up: Pump::new(&[]),
            down: Pump::new(&[]),
            refused: None,
            unanswered: None,
            half_closes: false,
            ended: None,
        }
    }

    async fn run(mut self, stop: &CancellationToken) -> CopyResult {
        let end = tokio::select! {
            end = poll_fn(|cx| self.poll(cx)) => end,
            () = stop.cancelled() => ForwardEnd::Stopped,
        };
        self.close(&end).await;
        CopyResult {
            end,
            sent: self.up.copied,
            received: self.down.copied,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ForwardEnd> {
        if let Poll::Ready(end) = self.poll_up(cx) {
            return Poll::Ready(end);
        }
        let before = self.down.copied;
        let (unanswered, traffic) = (&mut self.unanswered, self.traffic);
        let down = self
            .down
            .poll(cx, &mut *self.server, &mut *self.client, |bytes| {
                *unanswered = Some(false);
                traffic.received(bytes.len());
            });
        if let Poll::Ready(stopped) = down {
            return Poll::Ready(match (stopped, self.refused.take()) {
                (PumpEnd::Write(error), _) => ForwardEnd::ClientLost(error),
                (PumpEnd::Read(Some(error)), _) => ForwardEnd::ServerLost(error),
                // A closed far side that accepts no more is in order; a broken tunnel is not.
                (PumpEnd::Read(None), Some(error)) if TunnelError::of(&error).is_some() => {
                    ForwardEnd::ServerLost(error)
                }
                (PumpEnd::Read(None), _) => ForwardEnd::Server,
            });
        }
        let Some(ended) = &mut self.ended else {
            return Poll::Pending;
        };
        if self.down.copied != before {
            ended.note_input();
        }
        if self.down.is_held_up() {
            ended.held_up();
        }
        if ended.to_pass_on {
            match Pin::new(&mut *self.server).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => ended.to_pass_on = false,
                // Data of the far side may still be on the way.
                Poll::Ready(Err(error)) => {
                    ended.to_pass_on = false;
                    self.refused = Some(error);
                }
                Poll::Pending => {}
            }
        }
        ready!(ended.quiet.as_mut().poll(cx));
        Poll::Ready(ForwardEnd::Client)
    }

    /// Ready when the client is lost; an orderly end of this direction is recorded.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<ForwardEnd> {
        if self.ended.is_some() || self.refused.is_some() {
            return Poll::Pending;
        }
        let (unanswered, traffic) = (&mut self.unanswered, self.traffic);
        let count = |bytes: &[u8]| {
            *unanswered = Some(true);
            traffic.sent(bytes.len());
        };
        let up = self
            .up
            .poll(cx, &mut *self.client, &mut *self.server, count);
        match ready!(up) {
            PumpEnd::Read(Some(error)) => return Poll::Ready(ForwardEnd::ClientLost(error)),
            PumpEnd::Write(error) => self.refused = Some(error),
            PumpEnd::Read(None) => {
                self.ended = Some(ClientEnded::new(self.unanswered, self.half_closes));
            }
        }
        Poll::Pending
    }

    /// Closes both sides of an exchange that ended in order.
    async fn close(&mut self, end: &ForwardEnd) {
        match end {
            // A closed stream returns no more bytes, so there is nothing left to wait for.
            ForwardEnd::Client => {
                pump::close(self.server).await;
                pump::close(self.client).await;
            }
            ForwardEnd::Server => {
                pump::close(self.client).await;
                if self.ended.is_none() {
                    _ = timeout(LEFTOVER_DEADLINE, discard(self.client)).await;
                }
                pump::close(self.server).await;
            }
            ForwardEnd::ClientLost(_) => pump::close(self.server).await,
            ForwardEnd::ServerLost(_) | ForwardEnd::Stopped => {}
        }
    }
}

/// Reads to the end and discards the data.
async fn discard(stream: &mut dyn Duplex) {
    let mut buffer = vec![0; 16 * 1024];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests;
