//! Owners of TCP sockets on Windows: the processes in its table of TCP sockets, and their users.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use netstat2::{AddressFamilyFlags, ProtocolFlags, ProtocolSocketInfo, TcpSocketInfo, TcpState};

use super::{PeerOwner, SocketPair};
use crate::platform::processes;

/// Processes that are no program of a user: that of a socket which its process has closed, and the
/// kernel, which makes the connections of virtual machines.
const NO_PROGRAM: [u32; 2] = [0, 4];

/// Returns the owners of the sockets with the ends of `pairs`, in their order. Blocks.
///
/// A socket without a process, and a process whose user Windows does not report, are of unknown
/// owner: the client may be of this user, too, as in a virtual machine or as administrator.
///
/// # Errors
/// None. A table that cannot be read has no owners.
pub(super) fn owners(pairs: &[SocketPair]) -> io::Result<Vec<PeerOwner>> {
    let pids = pids(pairs).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot read the table of TCP sockets");
        vec![None; pairs.len()]
    });
    let known: Vec<u32> = pids.iter().copied().flatten().collect();
    let users: HashMap<u32, _> = known
        .iter()
        .copied()
        .zip(processes::users_of(&known))
        .collect();
    let owner = |pid: Option<u32>| {
        let user = pid.and_then(|pid| *users.get(&pid)?);
        user.map_or(PeerOwner::Unknown, PeerOwner::User)
    };
    Ok(pids.into_iter().map(owner).collect())
}

/// Returns the processes of the sockets with the ends of `pairs`, in their order.
fn pids(pairs: &[SocketPair]) -> Result<Vec<Option<u32>>, netstat2::error::Error> {
    let mut families = AddressFamilyFlags::empty();
    for pair in pairs {
        families |= match pair.remote.ip().to_canonical().is_ipv4() {
            true => AddressFamilyFlags::IPV4,
            false => AddressFamilyFlags::IPV6,
        };
    }
    let mut found = HashMap::new();
    for socket in netstat2::iterate_sockets_info(families, ProtocolFlags::TCP)? {
        let socket = socket?;
        let pid = socket.associated_pids.first();
        let pid = pid.filter(|pid| !NO_PROGRAM.contains(pid));
        if let (ProtocolSocketInfo::Tcp(tcp), Some(pid)) = (&socket.protocol_socket_info, pid)
            && is_connected(tcp)
        {
            let local = SocketAddr::new(tcp.local_addr, tcp.local_port);
            let remote = SocketAddr::new(tcp.remote_addr, tcp.remote_port);
            found.insert(ends(local, remote), *pid);
        }
    }
    let pid = |pair: &SocketPair| found.get(&ends(pair.local, pair.remote)).copied();
    Ok(pairs.iter().map(pid).collect())
}

/// Returns both ends in the form for comparisons.
fn ends(local: SocketAddr, remote: SocketAddr) -> [SocketAddr; 2] {
    [local, remote].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()))
}

fn is_connected(socket: &TcpSocketInfo) -> bool {
    matches!(
        socket.state,
        TcpState::Established
            | TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::CloseWait
            | TcpState::Closing
            | TcpState::LastAck
    )
}
