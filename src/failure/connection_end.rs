//! The end of a connection after its login.

use std::io;

/// Side that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client closed or broke its connection.
    Client,
    /// The database or the path to it.
    Server,
    /// pgiam, because it is stopping.
    Shutdown,
    /// pgiam, because the owner has stopped the target.
    TargetStop,
}

impl EndedBy {
    /// Returns the name for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Shutdown => "shutdown",
            Self::TargetStop => "target stop",
        }
    }
}

/// End of a spliced connection.
#[derive(Debug)]
pub struct ConnectionEnd {
    /// The side that ended first.
    pub by: EndedBy,
    /// `None` if the side closed in order. For a server that means: after it sent the reason, or
    /// after the client sent Terminate.
    pub error: Option<io::Error>,
    /// Bytes client → server.
    pub sent: u64,
    /// Bytes server → client.
    pub received: u64,
    /// True if the client can still receive an ErrorResponse: the last server message is complete
    /// and did not itself end the connection.
    pub at_boundary: bool,
}
