//! Errors of connections through `pgiam tunnel`.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::admission::Refusal;
use crate::tunnel::TunnelError;

/// Reason why a connection was not forwarded, or broke before its end.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The client was not admitted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The tunnel could not be opened, or broke.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The tunnel was not ready in time.
    #[error("the tunnel was not ready within {} s", .after.as_secs())]
    Timeout {
        /// Time that the client had waited.
        after: Duration,
        /// The step that was pending, as a noun.
        waiting: Option<&'static str>,
    },
    /// Too many connections at once.
    #[error("too many connections: {limit} are open")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// The remote side broke the connection.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    /// The program is stopping.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}
