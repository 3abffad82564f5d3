//! What lies between the client and the agent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;

use super::plan::{Network, ms};
use crate::random::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum To {
    Client,
    Agent,
}

/// A message under way: when it arrives, in which order among equals, where, on which of the
/// client's connections (if that matters), and what.
type Flight = (Duration, u64, To, Option<u32>, Bytes);

pub(super) struct Link {
    network: Network,
    flights: BinaryHeap<Reverse<Flight>>,
    counter: u64,
    /// Counts the client's connections.
    connection: u32,
}

impl Link {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            flights: BinaryHeap::new(),
            counter: 0,
            connection: 0,
        }
    }

    /// The client's connection is lost, with all that is on its way to the client.
    pub(super) fn cut(&mut self) {
        self.connection += 1;
    }

    /// A message between the two, which may fare ill.
    pub(super) fn post(&mut self, rng: &mut Rng, now: Duration, to: To, message: Bytes) {
        let network = self.network;
        if rng.chance(network.loss) {
            return;
        }
        for _ in 0..1 + usize::from(rng.chance(network.duplication)) {
            let mut delay = network.delay + rng.next() % (network.jitter + 1);
            if rng.chance(network.reordering) {
                delay += rng.next() % 200;
            }
            self.push(
                (now + ms(delay), to, Some(self.connection)),
                message.clone(),
            );
        }
    }

    /// A word of the service itself, which arrives.
    pub(super) fn announce(&mut self, now: Duration, to: To, message: Bytes) {
        let connection = (to == To::Client).then_some(self.connection);
        self.push((now + ms(self.network.delay), to, connection), message);
    }

    fn push(&mut self, (at, to, connection): (Duration, To, Option<u32>), message: Bytes) {
        self.counter += 1;
        let flight = (at, self.counter, to, connection, message);
        self.flights.push(Reverse(flight));
    }

    pub(super) fn next_arrival(&self) -> Option<Duration> {
        self.flights.peek().map(|Reverse(flight)| flight.0)
    }

    /// What has arrived by now. Of the messages of a lost connection, half had passed the service
    /// and reach the agent.
    pub(super) fn arrived(&mut self, rng: &mut Rng, now: Duration) -> Option<(To, Bytes)> {
        while self.next_arrival().is_some_and(|at| at <= now) {
            let Reverse((_, _, to, connection, message)) = self.flights.pop()?;
            let current = connection.is_none_or(|connection| connection == self.connection);
            if current || (to == To::Agent && rng.chance(50)) {
                return Some((to, message));
            }
        }
        None
    }
}
