//! A small model of the agent with the real one's behaviour. Written for the simulation; shares no
//! state machine with the crate.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ssm_channel::handshake::{
    EncryptionChallenge, HandshakeResponse, KmsEncryptionResult, from_json, to_json,
};
use ssm_channel::{Acknowledge, AgentMessage, FlagPayload, MessageType, PayloadType};

use crate::secret::{CIPHERTEXT, Secret, request_with_kms};
use crate::support::{COMPLETE, REQUEST, ack_from_agent, from_agent, ms};

/// Interval at which the agent checks its oldest unacknowledged message.
const RESEND_CHECK: Duration = ms(100);
const CHALLENGE: &[u8] = b"can you read this?";

/// Behaviour of the agent.
pub(crate) struct Habits {
    /// Time after the handshake until its port handler is ready.
    pub(crate) startup: Duration,
    /// Delay after sending a message until the agent records it; an acknowledgement that comes
    /// earlier is lost.
    pub(crate) memory: Duration,
    /// It requests encryption, with a challenge for the encryption context or without.
    pub(crate) kms: Option<bool>,
}

pub(crate) struct Agent {
    habits: Habits,
    secret: Option<Secret>,
    /// The data to send, and the position in it.
    script: Vec<u8>,
    said: usize,
    /// The data received.
    pub(crate) heard: Vec<u8>,
    pub(crate) goodbyes: usize,
    /// Client → agent: the next number, early messages, and every message ever received.
    expected: u64,
    early: BTreeMap<u64, AgentMessage>,
    seen: BTreeMap<u64, Bytes>,
    /// Agent → client.
    next: u64,
    /// Sent, but not recorded yet.
    forgotten: VecDeque<(Duration, u64, Bytes)>,
    unacked: BTreeMap<u64, (Bytes, Duration)>,
    rto: Duration,
    next_check: Duration,
    /// Time at which the port handler is ready; before that Output is dropped silently.
    ready_at: Option<Duration>,
    pub(crate) outbox: Vec<Bytes>,
    pub(crate) dropped_before_ready: usize,
    pub(crate) acks_lost: usize,
}

impl Agent {
    pub(crate) fn new(script: Vec<u8>, habits: Habits) -> Self {
        Self {
            habits,
            secret: None,
            script,
            said: 0,
            heard: Vec::new(),
            goodbyes: 0,
            expected: 0,
            early: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 0,
            forgotten: VecDeque::new(),
            unacked: BTreeMap::new(),
            rto: ms(200),
            next_check: RESEND_CHECK,
            ready_at: None,
            outbox: Vec::new(),
            dropped_before_ready: 0,
            acks_lost: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        let request = match self.habits.kms {
            Some(challenge) => request_with_kms(challenge),
            None => REQUEST.to_owned(),
        };
        self.send(ms(0), PayloadType::HandshakeRequest, request.as_bytes());
    }

    pub(crate) fn script(&self) -> &[u8] {
        &self.script
    }

    /// Returns true if all data is sent and acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.said == self.script.len() && self.unacked.is_empty() && self.forgotten.is_empty()
    }

    /// Returns true if the agent may send. It has no window: it sends without waiting for
    /// acknowledgements.
    pub(crate) fn has_more(&self, now: Duration) -> bool {
        self.said < self.script.len() && self.is_ready(now)
    }

    /// Sends one message of at most `max` bytes of its script.
    pub(crate) fn speak(&mut self, now: Duration, max: usize) {
        let end = self.script.len().min(self.said + max);
        let payload = self.script[self.said..end].to_vec();
        self.said = end;
        let payload = match &mut self.secret {
            Some(secret) => secret.seal(&payload),
            None => payload,
        };
        self.send(now, PayloadType::Output, &payload);
    }

    /// Repeats only the oldest message, only every 100 ms, and only when it is older than the
    /// timeout.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some((at, ..)) = self.forgotten.front()
            && *at <= now
        {
            let Some((at, number, message)) = self.forgotten.pop_front() else {
                break;
            };
            self.unacked.insert(number, (message, at));
        }
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

