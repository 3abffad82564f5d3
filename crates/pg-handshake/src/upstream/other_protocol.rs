//! Recognizes servers of other protocols by their first bytes.

use std::fmt;

/// Protocol of a server that is not PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtherProtocol {
    /// SSH (RFC 4253, section 4.2).
    Ssh,
    /// HTTP/1 (RFC 9112, section 4).
    Http,
    /// MySQL or MariaDB ("Protocol::HandshakeV10", and an ERR packet in its place).
    MySql,
    /// Redis or Valkey (RESP, "Simple errors").
    Redis,
    /// SMTP or FTP: a greeting with the code 220, or a refusal (RFC 5321, RFC 959).
    MailOrFtp,
    /// A server that expects TLS from the first byte, such as HTTPS: it answers with an alert (RFC
    /// 8446, section 6).
    Tls,
}

/// Start of an SSH server's greeting.
pub(super) const SSH: &[u8] = b"SSH-";

impl OtherProtocol {
    /// Returns the protocol of a server that begins with these bytes; `None` if they are ambiguous.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'S', b'S', b'H', b'-', ..] => Some(Self::Ssh),
            [b'H', b'T', b'T', b'P', b'/', ..] => Some(Self::Http),
            // Length of the packet, number 0, version 10 of the protocol or an error.
            [_, _, 0, 0, 10 | 0xff, ..] => Some(Self::MySql),
            [b'-', b'E', b'R', b'R', b' ', ..] => Some(Self::Redis),
            [b'2' | b'4' | b'5', d, e, b' ' | b'-', ..]
                if d.is_ascii_digit() && e.is_ascii_digit() =>
            {
                Some(Self::MailOrFtp)
            }
            [0x15, 3, 0..=4, ..] => Some(Self::Tls),
            _ => None,
        }
    }
}

impl fmt::Display for OtherProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "an SSH server",
            Self::Http => "an HTTP server",
            Self::MySql => "a MySQL or MariaDB server",
            Self::Redis => "a Redis server",
            Self::MailOrFtp => "a mail or FTP server",
            Self::Tls => "a server that expects TLS from the first byte (such as HTTPS)",
        })
    }
}
