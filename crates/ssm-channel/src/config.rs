//! Configuration of a channel.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// The version announced unless [`ChannelConfig::client_version`] says otherwise.
///
/// It is the oldest plugin that AWS still promises to accept (older ones do not sign the WebSocket
/// request). Above 1.1.70 the agent speaks smux; above 1.2.331.0 it neither sends nor expects smux
/// keepalives, without which it would close idle sessions after 30 s.
pub const CLIENT_VERSION: &str = "1.2.764.0";

/// The `TokenValue` that opens a data channel. Never printed; its memory is overwritten when it is
/// dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelToken(Zeroizing<String>);

impl ChannelToken {
    /// Creates a token from its text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for ChannelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Writes the token itself: for the message that opens the channel, never for logs.
impl Serialize for ChannelToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ChannelToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Configuration of a [`Channel`](crate::Channel).
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// Token from StartSession.
    pub token: ChannelToken,
    /// A new UUID, in text form.
    pub request_id: String,
    /// A UUID that stays the same for this session, in text form.
    pub client_id: String,
    /// Announced to the service and the agent; [`CLIENT_VERSION`] by default.
    pub client_version: String,
    /// Seed that makes this channel's message ids unique. Need not be secret.
    pub id_seed: u128,
    /// Wall clock at time zero of `now`, ms since the Unix epoch. Used only for the creation dates
    /// of messages.
    pub wall_epoch_ms: u64,
    /// Timeout from [`Channel::new`](crate::Channel::new) to the agent's HandshakeComplete. 15 s by
    /// default, like the agent's own timeout.
    pub handshake_timeout: Duration,
    /// Maximum number of unacknowledged messages, each of at most
    /// [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes. The window itself starts small and adapts to the
    /// path; this is its upper limit. 4,096 by default: 4 MiB, or 14 MB/s at a round trip of 300
    /// ms.
    pub send_window: usize,
    /// Maximum number of messages kept because an earlier one is missing. Beyond it messages are
    /// neither kept nor acknowledged, as in the real programs, and the agent sends them again.
    pub reorder_messages: usize,
    /// Maximum payload bytes of those messages.
    pub reorder_bytes: usize,
}

impl ChannelConfig {
    /// Creates a configuration with the default version, timeout and limits.
    pub fn new(
        token: ChannelToken,
        request_id: String,
        client_id: String,
        id_seed: u128,
        wall_epoch_ms: u64,
    ) -> Self {
        Self {
            token,
            request_id,
            client_id,
            client_version: CLIENT_VERSION.to_owned(),
            id_seed,
            wall_epoch_ms,
            handshake_timeout: Duration::from_secs(15),
            send_window: 4_096,
            // The agent sends 1 message per ms without waiting for acknowledgements, and a lost one
            // is back within about a second; without its pacing it is some twenty times faster.
            // The real programs keep 10,000.
            reorder_messages: 10_000,
            reorder_bytes: 10_000 * crate::MAX_PAYLOAD,
        }
    }
}
