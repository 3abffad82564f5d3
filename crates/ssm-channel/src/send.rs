//! The sending half: numbers, unacknowledged messages, and the due time of each.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::id::SequenceNumber;
use crate::rtt::Rtt;
use crate::window::{SendMark, SendWindow};

/// One message, from its push until it and all before it are acknowledged.
#[derive(Debug)]
struct QueuedMessage {
    /// All its bytes: it is repeated unchanged. Empty once it is acknowledged.
    message: Bytes,
    state: DeliveryState,
    /// The agent may not be ready for it yet: it is repeated sooner than others.
    early: bool,
}

#[derive(Debug, Clone, Copy)]
enum DeliveryState {
    /// Never handed out.
    Fresh,
    /// Handed out and not overdue: its due time is in the timers.
    UnderWay(SendTime),
    /// To be repeated.
    Again(SendTime),
    Acknowledged,
}

#[derive(Debug, Clone, Copy)]
struct SendTime {
    at: Duration,
    due: Duration,
    /// Doublings of its timeout.
    doublings: u32,
    /// Doublings when it is sent again: every repetition on a connection doubles the timeout.
    next_doublings: u32,
    /// Number of times it was handed out before.
    repetitions: u32,
    /// Its timeout is short because the agent may have dropped it; a loss says nothing about the
    /// path.
    quick: bool,
    /// Its round trip is no measurement: it was repeated, or a pause lies in between.
    tainted: bool,
    mark: SendMark,
}

/// Maximum number of quick repetitions of an early message: for a third of a second, or ten round
/// trips.
const QUICK_REPETITIONS: u32 = 10;

/// A message to send now.
#[derive(Debug)]
pub(crate) struct OutboundMessage {
    pub(crate) message: Bytes,
    pub(crate) repeated: bool,
}

/// The used numbers, the unacknowledged messages, and the due time of each. Outlives a connection.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    /// The number of the first entry.
    first: u64,
    /// The window limits the distance between the first and the last one.
    entries: VecDeque<QueuedMessage>,
    /// Entries without acknowledgement.
    in_flight: usize,
    /// The first number that was never handed out; all later ones were not either.
    fresh: u64,
    /// To be repeated, oldest first.
    again: BTreeSet<u64>,
    /// The messages under way, by due time: every message has its own.
    timers: BTreeSet<(Duration, u64)>,
    rtt: Rtt,
    window: SendWindow,
}

impl SendBuffer {
    pub(crate) fn new(window: SendWindow) -> Self {
        Self {
            first: 0,
            entries: VecDeque::new(),
            in_flight: 0,
            fresh: 0,
            again: BTreeSet::new(),
            timers: BTreeSet::new(),
            rtt: Rtt::default(),
            window,
        }
    }

    /// Returns the number that the next pushed message must carry.
    pub(crate) fn next_number(&self) -> SequenceNumber {
        SequenceNumber::new(self.first + self.entries.len() as u64)
    }

    /// Returns the number of further messages that the window takes.
    pub(crate) fn room(&self) -> usize {
        self.window.room(self.in_flight, self.entries.len() as u64)
    }

    /// Takes a complete message with the number [`SendBuffer::next_number`]. Ignores the window: data
    /// does not hold up the handshake and the terminate flag.
    pub(crate) fn push(&mut self, message: Bytes) {
        self.push_entry(message, false);
    }

    /// Takes a message that the agent may silently drop because its port handler is not ready. It
    /// is repeated a few times after little more than a round trip, and its timeout does not count
    /// as a loss.
    pub(crate) fn push_early(&mut self, message: Bytes) {
        self.push_entry(message, true);
    }

    fn push_entry(&mut self, message: Bytes, early: bool) {
        self.entries.push_back(QueuedMessage {
            message,
            state: DeliveryState::Fresh,
            early,
        });
        self.in_flight += 1;
    }

    /// Records the acknowledgement of a message. Returns false when there is no message of that
    /// number to acknowledge: acknowledged before, or never sent.
    pub(crate) fn acknowledge(&mut self, now: Duration, number: SequenceNumber) -> bool {
        let number = number.get();
        let Some(entry) = self.entry(number) else {
            return false;
        };
        let sent = match entry.state {
            DeliveryState::Fresh | DeliveryState::Acknowledged => return false,
            DeliveryState::UnderWay(sent) | DeliveryState::Again(sent) => sent,
        };
        entry.state = DeliveryState::Acknowledged;
        entry.message = Bytes::new();
        self.in_flight -= 1;
        if !self.timers.remove(&(sent.due, number)) {
            self.again.remove(&number);
        }
        // Karn's algorithm: the acknowledgement of a repeated message does not tell which copy
        // arrived.
        let trip = (!sent.tainted).then(|| now.saturating_sub(sent.at));
        if let Some(trip) = trip {
            self.rtt.measured(trip);
        }
        self.window.acknowledged(now, sent.mark, trip);
        while let Some(QueuedMessage {
            state: DeliveryState::Acknowledged,
            ..
        }) = self.entries.front()
        {
            self.entries.pop_front();
            self.first += 1;
        }
        true
    }

