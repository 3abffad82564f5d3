//! Format of the table of TCP sockets of macOS (`get_pcblist_n` in `bsd/netinet/in_pcblist.c` of
//! XNU, structures in `bsd/sys/socketvar.h`, `bsd/netinet/in_pcb.h` and `tcp_var.h`).
//!
//! The table consists of records. Each begins with its length and its kind, and is padded to 8
//! bytes. A socket is a sequence of records of different kinds, of which the last has its TCP
//! state. The first and the last record of the table have another form, and their own length. New
//! versions of the system have appended fields to the records.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{PeerOwner, SocketPair};
use crate::platform::user::UserId;

/// Length of `struct xinpgen`, the first and the last record.
const GENERATION: usize = 24;
/// Padding of records.
const ALIGNMENT: usize = 8;
/// Kinds of records: `XSO_SOCKET`, `XSO_INPCB`, `XSO_TCPCB`.
const SOCKET: u32 = 0x001;
const INPCB: u32 = 0x010;
const TCPCB: u32 = 0x020;
/// `INP_IPV4` in `inp_vflag`.
const IS_IPV4: u8 = 0x1;
/// Root. The service manager, which may have created the listening socket, runs as root.
const ROOT: u32 = 0;
/// `ESTABLISHED`, `CLOSE_WAIT`, `FIN_WAIT_1`, `CLOSING`, `LAST_ACK`, `FIN_WAIT_2`
/// (`bsd/netinet/tcp_fsm.h`).
const CONNECTED: [u32; 6] = [4, 5, 6, 7, 8, 9];

/// Returns the owners of the sockets with the ends of `pairs`, in their order.
///
/// An owner counts only if the table also has pgiam's end of the connection, with pgiam's own user
/// `own` or root: so a table of an unknown format has no owners.
pub(super) fn owners(table: &[u8], pairs: &[SocketPair], own: Option<u32>) -> Vec<PeerOwner> {
    let mut found = HashMap::new();
    for socket in Records(table).sockets() {
        found.insert((socket.local, socket.remote), socket.uid);
    }
    let uid = |local, remote| *found.get(&(canonical(local), canonical(remote)))?;
    let owner = |pair: &SocketPair| {
        let ours = uid(pair.remote, pair.local)?;
        let is_known = Some(ours) == own || ours == ROOT;
        uid(pair.local, pair.remote).filter(|_| is_known)
    };
    let owner = |pair| owner(pair).map(UserId::Uid);
    let owners = pairs.iter().map(owner);
    owners
        .map(|user| user.map_or(PeerOwner::Unknown, PeerOwner::User))
        .collect()
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

/// A connected socket of the table.
struct ListedSocket {
    local: SocketAddr,
    remote: SocketAddr,
    /// `None` if the connection has no socket any more.
    uid: Option<u32>,
}

/// The records from here on.
struct Records<'a>(&'a [u8]);

impl Records<'_> {
    /// Returns the connected sockets.
    fn sockets(mut self) -> Vec<ListedSocket> {
        let (mut sockets, mut ends, mut uid) = (Vec::new(), None, None);
        self.0 = self.0.get(GENERATION..).unwrap_or_default();
        for (kind, record) in self {
            match kind {
                INPCB => (ends, uid) = (ends_in(record), None),
                SOCKET => uid = uid_in(record),
                TCPCB => {
                    let state = word(record, 36);
                    if let Some((local, remote)) = ends.take()
                        && state.is_some_and(|state| CONNECTED.contains(&state))
                    {
                        let uid = uid.take();
                        sockets.push(ListedSocket { local, remote, uid });
                    }
                }
                _ => {}
            }
        }
        sockets
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(word(self.0, 0)?).ok()?;
        if length <= GENERATION {
            return None;
        }
        let kind = word(self.0, 4)?;
        let record = self.0.get(..length)?;
        let next = length.checked_next_multiple_of(ALIGNMENT)?;
        self.0 = self.0.get(next..).unwrap_or_default();
        Some((kind, record))
    }
}

/// Returns the local and the remote end in a `struct xinpcb_n`: ports at 16 and 18, flags at 44,
/// addresses at 48 and 64, remote ones first. IPv4 addresses are the last 4 of 16 bytes.
fn ends_in(record: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let is_ipv4 = record.get(44)? & IS_IPV4 != 0;
    let end = |port_at: usize, ip_at: usize| {
        let port = u16::from_be_bytes(bytes(record, port_at)?);
        let ip: IpAddr = match is_ipv4 {
            true => Ipv4Addr::from(bytes::<4>(record, ip_at + 12)?).into(),
            false => Ipv6Addr::from(bytes::<16>(record, ip_at)?).to_canonical(),
        };
        Some(SocketAddr::new(ip, port))
    };
    Some((end(18, 64)?, end(16, 48)?))
}

/// Returns the user in a `struct xsocket_n`: the socket at 8, the user at 64.
fn uid_in(record: &[u8]) -> Option<u32> {
    let socket = u64::from_ne_bytes(bytes(record, 8)?);
    word(record, 64).filter(|_| socket != 0)
}

fn word(record: &[u8], at: usize) -> Option<u32> {
    bytes(record, at).map(u32::from_ne_bytes)
}

