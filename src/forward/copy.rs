//! Two streams of bytes, copied both ways until both ends have had their say.
//!
//! The tunnel cannot close one direction alone: a FIN ends a stream both ways (smux version 1, as
//! the SSM agent speaks it: it closes its connection to the far side). So [`copy`] does not pass a
//! client's end on while an answer may still come. `printf 'GET / HTTP/1.0\r\n\r\n' | nc -N …` closes
//! its sending side with the request, and would otherwise never see the page. Once the answer has
//! come and the far side has been quiet for a while, the stream is closed.
//!
//! A TCP connection can close one direction alone: [`copy_half_closing`] passes the end on at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::stream::Duplex;
use crate::observe::Traffic;
use crate::postgres::splice;
use crate::postgres::splice::{Pump, Stop, UNANSWERED};
use crate::tunnel::TunnelError;

/// A client that has closed after the last answer is most likely gone, not waiting: its end is
/// passed on when nothing more has come for this long. Several round trips of a slow tunnel, and
/// short enough that a loop of small programs does not fill the far side with idle connections.
const ANSWERED: Duration = Duration::from_secs(1);
/// The same once the answer to a client that has sent something since ([`UNANSWERED`]) has begun, at
/// least. A far side that has been silent for longer before is given twice its longest silence, up to
/// [`UNANSWERED`]: an answer that comes in parts is not cut off, and a far side that answers at once
/// and then waits for more does not hold the client up.
const ANSWERING: Duration = Duration::from_secs(3);
/// The same where nothing has been said at all: some servers speak first, but most such clients only
/// look whether the port is open.
const SILENT: Duration = Duration::from_secs(5);
/// The same where the far side knows that the client sends no more: it ends when it has finished.
/// Only a bound on what a far side that ignores the end can hold open.
const PASSED_ON: Duration = Duration::from_secs(60 * 60);
/// How long a client that goes on sending to a far side that has closed is listened to. To close
/// with bytes unread would reset the connection, and could cost the client the last answer.
const LEFTOVER_DEADLINE: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed first.
    Client,
    /// The far side closed first.
    Server,
    /// The client's connection broke.
    ClientLost(io::Error),
    /// The far side's connection broke, or the way to it.
    ServerLost(io::Error),
    /// The program is stopping.
    Stopped,
}

/// What was copied.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) end: End,
    /// Bytes client → server.
    pub(super) sent: u64,
    /// Bytes server → client.
    pub(super) received: u64,
}

/// Copies until both sides have ended in order, one has broken, or `stop` is cancelled. In the
/// first case both are closed; otherwise the caller closes the client. Bytes count in `traffic` as they
/// move.
///
/// Holds the client's end back while an answer may come, for a `server` whose shutdown closes both
/// directions.
pub(super) async fn copy(
    client: &mut dyn Duplex,
    server: &mut dyn Duplex,
    traffic: &Traffic,
    stop: &CancellationToken,
) -> Copied {
    Exchange::new(client, server, traffic).run(stop).await
}

/// The same for a `server` whose shutdown closes the sending direction alone: the client's end is
/// passed on at once.
pub(super) async fn copy_half_closing(
    client: &mut dyn Duplex,
    server: &mut dyn Duplex,
    traffic: &Traffic,
    stop: &CancellationToken,
) -> Copied {
    let mut exchange = Exchange::new(client, server, traffic);
    exchange.half_closes = true;
    exchange.run(stop).await
}

struct Exchange<'a> {
    client: &'a mut dyn Duplex,
    server: &'a mut dyn Duplex,
    traffic: &'a Traffic,
    up: Pump,
    down: Pump,
    /// The far side takes no more, but its last words may still be on their way.
    refused: Option<io::Error>,
    /// The client has sent something since it last received something; `None`: neither yet.
    unanswered: Option<bool>,
    /// The far side's connection can close one direction alone.
    half_closes: bool,
    ended: Option<ClientEnded>,
}

