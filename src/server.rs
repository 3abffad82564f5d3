//! Bind, accept, permits, drain.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::config::Target;
use crate::session::{self, Proxy, Rooms};
use crate::tunnel::{Transport, direct};

/// Connections served at once. Far above what RDS instances accept per role, and below the usual
/// limit of 1,024 descriptors, of which a connection takes one or two.
pub const MAX_CONNECTIONS: usize = 400;
/// Clients over the limit that may be told so at the same time; the rest is just closed.
const MAX_REFUSALS: usize = 64;
/// Waiting clients the kernel may queue per socket. When the queue is full, Linux drops the client's
/// SYN, which costs it a second; a pool that opens all its connections at once must not meet that.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory, as they do not come back
/// within microseconds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long ending the SSM sessions may take at exit.
const TUNNEL_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The port is taken.
    #[error(
        "cannot listen on {address}: the port is in use.\nhint: another pgiam or a PostgreSQL server may be running; \
         choose another with port = {} for target \"{target}\" or --port", next(.address)
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The target that wants it.
        target: String,
    },
    /// Another failure.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

fn next(address: &SocketAddr) -> u16 {
    address.port().checked_add(1).unwrap_or(5433)
}

/// One local port and the targets behind it.
pub struct Listener {
    sockets: Vec<TcpListener>,
    port: u16,
    rooms: Arc<[Arc<Rooms>]>,
}

impl Listener {
    /// The local port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The targets behind it.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.rooms.iter().map(|rooms| &rooms.target)
    }
}

/// Binds 127.0.0.1 and ::1 for every distinct local port of `rooms`. Targets with the same port
/// share its listener; port 0 is a fresh port for each.
///
/// # Errors
/// [`BindError`] for the first port that cannot be had. A machine without IPv6 is served on
/// 127.0.0.1 alone.
pub fn bind(rooms: Vec<Arc<Rooms>>) -> Result<Vec<Listener>, BindError> {
    let mut by_port: BTreeMap<u16, Vec<Arc<Rooms>>> = BTreeMap::new();
    let mut listeners = Vec::new();
    for rooms in rooms {
        match rooms.target.local_port {
            0 => listeners.push(listen(0, vec![rooms])?),
            port => by_port.entry(port).or_default().push(rooms),
        }
    }
    for (port, rooms) in by_port {
        listeners.push(listen(port, rooms)?);
    }
    Ok(listeners)
}

fn listen(port: u16, rooms: Vec<Arc<Rooms>>) -> Result<Listener, BindError> {
    let target = rooms
        .first()
        .map(|rooms| rooms.target.name.clone())
        .unwrap_or_default();
    let (port, sockets) = loopback(port).map_err(|(address, source)| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address, target },
        _ => BindError::Other { address, source },
    })?;
    Ok(Listener {
        sockets,
        port,
        rooms: rooms.into(),
    })
}

/// Listens on a port of 127.0.0.1 and ::1; port 0 is a fresh one. A machine without IPv6 does with
/// one socket. Returns the port, or the address that could not be had.
pub(crate) fn loopback(port: u16) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let first = socket(v4).map_err(|error| (v4, error))?;
    let port = first.local_addr().map_err(|error| (v4, error))?.port();
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
    let mut sockets = vec![first];
    match socket(v6) {
        Ok(socket) => sockets.push(socket),
        // "localhost" means ::1 first for many clients: someone else there would get them.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err((v6, error)),
        Err(error) => debug!(%error, "no IPv6 loopback here"),
    }
    Ok((port, sockets))
}

/// Listens on one address.
pub(crate) fn socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Without it a restart would have to wait for the old connections' TIME_WAIT. (On Windows the
    // option means something else: sharing the port with a stranger.)
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The running server.
pub struct Server {
    proxy: Arc<Proxy>,
    rooms: Vec<Arc<Rooms>>,
    accepting: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Starts to accept on every listener.
    #[must_use]
    pub fn start(proxy: Arc<Proxy>, listeners: Vec<Listener>) -> Self {
        let server = Self {
            rooms: listeners
                .iter()
                .flat_map(|listener| listener.rooms.iter().cloned())
                .collect(),
            proxy,
            accepting: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        for listener in listeners {
            for socket in listener.sockets {
                let accept = Accept {
                    proxy: Arc::clone(&server.proxy),
                    rooms: Arc::clone(&listener.rooms),
                    permits: Arc::clone(&permits),
                    refusals: Arc::clone(&refusals),
                    connections: server.connections.clone(),
                };
                let stop = server.accepting.clone();
                let accepting =
                    self::accept(socket, move |stream, peer| accept.spawn(stream, peer));
                tokio::spawn(async move { stop.run_until_cancelled(accepting).await });
            }
        }
        server
    }

    /// Stops accepting and waits up to `grace` for open connections; `hurry` cuts the wait short.
    /// Connections that are still open are told and closed, then the SSM sessions are ended.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        let Self {
            proxy,
            rooms,
            accepting,
            connections,
        } = self;
        let running = Running {
            accepting,
            connections,
            stop: proxy.stop.clone(),
            transports: rooms
                .iter()
                .map(|rooms| Arc::clone(&rooms.transport))
                .collect(),
        };
        running.drain(grace, hurry).await;
    }
}

/// What has to end when the program does, in this order.
pub(crate) struct Running {
    /// Ends the accept loops.
    pub(crate) accepting: CancellationToken,
    pub(crate) connections: TaskTracker,
    /// Ends the connections.
    pub(crate) stop: CancellationToken,
    pub(crate) transports: Vec<Arc<dyn Transport>>,
}

impl Running {
    /// See [`Server::drain`].
    pub(crate) async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.accepting.cancel();
        self.connections.close();
        if !self.connections.is_empty() {
            info!(
                connections = self.connections.len(),
                grace_s = grace.as_secs(),
                "waiting for open connections"
            );
            tokio::select! {
                () = self.connections.wait() => {}
                () = tokio::time::sleep(grace) => {}
                () = hurry => {}
            }
        }
        self.stop.cancel();
        let closed = tokio::time::timeout(session::STOP_DEADLINE, self.connections.wait()).await;
        if closed.is_err() {
            warn!(
                connections = self.connections.len(),
                "connections did not close in time"
            );
        }
        let tunnels = futures_util::future::join_all(
            self.transports.iter().map(|transport| transport.shutdown()),
        );
        if tokio::time::timeout(TUNNEL_SHUTDOWN_DEADLINE, tunnels)
            .await
            .is_err()
        {
            warn!("SSM sessions did not end in time; AWS ends them at their idle timeout");
        }
    }
}

/// Accepts until it is dropped.
pub(crate) async fn accept(socket: TcpListener, mut serve: impl FnMut(TcpStream, SocketAddr)) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = direct::tune(&stream) {
                    debug!(%error, "socket options");
                }
                serve(stream, peer);
            }
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What an accept loop hands to each connection.
struct Accept {
    proxy: Arc<Proxy>,
    rooms: Arc<[Arc<Rooms>]>,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Accept {
    fn spawn(&self, stream: TcpStream, peer: SocketAddr) {
        let (proxy, rooms) = (Arc::clone(&self.proxy), Arc::clone(&self.rooms));
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permitted = permit.is_ok();
        let Ok(permit) = permit.or_else(|_| Arc::clone(&self.refusals).try_acquire_owned()) else {
            return debug!(%peer, "over the limit; closed");
        };
        self.connections.spawn(async move {
            session::serve(proxy, rooms, Box::new(stream), peer, permitted).await;
            drop(permit);
        });
    }
}
