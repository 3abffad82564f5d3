//! The agent: its half of the data channel. What it does with the bytes is the [port
//! handler](Port)'s business.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use protocol_tests::aws::wire::{self, Message, flag, payload};
use serde_json::{Value, json};

use super::plan::{Plan, ms};
use super::port::Port;
use crate::random::Rng;

/// How often it looks at its oldest unacknowledged message.
const CHECK: Duration = ms(100);
/// How far the client may be ahead of what the agent waits for: it keeps 10,000 messages.
const EARLY: usize = 8_192 + 2;

enum Phase {
    /// Waits for the handshake response.
    Handshake,
    /// The port handler takes bytes from this moment on.
    Forwarding { ready: Duration },
}

struct Unacked {
    raw: Bytes,
    sent: Duration,
    /// The next acknowledgement comes before the message is recorded.
    miss_ack: bool,
}

pub(super) struct Agent {
    phase: Phase,
    deaf: Duration,
    /// The number of the next input message, and those that came before their time.
    expected: i64,
    early: BTreeMap<i64, Message>,
    /// Every input message so far, to compare repetitions with.
    seen: BTreeMap<i64, Bytes>,
    /// The number of the next output message, and those not acknowledged.
    next: i64,
    unacked: BTreeMap<i64, Unacked>,
    next_check: Duration,
    resend: Duration,
    ack_race: usize,
    paused: bool,
    pace: usize,
    payload: usize,
    next_word: Duration,
    pub(super) port: Port,
    pub(super) goodbyes: usize,
    /// What goes out now.
    pub(super) outbox: VecDeque<Bytes>,
}

