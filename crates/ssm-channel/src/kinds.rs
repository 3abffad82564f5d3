//! The enumerations of the protocol: message types, payload types and flags.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Type of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Data from the client to the agent.
    InputStreamData,
    /// Data from the agent to the client.
    OutputStreamData,
    /// One data message has arrived.
    Acknowledge,
    /// The service ends the session.
    ChannelClosed,
    /// The service: the other side is away.
    PausePublication,
    /// The service: the other side is back.
    StartPublication,
    /// Anything else, by name: at most 32 printable ASCII characters without space at the ends.
    Other(String),
}

impl MessageType {
    /// Returns the name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InputStreamData => "input_stream_data",
            Self::OutputStreamData => "output_stream_data",
            Self::Acknowledge => "acknowledge",
            Self::ChannelClosed => "channel_closed",
            Self::PausePublication => "pause_publication",
            Self::StartPublication => "start_publication",
            Self::Other(name) => name,
        }
    }

    /// Returns the type of a name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "input_stream_data" => Self::InputStreamData,
            "output_stream_data" => Self::OutputStreamData,
            "acknowledge" => Self::Acknowledge,
            "channel_closed" => Self::ChannelClosed,
            "pause_publication" => Self::PausePublication,
            "start_publication" => Self::StartPublication,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Returns true for messages of the service that consist of their type alone. The plugin
    /// ignores the rest of them, so its content is unknown.
    pub(crate) fn is_bare_signal(&self) -> bool {
        matches!(self, Self::PausePublication | Self::StartPublication)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MessageType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MessageType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::from_name(&name))
    }
}

/// Payload type of a data message. Acknowledgements and the service's messages carry 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// 0: no data message.
    None,
    /// 1: bytes of the session.
    Output,
    /// 2: an error text.
    Error,
    /// 3: the size of a terminal.
    Size,
    /// 5: the agent's requests, see [`crate::handshake`].
    HandshakeRequest,
    /// 6: the client's answer.
    HandshakeResponse,
    /// 7: data may flow.
    HandshakeComplete,
    /// 8: the agent tests the encryption key.
    EncryptionChallengeRequest,
    /// 9: the client's answer to the test.
    EncryptionChallengeResponse,
    /// 10: a [`FlagPayload`].
    Flag,
    /// 11: bytes of a command's standard error.
    StdErr,
    /// 12: a command's exit code.
    ExitCode,
    /// Any other number.
    Other(u32),
}

impl PayloadType {
    /// Returns the number on the wire.
    pub const fn code(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Output => 1,
            Self::Error => 2,
            Self::Size => 3,
            Self::HandshakeRequest => 5,
            Self::HandshakeResponse => 6,
            Self::HandshakeComplete => 7,
            Self::EncryptionChallengeRequest => 8,
            Self::EncryptionChallengeResponse => 9,
            Self::Flag => 10,
            Self::StdErr => 11,
            Self::ExitCode => 12,
            Self::Other(code) => code,
        }
    }

    /// Returns the type of a number.
    pub const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::None,
            1 => Self::Output,
            2 => Self::Error,
            3 => Self::Size,
            5 => Self::HandshakeRequest,
            6 => Self::HandshakeResponse,
            7 => Self::HandshakeComplete,
            8 => Self::EncryptionChallengeRequest,
            9 => Self::EncryptionChallengeResponse,
            10 => Self::Flag,
            11 => Self::StdErr,
            12 => Self::ExitCode,
            other => Self::Other(other),
        }
    }
}

/// The payload of a [`PayloadType::Flag`] message: four bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlagPayload {
    /// 1: the connection to the port has ended.
    DisconnectToPort,
    /// 2: the client ends the session.
    TerminateSession,
    /// 3: the agent could not connect to the port. It does not name the stream.
    ConnectToPortError,
    /// Any other number.
    Other(u32),
}

impl FlagPayload {
    /// Returns the payload's bytes.
    pub const fn encode(self) -> [u8; 4] {
        let code: u32 = match self {
            Self::DisconnectToPort => 1,
            Self::TerminateSession => 2,
            Self::ConnectToPortError => 3,
            Self::Other(code) => code,
        };
        code.to_be_bytes()
    }

    /// Parses a payload; `None` unless it is four bytes long.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let code = u32::from_be_bytes(payload.try_into().ok()?);
        Some(match code {
            1 => Self::DisconnectToPort,
            2 => Self::TerminateSession,
            3 => Self::ConnectToPortError,
            other => Self::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip() {
        for code in 0..20 {
            assert_eq!(PayloadType::from_code(code).code(), code);
            let flag = FlagPayload::decode(&code.to_be_bytes()).unwrap();
            assert_eq!(flag.encode(), code.to_be_bytes());
        }
        for name in [
            "input_stream_data",
            "output_stream_data",
            "acknowledge",
            "channel_closed",
            "pause_publication",
            "start_publication",
        ] {
            let known = MessageType::from_name(name);
            assert!(!matches!(known, MessageType::Other(_)), "{name}");
            assert_eq!(known.as_str(), name);
        }
        assert_eq!(MessageType::from_name("agent_job").as_str(), "agent_job");
    }

    #[test]
    fn a_flag_has_four_bytes() {
        for len in [0, 1, 2, 3, 5, 8] {
            assert_eq!(FlagPayload::decode(&vec![0; len]), None);
        }
    }
}
