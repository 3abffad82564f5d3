//! The sending half of a stream.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::frame::CHUNK;
use crate::incoming::INITIAL_WINDOW;

/// Bytes that a stream may queue before its writer has to wait.
pub(crate) const MAX_QUEUED: usize = 64 * 1024;

/// Data of a stream that was not yet put in frames.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Offset of the next frame.
    next: u64,
    /// End of the peer's window.
    limit: u64,
    /// The stream ends after what is queued.
    pub(crate) is_closing: bool,
    /// The end was put in a frame.
    pub(crate) end_framed: bool,
    /// Frames that were not yet reported as received, and their bytes.
    frames: usize,
    pub(crate) in_flight: u64,
    /// The writer waits for room.
    pub(crate) wants_room: bool,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            queued: 0,
            next: 0,
            limit: INITIAL_WINDOW,
            is_closing: false,
            end_framed: false,
            frames: 0,
            in_flight: 0,
            wants_room: false,
        }
    }

    /// Queues data.
    pub(crate) fn push(&mut self, data: Bytes) {
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Returns the number of bytes that may be queued now.
    pub(crate) fn room(&self) -> usize {
        MAX_QUEUED.saturating_sub(self.queued)
    }

    /// Returns the length of the next chunk; 0: nothing is queued, or the window is full.
    pub(crate) fn chunk_len(&self) -> usize {
        let window = self.limit.saturating_sub(self.next);
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        self.queued.min(CHUNK).min(window)
    }

    /// Returns true if data waits for the peer's reader.
    pub(crate) fn is_blocked(&self) -> bool {
        self.queued > 0 && self.next >= self.limit
    }

    /// Takes the next chunk and its offset.
    pub(crate) fn take(&mut self) -> (u64, Bytes) {
        let length = self.chunk_len();
        let offset = self.next;
        self.next += length as u64;
        self.queued -= length;
        (offset, self.cut(length))
    }

    fn cut(&mut self, length: usize) -> Bytes {
        if let Some(front) = self.queue.front_mut() {
            if front.len() > length {
                return front.split_to(length);
            }
            if front.len() == length {
                return self.queue.pop_front().unwrap_or_default();
            }
        }
        let mut joined = BytesMut::with_capacity(length);
        while joined.len() < length
            && let Some(mut piece) = self.queue.pop_front()
        {
            let rest = piece.split_off(piece.len().min(length - joined.len()));
            joined.extend_from_slice(&piece);
            if !rest.is_empty() {
                self.queue.push_front(rest);
            }
        }
        joined.freeze()
    }

    /// Returns the length of the whole stream, if its end is to be put in a frame now.
    pub(crate) fn take_end(&mut self) -> Option<u64> {
        let ends = self.is_closing && !self.end_framed && self.queued == 0;
        self.end_framed |= ends;
        ends.then_some(self.next)
    }

    /// Takes the end of the peer's window; returns true if it has moved.
    pub(crate) fn raise_limit(&mut self, limit: u64) -> bool {
        let moved = limit > self.limit;
        self.limit = self.limit.max(limit);
        moved
    }

    /// Notes a frame that was sent for the first time.
    pub(crate) fn framed(&mut self, bytes: u64) {
        self.frames += 1;
        self.in_flight += bytes;
    }

    /// Notes a frame that has arrived.
    pub(crate) fn settled(&mut self, bytes: u64) {
        self.frames = self.frames.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// Returns true if the peer has received everything, the end included.
    pub(crate) fn is_over(&self) -> bool {
        self.end_framed && self.frames == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_are_joined_and_large_ones_cut() {
        let mut outgoing = Outgoing::new();
        outgoing.push(Bytes::from_static(b"ab"));
        outgoing.push(Bytes::from(vec![b'c'; CHUNK]));
        outgoing.push(Bytes::from(vec![b'd'; 10]));
        assert_eq!(outgoing.room(), MAX_QUEUED - CHUNK - 12);
        let (offset, first) = outgoing.take();
        assert_eq!((offset, first.len()), (0, CHUNK));
        assert!(first.starts_with(b"abc"));
        outgoing.is_closing = true;
        assert_eq!(outgoing.take_end(), None);
        let (offset, second) = outgoing.take();
        assert_eq!(offset, CHUNK as u64);
        assert_eq!(&second[..], b"ccdddddddddd");
        assert_eq!(outgoing.take_end(), Some(CHUNK as u64 + 12));
        assert_eq!(outgoing.take_end(), None);
    }

    #[test]
    fn the_window_bounds_the_chunks() {
        let mut outgoing = Outgoing::new();
        outgoing.next = INITIAL_WINDOW - 3;
        outgoing.push(Bytes::from_static(b"abcdef"));
        assert_eq!(&outgoing.take().1[..], b"abc");
        assert!(outgoing.is_blocked());
        assert_eq!(outgoing.chunk_len(), 0);
        assert!(!outgoing.raise_limit(INITIAL_WINDOW));
        assert!(outgoing.raise_limit(INITIAL_WINDOW + 1));
        assert_eq!(&outgoing.take().1[..], b"d");
    }
}
