//! Sequence numbers and ids of messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Position of a data message in its direction, counted from 0. A signed 64-bit number on the wire;
/// decoding refuses negative ones.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// The first data message of a direction.
    pub const FIRST: Self = Self(0);

    /// Creates a sequence number from its value on the wire.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        // 2^63 messages do not happen; wrapping keeps hostile input from panicking.
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The UUID of one message. Shown in the usual text form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(u128);

impl MessageId {
    /// Creates an id from the UUID's 128 bits, first text digit highest.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the UUID's 128 bits, first text digit highest.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Returns the usual text form.
    pub(crate) const fn to_text(self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = self.0.to_be_bytes();
        let mut text = [b'-'; 36];
        let mut at = 0;
        let mut n = 0;
        while n < 16 {
            if matches!(n, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = DIGITS[(bytes[n] >> 4) as usize];
            text[at + 1] = DIGITS[(bytes[n] & 0xF) as usize];
            at += 2;
            n += 1;
        }
        text
    }

    /// Parses the usual text form, digits of either case.
    pub(crate) fn from_text(text: &[u8; 36]) -> Option<Self> {
        let mut bits = 0_u128;
        for (place, byte) in text.iter().enumerate() {
            if matches!(place, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'A'..=b'F' => byte - b'A' + 10,
                _ => return None,
            };
            bits = bits << 4 | u128::from(digit);
        }
        Some(Self(bits))
    }

    /// Returns the 16 bytes in a message: the UUID's last eight bytes come first.
    pub const fn to_wire(self) -> [u8; 16] {
        self.0.rotate_left(64).to_be_bytes()
    }

    /// The inverse of [`MessageId::to_wire`].
    pub const fn from_wire(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes).rotate_left(64))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        // Digits and hyphens only.
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Error for a text that is not a UUID in its hyphenated form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of the form 01234567-89ab-cdef-0123-456789abcdef")]
pub struct ParseIdError;

impl FromStr for MessageId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let text = text.as_bytes().try_into().map_err(|_| ParseIdError)?;
        Self::from_text(text).ok_or(ParseIdError)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Generates message ids in the form of random (version 4) UUIDs.
///
/// Ids need to be distinct, not secret, so a counter through the splitmix64 finaliser is enough:
/// one counter per half, each of which repeats only after 2^64 ids. The seed distinguishes two
/// sessions.
#[derive(Debug, Clone)]
pub struct IdSource {
    high: u64,
    low: u64,
}

impl IdSource {
    /// Creates a source with ids that depend only on `seed`.
    pub const fn new(seed: u128) -> Self {
        Self {
            high: (seed >> 64) as u64,
            low: seed as u64,
        }
    }

    /// Returns a new id.
    pub fn next_id(&mut self) -> MessageId {
        self.high = self.high.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.low = self.low.wrapping_add(0xD1B5_4A32_D192_ED03);
        let bits = u128::from(mix(self.high)) << 64 | u128::from(mix(self.low));
        // RFC 9562, section 5.4: version nibble 4, variant bits 10.
        let version = bits & !(0xF << 76) | 0x4 << 76;
        MessageId(version & !(0b11 << 62) | 0b10 << 62)
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_form_of_a_captured_id() {
        // From the capture: the ack names the first, the message carried the second.
        let text = "e2b600b9-d065-43c3-95b0-048b7be6704f";
        let wire = 0x95b0_048b_7be6_704f_e2b6_00b9_d065_43c3_u128.to_be_bytes();
        let id: MessageId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.to_wire(), wire);
        assert_eq!(MessageId::from_wire(wire), id);
    }

    #[test]
    fn odd_texts_are_not_ids() {
        let good = "e2b600b9-d065-43c3-95b0-048b7be6704f";
        for cut in 0..good.len() {
            assert_eq!(good[..cut].parse::<MessageId>(), Err(ParseIdError), "{cut}");
        }
        for bad in [
            "e2b600b9d06543c395b0048b7be6704f",
            "e2b600b9-d065-43c3-95b0-048b7be6704f-",
            "+2b600b9-d065-43c3-95b0-048b7be6704f",
            "e2b600b9-d065-43c3-95b0-048b7be6704g",
        ] {
            assert_eq!(bad.parse::<MessageId>(), Err(ParseIdError), "{bad}");
        }
        assert_eq!(good.to_uppercase().parse::<MessageId>(), good.parse());
    }

    #[test]
    fn ids_have_the_shape_of_version_4_and_differ() {
        let mut seen = std::collections::HashSet::new();
        let mut halves = std::collections::HashSet::new();
        for seed in [0, 1, 1 << 64, u128::MAX] {
            let mut source = IdSource::new(seed);
            for _ in 0..10_000 {
                let id = source.next_id();
                let text = id.to_string();
                assert_eq!(&text[14..15], "4", "{text}");
                assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
                assert!(seen.insert(id), "{text}");
                if seed == 1 {
                    assert!(halves.insert((id.get() >> 64) as u64), "{text}");
                    assert!(halves.insert(id.get() as u64), "{text}");
                }
            }
        }
    }
}
