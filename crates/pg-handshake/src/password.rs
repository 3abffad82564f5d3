//! The client's answers to authentication requests (type `p`), and the requests themselves.
//!
//! PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share one type byte; the
//! preceding request decides which one a frame is. The rules are those of the server's
//! `recv_password_packet` (`auth.c`) and `CheckSASLAuth` (`auth-sasl.c`).

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::auth::{request_frame, sasl_frame};
use crate::frame::{HEADER, MAX_AUTH_FRAME, split_cstring};
use crate::{MAX_REMAINDER, frame};

/// Complete AuthenticationOk frame.
pub const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

/// Most bytes a reader keeps: the longest frame, and [`MAX_REMAINDER`] bytes after it.
const MAX_KEPT: usize = 1 + MAX_AUTH_FRAME + MAX_REMAINDER;

/// Error in a client's answer. It is always the client's fault, and never shows the answer's
/// contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// A message of another type. 0 is the first byte of a startup packet.
    #[error("expected password or SASL response, got message type {tag}")]
    UnexpectedType {
        /// First byte of the message.
        tag: u8,
    },
    /// The length word is below 4 or above [`MAX_AUTH_FRAME`], or is not the frame's.
    #[error("invalid message length: {length}")]
    Length {
        /// The length word, or the frame's length where the frame has no length word.
        length: usize,
    },
    /// The frame's bytes contradict the format of the message.
    #[error("malformed SASL response: {0}")]
    Malformed(&'static str),
    /// More bytes were sent ahead than are kept.
    #[error("more than {MAX_KEPT} bytes sent before the login was complete")]
    TooMuchPipelined,
}

/// Cuts `p` frames out of a client's input during its authentication.
///
/// The reader looks for a frame, and refuses anything else, only after a first [`poll`](Self::poll)
/// that finds none: a client may send its answer and its first query in one piece, and the query is
/// not the next answer. So poll exactly when an answer is due:
/// 1. `poll`; a frame is the answer;
/// 2. without one, return [`error`](Self::error) if there is one; else read, give the bytes to
///    `handle_input`, and go back to 1.
///
/// The first error sticks.
pub struct PasswordReader {
    buf: BytesMut,
    /// The last poll found no frame, so the next bytes must be one.
    wanted: bool,
    error: Option<PasswordError>,
}

impl PasswordReader {
    /// Creates a reader that begins with these bytes, sent by the client after its startup packet.
    #[must_use]
    pub fn new(first: Bytes) -> Self {
        Self {
            buf: BytesMut::from(first),
            wanted: false,
            error: None,
        }
    }

