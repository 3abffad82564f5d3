//! The client's end of a data channel against a model of it, on a virtual clock.
//!
//! The model is what the crate promises, without its data structures: which messages are
//! acknowledged, which events come in which order, what may be sent and when it is sent again.

#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ssm_channel::handshake::{
    ActionParameters, HandshakeComplete, HandshakeRequest, RequestedAction, SessionType, from_json,
};
use ssm_channel::{
    Acknowledge, AgentMessage, AgentVersion, Channel, ChannelConfig, ChannelToken, DataKey, Error,
    Event, FlagPayload, MAX_PAYLOAD, MessageId, MessageType, PayloadType, SequenceNumber, Transmit,
};

/// A message is repeated no earlier than this after it was last sent, ...
const SOONEST: Duration = Duration::from_millis(200);
/// ... and no later than this.
const LATEST: Duration = Duration::from_secs(1);
const HANDSHAKE: Duration = Duration::from_secs(15);
/// The farthest a message may be ahead of the oldest unacknowledged one.
const SPAN: u64 = 8_192;
/// So many may always be under way.
const ALWAYS: usize = 4;
/// What encryption adds to a payload.
const SEALED: usize = 28;

const REQUESTS: [&str; 7] = [
    concat!(
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","#,
        r#""ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"5432"}}}]}"#
    ),
    concat!(
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"KMSEncryption","#,
        r#""ActionParameters":{"KMSKeyId":"arn:aws:kms:x"}},{"ActionType":"New"}]}"#
    ),
    concat!(
        r#"{"AgentVersion":"three","RequestedClientActions":[{"ActionType":"SessionType","#,
        r#""ActionParameters":{"SessionType":"Port"}}]}"#
    ),
    concat!(
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","#,
        r#""ActionParameters":{"SessionType":"Standard_Stream","Properties":null}}]}"#
    ),
    r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[]}"#,
    concat!(
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"KMSEncryption","#,
        r#""ActionParameters":{"KMSKeyId":"k","Challenge":"c"}},{"ActionType":"SessionType","#,
        r#""ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"5432"}}}]}"#
    ),
    concat!(
        r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","#,
        r#""ActionParameters":{"SessionType":"Port"}},{"ActionType":"KMSEncryption","#,
        r#""ActionParameters":{"KMSKeyId":"k"}},{"ActionType":"KMSEncryption","#,
        r#""ActionParameters":{"KMSKeyId":"l"}}]}"#
    ),
];
const COMPLETE: &str = r#"{"HandshakeTimeToComplete":1,"CustomerMessage":"hello"}"#;

