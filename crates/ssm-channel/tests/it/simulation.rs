//! A channel and an agent with a bad network between them, on a virtual clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;
use ssm_channel::{Channel, Event, MAX_PAYLOAD, MessageType, Transmit};

use crate::agent::Agent;
use crate::support::{Rng, config, from_service, ms};

/// How bad the network is, in percent of the messages, and how long it takes.
#[derive(Debug, Clone, Copy)]
struct Link {
    loss: u64,
    duplication: u64,
    reordering: u64,
    delay_ms: u64,
    jitter_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Client,
    Agent,
}

/// A message under way: when it arrives, in which order among equals, where, and what.
type Flight = Reverse<(Duration, u64, To, Bytes)>;

struct Plan {
    seed: u64,
    link: Link,
    client_bytes: usize,
    agent_bytes: usize,
    window: usize,
    reorder: usize,
    pauses: bool,
}

struct World {
    rng: Rng,
    link: Link,
    now: Duration,
    flights: BinaryHeap<Flight>,
    counter: u64,
    channel: Channel,
    agent: Agent,
    script: Vec<u8>,
    sent: usize,
    heard: Vec<u8>,
    established: bool,
    paused: bool,
    next_word: Duration,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut rng = Rng(plan.seed);
        let mut config = config(plan.seed);
        // The worst plan needs longer than 15 s for its handshake now and then.
        config.handshake_timeout = ms(600_000);
        config.send_window = plan.window;
        config.reorder_messages = plan.reorder;
        let script = rng.bytes(plan.client_bytes);
        let agent = Agent::new(rng.bytes(plan.agent_bytes), ms(rng.below(300)));
        let mut world = Self {
            link: plan.link,
            now: ms(0),
            flights: BinaryHeap::new(),
            counter: 0,
            channel: Channel::new(config, ms(0)),
            agent,
            script,
            sent: 0,
            heard: Vec::new(),
            established: false,
            paused: false,
            next_word: ms(0),
            rng,
        };
        world.agent.start();
        world.schedule_pauses(plan);
        let text = world.channel.poll_transmit(ms(0));
        assert!(matches!(text, Some(Transmit::Text(_))));
        world
    }

    /// The service's own messages are not lost, but may find the channel in any state.
    fn schedule_pauses(&mut self, plan: &Plan) {
        if !plan.pauses {
            return;
        }
        for n in 0..5 {
            let at = ms(1000 * n + self.rng.below(800));
            for (at, name) in [
                (at, "pause_publication"),
                (at + ms(150), "start_publication"),
            ] {
                self.counter += 1;
                let message = from_service(name, "");
                self.flights
                    .push(Reverse((at, self.counter, To::Client, message)));
            }
        }
    }

    fn post(&mut self, to: To, message: Bytes) {
        if self.rng.chance(self.link.loss) {
            return;
        }
        let copies = if self.rng.chance(self.link.duplication) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = self.link.delay_ms + self.rng.below(self.link.jitter_ms + 1);
            if self.rng.chance(self.link.reordering) {
                delay += self.rng.below(200);
            }
            self.counter += 1;
            let flight = (self.now + ms(delay), self.counter, to, message.clone());
            self.flights.push(Reverse(flight));
        }
    }

    /// Both ends do what they can at this moment.
    fn settle(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::Established { .. } => {
                    assert!(!self.established);
                    self.established = true;
                }
                Event::Output(bytes) => self.heard.extend_from_slice(&bytes),
                Event::Paused => self.paused = true,
                Event::Restarted => self.paused = false,
                other => panic!("{other:?}"),
            }
        }
        while self.sent < self.script.len() && self.channel.sendable() > 0 {
            let len = 1 + self.rng.below(MAX_PAYLOAD as u64) as usize;
            let end = self.script.len().min(self.sent + len);
            let payload = Bytes::copy_from_slice(&self.script[self.sent..end]);
            self.channel.send(self.now, payload).unwrap();
            self.sent = end;
        }
        while let Some(Transmit::Binary(bytes)) = self.channel.poll_transmit(self.now) {
            let data = bytes[4..].starts_with(MessageType::InputStreamData.as_str().as_bytes());
            assert!(!(data && self.paused), "data during a pause");
            self.post(To::Agent, bytes);
        }
        // One message per millisecond, as the real agent paces itself.
        if self.agent.has_more(self.now) && self.now >= self.next_word {
            let len = 1 + self.rng.below(MAX_PAYLOAD as u64) as usize;
            self.agent.speak(self.now, len);
            self.next_word = self.now + ms(1);
        }
        for message in std::mem::take(&mut self.agent.outbox) {
            self.post(To::Client, message);
        }
    }

    /// The moment of the next thing that happens.
    fn next_moment(&self) -> Option<Duration> {
        let arrival = self.flights.peek().map(|Reverse(flight)| flight.0);
        let word = self.agent.has_more(self.now).then_some(self.next_word);
        let moments = [
            arrival,
            word,
            self.channel.poll_timeout(),
            self.agent.next_tick(),
        ];
        moments.into_iter().flatten().min()
    }

    fn step(&mut self) -> bool {
        let Some(moment) = self.next_moment() else {
            return false;
        };
        self.now = self.now.max(moment);
        self.channel.handle_timeout(self.now).unwrap();
        self.agent.tick(self.now);
        while let Some(Reverse((at, ..))) = self.flights.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to, bytes))) = self.flights.pop() else {
                break;
            };
            match to {
                To::Client => self.channel.handle_message(self.now, bytes).unwrap(),
                To::Agent => self.agent.receive(self.now, bytes),
            }
        }
        self.settle();
        true
    }

    fn check(&self, plan: &Plan) {
        let stats = self.channel.stats();
        // The handshake response and the goodbye go past the window.
        assert!(
            stats.in_flight <= plan.window + 1,
            "seed {}: {stats:?}",
            plan.seed
        );
        assert!(
            stats.reordering <= plan.reorder,
            "seed {}: {stats:?}",
            plan.seed
        );
        assert!(
            stats.rto >= ms(200) && stats.rto <= ms(1000),
            "seed {}",
            plan.seed
        );
    }
}

