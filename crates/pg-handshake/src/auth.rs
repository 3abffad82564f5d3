//! What the server asks for to prove who we are ("Authentication…" messages, type `R`).

use std::fmt;

use bytes::BytesMut;
use pgwire::messages::startup::Authentication;
use pgwire::messages::{DecodeContext, Message};

use crate::frame::{HEADER, Malformed, split_cstring};

/// Mechanism names kept from one AuthenticationSASL; PostgreSQL 18 offers at most three.
const MAX_MECHANISMS: usize = 16;

/// An authentication request that is not a clear-text password. None of them can carry an IAM token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthMethod {
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
        /// Names as the server spelled them, e.g. `SCRAM-SHA-256`; other bytes than UTF-8 replaced.
        mechanisms: Vec<String>,
    },
    /// AuthenticationSASLContinue (11) or SASLFinal (12) that nothing of ours asked for.
    SaslContinuation,
    /// A code that "Message Formats" does not know.
    Unknown(i32),
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
    CleartextPassword,
    Other(AuthMethod),
}

/// Decodes a complete `R` frame. The frame cutter has made sure that the code is there; the rest of
/// the layout is checked here before `pgwire` sees it.
pub(crate) fn decode(frame: &[u8]) -> Result<AuthRequest, Malformed> {
    let body = &frame[HEADER..];
    let (code, data) = body
        .split_first_chunk::<4>()
        .ok_or(malformed("no authentication code"))?;
    let code = i32::from_be_bytes(*code);
    match code {
        0 | 2 | 3 | 7 | 9 if !data.is_empty() => {
            return Err(malformed("data after a code that carries none"));
        }
        5 if data.len() != 4 => return Err(malformed("an MD5 salt has four bytes")),
        10 => check_mechanisms(data)?,
        6 => return Ok(AuthRequest::Other(AuthMethod::ScmCredential)),
        7 | 8 => return Ok(AuthRequest::Other(AuthMethod::Gss)),
        9 => return Ok(AuthRequest::Other(AuthMethod::Sspi)),
        0 | 2 | 3 | 5 | 11 | 12 => {}
        other => return Ok(AuthRequest::Other(AuthMethod::Unknown(other))),
    }
    let decoded = Authentication::decode(&mut BytesMut::from(frame), &DecodeContext::default());
    Ok(match decoded {
        Ok(Some(Authentication::Ok)) => AuthRequest::Ok,
        Ok(Some(Authentication::CleartextPassword)) => AuthRequest::CleartextPassword,
        Ok(Some(Authentication::KerberosV5)) => AuthRequest::Other(AuthMethod::KerberosV5),
        Ok(Some(Authentication::MD5Password(_))) => AuthRequest::Other(AuthMethod::Md5),
        Ok(Some(Authentication::SASL(mut mechanisms))) => {
            mechanisms.truncate(MAX_MECHANISMS);
            AuthRequest::Other(AuthMethod::Sasl { mechanisms })
        }
        Ok(Some(Authentication::SASLContinue(_) | Authentication::SASLFinal(_))) => {
            AuthRequest::Other(AuthMethod::SaslContinuation)
        }
        Ok(Some(_)) => AuthRequest::Other(AuthMethod::Unknown(code)),
        Ok(None) | Err(_) => return Err(malformed("not decodable")),
    })
}

/// A mechanism list is one or more non-empty names and an empty one that ends the message.
fn check_mechanisms(mut rest: &[u8]) -> Result<(), Malformed> {
    loop {
        let (name, after) =
            split_cstring(rest).ok_or(malformed("mechanism list without terminator"))?;
        match (name.is_empty(), after.is_empty()) {
            (true, true) => return Ok(()),
            (true, false) => return Err(malformed("data after the mechanism list")),
            (false, _) => rest = after,
        }
    }
}

const fn malformed(what: &'static str) -> Malformed {
    Malformed { tag: b'R', what }
}
