//! Errors of a channel.

use std::sync::Arc;
use std::time::Duration;

use crate::frame::FrameError;
use crate::kinds::PayloadType;

/// An error of a [`Channel`](crate::Channel).
///
/// Fatal errors stick: every later call returns the same one. The others, see [`Error::is_fatal`],
/// only refuse the call they come from.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An invalid WebSocket message, or one with a wrong digest.
    #[error("malformed message on the data channel")]
    Malformed(#[from] FrameError),
    /// A payload that should be JSON of a known form and is not.
    #[error("malformed {what} on the data channel")]
    Json {
        /// The payload.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// The agent sent a payload that is not allowed in this phase of the channel.
    #[error("the agent sent {payload_type:?} while {phase}")]
    UnexpectedPayload {
        /// The type of the payload.
        payload_type: PayloadType,
        /// The phase of the channel.
        phase: &'static str,
    },
    /// The handshake took too long.
    #[error("the agent did not finish the handshake within {after:?} ({waiting_for})")]
    HandshakeTimeout {
        /// The configured limit.
        after: Duration,
        /// The message that was missing.
        waiting_for: &'static str,
    },
    /// The agent insists on an action this client does not support. `poll_transmit` still hands out
    /// the answer with the refusal.
    #[error("the agent requires {action}, which is not supported")]
    UnsupportedAction {
        /// The action's name as the agent gave it.
        action: String,
    },
    /// The agent's handshake is invalid.
    #[error("the agent's handshake failed: {reason}")]
    HandshakeFailed {
        /// The error in the handshake.
        reason: String,
    },
    /// [`refuse_key`](crate::Channel::refuse_key): the session requires encryption and there is no
    /// data key for it. `poll_transmit` still hands out the answer with the refusal.
    #[error("cannot encrypt the session with {key_id}: {reason}")]
    KeyRefused {
        /// The KMS key the agent named.
        key_id: String,
        /// Reason why there is no data key.
        reason: String,
    },
    /// An encrypted payload of the agent is damaged, or encrypted with another key.
    #[error("the agent sent {payload_type:?} that cannot be decrypted")]
    Undecryptable {
        /// The type of the payload.
        payload_type: PayloadType,
    },
    /// The service ended the session: idle timeout, maximum duration, or TerminateSession.
    #[error("the service closed the session: {reason}")]
    Closed {
        /// The service's message; may be empty.
        reason: String,
    },
    /// `send` while [`sendable`](crate::Channel::sendable) is 0.
    #[error("the channel cannot accept a message now")]
    NotSendable,
    /// `send` with more than [`max_payload`](crate::Channel::max_payload) bytes.
    #[error("a payload of {0} bytes is too large for one message")]
    PayloadTooLarge(usize),
    /// A data key of another length than [`DataKey::LENGTH`](crate::DataKey::LENGTH).
    #[error("invalid data key: {0} bytes, expected 64")]
    KeyLength(usize),
    /// A data key, or its refusal, that was not requested.
    #[error("the agent did not request a data key")]
    KeyNotRequired,
}

impl Error {
    /// Returns true if the channel is over.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::NotSendable
            | Self::PayloadTooLarge(_)
            | Self::KeyLength(_)
            | Self::KeyNotRequired => false,
            Self::Malformed(_)
            | Self::Json { .. }
            | Self::UnexpectedPayload { .. }
            | Self::HandshakeTimeout { .. }
            | Self::UnsupportedAction { .. }
            | Self::HandshakeFailed { .. }
            | Self::KeyRefused { .. }
            | Self::Undecryptable { .. }
            | Self::Closed { .. } => true,
        }
    }

    /// Returns true if the other side violated the protocol, as opposed to an announced end, a
    /// timeout, or a request that this client does not support.
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::Json { .. }
            | Self::UnexpectedPayload { .. }
            | Self::HandshakeFailed { .. }
            | Self::Undecryptable { .. } => true,
            Self::HandshakeTimeout { .. }
            | Self::UnsupportedAction { .. }
            | Self::KeyRefused { .. }
            | Self::Closed { .. }
            | Self::NotSendable
            | Self::PayloadTooLarge(_)
            | Self::KeyLength(_)
            | Self::KeyNotRequired => false,
        }
    }
}
