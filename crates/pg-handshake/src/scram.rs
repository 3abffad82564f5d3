//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: a local client proves that it knows
//! the password, and the server proves it to the client, without either sending it.
//!
//! RFC 5802 and 7677, channel binding `tls-server-end-point` of RFC 5929, and PostgreSQL's rules
//! where those leave a choice (PostgreSQL docs, "SASL Authentication"; `auth-scram.c` of the
//! server): the user name inside the messages is ignored, and SASLprep never fails.
//!
//! No socket, clock or random source: salt and nonce are arguments.
//!
//! ```text
//! AuthenticationSASL          ◄─ mechanisms()
//! SASLInitialResponse         ─► first(mechanism, data) ─► AuthenticationSASLContinue
//! SASLResponse                ─► last(data)             ─► AuthenticationSASLFinal, AuthenticationOk
//! ```

mod message;
mod prep;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use thiserror::Error;
use zeroize::Zeroizing;

use message::ChannelBindingFlag;

/// Mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// Mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only type of channel binding that PostgreSQL supports (RFC 5929, 4).
const END_POINT: &str = "tls-server-end-point";

/// The longest message of a client, in bytes (`PG_MAX_SASL_MESSAGE_LENGTH` of the server).
pub const LONGEST_MESSAGE: usize = 1024;

/// PostgreSQL's default (`SCRAM_SHA_256_DEFAULT_ITERATIONS`), and the minimum of RFC 7677. After a
/// recorded exchange, each guess of an attacker costs this many hashes; the password should be
/// random.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// Bytes of salt (`SCRAM_DEFAULT_SALT_LEN`).
pub const SALT: usize = 16;
/// Bytes of the server's part of the nonce, before base64 (`SCRAM_RAW_NONCE_LEN`).
pub const NONCE: usize = 18;
/// Bytes of a key: the length of a SHA-256.
const KEY: usize = digest::SHA256_OUTPUT_LEN;

/// Error of an exchange. The SQLSTATE is in parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramError {
    /// Not a SCRAM message (08P01).
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// A mechanism that was not offered (08P01).
    #[error("the client selected a SASL authentication mechanism that was not offered")]
    Mechanism,
    /// The mechanism and the message disagree about channel binding (08P01).
    #[error("the selected SASL mechanism and the SCRAM message disagree about channel binding")]
    BindingMismatch,
    /// Not `tls-server-end-point` (08P01).
    #[error("unsupported SCRAM channel-binding type: expected {END_POINT}")]
    BindingType,
    /// A message that does not belong to this exchange (08P01).
    #[error("the nonce of the SCRAM response does not match this exchange")]
    Nonce,
    /// A message when none was due (08P01).
    #[error("unexpected SCRAM message")]
    OutOfOrder,
    /// A feature that neither PostgreSQL nor this crate supports (0A000).
    #[error("the client requires {0}, which is not supported")]
    Unsupported(&'static str),
    /// The client believes that the server cannot bind, although it offered binding (28000): the
    /// offer was changed in transit.
    #[error(
        "the client did not receive this server's offer of SCRAM channel binding; possible cause: a proxy between them that changes the connection"
    )]
    Downgrade,
    /// The client is bound to a certificate other than the server's (28000).
    #[error(
        "SCRAM channel binding check failed; possible cause: a proxy between client and server that terminates TLS"
    )]
    Binding,
    /// The proof was made from another password (28P01).
    #[error("wrong password")]
    WrongPassword,
    /// The caller got no random numbers for a salt or a nonce.
    #[error("cannot get random numbers from the operating system")]
    Random,
}

/// Data derived from a password to check clients: neither the password nor enough for a client to
/// log in.
///
/// Shared by all connections; created when the program starts, with a salt that lives as long.
pub struct ScramVerifier {
    salt: [u8; SALT],
    stored_key: Zeroizing<[u8; KEY]>,
    server_key: Zeroizing<[u8; KEY]>,
}

