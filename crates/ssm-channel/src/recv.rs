//! The receiving half: puts numbered messages in order.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::SequenceNumber;
use crate::kinds::PayloadType;

/// Handling of a message that has just arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// The next one: process it, then take [`ReceiveBuffer::next_ready`] until `None`; acknowledge.
    Next,
    /// An earlier one is missing. Kept; acknowledge.
    Kept,
    /// Received before. Acknowledge it again: the first acknowledgement may be lost, and without
    /// one the agent repeats the message forever.
    Duplicate,
    /// An earlier one is missing and there is no room. Do not acknowledge: the agent sends it
    /// again.
    NoRoom,
}

/// The numbers that have arrived, and the messages that wait for earlier ones. Independent of
/// connections, so it can outlive one.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    expected: SequenceNumber,
    waiting: BTreeMap<SequenceNumber, (PayloadType, Bytes)>,
    waiting_bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl ReceiveBuffer {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            expected: SequenceNumber::FIRST,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            max_messages,
            max_bytes,
        }
    }

    /// Classifies a message and keeps it if it came too early.
    pub(crate) fn offer(
        &mut self,
        sequence: SequenceNumber,
        payload_type: PayloadType,
        payload: &Bytes,
    ) -> Disposition {
        if sequence < self.expected || self.waiting.contains_key(&sequence) {
            return Disposition::Duplicate;
        }
        if sequence == self.expected {
            self.expected = sequence.next();
            return Disposition::Next;
        }
        let bytes = self.waiting_bytes + payload.len();
        if self.waiting.len() >= self.max_messages || bytes > self.max_bytes {
            return Disposition::NoRoom;
        }
        self.waiting_bytes = bytes;
        self.waiting
            .insert(sequence, (payload_type, payload.clone()));
        Disposition::Kept
    }

    /// Returns the next message in order, if it has been waiting.
    pub(crate) fn next_ready(&mut self) -> Option<(PayloadType, Bytes)> {
        let message = self.waiting.remove(&self.expected)?;
        self.expected = self.expected.next();
        self.waiting_bytes -= message.1.len();
        Some(message)
    }

    /// Returns the number of messages that wait for earlier ones.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(incoming: &mut ReceiveBuffer, number: u64) -> Disposition {
        let payload = Bytes::from(number.to_string());
        incoming.offer(SequenceNumber::new(number), PayloadType::Output, &payload)
    }

    #[test]
    fn orders_keeps_and_notices_repeats() {
        let mut incoming = ReceiveBuffer::new(10, 100);
        assert_eq!(offer(&mut incoming, 0), Disposition::Next);
        assert_eq!(offer(&mut incoming, 0), Disposition::Duplicate);
        assert_eq!(offer(&mut incoming, 2), Disposition::Kept);
        assert_eq!(offer(&mut incoming, 3), Disposition::Kept);
        assert_eq!(offer(&mut incoming, 2), Disposition::Duplicate);
        assert_eq!(incoming.next_ready(), None);
        assert_eq!(offer(&mut incoming, 1), Disposition::Next);
        let ready: Vec<_> = std::iter::from_fn(|| incoming.next_ready())
            .map(|m| m.1)
            .collect();
        assert_eq!(ready, ["2", "3"]);
        assert_eq!((incoming.waiting(), incoming.waiting_bytes), (0, 0));
        assert_eq!(offer(&mut incoming, 3), Disposition::Duplicate);
        assert_eq!(offer(&mut incoming, 4), Disposition::Next);
    }

    #[test]
    fn is_bounded_by_messages_and_by_bytes_but_always_takes_the_next() {
        let mut incoming = ReceiveBuffer::new(2, 100);
        assert_eq!(
            [5, 6, 7].map(|n| offer(&mut incoming, n))[1..],
            [Disposition::Kept, Disposition::NoRoom]
        );
        assert_eq!(offer(&mut incoming, 0), Disposition::Next);

        let mut incoming = ReceiveBuffer::new(10, 2);
        assert_eq!(
            [5, 6, 7].map(|n| offer(&mut incoming, n))[1..],
            [Disposition::Kept, Disposition::NoRoom]
        );
        assert_eq!(offer(&mut incoming, 0), Disposition::Next);
    }
}
