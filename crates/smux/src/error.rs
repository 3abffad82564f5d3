//! Errors of a [`Mux`](crate::Mux).

use crate::frame::{FrameError, StreamId};

/// An error of a session.
///
/// [`MuxError::is_fatal`] separates the two kinds: a refused call leaves the session as it was; a
/// violation by the peer ends it, and every later call returns the same error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// `send` on a stream that was never opened or is already closing.
    #[error("stream {0} is not open for sending")]
    NotOpen(StreamId),
    /// All stream ids of this side are used up; ids are never used twice in one session.
    #[error("no stream ids left in this session")]
    IdsExhausted,
    /// The bytes at `offset` (counted from the first byte ever received) are not a version 1 frame.
    #[error("bad frame at byte {offset} of the peer's stream")]
    Frame {
        /// Offset of the frame's header.
        offset: u64,
        /// Error in the header.
        #[source]
        source: FrameError,
    },
    /// The peer opened a stream that belongs to this side: a server opened one towards a client, or
    /// a client used an id of the server's half.
    #[error("the peer may not open stream {id} (byte {offset})")]
    ForeignSyn {
        /// The id in the SYN.
        id: StreamId,
        /// Offset of the frame's header.
        offset: u64,
    },
    /// The peer opened a stream that is already open.
    #[error("the peer opened stream {id} twice (byte {offset})")]
    DuplicateSyn {
        /// The id in the SYN.
        id: StreamId,
        /// Offset of the frame's header.
        offset: u64,
    },
}

impl MuxError {
    /// Returns true if the session is over: the peer violated the protocol and the framing is lost.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::NotOpen(_) | Self::IdsExhausted => false,
            Self::Frame { .. } | Self::ForeignSyn { .. } | Self::DuplicateSyn { .. } => true,
        }
    }
}
