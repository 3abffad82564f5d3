//! Why there is no stream to a database, or why one ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::DirectFailure;
use crate::aws::api_error::ApiAnswer;
use crate::aws::{CredentialsError, Late};
use crate::base::background::Stopped;
use crate::base::foreign_text::ForeignText;
use crate::config::Endpoint;

/// Why there is no stream, or why one ended. Cloneable, because every connection that waited for
/// the same session gets the same answer.
#[derive(Clone, Debug, Error)]
pub enum TunnelError {
    /// There are no usable AWS credentials to open a session with.
    #[error(transparent)]
    Credentials(Arc<CredentialsError>),
    /// Neither the host name, nor the configuration, nor the AWS profile says a region.
    #[error("no AWS region is known")]
    NoRegion,
    /// A call of the SSM API was refused.
    #[error("AWS refused {operation}: {}: {}", .answer.code, .answer.message)]
    Api {
        /// The call, such as `StartSession`.
        operation: &'static str,
        /// Which refusal, for the remedy.
        kind: ApiRefusal,
        /// AWS's answer.
        answer: ApiAnswer,
        /// The managed node asked for.
        bastion: String,
        /// The region asked in.
        region: String,
    },
    /// No managed node that is online carries the tag.
    #[error("no managed node in {region} matches {wanted}")]
    NoBastion {
        /// The tag that was looked for, as configured.
        wanted: String,
        /// The region asked in.
        region: String,
    },
    /// No session could be opened through any of several managed nodes; and how many more there are
    /// that were not tried.
    #[error("none of the bastions works: {}", tried(.0, *.1))]
    AllBastions(Arc<[(String, Self)]>, usize),
    /// The SSM API could not be reached.
    #[error("cannot reach the SSM API in {region}: {reason}")]
    ApiUnreachable {
        /// The region asked in.
        region: String,
        /// The host that was asked, with its port, where that is known.
        host: Option<String>,
        /// What the SDK said, with its causes.
        reason: ForeignText,
    },
    /// A call was not answered in time.
    #[error(transparent)]
    Late(Box<Late>),
    /// A call was answered with something else than AWS documents, or with too much of it.
    #[error("the answer to {operation} is not usable: {reason}")]
    BadAnswer {
        /// The call, such as `StartSession`.
        operation: &'static str,
        /// What is wrong with it.
        reason: ForeignText,
    },
    /// The task that starts a session, or drives it, ended without an outcome.
    #[error("the tunnel failed: {0}")]
    Internal(Stopped),
    /// AWS answered without what the protocol needs.
    #[error("AWS answered StartSession without {0}")]
    IncompleteAnswer(&'static str),
    /// AWS named a stream address outside its own domains, see [`Self::BadAnswer`] for other flaws.
    #[error("AWS answered StartSession with the stream host \"{host}\", which is not an AWS name")]
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
        /// What failed, with its causes.
        reason: ForeignText,
    },
    /// The gateway refused the WebSocket upgrade.
    #[error("the data channel at {host} refused the connection with HTTP status {status}{}", of_clock(.skew))]
    ChannelRefused {
        /// The data channel's host.
        host: String,
        /// The region of the session.
        region: String,
        /// The HTTP status.
        status: u16,
        /// By how many seconds this machine's clock is ahead of the gateway's (negative: behind), if
        /// that is too much for a signature and so may be the reason.
        skew: Option<i64>,
    },
    /// The agent did not finish the handshake in time.
    #[error("the SSM handshake with {bastion} did not finish in {} s", .after.as_secs())]
    HandshakeTimeout {
        /// The managed node.
        bastion: String,
        /// How long we waited.
        after: Duration,
    },
    /// The agent would ignore the remote host and dial itself.
    #[error("the SSM agent {version} on {bastion} is older than {needed}")]
    AgentTooOld {
        /// The managed node.
        bastion: String,
        /// The agent's version.
        version: String,
        /// The oldest version that works.
        needed: String,
    },
    /// The agent cannot carry several connections in one session.
    #[error("the SSM agent {version} on {bastion} cannot multiplex")]
    NoMultiplexing {
        /// The managed node.
        bastion: String,
        /// The agent's version.
        version: String,
    },
    /// The session must be encrypted with a KMS key, and KMS did not give one.
    #[error("KMS gave no key to encrypt the session with: {reason}")]
    DataKey {
        /// The key's ARN.
        key: ForeignText,
        /// An access policy forbids it.
        denied: bool,
        /// What AWS said.
        reason: ForeignText,
    },
    /// The session asks for something this program cannot do, such as KMS encryption.
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
        /// What it should have dialled.
        endpoint: Endpoint,
    },
    /// The agent did not say what became of its dial.
    #[error("{bastion} had no connection to {endpoint} after {} s", .after.as_secs())]
    DialTimeout {
        /// The managed node.
        bastion: String,
        /// What it should have dialled.
        endpoint: Endpoint,
        /// How long we waited.
        after: Duration,
    },
    /// The agent is stuck in the dial of an earlier stream and has not come to this one.
    #[error("{bastion} is stuck in another connection's dial")]
    Stranded {
        /// The managed node.
        bastion: String,
    },
    /// The agent could not look the database's name up, which ends its session.
    #[error("{bastion} cannot resolve {}", .endpoint.host)]
    NameNotResolved {
        /// The managed node.
        bastion: String,
        /// What it should have dialled.
        endpoint: Endpoint,
        /// The agent's words.
        reason: ForeignText,
    },
    /// The service answers and the agent does not.
    #[error("the SSM agent on {bastion} has not answered for {} s", .after.as_secs())]
    AgentSilent {
        /// The managed node.
        bastion: String,
        /// For how long.
        after: Duration,
    },
    /// What the agent sends waits for messages that were lost with a connection.
    #[error("messages of the SSM agent on {bastion} have been missing for {} s", .after.as_secs())]
    Delayed {
        /// The managed node.
        bastion: String,
        /// For how long.
        after: Duration,
    },
    /// The service or the agent ended the session.
    #[error("the SSM session ended: {}", .cause.in_words(.reason))]
    SessionEnded {
        /// Which of the endings that have a name.
        cause: EndCause,
        /// The service's words.
        reason: ForeignText,
    },
    /// The connection to the service broke.
    #[error("the connection to the SSM service was lost: {reason}")]
    ChannelLost {
        /// What happened.
        reason: ForeignText,
    },
    /// This connection's client read nothing for so long that its unread bytes kept every other
    /// connection of the session waiting.
    #[error("the client did not read its result, and other connections waited for it")]
    Overrun,
    /// The other side broke the protocol.
    #[error("SSM protocol error: {reason}")]
    Protocol {
        /// What was wrong.
        reason: ForeignText,
    },
    /// The HTTP proxy of the environment did not let us through.
    #[error("the proxy {proxy} did not connect us to {host}: {reason}")]
    Proxy {
        /// The proxy's host and port, without credentials.
        proxy: String,
        /// Where we wanted to go.
        host: String,
        /// What it answered, or what failed.
        reason: ForeignText,
    },
    /// A direct connection failed.
    #[error("cannot connect to {endpoint}: {source}")]
    Direct {
        /// Where to.
        endpoint: Endpoint,
        /// Which failure, for the remedy.
        failure: DirectFailure,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// We are shutting down.
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

fn tried(tried: &[(String, TunnelError)], left_out: usize) -> String {
    let each = tried
        .iter()
        .map(|(bastion, error)| format!("{bastion}: {error}"));
    let more = (left_out > 0).then(|| format!("{left_out} more were not tried"));
    let each: Vec<String> = each.chain(more).collect();
    each.join("; ")
}

/// Why a session ended, where that has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// The idle timeout of the account's Session Manager preferences.
    IdleTimeout,
    /// Their maximum session duration.
    MaximumDuration,
    /// Somebody called `ssm:TerminateSession`.
    Terminated,
    /// The connection was lost, and AWS has no token to resume the session with, or knows no such
    /// session: it is over.
    Gone,
    /// The agent ended it, as when it restarts.
    Agent,
    /// Something else; the words say what.
    Other,
    /// The same, at the start of a session, which no time limit has ended.
    AtStart,
}

impl EndCause {
    /// The stable identifier of this ending, for logs and documentation.
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

    /// The service's words, or ours where it had none.
    fn in_words(self, reason: &str) -> &str {
        match self {
            _ if !reason.trim().is_empty() => reason.trim(),
            Self::Terminated => "it was terminated, without a reason",
            _ => "without a reason",
        }
    }
}

/// The refusals of the SSM API that have a remedy of their own.
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
    /// Whether a bastion could not resolve the database's name: the only one, or one of several.
    #[must_use]
    pub fn is_about_the_name(&self) -> bool {
        match self {
            Self::NameNotResolved { .. } => true,
            Self::AllBastions(tried, _) => tried.iter().any(|(_, error)| error.is_about_the_name()),
            _ => false,
        }
    }

    /// The tunnel's error inside an [`io::Error`] that a tunnel stream returned.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The same, as what a tunnel stream returns.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::DialRefused { .. } => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self)
    }
}
