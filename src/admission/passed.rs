//! Listening sockets from the service manager, by the protocol of `sd_listen_fds(3)`.
//!
//! pgiam keeps the sockets open for its whole life and listens on duplicates, so that a reload can
//! give up a port and take it again: nothing else can bind the port while the service manager
//! listens there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;

use super::Listening;
use crate::platform::socket::{UnixSocket, port_of};

/// A passed file descriptor that is no socket for clients.
#[derive(Debug, Error)]
#[error(
    "the service manager passed file descriptor {descriptor}, which is not a listening TCP or Unix stream socket{}\nhint: list only ListenStream= addresses in the socket unit, with Accept=no",
    .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
)]
pub struct PassedError {
    /// Number of the descriptor.
    descriptor: usize,
    /// The system's error.
    reason: Option<io::Error>,
}

/// Listening sockets from the service manager.
#[derive(Debug, Default)]
pub struct PassedSockets {
    tcp: Vec<(SocketAddr, socket2::Socket)>,
    unix: Vec<(PathBuf, socket2::Socket)>,
}

impl PassedSockets {
    /// Takes the sockets that the environment announces, and removes the announcement, so that
    /// child processes do not see it. Call it once, before other threads run.
    ///
    /// # Errors
    /// [`PassedError`].
    pub fn from_environment() -> Result<Self, PassedError> {
        #[cfg(not(unix))]
        return Ok(Self::default());
        #[cfg(unix)]
        {
            let mut passed = Self::default();
            /// Number of the first passed descriptor (`SD_LISTEN_FDS_START`).
            const FIRST: usize = 3;
            let mut announced = listenfd::ListenFd::from_env();
            for nth in 0..announced.len() {
                passed.take(&mut announced, nth).map_err(|reason| {
                    let descriptor = FIRST + nth;
                    PassedError { descriptor, reason }
                })?;
            }
            Ok(passed)
        }
    }

    #[cfg(unix)]
    fn take(
        &mut self,
        announced: &mut listenfd::ListenFd,
        nth: usize,
    ) -> Result<(), Option<io::Error>> {
        if let Ok(Some(listener)) = announced.take_tcp_listener(nth) {
            let socket = listening(socket2::Socket::from(listener))?;
            let address = socket.local_addr()?.as_socket().ok_or(None)?;
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            self.tcp.push((address, socket));
            return Ok(());
        }
        let listener = announced.take_unix_listener(nth).ok().flatten();
        let socket = listening(socket2::Socket::from(listener.ok_or(None)?))?;
        let address = socket.local_addr()?;
        let path = address.as_pathname().ok_or(None)?;
        self.unix.push((path.to_owned(), socket));
        Ok(())
    }

    /// Returns `true` if no socket was passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.unix.is_empty()
    }

    /// Returns the socket for this address and port, to listen on.
    pub(super) fn tcp(&self, address: SocketAddr) -> io::Result<Option<Listening>> {
        let wanted = SocketAddr::new(address.ip().to_canonical(), address.port());
        let found = self.tcp.iter().find(|(address, _)| *address == wanted);
        found
            .map(|(_, socket)| Listening::from_passed(socket.try_clone()?))
            .transpose()
    }

    /// Returns the Unix socket for a port, to listen on.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn unix(&self, port: u16) -> io::Result<Option<UnixSocket>> {
        let found = self
            .unix
            .iter()
            .find(|(path, _)| port_of(path) == Some(port));
        #[cfg(unix)]
        {
            found
                .map(|(path, socket)| UnixSocket::from_passed(socket.try_clone()?, path.clone()))
                .transpose()
        }
        #[cfg(not(unix))]
        {
            let _ = found;
            Ok(None)
        }
    }

    /// Returns the sockets that belong to none of these addresses and ports, for people.
    #[must_use]
    pub fn unused(&self, addresses: &[IpAddr], ports: &[u16]) -> Vec<String> {
        let is_used = |address: &SocketAddr| {
            let mut own = addresses.iter().map(IpAddr::to_canonical);
            ports.contains(&address.port()) && own.any(|own| own == address.ip())
        };
        let tcp = self.tcp.iter().map(|(address, _)| address);
        let tcp = tcp.filter(|address| !is_used(address));
        let unix = self.unix.iter().map(|(path, _)| path);
        let unix = unix.filter(|path| !port_of(path).is_some_and(|port| ports.contains(&port)));
        tcp.map(SocketAddr::to_string)
            .chain(unix.map(|path| path.display().to_string()))
            .collect()
    }
}

/// Checks that clients can connect to the socket, where the system reports it.
#[cfg(unix)]
fn listening(socket: socket2::Socket) -> Result<socket2::Socket, Option<io::Error>> {
    #[cfg(target_os = "linux")]
    if !socket.is_listener()? {
        return Err(None);
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::admission::listen;

    /// Returns sockets on 127.0.0.1 at a free port and at a path for that port.
    #[cfg(unix)]
    fn passed(dir: &std::path::Path) -> (PassedSockets, u16) {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let path = dir.join(format!(".s.PGSQL.{}", address.port()));
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let passed = PassedSockets {
            tcp: vec![(address, tcp.into())],
            unix: vec![(path, unix.into())],
        };
        (passed, address.port())
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_port_can_be_given_up_and_taken_again_while_it_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        let (passed, port) = passed(dir.path());
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        for _ in 0..2 {
            let socket = passed.tcp(address).unwrap().unwrap();
            assert_eq!(socket.local_addr().unwrap(), address);
            let socket = passed.unix(port).unwrap().unwrap();
            let path = socket.path().to_owned();
            drop(socket);
            assert!(path.exists(), "it belongs to the service manager");
            assert!(listen(address).is_err(), "the port stays bound");
        }
        assert!(
            passed
                .tcp(SocketAddr::new(address.ip(), 1))
                .unwrap()
                .is_none()
        );
        assert!(passed.unix(1).unwrap().is_none());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn sockets_for_other_ports_and_addresses_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (passed, port) = passed(dir.path());
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        assert_eq!(passed.unused(&here, &[port]), Vec::<String>::new());
        let mapped = [IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped())];
        assert_eq!(passed.unused(&mapped, &[port]), Vec::<String>::new());
        let elsewhere = [IpAddr::V6(Ipv6Addr::LOCALHOST)];
        assert_eq!(
            passed.unused(&elsewhere, &[port]),
            [format!("127.0.0.1:{port}")]
        );
        let both = passed.unused(&here, &[]);
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[1].ends_with(&format!("/.s.PGSQL.{port}")));
    }
}
