//! Errors of a connection before the end of its login: one variant per module that can refuse it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pg_handshake::{ClientError, PasswordError, UpstreamError};
use thiserror::Error;

use crate::admission::Refusal;
use crate::aws::CredentialsError;
use crate::aws::alias::AliasError;
use crate::aws::discover::{DiscoverError, NotLocated};
use crate::aws::token::TokenError;
use crate::base::background::TaskStopped;
use crate::config::{ConfigError, EndpointKind};
use crate::failure::route::RouteError;
use crate::failure::setup::SetupError;
use crate::platform::user::UserId;
use crate::tls::upstream::UpstreamTlsError;
use crate::tunnel::{Readiness, TunnelError};
use pg_handshake::scram::ScramError;

/// Cannot connect now (PostgreSQL docs, "PostgreSQL Error Codes").
const CANNOT_CONNECT_NOW: &str = "57P03";

/// Consequence of a failed connection for the other clients of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetEffect {
    /// The database has answered, so the path to it works.
    Answered,
    /// Other clients would fail in the same way.
    Unreachable,
    /// The failure concerns only this client, or came too early to know.
    Unknown,
}

/// Reason why a connection failed before the end of its login.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The client broke the startup protocol.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client did not complete its startup within this time.
    #[error("the client sent no complete startup packet within {} s", .0.as_secs())]
    StartupTimeout(Duration),
    /// The client closed its connection, or the connection broke.
    #[error("the client disconnected{}", unless_closed(.0))]
    ClientGone(io::Error),
    /// The client closed its connection while it waited for its login.
    #[error("the client disconnected after {:.1} s{}", .after.as_secs_f64(), meanwhile(*.waiting))]
    ClientLeft {
        /// Time that the client had waited.
        after: Duration,
        /// The step that was pending, as a noun.
        waiting: Option<&'static str>,
    },
    /// The local TLS handshake failed.
    #[error("TLS handshake with the local client failed: {error}")]
    LocalTls {
        /// The error from TLS or from the connection.
        error: io::Error,
        /// The file of the certificate that the client was shown; `None` if it is in memory only.
        certificate: Option<Arc<Path>>,
    },
    /// The client closed after the local TLS handshake: Node.js verifies the certificate only then.
    #[error("the client closed the connection after the TLS handshake, without a startup packet")]
    GoneAfterTls {
        /// The file of the certificate that the client was shown; `None` if it is in memory only.
        certificate: Option<Arc<Path>>,
    },
    /// The client belongs to another user.
    #[error("the client belongs to user id {peer}, and pgiam runs as {own}")]
    ForeignPeer {
        /// User of the client.
        peer: UserId,
        /// User of this process.
        own: UserId,
    },
    /// A password message of the client is malformed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The client gave a wrong local password, or does not speak SCRAM.
    #[error(transparent)]
    LocalPassword(#[from] ScramError),
    /// Too many connections at once.
    #[error("too many connections: {limit} are open")]
    TooManyConnections {
        /// The limit.
        limit: usize,
        /// True for the limit of the target, false for the limit of the program.
        of_target: bool,
    },
    /// No target, or no user.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The RDS lookup of the target's database failed.
    #[error(transparent)]
    Discovery(Arc<DiscoverError>),
    /// The RDS lookup took longer than this.
    #[error("the database was not found within {} s", .0.as_secs())]
    LookupTimeout(Duration),
    /// The database that was found contradicts the configuration.
    #[error(transparent)]
    Config(ConfigError),
    /// The configuration of the target is unusable.
    #[error(transparent)]
    Setup(Arc<SetupError>),
    /// The token could not be created.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There are no credentials, and the region had to be looked up.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The tunnel could not be opened.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The name in `host` does not resolve to a database endpoint.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// Tunnel and token were not ready in time.
    #[error("tunnel and token were not ready within {} s", .after.as_secs())]
    ConnectTimeout {
        /// Time that the client had waited.
        after: Duration,
        /// State of the tunnel at that time.
        readiness: Readiness,
        /// The step that was pending, as a noun.
        waiting: Option<&'static str>,
    },
    /// Connections are not possible for the moment: the tunnel broke and is being reopened.
    #[error("the tunnel is interrupted; pgiam is reconnecting: {0}")]
    Interrupted(Box<Self>),
    /// Answer to a readiness probe: the tunnel is not open yet.
    #[error("the tunnel is not ready")]
    NoTunnelYet(Readiness),
    /// Answer to a readiness probe: the last connection failed, for the reason with this
    /// identifier.
    #[error("the last connection to the database failed [{0}]")]
    FailedBefore(&'static str),
    /// Answer to a readiness probe: this error prevents connections.
    #[error("not ready: {0}")]
    NotReady(Box<Self>),
    /// The client has authenticated at pgiam with a password, and cannot send the database another.
    #[error("a target with auth = \"passthrough\" cannot be used with a local password")]
    TwoPasswords,
    /// The system did not report the user id of the client.
    #[error("cannot look up the owner of the client: {0}")]
    UnknownPeer(io::Error),
    /// This process or the system is nearly out of descriptors. Holds the limit of this process;
    /// `None` if the limit of the system was reached.
    #[error("out of file descriptors")]
    OutOfDescriptors(Option<u64>),
    /// The verified TLS handshake with the database failed.
    #[error(transparent)]
    UpstreamTls(UpstreamTlsError),
    /// After a direct TLS handshake the server did not confirm PostgreSQL by ALPN.
    #[error("the server accepted TLS without confirming the protocol (ALPN)")]
    NoAlpn,
    /// The client would bind its SCRAM login to TLS, which fails across the proxy.
    #[error("SCRAM with channel binding cannot pass through a proxy")]
    ChannelBinding,
    /// The database refused the connection, or does not speak the protocol.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The connection to the database broke during the login.
    #[error("the connection to the database was lost: {0}")]
    UpstreamLost(io::Error),
    /// TLS and login took longer than this.
    #[error("the database did not finish the login within {} s", .0.as_secs())]
    LoginTimeout(Duration),
    /// A task that several connections wait for ended without a result.
    #[error(transparent)]
    Internal(#[from] TaskStopped),
    /// The program is stopping.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}

/// Returns the error as the end of a message; empty if the connection was closed in order.
fn unless_closed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => String::new(),
        _ => format!(": {error}"),
    }
}

fn meanwhile(waiting: Option<&'static str>) -> String {
    let words = |step| format!(", while pgiam was waiting for {step}");
    waiting.map(words).unwrap_or_default()
}

impl From<Refusal> for ConnectionError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Foreign { peer, own } => Self::ForeignPeer { peer, own },
            Refusal::Unknown(error) => Self::UnknownPeer(error),
            Refusal::Gone => Self::ClientGone(io::ErrorKind::ConnectionAborted.into()),
            Refusal::OutOfDescriptors { limit } => Self::OutOfDescriptors(limit),
        }
    }
}

