//! A small agent with the real one's habits, written for the simulation and sharing no state
//! machine with the crate.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ssm_channel::{Acknowledge, AgentMessage, Flag, MessageType, PayloadType};

use crate::support::{COMPLETE, REQUEST, ack_from_agent, from_agent, ms};

/// How often the agent looks at its oldest unacknowledged message.
const RESEND_CHECK: Duration = ms(100);

pub(crate) struct Agent {
    /// What it will say, and how far it is.
    script: Vec<u8>,
    said: usize,
    /// What it heard.
    pub(crate) heard: Vec<u8>,
    pub(crate) goodbyes: usize,
    /// Client → agent: the next number, what came early, and every message ever seen.
    expected: u64,
    early: BTreeMap<u64, AgentMessage>,
    seen: BTreeMap<u64, Bytes>,
    /// Agent → client.
    next: u64,
    unacked: BTreeMap<u64, (Bytes, Duration)>,
    rto: Duration,
    next_check: Duration,
    /// When the port handler is ready; before that Output is dropped silently.
    ready_at: Option<Duration>,
    startup: Duration,
    pub(crate) outbox: Vec<Bytes>,
    pub(crate) dropped_before_ready: usize,
}

impl Agent {
    /// An agent that needs `startup` after the handshake to get its port handler ready.
    pub(crate) fn new(script: Vec<u8>, startup: Duration) -> Self {
        Self {
            script,
            said: 0,
            heard: Vec::new(),
            goodbyes: 0,
            expected: 0,
            early: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 0,
            unacked: BTreeMap::new(),
            rto: ms(200),
            next_check: RESEND_CHECK,
            ready_at: None,
            startup,
            outbox: Vec::new(),
            dropped_before_ready: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        self.send(ms(0), PayloadType::HandshakeRequest, REQUEST.as_bytes());
    }

    pub(crate) fn script(&self) -> &[u8] {
        &self.script
    }

    /// All that it had to say is said and acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.said == self.script.len() && self.unacked.is_empty()
    }

    /// May it speak? It has no window: acknowledged or not, it goes on.
    pub(crate) fn has_more(&self, now: Duration) -> bool {
        self.said < self.script.len() && self.is_ready(now)
    }

    /// One message of at most `max` bytes of its script.
    pub(crate) fn speak(&mut self, now: Duration, max: usize) {
        let end = self.script.len().min(self.said + max);
        let payload = self.script[self.said..end].to_vec();
        self.said = end;
        self.send(now, PayloadType::Output, &payload);
    }

    /// Only the oldest, only every 100 ms, and only when it is older than the timeout.
    pub(crate) fn tick(&mut self, now: Duration) {
        if now < self.next_check {
            return;
        }
        self.next_check = now + RESEND_CHECK;
        if let Some((message, sent)) = self.unacked.values_mut().next()
            && now >= *sent + self.rto
        {
            *sent = now;
            self.outbox.push(message.clone());
        }
    }

    /// When `tick` has to be called.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        (!self.unacked.is_empty()).then_some(self.next_check)
    }

    pub(crate) fn receive(&mut self, now: Duration, bytes: Bytes) {
        let message = AgentMessage::decode(bytes.clone()).unwrap();
        if message.message_type == MessageType::Acknowledge {
            let ack = Acknowledge::from_json(&message.payload).unwrap();
            assert_eq!(ack.message_type, MessageType::OutputStreamData);
            assert!(
                ack.sequence.get() < self.next,
                "an acknowledgement of the future"
            );
            self.unacked.remove(&ack.sequence.get());
            return;
        }
        assert_eq!(message.message_type, MessageType::InputStreamData);
        let number = message.sequence.get();
        let first = self.seen.entry(number).or_insert_with(|| bytes.clone());
        assert_eq!(
            *first, bytes,
            "a repeated message differs from its original"
        );
        if number > self.expected {
            self.outbox.push(ack_from_agent(&message));
            self.early.insert(number, message);
        } else if number < self.expected {
            self.outbox.push(ack_from_agent(&message));
        } else if self.process(now, &message) {
            self.outbox.push(ack_from_agent(&message));
            self.expected += 1;
            while let Some(next) = self.early.remove(&self.expected) {
                assert!(self.process(now, &next));
                self.expected += 1;
            }
        }
    }

    /// False when it is not ready for this: the message is forgotten.
    fn process(&mut self, now: Duration, message: &AgentMessage) -> bool {
        match message.payload_type {
            PayloadType::HandshakeResponse => {
                self.ready_at = Some(now + self.startup);
                self.send(now, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
            }
            _ if !self.is_ready(now) => {
                self.dropped_before_ready += 1;
                return false;
            }
            PayloadType::Output => {
                assert!(message.payload.len() <= ssm_channel::MAX_PAYLOAD);
                assert_eq!(self.goodbyes, 0, "data after goodbye");
                self.heard.extend_from_slice(&message.payload);
            }
            PayloadType::Flag => {
                assert_eq!(Flag::decode(&message.payload), Some(Flag::TerminateSession));
                self.goodbyes += 1;
            }
            other => panic!("{other:?} from the client"),
        }
        true
    }

    fn is_ready(&self, now: Duration) -> bool {
        self.ready_at.is_some_and(|ready| now >= ready)
    }

    fn send(&mut self, now: Duration, payload_type: PayloadType, payload: &[u8]) {
        let message = from_agent(self.next, payload_type, payload);
        self.unacked.insert(self.next, (message.clone(), now));
        self.next += 1;
        self.outbox.push(message);
    }
}
