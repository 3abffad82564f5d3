//! A startup packet that leads to no target.

use pg_handshake::StartupError;
use thiserror::Error;

use crate::base::foreign_text::ForeignText;

/// Why a startup cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// Several targets share this port and the database name picks none of them.
    #[error("no target \"{asked}\" on this port")]
    UnknownTarget {
        /// What the client asked for; empty where it named no database.
        asked: ForeignText,
        /// The names that would have worked, and where they lead.
        known: Vec<(String, String)>,
    },
    /// Neither the client nor the target names a user.
    #[error("no user name: the client sent none and target \"{target}\" has no user")]
    NoUser {
        /// The target.
        target: String,
    },
    /// The user name is not UTF-8, so no token can be signed for it.
    #[error("the user name is not valid UTF-8")]
    UserNotUtf8,
    /// A replication connection, which IAM login does not allow.
    #[error("replication connections cannot log in with IAM")]
    Replication {
        /// The target.
        target: String,
    },
    /// The rewritten startup packet would not be one any more.
    #[error("the configured user or database does not fit into the startup packet: {0}")]
    Startup(#[from] StartupError),
}
