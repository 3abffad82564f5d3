//! The cancel key of a session, and the CancelRequest that carries it.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::startup::{BackendKeyData, SecretKey};
use pgwire::messages::{DecodeContext, Message};

use crate::frame::MalformedMessage;
use crate::startup::{StartupError, put_length, split_packet};

/// `CANCEL_REQUEST_CODE` of `pqcomm.h`: 1234 and 5678 in the two halves.
pub(crate) const CANCEL_REQUEST_CODE: u32 = 80_877_102;
/// 4 bytes in protocol 3.0, up to 256 in protocol 3.2.
const SECRET_LENGTH: RangeInclusive<usize> = 4..=256;

/// Process id and secret of one server session (BackendKeyData). The key is enough to cancel the
/// session's queries, so Debug shows only the process id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pid: u32,
    secret: Bytes,
}

impl CancelKey {
    /// Creates a key from its parts.
    ///
    /// # Errors
    /// [`StartupError::CancelKeyLength`] unless the secret has 4 to 256 bytes.
    pub fn new(pid: u32, secret: Bytes) -> Result<Self, StartupError> {
        if SECRET_LENGTH.contains(&secret.len()) {
            Ok(Self { pid, secret })
        } else {
            Err(StartupError::CancelKeyLength {
                length: secret.len(),
            })
        }
    }

    /// Parses a whole CancelRequest packet, length word included.
    ///
    /// # Errors
    /// [`StartupError::InvalidLength`] when the packet contradicts its length word or has no room
    /// for the process id, [`StartupError::NotCancelRequest`] or [`StartupError::CancelKeyLength`].
    pub fn parse(packet: &[u8]) -> Result<Self, StartupError> {
        let (code, body) = split_packet(packet)?;
        if code != CANCEL_REQUEST_CODE {
            return Err(StartupError::NotCancelRequest);
        }
        let (pid, secret) = body
            .split_first_chunk::<4>()
            .ok_or(StartupError::InvalidLength {
                length: packet.len(),
            })?;
        Self::new(u32::from_be_bytes(*pid), Bytes::copy_from_slice(secret))
    }

    /// Parses a whole BackendKeyData frame; the frame cutter has checked its length.
    pub(crate) fn from_frame(frame: &[u8]) -> Result<Self, MalformedMessage> {
        let wrong = MalformedMessage {
            tag: b'K',
            what: "cannot be decoded",
        };
        // The default context is protocol 3.2, which keeps a key of any length; the 3.0 context
        // would read four bytes and drop the rest.
        let data = BackendKeyData::decode(&mut BytesMut::from(frame), &DecodeContext::default());
        let Ok(Some(BackendKeyData {
            pid,
            secret_key: SecretKey::Bytes(secret),
            ..
        })) = data
        else {
            return Err(wrong);
        };
        Self::new(pid.cast_unsigned(), secret).map_err(|_| wrong)
    }

    /// Returns the process id of the server session.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the secret, 4 to 256 bytes.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Encodes the CancelRequest packet, length word included.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let length = 12 + self.secret.len();
        let mut packet = BytesMut::with_capacity(length);
        put_length(&mut packet, length);
        packet.put_u32(CANCEL_REQUEST_CODE);
        packet.put_u32(self.pid);
        packet.put_slice(&self.secret);
        packet.freeze()
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}
