//! Received bytes of one stream that its reader has not taken.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

/// Size of the buffers that gather what a slow reader leaves.
const GATHERED: usize = 16 * 1024;

/// Bytes in order. The first piece may share the buffer that it arrived in; later ones are copied,
/// so that a slow reader keeps alive no more than its window.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    first: Bytes,
    rest: VecDeque<BytesMut>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.first = data;
            return;
        }
        let fits = |last: &&mut BytesMut| last.capacity() - last.len() >= data.len();
        match self.rest.back_mut().filter(fits) {
            Some(last) => last.extend_from_slice(&data),
            None => {
                let mut next = BytesMut::with_capacity(GATHERED.max(data.len()));
                next.extend_from_slice(&data);
                self.rest.push_back(next);
            }
        }
    }

    /// Takes the first piece; empty: there is none.
    pub(super) fn take(&mut self) -> Bytes {
        let next = self.rest.pop_front().unwrap_or_default();
        std::mem::replace(&mut self.first, next.freeze())
    }

    /// Moves bytes to a reader's buffer and returns their number.
    pub(super) fn read(&mut self, buffer: &mut ReadBuf<'_>) -> usize {
        let before = buffer.remaining();
        while !self.is_empty() && buffer.remaining() > 0 {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..length]);
            self.first.advance(length);
            if self.first.is_empty() {
                self.take();
            }
        }
        before - buffer.remaining()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_however_they_are_read() {
        let all: Vec<u8> = (0..100_000_u32)
            .map(|n| n.to_le_bytes()[0] ^ (n >> 8) as u8)
            .collect();
        for (piece, read) in [(1, 7), (4096, 5000), (700, 1), (5000, 100_000)] {
            let mut inbox = Inbox::default();
            let mut got = Vec::new();
            let mut buffer = vec![0; read];
            for (number, data) in all.chunks(piece).enumerate() {
                inbox.push(Bytes::copy_from_slice(data));
                if number % 3 == 0 {
                    let mut into = ReadBuf::new(&mut buffer);
                    assert_eq!(inbox.read(&mut into), into.filled().len());
                    got.extend_from_slice(into.filled());
                }
                if number % 7 == 0 {
                    got.extend_from_slice(&inbox.take());
                }
            }
            while !inbox.is_empty() {
                got.extend_from_slice(&inbox.take());
            }
            assert!(got == all, "{piece} {read}");
        }
    }

    #[test]
    fn a_slow_reader_holds_little_more_than_its_bytes() {
        let mut inbox = Inbox::default();
        let arrived = Bytes::from(vec![1; 1 << 20]);
        for at in 0..1000 {
            inbox.push(arrived.slice(at * 100..at * 100 + 100));
        }
        let held: usize = inbox.rest.iter().map(BytesMut::capacity).sum();
        assert!((99_900..120_000).contains(&held), "{held}");
    }
}
