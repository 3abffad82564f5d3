//! The loop, and what must hold after each of its steps.

use std::time::Duration;

use bytes::Bytes;
use protocol_tests::aws::wire::{self, Message};

use super::agent::Agent;
use super::client::Client;
use super::link::{Link, To};
use super::plan::{Ending, Outage, Plan, ms};
use crate::random::Rng;

/// Steps at one moment before something is running in a circle.
const SPIN: usize = 1_000;
/// Messages on a new connection before anything is heard on it.
const INITIAL_WINDOW: usize = 32;
/// Virtual time in which everything is long over.
const LONGEST: Duration = ms(4 * 3_600_000);

/// What happened in a run, to see that enough does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    /// Bytes heard by the agent and by the client.
    pub(super) up: u64,
    pub(super) down: u64,
    /// Messages the client repeated, and got again.
    pub(super) repeated: u64,
    pub(super) duplicates: u64,
    /// Messages the client had no room for.
    pub(super) dropped: u64,
    pub(super) reconnects: u64,
    pub(super) reconnects_in_handshake: u64,
    pub(super) pauses: u64,
    /// Streams the agent could not dial for, and those it never heard of.
    pub(super) refused: u64,
    pub(super) vanished: u64,
    /// Moments at which the client left messages in its socket.
    pub(super) stopped_reading: u64,
}

impl Tally {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            up: self.up + other.up,
            down: self.down + other.down,
            repeated: self.repeated + other.repeated,
            duplicates: self.duplicates + other.duplicates,
            dropped: self.dropped + other.dropped,
            reconnects: self.reconnects + other.reconnects,
            reconnects_in_handshake: self.reconnects_in_handshake + other.reconnects_in_handshake,
            pauses: self.pauses + other.pauses,
            refused: self.refused + other.refused,
            vanished: self.vanished + other.vanished,
            stopped_reading: self.stopped_reading + other.stopped_reading,
        }
    }
}

/// A series of outages of one end.
struct Outages {
    left: std::vec::IntoIter<Outage>,
    now: Option<Outage>,
    next: Option<Outage>,
}

enum Turn {
    Gone(Outage),
    Back(Outage),
}

impl Outages {
    fn new(outages: &[Outage]) -> Self {
        let mut left = Vec::from(outages).into_iter();
        let next = left.next();
        Self {
            left,
            now: None,
            next,
        }
    }

    fn is_gone(&self) -> bool {
        self.now.is_some()
    }

    fn next_moment(&self) -> Option<Duration> {
        match (self.now, self.next) {
            (Some(outage), _) => Some(outage.at + outage.lasts),
            (None, next) => next.map(|outage| outage.at),
        }
    }

    fn turn(&mut self, now: Duration) -> Option<Turn> {
        if self.next_moment().is_none_or(|at| at > now) {
            return None;
        }
        match self.now.take() {
            Some(outage) => Some(Turn::Back(outage)),
            None => {
                self.now = self.next.take();
                self.next = self.left.next();
                self.now.map(Turn::Gone)
            }
        }
    }
}

