//! The relay of a target: its state, and the reasons why it is not used.

use crate::base::foreign_text::ForeignText;
use crate::base::names::NodeId;
use crate::config::Endpoint;
use crate::striping::RefusalKind;

/// Version of the protocol that this program speaks with relays.
pub const RELAY_VERSION: u8 = stripe::VERSION;

/// Refusal of a connection by a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRefusal {
    /// The managed node that it runs on.
    pub bastion: NodeId,
    /// The requested endpoint.
    pub endpoint: Endpoint,
    /// The relay's reason, for the remedy.
    pub kind: RefusalKind,
    /// The relay's words.
    pub words: ForeignText,
}

/// State of a target's relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStats {
    /// Its port on the bastion.
    pub port: u16,
    /// Maximum number of sessions to it.
    pub sessions: usize,
    /// Its use.
    pub state: RelayState,
}

/// Use of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// No connection has needed it yet.
    Untried,
    /// A first session to it is being opened.
    Trying,
    /// Connections go through it.
    InUse {
        /// The bastion that it runs on.
        bastion: NodeId,
        /// Sessions that its connections are spread over.
        carriers: usize,
    },
    /// Connections use sessions to the database instead.
    Absent(RelayAbsence),
    /// No session could be opened.
    Failed,
}

impl RelayState {
    /// Returns the state's name, for programs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Trying => "trying",
            Self::InUse { .. } => "in use",
            Self::Absent(_) => "absent",
            Self::Failed => "failed",
        }
    }
}

/// Reason why a relay is not used. Displayed as the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayAbsence {
    /// The port is closed.
    #[error("nothing listens on port {port} of {bastion}")]
    NothingListens {
        /// The bastion.
        bastion: NodeId,
        /// The port.
        port: u16,
    },
    /// No answer to the hello.
    #[error("port {port} of {bastion} does not answer")]
    Silent {
        /// The bastion.
        bastion: NodeId,
        /// The port.
        port: u16,
    },
    /// The port belongs to another program, or to a relay of another version.
    #[error("port {port} of {bastion}: {reason}")]
    NotRelay {
        /// The bastion.
        bastion: NodeId,
        /// The port.
        port: u16,
        /// The difference.
        reason: ForeignText,
    },
    /// The relay has refused the session.
    #[error("the relay on {bastion} refused the session: {words}")]
    Refused {
        /// The bastion.
        bastion: NodeId,
        /// The relay's words.
        words: ForeignText,
    },
    /// The relay's allow list lacks the database, and the configuration does not require a relay.
    #[error("the relay on {bastion} does not allow the database: {words}")]
    NotAllowed {
        /// The bastion.
        bastion: NodeId,
        /// The relay's words.
        words: ForeignText,
    },
    /// AWS refuses sessions to a port of the bastion.
    #[error("AWS does not allow the session document AWS-StartPortForwardingSession: {0}")]
    Denied(ForeignText),
    /// Sessions to the relay end before it answers.
    #[error("the session to the relay ended: {0}")]
    SessionLost(ForeignText),
}

impl RelayAbsence {
    /// Returns the bastion that has no relay, if this is about one.
    #[must_use]
    pub fn bastion(&self) -> Option<&NodeId> {
        match self {
            Self::NothingListens { bastion, .. }
            | Self::Silent { bastion, .. }
            | Self::NotRelay { bastion, .. }
            | Self::Refused { bastion, .. }
            | Self::NotAllowed { bastion, .. } => Some(bastion),
            Self::Denied(_) | Self::SessionLost(_) => None,
        }
    }

    /// Returns the remedy, as an imperative.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NothingListens { .. } | Self::Silent { .. } => "start pgiam relay on the bastion",
            Self::NotRelay { .. } => {
                "set relay to the port of pgiam relay, of the same version as here"
            }
            Self::Refused { .. } => "see the log of pgiam relay on the bastion",
            Self::NotAllowed { .. } => "start the relay with --allow for this database",
            Self::Denied(_) => {
                "allow ssm:StartSession on this document: pgiam setup policy --relay"
            }
            Self::SessionLost(_) => "check the SSM agent of the bastion",
        }
    }
}
