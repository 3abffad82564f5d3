//! Errors of a [`Bundle`](crate::Bundle).

use crate::frame::StreamId;
use crate::hello::{MAX_SUBFLOWS, VERSION};

/// An error of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StripeError {
    /// The stream was never opened, or this side has finished or reset it.
    #[error("stream {0} is not open for sending")]
    NotOpen(StreamId),
    /// All stream ids are used up; ids are never used twice in one bundle.
    #[error("no stream ids left in this bundle")]
    IdsExhausted,
    /// A text is longer than [`MAX_TEXT`](crate::MAX_TEXT).
    #[error("a text of {0} bytes is too long")]
    TooLong(usize),
    /// There is no subflow of this index.
    #[error("subflow {0} is not attached")]
    NotAttached(u8),
    /// An index that no subflow can have.
    #[error("subflow {0}: a bundle has at most {MAX_SUBFLOWS}")]
    Index(u8),
    /// A carrier of this index was attached with the same or a later generation.
    #[error("subflow {index} has generation {current} already, got {offered}")]
    Generation {
        /// Index of the subflow.
        index: u8,
        /// Latest generation.
        current: u16,
        /// Generation of the carrier that was refused.
        offered: u16,
    },
    /// The peer's first bytes are not those of this protocol.
    #[error("the peer does not speak the protocol of pgiam relay")]
    Magic,
    /// The peer's version is unknown.
    #[error("the peer speaks version {0} of the relay protocol, this side {VERSION}")]
    Version(u8),
    /// The relay refused the carrier, with these words.
    #[error("the relay refused the session: {0}")]
    Refused(String),
    /// The peer violated the protocol; the bundle is over.
    #[error("the peer violated the relay protocol on subflow {index}: {violation}")]
    Peer {
        /// Subflow on which the frame came.
        index: u8,
        /// The violation.
        violation: Violation,
    },
}

impl StripeError {
    /// Returns true if the bundle is over.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Peer { .. })
    }
}

/// A violation of the protocol by the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame of an unknown type.
    #[error("unknown frame type {0}")]
    FrameType(u8),
    /// More data or text than a frame may carry.
    #[error("a frame of {0} bytes")]
    FrameLength(usize),
    /// A text that is not UTF-8.
    #[error("a text that is not UTF-8")]
    Text,
    /// A stream that only this side may open.
    #[error("stream {0} may not be opened by the peer")]
    ForeignStream(StreamId),
    /// More open streams than a bundle may have.
    #[error("too many open streams")]
    Streams,
    /// Data beyond the window.
    #[error("stream {id}: data up to {end}, the window ends at {limit}")]
    Window {
        /// The stream.
        id: StreamId,
        /// End of the data.
        end: u64,
        /// End of the window.
        limit: u64,
    },
    /// Data beyond the announced end, or a second, different end.
    #[error("stream {0}: data and announced end do not fit")]
    End(StreamId),
    /// More bytes acknowledged than were sent.
    #[error("{received} bytes acknowledged of {sent}")]
    Acknowledged {
        /// Acknowledged bytes.
        received: u64,
        /// Sent bytes.
        sent: u64,
    },
}
