//! A channel and an agent with a bad network between them, on a virtual clock. Every step checks
//! the invariants.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use ssm_channel::handshake::{OpenDataChannel, from_json};
use ssm_channel::{
    Acknowledge, AgentMessage, Channel, ChannelToken, Event, MAX_PAYLOAD, MessageType, PayloadType,
    Transmit,
};

use crate::agent::{Agent, Habits};
use crate::secret::{KEY_ID, RANDOM, data_key};
use crate::support::{Rng, config, from_service, ms};

/// Least and longest time that a message waits for its acknowledgement.
const RTO: (Duration, Duration) = (ms(200), ms(1000));
/// Messages that may be under way regardless of the window.
const ALWAYS: usize = 4;
/// The handshake's two answers and the terminate flag bypass the window.
const PAST_WINDOW: usize = 3;

/// Quality of the network: faults in percent of the messages, and delays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) reordering: u64,
    pub(crate) delay_ms: u64,
    pub(crate) jitter_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Client,
    Agent,
}

/// An event at a planned time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives(To, Bytes),
    /// The client's WebSocket is lost with everything under way on it, and then replaced.
    Cut,
    Back,
    /// The agent's WebSocket, the same.
    AgentCut,
    AgentBack,
    /// KMS has answered.
    Key,
}

/// A planned event: time, order among equals, and event.
type Planned = Reverse<(Duration, u64, Happening)>;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) link: Link,
    pub(crate) client_bytes: usize,
    pub(crate) agent_bytes: usize,
    /// Most bytes in one message.
    pub(crate) message: usize,
    pub(crate) window: usize,
    pub(crate) reorder: usize,
    pub(crate) pauses: bool,
    /// Number of cuts of the client's, and the agent's, WebSocket within the first two seconds.
    pub(crate) cuts: u64,
    pub(crate) agent_cuts: u64,
    pub(crate) kms: Option<bool>,
}

