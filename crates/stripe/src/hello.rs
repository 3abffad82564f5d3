//! First bytes of a carrier in both directions.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::StripeError;
use crate::frame::{MAX_TEXT, clip};

/// Version of the protocol.
pub const VERSION: u8 = 1;
/// Maximum number of subflows of a bundle.
pub const MAX_SUBFLOWS: u8 = 32;
/// First bytes of each direction of a carrier.
const MAGIC: [u8; 4] = *b"pgSR";
/// Bytes of a hello before its options.
const HELLO_LEN: usize = 27;
/// Bytes of a reply before its text.
const REPLY_LEN: usize = 8;

/// Random name of a bundle, and the only proof that a carrier belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BundleId([u8; 16]);

impl BundleId {
    /// Creates an id from random bytes.
    #[must_use]
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Returns the bytes, for a comparison in constant time.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Shows nothing of the id: whoever knows it can join the bundle.
impl fmt::Debug for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleId(…)")
    }
}

/// First bytes of the client:
/// `magic [4] | version u8 | flags u8 | bundle [16] | index u8 | generation u16 | length u16 |
/// options`. All numbers of the protocol are big-endian. Version 1 defines no flags and no options,
/// and ignores both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The bundle that the carrier belongs to.
    pub bundle: BundleId,
    /// Index of the subflow, below [`MAX_SUBFLOWS`].
    pub index: u8,
    /// Number of carriers that this subflow has had, from 1 on.
    pub generation: u16,
}

impl Hello {
    /// Encodes the hello.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HELLO_LEN);
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(0);
        out.put_slice(&self.bundle.0);
        out.put_u8(self.index);
        out.put_u16(self.generation);
        out.put_u16(0);
        out.freeze()
    }

    /// Decodes a hello from the first bytes of a carrier. Returns it with its length; `None`: more
    /// bytes are needed.
    ///
    /// # Errors
    /// [`StripeError::Magic`], [`StripeError::Version`] or [`StripeError::Index`], as soon as the
    /// bytes show it.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, StripeError> {
        check_version(bytes)?;
        let Some(head) = bytes.first_chunk::<HELLO_LEN>() else {
            return Ok(None);
        };
        let mut bundle = [0; 16];
        bundle.copy_from_slice(&head[6..22]);
        let hello = Self {
            bundle: BundleId(bundle),
            index: head[22],
            generation: u16::from_be_bytes([head[23], head[24]]),
        };
        if hello.index >= MAX_SUBFLOWS {
            return Err(StripeError::Index(hello.index));
        }
        let length = HELLO_LEN + usize::from(u16::from_be_bytes([head[25], head[26]]));
        Ok((bytes.len() >= length).then_some((hello, length)))
    }
}

/// First bytes of the relay: `magic [4] | version u8 | status u8 | length u16 | text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloReply {
    /// The carrier is part of its bundle.
    Accepted,
    /// The relay closes the carrier, for this reason.
    Refused(String),
}

impl HelloReply {
    /// Encodes the reply. A text longer than [`MAX_TEXT`] is cut.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (status, text) = match self {
            Self::Accepted => (0, ""),
            Self::Refused(text) => (1, clip(text)),
        };
        let mut out = BytesMut::with_capacity(REPLY_LEN + text.len());
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(status);
        out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        out.put_slice(text.as_bytes());
        out.freeze()
    }

    /// Decodes a reply from the first bytes of a carrier. Returns it with its length; `None`: more
    /// bytes are needed. The text of a refusal is taken whatever the version.
    ///
    /// # Errors
    /// [`StripeError::Magic`] or [`StripeError::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, StripeError> {
        check_magic(bytes)?;
        let Some(&[.., version, status, high, low]) = bytes.first_chunk::<REPLY_LEN>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if status == 0 && version != VERSION {
            return Err(StripeError::Version(version));
        }
        let length = length.min(MAX_TEXT);
        let Some(text) = bytes.get(REPLY_LEN..REPLY_LEN + length) else {
            return Ok(None);
        };
        let reply = match status {
            0 => Self::Accepted,
            _ => Self::Refused(String::from_utf8_lossy(text).into_owned()),
        };
        Ok(Some((reply, REPLY_LEN + length)))
    }
}

fn check_magic(bytes: &[u8]) -> Result<(), StripeError> {
    let known = bytes.len().min(MAGIC.len());
    match bytes[..known] == MAGIC[..known] {
        true => Ok(()),
        false => Err(StripeError::Magic),
    }
}

fn check_version(bytes: &[u8]) -> Result<(), StripeError> {
    check_magic(bytes)?;
    match bytes.get(MAGIC.len()) {
        Some(&version) if version != VERSION => Err(StripeError::Version(version)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        bundle: BundleId([9; 16]),
        index: 3,
        generation: 2,
    };

    #[test]
    fn a_hello_is_read_from_any_prefix() {
        let mut bytes = HELLO.encode().to_vec();
        for cut in 0..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(Hello::decode(&bytes), Ok(Some((HELLO, bytes.len()))));
        // Options of a later client.
        let last = bytes.len() - 1;
        bytes[last] = 5;
        bytes.extend_from_slice(b"abcd");
        assert_eq!(Hello::decode(&bytes), Ok(None));
        bytes.extend_from_slice(b"e and frames");
        assert_eq!(Hello::decode(&bytes), Ok(Some((HELLO, HELLO_LEN + 5))));
    }

    #[test]
    fn other_protocols_and_versions_are_told_at_once() {
        assert_eq!(Hello::decode(b"G"), Err(StripeError::Magic));
        assert_eq!(Hello::decode(b"pgSR\x02"), Err(StripeError::Version(2)));
        let mut bytes = HELLO.encode().to_vec();
        bytes[22] = MAX_SUBFLOWS;
        assert_eq!(Hello::decode(&bytes), Err(StripeError::Index(MAX_SUBFLOWS)));
        assert_eq!(HelloReply::decode(b"SSH-2.0"), Err(StripeError::Magic));
    }

    #[test]
    fn a_refusal_has_words_in_any_version() {
        for reply in [
            HelloReply::Accepted,
            HelloReply::Refused("too many sessions".to_owned()),
        ] {
            let bytes = reply.encode();
            for cut in 0..bytes.len() {
                assert_eq!(HelloReply::decode(&bytes[..cut]), Ok(None), "{cut}");
            }
            assert_eq!(
                HelloReply::decode(&bytes),
                Ok(Some((reply.clone(), bytes.len())))
            );
        }
        let later = b"pgSR\x02\x01\x00\x03old";
        let refused = HelloReply::Refused("old".to_owned());
        assert_eq!(HelloReply::decode(later), Ok(Some((refused, later.len()))));
        let accepted = b"pgSR\x02\x00\x00\x00";
        assert_eq!(HelloReply::decode(accepted), Err(StripeError::Version(2)));
        assert_eq!(format!("{:?}", HELLO.bundle), "BundleId(…)");
    }
}
