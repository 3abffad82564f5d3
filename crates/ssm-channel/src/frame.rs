//! The layout of one message, and the payload of an acknowledgement.
//!
//! All integers are big-endian. A header of 116 bytes, then the payload's length, then the payload:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | header length, always 116 |
//! | 4 | 32 | message type, padded with spaces |
//! | 36 | 4 | schema version |
//! | 40 | 8 | created, ms since the Unix epoch |
//! | 48 | 8 | sequence number, signed |
//! | 56 | 8 | flags |
//! | 64 | 16 | message id, halves swapped |
//! | 80 | 32 | SHA-256 of the payload |
//! | 112 | 4 | payload type |
//! | 116 | 4 | payload length |
//! | 120 | … | payload |

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{MessageId, SequenceNumber};
use crate::kinds::{MessageType, PayloadType};

/// Bytes in front of the payload.
pub const PAYLOAD_OFFSET: usize = 120;
/// The value of the header length field: everything before the payload's length.
pub const HEADER_LENGTH: u32 = 116;
/// The schema version both real programs write.
pub const SCHEMA_VERSION: u32 = 1;
/// The flags field of the agent's first message: its number begins the sequence.
pub const FLAG_SYN: u64 = 1;
/// The flags field of acknowledgements, as both real programs write them (SYN and FIN).
pub const FLAGS_ACKNOWLEDGE: u64 = 3;

const TYPE_LENGTH: usize = 32;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than the part in front of the payload.
    #[error("{0} bytes are less than the {PAYLOAD_OFFSET} in front of any payload")]
    Truncated(usize),
    /// Another header length than 116: an unknown layout.
    #[error("header length {0}, expected {HEADER_LENGTH}")]
    HeaderLength(u32),
    /// The type's name is empty or not printable ASCII.
    #[error("the message type is not a name")]
    MessageType,
    /// A negative sequence number.
    #[error("negative sequence number {0}")]
    Sequence(i64),
    /// The payload is not as long as the message says.
    #[error("payload of {actual} bytes, announced as {announced}")]
    PayloadLength {
        /// The length field.
        announced: u32,
        /// Bytes after it.
        actual: usize,
    },
    /// The payload's SHA-256 is not the one in the header.
    #[error("the payload does not match its digest")]
    Digest,
}

/// One message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    /// What it is.
    pub message_type: MessageType,
    /// [`SCHEMA_VERSION`] from everybody seen so far; other values are kept, not refused.
    pub schema_version: u32,
    /// When it was made, ms since the Unix epoch, by its maker's clock.
    pub created_date: u64,
    /// Its place among the data messages of its direction; 0 in all other messages.
    pub sequence: SequenceNumber,
    /// Bit 0 SYN, bit 1 FIN.
    pub flags: u64,
    /// Its name, repeated in the acknowledgement.
    pub id: MessageId,
    /// What the payload is.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: Bytes,
}

impl AgentMessage {
    /// A data message of either direction, without flags.
    pub fn data(
        direction: MessageType,
        sequence: SequenceNumber,
        id: MessageId,
        created_date: u64,
        payload: (PayloadType, Bytes),
    ) -> Self {
        Self {
            message_type: direction,
            schema_version: SCHEMA_VERSION,
            created_date,
            sequence,
            flags: 0,
            id,
            payload_type: payload.0,
            payload: payload.1,
        }
    }

    /// An acknowledgement, itself outside every sequence.
    pub fn acknowledge(content: &Acknowledge, id: MessageId, created_date: u64) -> Self {
        Self {
            message_type: MessageType::Acknowledge,
            schema_version: SCHEMA_VERSION,
            created_date,
            sequence: SequenceNumber::FIRST,
            flags: FLAGS_ACKNOWLEDGE,
            id,
            payload_type: PayloadType::None,
            payload: content.to_json(),
        }
    }

