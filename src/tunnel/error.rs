//! Errors of opening a stream to a database, or of a stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::{DirectFailure, RelayAbsence, RelayRefusal};
use crate::aws::api_error::ApiAnswer;
use crate::aws::{CallTimeout, CredentialsError};
use crate::base::background::TaskStopped;
use crate::base::foreign_text::ForeignText;
use crate::base::names::{NodeId, Region};
use crate::config::Endpoint;

/// Error of opening a stream, or of a stream. Cloneable, because every connection that waited for
/// the same session gets the same answer.
#[derive(Clone, Debug, Error)]
pub enum TunnelError {
    /// No usable AWS credentials to open a session with.
    #[error(transparent)]
    Credentials(Arc<CredentialsError>),
    /// Neither the host name, nor the configuration, nor the AWS profile names a region.
    #[error("no AWS region is known")]
    NoRegion,
    /// A call of the SSM API was refused.
    #[error("AWS refused {operation}: {}: {}", .answer.code, .answer.message)]
    Api {
        /// The call, such as `StartSession`.
        operation: &'static str,
        /// The refusal, for the remedy.
        kind: ApiRefusal,
        /// AWS's answer.
        answer: ApiAnswer,
        /// The requested managed node.
        bastion: String,
        /// The region of the request.
        region: Region,
    },
    /// No online managed node has the tag.
    #[error("no managed node in {region} matches {wanted}")]
    NoBastion {
        /// The tag in the configuration.
        wanted: String,
        /// The region of the request.
        region: Region,
    },
    /// No session could be opened through any of several managed nodes; and the number of further
    /// nodes that were not tried.
    #[error("all bastions failed: {}", tried(.0, *.1))]
    AllBastions(Arc<[(NodeId, Self)]>, usize),
    /// The SSM API could not be reached.
    #[error("cannot reach the SSM API in {region}: {reason}")]
    ApiUnreachable {
        /// The region of the request.
        region: Region,
        /// The host of the request with its port, if known.
        host: Option<String>,
        /// The SDK's error, with its causes.
        reason: ForeignText,
    },
    /// A call was not answered in time.
    #[error(transparent)]
    Late(Box<CallTimeout>),
    /// The answer to a call is not as documented by AWS, or too long.
    #[error("invalid answer to {operation}: {reason}")]
    BadAnswer {
        /// The call, such as `StartSession`.
        operation: &'static str,
        /// The error in the answer.
        reason: ForeignText,
    },
    /// The task that starts a session, or drives it, ended without an outcome.
    #[error("the tunnel failed: {0}")]
    Internal(TaskStopped),
    /// AWS's answer lacks a value that the protocol needs.
    #[error("invalid answer to StartSession: {0} is missing")]
    IncompleteAnswer(&'static str),
    /// AWS answered a stream address outside its own domains; for other flaws see
    /// [`Self::BadAnswer`].
    #[error("invalid answer to StartSession: the stream host \"{host}\" is not an AWS host name")]
    ForeignStreamUrl {
        /// The host of the stream URL.
        host: String,
    },
    /// The data channel's WebSocket could not be opened.
    #[error("cannot open the data channel to {host}: {reason}")]
    ChannelConnect {
        /// The data channel's host.
        host: String,
        /// Its port.
        port: u16,
        /// The error, with its causes.
        reason: ForeignText,
    },
    /// The gateway refused the WebSocket upgrade.
    #[error("the data channel at {host} refused the connection with HTTP status {status}{}", of_clock(.skew))]
    ChannelRefused {
        /// The data channel's host.
        host: String,
        /// The region of the session.
        region: Region,
        /// The HTTP status.
        status: u16,
        /// Seconds by which this machine's clock is ahead of the gateway's (negative: behind), if
        /// that exceeds the tolerance of a signature and so may be the reason.
        skew: Option<i64>,
    },
    /// The agent did not finish the handshake in time.
    #[error("the SSM handshake with {bastion} did not finish in {} s", .after.as_secs())]
    HandshakeTimeout {
        /// The managed node.
        bastion: String,
        /// The timeout.
        after: Duration,
    },
    /// The agent would ignore the remote host and connect to its own.
    #[error("the SSM agent {version} on {bastion} is older than {needed}")]
    AgentTooOld {
        /// The managed node.
        bastion: String,
        /// The agent's version.
        version: String,
        /// The oldest version that works.
        needed: String,
    },
    /// The agent does not support several connections in one session.
    #[error("the SSM agent {version} on {bastion} does not support multiplexing")]
    NoMultiplexing {
        /// The managed node.
        bastion: String,
        /// The agent's version.
        version: String,
    },
    /// The session requires encryption with a KMS key, and KMS returned none.
    #[error("cannot get a data key from KMS for the session: {reason}")]
    DataKey {
        /// The key's ARN or id.
        key: ForeignText,
        /// An access policy forbids it.
        denied: bool,
        /// AWS's error.
        reason: ForeignText,
    },
    /// The session requires an action that this program does not support.
    #[error("the session requires {action}, which is not supported")]
    UnsupportedAction {
        /// The name of the requested action.
        action: ForeignText,
    },
    /// The agent could not connect to the database.
    #[error("{bastion} could not connect to {endpoint}")]
    DialRefused {
        /// The managed node.
        bastion: String,
        /// The endpoint it tried to connect to.
        endpoint: Endpoint,
    },
    /// The agent did not report the result of its connection attempt.
    #[error("{bastion} did not connect to {endpoint} within {} s", .after.as_secs())]
    DialTimeout {
        /// The managed node.
        bastion: String,
        /// The endpoint it tried to connect to.
        endpoint: Endpoint,
        /// The timeout.
        after: Duration,
    },
    /// The relay on the bastion did not connect to the database.
    #[error("the relay on {} did not connect to {}: {}", .0.bastion, .0.endpoint, .0.words)]
    Relay(Box<RelayRefusal>),
    /// The relay on the bastion is gone, and with it all its connections.
    #[error("the relay on {bastion} ended the connection: {reason}")]
    RelayLost {
        /// The managed node.
        bastion: String,
        /// The reason, as far as known.
        reason: ForeignText,
    },
    /// There is no relay, and AWS refuses sessions to the database.
    #[error("{relay}; without a relay: {host}")]
    NeitherRelayNorHost {
        /// The reason why the relay is not used.
        relay: RelayAbsence,
        /// The error of a session to the database.
        host: Box<Self>,
    },
    /// The agent is stuck in the connection attempt of an earlier stream and has not reached this
    /// one.
    #[error("{bastion} is still connecting for another client")]
    Stranded {
        /// The managed node.
        bastion: String,
    },
    /// The agent could not look up the database's name, which ends its session.
    #[error("{bastion} cannot resolve {}", .endpoint.host)]
    NameNotResolved {
        /// The managed node.
        bastion: String,
        /// The endpoint it tried to connect to.
        endpoint: Endpoint,
        /// The agent's error text.
        reason: ForeignText,
    },
    /// The service answers and the agent does not.
    #[error("the SSM agent on {bastion} has not answered for {} s", .after.as_secs())]
    AgentSilent {
        /// The managed node.
        bastion: String,
        /// Duration of the silence.
        after: Duration,
    },
    /// The agent's data waits for messages that were lost with a connection.
    #[error("messages of the SSM agent on {bastion} have been missing for {} s", .after.as_secs())]
    Delayed {
        /// The managed node.
        bastion: String,
        /// Duration of the delay.
        after: Duration,
    },
    /// The service or the agent ended the session.
    #[error("the SSM session ended: {}", .cause.in_words(.reason))]
    SessionEnded {
        /// The cause, if it is a known one.
        cause: EndCause,
        /// The service's message.
        reason: ForeignText,
    },
    /// The connection to the service broke.
    #[error("the connection to the SSM service was lost: {reason}")]
    ChannelLost {
        /// The error.
        reason: ForeignText,
    },
    /// This connection's client read nothing for so long that its unread bytes blocked every other
    /// connection of the session.
    #[error(
        "the client did not read its result and blocked other connections in the same SSM session"
    )]
    Overrun,
    /// The other side violated the protocol.
    #[error("SSM protocol error: {reason}")]
    Protocol {
        /// The violation.
        reason: ForeignText,
    },
    /// The HTTP proxy of the environment refused the connection.
    #[error("the proxy {proxy} did not connect to {host}: {reason}")]
    Proxy {
        /// The proxy's host and port, without credentials.
        proxy: String,
        /// The destination behind the proxy.
        host: String,
        /// The proxy's answer, or the error.
        reason: ForeignText,
    },
    /// A direct connection failed.
    #[error("cannot connect to {endpoint}: {source}")]
    Direct {
        /// The endpoint.
        endpoint: Endpoint,
        /// The failure, for the remedy.
        failure: DirectFailure,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// This program is shutting down.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}

fn of_clock(skew: &Option<i64>) -> String {
    let Some(skew) = skew else {
        return String::new();
    };
    let minutes = skew.unsigned_abs() / 60;
    let direction = if *skew > 0 { "ahead" } else { "behind" };
    format!("; this machine's clock is {minutes} min {direction}")
}

fn tried(tried: &[(NodeId, TunnelError)], left_out: usize) -> String {
    let each = tried
        .iter()
        .map(|(bastion, error)| format!("{bastion}: {error}"));
    let more = (left_out > 0).then(|| format!("{left_out} more were not tried"));
    let each: Vec<String> = each.chain(more).collect();
    each.join("; ")
}

/// Known cause of the end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// The idle timeout of the account's Session Manager preferences.
    IdleTimeout,
    /// Their maximum session duration.
    MaximumDuration,
    /// `ssm:TerminateSession` was called.
    Terminated,
    /// The connection was lost, and AWS returned no token to resume the session with, or reported
    /// no such session: it is over.
    Gone,
    /// The agent ended it, for example on a restart.
    Agent,
    /// Another cause; see the text.
    Other,
    /// Another cause at the start of a session, before any time limit.
    AtStart,
}

