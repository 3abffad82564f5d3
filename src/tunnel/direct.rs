//! `via = "direct"`: plain TCP from this machine, for a database that is reachable without a tunnel
//! (inside the VPC, over a VPN, over peering).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Readiness, Transport, TunnelError};
use crate::base::stream::{BoxFuture, Stream};
use crate::config::Endpoint;

/// Silence after which the kernel probes a TCP peer. Well below the 350 s after which AWS network
/// load balancers and NAT gateways forget an idle flow.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(60);

/// Timeout for name lookup and connection together. A filtered port sends no answer at all, and the
/// kernel would continue for two minutes.
const DEADLINE: Duration = Duration::from_secs(10);

/// Delay before the next address of a name is tried beside one that has not answered (RFC 8305,
/// section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Failures of a direct connection with a remedy of their own; a later one is more specific than an
/// earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectFailure {
    /// Any other failure, such as no route.
    Other,
    /// No answer.
    Timeout,
    /// The host answers, but the port is closed.
    Refused,
    /// The name has no address.
    UnknownName,
}

/// Opens TCP connections to one endpoint.
#[derive(Debug)]
pub struct DirectTransport {
    endpoint: Endpoint,
    deadline: Duration,
}

impl DirectTransport {
    /// Creates the transport. It connects only when the first stream is opened. Clients wait
    /// `connect_timeout` for it, so the result comes some time before.
    #[must_use]
    pub fn new(endpoint: Endpoint, connect_timeout: Duration) -> Self {
        let deadline = DEADLINE.min(connect_timeout / 5 * 4);
        Self { endpoint, deadline }
    }

    async fn connect(&self) -> Result<TcpStream, (DirectFailure, io::Error)> {
        let until = Instant::now() + self.deadline;
        let late = |what: &str| {
            let text = format!("{what} within {} s", self.deadline.as_secs_f32());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let Endpoint { host, port } = &self.endpoint;
        let found = timeout_at(until, lookup_host((host.as_str(), *port))).await;
        let found = found.unwrap_or_else(|_| Err(late("no answer from DNS")));
        let addresses: Vec<SocketAddr> = match found {
            Ok(addresses) => addresses.collect(),
            Err(error) => return Err((DirectFailure::UnknownName, error)),
        };
        let connected = race(addresses, TcpStream::connect, until).await;
        let failed = |error| (failure(&error), error);
        let stream =
            connected.map_err(|error| failed(error.unwrap_or_else(|| late("no answer"))))?;
        tune(&stream).map_err(failed)?;
        Ok(stream)
    }
}

impl Transport for DirectTransport {
    /// A TCP handshake proves that the far side is there, so its first bytes are not awaited.
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let failed = |(failure, source)| TunnelError::Direct {
                endpoint: self.endpoint.clone(),
                failure,
                source: Arc::new(source),
            };
            let mut stream = self.connect().await.map_err(failed)?;
            let written = stream.write_all(&hello).await;
            written.map_err(|error| failed((DirectFailure::Other, error)))?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn half_closes(&self) -> bool {
        true
    }

    /// A direct connection has no intermediate state to report.
    fn readiness(&self) -> Readiness {
        Readiness::Up
    }

    fn waits_for(&self) -> Option<&'static str> {
        Some("the TCP connection to the database")
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Returns the first of several addresses that answers. One that does not answer delays the others
/// by [`NEXT_ADDRESS`] only.
///
/// # Errors
/// The most specific one when all have failed, or when some have and the time is up; `None` when
/// none has answered until then.
pub(crate) async fn race<A, T, F>(
    addresses: Vec<A>,
    dial: impl Fn(A) -> F,
    until: Instant,
) -> Result<T, Option<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut dials = FuturesUnordered::new();
    let mut told: Option<io::Error> = None;
    loop {
        match waiting.next() {
            Some(address) => dials.push(dial(address)),
            None if dials.is_empty() => return Err(told),
            None => {}
        }
        tokio::select! {
            Some(outcome) = dials.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    let more = told.as_ref().is_none_or(|known| failure(known) < failure(&error));
                    told = if more { Some(error) } else { told };
                }
            },
            () = sleep(NEXT_ADDRESS), if waiting.len() > 0 => {}
            () = sleep_until(until) => return Err(told.filter(|known| failure(known) == DirectFailure::Refused)),
        }
    }
}

