//! Frames after the hello: `type u8`, then the fields of the type; all numbers are big-endian.
//!
//! | type | fields |
//! |---|---|
//! | 1 DATA | stream u32, length u16, offset u64, data |
//! | 2 FIN | stream u32, offset u64: the length of the whole stream |
//! | 3 OPEN | stream u32, length u16, target as text |
//! | 4 RESET | stream u32, length u16, reason as text |
//! | 5 ACK | subflows u8, streams u16, then of each subflow: index u8, generation u16, received u64; of each stream: stream u32, limit u64 |
//! | 6 PING | nothing; answered by an ACK with all entries |
//! | 7 LIMITED | nothing; data of the relay waits for credit, so more carriers would help |

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::Violation;

/// Maximum bytes of a text: a target, or the reason of a reset.
pub const MAX_TEXT: usize = 1024;
/// Maximum data bytes of a frame. Larger chunks make credit coarse, smaller ones make more frames.
pub(crate) const CHUNK: usize = 4096;
/// Data bytes that a peer may put in a frame.
const MAX_DATA: usize = 16 * 1024;
/// Bytes of a data frame before its data.
pub(crate) const DATA_HEADER: usize = 15;
const TEXT_HEADER: usize = 7;
const FIN_LEN: usize = 13;
const ACK_HEADER: usize = 4;
const SUBFLOW_ENTRY: usize = 11;
const STREAM_ENTRY: usize = 12;

const DATA: u8 = 1;
const FIN: u8 = 2;
const OPEN: u8 = 3;
const RESET: u8 = 4;
const ACK: u8 = 5;
const PING: u8 = 6;
const LIMITED: u8 = 7;

/// Number of a stream in its bundle, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u32);

impl StreamId {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A frame that its sender repeats until it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stream: StreamId,
    pub(crate) body: Body,
}

/// Content of a [`Frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Data { offset: u64, data: Bytes },
    Fin { length: u64 },
    Open(String),
    Reset(String),
}

/// Anything that a peer sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    Frame(Frame),
    Ack(Ack),
    Ping,
    Limited,
}

/// Reports of a receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) subflows: Vec<SubflowAck>,
    pub(crate) streams: Vec<StreamLimit>,
}

/// Bytes of counted frames that arrived on a subflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubflowAck {
    pub(crate) index: u8,
    pub(crate) generation: u16,
    pub(crate) received: u64,
}

/// End of a stream's window: the sender may send bytes below this offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamLimit {
    pub(crate) stream: StreamId,
    pub(crate) limit: u64,
}

/// Returns the longest prefix of a text that a frame can carry.
pub(crate) fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

impl Frame {
    /// Returns the length on the wire.
    pub(crate) fn wire_len(&self) -> usize {
        match &self.body {
            Body::Data { data, .. } => DATA_HEADER + data.len(),
            Body::Fin { .. } => FIN_LEN,
            Body::Open(text) | Body::Reset(text) => TEXT_HEADER + text.len(),
        }
    }

    /// Appends the frame.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.wire_len());
        let (kind, text) = match &self.body {
            Body::Data { offset, data } => {
                out.put_u8(DATA);
                out.put_u32(self.stream.0);
                out.put_u16(short(data.len()));
                out.put_u64(*offset);
                return out.put_slice(data);
            }
            Body::Fin { length } => {
                out.put_u8(FIN);
                out.put_u32(self.stream.0);
                return out.put_u64(*length);
            }
            Body::Open(target) => (OPEN, target),
            Body::Reset(reason) => (RESET, reason),
        };
        out.put_u8(kind);
        out.put_u32(self.stream.0);
        out.put_u16(short(text.len()));
        out.put_slice(text.as_bytes());
    }
}

impl Ack {
    /// Maximum streams of one ACK; the rest goes into the next one.
    pub(crate) const MOST_STREAMS: usize = 300;

    /// Appends the frame.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(ACK);
        out.put_u8(u8::try_from(self.subflows.len()).unwrap_or(u8::MAX));
        out.put_u16(short(self.streams.len()));
        for entry in &self.subflows {
            out.put_u8(entry.index);
            out.put_u16(entry.generation);
            out.put_u64(entry.received);
        }
        for entry in &self.streams {
            out.put_u32(entry.stream.0);
            out.put_u64(entry.limit);
        }
    }
}

/// Appends a PING.
pub(crate) fn encode_ping(out: &mut BytesMut) {
    out.put_u8(PING);
}

/// Appends a LIMITED.
pub(crate) fn encode_limited(out: &mut BytesMut) {
    out.put_u8(LIMITED);
}

fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Cuts received bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: BytesMut,
}

impl Parser {
    /// Adds received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Removes the first `length` buffered bytes.
    pub(crate) fn skip(&mut self, length: usize) {
        self.buffer.advance(length.min(self.buffer.len()));
    }

