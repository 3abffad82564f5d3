//! Admission of clients: the only path from a listening socket to a protocol.
//!
//! Only an [`Entrance`] accepts connections, and it returns them as [`Admitted`] or [`Refused`],
//! which no other code can construct. Every listener (`serve`, `run`, `tunnel`, the hub's port,
//! Unix sockets, the control socket, the health endpoints) has therefore tuned its sockets, checked
//! the owners of its clients and respected the limit of descriptors before it reads a byte from a
//! client.
//!
//! Steps that take longer belong to the protocol: the limit of starting connections, and the local
//! password, for which the client must speak SCRAM.

mod entrance;
mod guard;
mod passed;
mod sockets;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::platform::peer::is_loopback;
use crate::platform::user::UserId;

pub use entrance::{Entrance, Listening, Listens, Verdict};
pub use guard::{Guard, KnownOwners, Told};
pub use passed::{PassedError, PassedSockets};
pub(crate) use sockets::{BindFailure, BoundPort, listen, listen_at_all, listen_on_loopback};

/// Origin of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    /// A TCP connection.
    Tcp {
        /// Address of the client.
        peer: SocketAddr,
        /// Local address of the connection.
        ours: SocketAddr,
    },
    /// A connection over a Unix socket, or over the control pipe of Windows.
    Local {
        /// User of the client's process.
        user: UserId,
    },
}

impl Arrival {
    /// Returns `true` for TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }

    /// Returns `true` if the client is known to be on this machine.
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        match self {
            Self::Tcp { peer, ours } => is_of_this_machine(*ours, *peer),
            Self::Local { .. } => true,
        }
    }
}

/// Returns `true` if the client must be on this machine: loopback addresses do not leave theirs
/// (RFC 1122, 3.2.1.3, and RFC 4291, 2.5.3), so one at either end is enough.
fn is_of_this_machine(ours: SocketAddr, peer: SocketAddr) -> bool {
    is_loopback(ours.ip()) || is_loopback(peer.ip())
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { peer, .. } => peer.fmt(f),
            Self::Local { .. } => f.write_str("[local]"), // As in PostgreSQL's own log.
        }
    }
}

/// Reason why a connection is not admitted.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The client belongs to another user.
    #[error("the client belongs to user id {peer}, and pgiam runs as {own}")]
    Foreign {
        /// User of the client.
        peer: UserId,
        /// User of pgiam.
        own: UserId,
    },
    /// The system did not report the client's owner.
    #[error("cannot look up the owner of the client: {0}")]
    Unknown(io::Error),
    /// The client has closed its socket, which therefore has no owner any more.
    #[error("the client closed the connection before its owner could be looked up")]
    Gone,
    /// This process is near its limit of descriptors.
    #[error("out of file descriptors: {}", described(.limit))]
    OutOfDescriptors {
        /// Limit of this process; `None` if the system's limit was reached.
        limit: Option<u64>,
    },
}

fn described(limit: &Option<u64>) -> String {
    match limit {
        Some(limit) => format!("the limit of this process is {limit}"),
        None => "the system has none left".to_owned(),
    }
}

/// A connection that a protocol may serve.
#[derive(Debug)]
pub struct Admitted<S> {
    stream: S,
    arrival: Arrival,
    is_owners: bool,
}

impl<S> Admitted<S> {
    /// Returns the origin of the connection.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// Returns `true` if the client was found to belong to pgiam's user. `false` also if owners are
    /// not looked up (yet, see [`Guard::of_http`]) or not reported.
    #[must_use]
    pub fn is_owners(&self) -> bool {
        self.is_owners
    }

    /// Converts the stream of the connection.
    ///
    /// # Errors
    /// The error of `form`. The connection is closed then.
    pub fn try_map<T, E>(self, form: impl FnOnce(S) -> Result<T, E>) -> Result<Admitted<T>, E> {
        Ok(Admitted {
            stream: form(self.stream)?,
            arrival: self.arrival,
            is_owners: self.is_owners,
        })
    }

    /// Returns the stream, to be served.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.stream
    }
}

/// A connection that may receive the reason of its refusal, and nothing else.
#[derive(Debug)]
pub struct Refused<S> {
    stream: S,
    arrival: Arrival,
    refusal: Refusal,
    told: Told,
}

impl<S> Refused<S> {
    /// Returns the origin of the connection.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// Returns the reason of the refusal.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// Converts the stream of the connection.
    #[must_use]
    pub fn map<T>(self, form: impl FnOnce(S) -> T) -> Refused<T> {
        Refused {
            stream: form(self.stream),
            arrival: self.arrival,
            refusal: self.refusal,
            told: self.told,
        }
    }

    /// Returns `true` if the log limit for such refusals is reached in this second.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.told.is_quiet()
    }

    /// Takes the place among the refusals being answered; keep it as long as the connection.
    pub fn take_place(&mut self) -> Told {
        std::mem::take(&mut self.told)
    }

    /// Returns the reason and the stream, for the answer.
    #[must_use]
    pub fn into_parts(self) -> (Refusal, S) {
        (self.refusal, self.stream)
    }
}

#[cfg(test)]
mod tests;
