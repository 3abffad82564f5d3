//! A connection of `pgiam tunnel` that was not carried.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::admission::Refusal;
use crate::tunnel::TunnelError;

/// Why a connection was not carried, or not to its end.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The client is not admitted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no tunnel, or it broke.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The tunnel took too long.
    #[error("the tunnel was not ready within {} s", .after.as_secs())]
    Timeout {
        /// How long the client has waited.
        after: Duration,
        /// The step that was waited for, as a noun.
        waiting: Option<&'static str>,
    },
    /// Too many connections at once.
    #[error("too many connections: {limit} are open")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// The far side broke off.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    /// The program is stopping.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}
