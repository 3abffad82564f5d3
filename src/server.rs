//! Bind, accept, permits, drain.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::config::{Serve, SocketDir, Target};
use crate::observe::Listed;
use crate::platform;
use crate::platform::socket::{SocketError, UnixSocket};
use crate::session::{self, Arrival, Entry, Proxy, Rooms};
use crate::tunnel::{Stream, Transport, direct};

/// Connections that may be saying what they want, or be told that there is no place for them, at the
/// same time; more of them wait in the kernel.
const MAX_STARTUPS: usize = 128;
/// What the port of all targets is called where a target's name would stand.
const HUB: &str = "hub";
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
    /// The port of all targets is also that of one.
    #[error(
        "hub_port = {port} is the port of target \"{target}\", too.\nhint: give the hub another one"
    )]
    Hub {
        /// The port.
        port: u16,
        /// A target on it.
        target: String,
    },
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
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
    unix: Option<UnixSocket>,
    port: u16,
    entry: Entry,
}

impl Listener {
    /// The local port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(UnixSocket::path)
    }

    /// Whether the database name picks the target.
    #[must_use]
    pub fn by_name(&self) -> bool {
        self.entry.by_name || self.entry.rooms.len() > 1
    }

    /// The targets behind it.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.entry.rooms.iter().map(|rooms| &rooms.target)
    }

    /// The targets for those who look; none for the hub, whose are those of the others.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        let rooms = self.entry.rooms.iter().filter(|_| !self.entry.by_name);
        rooms
            .map(|rooms| Listed {
                port: self.port,
                socket: self.socket().map(Path::to_owned),
                watched: rooms.clone(),
            })
            .collect()
    }
}

/// Where to listen, besides the ports of the targets.
pub struct ListenAt<'a> {
    /// What is configured.
    pub serve: &'a Serve,
    /// The directory of the Unix sockets, when none is configured and the system has such sockets.
    pub default_socket_dir: Option<PathBuf>,
}

/// Binds every address for every distinct local port of `rooms`, and a Unix socket for each. Targets
/// with the same port share its listener; port 0 is a fresh port for each. The hub's port leads to
/// all of them.
///
/// # Errors
/// [`BindError`] for the first port that cannot be had. A machine without IPv6 is served on
/// 127.0.0.1 alone, and one whose default directory cannot be used without Unix sockets.
pub fn bind(rooms: Vec<Arc<Rooms>>, at: &ListenAt<'_>) -> Result<Vec<Listener>, BindError> {
    let all: Arc<[Arc<Rooms>]> = rooms.clone().into();
    let mut by_port: BTreeMap<u16, Vec<Arc<Rooms>>> = BTreeMap::new();
    let mut listeners = Vec::new();
    let mut listen = |port, rooms, by_name| {
        let entry = Entry { rooms, by_name };
        at.listen(port, entry)
            .map(|listener| listeners.push(listener))
    };
    for rooms in rooms {
        match rooms.target.local_port {
            0 => listen(0, vec![rooms].into(), false)?,
            port => by_port.entry(port).or_default().push(rooms),
        }
    }
    let hub = at.serve.hub_port;
    if let Some(port) = hub
        && let Some(rooms) = by_port.get(&port)
    {
        let target = name_of(rooms);
        return Err(BindError::Hub { port, target });
    }
    for (port, rooms) in by_port {
        listen(port, rooms.into(), false)?;
    }
    if let Some(port) = hub {
        listen(port, all, true)?;
    }
    Ok(listeners)
}

fn name_of(rooms: &[Arc<Rooms>]) -> String {
    rooms
        .first()
        .map(|rooms| rooms.target.name.clone())
        .unwrap_or_default()
}

