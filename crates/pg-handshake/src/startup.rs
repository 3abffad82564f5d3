//! StartupMessage as raw bytes: order, duplicates and encodings of the parameters stay as sent.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::split_cstring;

/// Largest startup packet without its length word, in bytes: `MAX_STARTUP_PACKET_LENGTH` of
/// `pqcomm.h`, compared by `ProcessStartupPacket` after subtracting the length word. So a length
/// word may say up to 10,004 (tried: PostgreSQL 15 takes 10,004 and drops 10,005).
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// Length word and protocol version: the shortest packet of the startup phase.
pub(crate) const MIN_LENGTH: usize = 8;
/// The largest value of the length word.
pub(crate) const MAX_LENGTH: usize = MAX_STARTUP_PACKET + 4;

/// Prefix of the names of protocol options ("Start-up" in "Message Flow"); all other names are
/// run-time parameters.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

/// Protocol version of a startup packet. The minor number is carried unchanged: server and client
/// negotiate it with NegotiateProtocolVersion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// Upper 16 bits; only 3 exists today.
    pub major: u16,
    /// Lower 16 bits; 0, 2, or an invented number to test negotiation, such as 9999.
    pub minor: u16,
}

impl ProtocolVersion {
    /// Protocol 3.0, spoken by every server since 7.4.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// Protocol 3.2 (PostgreSQL 18: longer cancel keys).
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    pub(crate) fn from_code(code: u32) -> Self {
        let [a, b, c, d] = code.to_be_bytes();
        Self {
            major: u16::from_be_bytes([a, b]),
            minor: u16::from_be_bytes([c, d]),
        }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Error in a packet of the startup phase, or in a change to one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length word is outside 8..=10,004, or the packet's length differs from it.
    #[error("invalid length of startup packet: {length}")]
    InvalidLength {
        /// The length word, or the packet's length if that is wrong.
        length: usize,
    },
    /// The protocol's major number is not 3.
    #[error("unsupported frontend protocol {0}: this proxy supports 3.0 and later minor versions")]
    UnsupportedProtocol(ProtocolVersion),
    /// The parameter list does not end exactly at the packet's last byte.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// The new parameter has an empty name, or a zero byte in name or value.
    #[error(
        "invalid startup parameter: the name is empty, or the name or value contains a zero byte"
    )]
    InvalidParameter,
    /// With the new parameter the packet would exceed the server's limit.
    #[error("the startup packet would have {length} bytes; servers accept at most {MAX_LENGTH}")]
    TooLarge {
        /// The length word the packet would have.
        length: usize,
    },
    /// The code of a CancelRequest is not 80877102.
    #[error("not a cancel request")]
    NotCancelRequest,
    /// A cancel key outside 4..=256 bytes.
    #[error("invalid cancel request: the key has {length} bytes")]
    CancelKeyLength {
        /// Length of the secret in bytes.
        length: usize,
    },
}

/// A StartupMessage: protocol version and parameters, in the order and bytes the client sent.
///
/// The packet it encodes to is always within the server's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    version: ProtocolVersion,
    params: Vec<(Bytes, Bytes)>,
}

