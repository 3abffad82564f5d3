//! The layout of one message.
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

use bytes::Bytes;

use crate::ack::AckText;
pub use crate::ack::Acknowledge;
use crate::digest::sha256;
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

/// Error in decoding a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than the part in front of the payload.
    #[error("truncated message: {0} bytes, expected at least {PAYLOAD_OFFSET}")]
    Truncated(usize),
    /// A header length other than 116: an unknown layout.
    #[error("header length {0}, expected {HEADER_LENGTH}")]
    HeaderLength(u32),
    /// The type's name is empty or not printable ASCII.
    #[error("the message type is not printable text")]
    MessageType,
    /// A negative sequence number.
    #[error("negative sequence number {0}")]
    Sequence(i64),
    /// The length of the payload differs from the length field.
    #[error("payload of {actual} bytes, expected {announced}")]
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

/// One decoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    /// Type of the message.
    pub message_type: MessageType,
    /// [`SCHEMA_VERSION`] in all known programs; other values are kept, not refused.
    pub schema_version: u32,
    /// Creation time, ms since the Unix epoch, by the sender's clock.
    pub created_date: u64,
    /// Its position among the data messages of its direction; 0 in all other messages.
    pub sequence: SequenceNumber,
    /// Bit 0 SYN, bit 1 FIN.
    pub flags: u64,
    /// Id, repeated in the acknowledgement.
    pub id: MessageId,
    /// Type of the payload.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: Bytes,
}

impl AgentMessage {
    /// Creates a data message of either direction, without flags.
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

    /// Creates an acknowledgement, which is itself outside every sequence.
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

    /// Encodes the message as one binary WebSocket message. A type name longer than 32 bytes is
    /// cut.
    pub fn encode(&self) -> Bytes {
        let head = MessageHeader {
            name: self.message_type.as_str(),
            schema_version: self.schema_version,
            created_date: self.created_date,
            sequence: self.sequence,
            flags: self.flags,
            id: self.id,
            payload_type: self.payload_type,
        };
        let mut out = Vec::with_capacity(PAYLOAD_OFFSET + self.payload.len());
        out.extend_from_slice(&head.encode(&self.payload));
        out.extend_from_slice(&self.payload);
        Bytes::from(out)
    }

    /// Decodes one binary WebSocket message; the payload is a slice of it.
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
        let fields = MessageFields(head);
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

/// Builds the acknowledgement of the agent's data message `of`, as [`AgentMessage::acknowledge`]
/// does but faster: there is one for every message received.
pub(crate) fn acknowledgement(
    of: (MessageId, SequenceNumber),
    id: MessageId,
    created_date: u64,
) -> Bytes {
    let text = AckText::new(MessageType::OutputStreamData.as_str(), of.0, of.1);
    let mut out = Vec::with_capacity(PAYLOAD_OFFSET + text.len());
    out.extend_from_slice(&[0; PAYLOAD_OFFSET]);
    text.write(&mut out);
    let head = MessageHeader {
        name: MessageType::Acknowledge.as_str(),
        schema_version: SCHEMA_VERSION,
        created_date,
        sequence: SequenceNumber::FIRST,
        flags: FLAGS_ACKNOWLEDGE,
        id,
        payload_type: PayloadType::None,
    };
    if let Some((front, payload)) = out.split_first_chunk_mut::<PAYLOAD_OFFSET>() {
        *front = head.encode(payload);
    }
    Bytes::from(out)
}

/// Header fields that do not depend on the payload.
struct MessageHeader<'a> {
    name: &'a str,
    schema_version: u32,
    created_date: u64,
    sequence: SequenceNumber,
    flags: u64,
    id: MessageId,
    payload_type: PayloadType,
}

impl MessageHeader<'_> {
    fn encode(&self, payload: &[u8]) -> [u8; PAYLOAD_OFFSET] {
        // A WebSocket message of 4 GiB cannot be built from parts of at most MAX_PAYLOAD bytes.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut out = [0; PAYLOAD_OFFSET];
        put::<0, 4>(&mut out, HEADER_LENGTH.to_be_bytes());
        put::<4, TYPE_LENGTH>(&mut out, padded(self.name));
        put::<36, 4>(&mut out, self.schema_version.to_be_bytes());
        put::<40, 8>(&mut out, self.created_date.to_be_bytes());
        put::<48, 8>(&mut out, self.sequence.get().to_be_bytes());
        put::<56, 8>(&mut out, self.flags.to_be_bytes());
        put::<64, 16>(&mut out, self.id.to_wire());
        put::<80, 32>(&mut out, sha256(payload));
        put::<112, 4>(&mut out, self.payload_type.code().to_be_bytes());
        put::<116, 4>(&mut out, length.to_be_bytes());
        out
    }
}

fn put<const AT: usize, const N: usize>(out: &mut [u8; PAYLOAD_OFFSET], value: [u8; N]) {
    const { assert!(AT + N <= PAYLOAD_OFFSET) };
    out[AT..AT + N].copy_from_slice(&value);
}

/// The fixed part of a message, by offset.
struct MessageFields<'a>(&'a [u8; PAYLOAD_OFFSET]);

impl MessageFields<'_> {
    fn array<const AT: usize, const N: usize>(&self) -> [u8; N] {
        const { assert!(AT + N <= PAYLOAD_OFFSET) };
        let mut value = [0; N];
        value.copy_from_slice(&self.0[AT..AT + N]);
        value
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
    if !payload.is_empty() && sha256(payload) != *digest {
        return Err(FrameError::Digest);
    }
    Ok(())
}

/// Returns a type field, padded with spaces.
const fn padded(name: &str) -> [u8; TYPE_LENGTH] {
    let mut field = [b' '; TYPE_LENGTH];
    let mut at = 0;
    while at < name.len() && at < TYPE_LENGTH {
        field[at] = name.as_bytes()[at];
        at += 1;
    }
    field
}

/// Returns the name in the type field. Spaces pad it; NUL is accepted because the plugin accepts
/// it.
fn message_type(field: &[u8; TYPE_LENGTH]) -> Result<MessageType, FrameError> {
    // Nearly all messages have one of these two types, padded with spaces.
    if *field == const { padded("output_stream_data") } {
        return Ok(MessageType::OutputStreamData);
    }
    if *field == const { padded("acknowledge") } {
        return Ok(MessageType::Acknowledge);
    }
    let text = std::str::from_utf8(field).map_err(|_| FrameError::MessageType)?;
    let name = text.trim_matches([' ', '\0']);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(FrameError::MessageType);
    }
    Ok(MessageType::from_name(name))
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
    fn an_acknowledgement_is_the_same_whichever_way_it_is_made() {
        for number in [0, 9, 10, 12_345, u64::MAX >> 1] {
            let mut of = sample(MessageType::OutputStreamData, b"x");
            of.sequence = SequenceNumber::new(number);
            let id = MessageId::new(0x77);
            let long = AgentMessage::acknowledge(&Acknowledge::of(&of), id, 5).encode();
            assert_eq!(acknowledgement((of.id, of.sequence), id, 5), long);
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
}
