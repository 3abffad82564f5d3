//! The data channel's message layout, written down plainly and used by nothing under test.
//!
//! Big-endian, 120 bytes of header before the payload; the fields are those observed between the
//! stock plugin and the stock agent (golden capture in `vectors/ssm-session.jsonl`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Value of the first field: the offset of the payload length.
pub const HEADER_LENGTH: u32 = 116;
/// Where the payload starts.
pub const PAYLOAD_OFFSET: usize = 120;

/// Client to agent, sequenced.
pub const INPUT: &str = "input_stream_data";
/// Agent to client, sequenced.
pub const OUTPUT: &str = "output_stream_data";
/// Either way, not sequenced.
pub const ACKNOWLEDGE: &str = "acknowledge";
/// Service to either side: the session is over.
pub const CHANNEL_CLOSED: &str = "channel_closed";
/// Service to either side: the other one is away.
pub const PAUSE: &str = "pause_publication";
/// Service to either side: the other one is back.
pub const START: &str = "start_publication";
/// Agent to service only.
pub const AGENT_STATE: &str = "agent_session_state";

/// `PayloadType` values.
pub mod payload {
    /// Stream bytes.
    pub const OUTPUT: u32 = 1;
    /// Agent's first message.
    pub const HANDSHAKE_REQUEST: u32 = 5;
    /// Client's answer to it.
    pub const HANDSHAKE_RESPONSE: u32 = 6;
    /// Agent's last word of the handshake.
    pub const HANDSHAKE_COMPLETE: u32 = 7;
    /// Agent's encrypted random bytes, to see whether the client has the key.
    pub const CHALLENGE_REQUEST: u32 = 8;
    /// The same bytes, encrypted by the client.
    pub const CHALLENGE_RESPONSE: u32 = 9;
    /// A 32-bit flag.
    pub const FLAG: u32 = 10;
}

/// Values of a flag payload.
pub mod flag {
    /// Basic port sessions only: close the connection to the port.
    pub const DISCONNECT_TO_PORT: u32 = 1;
    /// Client says goodbye.
    pub const TERMINATE_SESSION: u32 = 2;
    /// Agent could not dial.
    pub const CONNECT_TO_PORT_ERROR: u32 = 3;
}

/// `Flags` bit 0.
pub const SYN: u64 = 1;
/// Both bits, as acknowledgements carry them.
pub const SYN_FIN: u64 = 3;

/// One message; `payload` shares the buffer it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Name without its padding.
    pub kind: String,
    /// Always 1 so far.
    pub schema_version: u32,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Position in the sender's sequence; 0 on messages outside of it.
    pub sequence: i64,
    /// Bit 0 SYN, bit 1 FIN.
    pub flags: u64,
    /// Identity that an acknowledgement repeats.
    pub id: Uuid,
    /// See [`payload`].
    pub payload_type: u32,
    /// The content.
    pub payload: Bytes,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header or the payload length need.
    #[error("message of {0} bytes is cut short")]
    Truncated(usize),
    /// The header length is not [`HEADER_LENGTH`].
    #[error("header length {0}")]
    HeaderLength(u32),
    /// Bytes after the payload.
    #[error("{0} bytes after the payload")]
    Trailing(usize),
    /// The type is not padded ASCII text.
    #[error("message type is not text")]
    Kind,
    /// The payload does not have the digest of the header.
    #[error("payload digest does not match")]
    Digest,
}

impl Message {
    /// A message made now, with a fresh identity and schema version 1.
    pub fn new(kind: &str, payload_type: u32, payload: Bytes) -> Self {
        Self {
            kind: kind.to_owned(),
            schema_version: 1,
            created_ms: now_ms(),
            sequence: 0,
            flags: 0,
            id: fresh_id(),
            payload_type,
            payload,
        }
    }

    /// The acknowledgement of `of`.
    pub fn ack(of: &Self) -> Self {
        // Written by hand: it is made once for every message that passes, and its four fields have
        // had this order in every capture.
        let json = format!(
            "{{\"AcknowledgedMessageType\":\"{}\",\"AcknowledgedMessageId\":\"{}\",\
             \"AcknowledgedMessageSequenceNumber\":{},\"IsSequentialMessage\":true}}",
            of.kind, of.id, of.sequence
        );
        let mut ack = Self::new(ACKNOWLEDGE, 0, Bytes::from(json));
        ack.flags = SYN_FIN;
        ack
    }