/// Returns the kind of a connection's failure.
pub(crate) fn failure(error: &io::Error) -> DirectFailure {
    match error.kind() {
        io::ErrorKind::TimedOut => DirectFailure::Timeout,
        io::ErrorKind::ConnectionRefused => DirectFailure::Refused,
        _ => DirectFailure::Other,
    }
}

/// Disables Nagle's delay (a query is one small write that must leave at once) and enables
/// keepalive probes.
///
/// # Errors
/// The socket's error.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::Either;

    use super::*;

    /// Simulated result of a dial: no answer, an error, or a connection.
    #[derive(Clone, Copy)]
    enum DialFate {
        Silence,
        Error(io::ErrorKind),
        Answer(u8),
    }
    use DialFate::{Answer, Error, Silence};

    async fn outcome(fates: &[DialFate]) -> (Result<u8, Option<io::ErrorKind>>, Duration) {
        let begun = Instant::now();
        let dial = |fate| match fate {
            Silence => Either::Left(pending()),
            Error(kind) => Either::Right(ready(Err(io::Error::from(kind)))),
            Answer(which) => Either::Right(ready(Ok(which))),
        };
        let outcome = race(fates.to_vec(), dial, begun + DEADLINE).await;
        let outcome = outcome.map_err(|error| error.map(|error| error.kind()));
        (outcome, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_does_not_keep_the_others_from_answering() {
        use io::ErrorKind::{ConnectionRefused, NetworkUnreachable};
        // The timer of a paused clock has a resolution of a millisecond.
        let soon = NEXT_ADDRESS + Duration::from_millis(5);
        let (answer, took) = outcome(&[Silence, Answer(2)]).await;
        assert_eq!(answer, Ok(2));
        assert!((NEXT_ADDRESS..soon).contains(&took), "{took:?}");
        let (answer, took) = outcome(&[Error(NetworkUnreachable), Answer(2), Answer(3)]).await;
        assert_eq!((answer, took), (Ok(2), Duration::ZERO));
        let (answer, took) = outcome(&[Silence, Error(NetworkUnreachable)]).await;
        assert_eq!(answer, Err(None), "the silent one is the reason");
        assert!(took >= DEADLINE && took < DEADLINE + soon, "{took:?}");
        let (answer, _) = outcome(&[Error(ConnectionRefused), Error(NetworkUnreachable)]).await;
        assert_eq!(answer, Err(Some(ConnectionRefused)), "the telling one");
        assert_eq!(outcome(&[]).await.0, Err(None));
    }

    async fn open(host: String, port: u16) -> DirectFailure {
        let direct = DirectTransport::new(Endpoint { host, port }, Duration::from_secs(30));
        match direct.open(Bytes::new()).await.map(|_| ()) {
            Err(TunnelError::Direct { failure, .. }) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = open("127.0.0.1".to_owned(), port).await;
        assert_eq!(refused, DirectFailure::Refused);
        // A label is 63 bytes long at most, so no DNS query is sent.
        let unknown = open("x".repeat(64), port).await;
        assert_eq!(unknown, DirectFailure::UnknownName);
    }

    #[test]
    fn the_answer_comes_before_the_client_gives_up() {
        for (timeout, deadline) in [(30, 10_000), (600, 10_000), (10, 8000), (1, 800)] {
            let endpoint = "localhost:5432".parse().unwrap();
            let direct = DirectTransport::new(endpoint, Duration::from_secs(timeout));
            assert_eq!(direct.deadline, Duration::from_millis(deadline));
        }
    }
}
