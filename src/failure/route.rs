//! Errors of startup packets that match no target.

use pg_handshake::StartupError;
use thiserror::Error;

use crate::base::foreign_text::ForeignText;
use crate::base::names::TargetName;

/// A target that clients of a port may request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTarget {
    /// Its name.
    pub name: String,
    /// Its endpoint, or the identifier of its database.
    pub endpoint: String,
}

/// Reason why a startup packet cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// Several targets share this port, and the database name matches none of them.
    #[error("no target \"{asked}\" on this port")]
    UnknownTarget {
        /// The database that the client requested; empty if it named none.
        asked: ForeignText,
        /// The targets that the client may request.
        known: Vec<KnownTarget>,
    },
    /// The owner of pgiam has stopped the target.
    #[error("target \"{target}\" is stopped")]
    Stopped {
        /// The target.
        target: TargetName,
    },
    /// Neither the client nor the target names a user.
    #[error("no user name: the client sent none and target \"{target}\" has no user")]
    NoUser {
        /// The target.
        target: TargetName,
    },
    /// The user name is not UTF-8, so no token can be signed for it.
    #[error("the user name is not valid UTF-8")]
    UserNotUtf8,
    /// The client requested a replication connection, which IAM login does not support.
    #[error("replication connections cannot log in with IAM")]
    Replication {
        /// The target.
        target: TargetName,
    },
    /// The rewritten startup packet would be invalid.
    #[error("the configured user or database does not fit into the startup packet: {0}")]
    Startup(#[from] StartupError),
}