pub(super) struct World {
    plan: Plan,
    rng: Rng,
    now: Duration,
    client: Client,
    agent: Agent,
    link: Link,
    lost_connections: Outages,
    away: Outages,
    /// The client's connection is new: nothing was sent on it yet.
    is_new: bool,
    /// Steps since the clock moved.
    standing: usize,
    said_goodbye: bool,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = Rng(plan.seed);
        let mut agent = Agent::new(&plan);
        agent.begin(&mut rng, ms(0));
        Self {
            client: Client::new(&plan),
            link: Link::new(plan.network),
            lost_connections: Outages::new(&plan.lost_connections),
            away: Outages::new(&plan.away),
            agent,
            rng,
            now: ms(0),
            plan,
            is_new: true,
            standing: 0,
            said_goodbye: false,
        }
    }

    /// Until all streams are over and both sides have parted.
    pub(super) fn run(mut self) -> Tally {
        self.settle();
        while !self.is_over() {
            if !self.said_goodbye && self.is_quiet() {
                self.said_goodbye = true;
                self.client.channel.terminate(self.now);
                self.settle();
                continue;
            }
            self.step();
            self.check();
        }
        self.check_end();
        self.tally()
    }

    fn tally(&self) -> Tally {
        let (client, stats) = (&self.client, self.client.channel.stats());
        let outcomes = || {
            let ids = client.streams.keys();
            ids.map(|id| self.agent.port.outcome(id.get()))
        };
        Tally {
            up: outcomes().flatten().map(|o| o.heard as u64).sum(),
            down: client.streams.values().map(|s| s.heard as u64).sum(),
            repeated: stats.retransmitted,
            duplicates: stats.duplicates,
            dropped: stats.dropped,
            reconnects: stats.reconnects,
            reconnects_in_handshake: client.reconnects_in_handshake,
            pauses: client.pauses,
            refused: client.refused as u64,
            vanished: outcomes().filter(Option::is_none).count() as u64,
            stopped_reading: client.stopped_reading,
        }
    }

    fn is_quiet(&self) -> bool {
        let over = |id: &smux::StreamId, stream: &super::client::Stream| {
            let told = self.agent.port.outcome(id.get());
            stream.is_over()
                && (stream.vanished || told.is_some_and(|o| o.closed && o.client_closed))
        };
        !self.client.has_waiting_streams()
            && self.client.streams.iter().all(|(id, s)| over(id, s))
            && self.client.unread == 0
            && self.client.channel.is_drained()
            && self.agent.is_done()
    }

    fn is_over(&self) -> bool {
        self.said_goodbye && self.agent.goodbyes > 0 && self.client.channel.is_drained()
    }

    fn step(&mut self) {
        let moments = [
            self.link.next_arrival(),
            self.agent.next_moment(),
            self.client.next_moment(self.now),
            self.lost_connections.next_moment(),
            self.away.next_moment(),
            // Nobody looks at the clock of a channel without a connection.
            (self.client.channel.poll_timeout()).filter(|_| !self.lost_connections.is_gone()),
        ];
        let moment = moments.into_iter().flatten().min();
        let moment = moment.expect("nothing moves any more, and it is not over");
        self.standing = if moment > self.now {
            0
        } else {
            self.standing + 1
        };
        assert!(self.standing < SPIN, "turning in a circle at {moment:?}");
        self.now = self.now.max(moment);
        assert!(self.now < LONGEST, "this takes too long");
        self.turn_outages();
        while let Some((to, message)) = self.link.arrived(&mut self.rng, self.now) {
            self.deliver(to, message);
        }
        if !self.lost_connections.is_gone() {
            self.client.channel.handle_timeout(self.now).unwrap();
        }
        self.settle();
    }

    fn turn_outages(&mut self) {
        while let Some(turn) = self.lost_connections.turn(self.now) {
            match turn {
                Turn::Gone(outage) => {
                    let tell = self.rng.chance(70);
                    self.client.lose_connection(self.now, tell);
                    self.link.cut();
                    self.announce(outage, To::Agent, wire::PAUSE);
                }
                Turn::Back(outage) => {
                    self.client.reconnect(self.now);
                    self.is_new = true;
                    self.announce(outage, To::Agent, wire::START);
                }
            }
        }
        while let Some(turn) = self.away.turn(self.now) {
            match turn {
                Turn::Gone(outage) => self.announce(outage, To::Client, wire::PAUSE),
                Turn::Back(outage) => self.announce(outage, To::Client, wire::START),
            }
        }
    }

    fn announce(&mut self, outage: Outage, to: To, what: &str) {
        if outage.told {
            let message = Message::new(what, 0, Bytes::new()).encode();
            self.link.announce(self.now, to, message);
        }
    }

    fn deliver(&mut self, to: To, message: Bytes) {
        let from_service = matches!(wire::kind_of(&message), Some(wire::PAUSE | wire::START));
        match to {
            To::Client if !self.lost_connections.is_gone() => self.client.arrive(message),
            To::Agent if from_service || !self.away.is_gone() => {
                self.agent.receive(&mut self.rng, self.now, &message);
            }
            To::Client | To::Agent => {}
        }
    }

    /// Both ends do what they can at this moment.
    fn settle(&mut self) {
        self.client.act(&mut self.rng, self.now);
        if !self.lost_connections.is_gone() {
            let window = self.client.channel.stats().window.max(4);
            // Whatever is to be replayed: of a new path nothing is known.
            let new = std::mem::take(&mut self.is_new);
            let window = if new {
                window.min(INITIAL_WINDOW)
            } else {
                window
            };
            let mut data = 0;
            for message in self.client.transmit(self.now) {
                data += usize::from(wire::kind_of(&message) == Some(wire::INPUT));
                self.link.post(&mut self.rng, self.now, To::Agent, message);
            }
            assert!(data == 0 || !self.client.paused, "data during a pause");
            assert!(data <= window, "{data} messages at once, window {window}");
        }
        self.agent.act(&mut self.rng, self.now);
        for message in std::mem::take(&mut self.agent.outbox) {
            if !self.away.is_gone() {
                self.link.post(&mut self.rng, self.now, To::Client, message);
            }
        }
    }

    /// What holds at any time. The scripts are compared where the bytes arrive.
    fn check(&self) {
        let stats = self.client.channel.stats();
        let plan = &self.plan;
        assert!(stats.window <= plan.window, "{stats:?}");
        // The handshake's answer and the goodbye go past the window.
        assert!(stats.in_flight <= plan.window + 2, "{stats:?}");
        assert!(stats.reordering <= plan.reorder, "{stats:?}");
        assert!(stats.rto >= ms(200) && stats.rto <= ms(1000), "{stats:?}");
        // One message may set free all that waited for it.
        let most = self.client.most_unread + 1024 * (plan.reorder.min(self.agent.sent()) + 1);
        assert!(self.client.unread < most, "{} unread", self.client.unread);
        if !self.lost_connections.is_gone() {
            let timeout = self.client.channel.poll_timeout();
            assert!(
                timeout.is_none_or(|at| at > self.now),
                "overdue, and not sent"
            );
        }
    }

    fn check_end(&self) {
        assert_eq!(self.agent.goodbyes, 1);
        assert_eq!(self.client.mux.open_streams(), 0);
        assert!(!self.client.mux.has_transmit());
        let mut refused = 0;
        for (id, stream) in &self.client.streams {
            let Some(outcome) = self.agent.port.outcome(id.get()) else {
                assert!(stream.vanished, "the agent never heard of stream {id}");
                continue;
            };
            assert!(!stream.vanished, "the agent heard of stream {id}");
            let plan = &stream.plan;
            match plan.ending {
                Ending::ClientCloses | Ending::AgentCloses => {
                    assert_eq!((stream.said, outcome.said), (plan.up, plan.down));
                    assert_eq!((stream.heard, outcome.heard), (plan.down, plan.up));
                }
                Ending::ClientBreaks(_) | Ending::AgentBreaks(_) | Ending::Both(..) => {
                    assert!(stream.heard <= outcome.said && outcome.heard <= stream.said);
                }
                Ending::Refused => {
                    assert_eq!((stream.heard, outcome.said), (0, 0));
                    refused += 1;
                }
            }
        }
        assert_eq!(self.client.refused, refused);
        assert_eq!(self.client.unread, 0);
    }
}
