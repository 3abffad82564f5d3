//! Single messages of the login: the layout checks, and the password.

use bytes::{Bytes, BytesMut};
use pgwire::messages::response::ReadyForQuery;
use pgwire::messages::startup::NegotiateProtocolVersion;
use pgwire::messages::{DecodeContext, Message};
use zeroize::Zeroizing;

use crate::frame::{HEADER, MalformedMessage, split_cstring};

/// Longest password, in bytes. The server reads a PasswordMessage of at most
/// `PG_MAX_AUTH_TOKEN_LENGTH` = 65,535 by its length word, which counts itself and the terminator
/// (tried: PostgreSQL 15 takes 65,530 bytes and drops 65,531).
pub const MAX_PASSWORD: usize = 65_530;

pub(super) fn password_problem(token: &[u8]) -> Option<&'static str> {
    if token.is_empty() {
        Some("it is empty")
    } else if token.len() > MAX_PASSWORD {
        Some("it is longer than servers accept")
    } else if token.contains(&0) {
        Some("it contains a zero byte")
    } else {
        None
    }
}

/// Builds a PasswordMessage. Encoded here because `pgwire` stops at 10,000 bytes, and into memory
/// that is allocated once and wiped when dropped.
pub(super) fn password_message(token: &[u8]) -> Bytes {
    let length = u32::try_from(4 + token.len() + 1).unwrap_or(u32::MAX);
    let mut frame = Zeroizing::new(Vec::with_capacity(HEADER + token.len() + 1));
    frame.push(b'p');
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(token);
    frame.push(0);
    Bytes::from_owner(frame)
}

pub(super) fn check_negotiation(frame: &[u8]) -> Result<(), MalformedMessage> {
    let wrong = |what| MalformedMessage { tag: b'v', what };
    let decoded =
        NegotiateProtocolVersion::decode(&mut BytesMut::from(frame), &DecodeContext::default());
    let Ok(Some(message)) = decoded else {
        return Err(wrong("cannot be decoded"));
    };
    let mut rest = &frame[HEADER + 8..];
    for _ in &message.unsupported_options {
        rest = split_cstring(rest).ok_or(wrong("unterminated option"))?.1;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(wrong("data after the options"))
    }
}

pub(super) fn check_parameter_status(frame: &[u8]) -> Result<(), MalformedMessage> {
    let value = split_cstring(&frame[HEADER..]).and_then(|(_, rest)| split_cstring(rest));
    match value {
        Some((_, [])) => Ok(()),
        _ => Err(MalformedMessage {
            tag: b'S',
            what: "expected a name and a value",
        }),
    }
}

pub(super) fn check_ready(frame: &[u8]) -> Result<(), MalformedMessage> {
    match ReadyForQuery::decode(&mut BytesMut::from(frame), &DecodeContext::default()) {
        Ok(Some(_)) => Ok(()),
        _ => Err(MalformedMessage {
            tag: b'Z',
            what: "unknown transaction status",
        }),
    }
}