pub(crate) struct World {
    plan: Plan,
    rng: Rng,
    pub(crate) now: Duration,
    planned: BinaryHeap<Planned>,
    counter: u64,
    pub(crate) channel: Channel,
    pub(crate) agent: Agent,
    script: Vec<u8>,
    sent: usize,
    heard: usize,
    established: bool,
    paused: bool,
    connected: bool,
    agent_connected: bool,
    connections: u64,
    /// Reconnections before the end of the handshake.
    pub(crate) early_reconnects: u64,
    next_word: Duration,
    /// Data messages without acknowledgement, and the time each was last handed out; `None` on an
    /// earlier connection.
    unacked: BTreeMap<u64, Option<Duration>>,
    /// The same, ordered by time.
    handed_out: BTreeSet<(Option<Duration>, u64)>,
    next_number: u64,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut rng = Rng(plan.seed);
        let mut config = config(plan.seed);
        // The worst plan sometimes needs longer than 15 s for its handshake.
        config.handshake_timeout = ms(600_000);
        config.send_window = plan.window;
        config.reorder_messages = plan.reorder;
        let script = rng.bytes(plan.client_bytes);
        let habits = Habits {
            startup: ms(rng.below(300)),
            memory: ms(rng.below(4)),
            kms: plan.kms,
        };
        let agent = Agent::new(rng.bytes(plan.agent_bytes), habits);
        let mut world = Self {
            plan: plan.clone(),
            rng,
            now: ms(0),
            planned: BinaryHeap::new(),
            counter: 0,
            channel: Channel::new(config, ms(0)),
            agent,
            script,
            sent: 0,
            heard: 0,
            established: false,
            paused: false,
            connected: true,
            agent_connected: true,
            connections: 1,
            early_reconnects: 0,
            next_word: ms(0),
            unacked: BTreeMap::new(),
            handed_out: BTreeSet::new(),
            next_number: 0,
        };
        world.agent.start();
        world.plan_pauses();
        world.plan_cuts();
        world.expect_opening("tok-secret");
        world
    }

    fn plan(&mut self, at: Duration, what: Happening) {
        self.counter += 1;
        self.planned.push(Reverse((at, self.counter, what)));
    }

    /// Plans pauses. The service's own messages are not lost, but may find the channel in any
    /// state.
    fn plan_pauses(&mut self) {
        if !self.plan.pauses {
            return;
        }
        for n in 0..5 {
            let at = ms(1000 * n + self.rng.below(800));
            for (at, name) in [
                (at, "pause_publication"),
                (at + ms(150), "start_publication"),
            ] {
                let message = from_service(name, "");
                self.plan(at, Happening::Arrives(To::Client, message));
            }
        }
    }

    fn plan_cuts(&mut self) {
        for _ in 0..self.plan.cuts {
            let at = ms(self.rng.below(2000));
            self.plan(at, Happening::Cut);
        }
        for _ in 0..self.plan.agent_cuts {
            let at = ms(self.rng.below(2000));
            let back = at + ms(self.rng.below(1000));
            self.plan(at, Happening::AgentCut);
            self.plan(back, Happening::AgentBack);
        }
    }

    fn expect_opening(&mut self, token: &str) {
        let Some(Transmit::Text(text)) = self.channel.poll_transmit(self.now) else {
            panic!("no opening message");
        };
        let open: OpenDataChannel = from_json(text.as_bytes()).unwrap();
        assert_eq!(open.token_value, ChannelToken::new(token.to_owned()));
        assert_eq!(open.client_id, "client-1");
        assert_eq!(open.request_id, format!("request-{}", self.connections));
    }

    fn post(&mut self, to: To, message: Bytes) {
        if !self.connected || !self.agent_connected || self.rng.chance(self.plan.link.loss) {
            return;
        }
        let link = self.plan.link;
        let copies = if self.rng.chance(link.duplication) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = link.delay_ms + self.rng.below(link.jitter_ms + 1);
            if self.rng.chance(link.reordering) {
                delay += self.rng.below(200);
            }
            let at = self.now + ms(delay);
            self.plan(at, Happening::Arrives(to, message.clone()));
        }
    }

    /// Loses messages under way; of those to the agent only a part, if the service has them.
    fn lose_flights(&mut self, agent_too: bool) {
        let planned = std::mem::take(&mut self.planned);
        for Reverse((at, n, what)) in planned {
            let lost = match &what {
                Happening::Arrives(To::Client, _) => !agent_too,
                Happening::Arrives(To::Agent, _) => agent_too || self.rng.chance(50),
                _ => false,
            };
            if !lost {
                self.planned.push(Reverse((at, n, what)));
            }
        }
    }

    /// Lets both ends act until nothing more can happen at this moment.
    pub(crate) fn settle(&mut self) {
        self.take_events();
        while self.sent < self.script.len() && self.channel.sendable() > 0 {
            let max = self.channel.max_payload().min(self.plan.message);
            let len = 1 + self.rng.below(max as u64) as usize;
            let end = self.script.len().min(self.sent + len);
            let payload = Bytes::copy_from_slice(&self.script[self.sent..end]);
            self.channel.send(self.now, payload).unwrap();
            self.sent = end;
            let stats = self.channel.stats();
            assert!(stats.in_flight <= stats.window, "{stats:?}");
        }
        while let Some(transmit) = self.channel.poll_transmit(self.now) {
            let Transmit::Binary(bytes) = transmit else {
                panic!("a second opening message");
            };
            self.note_handed_out(&bytes);
            self.post(To::Agent, bytes);
        }
        // One message per millisecond, as the real agent paces itself.
        if self.agent.has_more(self.now) && self.now >= self.next_word {
            let len = 1 + self.rng.below(self.plan.message as u64) as usize;
            self.agent.speak(self.now, len);
            self.next_word = self.now + ms(1);
        }
        for message in std::mem::take(&mut self.agent.outbox) {
            self.post(To::Client, message);
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::Established { .. } => {
                    assert!(!self.established);
                    self.established = true;
                    let overhead = if self.plan.kms.is_some() { 28 } else { 0 };
                    assert_eq!(self.channel.max_payload(), MAX_PAYLOAD - overhead);
                }
                Event::KeyRequired {
                    kms_key_id,
                    challenge,
                } => {
                    assert_eq!(kms_key_id, KEY_ID);
                    assert_eq!(challenge.is_some(), self.plan.kms == Some(true));
                    assert!(challenge.is_none_or(|text| text == RANDOM));
                    let at = self.now + ms(self.rng.below(400));
                    self.plan(at, Happening::Key);
                }
                Event::Output(bytes) => {
                    let end = self.heard + bytes.len();
                    assert!(!bytes.is_empty());
                    assert_eq!(self.agent.script().get(self.heard..end), Some(&bytes[..]));
                    self.heard = end;
                }
                Event::Paused => self.paused = true,
                Event::Restarted => self.paused = false,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Records the unacknowledged messages independently of the channel.
    fn note_handed_out(&mut self, bytes: &Bytes) {
        assert!(self.connected, "handed out without a WebSocket");
        let input = MessageType::InputStreamData;
        if !bytes[4..].starts_with(input.as_str().as_bytes()) {
            return;
        }
        assert!(!self.paused, "data during a pause");
        let message = AgentMessage::decode(bytes.clone()).unwrap();
        let number = message.sequence.get();
        match self.unacked.insert(number, Some(self.now)) {
            None => {
                assert_eq!(number, self.next_number, "new ones in order");
                self.next_number += 1;
            }
            Some(before) => {
                assert!(before.is_none_or(|before| self.now >= before + RTO.0));
                assert!(self.handed_out.remove(&(before, number)));
            }
        }
        self.handed_out.insert((Some(self.now), number));
        if message.payload_type == PayloadType::Output {
            assert!(self.established);
        }
    }

    fn note_acknowledged(&mut self, bytes: &Bytes) {
        let message = AgentMessage::decode(bytes.clone()).unwrap();
        if message.message_type == MessageType::Acknowledge {
            let number = Acknowledge::from_json(&message.payload)
                .unwrap()
                .sequence
                .get();
            if let Some(at) = self.unacked.remove(&number) {
                self.handed_out.remove(&(at, number));
            }
        }
    }

    /// Returns the time of the next event.
    fn next_moment(&self) -> Option<Duration> {
        let planned = self.planned.peek().map(|Reverse(next)| next.0);
        let word = self.agent.has_more(self.now).then_some(self.next_word);
        let moments = [
            planned,
            word,
            self.channel.poll_timeout(),
            self.agent.next_tick(),
        ];
        moments.into_iter().flatten().min()
    }

    pub(crate) fn step(&mut self) -> bool {
        let Some(moment) = self.next_moment() else {
            return false;
        };
        self.now = self.now.max(moment);
        self.channel.handle_timeout(self.now).unwrap();
        self.agent.tick(self.now);
        while let Some(Reverse((at, ..))) = self.planned.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, what))) = self.planned.pop() else {
                break;
            };
            self.happen(what);
        }
        self.settle();
        self.check();
        true
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrives(To::Client, bytes) if self.connected => {
                self.note_acknowledged(&bytes);
                self.channel.handle_message(self.now, bytes).unwrap();
            }
            Happening::Arrives(To::Agent, bytes) if self.agent_connected => {
                self.agent.receive(self.now, bytes);
            }
            Happening::Arrives(..) => {}
            Happening::Cut => self.cut(),
            Happening::Back => self.back(),
            Happening::AgentCut => {
                self.agent_connected = false;
                self.lose_flights(true);
            }
            Happening::AgentBack => self.agent_connected = true,
            Happening::Key => self.channel.provide_key(self.now, data_key()).unwrap(),
        }
    }

    fn cut(&mut self) {
        if !self.connected {
            return;
        }
        // Some of it was handed out and never sent.
        if self.rng.chance(50) {
            self.take_events();
            while let Some(Transmit::Binary(bytes)) = self.channel.poll_transmit(self.now) {
                self.note_handed_out(&bytes);
            }
        }
        self.lose_flights(false);
        // A driver that reconnects at once need not report the loss.
        if self.rng.chance(30) {
            return self.back();
        }
        self.connected = false;
        self.channel.disconnected(self.now);
        assert_eq!(self.channel.poll_timeout(), None);
        assert_eq!(self.channel.sendable(), 0);
        let away = if self.rng.chance(5) { 600_000 } else { 1500 };
        let at = self.now + ms(self.rng.below(away));
        self.plan(at, Happening::Back);
    }

    fn back(&mut self) {
        self.connected = true;
        self.connections += 1;
        self.early_reconnects += u64::from(!self.established);
        let token = format!("token-{}", self.connections);
        let request = format!("request-{}", self.connections);
        self.channel
            .reconnect(self.now, ChannelToken::new(token.clone()), request)
            .unwrap();
        self.expect_opening(&token);
        for at in self.unacked.values_mut() {
            *at = None;
        }
        self.handed_out = self.unacked.keys().map(|number| (None, *number)).collect();
    }

    fn check(&self) {
        let stats = self.channel.stats();
        let plan = &self.plan;
        assert!(stats.window <= plan.window, "{stats:?}");
        assert!(stats.in_flight <= plan.window + PAST_WINDOW, "{stats:?}");
        assert!(stats.reordering <= plan.reorder, "{stats:?}");
        assert!(stats.rto >= RTO.0 && stats.rto <= RTO.1, "{stats:?}");
        let oldest = self.unacked.keys().next().copied();
        let span = self.next_number - oldest.unwrap_or(self.next_number);
        assert!(span <= 8192 + PAST_WINDOW as u64, "{span}");
        if let Some(timer) = self.channel.poll_timeout() {
            assert!(timer > self.now, "the timer would spin: {stats:?}");
        }
        if self.paused || !self.connected {
            return;
        }
        // Every overdue message has been repeated, unless the window is full of younger ones.
        let deadline = self.now.checked_sub(RTO.1);
        if let Some((at, number)) = self.handed_out.first()
            && at.is_none_or(|at| Some(at) < deadline)
        {
            let younger = (deadline.or(Some(ms(0))), 0);
            let under_way = self.handed_out.range(younger..).count();
            assert!(
                under_way >= stats.window.max(ALWAYS),
                "number {number} waits since {at:?}: {stats:?}"
            );
        }
    }

    /// Runs until both scripts have arrived, then through the termination.
    pub(crate) fn run(&mut self) {
        self.settle();
        let mut goodbye = false;
        loop {
            let done = self.agent.is_done()
                && self.heard == self.agent.script().len()
                && self.sent == self.script.len()
                && self.channel.is_drained();
            if done && goodbye && self.agent.goodbyes > 0 {
                break;
            }
            if done && !goodbye && self.established {
                goodbye = true;
                self.channel.terminate(self.now);
                self.settle();
            }
            assert!(self.step(), "nothing moves any more");
            assert!(self.now < ms(7_200_000), "two hours have passed");
        }
        assert!(self.agent.heard == self.script, "client to agent differs");
        assert_eq!(self.agent.goodbyes, 1);
        assert_eq!(self.channel.stats().reconnects, self.connections - 1);
    }
}
