//! The server's authentication requests ("Authentication…" messages, type `R`).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{HEADER, MalformedMessage, split_cstring};
use crate::startup::put_length;

/// Mechanism names kept from one AuthenticationSASL; PostgreSQL 18 offers at most three.
const MAX_MECHANISMS: usize = 16;

/// Authentication method a server requests. Only a clear-text password can carry an IAM token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthMethod {
    /// AuthenticationCleartextPassword (3).
    CleartextPassword,
    /// AuthenticationKerberosV5 (2), gone from servers since 9.3.
    KerberosV5,
    /// AuthenticationMD5Password (5).
    Md5,
    /// SCM credentials (6), gone since 9.1.
    ScmCredential,
    /// AuthenticationGSS (7) or a continuation of it (8).
    Gss,
    /// AuthenticationSSPI (9).
    Sspi,
    /// AuthenticationSASL (10) with the mechanisms offered.
    Sasl {
        /// Names as the server spelled them, e.g. `SCRAM-SHA-256`; invalid UTF-8 is replaced.
        mechanisms: Vec<String>,
    },
    /// AuthenticationSASLContinue (11) or SASLFinal (12): a later step of an exchange.
    SaslContinuation,
    /// A code missing in "Message Formats".
    Unknown(i32),
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CleartextPassword => f.write_str("a clear-text password"),
            Self::KerberosV5 => f.write_str("Kerberos V5"),
            Self::Md5 => f.write_str("MD5 password"),
            Self::ScmCredential => f.write_str("SCM credentials"),
            Self::Gss => f.write_str("GSSAPI"),
            Self::Sspi => f.write_str("SSPI"),
            Self::Sasl { mechanisms } => {
                f.write_str("SASL (")?;
                for (at, mechanism) in mechanisms.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}", mechanism.escape_debug())?;
                }
                f.write_str(")")
            }
            Self::SaslContinuation => f.write_str("SASL continuation"),
            Self::Unknown(code) => write!(f, "authentication code {code}"),
        }
    }
}

/// One decoded `R` message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AuthRequest {
    Ok,
    Asks {
        method: AuthMethod,
        /// True when the client must answer before the server continues.
        expects_answer: bool,
    },
}

/// Decodes a complete `R` frame. The frame cutter has checked that the code is present. Decoded by
/// hand because `pgwire` stops at 30,000 bytes, less than a frame may have here.
pub(crate) fn decode(frame: &[u8]) -> Result<AuthRequest, MalformedMessage> {
    let body = &frame[HEADER..];
    let (code, data) = body
        .split_first_chunk::<4>()
        .ok_or(malformed("missing authentication code"))?;
    let code = i32::from_be_bytes(*code);
    let method = match code {
        0 | 2 | 3 | 7 | 9 if !data.is_empty() => {
            return Err(malformed("unexpected data after the authentication code"));
        }
        5 if data.len() != 4 => return Err(malformed("the MD5 salt is not 4 bytes")),
        0 => return Ok(AuthRequest::Ok),
        2 => AuthMethod::KerberosV5,
        3 => AuthMethod::CleartextPassword,
        5 => AuthMethod::Md5,
        6 => AuthMethod::ScmCredential,
        7 | 8 => AuthMethod::Gss,
        9 => AuthMethod::Sspi,
        10 => AuthMethod::Sasl {
            mechanisms: (mechanisms(data)?.into_iter().take(MAX_MECHANISMS))
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect(),
        },
        11 | 12 => AuthMethod::SaslContinuation,
        other => AuthMethod::Unknown(other),
    };
    Ok(AuthRequest::Asks {
        method,
        expects_answer: code != 12,
    })
}

/// Returns the names of a mechanism list. An empty name ends both the list and the message.
fn mechanisms(mut rest: &[u8]) -> Result<Vec<&[u8]>, MalformedMessage> {
    let mut names = Vec::new();
    loop {
        let (name, after) = split_cstring(rest).ok_or(malformed("unterminated mechanism list"))?;
        match (name.is_empty(), after.is_empty()) {
            (true, true) => return Ok(names),
            (true, false) => return Err(malformed("data after the mechanism list")),
            (false, _) => names.push(name),
        }
        rest = after;
    }
}

/// Returns a checked AuthenticationSASL frame without the mechanisms that bind to a TLS channel,
/// named `…-PLUS` (RFC 5802, section 4); the others keep their bytes and order. `None` when no
/// mechanism is left.
pub(crate) fn without_channel_binding(frame: &Bytes) -> Option<Bytes> {
    let mut names = mechanisms(frame.get(HEADER + 4..)?).ok()?;
    let all = names.len();
    names.retain(|name| !name.ends_with(b"-PLUS"));
    match names.len() {
        left if left == all => Some(frame.clone()),
        0 => None,
        _ => Some(sasl_frame(names.into_iter())),
    }
}

/// Builds an AuthenticationSASL frame with these mechanisms.
pub(crate) fn sasl_frame<'a>(mechanisms: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut list = BytesMut::new();
    for name in mechanisms {
        list.put_slice(name);
        list.put_u8(0);
    }
    list.put_u8(0);
    request_frame(10, &list)
}

/// Builds an `R` frame. `data` is far below the 2 GiB that a length word can express.
pub(crate) fn request_frame(code: u32, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + 4 + data.len());
    frame.put_u8(b'R');
    put_length(&mut frame, 8 + data.len());
    frame.put_u32(code);
    frame.put_slice(data);
    frame.freeze()
}

const fn malformed(what: &'static str) -> MalformedMessage {
    MalformedMessage { tag: b'R', what }
}
