//! Accepting. The only file besides the Unix socket's own that calls `accept`; a test looks for others.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{Admitted, Arrival, Guard, Refusal, Refused};
use crate::base::jitter::doubled;
#[cfg(unix)]
use crate::platform::descriptors;
use crate::platform::socket::UnixSocket;
use crate::tunnel::direct;

/// Pause after an accept that failed for want of descriptors or memory, which do not come back within
/// microseconds; it doubles as long as that goes on.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Connections of one entrance whose owners are being looked up in the kernel's tables. Then it
/// accepts no more until some are found.
const MOST_PENDING: usize = 512;

/// A TCP port that is listened on. Only an [`Entrance`] can accept at it.
#[derive(Debug)]
pub struct Listening(TcpListener);

impl Listening {
    /// Keeps the listener from everybody else.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self(listener)
    }

    /// The address.
    ///
    /// # Errors
    /// Whatever the system answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The limit of descriptors, when this socket has one of the last.
    #[must_use]
    pub fn is_among_the_last(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            descriptors::is_among_the_last(&self.0)
        }
        #[cfg(not(unix))]
        None
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Listening {}
    impl Sealed for super::UnixSocket {}
}

/// What connections can be accepted at.
pub trait Listens: sealed::Sealed + Send + Sync {
    /// A connection.
    #[cfg(unix)]
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + std::os::fd::AsRawFd + 'static;
    /// A connection.
    #[cfg(not(unix))]
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, tuned. Cancel-safe.
    #[doc(hidden)]
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Arrival)>> + Send;
}

impl Listens for Listening {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Arrival)> {
        let (stream, peer) = self.0.accept().await?;
        if let Err(error) = direct::tune(&stream) {
            debug!(%error, "socket options");
        }
        let ours = stream.local_addr()?;
        Ok((stream, Arrival::Tcp { peer, ours }))
    }
}

impl Listens for UnixSocket {
    #[cfg(unix)]
    type Stream = tokio::net::UnixStream;
    #[cfg(not(unix))]
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(Self::Stream, Arrival)> {
        let (stream, uid) = self.accept().await?;
        Ok((stream, Arrival::Unix { uid }))
    }
}

/// What has become of a connection that was accepted.
#[derive(Debug)]
pub enum Verdict<S> {
    /// It may be served.
    Admitted(Admitted<S>),
    /// It may be told why not.
    Refused(Refused<S>),
}

type Pending<S> = Pin<Box<dyn Future<Output = (S, Arrival, Result<bool, Refusal>)> + Send>>;

/// A listening socket and the guard in front of it.
pub struct Entrance<L: Listens> {
    socket: L,
    guard: Arc<Guard>,
    /// Connections whose owners are not known yet.
    pending: FuturesUnordered<Pending<L::Stream>>,
    /// No accept before this, and how long the pause was.
    paused: Option<(Instant, Duration)>,
}

impl<L: Listens> Entrance<L> {
    /// Puts `guard` in front of `socket`.
    #[must_use]
    pub fn new(socket: L, guard: Arc<Guard>) -> Self {
        Self {
            socket,
            guard,
            pending: FuturesUnordered::new(),
            paused: None,
        }
    }

    /// Waits for the next connection that is to be served or told why not. Refused ones that are too
    /// many to be told are closed in here. Cancel-safe: no connection is lost.
    ///
    /// A connection waits here for microseconds, or where the kernel does not tell its owner at once,
    /// for a reading of the kernel's tables; others pass it then.
    pub async fn next(&mut self) -> Verdict<L::Stream> {
        loop {
            let decided = tokio::select! {
                Some((stream, arrival, judged)) = self.pending.next(), if !self.pending.is_empty() => {
                    self.decide(stream, arrival, judged)
                }
                accepted = accept(&self.socket, self.paused), if self.pending.len() < MOST_PENDING => {
                    match accepted {
                        Ok((stream, arrival)) => {
                            self.paused = None;
                            self.arrive(stream, arrival)
                        }
                        Err(error) => {
                            self.pause(&error);
                            None
                        }
                    }
                }
            };
            if let Some(verdict) = decided {
                return verdict;
            }
        }
    }

    fn arrive(&mut self, stream: L::Stream, arrival: Arrival) -> Option<Verdict<L::Stream>> {
        let last = last(&stream);
        match (self.guard.judge(arrival, last), arrival) {
            (Some(judged), _) => self.decide(stream, arrival, judged),
            (None, Arrival::Tcp { peer, ours }) => {
                let guard = Arc::clone(&self.guard);
                self.pending.push(Box::pin(async move {
                    let judged = guard.judge_by_tables((ours, peer), last).await;
                    (stream, arrival, judged)
                }));
                None
            }
            // A Unix socket's peer is always known.
            (None, Arrival::Unix { .. }) => None,
        }
    }

    fn decide(
        &self,
        stream: L::Stream,
        arrival: Arrival,
        judged: Result<bool, Refusal>,
    ) -> Option<Verdict<L::Stream>> {
        match judged {
            Ok(is_owners) => Some(Verdict::Admitted(Admitted {
                stream,
                arrival,
                is_owners,
            })),
            Err(refusal) => {
                let told = self.guard.tells(&refusal, last(&stream).is_some())?;
                Some(Verdict::Refused(Refused {
                    stream,
                    arrival,
                    refusal,
                    told,
                }))
            }
        }
    }

    fn pause(&mut self, error: &io::Error) {
        // The client's own failure, which says nothing about the next one.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected
        ) {
            debug!(%error, "the client was gone before it was accepted");
            return;
        }
        self.guard.complain(error);
        let pause = doubled(self.paused.map(|(_, pause)| pause), PAUSE);
        self.paused = Some((Instant::now() + pause, pause));
    }
}

/// The limit of descriptors, when a connection has one of the last.
#[cfg(unix)]
fn last(stream: &impl std::os::fd::AsRawFd) -> Option<u64> {
    descriptors::is_among_the_last(stream)
}

/// The same where nothing is known of it.
#[cfg(not(unix))]
fn last<T>(_stream: &T) -> Option<u64> {
    None
}

async fn accept<L: Listens>(
    socket: &L,
    paused: Option<(Instant, Duration)>,
) -> io::Result<(L::Stream, Arrival)> {
    if let Some((until, _)) = paused {
        sleep_until(until).await;
    }
    socket.next().await
}
