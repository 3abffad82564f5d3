//! The packets before the login: lengths, codes and parameters (PostgreSQL manual, chapter
//! "Message Formats"; the limits are those of `ProcessStartupPacket` in the server's
//! `backend_startup.c`).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// `MAX_STARTUP_PACKET_LENGTH`: bytes after the length word.
const MAX_STARTUP: usize = 10_000;
/// `PG_MAX_AUTH_TOKEN_LENGTH`, and the largest message a server sends before the login is far
/// smaller.
pub(super) const MAX_MESSAGE: usize = 65_535;

pub(super) const CANCEL_REQUEST: u32 = 80_877_102;
pub(super) const SSL_REQUEST: u32 = 80_877_103;
pub(super) const GSSENC_REQUEST: u32 = 80_877_104;

/// A packet without a type byte.
#[derive(Debug)]
pub(super) struct Packet {
    /// Protocol version or request code.
    pub(super) code: u32,
    /// As it came, its length included.
    pub(super) raw: Vec<u8>,
}

impl Packet {
    /// Reads one packet and not a byte more; `None` when the peer closes before the first byte.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        if stream.read(&mut length[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut length[1..]).await?;
        let total = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(8..=MAX_STARTUP + 4).contains(&total) {
            return Err(invalid("invalid length of startup packet"));
        }
        let mut raw = vec![0; total];
        raw[..4].copy_from_slice(&length);
        stream.read_exact(&mut raw[4..]).await?;
        let code = u32::from_be_bytes([raw[4], raw[5], raw[6], raw[7]]);
        Ok(Some(Self { code, raw }))
    }

    /// Major and minor protocol version.
    pub(super) fn version(&self) -> (u16, u16) {
        let [_, _, _, _, a, b, c, d, ..] = self.raw[..] else {
            return (0, 0);
        };
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    /// Names and values of a StartupMessage in their order; `None` when they are not laid out as
    /// the protocol says.
    pub(super) fn parameters(&self) -> Option<Vec<(String, String)>> {
        let body = self.raw.get(8..)?.strip_suffix(&[0])?;
        if body.is_empty() {
            return Some(Vec::new());
        }
        let mut texts = body
            .strip_suffix(&[0])?
            .split(|b| *b == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned());
        let mut pairs = Vec::new();
        while let Some(name) = texts.next() {
            pairs.push((name, texts.next()?));
        }
        pairs
            .iter()
            .all(|(name, _)| !name.is_empty())
            .then_some(pairs)
    }
}

/// A message with a type byte.
pub(super) struct Message {
    pub(super) kind: u8,
    /// Type, length and content as they came.
    pub(super) raw: Vec<u8>,
}

impl Message {
    /// Reads one message and not a byte more.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(4..=MAX_MESSAGE + 4).contains(&length) {
            return Err(invalid("invalid message length"));
        }
        let mut raw = vec![0; 1 + length];
        raw[..5].copy_from_slice(&head);
        stream.read_exact(&mut raw[5..]).await?;
        Ok(Self { kind: head[0], raw })
    }

    /// What follows the length.
    pub(super) fn body(&self) -> &[u8] {
        &self.raw[5..]
    }

    /// The code of an Authentication message.
    pub(super) fn authentication(&self) -> Option<u32> {
        let code = self.body().first_chunk().filter(|_| self.kind == b'R')?;
        Some(u32::from_be_bytes(*code))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let total = u32::try_from(body.len() + 4).unwrap();
        [&total.to_be_bytes()[..], body].concat()
    }

    #[tokio::test]
    async fn a_startup_is_taken_apart_and_kept_as_it_came() {
        let raw = packet(b"\0\x03\0\x02user\0me\0options\0\0user\0you\0\0");
        let read = Packet::read(&mut &raw[..]).await.unwrap().unwrap();
        assert_eq!(read.version(), (3, 2));
        assert_eq!(read.raw, raw);
        let expected = [("user", "me"), ("options", ""), ("user", "you")];
        assert_eq!(
            read.parameters().unwrap(),
            expected.map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
        let empty = packet(b"\0\x03\0\0\0");
        let read = Packet::read(&mut &empty[..]).await.unwrap().unwrap();
        assert_eq!(read.parameters(), Some(Vec::new()));
    }

    #[tokio::test]
    async fn what_is_cut_off_or_out_of_bounds_is_refused() {
        let raw = packet(b"\0\x03\0\0user\0me\0\0");
        for length in 1..raw.len() {
            assert!(Packet::read(&mut &raw[..length]).await.is_err(), "{length}");
        }
        assert!(Packet::read(&mut &b""[..]).await.unwrap().is_none());
        for length in [0_u32, 7, 10_005, u32::MAX] {
            let error = Packet::read(&mut &length.to_be_bytes()[..]).await;
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        for body in [
            &b"\0\x03\0\0user\0me"[..],
            b"\0\x03\0\0user\0\0",
            b"\0\x03\0\0user\0me\0",
        ] {
            let raw = packet(body);
            let read = Packet::read(&mut &raw[..]).await.unwrap().unwrap();
            assert_eq!(read.parameters(), None, "{body:?}");
        }
    }
}