    /// Returns the time of the next `tick`.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        let check = (!self.unacked.is_empty()).then_some(self.next_check);
        let memory = self.forgotten.front().map(|(at, ..)| *at);
        check.into_iter().chain(memory).min()
    }

    pub(crate) fn receive(&mut self, now: Duration, bytes: Bytes) {
        let message = AgentMessage::decode(bytes.clone()).unwrap();
        if message.message_type == MessageType::Acknowledge {
            let ack = Acknowledge::from_json(&message.payload).unwrap();
            assert_eq!(ack.message_type, MessageType::OutputStreamData);
            let number = ack.sequence.get();
            assert!(number < self.next, "an acknowledgement of the future");
            self.unacked.remove(&number);
            self.acks_lost += usize::from(self.forgotten.iter().any(|(_, n, _)| *n == number));
            return;
        }
        assert_eq!(message.message_type, MessageType::InputStreamData);
        assert!(message.payload.len() <= ssm_channel::MAX_PAYLOAD);
        let number = message.sequence.get();
        let first = self.seen.entry(number).or_insert_with(|| bytes.clone());
        assert_eq!(
            *first, bytes,
            "a repeated message differs from its original"
        );
        if number > self.expected {
            // It keeps 10,000; the client stays far below.
            assert!(number - self.expected <= 8192 + 2);
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

    /// Processes a message; returns false when the agent is not ready and drops it.
    fn process(&mut self, now: Duration, message: &AgentMessage) -> bool {
        match message.payload_type {
            PayloadType::HandshakeResponse => self.process_response(now, &message.payload),
            PayloadType::EncryptionChallengeResponse => {
                let answer: EncryptionChallenge = from_json(&message.payload).unwrap();
                let secret = self.secret.as_mut().unwrap();
                assert_eq!(secret.open(&answer.challenge), CHALLENGE);
                self.complete(now);
            }
            _ if !self.is_ready(now) => {
                self.dropped_before_ready += 1;
                return false;
            }
            PayloadType::Output => {
                assert_eq!(self.goodbyes, 0, "data after goodbye");
                match &mut self.secret {
                    Some(secret) => self.heard.extend(secret.open(&message.payload)),
                    None => self.heard.extend_from_slice(&message.payload),
                }
            }
            PayloadType::Flag => {
                assert_eq!(
                    FlagPayload::decode(&message.payload),
                    Some(FlagPayload::TerminateSession)
                );
                self.goodbyes += 1;
            }
            other => panic!("{other:?} from the client"),
        }
        true
    }

    fn process_response(&mut self, now: Duration, payload: &[u8]) {
        let response: HandshakeResponse = from_json(payload).unwrap();
        assert_eq!(response.errors, None);
        let Some(challenged) = self.habits.kms else {
            return self.complete(now);
        };
        let kms = &response.processed_client_actions[0];
        let result: KmsEncryptionResult =
            serde_json::from_value(kms.action_result.clone()).unwrap();
        assert_eq!(result.cipher_text_key, CIPHERTEXT);
        assert_eq!(result.challenge_acknowledgement, challenged);
        let secret = self.secret.insert(Secret::agent());
        let challenge = secret.seal(CHALLENGE);
        let text = to_json(&EncryptionChallenge { challenge });
        self.send(now, PayloadType::EncryptionChallengeRequest, &text);
    }

    fn complete(&mut self, now: Duration) {
        self.ready_at = Some(now + self.habits.startup);
        self.send(now, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    }

    fn is_ready(&self, now: Duration) -> bool {
        self.ready_at.is_some_and(|ready| now >= ready)
    }

    fn send(&mut self, now: Duration, payload_type: PayloadType, payload: &[u8]) {
        let message = from_agent(self.next, payload_type, payload);
        if self.habits.memory == ms(0) {
            self.unacked.insert(self.next, (message.clone(), now));
        } else {
            let at = now + self.habits.memory;
            self.forgotten.push_back((at, self.next, message.clone()));
        }
        self.next += 1;
        self.outbox.push(message);
    }
}