impl From<UpstreamTlsError> for ConnectionError {
    /// Prefers the tunnel's own reason if the tunnel ended during the TLS handshake.
    fn from(error: UpstreamTlsError) -> Self {
        if let UpstreamTlsError::Io(io) = &error
            && let Some(tunnel) = TunnelError::of(io)
        {
            return Self::Tunnel(tunnel.clone());
        }
        Self::UpstreamTls(error)
    }
}

impl From<NotLocated> for ConnectionError {
    fn from(error: NotLocated) -> Self {
        match error {
            NotLocated::Discover(error) => Self::Discovery(Arc::new(error)),
            NotLocated::Config(error) => Self::Config(error),
        }
    }
}

impl ConnectionError {
    /// Returns the SQLSTATE of the server's error, if the server refused.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Upstream(UpstreamError::Server(error)) => {
                error.sqlstate().map(|state| state.as_str().to_owned())
            }
            _ => None,
        }
    }

    /// Returns whether a server without direct TLS fails like this. Such a server takes the
    /// ClientHello for a packet of absurd length, and either closes or waits for the rest. A
    /// refused certificate does not count.
    pub(crate) fn is_about_direct_tls(&self) -> bool {
        matches!(
            self,
            Self::NoAlpn
                | Self::Tunnel(TunnelError::DialTimeout { .. })
                | Self::UpstreamTls(UpstreamTlsError::Handshake(_) | UpstreamTlsError::Io(_))
        )
    }

    /// Returns whether the server rejected the token with this error.
    pub(crate) fn refuses_token(&self, kind: EndpointKind) -> bool {
        let state = self.sqlstate();
        match kind {
            // Aurora DSQL User Guide, "Troubleshooting": "access denied" comes with 08006.
            EndpointKind::Dsql => matches!(state.as_deref(), Some("28000" | "08006")),
            _ => state.as_deref() == Some("28000"),
        }
    }

    /// Returns whether the database named `name` does not exist. PostgreSQL sends 3D000 in every
    /// language. Proxies in front of it (RDS Proxy, poolers) pass on the text with their own code.
    pub(crate) fn is_missing_database(&self, name: &str, kind: EndpointKind) -> bool {
        let Self::Upstream(UpstreamError::Server(error)) = self else {
            return false;
        };
        let state = error.sqlstate();
        let state = state.as_ref().map(|state| state.as_str());
        let before_it = matches!(kind, EndpointKind::Proxy | EndpointKind::Dsql);
        let words = format!("database \"{name}\" does not exist");
        state == Some("3D000") || (before_it && error.message() == words)
    }

    /// Returns whether the server accepted the role but refused this database: it does not exist,
    /// accepts no connections, or the role may not connect to it.
    pub(crate) fn is_about_the_database(&self) -> bool {
        matches!(
            self.sqlstate().as_deref(),
            Some("3D000" | "42501" | "55000")
        )
    }

    /// Returns whether the server refused before it checked the token, because of competing logins
    /// (RDS User Guide, "Troubleshooting RDS Proxy").
    pub(crate) fn is_competition(&self) -> bool {
        let Self::Upstream(UpstreamError::Server(error)) = self else {
            return false;
        };
        error.message().contains("too many competing requests")
    }

    /// Returns whether the server has no connection left for this role (`too_many_connections`).
    pub(crate) fn is_about_a_full_server(&self) -> bool {
        self.sqlstate().as_deref() == Some("53300")
    }

    /// Returns whether the connection to the database broke, or gave no answer.
    pub(crate) fn is_about_a_lost_connection(&self) -> bool {
        matches!(
            self,
            Self::UpstreamLost(_)
                | Self::Tunnel(_)
                | Self::Upstream(UpstreamError::UnexpectedEof { .. })
        )
    }

    /// Returns whether the authentication method that the server requests from a role has changed,
    /// or may have. The next login must then wait for the server's request.
    pub(crate) fn is_about_the_way_of_asking(&self) -> bool {
        matches!(
            self,
            Self::Upstream(UpstreamError::UnexpectedAuth(_)) | Self::LoginTimeout(_)
        )
    }

    /// Returns whether the name now leads to a different server than before.
    pub(crate) fn is_another_server(&self) -> bool {
        matches!(
            self,
            Self::UpstreamTls(UpstreamTlsError::NameMismatch { .. })
        )
    }

    /// Returns whether a token sent before the server's request may have caused this error. A
    /// server that refuses early closes with the token unread, and the TCP reset can overtake its
    /// error message. A server that requests no password takes the token for an invalid message.
    pub(crate) fn may_be_about_an_early_token(&self) -> bool {
        match self {
            Self::UpstreamLost(lost) => lost.kind() != io::ErrorKind::InvalidData,
            Self::Upstream(error) => matches!(
                error,
                UpstreamError::UnexpectedEof { .. } | UpstreamError::PasswordNotAsked
            ),
            _ => false,
        }
    }

    /// Returns the consequence of this failure for the other clients of the target.
    pub(crate) fn target_effect(&self) -> TargetEffect {
        match self {
            Self::NotReady(cause) | Self::Interrupted(cause) => cause.target_effect(),
            Self::Upstream(UpstreamError::Server(_)) => {
                if self.sqlstate().as_deref() == Some(CANNOT_CONNECT_NOW) {
                    TargetEffect::Unreachable
                } else {
                    TargetEffect::Answered
                }
            }
            Self::Upstream(
                UpstreamError::UnexpectedAuth(_)
                | UpstreamError::PasswordNotAsked
                | UpstreamError::PasswordAskedTwice,
            )
            | Self::ChannelBinding => TargetEffect::Answered,
            Self::Token(_)
            | Self::Credentials(_)
            | Self::Tunnel(_)
            | Self::Alias(_)
            | Self::ConnectTimeout { .. }
            | Self::Internal(_)
            | Self::UpstreamTls(_)
            | Self::NoAlpn
            | Self::Upstream(_)
            | Self::UpstreamLost(_)
            | Self::LoginTimeout(_) => TargetEffect::Unreachable,
            _ => TargetEffect::Unknown,
        }
    }

    /// Returns whether the server requested an authentication method that a token cannot answer.
    pub(crate) fn is_other_authentication(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::UnexpectedAuth(_)))
    }

    /// Returns whether AWS credentials are missing.
    pub(crate) fn is_about_credentials(&self) -> bool {
        match self {
            Self::Interrupted(cause) | Self::NotReady(cause) => cause.is_about_credentials(),
            Self::Credentials(_)
            | Self::Token(TokenError::Credentials(_))
            | Self::Tunnel(TunnelError::Credentials(_)) => true,
            _ => false,
        }
    }

    /// Returns whether the path to the database failed.
    pub(crate) fn is_about_the_tunnel(&self) -> bool {
        use TunnelError as T;
        matches!(
            self,
            Self::Tunnel(
                T::ApiUnreachable { .. }
                    | T::Late(_)
                    | T::ChannelConnect { .. }
                    | T::ChannelLost { .. }
                    | T::HandshakeTimeout { .. }
                    | T::Proxy { .. }
                    | T::Stranded { .. }
                    | T::Delayed { .. }
                    | T::AgentSilent { .. }
                    | T::SessionEnded { .. }
            )
        )
    }

    /// Converts the error for a readiness probe, which understands only 57P03 as "not ready"
    /// (`PQping`). An answer of the database itself is kept, and so is an error which shows that
    /// the proxy accepts connections: as with PostgreSQL, an invalid role or an exhausted limit
    /// does not mean "not ready".
    pub(crate) fn for_a_probe(self) -> Self {
        match self {
            said @ (Self::Upstream(UpstreamError::Server(_) | UpstreamError::UnexpectedAuth(_))
            | Self::TooManyConnections { .. }
            | Self::ClientGone(_)
            | Self::ClientLeft { .. }
            | Self::NoTunnelYet(_)) => said,
            other => Self::NotReady(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_meet_others_too_counts() {
        let gone = || ConnectionError::ClientGone(io::ErrorKind::UnexpectedEof.into());
        let lost = || ConnectionError::UpstreamLost(io::ErrorKind::UnexpectedEof.into());
        let wrapped = ConnectionError::NotReady(Box::new(lost()));
        let left = ConnectionError::ClientLeft {
            after: Duration::from_secs(5),
            waiting: Some("ssm:StartSession"),
        };
        for (error, expected) in [
            (lost(), TargetEffect::Unreachable),
            (wrapped, TargetEffect::Unreachable),
            (ConnectionError::NoAlpn, TargetEffect::Unreachable),
            (ConnectionError::ChannelBinding, TargetEffect::Answered),
            (gone(), TargetEffect::Unknown),
            (left, TargetEffect::Unknown),
            (ConnectionError::ShuttingDown, TargetEffect::Unknown),
            (
                ConnectionError::NoTunnelYet(Readiness::Up),
                TargetEffect::Unknown,
            ),
        ] {
            assert_eq!(error.target_effect(), expected, "{error}");
        }
    }
}
