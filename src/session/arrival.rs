//! Where a connection came from, and whether its owner may be served.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::SessionError;
use crate::platform::peer::{self, Owner};

/// Where a connection came from.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    /// Over TCP.
    Tcp {
        /// The client's address.
        peer: SocketAddr,
        /// The address it came to.
        ours: SocketAddr,
    },
    /// Over a Unix socket.
    Unix {
        /// The user id of the client's process.
        uid: u32,
    },
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { peer, .. } => peer.fmt(f),
            Self::Unix { .. } => f.write_str("[local]"), // As in PostgreSQL's own log.
        }
    }
}

impl Arrival {
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }

    /// Whether the client belongs to the user `own`; `None` serves everybody.
    ///
    /// Every TCP client is looked for, whatever its address: a program may give its end any address
    /// of the machine, and 127.0.0.1 answers it all the same.
    pub(super) async fn check(&self, own: Option<u32>) -> Result<(), SessionError> {
        let Some(own) = own else {
            return Ok(());
        };
        match *self {
            Self::Unix { uid } => judge(Ok(Owner::User(uid)), own, true),
            Self::Tcp { peer, ours } => {
                // A file of the kernel's, read in a moment, but read all the same.
                let looked = tokio::task::spawn_blocking(move || peer::tcp_owner(ours, peer));
                let owner = looked.await.map_err(|_| SessionError::ShuttingDown)?;
                judge(owner, own, is_of_this_machine(ours, peer))
            }
        }
    }
}

/// Whether no other machine can be at the other end: loopback addresses do not leave theirs (RFC
/// 1122, 3.2.1.3, and RFC 4291, 2.5.3), so one at either end is enough.
fn is_of_this_machine(ours: SocketAddr, peer: SocketAddr) -> bool {
    peer::is_loopback(ours.ip()) || peer::is_loopback(peer.ip())
}

/// Whether a client may be served whose `owner` is this, by a program of the user `own`. Other
/// machines' clients, which nobody here owns, are let in, or not, by the password.
fn judge(owner: io::Result<Owner>, own: u32, is_of_this_machine: bool) -> Result<(), SessionError> {
    match owner {
        Ok(Owner::User(peer)) if peer != own => Err(SessionError::ForeignPeer { peer, own }),
        Ok(Owner::User(_) | Owner::Unknown) => Ok(()),
        Ok(Owner::Gone) => Err(SessionError::ClientGone(
            io::ErrorKind::ConnectionAborted.into(),
        )),
        Ok(Owner::NotListed) | Err(_) if !is_of_this_machine => Ok(()),
        // Not knowing is not a reason to let somebody in.
        Ok(Owner::NotListed) => Err(SessionError::UnknownPeer(io::Error::new(
            io::ErrorKind::NotFound,
            "the kernel lists no such socket here, as when it is in another network namespace or its addresses were translated on the way",
        ))),
        Err(error) => Err(SessionError::UnknownPeer(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(owner: Owner, ours: &str, peer: &str) -> Result<(), SessionError> {
        let local = is_of_this_machine(ours.parse().unwrap(), peer.parse().unwrap());
        judge(Ok(owner), 1000, local)
    }

    /// Every pair of addresses that only a client of this machine can have, and one of another's.
    const HERE: [(&str, &str); 5] = [
        ("127.0.0.1:5433", "127.0.0.1:54000"),
        // A client whose end has the address of the machine's interface.
        ("127.0.0.1:5433", "192.0.2.2:54000"),
        ("192.0.2.2:5433", "127.0.0.1:54000"),
        ("[::1]:5433", "[fd00::2]:54000"),
        ("[::ffff:127.0.0.1]:5433", "[::ffff:192.0.2.2]:54000"),
    ];
    const ELSEWHERE: (&str, &str) = ("192.0.2.2:5433", "198.51.100.7:54000");

    #[test]
    fn only_ones_own_are_served_whatever_their_address() {
        for (ours, peer) in HERE.into_iter().chain([ELSEWHERE]) {
            assert!(judged(Owner::User(1000), ours, peer).is_ok(), "{peer}");
            assert!(judged(Owner::Unknown, ours, peer).is_ok(), "{peer}");
            let foreign = judged(Owner::User(1001), ours, peer).unwrap_err();
            assert!(
                matches!(
                    foreign,
                    SessionError::ForeignPeer {
                        peer: 1001,
                        own: 1000
                    }
                ),
                "{peer}: {foreign}"
            );
            let gone = judged(Owner::Gone, ours, peer).unwrap_err();
            assert!(
                matches!(gone, SessionError::ClientGone(_)),
                "{peer}: {gone}"
            );
        }
    }

    #[test]
    fn who_must_be_here_and_is_not_known_is_refused() {
        for (ours, peer) in HERE {
            let unknown = judged(Owner::NotListed, ours, peer).unwrap_err();
            assert!(
                matches!(unknown, SessionError::UnknownPeer(_)),
                "{ours} {peer}: {unknown}"
            );
        }
        let (ours, peer) = ELSEWHERE;
        judged(Owner::NotListed, ours, peer).expect("the password decides");
        let unreadable = || Err(io::ErrorKind::PermissionDenied.into());
        assert!(judge(unreadable(), 1000, true).is_err());
        assert!(judge(unreadable(), 1000, false).is_ok());
    }
}
