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

/// What the names of protocol options begin with ("Start-up" in "Message Flow"); everything else is a
/// run-time parameter.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

/// The protocol version of a startup packet. The minor number is carried as it is: servers and
/// clients agree on one with NegotiateProtocolVersion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// Upper 16 bits; only 3 exists today.
    pub major: u16,
    /// Lower 16 bits; 0, 2, or a number made up to test negotiation, such as 9999.
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

/// Why a packet of the startup phase is not acceptable, or a change to one is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length word is outside 8..=10,004, or a whole packet is not as long as it says.
    #[error("invalid length of startup packet: {length}")]
    InvalidLength {
        /// The length word, or the packet's length where that is what is wrong.
        length: usize,
    },
    /// The protocol's major number is not 3.
    #[error(
        "unsupported frontend protocol {0}: this proxy speaks 3.0 and its later minor versions"
    )]
    UnsupportedProtocol(ProtocolVersion),
    /// The parameter list does not end exactly at the packet's last byte.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A parameter to be set has an empty name, or a zero byte in name or value.
    #[error("a startup parameter needs a name, and neither it nor its value may hold a zero byte")]
    InvalidParameter,
    /// With the parameter to be set the packet would be longer than servers take.
    #[error(
        "startup packet would be {length} bytes long, more than the {MAX_LENGTH} a server takes"
    )]
    TooLarge {
        /// The length word it would have.
        length: usize,
    },
    /// A CancelRequest whose code is not 80877102.
    #[error("not a cancel request")]
    NotCancelRequest,
    /// A cancel key outside 4..=256 bytes.
    #[error("invalid length of cancel request: a key of {length} bytes")]
    CancelKeyLength {
        /// Bytes of the secret.
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
    /// A message without parameters.
    #[must_use]
    pub fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            params: Vec::new(),
        }
    }

    /// Reads one whole packet, length word included.
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

    /// The protocol version asked for.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The value of a parameter; of several with one name the last, as the server does.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .params
            .iter()
            .rfind(|(have, _)| have == name.as_bytes());
        found.map(|(_, value)| value.as_ref())
    }

    /// Gives a parameter one value: in place of the first of that name (others of the name go, so
    /// that no reader can see another value), or at the end.
    ///
    /// # Errors
    /// [`StartupError::InvalidParameter`] or [`StartupError::TooLarge`]; nothing changed then.
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

    /// Takes every parameter of that name out; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.params.len();
        self.params.retain(|(have, _)| have != name.as_bytes());
        self.params.len() < before
    }

    /// Makes it a message of protocol 3.0 for a server that knows no other and refuses what it does
    /// not know (RDS Proxy): the version becomes 3.0, and the parameters whose names begin with
    /// `_pq_.`, which are options of the protocol, are taken out.
    ///
    /// Gives the NegotiateProtocolVersion frame that the client must get before any authentication
    /// request: the newest version and the names taken out, in their order, just as
    /// `SendNegotiateProtocolVersion` (`backend_startup.c`) would say it. `None` when nothing changed;
    /// clients refuse a negotiation that asks for nothing (`pqGetNegotiateProtocolVersion3`).
    pub fn downgrade(&mut self) -> Option<Bytes> {
        let before = self.version;
        self.version = ProtocolVersion::V3_0;
        let (options, kept) = std::mem::take(&mut self.params)
            .into_iter()
            .partition::<Vec<_>, _>(|(name, _)| name.starts_with(PROTOCOL_OPTION));
        self.params = kept;
        (before != self.version || !options.is_empty()).then(|| negotiate(self.version, &options))
    }

    /// All parameters in order, as raw bytes.
    pub fn params(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.params
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The length of the encoded packet, which is also its length word.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let params = self.params.iter();
        let params: usize = params
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        MIN_LENGTH + params + 1
    }

    /// The packet to send, length word included. A parsed message gives back the bytes it came from.
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

/// NegotiateProtocolVersion: the newest version as one Int32 (`PG_PROTOCOL(3,0)`, not the minor number
/// alone as "Message Formats" said before PostgreSQL 18), then the names not recognized.
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

/// Splits a whole packet of the startup phase into its code and what follows it.
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
