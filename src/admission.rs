//! Who may connect: the one way from a listening socket to a protocol.
//!
//! Only an [`Entrance`] accepts connections, and it gives them out as [`Admitted`] or [`Refused`],
//! which nothing else can make. So whatever listens (`serve`, `run`, `tunnel`, the hub's port, Unix
//! sockets, the control socket, the health endpoints) has tuned its sockets, looked its clients' owners
//! up and kept within the limit of descriptors before a byte of a client is read.
//!
//! What takes time beyond that is the protocol's: places for connections that begin, and the local
//! password, for which the client must speak SCRAM.

mod entrance;
mod guard;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use thiserror::Error;

pub use entrance::{Entrance, Listening, Listens, Verdict};
pub use guard::{Guard, Told};

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

impl Arrival {
    /// Whether it came over TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { peer, .. } => peer.fmt(f),
            Self::Unix { .. } => f.write_str("[local]"), // As in PostgreSQL's own log.
        }
    }
}

/// Why a connection is not admitted.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The client belongs to another user.
    #[error("the client belongs to user id {peer}, and pgiam runs as {own}")]
    Foreign {
        /// The client's user id.
        peer: u32,
        /// The user id that pgiam runs with.
        own: u32,
    },
    /// The system did not tell the client's owner.
    #[error("cannot tell whose the client is: {0}")]
    Unknown(io::Error),
    /// The client has closed its socket, so that nobody owns it any more.
    #[error("the client closed the connection before its owner could be looked up")]
    Gone,
    /// This process has nearly as many descriptors as it may.
    #[error("out of file descriptors: {}", described(.limit))]
    OutOfDescriptors {
        /// The limit of this process, where it is the one that was reached.
        limit: Option<u64>,
    },
}

fn described(limit: &Option<u64>) -> String {
    match limit {
        Some(limit) => format!("the limit of this process is {limit}"),
        None => "the whole system has no more".to_owned(),
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
    /// Where it came from.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// Whether the client was found to belong to the user who runs pgiam. `false` also where nobody
    /// is looked up: an entrance for everybody serves what anybody may see.
    #[must_use]
    pub fn is_owners(&self) -> bool {
        self.is_owners
    }

    /// The same connection, with its stream in another form.
    #[must_use]
    pub fn map<T>(self, form: impl FnOnce(S) -> T) -> Admitted<T> {
        Admitted {
            stream: form(self.stream),
            arrival: self.arrival,
            is_owners: self.is_owners,
        }
    }

    /// The connection, to be served.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.stream
    }
}

/// A connection that may be told why it is not served, and nothing else.
#[derive(Debug)]
pub struct Refused<S> {
    stream: S,
    arrival: Arrival,
    refusal: Refusal,
    told: Told,
}

impl<S> Refused<S> {
    /// Where it came from.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// Why.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The same connection, with its stream in another form.
    #[must_use]
    pub fn map<T>(self, form: impl FnOnce(S) -> T) -> Refused<T> {
        Refused {
            stream: form(self.stream),
            arrival: self.arrival,
            refusal: self.refusal,
            told: self.told,
        }
    }

    /// Whether the log has enough of such refusals for this second.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.told.is_quiet()
    }

    /// Takes its place among those that are being told, to be kept as long as the connection.
    pub fn take_place(&mut self) -> Told {
        std::mem::take(&mut self.told)
    }

    /// The reason, and the connection, to be told.
    #[must_use]
    pub fn into_parts(self) -> (Refusal, S) {
        (self.refusal, self.stream)
    }
}

#[cfg(test)]
mod tests;
