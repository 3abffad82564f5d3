//! Parses the two messages of a SCRAM client (RFC 5802, 7) like PostgreSQL
//! (`src/backend/libpq/auth-scram.c`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{END_POINT, ScramError};

/// Channel binding flag, the first field of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelBindingFlag {
    /// `n`: the client does not support binding.
    Cannot,
    /// `y`: it does, and believes that the server does not.
    BelievesServerCannot,
    /// `p=tls-server-end-point`: it uses binding.
    Binds,
}

impl ChannelBindingFlag {
    /// Returns the GS2 header, which the final message repeats. An authorization identity would be
    /// part of it, and is refused.
    pub(super) fn header(self) -> &'static [u8] {
        match self {
            Self::Cannot => b"n,,",
            Self::BelievesServerCannot => b"y,,",
            Self::Binds => b"p=tls-server-end-point,,",
        }
    }
}

/// `client-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: ChannelBindingFlag,
    /// Everything after the GS2 header: part of the text both sides sign.
    pub(super) bare: &'a [u8],
    /// Printable ASCII without a comma.
    pub(super) nonce: &'a [u8],
}

/// `client-final-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    /// The value of `c`, still in base64.
    pub(super) binding: &'a [u8],
    pub(super) nonce: &'a [u8],
    /// Part of the text both sides sign.
    pub(super) without_proof: &'a [u8],
    pub(super) proof: [u8; 32],
}

pub(super) fn first(message: &[u8]) -> Result<ClientFirst<'_>, ScramError> {
    let mut rest = UnreadAttributes(message);
    let flag = match rest.0.first() {
        Some(b'n') => ChannelBindingFlag::Cannot,
        Some(b'y') => ChannelBindingFlag::BelievesServerCannot,
        Some(b'p') => {
            if rest.value_of(b'p')? != END_POINT.as_bytes() {
                return Err(ScramError::BindingType);
            }
            ChannelBindingFlag::Binds
        }
        _ => return Err(ScramError::Malformed("unexpected channel-binding flag")),
    };
    if flag != ChannelBindingFlag::Binds {
        rest.0 = &rest.0[1..];
        rest.comma()?;
    }
    match rest.0.first() {
        Some(b'a') => return Err(ScramError::Unsupported("an authorization identity")),
        _ => rest.comma()?,
    }
    let bare = rest.0;
    if bare.first() == Some(&b'm') {
        return Err(MANDATORY);
    }
    // Ignored: the user is the one in the startup message.
    rest.value_of(b'n')?;
    let nonce = rest.value_of(b'r')?;
    if nonce.is_empty() || !nonce.iter().all(u8::is_ascii_graphic) {
        return Err(ScramError::Malformed("the nonce is not printable"));
    }
    while !rest.0.is_empty() {
        rest.extension()?;
    }
    Ok(ClientFirst { flag, bare, nonce })
}

pub(super) fn last(message: &[u8]) -> Result<ClientFinal<'_>, ScramError> {
    let mut rest = UnreadAttributes(message);
    let binding = rest.value_of(b'c')?;
    let nonce = rest.value_of(b'r')?;
    let mut before = rest.0;
    while before.first() != Some(&b'p') {
        rest.extension()?;
        before = rest.0;
    }
    // Without the comma before the proof.
    let without_proof = &message[..message.len() - before.len() - 1];
    let proof = rest.value_of(b'p')?;
    let proof = STANDARD
        .decode(proof)
        .ok()
        .and_then(|proof| proof.try_into().ok())
        .ok_or(ScramError::Malformed("the proof is not 32 bytes in base64"))?;
    if !rest.0.is_empty() {
        return Err(ScramError::Malformed("unexpected data after the proof"));
    }
    Ok(ClientFinal {
        binding,
        nonce,
        without_proof,
        proof,
    })
}

const MANDATORY: ScramError = ScramError::Unsupported("a mandatory extension of SCRAM");

/// Unread rest of a message.
struct UnreadAttributes<'a>(&'a [u8]);

impl<'a> UnreadAttributes<'a> {
    fn comma(&mut self) -> Result<(), ScramError> {
        self.0 = self
            .0
            .strip_prefix(b",")
            .ok_or(ScramError::Malformed("missing comma"))?;
        Ok(())
    }

    /// Returns the value of the next attribute, which must be `name`.
    fn value_of(&mut self, name: u8) -> Result<&'a [u8], ScramError> {
        if self.0.first() != Some(&name) {
            return Err(ScramError::Malformed("missing or misplaced attribute"));
        }
        self.value()
    }

    /// Parses any attribute. All are ignored except a mandatory extension, which is refused.
    fn extension(&mut self) -> Result<(), ScramError> {
        match self.0.first() {
            Some(b'm') => Err(MANDATORY),
            Some(name) if name.is_ascii_alphabetic() => self.value().map(drop),
            _ => Err(ScramError::Malformed("missing attribute")),
        }
    }

    /// Returns the value after `x=`, up to the end or a comma, which is consumed.
    fn value(&mut self) -> Result<&'a [u8], ScramError> {
        let Some([_, b'=']) = self.0.first_chunk::<2>() else {
            return Err(ScramError::Malformed("an attribute has no value"));
        };
        let behind = &self.0[2..];
        let end = behind
            .iter()
            .position(|byte| *byte == b',')
            .unwrap_or(behind.len());
        self.0 = behind.get(end + 1..).unwrap_or_default();
        Ok(&behind[..end])
    }
}