    /// Lays the message out; types longer than 32 bytes do not exist and would be cut.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(PAYLOAD_OFFSET + self.payload.len());
        let header = Header {
            kind: &self.kind,
            created_ms: self.created_ms,
            sequence: self.sequence,
            flags: self.flags,
            id: self.id,
            payload_type: self.payload_type,
        };
        header.put(&mut out, &self.payload);
        // The only field that Header takes for granted.
        out[36..40].copy_from_slice(&self.schema_version.to_be_bytes());
        out.freeze()
    }

    /// Takes one whole WebSocket message apart and checks its digest, as the real agent does.
    pub fn decode(raw: &Bytes) -> Result<Self, WireError> {
        let (header, _) = check(raw)?;
        Ok(Self {
            kind: kind_of(raw).ok_or(WireError::Kind)?.to_owned(),
            schema_version: u32_at(header, 36),
            created_ms: u64_at(header, 40),
            sequence: u64_at(header, 48).cast_signed(),
            flags: u64_at(header, 56),
            id: Uuid::from_u64_pair(u64_at(header, 72), u64_at(header, 64)),
            payload_type: u32_at(header, 112),
            payload: raw.slice(PAYLOAD_OFFSET..),
        })
    }
}

/// Header and payload of a whole message whose lengths and digest are right.
pub(crate) fn check(raw: &[u8]) -> Result<(&[u8; PAYLOAD_OFFSET], &[u8]), WireError> {
    let (header, payload) = raw
        .split_first_chunk()
        .ok_or(WireError::Truncated(raw.len()))?;
    let header_length = u32_at(header, 0);
    if header_length != HEADER_LENGTH {
        return Err(WireError::HeaderLength(header_length));
    }
    let length = u32_at(header, 116) as usize;
    if payload.len() < length {
        return Err(WireError::Truncated(raw.len()));
    }
    if payload.len() > length {
        return Err(WireError::Trailing(payload.len() - length));
    }
    if Sha256::digest(payload)[..] != header[80..112] {
        return Err(WireError::Digest);
    }
    Ok((header, payload))
}

/// The fields of a message in schema version 1, without its payload.
pub(crate) struct Header<'a> {
    pub(crate) kind: &'a str,
    pub(crate) created_ms: u64,
    pub(crate) sequence: i64,
    pub(crate) flags: u64,
    pub(crate) id: Uuid,
    pub(crate) payload_type: u32,
}

impl Header<'_> {
    /// Writes the whole message behind what `out` holds.
    pub(crate) fn put(&self, out: &mut BytesMut, payload: &[u8]) {
        out.reserve(PAYLOAD_OFFSET + payload.len());
        out.put_u32(HEADER_LENGTH);
        let mut kind = [b' '; 32];
        let length = self.kind.len().min(32);
        kind[..length].copy_from_slice(&self.kind.as_bytes()[..length]);
        out.put_slice(&kind);
        out.put_u32(1);
        out.put_u64(self.created_ms);
        out.put_i64(self.sequence);
        out.put_u64(self.flags);
        let (high, low) = self.id.as_u64_pair();
        out.put_u64(low);
        out.put_u64(high);
        out.put_slice(&Sha256::digest(payload));
        out.put_u32(self.payload_type);
        out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        out.put_slice(payload);
    }
}

/// Whether an encoded message is one of a sequence: stream data of either side.
pub(crate) fn is_stream_data(raw: &[u8]) -> bool {
    is_kind(raw, INPUT) || is_kind(raw, OUTPUT)
}

/// Reads the acknowledgement of an `output_stream_data`, given its payload: sequence number and id.
/// What stands exactly as every capture has it is read without a JSON parser, because there is one
/// for every message that was sent.
pub(crate) fn read_ack(payload: &[u8]) -> Result<(i64, Uuid), &'static str> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Content<'a> {
        acknowledged_message_type: &'a str,
        acknowledged_message_id: &'a str,
        acknowledged_message_sequence_number: i64,
    }
    if let Some(ack) = read_usual_ack(payload) {
        return Ok(ack);
    }
    let content: Content<'_> =
        serde_json::from_slice(payload).map_err(|_| "acknowledgement is not readable")?;
    if content.acknowledged_message_type != OUTPUT {
        return Err("acknowledges something else than output_stream_data");
    }
    let id = Uuid::parse_str(content.acknowledged_message_id)
        .map_err(|_| "acknowledged id is not a UUID")?;
    Ok((content.acknowledged_message_sequence_number, id))
}

fn read_usual_ack(payload: &[u8]) -> Option<(i64, Uuid)> {
    const BEGIN: &[u8] = b"{\"AcknowledgedMessageType\":\"output_stream_data\",\
        \"AcknowledgedMessageId\":\"";
    const MIDDLE: &[u8] = b"\",\"AcknowledgedMessageSequenceNumber\":";
    const END: &[u8] = b",\"IsSequentialMessage\":true}";
    let rest = payload.strip_prefix(BEGIN)?;
    let (id, rest) = rest.split_at_checked(36)?;
    let digits = rest.strip_prefix(MIDDLE)?.strip_suffix(END)?;
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    Some((number, Uuid::try_parse_ascii(id).ok()?))
}