impl Startup {
    /// Creates a message without parameters.
    #[must_use]
    pub fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            params: Vec::new(),
        }
    }

    /// Parses one whole packet, length word included.
    ///
    /// # Errors
    /// [`StartupError::InvalidLength`], [`StartupError::UnsupportedProtocol`] or
    /// [`StartupError::Layout`], by the same rules as the server's `ProcessStartupPacket`.
    pub fn parse(packet: &[u8]) -> Result<Self, StartupError> {
        let (code, body) = split_packet(packet)?;
        let version = ProtocolVersion::from_code(code);
        if version.major != 3 {
            return Err(StartupError::UnsupportedProtocol(version));
        }
        let mut params = Vec::new();
        let mut rest = body;
        loop {
            let (name, after) = split_cstring(rest).ok_or(StartupError::Layout)?;
            if name.is_empty() {
                return if after.is_empty() {
                    Ok(Self { version, params })
                } else {
                    Err(StartupError::Layout)
                };
            }
            let (value, after) = split_cstring(after).ok_or(StartupError::Layout)?;
            params.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
            rest = after;
        }
    }

    /// Returns the requested protocol version.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Returns the value of a parameter; of duplicates the last, as the server does.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .params
            .iter()
            .rfind(|(have, _)| have == name.as_bytes());
        found.map(|(_, value)| value.as_ref())
    }

    /// Sets a parameter to one value: in place of the first of that name, or at the end. Other
    /// parameters of the name are removed, so that no reader can see another value.
    ///
    /// # Errors
    /// [`StartupError::InvalidParameter`] or [`StartupError::TooLarge`]; the message is unchanged
    /// then.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), StartupError> {
        if name.is_empty() || name.as_bytes().contains(&0) || value.contains(&0) {
            return Err(StartupError::InvalidParameter);
        }
        let same: usize = (self.params.iter())
            .filter(|(have, _)| have == name.as_bytes())
            .map(|(have, value)| have.len() + value.len() + 2)
            .sum();
        let length = self.encoded_len() - same + name.len() + value.len() + 2;
        if length > MAX_LENGTH {
            return Err(StartupError::TooLarge { length });
        }
        let value = Bytes::copy_from_slice(value);
        let is_same = |(have, _): &(Bytes, Bytes)| have == name.as_bytes();
        match self.params.iter().position(is_same) {
            None => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                self.params.push((name, value));
            }
            Some(first) => {
                let behind = self.params.split_off(first + 1);
                self.params[first].1 = value;
                let others = behind.into_iter().filter(|param| !is_same(param));
                self.params.extend(others);
            }
        }
        Ok(())
    }

    /// Removes every parameter of that name; returns true if there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.params.len();
        self.params.retain(|(have, _)| have != name.as_bytes());
        self.params.len() < before
    }

    /// Converts the message to protocol 3.0 for a server that refuses newer versions (RDS Proxy):
    /// the version becomes 3.0, and protocol options (names that begin with `_pq_.`) are removed.
    ///
    /// Returns the NegotiateProtocolVersion frame that the client must get before any
    /// authentication request: the newest version and the removed names in order, as
    /// `SendNegotiateProtocolVersion` (`backend_startup.c`) sends it. `None` when nothing changed;
    /// clients refuse a negotiation that requests no change (`pqGetNegotiateProtocolVersion3`).
    pub fn downgrade(&mut self) -> Option<Bytes> {
        let before = self.version;
        self.version = ProtocolVersion::V3_0;
        let (options, kept) = std::mem::take(&mut self.params)
            .into_iter()
            .partition::<Vec<_>, _>(|(name, _)| name.starts_with(PROTOCOL_OPTION));
        self.params = kept;
        (before != self.version || !options.is_empty()).then(|| negotiate(self.version, &options))
    }

    /// Iterates over all parameters in order, as raw bytes.
    pub fn params(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.params
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Returns the length of the encoded packet, which is also its length word.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let params = self.params.iter();
        let params: usize = params
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        MIN_LENGTH + params + 1
    }

    /// Encodes the packet, length word included. A parsed message encodes to the bytes it came
    /// from.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let length = self.encoded_len();
        let mut packet = BytesMut::with_capacity(length);
        put_length(&mut packet, length);
        packet.put_u16(self.version.major);
        packet.put_u16(self.version.minor);
        for (name, value) in &self.params {
            packet.put_slice(name);
            packet.put_u8(0);
            packet.put_slice(value);
            packet.put_u8(0);
        }
        packet.put_u8(0);
        packet.freeze()
    }
}

/// Builds NegotiateProtocolVersion: the newest version as one Int32 (`PG_PROTOCOL(3,0)`, not the
/// minor number alone as "Message Formats" said before PostgreSQL 18), then the names not
/// recognized.
fn negotiate(newest: ProtocolVersion, options: &[(Bytes, Bytes)]) -> Bytes {
    let names: usize = options.iter().map(|(name, _)| name.len() + 1).sum();
    let length = 4 + 4 + 4 + names;
    let mut frame = BytesMut::with_capacity(1 + length);
    frame.put_u8(b'v');
    put_length(&mut frame, length);
    frame.put_u16(newest.major);
    frame.put_u16(newest.minor);
    put_length(&mut frame, options.len());
    for (name, _) in options {
        frame.put_slice(name);
        frame.put_u8(0);
    }
    frame.freeze()
}

/// Splits a whole packet of the startup phase into its code and the bytes after it.
pub(crate) fn split_packet(packet: &[u8]) -> Result<(u32, &[u8]), StartupError> {
    let wrong = StartupError::InvalidLength {
        length: packet.len(),
    };
    let Some((head, body)) = packet.split_first_chunk::<MIN_LENGTH>() else {
        return Err(wrong);
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    if u32::from_be_bytes([l0, l1, l2, l3]) as usize != packet.len() || packet.len() > MAX_LENGTH {
        return Err(wrong);
    }
    Ok((u32::from_be_bytes([c0, c1, c2, c3]), body))
}

/// Writes a length word or a count. All of them are far below 2³² here.
pub(crate) fn put_length(packet: &mut BytesMut, length: usize) {
    packet.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}