    /// The message's bytes: one binary WebSocket message. A type name longer than 32 bytes is cut.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(PAYLOAD_OFFSET + self.payload.len());
        out.put_u32(HEADER_LENGTH);
        let mut name = [b' '; TYPE_LENGTH];
        for (to, from) in name.iter_mut().zip(self.message_type.as_str().bytes()) {
            *to = from;
        }
        out.put_slice(&name);
        out.put_u32(self.schema_version);
        out.put_u64(self.created_date);
        out.put_u64(self.sequence.get());
        out.put_u64(self.flags);
        out.put_slice(&self.id.to_wire());
        out.put_slice(&Sha256::digest(&self.payload));
        out.put_u32(self.payload_type.code());
        // A WebSocket message of 4 GiB cannot be built from parts of at most MAX_PAYLOAD bytes.
        out.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// Takes one binary WebSocket message apart; the payload is a slice of it.
    ///
    /// As in the plugin, an empty payload needs no digest, and of `pause_publication` and
    /// `start_publication` only the type counts.
    ///
    /// # Errors
    /// [`FrameError`] names the first field that is wrong.
    pub fn decode(message: Bytes) -> Result<Self, FrameError> {
        let truncated = FrameError::Truncated(message.len());
        let Some(head) = message.first_chunk::<PAYLOAD_OFFSET>() else {
            return Err(truncated);
        };
        let fields = Fields(head);
        let message_type = message_type(&fields.array::<4, TYPE_LENGTH>())?;
        let signed = i64::from_be_bytes(fields.array::<48, 8>());
        let sequence = u64::try_from(signed).map_err(|_| FrameError::Sequence(signed))?;
        let digest = fields.array::<80, 32>();
        let payload = message.slice(PAYLOAD_OFFSET..);
        if !message_type.is_bare_signal() {
            check(fields.u32::<0>(), fields.u32::<116>(), &digest, &payload)?;
        }
        Ok(Self {
            message_type,
            schema_version: fields.u32::<36>(),
            created_date: u64::from_be_bytes(fields.array::<40, 8>()),
            sequence: SequenceNumber::new(sequence),
            flags: u64::from_be_bytes(fields.array::<56, 8>()),
            id: MessageId::from_wire(fields.array::<64, 16>()),
            payload_type: PayloadType::from_code(fields.u32::<112>()),
            payload,
        })
    }
}

/// The fixed part of a message, by offset.
struct Fields<'a>(&'a [u8; PAYLOAD_OFFSET]);

impl Fields<'_> {
    fn array<const AT: usize, const N: usize>(&self) -> [u8; N] {
        const { assert!(AT + N <= PAYLOAD_OFFSET) };
        std::array::from_fn(|i| self.0[AT + i])
    }

    fn u32<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(self.array::<AT, 4>())
    }
}

fn check(header: u32, announced: u32, digest: &[u8; 32], payload: &[u8]) -> Result<(), FrameError> {
    if header != HEADER_LENGTH {
        return Err(FrameError::HeaderLength(header));
    }
    if usize::try_from(announced) != Ok(payload.len()) {
        return Err(FrameError::PayloadLength {
            announced,
            actual: payload.len(),
        });
    }
    if !payload.is_empty() && Sha256::digest(payload)[..] != digest[..] {
        return Err(FrameError::Digest);
    }
    Ok(())
}

/// The name in the type field. Spaces pad it; NUL is accepted because the plugin accepts it.
fn message_type(field: &[u8; TYPE_LENGTH]) -> Result<MessageType, FrameError> {
    let text = std::str::from_utf8(field).map_err(|_| FrameError::MessageType)?;
    let name = text.trim_matches([' ', '\0']);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(FrameError::MessageType);
    }
    Ok(MessageType::from_name(name))
}

/// The payload of an acknowledgement: which data message has arrived. Acknowledgements are for
/// single messages, never cumulative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// The type of the data message.
    #[serde(rename = "AcknowledgedMessageType")]
    pub message_type: MessageType,
    /// Its id.
    #[serde(rename = "AcknowledgedMessageId")]
    pub id: MessageId,
    /// Its number.
    #[serde(rename = "AcknowledgedMessageSequenceNumber")]
    pub sequence: SequenceNumber,
    /// Always true in practice.
    #[serde(rename = "IsSequentialMessage")]
    pub is_sequential: bool,
}

impl Acknowledge {
    /// The acknowledgement of a data message.
    pub fn of(message: &AgentMessage) -> Self {
        Self {
            message_type: message.message_type.clone(),
            id: message.id,
            sequence: message.sequence,
            is_sequential: true,
        }
    }

    /// The JSON text, fields in the order of the real programs.
    pub fn to_json(&self) -> Bytes {
        crate::handshake::to_json(self)
    }

