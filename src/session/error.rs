//! Why a connection did not become a session: one variant per room that can refuse it.

use std::io;
use std::time::Duration;

use pg_handshake::{ClientError, UpstreamError};
use thiserror::Error;

use crate::aws::CredentialsError;
use crate::route::RouteError;
use crate::tls::upstream::UpstreamTlsError;
use crate::token::TokenError;
use crate::tunnel::TunnelError;

/// Why a connection did not become a session.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The client broke the startup protocol.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client said nothing useful in time.
    #[error("the client sent no complete startup packet within {} s", .0.as_secs())]
    GreetingTimeout(Duration),
    /// The client went away, or its connection broke.
    #[error("the client went away: {0}")]
    ClientGone(io::Error),
    /// The local TLS handshake failed.
    #[error("TLS handshake with the local client failed: {0}")]
    LocalTls(io::Error),
    /// Too many connections at once.
    #[error("too many connections: {limit} are open")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// No target, or no user.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No credentials, where the region had to be looked up.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No tunnel.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Tunnel and token took too long.
    #[error("tunnel and token were not ready within {} s", .0.as_secs())]
    ConnectTimeout(Duration),
    /// No verified TLS to the database.
    #[error(transparent)]
    UpstreamTls(UpstreamTlsError),
    /// The database refused, or does not speak the protocol.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The connection to the database broke during the login.
    #[error("the connection to the database broke: {0}")]
    UpstreamLost(io::Error),
    /// TLS and login took too long.
    #[error("the database did not finish the login within {} s", .0.as_secs())]
    LoginTimeout(Duration),
    /// The program is stopping.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}

impl From<UpstreamTlsError> for SessionError {
    /// A tunnel that ends during the TLS handshake knows better why.
    fn from(error: UpstreamTlsError) -> Self {
        if let UpstreamTlsError::Io(io) = &error
            && let Some(tunnel) = TunnelError::of(io)
        {
            return Self::Tunnel(tunnel.clone());
        }
        Self::UpstreamTls(error)
    }
}
