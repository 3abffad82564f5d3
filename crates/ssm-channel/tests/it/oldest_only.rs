//! Cost of a lost connection and of missed acknowledgements, with an agent that repeats only its
//! oldest unacknowledged message, once per 100 ms and round trip.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ssm_channel::{Channel, ChannelToken, PayloadType};

use crate::support::{established, from_agent, ms, sorted};

/// Interval at which the agent checks its oldest unacknowledged message, in milliseconds.
const CHECK: u64 = 100;
/// Interval at which it sends a new message, acknowledged or not, in milliseconds.
const PACE: u64 = 2;

/// One channel and one agent on a virtual clock of milliseconds.
struct Model {
    channel: Channel,
    now: u64,
    round_trip: u64,
    /// The agent misses the first acknowledgement of each multiple of this number.
    missing: Option<u64>,
    missed: BTreeSet<u64>,
    next: u64,
    unacked: BTreeMap<u64, (Bytes, u64)>,
    to_client: VecDeque<(u64, Bytes)>,
    to_agent: VecDeque<(u64, u64)>,
    repeated: u64,
}

impl Model {
    fn new(round_trip: u64, missing: Option<u64>) -> Self {
        Self {
            channel: established(),
            now: 0,
            round_trip,
            missing,
            missed: BTreeSet::new(),
            next: 2,
            unacked: BTreeMap::new(),
            to_client: VecDeque::new(),
            to_agent: VecDeque::new(),
            repeated: 0,
        }
    }

    fn step(&mut self) {
        self.now += 1;
        let arrives = self.now + self.round_trip / 2;
        if self.now.is_multiple_of(PACE) {
            let message = from_agent(self.next, PayloadType::Output, &[7; 100]);
            self.unacked.insert(self.next, (message.clone(), self.now));
            self.to_client.push_back((arrives, message));
            self.next += 1;
        }
        if self.now.is_multiple_of(CHECK)
            && let Some((message, sent)) = self.unacked.values_mut().next()
            && self.now >= *sent + 200.max(self.round_trip + 50)
        {
            *sent = self.now;
            self.to_client.push_back((arrives, message.clone()));
            self.repeated += 1;
        }
        while let Some((at, message)) = self.to_client.front()
            && *at <= self.now
        {
            let message = message.clone();
            self.channel.handle_message(ms(self.now), message).unwrap();
            self.to_client.pop_front();
        }
        while self.channel.poll_event().is_some() {}
        let (acks, _) = sorted(&mut self.channel, ms(self.now));
        self.to_agent
            .extend(acks.into_iter().map(|of| (arrives, of)));
        while let Some((at, of)) = self.to_agent.front().copied()
            && at <= self.now
        {
            self.to_agent.pop_front();
            let may_miss = self.missing.is_some_and(|nth| of.is_multiple_of(nth));
            if !(may_miss && self.missed.insert(of)) {
                self.unacked.remove(&of);
            }
        }
    }

    /// Loses the connection with everything under way on it, and reconnects.
    fn cut(&mut self) {
        self.to_client.clear();
        self.to_agent.clear();
        let (now, token) = (ms(self.now), ChannelToken::new("second".to_owned()));
        self.channel.disconnected(now);
        self.channel.reconnect(now, token, "2".to_owned()).unwrap();
        assert!(self.channel.poll_transmit(now).is_some(), "the opening");
    }
}

#[test]
fn only_what_is_missing_is_repeated_after_a_cut() {
    // On the longest path, one is due again while the acknowledgements are on their way.
    for (round_trip, due) in [(0, 0), (100, 0), (200, 1)] {
        let mut model = Model::new(round_trip, None);
        while model.now < 1_000 {
            model.step();
        }
        let before = model.next;
        model.cut();
        let cut_at = model.now;
        let missing = before - model.channel.stats().received;
        while model.unacked.keys().next().is_some_and(|of| *of < before) {
            model.step();
            assert!(model.now < cut_at + 60_000, "{round_trip} ms");
        }
        assert_eq!(model.repeated, missing + due, "{round_trip} ms");
        assert!(!model.channel.has_gap());
        assert_eq!(model.channel.stats().dropped, 0);
    }
}

#[test]
fn acknowledgements_that_the_agent_missed_do_not_pile_up() {
    for round_trip in [0, 20] {
        let mut model = Model::new(round_trip, Some(18));
        while model.now < 30_000 {
            model.step();
            assert!(
                model.unacked.len() < 60 + model.round_trip as usize / 2,
                "{round_trip} ms: {}",
                model.unacked.len()
            );
        }
        let old = model.now - 1_000;
        let old = model.unacked.values().filter(|(_, sent)| *sent < old);
        assert_eq!(old.count(), 0, "{round_trip} ms");
    }
}

#[test]
fn a_flood_of_duplicates_is_not_multiplied() {
    let mut channel = established();
    for number in 2..3_000 {
        let message = from_agent(number, PayloadType::Output, b"x");
        channel.handle_message(ms(0), message).unwrap();
        sorted(&mut channel, ms(0));
    }
    let mut acks = 0;
    for n in 0..20_000 {
        let message = from_agent(2 + n % 2_500, PayloadType::Output, b"x");
        channel.handle_message(ms(n / 20), message).unwrap();
        acks += sorted(&mut channel, ms(n / 20)).0.len();
    }
    // One each, and 256 per 50 ms of the second that it takes.
    assert!((20_000..=20_000 + 256 * 20).contains(&acks), "{acks}");
}