#[derive(Debug, Arbitrary)]
struct Scenario<'a> {
    /// Begins after a good handshake.
    established: bool,
    window: u16,
    reorder_messages: u8,
    reorder_bytes: u16,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Place {
    /// Counted from the next expected number.
    Near(i8),
    Anywhere(u64),
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Output {
        place: Place,
        length: u8,
    },
    Request {
        place: Place,
        which: u8,
    },
    Complete {
        place: Place,
    },
    Flag {
        place: Place,
        code: u8,
    },
    Data {
        place: Place,
        kind: u32,
        payload: &'a [u8],
    },
    /// A message that came before, as it was.
    Again {
        which: u8,
    },
    /// A message that came before, with something changed.
    Damaged {
        which: u8,
        at: u16,
        xor: u8,
    },
    /// The agent has one of our messages: by its place among the unacknowledged, or any number.
    Ack {
        place: u8,
    },
    AckAnything {
        number: u64,
        of_output: bool,
    },
    Service {
        name: u8,
        payload: &'a [u8],
    },
    Raw(&'a [u8]),
    Send {
        length: u16,
    },
    Terminate,
    Disconnected,
    Reconnect,
    /// A data key of so many bytes; 64 in half of the cases.
    ProvideKey {
        length: u8,
    },
    RefuseKey,
    TakeEvents,
    /// Takes so many messages, or (0) all there are.
    Transmit {
        count: u8,
    },
    Wait {
        ms: u16,
    },
    /// Until the channel asks to be called.
    WaitForTimer,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Opening,
    Keyless(AgentVersion),
    Answered(AgentVersion),
    Established,
}

/// One of our messages that has no acknowledgement.
struct Ours {
    kind: PayloadType,
    /// `None`: an answer of the handshake, or encrypted; not the model's business.
    payload: Option<Bytes>,
    /// When it was last handed out, and as what. Without a time: on an earlier connection.
    sent: Option<(Option<Duration>, Bytes)>,
}

struct World {
    channel: Channel,
    now: Duration,
    history: Vec<Bytes>,
    ids: u128,

    phase: Phase,
    handshake_since: Duration,
    encrypted: bool,
    connected: bool,
    paused: bool,
    terminating: bool,
    failed: Option<String>,
    opened: bool,

    expected: u64,
    waiting: BTreeMap<u64, (PayloadType, Bytes)>,
    max_waiting: usize,
    max_waiting_bytes: usize,
    acks: VecDeque<(MessageId, SequenceNumber)>,
    events: VecDeque<Event>,

    cap: usize,
    next: u64,
    ours: BTreeMap<u64, Ours>,
}

impl World {
    fn new(scenario: &Scenario<'_>) -> Self {
        let token = ChannelToken::new("tok-secret".to_owned());
        let mut config = ChannelConfig::new(token, "request".to_owned(), "client".to_owned(), 1, 0);
        config.send_window = usize::from(scenario.window);
        config.reorder_messages = usize::from(scenario.reorder_messages);
        config.reorder_bytes = usize::from(scenario.reorder_bytes);
        config.handshake_timeout = HANDSHAKE;
        Self {
            channel: Channel::new(config, Duration::ZERO),
            now: Duration::ZERO,
            history: Vec::new(),
            ids: 0,
            phase: Phase::Opening,
            handshake_since: Duration::ZERO,
            encrypted: false,
            connected: true,
            paused: false,
            terminating: false,
            failed: None,
            opened: false,
            expected: 0,
            waiting: BTreeMap::new(),
            max_waiting: usize::from(scenario.reorder_messages),
            max_waiting_bytes: usize::from(scenario.reorder_bytes),
            acks: VecDeque::new(),
            events: VecDeque::new(),
            cap: usize::from(scenario.window),
            next: 0,
            ours: BTreeMap::new(),
        }
    }

    fn establish(&mut self) {
        self.data(
            &Place::Near(0),
            PayloadType::HandshakeRequest,
            REQUESTS[0].as_bytes(),
        );
        self.transmit(usize::MAX);
        self.acknowledge(0, MessageType::InputStreamData);
        self.data(
            &Place::Near(0),
            PayloadType::HandshakeComplete,
            COMPLETE.as_bytes(),
        );
        self.transmit(usize::MAX);
        self.take_events();
        assert_eq!(self.phase, Phase::Established);
        assert!(self.channel.is_drained() && self.failed.is_none());
    }

    fn id(&mut self) -> MessageId {
        self.ids += 1;
        MessageId::new(self.ids)
    }

    fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Output { place, length } => {
                let payload: Vec<u8> = (0..*length).map(|n| n ^ self.ids as u8).collect();
                self.data(place, PayloadType::Output, &payload);
            }
            Step::Request { place, which } => {
                let text = REQUESTS[usize::from(*which) % REQUESTS.len()];
                self.data(place, PayloadType::HandshakeRequest, text.as_bytes());
            }
            Step::Complete { place } => {
                self.data(place, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
            }
            Step::Flag { place, code } => {
                self.data(place, PayloadType::Flag, &[0, 0, 0, *code]);
            }
            Step::Data {
                place,
                kind,
                payload,
            } => self.data(place, PayloadType::from_code(*kind), payload),
            Step::Again { which } => {
                if let Some(message) = self.earlier(*which) {
                    self.deliver(message);
                }
            }
            Step::Damaged { which, at, xor } => {
                if let Some(message) = self.earlier(*which) {
                    let mut message = message.to_vec();
                    let at = usize::from(*at) % message.len().max(1);
                    if let Some(byte) = message.get_mut(at) {
                        *byte ^= xor;
                    }
                    self.deliver(message.into());
                }
            }
            Step::Ack { place } => {
                let place = usize::from(*place) % self.ours.len().max(1);
                if let Some(number) = self.ours.keys().nth(place).copied() {
                    self.acknowledge(number, MessageType::InputStreamData);
                }
            }
            Step::AckAnything { number, of_output } => {
                let of = if *of_output {
                    MessageType::OutputStreamData
                } else {
                    MessageType::InputStreamData
                };
                self.acknowledge(*number, of);
            }
            Step::Service { name, payload } => self.service(*name, payload),
            Step::Raw(bytes) => self.deliver(Bytes::copy_from_slice(bytes)),
            Step::Send { length } => self.send(usize::from(*length) % (MAX_PAYLOAD + 2)),
            Step::Terminate => self.terminate(),
            Step::Disconnected => {
                self.channel.disconnected(self.now);
                self.lose_connection();
            }
            Step::Reconnect => self.reconnect(),
            Step::ProvideKey { length } => self.provide_key(*length),
            Step::RefuseKey => self.refuse_key(),
            Step::TakeEvents => self.take_events(),
            Step::Transmit { count: 0 } => self.transmit(usize::MAX),
            Step::Transmit { count } => self.transmit(usize::from(*count)),
            Step::Wait { ms } => self.wait(Duration::from_millis(u64::from(*ms))),
            Step::WaitForTimer => {
                let until = self.channel.poll_timeout().unwrap_or(self.now);
                self.wait(until.saturating_sub(self.now));
            }
        }
        self.check();
    }

    fn earlier(&self, which: u8) -> Option<Bytes> {
        let which = usize::from(which) % self.history.len().max(1);
        self.history.get(which).cloned()
    }

    fn data(&mut self, place: &Place, kind: PayloadType, payload: &[u8]) {
        let number = match place {
            Place::Near(ahead) => self.expected.saturating_add_signed(i64::from(*ahead)),
            Place::Anywhere(number) => *number,
        };
        let message = AgentMessage::data(
            MessageType::OutputStreamData,
            SequenceNumber::new(number),
            self.id(),
            0,
            (kind, Bytes::copy_from_slice(payload)),
        );
        self.deliver(message.encode());
    }

    fn acknowledge(&mut self, number: u64, message_type: MessageType) {
        let ack = Acknowledge {
            message_type,
            id: self.id(),
            sequence: SequenceNumber::new(number),
            is_sequential: true,
        };
        let message = AgentMessage::acknowledge(&ack, self.id(), 0);
        self.deliver(message.encode());
    }

    fn service(&mut self, name: u8, payload: &[u8]) {
        let names = [
            "pause_publication",
            "start_publication",
            "acknowledge",
            "input_stream_data",
            "agent_session_state",
            "channel_closed",
        ];
        let name = names[usize::from(name) % names.len()];
        let message = AgentMessage::data(
            MessageType::from_name(name),
            SequenceNumber::FIRST,
            self.id(),
            0,
            (PayloadType::None, Bytes::copy_from_slice(payload)),
        );
        self.deliver(message.encode());
    }

    /// One message for the channel and for the model.
    fn deliver(&mut self, bytes: Bytes) {
        let decoded = AgentMessage::decode(bytes.clone());
        if let Ok(message) = &decoded {
            assert_eq!(
                AgentMessage::decode(message.encode()).as_ref(),
                Ok(message),
                "what was read can be written"
            );
        }
        if self.history.len() < 64 {
            self.history.push(bytes.clone());
        }
        let outcome = self.channel.handle_message(self.now, bytes);
        if self.failed.is_some() {
            return self.note(outcome);
        }
        assert_eq!(
            decoded.is_err(),
            matches!(outcome, Err(Error::Malformed(_)))
        );
        let fine = decoded.is_ok_and(|message| self.receive(&message));
        assert_eq!(outcome.is_ok(), fine, "{outcome:?}");
        self.note(outcome);
    }

    /// Fatal errors stick.
    fn note(&mut self, outcome: Result<(), Error>) {
        let text = outcome.as_ref().err().map(Error::to_string);
        if let Err(error) = &outcome {
            assert!(error.is_fatal());
        }
        if self.failed.is_some() {
            assert_eq!(text, self.failed);
        }
        self.failed = text;
    }

    /// What the model makes of a message; false when it ends the channel.
    fn receive(&mut self, message: &AgentMessage) -> bool {
        match &message.message_type {
            MessageType::OutputStreamData => self.receive_data(message),
            MessageType::Acknowledge => {
                let Ok(ack) = Acknowledge::from_json(&message.payload) else {
                    return false;
                };
                let number = ack.sequence.get();
                let ours = ack.message_type == MessageType::InputStreamData;
                if ours && self.ours.get(&number).is_some_and(|o| o.sent.is_some()) {
                    self.ours.remove(&number);
                }
                true
            }
            MessageType::ChannelClosed => false,
            MessageType::PausePublication => {
                if !self.paused {
                    self.paused = true;
                    self.events.push_back(Event::Paused);
                }
                true
            }
            MessageType::StartPublication => {
                self.restart();
                true
            }
            MessageType::InputStreamData | MessageType::Other(_) => true,
        }
    }

    fn restart(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.events.push_back(Event::Restarted);
        }
    }

    fn receive_data(&mut self, message: &AgentMessage) -> bool {
        self.restart();
        let number = message.sequence.get();
        let content = (message.payload_type, message.payload.clone());
        let known = number < self.expected || self.waiting.contains_key(&number);
        if !known && number != self.expected {
            let bytes: usize = self
                .waiting
                .values()
                .map(|(_, payload)| payload.len())
                .sum();
            if self.waiting.len() >= self.max_waiting
                || bytes + content.1.len() > self.max_waiting_bytes
            {
                return true; // No room, so no acknowledgement.
            }
        }
        self.acks.push_back((message.id, message.sequence));
        if known {
            return true;
        }
        self.waiting.insert(number, content);
        while let Some((kind, payload)) = self.waiting.remove(&self.expected) {
            self.expected += 1;
            if !self.process(kind, payload) {
                return false;
            }
        }
        true
    }

    /// One data message in order.
    fn process(&mut self, kind: PayloadType, payload: Bytes) -> bool {
        match (kind, self.phase) {
            (PayloadType::HandshakeRequest, Phase::Opening) => {
                let Ok(request) = from_json::<HandshakeRequest>(&payload) else {
                    return false;
                };
                match agreeable(&request) {
                    Some((version, Some((kms_key_id, challenge)))) => {
                        self.events.push_back(Event::KeyRequired {
                            kms_key_id,
                            challenge,
                        });
                        self.phase = Phase::Keyless(version);
                        return true;
                    }
                    Some((version, None)) => self.phase = Phase::Answered(version),
                    None => {}
                }
                self.push(PayloadType::HandshakeResponse, None);
                self.phase != Phase::Opening
            }
            (PayloadType::HandshakeComplete, Phase::Answered(agent_version)) => {
                let Ok(complete) = from_json::<HandshakeComplete>(&payload) else {
                    return false;
                };
                self.events.push_back(Event::Established {
                    agent_version,
                    customer_message: complete.customer_message,
                });
                self.phase = Phase::Established;
                if self.terminating {
                    self.push_goodbye();
                }
                true
            }
            // Nobody here can encrypt, so it is damaged.
            (PayloadType::Output, Phase::Established) if self.encrypted => false,
            (PayloadType::Output, Phase::Established) => {
                if !payload.is_empty() {
                    self.events.push_back(Event::Output(payload));
                }
                true
            }
            (PayloadType::Flag, _) => {
                match FlagPayload::decode(&payload) {
                    Some(FlagPayload::ConnectToPortError) => {
                        self.events.push_back(Event::ConnectToPortError);
                    }
                    Some(FlagPayload::DisconnectToPort) => {
                        self.events.push_back(Event::Disconnected)
                    }
                    _ => {}
                }
                true
            }
            _ => !matches!(
                kind,
                PayloadType::Output
                    | PayloadType::HandshakeRequest
                    | PayloadType::HandshakeComplete
                    | PayloadType::EncryptionChallengeRequest
            ),
        }
    }

    fn push(&mut self, kind: PayloadType, payload: Option<Bytes>) {
        let sent = None;
        self.ours.insert(
            self.next,
            Ours {
                kind,
                payload,
                sent,
            },
        );
        self.next += 1;
    }

    fn push_goodbye(&mut self) {
        let flag = FlagPayload::TerminateSession.encode();
        self.push(PayloadType::Flag, Some(Bytes::copy_from_slice(&flag)));
    }

    fn terminate(&mut self) {
        self.channel.terminate(self.now);
        if !std::mem::replace(&mut self.terminating, true)
            && self.failed.is_none()
            && self.phase == Phase::Established
        {
            self.push_goodbye();
        }
    }

    fn lose_connection(&mut self) {
        self.connected = false;
        for ours in self.ours.values_mut() {
            if let Some((at, _)) = &mut ours.sent {
                *at = None;
            }
        }
    }

    fn reconnect(&mut self) {
        let token = ChannelToken::new("tok-secret".to_owned());
        let outcome = self.channel.reconnect(self.now, token, String::new());
        if self.failed.is_some() {
            return self.note(outcome);
        }
        assert!(outcome.is_ok());
        self.lose_connection();
        self.connected = true;
        self.opened = false;
        self.handshake_since = self.now;
        self.restart();
    }

    fn provide_key(&mut self, length: u8) {
        let length = if length < 128 {
            64
        } else {
            usize::from(length)
        };
        let key = DataKey {
            plaintext: vec![length as u8; length].into(),
            ciphertext: vec![1; 7],
        };
        let outcome = self.channel.provide_key(self.now, key);
        match (outcome, self.phase) {
            (outcome, _) if self.failed.is_some() => self.note(outcome),
            (Ok(()), Phase::Keyless(version)) => {
                assert_eq!(length, 64);
                self.encrypted = true;
                self.phase = Phase::Answered(version);
                self.push(PayloadType::HandshakeResponse, None);
            }
            (Err(Error::KeyLength(_)), Phase::Keyless(_)) => assert_ne!(length, 64),
            (outcome, phase) => {
                assert!(matches!(outcome, Err(Error::KeyNotRequired)), "{phase:?}");
            }
        }
    }

    fn refuse_key(&mut self) {
        let error = self.channel.refuse_key(self.now, "no");
        match (&error, self.phase) {
            _ if self.failed.is_some() => self.note(Err(error)),
            (Error::KeyRefused { .. }, Phase::Keyless(_)) => {
                self.push(PayloadType::HandshakeResponse, None);
                self.note(Err(error));
            }
            (error, phase) => assert!(matches!(error, Error::KeyNotRequired), "{phase:?}"),
        }
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD - if self.encrypted { SEALED } else { 0 }
    }

    /// What the model says about [`Channel::sendable`].
    fn room(&self) -> usize {
        let open = self.phase == Phase::Established && !self.terminating && self.connected;
        if !open || self.paused || self.failed.is_some() {
            return 0;
        }
        let oldest = self.ours.keys().next().copied().unwrap_or(self.next);
        let span = usize::try_from(SPAN.saturating_sub(self.next - oldest)).unwrap();
        let window = self.channel.stats().window;
        window.saturating_sub(self.ours.len()).min(span)
    }

    fn send(&mut self, length: usize) {
        let payload: Bytes = (0..length).map(|n| (n as u64 ^ self.next) as u8).collect();
        let (room, max) = (self.room(), self.max_payload());
        match self.channel.send(self.now, payload.clone()) {
            Ok(()) => {
                assert!(self.failed.is_none() && length <= max && room > 0);
                if length > 0 {
                    self.push(PayloadType::Output, (!self.encrypted).then_some(payload));
                }
            }
            Err(Error::PayloadTooLarge(_)) => assert!(length > max),
            Err(Error::NotSendable) => assert_eq!(room, 0),
            Err(error) => assert_eq!(Some(error.to_string()), self.failed),
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            assert_eq!(Some(event), self.events.pop_front());
        }
        assert_eq!(self.events.pop_front(), None, "an event is missing");
    }

    fn transmit(&mut self, count: usize) {
        for _ in 0..count {
            let Some(transmit) = self.channel.poll_transmit(self.now) else {
                return self.check_silence();
            };
            match transmit {
                Transmit::Text(text) => {
                    assert!(text.contains("tok-secret"));
                    assert!(!std::mem::replace(&mut self.opened, true));
                }
                Transmit::Binary(bytes) => self.transmitted(bytes),
            }
        }
    }

    fn transmitted(&mut self, bytes: Bytes) {
        assert!(self.opened, "the opening text is first");
        assert!(self.connected, "without a WebSocket");
        let message = AgentMessage::decode(bytes.clone()).unwrap();
        if message.message_type == MessageType::Acknowledge {
            let ack = Acknowledge::from_json(&message.payload).unwrap();
            assert_eq!(ack.message_type, MessageType::OutputStreamData);
            assert_eq!(Some((ack.id, ack.sequence)), self.acks.pop_front());
            return;
        }
        assert_eq!(message.message_type, MessageType::InputStreamData);
        assert!(self.acks.is_empty(), "acknowledgements are first");
        assert!(!self.paused, "data during a pause");
        let number = message.sequence.get();
        let failed = self.failed.is_some();
        let first_unsent = self.first_unsent();
        let overdue = self.overdue();
        let ours = self.ours.get_mut(&number).expect("one without answer");
        match &ours.sent {
            None => {
                assert_eq!(first_unsent, Some(number), "new ones in order");
                assert!(!overdue || failed, "a new one before an overdue one");
                assert_eq!(message.payload_type, ours.kind);
                if let Some(payload) = &ours.payload {
                    assert_eq!(message.payload, payload);
                }
            }
            Some((at, before)) => {
                assert!(!failed, "a repetition after the end");
                assert_eq!(before, &bytes, "repeated as it was");
                let due = at.is_none_or(|at| self.now >= at + SOONEST);
                assert!(due, "repeated too early");
            }
        }
        ours.sent = Some((Some(self.now), bytes));
    }

    fn first_unsent(&self) -> Option<u64> {
        let unsent = self.ours.iter().find(|(_, ours)| ours.sent.is_none());
        unsent.map(|(number, _)| *number)
    }

    /// Whether a message has been waiting for its acknowledgement for as long as any may.
    fn overdue(&self) -> bool {
        let mut sent = self.ours.values().filter_map(|ours| ours.sent.as_ref());
        sent.any(|(at, _)| at.is_none_or(|at| self.now >= at + LATEST))
    }

    /// Messages that may hold up others: at most so many are sent and not overdue.
    fn under_way(&self) -> usize {
        let sent = self.ours.values().filter_map(|ours| ours.sent.as_ref());
        let young = |at: &Option<Duration>| at.is_some_and(|at| self.now < at + LATEST);
        sent.filter(|(at, _)| young(at)).count()
    }

    /// Nothing is to be sent now: it must be so, and the timer must know when there is.
    fn check_silence(&self) {
        let timer = self.channel.poll_timeout();
        if !self.connected {
            return assert_eq!(timer, None);
        }
        assert!(self.opened && self.acks.is_empty());
        if self.paused {
            return;
        }
        if self.failed.is_some() {
            assert_eq!(self.first_unsent(), None);
            return assert_eq!(timer, None);
        }
        let handshake = self.phase != Phase::Established;
        assert_eq!(timer.is_some(), handshake || !self.ours.is_empty());
        assert!(handshake || timer.is_none_or(|timer| timer > self.now));
        let window = self.channel.stats().window.max(ALWAYS);
        if self.ours.len() > window {
            let waiting = self.first_unsent().is_some() || self.overdue();
            return assert!(!waiting || self.under_way() >= window);
        }
        assert_eq!(self.first_unsent(), None);
        assert!(!self.overdue());
        for ours in self.ours.values() {
            let (at, _) = ours.sent.as_ref().unwrap();
            assert!(timer.unwrap() <= at.unwrap() + LATEST);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let outcome = self.channel.handle_timeout(self.now);
        if self.failed.is_none() {
            let late = self.phase != Phase::Established
                && self.connected
                && self.now >= self.handshake_since + HANDSHAKE;
            assert_eq!(matches!(outcome, Err(Error::HandshakeTimeout { .. })), late);
            assert!(late || outcome.is_ok());
        }
        self.note(outcome);
    }

    fn check(&self) {
        assert_eq!(self.channel.sendable(), self.room());
        let stats = self.channel.stats();
        assert_eq!(stats.in_flight, self.ours.len());
        assert!(stats.window <= self.cap);
        assert_eq!(self.channel.max_payload(), self.max_payload());
        assert_eq!(stats.reordering, self.waiting.len());
        assert!(stats.rto >= SOONEST && stats.rto <= LATEST);
        let drained = self.opened && self.acks.is_empty() && self.ours.is_empty();
        assert_eq!(self.channel.is_drained(), drained);
    }
}

