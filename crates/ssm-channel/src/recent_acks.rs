//! Acknowledgements that may have to be repeated.
//!
//! The agent repeats only its oldest unacknowledged message, at most one per 100 ms and round trip.
//! Each acknowledgement that it has not received costs one such turn, and everything that is really
//! missing waits behind it. Acknowledgements get lost in two ways:
//! - with a connection: those in its buffers, under way or at the service when it broke;
//! - at the agent, which sends a message before it records that it has sent it.
//!
//! The agent removes an acknowledged message by its number and ignores acknowledgements of others
//! (amazon-ssm-agent, `ProcessAcknowledgedMessage`), so repeating one does no harm.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::id::{MessageId, SequenceNumber};

/// Number of processed messages with kept ids: more than 5 s of the agent's 1 message per ms.
const RECENT: usize = 8_192;
/// Acknowledgements repeated on a new connection: more than a path with a round trip of 300 ms
/// holds.
const AFTER_RECONNECT: usize = 512;
/// Age from which an acknowledgement has arrived or is useless: twice as long as a dead connection
/// may go unnoticed.
const ARRIVED: Duration = Duration::from_secs(60);
/// Acknowledgements repeated with that of a duplicate.
const WITH_DUPLICATE: usize = 256;
/// Shortest time between two such series. The agent repeats one message per 100 ms.
const BETWEEN_SERIES: Duration = Duration::from_millis(50);

/// The messages acknowledged lately.
#[derive(Debug, Default)]
pub(crate) struct RecentAcks {
    /// By number: all that wait for an earlier one, and [`RECENT`] others.
    ids: BTreeMap<SequenceNumber, MessageId>,
    /// The acknowledgements handed out last, with their times. Oldest first.
    handed_out: VecDeque<(Duration, MessageId, SequenceNumber)>,
    /// Time at which numbers above a duplicate were last acknowledged again.
    last_series: Option<Duration>,
}

impl RecentAcks {
    /// Records a message that has arrived. `waiting`: number of messages that wait for an earlier
    /// one.
    pub(crate) fn arrived(&mut self, id: MessageId, sequence: SequenceNumber, waiting: usize) {
        self.ids.insert(sequence, id);
        while self.ids.len() > RECENT + waiting {
            self.ids.pop_first();
        }
    }

    /// Records an acknowledgement that leaves now.
    pub(crate) fn handed_out(&mut self, now: Duration, (id, of): (MessageId, SequenceNumber)) {
        if self.handed_out.len() == AFTER_RECONNECT {
            self.handed_out.pop_front();
        }
        self.handed_out.push_back((now, id, of));
    }

    /// Forgets the acknowledgements that had time to arrive before the connection was lost.
    pub(crate) fn disconnected(&mut self, now: Duration) {
        self.handed_out.retain(|(at, ..)| *at + ARRIVED >= now);
    }

    /// Takes the acknowledgements to repeat on a new connection, newest first.
    pub(crate) fn take_lost(&mut self) -> impl Iterator<Item = (MessageId, SequenceNumber)> {
        let lost = std::mem::take(&mut self.handed_out);
        lost.into_iter().rev().map(|(_, id, of)| (id, of))
    }

    /// Handles a duplicate of `sequence`: the agent lacks the acknowledgement of that message and
    /// perhaps of some above it. Returns the next received ones above it, unless that was done a
    /// moment ago: a flood of duplicates must not be multiplied.
    pub(crate) fn above(
        &mut self,
        now: Duration,
        sequence: SequenceNumber,
    ) -> Vec<(MessageId, SequenceNumber)> {
        let next = self.last_series.map(|at| at + BETWEEN_SERIES);
        if next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        let above = self.ids.range(sequence.next()..).take(WITH_DUPLICATE);
        let above: Vec<_> = above.map(|(of, id)| (*id, *of)).collect();
        if !above.is_empty() {
            self.last_series = Some(now);
        }
        above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn message(number: u64) -> (MessageId, SequenceNumber) {
        (MessageId::new(number.into()), SequenceNumber::new(number))
    }

    fn with(numbers: std::ops::Range<u64>) -> RecentAcks {
        let mut said = RecentAcks::default();
        for number in numbers {
            let (id, of) = message(number);
            said.arrived(id, of, 0);
        }
        said
    }

    #[test]
    fn keeps_those_that_wait_and_some_thousands_before() {
        let mut said = with(0..20_000);
        assert_eq!(said.ids.len(), RECENT);
        let (id, far) = message(1 << 40);
        for waiting in 1..=100 {
            said.arrived(
                id,
                SequenceNumber::new(far.get() + waiting),
                waiting as usize,
            );
        }
        assert_eq!(said.ids.len(), RECENT + 100);
        assert_eq!(
            said.ids.keys().next().unwrap().get(),
            20_000 - RECENT as u64
        );
    }

    #[test]
    fn those_above_a_duplicate_are_said_once_in_a_while() {
        let mut said = with(0..1_000);
        let above = said.above(ms(0), message(10).1);
        let expected: Vec<_> = (11..11 + WITH_DUPLICATE as u64).map(message).collect();
        assert_eq!(above, expected);
        assert_eq!(said.above(ms(49), message(500).1), []);
        assert_eq!(said.above(ms(50), message(998).1), [message(999)]);
        // An empty series does not start the waiting time.
        assert_eq!(said.above(ms(100), message(999).1), []);
        assert_eq!(said.above(ms(101), message(998).1), [message(999)]);
        assert_eq!(
            said.above(ms(500), SequenceNumber::new(u64::MAX)).len(),
            256
        );
    }

    #[test]
    fn a_lost_connection_takes_the_last_ones_with_it() {
        let mut said = RecentAcks::default();
        for number in 0..1_000 {
            said.handed_out(ms(number), message(number));
        }
        said.disconnected(ms(60_900));
        let lost: Vec<_> = said.take_lost().map(|(_, of)| of.get()).collect();
        assert_eq!(lost, (900..1_000).rev().collect::<Vec<_>>());
        assert_eq!(said.take_lost().count(), 0);
    }
}
