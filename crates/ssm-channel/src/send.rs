//! The sending half: numbers, the unacknowledged messages, and when each is due again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::id::SequenceNumber;
use crate::rtt::Rtt;
use crate::window::Window;

/// One message that has no acknowledgement yet.
#[derive(Debug)]
struct Unacked {
    /// All its bytes: it is repeated exactly as it was.
    message: Bytes,
    /// When it was last handed out; `None` before the first time.
    sent: Option<Sent>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Duration,
    /// When it is due again; its key in the timers unless it is already waiting in `again`.
    due: Duration,
    times: u32,
    /// The round trip tells nothing: a pause lies in between.
    tainted: bool,
}

/// A message that is to be sent now.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) message: Bytes,
    pub(crate) repeated: bool,
}

/// Which numbers are used, which messages are unacknowledged, and when each of them is due again.
/// Knows nothing of connections, so it can outlive one.
#[derive(Debug)]
pub(crate) struct Outgoing {
    next: SequenceNumber,
    unacked: BTreeMap<SequenceNumber, Unacked>,
    /// Never sent, in order.
    fresh: VecDeque<SequenceNumber>,
    /// Overdue, to be sent again, oldest first.
    again: BTreeSet<SequenceNumber>,
    /// Sent and not overdue, by due time: every message has its own.
    timers: BTreeSet<(Duration, SequenceNumber)>,
    rtt: Rtt,
    window: Window,
}

impl Outgoing {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            next: SequenceNumber::FIRST,
            unacked: BTreeMap::new(),
            fresh: VecDeque::new(),
            again: BTreeSet::new(),
            timers: BTreeSet::new(),
            rtt: Rtt::default(),
            window,
        }
    }

    /// The number the next pushed message must carry.
    pub(crate) fn next_number(&self) -> SequenceNumber {
        self.next
    }

    /// How many more messages the window takes.
    pub(crate) fn room(&self) -> usize {
        let oldest = self
            .unacked
            .first_key_value()
            .map_or(self.next, |(number, _)| *number);
        self.window
            .room(self.unacked.len(), self.next.get() - oldest.get())
    }

    /// Takes a complete message with the number [`Outgoing::next_number`]. Does not look at the
    /// window: the handshake and the goodbye are not held up by data.
    pub(crate) fn push(&mut self, message: Bytes) {
        self.unacked.insert(
            self.next,
            Unacked {
                message,
                sent: None,
            },
        );
        self.fresh.push_back(self.next);
        self.next = self.next.next();
    }

    /// The agent has this message. False when there is nothing of that number to acknowledge:
    /// acknowledged before, or never sent.
    pub(crate) fn acknowledge(&mut self, now: Duration, number: SequenceNumber) -> bool {
        let Some(sent) = self.unacked.get(&number).and_then(|entry| entry.sent) else {
            return false;
        };
        self.unacked.remove(&number);
        self.again.remove(&number);
        self.timers.remove(&(sent.due, number));
        // Karn's algorithm: nobody knows which copy of a repeated message is acknowledged.
        if sent.times == 1 && !sent.tainted {
            self.rtt.measured(now.saturating_sub(sent.at));
        }
        true
    }

    /// Marks overdue messages to be sent again.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some(&(due, number)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            self.again.insert(number);
            if let Some(sent) = self.unacked.get(&number).and_then(|entry| entry.sent) {
                self.rtt.expired(sent.times);
            }
        }
    }

    /// When the next message becomes overdue.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The next message to send: overdue ones first, then new ones.
    pub(crate) fn next_outbound(&mut self, now: Duration) -> Option<Outbound> {
        match self.again.pop_first() {
            Some(number) => self.hand_out(now, number),
            None => self.next_fresh(now),
        }
    }

    /// The next message that was never sent.
    pub(crate) fn next_fresh(&mut self, now: Duration) -> Option<Outbound> {
        let number = self.fresh.pop_front()?;
        self.hand_out(now, number)
    }

    fn hand_out(&mut self, now: Duration, number: SequenceNumber) -> Option<Outbound> {
        let entry = self.unacked.get_mut(&number)?;
        let times = entry.sent.map_or(0, |sent| sent.times).saturating_add(1);
        let tainted = entry.sent.is_some_and(|sent| sent.tainted);
        let due = now + self.rtt.timeout(times);
        entry.sent = Some(Sent {
            at: now,
            due,
            times,
            tainted,
        });
        self.timers.insert((due, number));
        Some(Outbound {
            message: entry.message.clone(),
            repeated: times > 1,
        })
    }

    /// The other side goes away for a while: what is under way says nothing about the path.
    pub(crate) fn pause(&mut self) {
        for sent in self
            .unacked
            .values_mut()
            .filter_map(|entry| entry.sent.as_mut())
        {
            sent.tainted = true;
        }
    }

    /// Messages without acknowledgement, sent or not.
    pub(crate) fn in_flight(&self) -> usize {
        self.unacked.len()
    }

    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
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

    fn sender_with(messages: u8) -> Outgoing {
        let mut outgoing = Outgoing::new(Window::new(4));
        for n in 0..messages {
            outgoing.push(Bytes::from(vec![n]));
        }
        outgoing
    }

    fn sent_at(outgoing: &mut Outgoing, at: u64) -> Vec<(u8, bool)> {
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
            Some(ms(200 + 2 * (70 + 4 * 35))),
            "measured, doubled"
        );
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
        // All but the first get through, for a long time.
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
    fn a_pause_is_not_measured() {
        let mut outgoing = sender_with(1);
        sent_at(&mut outgoing, 0);
        outgoing.pause();
        assert!(outgoing.acknowledge(ms(60_000), number(0)));
        assert_eq!(outgoing.rtt().smoothed(), None);
    }
}