/// The type of an encoded message, padding removed; `None` when the bytes are too few or not text.
pub fn kind_of(raw: &[u8]) -> Option<&str> {
    let field = raw.get(4..36)?;
    let padding = field.iter().rev().take_while(|b| matches!(b, b' ' | 0));
    let length = field.len() - padding.count();
    std::str::from_utf8(&field[..length]).ok()
}

/// Whether an encoded message starts like one of the type `kind`; cheaper than [`kind_of`].
pub(crate) fn is_kind(raw: &[u8], kind: &str) -> bool {
    raw.get(4..36).is_some_and(|field| {
        field.starts_with(kind.as_bytes()) && matches!(field.get(kind.len()), Some(b' ' | 0) | None)
    })
}

/// A version 4 UUID to look at. Asking the system for randomness per message costs more than the
/// rest of the message, so they count up from one that is random.
pub(crate) fn fresh_id() -> Uuid {
    static FIRST: OnceLock<(u64, u64)> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (high, low) = *FIRST.get_or_init(|| Uuid::new_v4().as_u64_pair());
    // The top two bits of the low half tell the variant; the sum must not carry into them.
    let sum = low.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
    Uuid::from_u64_pair(high, sum & (u64::MAX >> 2) | 1 << 63)
}

fn u32_at(header: &[u8; PAYLOAD_OFFSET], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&header[at..at + 4]);
    u32::from_be_bytes(field)
}

fn u64_at(header: &[u8; PAYLOAD_OFFSET], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&header[at..at + 8]);
    u64::from_be_bytes(field)
}

/// Milliseconds since 1970 on the wall clock.
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_cut() {
        let mut message = Message::new(INPUT, payload::OUTPUT, Bytes::from_static(b"hello"));
        message.sequence = 7;
        let raw = message.encode();
        assert_eq!(Message::decode(&raw), Ok(message));
        for end in 0..raw.len() {
            let error = Message::decode(&raw.slice(..end)).unwrap_err();
            assert_eq!(error, WireError::Truncated(end));
        }
    }

    #[test]
    fn acknowledgements_are_read_in_the_usual_and_in_any_other_spelling() {
        let mut message = Message::new(OUTPUT, 1, Bytes::new());
        for sequence in [0, 7, 1_234_567_890_123] {
            message.sequence = sequence;
            let usual = Message::ack(&message).payload;
            assert_eq!(read_usual_ack(&usual), Some((sequence, message.id)));
            assert_eq!(read_ack(&usual), Ok((sequence, message.id)));
            let value: serde_json::Value = serde_json::from_slice(&usual).unwrap();
            let other = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(read_usual_ack(other.as_bytes()), None);
            assert_eq!(read_ack(other.as_bytes()), Ok((sequence, message.id)));
            for end in 0..usual.len() {
                assert!(read_ack(&usual[..end]).is_err());
            }
        }
        message.kind = INPUT.to_owned();
        assert!(read_ack(&Message::ack(&message).payload).is_err());
    }

    #[test]
    fn identities_differ_and_are_version_4() {
        let ids: Vec<Uuid> = (0..1000).map(|_| fresh_id()).collect();
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
        assert!(
            ids.iter()
                .all(|id| id.get_variant() == uuid::Variant::RFC4122)
        );
    }

    #[test]
    fn types_are_found_with_either_padding() {
        let mut raw = Message::new(ACKNOWLEDGE, 0, Bytes::new()).encode().to_vec();
        assert!(is_kind(&raw, ACKNOWLEDGE) && !is_kind(&raw, "acknow"));
        raw[4 + ACKNOWLEDGE.len()..36].fill(0);
        assert!(is_kind(&raw, ACKNOWLEDGE));
        assert_eq!(kind_of(&raw), Some(ACKNOWLEDGE));
        assert!(!is_kind(&raw[..20], ACKNOWLEDGE));
    }

    #[test]
    fn damage_is_named() {
        let raw = Message::new(INPUT, 1, Bytes::from_static(b"hello")).encode();
        let with = |at: usize, byte: u8| {
            let mut copy = raw.to_vec();
            copy[at] = byte;
            Message::decode(&Bytes::from(copy)).unwrap_err()
        };
        assert_eq!(with(3, 117), WireError::HeaderLength(117));
        assert_eq!(with(4, 0xff), WireError::Kind);
        assert_eq!(with(124, b'a'), WireError::Digest);
        let mut longer = raw.to_vec();
        longer.push(0);
        assert_eq!(Message::decode(&longer.into()), Err(WireError::Trailing(1)));
    }
}