impl ScramVerifier {
    /// Derives the keys from a password (RFC 5802, 3: `SaltedPassword`, `StoredKey`, `ServerKey`).
    /// Takes a few milliseconds. `salt` must be random.
    #[must_use]
    pub fn new(password: &str, salt: [u8; SALT]) -> Self {
        let prepared = Zeroizing::new(prep::prepare(password).into_owned());
        let mut salted = Zeroizing::new([0; KEY]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ITERATIONS,
            &salt,
            prepared.as_bytes(),
            salted.as_mut_slice(),
        );
        let client_key = Zeroizing::new(sign(&salted, &[b"Client Key"]));
        Self {
            salt,
            stored_key: Zeroizing::new(sha256(client_key.as_slice())),
            server_key: Zeroizing::new(sign(&salted, &[b"Server Key"])),
        }
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier").finish_non_exhaustive()
    }
}

/// One client's attempt to log in.
///
/// Call [`first`](Self::first), then [`last`](Self::last), each once. After an error every later
/// call returns that error.
pub struct ScramExchange {
    verifier: Arc<ScramVerifier>,
    binding: Option<Bytes>,
    state: ExchangeState,
}

enum ExchangeState {
    Start,
    /// `server-first-message` has been sent.
    Challenged {
        flag: ChannelBindingFlag,
        /// Client's and server's part together.
        nonce: Vec<u8>,
        /// `AuthMessage` so far, with its last comma.
        auth_message: Vec<u8>,
    },
    Done,
    Failed(ScramError),
}

impl ScramExchange {
    /// Begins an exchange. `binding` is the hash of the certificate shown to this client
    /// (`tls-server-end-point`), `None` without TLS.
    #[must_use]
    pub fn new(verifier: Arc<ScramVerifier>, binding: Option<Bytes>) -> Self {
        Self {
            verifier,
            binding,
            state: ExchangeState::Start,
        }
    }

