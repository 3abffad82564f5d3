//! Why a connection did not become a session: one variant per room that can refuse it.

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
use crate::base::background::Stopped;
use crate::config::{ConfigError, EndpointKind};
use crate::failure::route::RouteError;
use crate::failure::setup::SetupError;
use crate::tls::upstream::UpstreamTlsError;
use crate::tunnel::{Readiness, TunnelError};
use pg_handshake::scram::ScramError;

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
    #[error("the client went away{}", unless_closed(.0))]
    ClientGone(io::Error),
    /// The client went away while it waited for its login.
    #[error("the client went away after {:.1} s{}", .after.as_secs_f64(), meanwhile(*.waiting))]
    ClientLeft {
        /// How long the client has waited.
        after: Duration,
        /// The step that was waited for then, as a noun.
        waiting: Option<&'static str>,
    },
    /// The local TLS handshake failed.
    #[error("TLS handshake with the local client failed: {error}")]
    LocalTls {
        /// What TLS or the connection said.
        error: io::Error,
        /// The file of the certificate that the client was shown, where there is one.
        certificate: Option<Arc<Path>>,
    },
    /// The client closed after the local TLS handshake: Node.js verifies the certificate only then.
    #[error("the client closed the connection after the TLS handshake, without a startup packet")]
    GoneAfterTls {
        /// The file of the certificate that the client was shown, where there is one.
        certificate: Option<Arc<Path>>,
    },
    /// The client belongs to somebody else.
    #[error("the client belongs to user id {peer}, and pgiam runs as {own}")]
    ForeignPeer {
        /// Whose the client is.
        peer: u32,
        /// Who runs the program.
        own: u32,
    },
    /// The client's messages about its password are malformed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The client does not know the local password, or does not speak SCRAM.
    #[error(transparent)]
    LocalPassword(#[from] ScramError),
    /// Too many connections at once.
    #[error("too many connections: {limit} are open")]
    TooManyConnections {
        /// The limit.
        limit: usize,
        /// Whether it is that of the target, not of the program.
        of_target: bool,
    },
    /// No target, or no user.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The database of the target could not be found at RDS.
    #[error(transparent)]
    Discovery(Arc<DiscoverError>),
    /// Finding it took too long.
    #[error("the database was not found within {} s", .0.as_secs())]
    LookupTimeout(Duration),
    /// What was found does not go with the configuration.
    #[error(transparent)]
    Config(ConfigError),
    /// What was configured cannot be used.
    #[error(transparent)]
    Setup(Arc<SetupError>),
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No credentials, where the region had to be looked up.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No tunnel.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The name in `host` leads to no database endpoint.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// Tunnel and token took too long.
    #[error("tunnel and token were not ready within {} s", .after.as_secs())]
    ConnectTimeout {
        /// How long the client has waited.
        after: Duration,
        /// How the tunnel stood then.
        readiness: Readiness,
        /// The step that was waited for, as a noun.
        waiting: Option<&'static str>,
    },
    /// There is no connection for the moment: the tunnel that was there is being tried again.
    #[error("the tunnel is interrupted and being tried again: {0}")]
    Interrupted(Box<Self>),
    /// The tunnel is not there yet, and who asks only wants to know that.
    #[error("the tunnel is not ready")]
    NoTunnelYet(Readiness),
    /// The last connection could not be made, for the reason with this identifier, and who asks only
    /// wants to know that.
    #[error("the last connection to the database could not be made [{0}]")]
    FailedBefore(&'static str),
    /// Somebody who only asks whether a connection could be made had to be told no.
    #[error("not ready: {0}")]
    NotReady(Box<Self>),
    /// The client has logged in to us with a password, and cannot give the database another one.
    #[error("a target with auth = \"passthrough\" cannot be used behind a local password")]
    TwoPasswords,
    /// The system did not say whose the client is.
    #[error("cannot tell whose the client is: {0}")]
    UnknownPeer(io::Error),
    /// This process has nearly as many descriptors as it may; the limit, where it is this process's.
    #[error("out of file descriptors")]
    OutOfDescriptors(Option<u64>),
    /// No verified TLS to the database.
    #[error(transparent)]
    UpstreamTls(UpstreamTlsError),
    /// TLS began at once, and the other side did not say that it speaks PostgreSQL.
    #[error("the server began TLS without agreeing on the protocol (ALPN)")]
    NoAlpn,
    /// The client would have bound its SCRAM login to TLS, which cannot pass.
    #[error("SCRAM with channel binding cannot pass through a proxy")]
    ChannelBinding,
    /// The database refused, or does not speak the protocol.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The connection to the database broke during the login.
    #[error("the connection to the database broke: {0}")]
    UpstreamLost(io::Error),
    /// TLS and login took too long.
    #[error("the database did not finish the login within {} s", .0.as_secs())]
    LoginTimeout(Duration),
    /// A task that all who wait for a database share ended without an outcome.
    #[error(transparent)]
    Internal(#[from] Stopped),
    /// The program is stopping.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}

/// Returns the words of a connection that did not simply end.
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

impl From<Refusal> for SessionError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Foreign { peer, own } => Self::ForeignPeer { peer, own },
            Refusal::Unknown(error) => Self::UnknownPeer(error),
            Refusal::Gone => Self::ClientGone(io::ErrorKind::ConnectionAborted.into()),
            Refusal::OutOfDescriptors { limit } => Self::OutOfDescriptors(limit),
        }
    }
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

impl From<NotLocated> for SessionError {
    fn from(error: NotLocated) -> Self {
        match error {
            NotLocated::Discover(error) => Self::Discovery(Arc::new(error)),
            NotLocated::Config(error) => Self::Config(error),
        }
    }
}

impl SessionError {
    /// The server's code, where the server has refused.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Upstream(UpstreamError::Server(error)) => {
                error.sqlstate().map(|state| state.as_str().to_owned())
            }
            _ => None,
        }
    }

    /// Whether a server that does not know direct TLS fails like this: it takes the ClientHello for
    /// a packet of absurd length, and closes, or waits for the rest of it. A certificate that is
    /// refused is another matter.
    pub(crate) fn is_about_direct_tls(&self) -> bool {
        matches!(
            self,
            Self::NoAlpn
                | Self::Tunnel(TunnelError::DialTimeout { .. })
                | Self::UpstreamTls(UpstreamTlsError::Handshake(_) | UpstreamTlsError::Io(_))
        )
    }

    /// Whether this is how a server says that it does not accept the token.
    pub(crate) fn refuses_token(&self, kind: EndpointKind) -> bool {
        let state = self.sqlstate();
        match kind {
            // Aurora DSQL User Guide, "Troubleshooting": "access denied" comes with 08006.
            EndpointKind::Dsql => matches!(state.as_deref(), Some("28000" | "08006")),
            _ => state.as_deref() == Some("28000"),
        }
    }

    /// Whether the server has no database of this name. PostgreSQL says 3D000, in whatever language;
    /// what stands before it (RDS Proxy, poolers) passes the words on with a code of its own.
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

    /// Whether the server has let the role in, and not into this database: it does not exist, is
    /// closed, or is not for this role.
    pub(crate) fn is_about_the_database(&self) -> bool {
        matches!(
            self.sqlstate().as_deref(),
            Some("3D000" | "42501" | "55000")
        )
    }

    /// Whether the token was not even looked at (RDS User Guide, "Troubleshooting RDS Proxy").
    pub(crate) fn is_competition(&self) -> bool {
        let Self::Upstream(UpstreamError::Server(error)) = self else {
            return false;
        };
        error.message().contains("too many competing requests")
    }

    /// Whether the server wants something else from a role than it did, or may: then the next login
    /// has to wait for what it asks.
    pub(crate) fn is_about_the_way_of_asking(&self) -> bool {
        matches!(
            self,
            Self::Upstream(UpstreamError::UnexpectedAuth(_)) | Self::LoginTimeout(_)
        )
    }

    /// Whether the server behind the name is another one than the name has led to so far.
    pub(crate) fn is_another_server(&self) -> bool {
        matches!(
            self,
            Self::UpstreamTls(UpstreamTlsError::NameMismatch { .. })
        )
    }

    /// Whether a login may fail like this because the token was sent before it was asked for: a server
    /// that refuses before it has read all closes with the token unread, and the reset that follows
    /// can overtake its words; and one that asks for no password takes it for a message.
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

    /// Whether there are no AWS credentials.
    pub(crate) fn is_about_credentials(&self) -> bool {
        match self {
            Self::Interrupted(cause) | Self::NotReady(cause) => cause.is_about_credentials(),
            Self::Credentials(_)
            | Self::Token(TokenError::Credentials(_))
            | Self::Tunnel(TunnelError::Credentials(_)) => true,
            _ => false,
        }
    }

    /// Whether it is the way to the database that failed.
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

    /// The same for somebody who only asks whether a connection could be made, and understands only
    /// 57P03 as a no (`PQping`). What the database itself has said stays, and so does what shows that
    /// it lets clients begin: as with the server, a name that cannot log in and a limit that is
    /// reached are no reason to say no.
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