fn bytes<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 501;

    fn pair(local: &str, remote: &str) -> SocketPair {
        SocketPair {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn record(kind: u32, length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut record = vec![0; length.next_multiple_of(ALIGNMENT)];
        let head = [u32::try_from(length).unwrap(), kind];
        record[..4].copy_from_slice(&head[0].to_ne_bytes());
        record[4..8].copy_from_slice(&head[1].to_ne_bytes());
        for (at, bytes) in fields {
            record[*at..][..bytes.len()].copy_from_slice(bytes);
        }
        record
    }

    /// Writes the records of a socket in the kernel's order.
    fn socket(local: &str, remote: &str, (uid, handle): (u32, u64), state: u32) -> Vec<u8> {
        let ends: [SocketAddr; 2] = [local.parse().unwrap(), remote.parse().unwrap()];
        let ports = ends.map(|end| end.port().to_be_bytes());
        let ips = ends.map(|end| match end.ip() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()).to_be_bytes(),
            IpAddr::V6(ip) => ip.octets(),
        });
        let flags = [if ends[0].is_ipv4() { 0x1 } else { 0x2 }];
        [
            record(
                INPCB,
                100,
                &[
                    (16, &ports[1]),
                    (18, &ports[0]),
                    (44, &flags),
                    (48, &ips[1]),
                    (64, &ips[0]),
                ],
            ),
            record(
                SOCKET,
                96,
                &[(8, &handle.to_ne_bytes()), (64, &uid.to_ne_bytes())],
            ),
            record(0x002, 32, &[]),
            record(0x004, 32, &[]),
            record(0x008, 136, &[]),
            record(TCPCB, 204, &[(36, &state.to_ne_bytes())]),
        ]
        .concat()
    }

    fn table(sockets: &[Vec<u8>]) -> Vec<u8> {
        // The count in its second field may look like any kind.
        let generation = record(INPCB, GENERATION, &[]);
        let mut table = generation.clone();
        table.extend(sockets.concat());
        table.extend(generation);
        table
    }

    fn connection(client: (u32, u64), state: u32) -> Vec<u8> {
        let [listener, peer] = ["127.0.0.1:5433", "127.0.0.1:54000"];
        table(&[
            socket(listener, "0.0.0.0:0", (OWN, 7), 1),
            socket(listener, peer, (OWN, 8), 4),
            socket(peer, listener, client, state),
        ])
    }

    fn owner(table: &[u8], local: &str, remote: &str) -> PeerOwner {
        owners(table, &[pair(local, remote)], Some(OWN)).remove(0)
    }

    #[test]
    fn the_users_of_connected_sockets_are_found() {
        let found = |client, state| {
            owner(
                &connection(client, state),
                "127.0.0.1:54000",
                "127.0.0.1:5433",
            )
        };
        let user = |uid| PeerOwner::User(UserId::Uid(uid));
        for state in CONNECTED {
            assert_eq!(found((OWN, 9), state), user(OWN), "{state}");
            assert_eq!(found((502, 9), state), user(502), "{state}");
        }
        assert_eq!(found((0, 9), 4), user(0));
        assert_eq!(found((0, 0), 4), PeerOwner::Unknown, "without a socket");
        for state in [0, 1, 2, 3, 10, 11, u32::MAX] {
            assert_eq!(found((OWN, 9), state), PeerOwner::Unknown, "{state}");
        }
    }

    #[test]
    fn clients_of_ipv6_are_found_and_others_are_not() {
        let user = PeerOwner::User(UserId::Uid(502));
        let [listener, peer] = ["[::1]:5433", "[::1]:54000"];
        let six = table(&[
            socket(listener, peer, (OWN, 8), 4),
            socket(peer, listener, (502, 9), 4),
        ]);
        assert_eq!(owner(&six, peer, listener), user);
        assert_eq!(
            owner(&six, "[::1]:54001", listener),
            PeerOwner::Unknown,
            "another port"
        );
        let mapped = ["[::ffff:127.0.0.1]:54000", "[::ffff:127.0.0.1]:5433"];
        let four = connection((502, 9), 4);
        assert_eq!(owner(&four, mapped[0], mapped[1]), user);
    }

    #[test]
    fn an_unknown_format_has_no_owners() {
        let [peer, listener] = ["127.0.0.1:54000", "127.0.0.1:5433"];
        let whole = connection((502, 9), 4);
        for length in 0..whole.len() {
            let found = owner(&whole[..length], peer, listener);
            // Neither the last record nor the padding before it is needed.
            let is_complete = length >= whole.len() - GENERATION - 4;
            assert_eq!(found != PeerOwner::Unknown, is_complete, "{length}");
        }
        // pgiam's own end is not there, or of another user.
        let alone = table(&[socket(peer, listener, (OWN, 9), 4)]);
        assert_eq!(owner(&alone, peer, listener), PeerOwner::Unknown);
        for (own, known) in [(503, false), (ROOT, true), (OWN, true)] {
            let both = table(&[
                socket(listener, peer, (own, 8), 4),
                socket(peer, listener, (OWN, 9), 4),
            ]);
            let found = owner(&both, peer, listener);
            assert_eq!(found != PeerOwner::Unknown, known, "{own}");
        }
        let zeros = [vec![0; 24], vec![0; 4096]].concat();
        assert_eq!(owner(&zeros, peer, listener), PeerOwner::Unknown);
        let long = [vec![0; 24], vec![0xff; 4096]].concat();
        assert_eq!(owner(&long, peer, listener), PeerOwner::Unknown);
    }
}