    /// Returns the buffered bytes.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Returns the next whole frame; `None`: more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Received>, Violation> {
        let Some(&kind) = self.buffer.first() else {
            return Ok(None);
        };
        match kind {
            DATA => self.data(),
            FIN => Ok(self.fin()),
            OPEN | RESET => self.text(kind),
            ACK => Ok(self.ack()),
            PING => {
                self.buffer.advance(1);
                Ok(Some(Received::Ping))
            }
            LIMITED => {
                self.buffer.advance(1);
                Ok(Some(Received::Limited))
            }
            other => Err(Violation::FrameType(other)),
        }
    }

    fn data(&mut self) -> Result<Option<Received>, Violation> {
        let Some(head) = self.buffer.first_chunk::<DATA_HEADER>() else {
            return Ok(None);
        };
        let mut fields = &head[1..];
        let stream = StreamId(fields.get_u32());
        let length = usize::from(fields.get_u16());
        let offset = fields.get_u64();
        if length > MAX_DATA || offset.checked_add(length as u64).is_none() {
            return Err(Violation::FrameLength(length));
        }
        if self.buffer.len() < DATA_HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(DATA_HEADER);
        let data = self.buffer.split_to(length).freeze();
        let body = Body::Data { offset, data };
        Ok(Some(Received::Frame(Frame { stream, body })))
    }

    fn fin(&mut self) -> Option<Received> {
        let mut fields = &self.buffer.first_chunk::<FIN_LEN>()?[1..];
        let stream = StreamId(fields.get_u32());
        let body = Body::Fin {
            length: fields.get_u64(),
        };
        self.buffer.advance(FIN_LEN);
        Some(Received::Frame(Frame { stream, body }))
    }

    fn text(&mut self, kind: u8) -> Result<Option<Received>, Violation> {
        let Some(head) = self.buffer.first_chunk::<TEXT_HEADER>() else {
            return Ok(None);
        };
        let mut fields = &head[1..];
        let stream = StreamId(fields.get_u32());
        let length = usize::from(fields.get_u16());
        if length > MAX_TEXT {
            return Err(Violation::FrameLength(length));
        }
        let Some(text) = self.buffer.get(TEXT_HEADER..TEXT_HEADER + length) else {
            return Ok(None);
        };
        let text = str::from_utf8(text)
            .map_err(|_| Violation::Text)?
            .to_owned();
        self.buffer.advance(TEXT_HEADER + length);
        let body = match kind {
            OPEN => Body::Open(text),
            _ => Body::Reset(text),
        };
        Ok(Some(Received::Frame(Frame { stream, body })))
    }

    fn ack(&mut self) -> Option<Received> {
        let mut fields = &self.buffer.first_chunk::<ACK_HEADER>()?[1..];
        let subflows = usize::from(fields.get_u8());
        let streams = usize::from(fields.get_u16());
        let length = ACK_HEADER + subflows * SUBFLOW_ENTRY + streams * STREAM_ENTRY;
        let mut fields = self.buffer.get(ACK_HEADER..length)?;
        let ack = Ack {
            subflows: (0..subflows)
                .map(|_| SubflowAck {
                    index: fields.get_u8(),
                    generation: fields.get_u16(),
                    received: fields.get_u64(),
                })
                .collect(),
            streams: (0..streams)
                .map(|_| StreamLimit {
                    stream: StreamId(fields.get_u32()),
                    limit: fields.get_u64(),
                })
                .collect(),
        };
        self.buffer.advance(length);
        Some(Received::Ack(ack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> (Vec<Received>, Vec<u8>) {
        let stream = StreamId(0x0102_0304);
        let bodies = [
            Body::Data {
                offset: u64::MAX - 5,
                data: Bytes::from_static(b"abcde"),
            },
            Body::Fin { length: 77 },
            Body::Open("db.example.com:5432".to_owned()),
            Body::Reset("no: é".to_owned()),
        ];
        let mut out = BytesMut::new();
        let mut frames = Vec::new();
        for body in bodies {
            let frame = Frame { stream, body };
            let before = out.len();
            frame.encode(&mut out);
            assert_eq!(out.len() - before, frame.wire_len());
            frames.push(Received::Frame(frame));
        }
        let ack = Ack {
            subflows: vec![SubflowAck {
                index: 31,
                generation: 2,
                received: 1 << 40,
            }],
            streams: vec![StreamLimit { stream, limit: 9 }; 2],
        };
        ack.encode(&mut out);
        frames.push(Received::Ack(ack));
        encode_ping(&mut out);
        frames.push(Received::Ping);
        encode_limited(&mut out);
        frames.push(Received::Limited);
        (frames, out.to_vec())
    }

    #[test]
    fn frames_come_back_however_they_are_cut() {
        let (frames, bytes) = all();
        for step in 1..=bytes.len() {
            let mut parser = Parser::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                parser.push(piece);
                while let Some(frame) = parser.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames, "{step}");
        }
    }

    #[test]
    fn the_form_of_each_frame_is_fixed() {
        let frame = Frame {
            stream: StreamId(1),
            body: Body::Data {
                offset: 2,
                data: Bytes::from_static(b"hi"),
            },
        };
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        assert_eq!(&out[..], b"\x01\0\0\0\x01\0\x02\0\0\0\0\0\0\0\x02hi");
    }

    #[test]
    fn what_no_peer_may_send_is_refused() {
        for (bytes, violation) in [
            (&b"\x08"[..], Violation::FrameType(8)),
            (b"\x00", Violation::FrameType(0)),
            (
                b"\x01\0\0\0\x01\x40\x01\0\0\0\0\0\0\0\0",
                Violation::FrameLength(0x4001),
            ),
            (
                b"\x01\0\0\0\x01\0\x02\xff\xff\xff\xff\xff\xff\xff\xff",
                Violation::FrameLength(2),
            ),
            (b"\x03\0\0\0\x01\x04\x01", Violation::FrameLength(1025)),
            (b"\x04\0\0\0\x01\0\x01\xff", Violation::Text),
        ] {
            let mut parser = Parser::default();
            parser.push(bytes);
            assert_eq!(parser.next(), Err(violation), "{bytes:?}");
        }
    }
}