/// Runs until both scripts have arrived, then through the goodbye; the virtual time it took.
fn run(plan: &Plan) -> (Duration, World) {
    let mut world = World::new(plan);
    let seed = plan.seed;
    world.settle();
    let mut goodbye = false;
    loop {
        let done =
            world.agent.is_done() && world.sent == world.script.len() && world.channel.is_drained();
        if done && goodbye && world.agent.goodbyes > 0 {
            break;
        }
        if done && !goodbye && world.established {
            goodbye = true;
            world.channel.terminate(world.now);
            world.settle();
        }
        assert!(world.step(), "seed {seed}: nothing moves any more");
        assert!(world.now < ms(3_600_000), "seed {seed}: an hour has passed");
        world.check(plan);
    }
    assert!(
        world.heard == world.agent.script(),
        "seed {seed}: agent to client differs"
    );
    assert!(
        world.agent.heard == world.script,
        "seed {seed}: client to agent differs"
    );
    assert_eq!(world.agent.goodbyes, 1, "seed {seed}");
    (world.now, world)
}

const TERRIBLE: Link = Link {
    loss: 20,
    duplication: 20,
    reordering: 20,
    delay_ms: 10,
    jitter_ms: 40,
};

#[test]
fn bytes_out_are_bytes_in_on_a_terrible_network() {
    let mut dropped = 0;
    for seed in 0..150 {
        let mut rng = Rng(seed ^ 0xFEED);
        let link = Link {
            loss: rng.below(21),
            duplication: rng.below(21),
            reordering: rng.below(21),
            delay_ms: rng.below(120),
            jitter_ms: rng.below(50),
        };
        let plan = Plan {
            seed,
            link,
            client_bytes: 60_000,
            agent_bytes: 60_000,
            window: 1 + rng.below(64) as usize,
            reorder: 1 + rng.below(64) as usize,
            pauses: seed % 3 == 0,
        };
        dropped += run(&plan).1.agent.dropped_before_ready;
    }
    assert!(dropped > 0, "no agent was slow to get ready");
}

#[test]
fn several_thousand_messages_both_ways() {
    let plan = Plan {
        seed: 1,
        link: TERRIBLE,
        client_bytes: 3_000_000,
        agent_bytes: 1_500_000,
        window: 256,
        reorder: 10_000,
        pauses: true,
    };
    let (_, world) = run(&plan);
    let stats = world.channel.stats();
    assert!(stats.sent > 5000 && stats.received > 2500, "{stats:?}");
    assert!(stats.retransmitted > stats.sent / 5, "{stats:?}");
    assert_eq!(
        stats.dropped, 0,
        "the default limit holds a whole session of this size"
    );
}

/// Only loss makes messages go twice: a clean path of any delay must not.
#[test]
fn a_clean_path_repeats_nothing_once_it_is_measured() {
    for delay_ms in [0, 1, 20, 90, 150, 400] {
        let link = Link {
            loss: 0,
            duplication: 0,
            reordering: 0,
            delay_ms,
            jitter_ms: 2,
        };
        let plan = Plan {
            seed: delay_ms,
            link,
            client_bytes: 500_000,
            agent_bytes: 100_000,
            window: 64,
            reorder: 10,
            pauses: false,
        };
        let (_, world) = run(&plan);
        let stats = world.channel.stats();
        // Before the first measurement a slow path looks like a lossy one, and what comes before
        // the agent is ready is lost: no more than two windows.
        assert!(stats.retransmitted <= 2 * 64, "{delay_ms} ms: {stats:?}");
        let srtt = stats.srtt.unwrap();
        let round_trip = ms(2 * delay_ms);
        assert!(
            srtt >= round_trip && srtt <= round_trip + ms(10),
            "{delay_ms} ms: {stats:?}"
        );
    }
}

/// Every unacknowledged message has its own timer, so a fifth of the messages lost costs a few
/// timeouts, not one for each loss as with oldest-only repetition.
#[test]
fn loss_does_not_serialise_the_sender() {
    let link = Link {
        loss: 20,
        duplication: 0,
        reordering: 0,
        delay_ms: 10,
        jitter_ms: 0,
    };
    let plan = Plan {
        seed: 3,
        link,
        client_bytes: 500_000,
        agent_bytes: 0,
        window: 256,
        reorder: 10,
        pauses: false,
    };
    let (took, world) = run(&plan);
    let lost = world.channel.stats().retransmitted;
    assert!(lost > 200, "{lost}");
    assert!(took < ms(60 * lost), "{took:?} for {lost} repetitions");
}