/// The client sends no more.
struct ClientEnded {
    /// How long to wait for what may still come: least and most.
    patience: (Duration, Duration),
    /// Since when the far side has been silent.
    since: Instant,
    /// Its longest silence that ended.
    longest: Duration,
    /// Ends when the far side has been silent for too long.
    quiet: Pin<Box<Sleep>>,
    /// The far side is still to be told.
    to_pass_on: bool,
}

impl ClientEnded {
    fn new(unanswered: Option<bool>, half_closes: bool) -> Self {
        let patience = match unanswered {
            _ if half_closes => (PASSED_ON, PASSED_ON),
            Some(true) => (ANSWERING, UNANSWERED),
            Some(false) => (ANSWERED, ANSWERED),
            None => (SILENT, SILENT),
        };
        Self {
            patience,
            since: Instant::now(),
            longest: Duration::ZERO,
            quiet: Box::pin(sleep(patience.1)),
            to_pass_on: half_closes,
        }
    }

    /// The far side has sent something.
    fn heard(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.since);
        self.wait_from(now);
    }

    /// The far side is not silent: the client does not take what it has sent.
    fn held_up(&mut self) {
        self.wait_from(Instant::now());
    }

    fn wait_from(&mut self, now: Instant) {
        let (least, most) = self.patience;
        self.since = now;
        let patience = (2 * self.longest).clamp(least, most);
        self.quiet.as_mut().reset(now + patience);
    }
}

impl<'a> Exchange<'a> {
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

    async fn run(mut self, stop: &CancellationToken) -> Copied {
        let end = tokio::select! {
            end = poll_fn(|cx| self.poll(cx)) => end,
            () = stop.cancelled() => End::Stopped,
        };
        self.close(&end).await;
        Copied {
            end,
            sent: self.up.copied,
            received: self.down.copied,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
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
                (Stop::Write(error), _) => End::ClientLost(error),
                (Stop::Read(Some(error)), _) => End::ServerLost(error),
                // That a closed far side takes no more is in order; a broken tunnel is not.
                (Stop::Read(None), Some(error)) if TunnelError::of(&error).is_some() => {
                    End::ServerLost(error)
                }
                (Stop::Read(None), _) => End::Server,
            });
        }
        let Some(ended) = &mut self.ended else {
            return Poll::Pending;
        };
        if self.down.copied != before {
            ended.heard();
        }
        if self.down.is_held_up() {
            ended.held_up();
        }
        if ended.to_pass_on {
            match Pin::new(&mut *self.server).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => ended.to_pass_on = false,
                // Its last words may still be on their way.
                Poll::Ready(Err(error)) => {
                    ended.to_pass_on = false;
                    self.refused = Some(error);
                }
                Poll::Pending => {}
            }
        }
        ready!(ended.quiet.as_mut().poll(cx));
        Poll::Ready(End::Client)
    }

    /// Ready when the client is lost; what ends this direction in order is noted.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<End> {
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
            Stop::Read(Some(error)) => return Poll::Ready(End::ClientLost(error)),
            Stop::Write(error) => self.refused = Some(error),
            Stop::Read(None) => {
                self.ended = Some(ClientEnded::new(self.unanswered, self.half_closes));
            }
        }
        Poll::Pending
    }

    /// Closes both sides of an exchange that ended in order.
    async fn close(&mut self, end: &End) {
        match end {
            // A closed stream gives no more bytes, so there is nothing left to wait for.
            End::Client => {
                splice::close(self.server).await;
                splice::close(self.client).await;
            }
            End::Server => {
                splice::close(self.client).await;
                if self.ended.is_none() {
                    _ = timeout(LEFTOVER_DEADLINE, discard(self.client)).await;
                }
                splice::close(self.server).await;
            }
            End::ClientLost(_) => splice::close(self.server).await,
            End::ServerLost(_) | End::Stopped => {}
        }
    }
}

/// Reads to the end and forgets it.
async fn discard(stream: &mut dyn Duplex) {
    let mut buffer = vec![0; 16 * 1024];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests;
