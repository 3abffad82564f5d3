//! Output of a channel: messages, events and statistics.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::version::AgentVersion;

/// One WebSocket message to send.
#[derive(Clone, PartialEq, Eq)]
pub enum Transmit {
    /// A text message. It contains the token: never log it.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(***)"),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

/// Action of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session requires encryption. Request a data key of
    /// [`DataKey::LENGTH`](crate::DataKey::LENGTH) bytes from KMS with the encryption context
    /// `aws:ssm:SessionId`, `aws:ssm:TargetId` and, if there is a challenge,
    /// `aws:ssm:RandomChallenge`; then call [`provide_key`](crate::Channel::provide_key) or
    /// [`refuse_key`](crate::Channel::refuse_key). The handshake timeout continues to run.
    KeyRequired {
        /// The KMS key's ARN or id, as the agent names it.
        kms_key_id: String,
        /// A random text of the agent for the encryption context.
        challenge: Option<String>,
    },
    /// The handshake is done: data may flow.
    Established {
        /// Version of the agent.
        agent_version: AgentVersion,
        /// A text for the user, from the account's preferences; mostly empty.
        customer_message: String,
    },
    /// Bytes of the session, in order, not empty.
    Output(Bytes),
    /// The agent could not connect to the port. It does not name the stream: it is the oldest one
    /// that has received no data.
    ConnectToPortError,
    /// The agent's connection to the port has ended (sessions without smux).
    Disconnected,
    /// The other side is away; only acknowledgements are sent until `Restarted`.
    Paused,
    /// The other side is back.
    Restarted,
}

/// Statistics of a channel. Counts are of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Data messages sent, without repetitions.
    pub sent: u64,
    /// Repetitions sent.
    pub retransmitted: u64,
    /// Data messages the agent acknowledged.
    pub acked: u64,
    /// Data messages received, without repetitions.
    pub received: u64,
    /// Data messages received again.
    pub duplicates: u64,
    /// Data messages not kept because too many were ahead of a missing one.
    pub dropped: u64,
    /// Messages of unknown or unexpected kind that were ignored.
    pub ignored: u64,
    /// Calls of [`reconnect`](crate::Channel::reconnect).
    pub reconnects: u64,
    /// Data messages accepted by `send` and not acknowledged yet.
    pub in_flight: usize,
    /// Received data messages that wait for an earlier one.
    pub reordering: usize,
    /// Most messages that may be unacknowledged now.
    pub window: usize,
    /// Smoothed round-trip time, once there is a measurement.
    pub srtt: Option<Duration>,
    /// The smallest recent round-trip time on this connection: the path without any queue.
    pub min_rtt: Option<Duration>,
    /// Retransmission timeout of a message sent now.
    pub rto: Duration,
}