    /// Returns the mechanisms for AuthenticationSASL, in order of preference.
    #[must_use]
    pub fn mechanisms(&self) -> &'static [&'static str] {
        if self.binding.is_some() {
            &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256]
        } else {
            &[SCRAM_SHA_256]
        }
    }

    /// Takes mechanism and data of the SASLInitialResponse; returns the data of the
    /// AuthenticationSASLContinue. A response without data counts as an empty message. `nonce` must be
    /// random, and new for each exchange.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn first(
        &mut self,
        mechanism: &str,
        client_first: &[u8],
        nonce: [u8; NONCE],
    ) -> Result<Vec<u8>, ScramError> {
        let server_nonce = STANDARD.encode(nonce);
        self.stepped(|this| this.challenge(mechanism, client_first, &server_nonce))
    }

    /// Takes the data of the SASLResponse; returns the data of the AuthenticationSASLFinal. `Ok`
    /// means that the client knows the password.
    ///
    /// # Errors
    /// [`ScramError`]; [`ScramError::WrongPassword`] only if everything else was correct.
    pub fn last(&mut self, client_final: &[u8]) -> Result<Vec<u8>, ScramError> {
        self.stepped(|this| this.check(client_final))
    }

    /// Makes an error stick.
    fn stepped(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Vec<u8>, ScramError>,
    ) -> Result<Vec<u8>, ScramError> {
        let result = match self.state {
            ExchangeState::Failed(error) => Err(error),
            _ => step(self),
        };
        if let Err(error) = result {
            self.state = ExchangeState::Failed(error);
        }
        result
    }

    fn challenge(
        &mut self,
        mechanism: &str,
        client_first: &[u8],
        server_nonce: &str,
    ) -> Result<Vec<u8>, ScramError> {
        if !matches!(self.state, ExchangeState::Start) {
            return Err(ScramError::OutOfOrder);
        }
        if !self.mechanisms().contains(&mechanism) {
            return Err(ScramError::Mechanism);
        }
        let client = message::first(bounded(client_first)?)?;
        match (client.flag, mechanism == SCRAM_SHA_256_PLUS) {
            (ChannelBindingFlag::Cannot, false) | (ChannelBindingFlag::Binds, true) => {}
            (ChannelBindingFlag::BelievesServerCannot, false) => {
                if self.binding.is_some() {
                    return Err(ScramError::Downgrade);
                }
            }
            (ChannelBindingFlag::Cannot | ChannelBindingFlag::BelievesServerCannot, true)
            | (ChannelBindingFlag::Binds, false) => {
                return Err(ScramError::BindingMismatch);
            }
        }
        let nonce = [client.nonce, server_nonce.as_bytes()].concat();
        let salt = STANDARD.encode(self.verifier.salt);
        let tail = format!(",s={salt},i={ITERATIONS}");
        let server_first = [b"r=".as_slice(), &nonce, tail.as_bytes()].concat();
        let auth_message = [client.bare, b",", &server_first, b","].concat();
        self.state = ExchangeState::Challenged {
            flag: client.flag,
            nonce,
            auth_message,
        };
        Ok(server_first)
    }

    fn check(&mut self, client_final: &[u8]) -> Result<Vec<u8>, ScramError> {
        let ExchangeState::Challenged {
            flag,
            nonce,
            auth_message,
        } = std::mem::replace(&mut self.state, ExchangeState::Done)
        else {
            return Err(ScramError::OutOfOrder);
        };
        let client = message::last(bounded(client_final)?)?;
        self.check_binding(flag, client.binding)?;
        if client.nonce != nonce {
            return Err(ScramError::Nonce);
        }
        let signed = [auth_message.as_slice(), client.without_proof];
        let mut client_key = Zeroizing::new(sign(&self.verifier.stored_key, &signed));
        for (key, proof) in client_key.iter_mut().zip(client.proof) {
            *key ^= proof;
        }
        let stored_key = sha256(client_key.as_slice());
        constant_time::verify_slices_are_equal(&stored_key, self.verifier.stored_key.as_slice())
            .map_err(|_| ScramError::WrongPassword)?;
        let signature = STANDARD.encode(sign(&self.verifier.server_key, &signed));
        Ok(format!("v={signature}").into_bytes())
    }

    /// Checks that `c` is the GS2 header of the first message and, if it announced binding, the
    /// hash of the server's certificate.
    fn check_binding(&self, flag: ChannelBindingFlag, sent: &[u8]) -> Result<(), ScramError> {
        let mut input = flag.header().to_vec();
        if flag == ChannelBindingFlag::Binds {
            // Present: otherwise the mechanism would not have been offered.
            input.extend_from_slice(self.binding.as_deref().unwrap_or_default());
        }
        if STANDARD.encode(input).as_bytes() == sent {
            return Ok(());
        }
        Err(match flag {
            ChannelBindingFlag::Binds => ScramError::Binding,
            ChannelBindingFlag::Cannot | ChannelBindingFlag::BelievesServerCannot => {
                ScramError::Malformed(
                    "the channel-binding attribute does not match the first message",
                )
            }
        })
    }
}

impl fmt::Debug for ScramExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            ExchangeState::Start => "Start",
            ExchangeState::Challenged { .. } => "Challenged",
            ExchangeState::Done => "Done",
            ExchangeState::Failed(_) => "Failed",
        };
        f.debug_struct("ScramExchange")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

fn bounded(message: &[u8]) -> Result<&[u8], ScramError> {
    match message.len() {
        0 => Err(ScramError::Malformed("it is empty")),
        1..=LONGEST_MESSAGE if !message.contains(&0) => Ok(message),
        1..=LONGEST_MESSAGE => Err(ScramError::Malformed("it contains a zero byte")),
        _ => Err(ScramError::Malformed("it is too long")),
    }
}

/// Returns the HMAC-SHA-256 of the concatenated `parts`.
fn sign(key: &[u8; KEY], parts: &[&[u8]]) -> [u8; KEY] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    to_key(context.sign().as_ref())
}

fn sha256(data: &[u8]) -> [u8; KEY] {
    to_key(digest::digest(&digest::SHA256, data).as_ref())
}

fn to_key(hash: &[u8]) -> [u8; KEY] {
    let mut key = [0; KEY];
    key.copy_from_slice(hash);
    key
}

#[cfg(test)]
mod tests;