impl Agent {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            phase: Phase::Handshake,
            deaf: plan.deaf,
            expected: 0,
            early: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 0,
            unacked: BTreeMap::new(),
            next_check: CHECK,
            resend: plan.resend,
            ack_race: plan.ack_race,
            paused: false,
            pace: plan.pace,
            payload: plan.payload,
            next_word: ms(0),
            port: Port::new(plan),
            goodbyes: 0,
            outbox: VecDeque::new(),
        }
    }

    /// Its first word.
    pub(super) fn begin(&mut self, rng: &mut Rng, now: Duration) {
        let request = json!({
            "AgentVersion": "3.3.0.0",
            "RequestedClientActions": [{
                "ActionType": "SessionType",
                "ActionParameters": {
                    "SessionType": "Port",
                    "Properties": {
                        "host": "db.internal", "portNumber": "5432",
                        "localPortNumber": "0", "type": "LocalPortForwarding",
                    },
                },
            }],
        });
        let request = request.to_string().into();
        self.send(rng, now, payload::HANDSHAKE_REQUEST, request);
    }

    /// Everything it said is acknowledged, and it has nothing more to say.
    pub(super) fn is_done(&self) -> bool {
        self.unacked.is_empty() && !self.port.has_output()
    }

    /// Messages said so far.
    pub(super) fn sent(&self) -> usize {
        self.next as usize
    }

    pub(super) fn receive(&mut self, rng: &mut Rng, now: Duration, raw: &Bytes) {
        let message = Message::decode(raw).expect("a message");
        match message.kind.as_str() {
            wire::PAUSE => self.paused = true,
            wire::START => self.paused = false,
            wire::ACKNOWLEDGE => self.take_ack(&message),
            wire::INPUT => {
                // Data can only come from somebody who is there.
                self.paused = false;
                let first = self.seen.entry(message.sequence);
                let first = first.or_insert_with(|| raw.clone());
                assert!(first == raw, "{} is repeated changed", message.sequence);
                self.take_input(rng, now, message);
            }
            other => panic!("{other} from the client"),
        }
    }

    fn take_ack(&mut self, message: &Message) {
        let ack: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(ack["AcknowledgedMessageType"], wire::OUTPUT);
        assert_eq!(ack["IsSequentialMessage"], true);
        let number = ack["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
        assert!((0..self.next).contains(&number), "{number} was never sent");
        let Some(unacked) = self.unacked.get_mut(&number) else {
            return;
        };
        if std::mem::take(&mut unacked.miss_ack) {
            return;
        }
        let id = Message::decode(&unacked.raw).unwrap().id;
        assert_eq!(ack["AcknowledgedMessageId"], id.to_string());
        self.unacked.remove(&number);
    }

    fn take_input(&mut self, rng: &mut Rng, now: Duration, message: Message) {
        if message.sequence < self.expected {
            return self.acknowledge(&message);
        }
        if message.sequence > self.expected {
            // Output that comes before the port handler is dropped wherever it stands in the order.
            if self.hears(now, &message) {
                self.acknowledge(&message);
                self.early.insert(message.sequence, message);
                let ahead = self.early.last_key_value().map_or(0, |(n, _)| *n);
                assert!(ahead - self.expected <= EARLY as i64, "too far ahead");
            }
            return;
        }
        let mut next = Some(message);
        while let Some(message) = next {
            if !self.hears(now, &message) {
                return;
            }
            self.expected += 1;
            // Again for those that were early: harmless, and some agents do it.
            self.acknowledge(&message);
            self.process(rng, now, &message);
            next = self.early.remove(&self.expected);
        }
    }

    fn hears(&self, now: Duration, message: &Message) -> bool {
        match self.phase {
            Phase::Handshake => message.payload_type == payload::HANDSHAKE_RESPONSE,
            Phase::Forwarding { ready } => now >= ready,
        }
    }

    fn acknowledge(&mut self, message: &Message) {
        self.outbox.push_back(Message::ack(message).encode());
    }

    fn process(&mut self, rng: &mut Rng, now: Duration, message: &Message) {
        match message.payload_type {
            payload::HANDSHAKE_RESPONSE => {
                let response: Value = serde_json::from_slice(&message.payload).unwrap();
                assert_eq!(response["ProcessedClientActions"][0]["ActionStatus"], 1);
                let ready = now + self.deaf;
                self.phase = Phase::Forwarding { ready };
                let complete = json!({"HandshakeTimeToComplete": 1, "CustomerMessage": ""});
                let complete = complete.to_string().into();
                self.send(rng, now, payload::HANDSHAKE_COMPLETE, complete);
            }
            payload::OUTPUT => {
                assert!((1..=1024).contains(&message.payload.len()));
                assert_eq!(self.goodbyes, 0, "data after the goodbye");
                self.port.take(now, &message.payload);
            }
            payload::FLAG => {
                assert_eq!(message.payload[..], flag::TERMINATE_SESSION.to_be_bytes());
                self.goodbyes += 1;
            }
            other => panic!("payload type {other}"),
        }
    }

    /// When it has something to do by itself.
    pub(super) fn next_moment(&self) -> Option<Duration> {
        if self.paused {
            return self.port.next_dial();
        }
        let check = (!self.unacked.is_empty()).then_some(self.next_check);
        let word = self.port.has_output().then_some(self.next_word);
        let moments = [check, word, self.port.next_dial()];
        moments.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn act(&mut self, rng: &mut Rng, now: Duration) {
        self.port.act(now);
        if self.paused {
            return;
        }
        if now >= self.next_check {
            self.next_check = now + CHECK;
            // Only the oldest, whatever became of the others.
            if let Some(oldest) = self.unacked.values_mut().next()
                && now >= oldest.sent + self.resend
            {
                oldest.sent = now;
                self.outbox.push_back(oldest.raw.clone());
            }
        }
        if now >= self.next_word && self.port.has_output() {
            self.next_word = now + ms(1);
            for _ in 0..self.pace {
                let Some((kind, bytes)) = self.port.output(rng, self.payload) else {
                    break;
                };
                self.send(rng, now, kind, bytes);
            }
        }
    }

    fn send(&mut self, rng: &mut Rng, now: Duration, payload_type: u32, payload: Bytes) {
        let mut message = Message::new(wire::OUTPUT, payload_type, payload);
        message.sequence = self.next;
        message.flags = if self.next == 0 { wire::SYN } else { 0 };
        let raw = message.encode();
        let unacked = Unacked {
            raw: raw.clone(),
            sent: now,
            miss_ack: rng.chance(self.ack_race),
        };
        self.unacked.insert(self.next, unacked);
        self.next += 1;
        self.outbox.push_back(raw);
    }
}
