//! The end of a session.

use std::io;

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client closed or broke its connection.
    Client,
    /// The database, or the way to it.
    Server,
    /// We did, because the program is stopping.
    Shutdown,
}

impl EndedBy {
    /// For logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How a spliced session ended.
#[derive(Debug)]
pub struct SessionEnd {
    /// The side that ended first.
    pub by: EndedBy,
    /// `None`: closed in order, which for a server means: after it has said why, or was told that the
    /// client leaves.
    pub error: Option<io::Error>,
    /// Bytes client → server.
    pub sent: u64,
    /// Bytes server → client.
    pub received: u64,
    /// Whether the client stands where an ErrorResponse can follow: between two server messages, of
    /// which the last was not itself one that ends a session.
    pub at_boundary: bool,
}