impl ListenAt<'_> {
    fn listen(&self, port: u16, entry: Entry) -> Result<Listener, BindError> {
        let target = if entry.by_name {
            HUB.to_owned()
        } else {
            name_of(&entry.rooms)
        };
        let bound = bind_all(&self.serve.addresses, port);
        let (port, sockets) = bound.map_err(|(address, source)| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, target },
            _ => BindError::Other { address, source },
        })?;
        Ok(Listener {
            sockets,
            unix: self.socket(port)?,
            port,
            entry,
        })
    }

    fn socket(&self, port: u16) -> Result<Option<UnixSocket>, BindError> {
        match (&self.serve.socket_dir, &self.default_socket_dir) {
            (SocketDir::None, _) | (SocketDir::Default, None) => Ok(None),
            (SocketDir::At(dir), _) => Ok(Some(platform::socket::bind(dir, port)?)),
            (SocketDir::Default, Some(dir)) => match platform::socket::bind(dir, port) {
                Ok(socket) => Ok(Some(socket)),
                // Nobody has asked for it.
                Err(error) => {
                    warn!(reason = %error, "no Unix socket");
                    Ok(None)
                }
            },
        }
    }
}

/// Listens on a port of every address; port 0 is a fresh one, the same for all. Returns the port, or
/// the address that could not be had.
///
/// Of the addresses that nobody has chosen, one that this machine does not have is left out.
pub(crate) fn bind_all(
    addresses: &[IpAddr],
    port: u16,
) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    let chosen = addresses != Serve::default().addresses;
    let (mut port, mut sockets) = (port, Vec::new());
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match socket(address) {
            Ok(socket) => {
                port = socket
                    .local_addr()
                    .map_err(|error| (address, error))?
                    .port();
                sockets.push(socket);
            }
            Err(error) if !chosen && !sockets.is_empty() && is_not_here(&error) => {
                debug!(%error, %address, "this machine has no such address");
            }
            Err(error) => return Err((address, error)),
        }
    }
    Ok((port, sockets))
}

/// Whether an address cannot be had because the machine does not have it, as ::1 where IPv6 is
/// switched off. "localhost" means ::1 first for many clients: where there is one, whatever else
/// keeps us from it, somebody else could be there and get them.
fn is_not_here(error: &io::Error) -> bool {
    #[cfg(unix)]
    let no_such_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    #[cfg(not(unix))]
    let no_such_family = 10_047; // WSAEAFNOSUPPORT
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(no_such_family)
}

/// The same on 127.0.0.1 and ::1. A machine without IPv6 does with one socket.
pub(crate) fn loopback(port: u16) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    bind_all(&Serve::default().addresses, port)
}

/// Listens on one address, and on it only: an IPv6 socket does not take the IPv4 addresses of its
/// port, too, where the system's default is that it does (as `ListenServerPort` in `pqcomm.c`).
pub(crate) fn socket(address: SocketAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        socket2::SockRef::from(&socket).set_only_v6(true)?;
        socket
    };
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
    /// Connections that came when the server was about to stop.
    late: TaskTracker,
}

impl Server {
    /// Starts to accept on every listener.
    #[must_use]
    pub fn start(proxy: Arc<Proxy>, listeners: Vec<Listener>) -> Self {
        let server = Self {
            // The hub's are those of the others.
            rooms: listeners
                .iter()
                .filter(|listener| !listener.entry.by_name)
                .flat_map(|listener| listener.entry.rooms.iter().cloned())
                .collect(),
            proxy,
            accepting: CancellationToken::new(),
            connections: TaskTracker::new(),
            late: TaskTracker::new(),
        };
        let startups = Arc::new(Semaphore::new(MAX_STARTUPS));
        for listener in listeners {
            let tcp = listener.sockets.into_iter().map(Socket::Tcp);
            for socket in tcp.chain(listener.unix.map(Socket::Unix)) {
                let accept = Accept {
                    proxy: Arc::clone(&server.proxy),
                    entry: listener.entry.clone(),
                    startups: Arc::clone(&startups),
                    connections: server.connections.clone(),
                    late: server.late.clone(),
                };
                let stop = server.accepting.clone();
                let alive = server.proxy.observed.accepting();
                tokio::spawn(async move {
                    let accepting = stop.run_until_cancelled(accept.run(socket));
                    alive.watch(accepting).await;
                });
            }
        }
        server
    }

