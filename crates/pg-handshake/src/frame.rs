//! Cuts whole messages out of a byte stream and checks their size before buffering.

use bytes::{Bytes, BytesMut};

/// Largest message accepted before ReadyForQuery, as the length word counts it (without the type
/// byte). libpq allows 2,000 bytes for an authentication request and 30,000 for most others; this is
/// wider for mechanism lists and parameter values, and still small.
pub const MAX_AUTH_FRAME: usize = 64 * 1024;

/// Largest ErrorResponse or NoticeResponse, as the length word counts it. During the login libpq
/// takes a longer one for the text of a server that does not speak protocol 3 (`MAX_ERRLEN` in
/// `fe-connect.c`), so this crate neither accepts nor produces one.
pub const MAX_ERROR_FRAME: usize = 30_000;

/// Bytes before the body: type byte and length word.
pub(crate) const HEADER: usize = 5;

/// Error for a message that contradicts its own format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed '{}' message: {what}", tag_name(*tag))]
pub struct MalformedMessage {
    /// Type byte of the message.
    pub tag: u8,
    /// The rule it breaks.
    pub what: &'static str,
}

/// Error in a frame's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameError {
    TooLarge {
        tag: u8,
        length: usize,
        limit: usize,
    },
    Malformed(MalformedMessage),
}

/// Returns the printable form of a type byte, for error messages.
pub(crate) fn tag_name(tag: u8) -> std::ascii::EscapeDefault {
    std::ascii::escape_default(tag)
}

/// Reads the length word that follows a type byte; `header` must hold at least five bytes.
pub(crate) fn length_word(header: &[u8]) -> usize {
    u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize
}

/// Returns the smallest and largest length word per type, from "Message Formats".
fn length_bounds(tag: u8) -> (usize, usize) {
    match tag {
        b'R' => (8, MAX_AUTH_FRAME),
        b'E' | b'N' => (5, MAX_ERROR_FRAME),
        b'S' => (6, MAX_AUTH_FRAME),
        b'v' => (12, MAX_AUTH_FRAME),
        // Process id, then a key of 4 (protocol 3.0) to 256 bytes (protocol 3.2).
        b'K' => (12, 8 + 256),
        b'Z' => (5, 5),
        _ => (4, MAX_AUTH_FRAME),
    }
}

/// Cuts one whole frame off the front of `buf`; `None` when more bytes are needed. The length is
/// checked as soon as the five header bytes are there.
pub(crate) fn next_frame(buf: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    if buf.len() < HEADER {
        return Ok(None);
    }
    let tag = buf[0];
    let length = length_word(buf);
    let (min, max) = length_bounds(tag);
    if length < min {
        return Err(FrameError::Malformed(MalformedMessage {
            tag,
            what: "the message is too short",
        }));
    }
    if length > max {
        return Err(FrameError::TooLarge {
            tag,
            length,
            limit: max,
        });
    }
    if buf.len() < length + 1 {
        return Ok(None);
    }
    Ok(Some(buf.split_to(length + 1).freeze()))
}

/// Splits a zero-terminated string off the front of `rest`; `None` without a terminator.
pub(crate) fn split_cstring(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some((&rest[..end], &rest[end + 1..]))
}