    /// Takes bytes from the client.
    ///
    /// # Errors
    /// The first [`PasswordError`], now and at every later call: the bytes are not a frame where
    /// one is due, or more than the longest frame and [`MAX_REMAINDER`] bytes would have to be
    /// kept.
    pub fn handle_input(&mut self, data: &[u8]) -> Result<(), PasswordError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.buf.len() + data.len() > MAX_KEPT {
            return Err(self.fail(PasswordError::TooMuchPipelined));
        }
        self.buf.extend_from_slice(data);
        if self.wanted {
            front(&self.buf).map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Returns the next frame, type byte and length word included; `None` when more bytes are
    /// needed, or after an error.
    pub fn poll(&mut self) -> Option<Bytes> {
        if self.error.is_some() {
            return None;
        }
        self.wanted = true;
        match front(&self.buf) {
            Ok(BufferedMessage::Length(length)) if self.buf.len() >= length => {
                self.wanted = false;
                Some(self.buf.split_to(length).freeze())
            }
            Ok(_) => None,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Returns the error that ended the input, if any.
    #[must_use]
    pub fn error(&self) -> Option<&PasswordError> {
        self.error.as_ref()
    }

    /// Returns the bytes after the client's last answer, which the caller forwards after the login.
    #[must_use]
    pub fn into_remainder(self) -> Bytes {
        self.buf.freeze()
    }

    fn fail(&mut self, error: PasswordError) -> PasswordError {
        self.error = Some(error.clone());
        self.buf = BytesMut::new();
        error
    }
}

impl fmt::Debug for PasswordReader {
    /// Leaves out the buffered bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordReader")
            .field("wanted", &self.wanted)
            .field("buffered", &self.buf.len())
            .field("error", &self.error)
            .finish()
    }
}

/// State of the front of the buffer.
enum BufferedMessage {
    /// A `p` frame of this many bytes begins here.
    Length(usize),
    /// Too few bytes to decide; nothing is wrong so far.
    Short,
}

/// Checks the front as early as its bytes allow: the type from one byte, the length from five.
fn front(buf: &[u8]) -> Result<BufferedMessage, PasswordError> {
    match buf.first() {
        None => return Ok(BufferedMessage::Short),
        Some(b'p') => {}
        Some(&tag) => return Err(PasswordError::UnexpectedType { tag }),
    }
    if buf.len() < HEADER {
        return Ok(BufferedMessage::Short);
    }
    let length = frame::length_word(buf);
    if (4..=MAX_AUTH_FRAME).contains(&length) {
        Ok(BufferedMessage::Length(length + 1))
    } else {
        Err(PasswordError::Length { length })
    }
}

/// Returns the body of a whole `p` frame.
pub(crate) fn body(frame: &Bytes) -> Result<Bytes, PasswordError> {
    match front(frame)? {
        BufferedMessage::Length(length) if length == frame.len() => Ok(frame.slice(HEADER..)),
        _ => Err(PasswordError::Length {
            length: frame.len(),
        }),
    }
}

/// SASLInitialResponse: the chosen mechanism and, with most mechanisms, its first message.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslInitialResponse {
    /// The mechanism's name as the client spelled it.
    pub mechanism: String,
    /// The first message of the mechanism; `None` when the client sent none (length -1), which is
    /// not the same as an empty one.
    pub data: Option<Bytes>,
}

impl SaslInitialResponse {
    /// Parses a whole `p` frame that answers AuthenticationSASL: a zero-terminated name, an Int32
    /// and that many bytes, to the frame's end.
    ///
    /// # Errors
    /// [`PasswordError`] when it is not a `p` frame, has no terminator or no length, the length is
    /// neither -1 nor that of the rest, or the name is not text.
    pub fn parse(frame: &Bytes) -> Result<Self, PasswordError> {
        let body = body(frame)?;
        let (name, rest) =
            split_cstring(&body).ok_or(PasswordError::Malformed("unterminated mechanism name"))?;
        let mechanism = std::str::from_utf8(name)
            .map_err(|_| PasswordError::Malformed("the mechanism name is not valid UTF-8"))?;
        let (length, data) = rest
            .split_first_chunk::<4>()
            .ok_or(PasswordError::Malformed("missing length of the response"))?;
        let data = match i32::from_be_bytes(*length) {
            -1 if data.is_empty() => None,
            // A comparison without arithmetic: no length word can wrap around it.
            length if usize::try_from(length) == Ok(data.len()) => Some(body.slice_ref(data)),
            _ => {
                return Err(PasswordError::Malformed(
                    "the length of the response does not match its data",
                ));
            }
        };
        Ok(Self {
            mechanism: mechanism.to_owned(),
            data,
        })
    }
}

impl fmt::Debug for SaslInitialResponse {
    /// Leaves out the message: with some mechanisms (OAUTHBEARER) it is the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslInitialResponse")
            .field("mechanism", &self.mechanism)
            .field("data", &self.data.as_ref().map(Bytes::len))
            .finish()
    }
}

/// Returns the data of a SASLResponse from a whole `p` frame: its entire body, possibly empty.
///
/// # Errors
/// [`PasswordError`] when it is not a whole `p` frame.
pub fn sasl_response(frame: &Bytes) -> Result<Bytes, PasswordError> {
    body(frame)
}

/// Returns true if the client could bind the login to its TLS channel but believes that the server
/// cannot: a gs2-header that begins with `y` (RFC 5802, section 7). libpq sends it inside TLS when
/// no `-PLUS` mechanism is offered. A server that did offer one must refuse it as a downgrade, so
/// forwarding it is of no use.
#[must_use]
pub fn gs2_says_unsupported(initial: &SaslInitialResponse) -> bool {
    let data = initial.data.as_deref().unwrap_or_default();
    initial.mechanism.starts_with("SCRAM-") && data.starts_with(b"y,")
}

/// Builds an AuthenticationSASL that offers these mechanisms, the preferred one first. Names that
/// are empty or contain a zero byte are left out. libpq reads 2,000 bytes at most.
#[must_use]
pub fn authentication_sasl(mechanisms: &[&str]) -> Bytes {
    let sayable = mechanisms
        .iter()
        .map(|name| name.as_bytes())
        .filter(|name| !name.is_empty() && !name.contains(&0));
    sasl_frame(sayable)
}

/// Builds an AuthenticationSASLContinue with the mechanism's next message. libpq reads 2,000 bytes
/// at most.
#[must_use]
pub fn authentication_sasl_continue(data: &[u8]) -> Bytes {
    request_frame(11, data)
}

/// Builds an AuthenticationSASLFinal with the mechanism's last message; AuthenticationOk follows.
#[must_use]
pub fn authentication_sasl_final(data: &[u8]) -> Bytes {
    request_frame(12, data)
}
