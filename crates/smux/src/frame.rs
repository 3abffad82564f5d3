//! The wire form of one smux frame.
//!
//! `version u8 | command u8 | length u16 LE | stream id u32 LE | data`, as observed between the SSM
//! agent and its plugin and as `xtaci/smux` writes it.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// The protocol version in every header.
pub const VERSION: u8 = 1;
/// Bytes of a frame before its data.
pub const HEADER_LEN: usize = 8;
/// Most data bytes one frame can announce: the length field has 16 bits.
pub const MAX_FRAME_DATA: usize = u16::MAX as usize;

/// The number of one stream in one session. Clients use 3, 5, 7, …; servers 2, 4, 6, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// Creates a stream id from its number on the wire.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// Returns the number on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns true for ids that clients assign.
    pub(crate) const fn is_client_side(self) -> bool {
        self.0 % 2 == 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Command of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Opens a stream.
    Syn,
    /// Closes a stream, both directions.
    Fin,
    /// Carries data.
    Psh,
    /// Keepalive.
    Nop,
}

impl Command {
    const fn code(self) -> u8 {
        match self {
            Self::Syn => 0,
            Self::Fin => 1,
            Self::Psh => 2,
            Self::Nop => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Syn),
            1 => Some(Self::Fin),
            2 => Some(Self::Psh),
            3 => Some(Self::Nop),
            _ => None,
        }
    }
}

/// Error in decoding or encoding a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is not [`VERSION`].
    #[error("version {0}, expected {VERSION}")]
    Version(u8),
    /// The second byte is not a known command.
    #[error("unknown command {0}")]
    Command(u8),
    /// A SYN, FIN or NOP announces data. `xtaci/smux` would read that data as the next header, so
    /// the session cannot continue safely.
    #[error("{command:?} frame with {length} bytes of data, expected none")]
    UnexpectedData {
        /// The command that carries no data.
        command: Command,
        /// The length it announced.
        length: u16,
    },
    /// More than [`MAX_FRAME_DATA`] bytes in one frame.
    #[error("{0} bytes do not fit in one frame")]
    TooLong(usize),
}

/// The eight bytes in front of a frame's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Command of the frame.
    pub command: Command,
    /// Bytes of data that follow. Only PSH frames have any.
    pub length: u16,
    /// Stream of the frame; NOP frames carry 0.
    pub stream: StreamId,
}

impl Header {
    /// Encodes the header.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [l0, l1] = self.length.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.get().to_le_bytes();
        [VERSION, self.command.code(), l0, l1, s0, s1, s2, s3]
    }

    /// Decodes a header.
    ///
    /// # Errors
    /// [`FrameError::Version`], [`FrameError::Command`] or [`FrameError::UnexpectedData`].
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [version, code, l0, l1, s0, s1, s2, s3] = bytes;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let command = Command::from_code(code).ok_or(FrameError::Command(code))?;
        let length = u16::from_le_bytes([l0, l1]);
        if command != Command::Psh && length != 0 {
            return Err(FrameError::UnexpectedData { command, length });
        }
        let stream = StreamId::new(u32::from_le_bytes([s0, s1, s2, s3]));
        Ok(Self {
            command,
            length,
            stream,
        })
    }
}

/// One whole frame. [`Mux`](crate::Mux) itself works on headers and forwards data as it
/// arrives; this type is for tools and tests that examine complete frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    Syn(StreamId),
    /// Closes a stream, both directions.
    Fin(StreamId),
    /// Data of a stream, at most [`MAX_FRAME_DATA`] bytes.
    Psh {
        /// The stream the data belongs to.
        id: StreamId,
        /// The data.
        data: Bytes,
    },
    /// Keepalive; the id has no meaning.
    Nop(StreamId),
}

