//! Where a connection came from, and whether its owner may be served.

use std::fmt;
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

    /// Whether the client belongs to the user `own`; `None` serves everybody. Other machines' clients
    /// belong to nobody here; they are let in, or not, by the password.
    pub(super) async fn check(&self, own: Option<u32>) -> Result<(), SessionError> {
        let Some(own) = own else {
            return Ok(());
        };
        let owner = match *self {
            Self::Unix { uid } => Owner::User(uid),
            Self::Tcp { peer, ours } if peer::is_loopback(peer.ip()) => {
                // A file of the kernel's, read in a moment, but read all the same.
                let looked = tokio::task::spawn_blocking(move || peer::tcp_owner(ours, peer));
                match looked.await {
                    Ok(Ok(owner)) => owner,
                    // Not knowing is not a reason to let somebody in.
                    Ok(Err(error)) => return Err(SessionError::UnknownPeer(error)),
                    Err(_) => return Err(SessionError::ShuttingDown),
                }
            }
            Self::Tcp { .. } => Owner::Unknown,
        };
        match owner {
            Owner::User(peer) if peer != own => Err(SessionError::ForeignPeer { peer, own }),
            Owner::Gone => Err(SessionError::ClientGone(
                std::io::ErrorKind::ConnectionAborted.into(),
            )),
            Owner::User(_) | Owner::Unknown => Ok(()),
        }
    }
}
