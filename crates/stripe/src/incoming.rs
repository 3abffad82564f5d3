//! The receiving half of a stream: puts frames in order within a window.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Violation;
use crate::frame::StreamId;

/// Window of a new stream in bytes. A sender starts with it, so it is part of the protocol.
pub const INITIAL_WINDOW: u64 = 256 * 1024;
/// Maximum window of a stream: what 16 sessions carry while a dead one is noticed, and what waits
/// in all of them.
pub const MAX_WINDOW: u64 = 8 * 1024 * 1024;
/// A reader that takes a whole window in less time gets a larger one.
const FAST: Duration = Duration::from_secs(1);

/// Received data of a stream.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Offset of the next byte in order.
    next: u64,
    /// Pieces behind a gap, by offset. They do not overlap.
    pieces: BTreeMap<u64, Bytes>,
    /// Length of the whole stream, if it is known.
    end: Option<u64>,
    /// The end was passed on.
    pub(crate) is_over: bool,
    /// Bytes that the reader has taken.
    consumed: u64,
    /// Bytes that the peer may send beyond those.
    window: u64,
    /// Limit as last reported.
    reported: u64,
    /// When, and at which offset, the reader began its current window.
    mark: (Duration, u64),
}

impl Incoming {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            next: 0,
            pieces: BTreeMap::new(),
            end: None,
            is_over: false,
            consumed: 0,
            window: INITIAL_WINDOW,
            reported: INITIAL_WINDOW,
            mark: (now, 0),
        }
    }

    /// Stores a piece. A piece that was received before is dropped.
    pub(crate) fn accept(
        &mut self,
        id: StreamId,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Violation> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.reported {
            let limit = self.reported;
            return Err(Violation::Window { id, end, limit });
        }
        if self.end.is_some_and(|last| end > last) {
            return Err(Violation::End(id));
        }
        if data.is_empty() || end <= self.next {
            return Ok(());
        }
        let before = self.pieces.range(..end).next_back();
        let known = before.map(|(start, piece)| (*start, start + piece.len() as u64));
        match known {
            // A frame is repeated as it was.
            Some((start, last)) if start == offset && last == end => return Ok(()),
            Some((_, last)) if last > offset => return Err(Violation::End(id)),
            _ if offset < self.next => return Err(Violation::End(id)),
            _ => {}
        }
        // A piece that has to wait must not keep the buffer alive that it arrived in.
        let piece = match offset == self.next {
            true => data,
            false => Bytes::copy_from_slice(&data),
        };
        self.pieces.insert(offset, piece);
        Ok(())
    }

    /// Takes the announced length of the stream.
    pub(crate) fn set_end(&mut self, id: StreamId, length: u64) -> Result<(), Violation> {
        let last = self.pieces.last_key_value();
        let received = last.map_or(self.next, |(start, piece)| start + piece.len() as u64);
        let is_other = self.end.is_some_and(|end| end != length);
        if is_other || length < received.max(self.next) {
            return Err(Violation::End(id));
        }
        self.end = Some(length);
        Ok(())
    }

    /// Returns the next piece in order.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let piece = self.pieces.remove(&self.next)?;
        self.next += piece.len() as u64;
        Some(piece)
    }

    /// Returns true once, when all data has been taken and no more will come.
    pub(crate) fn take_end(&mut self) -> bool {
        let ends = !self.is_over && self.end == Some(self.next);
        self.is_over |= ends;
        ends
    }

    /// Notes that the reader has taken `bytes`, and enlarges the window of a fast reader by at most
    /// `spare` bytes. Returns the growth.
    pub(crate) fn consume(&mut self, bytes: u64, spare: u64, now: Duration) -> u64 {
        self.consumed = self.consumed.saturating_add(bytes).min(self.next);
        if self.consumed - self.mark.1 < self.window {
            return 0;
        }
        let is_fast = now.saturating_sub(self.mark.0) < FAST;
        self.mark = (now, self.consumed);
        let growth = self.window.min(MAX_WINDOW - self.window).min(spare);
        let growth = if is_fast { growth } else { 0 };
        self.window += growth;
        growth
    }

    /// Returns the part of the window, in quarters, that the peer does not know to be free. Nothing
    /// needs to be reported after the end is known.
    pub(crate) fn unreported_quarters(&self) -> u64 {
        match self.end {
            Some(_) => 0,
            None => (self.limit() - self.reported) * 4 / self.window,
        }
    }

    /// Returns the limit, and notes that the peer knows it.
    pub(crate) fn report(&mut self) -> u64 {
        self.reported = self.limit();
        self.reported
    }

    /// Returns the window in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    fn limit(&self) -> u64 {
        self.consumed.saturating_add(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StreamId = StreamId(1);

    fn taken(incoming: &mut Incoming) -> Vec<u8> {
        std::iter::from_fn(|| incoming.take()).flatten().collect()
    }

    #[test]
    fn pieces_come_out_in_order_and_once() {
        let mut incoming = Incoming::new(Duration::ZERO);
        let piece = |data: &'static str| Bytes::from_static(data.as_bytes());
        incoming.accept(ID, 3, piece("def")).unwrap();
        incoming.accept(ID, 6, piece("g")).unwrap();
        assert_eq!(taken(&mut incoming), b"");
        incoming.accept(ID, 3, piece("def")).unwrap();
        incoming.accept(ID, 0, piece("abc")).unwrap();
        assert_eq!(taken(&mut incoming), b"abcdefg");
        incoming.accept(ID, 0, piece("abc")).unwrap();
        assert!(!incoming.take_end());
        incoming.set_end(ID, 9).unwrap();
        incoming.accept(ID, 7, piece("hi")).unwrap();
        assert!(!incoming.take_end());
        assert_eq!(taken(&mut incoming), b"hi");
        assert!(incoming.take_end());
        assert!(!incoming.take_end(), "once");
    }

    #[test]
    fn what_does_not_fit_is_a_violation() {
        let ten = || Bytes::from_static(&[0; 10]);
        let mut incoming = Incoming::new(Duration::ZERO);
        incoming.accept(ID, 20, ten()).unwrap();
        for offset in [11, 15, 21, 29] {
            assert_eq!(
                incoming.accept(ID, offset, ten()),
                Err(Violation::End(ID)),
                "{offset}"
            );
        }
        incoming.accept(ID, 0, ten()).unwrap();
        taken(&mut incoming);
        assert_eq!(incoming.accept(ID, 5, ten()), Err(Violation::End(ID)));
        assert!(matches!(
            incoming.accept(ID, INITIAL_WINDOW - 9, ten()),
            Err(Violation::Window { .. })
        ));
        assert_eq!(incoming.set_end(ID, 29), Err(Violation::End(ID)));
        incoming.set_end(ID, 31).unwrap();
        assert_eq!(incoming.set_end(ID, 32), Err(Violation::End(ID)));
        assert_eq!(incoming.accept(ID, 30, ten()), Err(Violation::End(ID)));
    }

    #[test]
    fn a_fast_reader_gets_a_larger_window_and_a_slow_one_does_not() {
        let whole = || Bytes::from(vec![0; usize::try_from(INITIAL_WINDOW).unwrap()]);
        for (at, growth) in [(999, INITIAL_WINDOW), (1_000, 0)] {
            let mut incoming = Incoming::new(Duration::ZERO);
            incoming.accept(ID, 0, whole()).unwrap();
            taken(&mut incoming);
            let now = Duration::from_millis(at);
            assert_eq!(incoming.consume(INITIAL_WINDOW, u64::MAX, now), growth);
            assert_eq!(incoming.report(), 2 * INITIAL_WINDOW + growth);
        }
        let mut incoming = Incoming::new(Duration::ZERO);
        incoming.accept(ID, 0, whole()).unwrap();
        taken(&mut incoming);
        assert_eq!(incoming.consume(INITIAL_WINDOW, 7, Duration::ZERO), 7);
    }
}