impl Frame {
    /// Appends the frame's bytes to `out`.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the data does not fit in one frame; `out` is unchanged then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let (command, stream, data) = match self {
            Self::Syn(id) => (Command::Syn, *id, &[][..]),
            Self::Fin(id) => (Command::Fin, *id, &[][..]),
            Self::Psh { id, data } => (Command::Psh, *id, data.as_ref()),
            Self::Nop(id) => (Command::Nop, *id, &[][..]),
        };
        let length = u16::try_from(data.len()).map_err(|_| FrameError::TooLong(data.len()))?;
        out.put_slice(
            &Header {
                command,
                length,
                stream,
            }
            .encode(),
        );
        out.put_slice(data);
        Ok(())
    }

    /// Takes the first whole frame off `input`; `None` (and `input` unchanged) when it has not
    /// arrived completely.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn decode(input: &mut Bytes) -> Result<Option<Self>, FrameError> {
        let Some(head) = input.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let Header {
            command,
            length,
            stream,
        } = Header::decode(*head)?;
        let total = HEADER_LEN + usize::from(length);
        if input.len() < total {
            return Ok(None);
        }
        let data = input.split_to(total).slice(HEADER_LEN..);
        Ok(Some(match command {
            Command::Syn => Self::Syn(stream),
            Command::Fin => Self::Fin(stream),
            Command::Psh => Self::Psh { id: stream, data },
            Command::Nop => Self::Nop(stream),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Frame> {
        vec![
            Frame::Syn(StreamId::new(3)),
            Frame::Fin(StreamId::new(u32::MAX)),
            Frame::Nop(StreamId::new(0)),
            Frame::Psh {
                id: StreamId::new(5),
                data: Bytes::new(),
            },
            Frame::Psh {
                id: StreamId::new(7),
                data: Bytes::from_static(b"hello"),
            },
            Frame::Psh {
                id: StreamId::new(9),
                data: Bytes::from(vec![0xA5; MAX_FRAME_DATA]),
            },
        ]
    }

    #[test]
    fn known_bytes() {
        let mut out = BytesMut::new();
        let data = Bytes::from_static(b"hello\n");
        Frame::Psh {
            id: StreamId::new(3),
            data,
        }
        .encode(&mut out)
        .unwrap();
        assert_eq!(&out[..], b"\x01\x02\x06\x00\x03\x00\x00\x00hello\n");
    }

    #[test]
    fn round_trip() {
        let mut wire = BytesMut::new();
        for frame in samples() {
            frame.encode(&mut wire).unwrap();
        }
        let mut wire = wire.freeze();
        for frame in samples() {
            assert_eq!(Frame::decode(&mut wire).unwrap(), Some(frame));
        }
        assert!(wire.is_empty());
    }

    #[test]
    fn truncated_at_every_byte_is_incomplete_and_keeps_the_input() {
        for frame in samples() {
            let mut wire = BytesMut::new();
            frame.encode(&mut wire).unwrap();
            let wire = wire.freeze();
            for cut in 0..wire.len() {
                let mut part = wire.slice(..cut);
                assert_eq!(Frame::decode(&mut part), Ok(None), "{cut}");
                assert_eq!(part.len(), cut);
            }
        }
    }

    #[test]
    fn refuses_what_version_1_does_not_know() {
        let good = Header {
            command: Command::Psh,
            length: 1,
            stream: StreamId::new(3),
        }
        .encode();
        for version in (0..=u8::MAX).filter(|v| *v != VERSION) {
            let mut bad = good;
            bad[0] = version;
            assert_eq!(Header::decode(bad), Err(FrameError::Version(version)));
        }
        for code in 4..=u8::MAX {
            let mut bad = good;
            bad[1] = code;
            assert_eq!(Header::decode(bad), Err(FrameError::Command(code)));
        }
        for command in [Command::Syn, Command::Fin, Command::Nop] {
            let mut bad = good;
            bad[1] = command.code();
            let expected = FrameError::UnexpectedData { command, length: 1 };
            assert_eq!(Header::decode(bad), Err(expected));
        }
    }

    #[test]
    fn data_too_long_for_a_frame_is_refused() {
        let data = Bytes::from(vec![0; MAX_FRAME_DATA + 1]);
        let mut out = BytesMut::new();
        let frame = Frame::Psh {
            id: StreamId::new(3),
            data,
        };
        assert_eq!(
            frame.encode(&mut out),
            Err(FrameError::TooLong(MAX_FRAME_DATA + 1))
        );
        assert!(out.is_empty());
    }
}
