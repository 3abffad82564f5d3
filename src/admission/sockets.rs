//! Listening TCP sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpSocket;
use tracing::debug;

use super::{Listening, PassedSockets};
use crate::config::DEFAULT_ADDRESSES;

/// Number of waiting clients that the kernel may queue per socket. When the queue is full, Linux
/// drops the client's SYN, which costs it a second. A pool that opens all its connections at once
/// must not meet that.
const BACKLOG: u32 = 1024;

/// A local port, with a socket for each of its addresses.
#[derive(Debug)]
pub(crate) struct BoundPort {
    pub(crate) port: u16,
    pub(crate) sockets: Vec<Listening>,
}

/// An address on which nothing can listen.
#[derive(Debug)]
pub(crate) struct BindFailure {
    pub(crate) address: SocketAddr,
    /// The system's error.
    pub(crate) source: io::Error,
}

/// Listens on one port at every address. Port 0 is a fresh port, the same for all addresses.
/// Returns the port, or the address that failed.
///
/// With default addresses, one that this machine does not have is skipped. Sockets from the service
/// manager are used where they have the address and the port.
pub(crate) fn listen_at_all(
    addresses: &[IpAddr],
    port: u16,
    passed: &PassedSockets,
) -> Result<BoundPort, BindFailure> {
    let chosen = addresses != DEFAULT_ADDRESSES;
    let (mut port, mut sockets) = (port, Vec::new());
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        let failed = |source| BindFailure { address, source };
        let listening = passed
            .tcp(address)
            .and_then(|socket| socket.map_or_else(|| listen(address), Ok));
        match listening {
            Ok(socket) => {
                port = socket.local_addr().map_err(failed)?.port();
                sockets.push(socket);
            }
            Err(error) if !chosen && !sockets.is_empty() && is_not_here(&error) => {
                debug!(%error, %address, "this machine does not have the address");
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(BoundPort { port, sockets })
}

/// Returns whether the machine does not have the address, such as ::1 with IPv6 disabled. Other
/// errors are fatal: many clients try ::1 first for "localhost", so another process that listens
/// there would receive them.
fn is_not_here(error: &io::Error) -> bool {
    #[cfg(unix)]
    let no_such_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    #[cfg(not(unix))]
    let no_such_family = 10_047; // WSAEAFNOSUPPORT
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(no_such_family)
}

/// Listens on 127.0.0.1 and ::1; without IPv6 on 127.0.0.1 alone.
pub(crate) fn listen_on_loopback(port: u16) -> Result<BoundPort, BindFailure> {
    listen_at_all(&DEFAULT_ADDRESSES, port, &PassedSockets::default())
}

/// Listens on exactly one address. An IPv6 socket does not accept IPv4 connections, even where that
/// is the system's default (as `ListenServerPort` in `pqcomm.c`).
pub(crate) fn listen(address: SocketAddr) -> io::Result<Listening> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        socket2::SockRef::from(&socket).set_only_v6(true)?;
        socket
    };
    // Otherwise a restart would have to wait for the old connections' TIME_WAIT. (On Windows the
    // option means something else: sharing the port with a stranger.)
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG).map(Listening::new)
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
            let BoundPort { port, sockets } =
                listen_at_all(&addresses, 0, &PassedSockets::default()).unwrap();
            let bound: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
            assert_eq!(bound, addresses.map(|ip| SocketAddr::new(ip, port)));
        }
        // As a user writes it for a dual-stack socket.
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let sockets = listen_at_all(&[mapped], 0, &PassedSockets::default())
            .unwrap()
            .sockets;
        assert!(sockets[0].local_addr().unwrap().is_ipv4());
    }

    /// An address that no machine has (RFC 3849).
    const NOT_HERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x51));

    #[tokio::test]
    async fn an_address_that_was_chosen_must_be_had() {
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), NOT_HERE];
        let failed = listen_at_all(&addresses, 0, &PassedSockets::default()).unwrap_err();
        assert_eq!(failed.address.ip(), NOT_HERE);
        assert!(is_not_here(&failed.source), "{failed:?}");
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