impl EndCause {
    /// Returns the stable identifier of this ending, for logs and documentation.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::IdleTimeout => "ssm.idle-timeout",
            Self::MaximumDuration => "ssm.maximum-duration",
            Self::Terminated => "ssm.terminated",
            Self::Gone => "ssm.gone",
            Self::Agent => "ssm.agent-ended",
            Self::Other | Self::AtStart => "ssm.ended",
        }
    }

    /// Returns the service's text, or pgiam's own if it is empty.
    fn in_words(self, reason: &str) -> &str {
        match self {
            _ if !reason.trim().is_empty() => reason.trim(),
            Self::Terminated => "terminated, no reason given",
            _ => "no reason given",
        }
    }
}

/// Refusals of the SSM API with a remedy of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    /// `TargetNotConnected`: offline, wrong id, wrong region.
    TargetNotConnected,
    /// `AccessDeniedException`.
    AccessDenied,
    /// `AccessDeniedException` by a service control policy.
    DeniedByOrganisation,
    /// `ExpiredTokenException`.
    CredentialsExpired,
    /// `UnrecognizedClientException`, `InvalidSignatureException`: wrong keys or a wrong clock.
    CredentialsRejected,
    /// `InvalidDocument`.
    InvalidDocument,
    /// `ThrottlingException`.
    Throttled,
    /// Anything else.
    Other,
}

impl TunnelError {
    /// Returns true if a bastion could not resolve the database's name: the only one, or one of
    /// several.
    #[must_use]
    pub fn is_about_the_name(&self) -> bool {
        match self {
            Self::NameNotResolved { .. } => true,
            Self::AllBastions(tried, _) => tried.iter().any(|(_, error)| error.is_about_the_name()),
            _ => false,
        }
    }

    /// Returns the tunnel's error inside an [`io::Error`] that a tunnel stream returned.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Wraps the error in the [`io::Error`] that a tunnel stream returns.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::DialRefused { .. } | Self::Relay(_) => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self)
    }
}