    /// Marks overdue messages to be repeated.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some(&(due, number)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let Some(entry) = self.entry(number) else {
                continue;
            };
            if let DeliveryState::UnderWay(sent) = entry.state {
                entry.state = DeliveryState::Again(sent);
                self.again.insert(number);
                if sent.quick {
                    continue;
                }
                if !sent.tainted {
                    self.rtt.expired(sent.doublings);
                }
                self.window.expired(sent.mark);
            }
        }
    }

    /// Returns the time at which the next message becomes overdue.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Returns the next message to send, as far as the window allows: overdue ones first, then new
    /// ones.
    pub(crate) fn next_outbound(&mut self, now: Duration) -> Option<OutboundMessage> {
        if !self.window.may_hand_out(self.timers.len()) {
            return None;
        }
        match self.again.pop_first() {
            Some(number) => self.hand_out(now, number),
            None => self.next_fresh(now),
        }
    }

    /// Returns the next message that was never sent, regardless of the window.
    pub(crate) fn next_fresh(&mut self, now: Duration) -> Option<OutboundMessage> {
        let number = self.fresh;
        let outbound = self.hand_out(now, number)?;
        self.fresh += 1;
        Some(outbound)
    }

    fn hand_out(&mut self, now: Duration, number: u64) -> Option<OutboundMessage> {
        let (under_way, in_flight) = (self.timers.len(), self.in_flight);
        let entry = self.entry(number)?;
        let (early, before) = match entry.state {
            DeliveryState::Fresh => (entry.early, None),
            DeliveryState::UnderWay(sent) | DeliveryState::Again(sent) => (entry.early, Some(sent)),
            DeliveryState::Acknowledged => return None,
        };
        let doublings = self
            .rtt
            .doublings(before.map_or(0, |sent| sent.next_doublings));
        let repetitions = before.map_or(0, |sent| sent.repetitions + 1);
        let quick = early && repetitions < QUICK_REPETITIONS;
        let sent = SendTime {
            at: now,
            due: now
                + if quick {
                    self.rtt.quick()
                } else {
                    self.rtt.timeout(doublings)
                },
            doublings,
            next_doublings: if quick { doublings } else { doublings + 1 },
            repetitions,
            quick,
            tainted: before.is_some(),
            mark: self.window.handed_out(under_way, in_flight),
        };
        self.timers.insert((sent.due, number));
        let entry = self.entry(number)?;
        entry.state = DeliveryState::UnderWay(sent);
        Some(OutboundMessage {
            message: entry.message.clone(),
            repeated: before.is_some(),
        })
    }

    /// Handles a pause of the other side: messages under way say nothing about the path.
    pub(crate) fn pause(&mut self) {
        for entry in &mut self.entries {
            if let DeliveryState::UnderWay(sent) = &mut entry.state {
                sent.tainted = true;
            }
        }
    }

    /// Handles the loss of the connection: all messages under way are repeated, on a connection
    /// with an unknown path.
    pub(crate) fn disconnect(&mut self) {
        self.timers.clear();
        for (number, entry) in (self.first..).zip(&mut self.entries) {
            if let DeliveryState::UnderWay(mut sent) | DeliveryState::Again(mut sent) = entry.state
            {
                sent.next_doublings = 0;
                sent.tainted = true;
                entry.state = DeliveryState::Again(sent);
                self.again.insert(number);
            }
        }
        self.rtt.forget_losses();
        self.window.restart();
    }

    fn entry(&mut self, number: u64) -> Option<&mut QueuedMessage> {
        let place = number.checked_sub(self.first)?;
        self.entries.get_mut(usize::try_from(place).ok()?)
    }

    /// Returns the number of messages without acknowledgement, sent or not.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    pub(crate) fn window(&self) -> &SendWindow {
        &self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn number(n: u64) -> SequenceNumber {
        SequenceNumber::new(n)
    }

    fn sender_with(messages: u8) -> SendBuffer {
        let mut outgoing = SendBuffer::new(SendWindow::new(4));
        for n in 0..messages {
            outgoing.push(Bytes::from(vec![n]));
        }
        outgoing
    }

    fn sent_at(outgoing: &mut SendBuffer, at: u64) -> Vec<(u8, bool)> {
        outgoing.expire(ms(at));
        let next = || {
            outgoing
                .next_outbound(ms(at))
                .map(|out| (out.message[0], out.repeated))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn every_message_has_its_own_due_time() {
        let mut outgoing = sender_with(1);
        assert_eq!(sent_at(&mut outgoing, 0), [(0, false)]);
        outgoing.push(Bytes::from_static(&[1]));
        assert_eq!(sent_at(&mut outgoing, 50), [(1, false)]);
        outgoing.push(Bytes::from_static(&[2]));
        assert_eq!(sent_at(&mut outgoing, 100), [(2, false)]);
        assert!(outgoing.acknowledge(ms(120), number(1)));
        assert_eq!(outgoing.next_due(), Some(ms(200)));
        assert_eq!(sent_at(&mut outgoing, 199), []);
        assert_eq!(sent_at(&mut outgoing, 200), [(0, true)]);
        assert_eq!(outgoing.next_due(), Some(ms(300)));
        assert_eq!(sent_at(&mut outgoing, 300), [(2, true)]);
        assert_eq!(
            outgoing.next_due(),
            Some(ms(200 + 2 * (70 + 200))),
            "measured, doubled"
        );
    }

    #[test]
    fn an_early_message_is_repeated_quickly_and_counts_as_no_loss() {
        let mut outgoing = sender_with(1);
        sent_at(&mut outgoing, 0);
        outgoing.acknowledge(ms(2), number(0));
        outgoing.push_early(Bytes::from_static(&[1]));
        assert_eq!(sent_at(&mut outgoing, 10), [(1, false)]);
        let mut sent = Vec::new();
        for at in 11..2_000 {
            sent.extend(sent_at(&mut outgoing, at).into_iter().map(|_| at));
        }
        let quick: Vec<u64> = (1..=10).map(|n| 10 + 30 * n).collect();
        assert_eq!(sent[..10], quick);
        // From then on like any other message.
        assert_eq!(sent[10..13], [512, 916, 1724]);
        assert!(outgoing.acknowledge(ms(2_000), number(1)));
        assert_eq!(outgoing.rtt().smoothed(), Some(ms(2)));
    }

    #[test]
    fn overdue_messages_come_before_new_ones() {
        let mut outgoing = sender_with(2);
        assert_eq!(sent_at(&mut outgoing, 0), [(0, false), (1, false)]);
        outgoing.push(Bytes::from_static(&[2]));
        assert_eq!(
            sent_at(&mut outgoing, 200),
            [(0, true), (1, true), (2, false)]
        );
    }

    #[test]
    fn an_acknowledged_message_is_gone_even_when_it_was_to_be_repeated() {
        let mut outgoing = sender_with(2);
        sent_at(&mut outgoing, 0);
        outgoing.expire(ms(200));
        assert!(outgoing.acknowledge(ms(201), number(0)));
        assert!(!outgoing.acknowledge(ms(201), number(0)));
        assert_eq!(sent_at(&mut outgoing, 202), [(1, true)]);
        assert!(outgoing.acknowledge(ms(203), number(1)));
        assert_eq!((outgoing.in_flight(), outgoing.next_due()), (0, None));
        let measured = outgoing.rtt().smoothed();
        assert_eq!(
            measured,
            Some(ms(201)),
            "only the one sent once is measured"
        );
    }

    #[test]
    fn numbers_that_were_not_sent_cannot_be_acknowledged() {
        let mut outgoing = sender_with(1);
        assert!(!outgoing.acknowledge(ms(0), number(0)));
        assert!(!outgoing.acknowledge(ms(0), number(1)));
        assert_eq!(sent_at(&mut outgoing, 0), [(0, false)]);
    }

    #[test]
    fn the_window_counts_all_and_the_oldest_limits_the_span() {
        let mut outgoing = sender_with(3);
        assert_eq!(outgoing.room(), 1);
        sent_at(&mut outgoing, 0);
        outgoing.push(Bytes::new());
        outgoing.push(Bytes::new());
        assert_eq!((outgoing.room(), outgoing.in_flight()), (0, 5));
        // All but the first arrive, for a long time.
        let mut taken = 0;
        for n in 1..20_000 {
            if outgoing.room() > 0 {
                outgoing.push(Bytes::new());
                taken += 1;
            }
            while outgoing.next_fresh(ms(0)).is_some() {}
            outgoing.acknowledge(ms(0), number(n));
        }
        assert!((8000..8192).contains(&taken), "{taken}");
        assert_eq!(outgoing.in_flight(), 1);
        outgoing.acknowledge(ms(0), number(0));
        assert_eq!(outgoing.room(), 4);
    }

    #[test]
    fn a_lost_connection_is_not_measured_and_its_losses_are_forgotten() {
        let mut outgoing = sender_with(2);
        sent_at(&mut outgoing, 0);
        outgoing.expire(ms(200));
        assert_eq!(outgoing.rtt().current(), ms(400));
        outgoing.disconnect();
        assert_eq!(outgoing.rtt().current(), ms(200));
        assert_eq!(outgoing.next_due(), None);
        assert!(outgoing.acknowledge(ms(60_000), number(0)));
        assert_eq!(sent_at(&mut outgoing, 60_000), [(1, true)]);
        assert_eq!(outgoing.next_due(), Some(ms(60_200)));
        assert!(outgoing.acknowledge(ms(60_001), number(1)));
        assert_eq!(outgoing.rtt().smoothed(), None);
    }

    #[test]
    fn a_pause_is_not_measured() {
        let mut outgoing = sender_with(1);
        sent_at(&mut outgoing, 0);
        outgoing.pause();
        assert!(outgoing.acknowledge(ms(60_000), number(0)));
        assert_eq!(outgoing.rtt().smoothed(), None);
    }
}