type Kms = (String, Option<String>);

/// The agent's version, and the key it wants, if its wishes can be fulfilled: port sessions, one
/// encryption and nothing else.
fn agreeable(request: &HandshakeRequest) -> Option<(AgentVersion, Option<Kms>)> {
    let (mut kms, mut port) = (None, false);
    for RequestedAction {
        action_type,
        action_parameters,
    } in &request.requested_client_actions
    {
        match (action_type.as_str(), action_parameters) {
            (RequestedAction::SESSION_TYPE, ActionParameters::SessionType(session))
                if session.session_type == SessionType::PORT =>
            {
                port = true;
            }
            (RequestedAction::KMS_ENCRYPTION, ActionParameters::Kms(wanted)) if kms.is_none() => {
                kms = Some((wanted.key_id.clone(), wanted.challenge.clone()));
            }
            _ => return None,
        }
    }
    let version = request.agent_version.parse().ok().filter(|_| port)?;
    Some((version, kms))
}

fuzz_target!(|scenario: Scenario<'_>| {
    let mut world = World::new(&scenario);
    if scenario.established {
        world.establish();
    }
    for step in &scenario.steps {
        world.step(step);
    }
    world.take_events();
    world.transmit(usize::MAX);
    let _ = format!("{:?}", world.channel);
});
