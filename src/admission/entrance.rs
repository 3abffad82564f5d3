//! Accepting connections. Only this file, the Unix socket and the named pipe call `accept`; a test
//! checks that.

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
#[cfg(windows)]
use crate::platform::socket::control::{ControlListener, ControlStream};
use crate::tunnel::direct;

/// Initial and maximum pause after a failed accept for lack of descriptors or memory, which do not
/// become available within microseconds. The pause doubles while the failure continues.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Maximum number of connections of one entrance with a pending owner lookup in the kernel's
/// tables. At this number the entrance stops accepting until some are found.
const MOST_PENDING: usize = 512;

/// A listening TCP socket. Only an [`Entrance`] can accept from it.
#[derive(Debug)]
pub struct Listening(TcpListener);

impl Listening {
    /// Wraps the listener, so that other code cannot accept from it.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self(listener)
    }

    /// Listens on a socket that already listens, such as one from the service manager.
    ///
    /// # Errors
    /// Any error of the system.
    pub(super) fn from_passed(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into()).map(Self)
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Returns the limit of descriptors if this socket has one of the last.
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
    #[cfg(windows)]
    impl Sealed for super::ControlListener {}
}

/// A socket that accepts connections.
pub trait Listens: sealed::Sealed + Send + Sync {
    /// Stream of a connection.
    #[cfg(unix)]
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + std::os::fd::AsRawFd + 'static;
    /// Stream of a connection.
    #[cfg(not(unix))]
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Returns the next connection, tuned. Cancel-safe.
    #[doc(hidden)]
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Arrival)>> + Send;

    /// Moves a connection to the current runtime.
    ///
    /// # Errors
    /// Any error of the system. The connection is closed then.
    fn moved_here(stream: Self::Stream) -> io::Result<Self::Stream>;
}

impl Listens for Listening {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Arrival)> {
        let (stream, peer) = self.0.accept().await?;
        if let Err(error) = direct::tune(&stream) {
            debug!(%error, "cannot set socket options");
        }
        let ours = stream.local_addr()?;
        Ok((stream, Arrival::Tcp { peer, ours }))
    }

    fn moved_here(stream: TcpStream) -> io::Result<TcpStream> {
        TcpStream::from_std(stream.into_std()?)
    }
}

impl Listens for UnixSocket {
    #[cfg(unix)]
    type Stream = tokio::net::UnixStream;
    #[cfg(not(unix))]
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(Self::Stream, Arrival)> {
        let (stream, user) = self.accept().await?;
        Ok((stream, Arrival::Local { user }))
    }

    fn moved_here(stream: Self::Stream) -> io::Result<Self::Stream> {
        Self::Stream::from_std(stream.into_std()?)
    }
}

/// The control socket of other systems is a Unix socket.
#[cfg(windows)]
impl Listens for ControlListener {
    type Stream = ControlStream;

    async fn next(&self) -> io::Result<(ControlStream, Arrival)> {
        let (stream, user) = self.accept().await?;
        Ok((stream, Arrival::Local { user }))
    }

    /// The control socket has one runtime.
    fn moved_here(stream: ControlStream) -> io::Result<ControlStream> {
        Ok(stream)
    }
}

/// Decision about an accepted connection.
#[derive(Debug)]
pub enum Verdict<S> {
    /// The connection may be served.
    Admitted(Admitted<S>),
    /// The connection may receive the reason of its refusal.
    Refused(Refused<S>),
}

type Pending<S> = Pin<Box<dyn Future<Output = (S, Arrival, Result<bool, Refusal>)> + Send>>;

/// A listening socket and its guard.
pub struct Entrance<L: Listens> {
    socket: L,
    guard: Arc<Guard>,
    /// Connections with a pending owner lookup.
    pending: FuturesUnordered<Pending<L::Stream>>,
    /// Time until which accepting is paused, and the length of the pause.
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

    /// Returns the guard.
    #[must_use]
    pub fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.guard)
    }

    /// Returns `true` if it has accepted connections that [`Self::next`] has yet to return.
    #[must_use]
    pub fn is_deciding(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Waits for the next connection to serve or to answer with a refusal. Refused connections
    /// beyond the limit are closed here without an answer. Cancel-safe: no connection is lost.
    ///
    /// A connection waits here for microseconds. If the kernel does not report its owner at once,
    /// it waits for a reading of the kernel's tables; other connections overtake it then.
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
            // The peer of a Unix socket is always known.
            (None, Arrival::Local { .. }) => None,
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
        // An error of this client alone; the next one may succeed.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected
        ) {
            debug!(%error, "the client disconnected before it was accepted");
            return;
        }
        self.guard.complain(error);
        let pause = doubled(self.paused.map(|(_, pause)| pause), PAUSE);
        self.paused = Some((Instant::now() + pause, pause));
    }
}

/// Returns the limit of descriptors if a connection has one of the last.
#[cfg(unix)]
fn last(stream: &impl std::os::fd::AsRawFd) -> Option<u64> {
    descriptors::is_among_the_last(stream)
}

/// Returns `None` on systems without this information.
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
