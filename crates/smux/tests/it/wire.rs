//! An observer that reads a session's output with a parser of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use smux::{MuxRole, StreamId};

use crate::support::Rng;

/// Data of every stream: the same text for all, from another offset in each direction of each
/// stream, so that a byte in the wrong place or stream is noticed.
#[derive(Clone)]
pub(crate) struct Content {
    text: Bytes,
}

impl Content {
    /// A prime, so that a loss in blocks is noticed.
    const PERIOD: usize = 65_521;

    pub(crate) fn new() -> Self {
        let once = Rng(0xC0_FFEE).bytes(Self::PERIOD);
        Self {
            text: once.repeat(3).into(),
        }
    }

    /// Returns `len` bytes (at most two periods) from `offset` of the data that `speaker` sends on
    /// a stream.
    pub(crate) fn piece(&self, speaker: MuxRole, id: StreamId, offset: usize, len: usize) -> Bytes {
        let direction = 2 * u64::from(id.get()) + u64::from(speaker == MuxRole::Server);
        let start = Rng(direction).next() as usize % Self::PERIOD;
        let start = (start + offset) % Self::PERIOD;
        self.text.slice(start..start + len)
    }
}

/// A frame that has left the session, seen when its header was complete.
pub(crate) enum Said {
    Opened(StreamId),
    /// Data; with it `total` bytes of the stream have left. `split`: the header came in pieces.
    Data {
        id: StreamId,
        total: usize,
        split: bool,
    },
    Closed {
        id: StreamId,
        total: usize,
    },
    Nop,
}

#[derive(Default)]
struct Seen {
    total: usize,
    closed: bool,
}

/// All that one side has sent so far.
pub(crate) struct Wire {
    role: MuxRole,
    content: Content,
    header: Vec<u8>,
    /// Stream, offset and remaining bytes of the data that comes next.
    data: Option<(StreamId, usize, usize)>,
    streams: BTreeMap<StreamId, Seen>,
}

impl Wire {
    pub(crate) fn new(role: MuxRole, content: Content) -> Self {
        Self {
            role,
            content,
            header: Vec::new(),
            data: None,
            streams: BTreeMap::new(),
        }
    }

    pub(crate) fn role(&self) -> MuxRole {
        self.role
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        self.header.is_empty() && self.data.is_none()
    }

    /// Returns the data bytes of a stream in the frames so far.
    pub(crate) fn said(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, |seen| seen.total)
    }

    /// Reads on. Panics at bytes that no session may send.
    pub(crate) fn take(&mut self, mut packet: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        while !packet.is_empty() {
            if let Some((id, offset, left)) = self.data.take() {
                let (now, rest) = packet.split_at(left.min(packet.len()));
                packet = rest;
                let expected = self.content.piece(self.role, id, offset, now.len());
                assert!(expected == now, "stream {id} is sent wrong at {offset}");
                let left = left - now.len();
                self.data = (left > 0).then_some((id, offset + now.len(), left));
                continue;
            }
            let split = !self.header.is_empty();
            let (now, rest) = packet.split_at((8 - self.header.len()).min(packet.len()));
            packet = rest;
            self.header.extend_from_slice(now);
            if let &[version, command, l0, l1, i0, i1, i2, i3] = &self.header[..] {
                self.header.clear();
                assert_eq!(version, 1);
                let length = usize::from(l0) + 256 * usize::from(l1);
                let id = StreamId::new(u32::from_le_bytes([i0, i1, i2, i3]));
                said.push(self.frame(command, id, (length, split)));
            }
        }
        said
    }

    fn frame(&mut self, command: u8, id: StreamId, (length, split): (usize, bool)) -> Said {
        if command == 3 {
            assert_eq!((id.get(), length), (0, 0));
            return Said::Nop;
        }
        if command == 0 {
            assert!(id.get() >= 3 && id.get() % 2 == 1 && length == 0);
            let first = self.streams.insert(id, Seen::default()).is_none();
            assert!(first, "stream {id} is opened twice");
            return Said::Opened(id);
        }
        // The server's streams begin when the client's SYN arrives, which this observer does not
        // see.
        let known = self.role == MuxRole::Server || self.streams.contains_key(&id);
        assert!(known, "stream {id} is used before its SYN");
        let seen = self.streams.entry(id).or_default();
        assert!(!seen.closed, "stream {id} is used after its FIN");
        match command {
            1 => {
                assert_eq!(length, 0);
                seen.closed = true;
                Said::Closed {
                    id,
                    total: seen.total,
                }
            }
            2 => {
                assert!((1..=32_768).contains(&length), "{length} bytes in a frame");
                self.data = Some((id, seen.total, length));
                seen.total += length;
                Said::Data {
                    id,
                    total: seen.total,
                    split,
                }
            }
            other => panic!("command {other}"),
        }
    }
}