    /// Waits up to `grace` for open connections; `hurry` cuts the wait short. Meanwhile new ones are
    /// told that they are too late, and only cancel requests are served, as in PostgreSQL's "smart"
    /// shutdown. Connections that are still open then are told and closed, then the SSM sessions are
    /// ended.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        let Self {
            proxy,
            rooms,
            accepting,
            connections,
            late,
        } = self;
        proxy.turn_away_newcomers();
        let running = Running {
            accepting,
            connections,
            stop: proxy.stop.clone(),
            transports: rooms
                .iter()
                .map(|rooms| Arc::clone(&rooms.transport))
                .collect(),
        };
        running.wait(grace, hurry).await;
        running.accepting.cancel();
        running.finish(&late).await;
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
    /// Stops accepting and waits up to `grace` for open connections; `hurry` cuts the wait short.
    /// Connections that are still open are ended, then the SSM sessions.
    pub(crate) async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.accepting.cancel();
        self.wait(grace, hurry).await;
        self.finish(&TaskTracker::new()).await;
    }

    async fn wait(&self, grace: Duration, hurry: impl Future<Output = ()>) {
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
    }

    /// Ends the connections, the `late` ones among them, and the SSM sessions.
    async fn finish(self, late: &TaskTracker) {
        self.stop.cancel();
        late.close();
        let all = async { tokio::join!(self.connections.wait(), late.wait()) };
        let closed = tokio::time::timeout(session::STOP_DEADLINE, all).await;
        if closed.is_err() {
            warn!(
                connections = self.connections.len() + late.len(),
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
    entry: Entry,
    startups: Arc<Semaphore>,
    connections: TaskTracker,
    late: TaskTracker,
}

impl Accept {
    /// Accepts until it is dropped. When as many clients as may be are saying what they want, the next
    /// one waits here, and the others in the kernel. The turn comes after the client and not before:
    /// a program may listen at more places than clients may begin at a time.
    async fn run(self, socket: Socket) {
        loop {
            match socket.accept().await {
                Ok((stream, arrival)) => {
                    // Nobody closes the semaphore.
                    let Ok(permit) = Arc::clone(&self.startups).acquire_owned().await else {
                        return;
                    };
                    let (proxy, entry) = (Arc::clone(&self.proxy), self.entry.clone());
                    // Those that come late are not waited for.
                    let tracker = if proxy.turns_newcomers_away() {
                        &self.late
                    } else {
                        &self.connections
                    };
                    tracker.spawn(session::serve(proxy, entry, stream, arrival, permit));
                }
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A listening socket of either kind.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Arrival)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                if let Err(error) = direct::tune(&stream) {
                    debug!(%error, "socket options");
                }
                let ours = stream.local_addr()?;
                Ok((Box::new(stream), Arrival::Tcp { peer, ours }))
            }
            Self::Unix(socket) => {
                let (stream, uid) = socket.accept().await?;
                Ok((Box::new(stream), Arrival::Unix { uid }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[tokio::test]
    async fn both_families_can_be_had_at_all_their_addresses() {
        let any = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        for addresses in [any, [any[1], any[0]]] {
            let (port, sockets) = bind_all(&addresses, 0).unwrap();
            let bound: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
            assert_eq!(bound, addresses.map(|ip| SocketAddr::new(ip, port)));
        }
        // As written by who thinks of sockets for both families.
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let (_, sockets) = bind_all(&[mapped], 0).unwrap();
        assert!(sockets[0].local_addr().unwrap().is_ipv4());
    }

    /// An address of nobody (RFC 3849).
    const NOT_HERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x51));

    #[tokio::test]
    async fn an_address_that_was_chosen_must_be_had() {
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), NOT_HERE];
        let (address, error) = bind_all(&addresses, 0).unwrap_err();
        assert_eq!(address.ip(), NOT_HERE);
        assert!(is_not_here(&error), "{error}");
    }

    #[test]
    fn only_an_address_that_is_not_here_can_be_done_without() {
        #[cfg(unix)]
        {
            use rustix::io::Errno;
            for (errno, expected) in [
                (Errno::ADDRNOTAVAIL, true),
                (Errno::AFNOSUPPORT, true),
                (Errno::ADDRINUSE, false),
                (Errno::MFILE, false),
                (Errno::NFILE, false),
                (Errno::ACCESS, false),
                (Errno::PERM, false),
                (Errno::NOBUFS, false),
            ] {
                assert_eq!(is_not_here(&errno.into()), expected, "{errno}");
            }
        }
    }
}