    /// Reads the JSON text.
    ///
    /// # Errors
    /// When it is not this object.
    pub fn from_json(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(message_type: MessageType, payload: &'static [u8]) -> AgentMessage {
        AgentMessage {
            message_type,
            schema_version: 1,
            created_date: 1_795_442_819_302,
            sequence: SequenceNumber::new(0x0102_0304_0506_0708),
            flags: FLAG_SYN,
            id: MessageId::new(0xe2b6_00b9_d065_43c3_95b0_048b_7be6_704f),
            payload_type: PayloadType::Output,
            payload: Bytes::from_static(payload),
        }
    }

    fn samples() -> Vec<AgentMessage> {
        vec![
            sample(MessageType::InputStreamData, b"to the agent"),
            sample(MessageType::OutputStreamData, b"to the client"),
            sample(MessageType::OutputStreamData, b""),
            sample(MessageType::Acknowledge, b"{}"),
            sample(MessageType::ChannelClosed, b"{\"Output\":\"\"}"),
            sample(MessageType::PausePublication, b""),
            sample(MessageType::StartPublication, b""),
            sample(MessageType::Other("agent_session_state".to_owned()), b"{}"),
            sample(MessageType::Other("a".repeat(32)), b"{}"),
        ]
    }

    #[test]
    fn round_trip() {
        for message in samples() {
            let bytes = message.encode();
            assert_eq!(bytes.len(), PAYLOAD_OFFSET + message.payload.len());
            assert_eq!(AgentMessage::decode(bytes), Ok(message));
        }
    }

    #[test]
    fn truncated_at_every_byte_is_refused() {
        for message in samples() {
            let bytes = message.encode();
            for cut in 0..bytes.len() {
                let outcome = AgentMessage::decode(bytes.slice(..cut));
                assert!(outcome.is_err(), "{cut}: {outcome:?}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            if !message.message_type.is_bare_signal() {
                assert!(AgentMessage::decode(longer.into()).is_err());
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_payload_or_digest_is_noticed() {
        let bytes = sample(MessageType::OutputStreamData, b"precious").encode();
        for at in (80..112).chain(PAYLOAD_OFFSET..bytes.len()) {
            for bit in 0..8 {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1 << bit;
                assert_eq!(AgentMessage::decode(bad.into()), Err(FrameError::Digest));
            }
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let bytes = sample(MessageType::OutputStreamData, b"x").encode();
        let with = |at: usize, value: &[u8]| {
            let mut bad = bytes.to_vec();
            bad[at..at + value.len()].copy_from_slice(value);
            AgentMessage::decode(bad.into())
        };
        assert_eq!(with(3, &[117]), Err(FrameError::HeaderLength(117)));
        assert_eq!(with(4, &[b' '; 32]), Err(FrameError::MessageType));
        assert_eq!(with(5, &[0xFF]), Err(FrameError::MessageType));
        assert_eq!(with(48, &[0xFF; 8]), Err(FrameError::Sequence(-1)));
        let wrong_length = FrameError::PayloadLength {
            announced: 2,
            actual: 1,
        };
        assert_eq!(with(119, &[2]), Err(wrong_length));
    }

    #[test]
    fn the_type_may_be_padded_with_nul() {
        let message = sample(MessageType::OutputStreamData, b"x");
        let mut bytes = message.encode().to_vec();
        for byte in &mut bytes[4 + "output_stream_data".len()..36] {
            *byte = 0;
        }
        assert_eq!(AgentMessage::decode(bytes.into()), Ok(message));
    }

    #[test]
    fn publication_signals_need_only_their_type() {
        let mut bytes = sample(MessageType::PausePublication, b"").encode().to_vec();
        bytes[..4].fill(0);
        bytes[64..120].fill(0xEE);
        bytes.extend_from_slice(b"whatever");
        let message = AgentMessage::decode(bytes.into()).unwrap();
        assert_eq!(message.message_type, MessageType::PausePublication);
    }

    #[test]
    fn acknowledge_json_round_trips_and_every_cut_is_refused() {
        let message = sample(MessageType::InputStreamData, b"x");
        let ack = Acknowledge::of(&message);
        let json = ack.to_json();
        let expected = concat!(
            r#"{"AcknowledgedMessageType":"input_stream_data","#,
            r#""AcknowledgedMessageId":"e2b600b9-d065-43c3-95b0-048b7be6704f","#,
            r#""AcknowledgedMessageSequenceNumber":72623859790382856,"#,
            r#""IsSequentialMessage":true}"#
        );
        assert_eq!(json, expected);
        assert_eq!(Acknowledge::from_json(&json).unwrap(), ack);
        for cut in 0..json.len() {
            assert!(Acknowledge::from_json(&json[..cut]).is_err(), "{cut}");
        }
    }
}
