//! Both captured sessions as transcripts: the agent's lines go in at their times. The channel's
//! output (with a smux session on top, as in the driver) is compared with the real client's.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smux::StreamId;
use ssm_channel::handshake::{OpenDataChannel, from_json};
use ssm_channel::{
    AgentMessage, AgentVersion, Channel, ChannelConfig, Event, MessageType, PayloadType, Transmit,
};

use crate::capture::{Line, Message, lines};
use crate::support::{WALL, ms};

/// One captured session and the channel that replays it.
struct Replay {
    channel: Channel,
    smux: smux::Mux,
    now: Duration,
    texts: Vec<String>,
    acks: VecDeque<AgentMessage>,
    data: VecDeque<AgentMessage>,
    events: Vec<Event>,
    smux_events: Vec<smux::MuxEvent>,
}

impl Replay {
    /// Creates a channel with the captured client's ids.
    fn new(open: &str, now: Duration) -> Self {
        let open: OpenDataChannel = from_json(open.as_bytes()).unwrap();
        let config = ChannelConfig {
            client_version: open.client_version.unwrap(),
            ..ChannelConfig::new(open.token_value, open.request_id, open.client_id, 7, WALL)
        };
        let mut replay = Self {
            channel: Channel::new(config, now),
            smux: smux::Mux::new(smux::MuxRole::Client),
            now,
            texts: Vec::new(),
            acks: VecDeque::new(),
            data: VecDeque::new(),
            events: Vec::new(),
            smux_events: Vec::new(),
        };
        replay.turn();
        replay
    }

    /// Performs a driver's work after every call: events up, data down, messages out.
    fn turn(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            if let Event::Output(bytes) = &event {
                self.smux.handle_input(bytes.clone()).unwrap();
            } else {
                self.events.push(event);
            }
        }
        while let Some(event) = self.smux.poll_event() {
            self.smux_events.push(event);
        }
        // The real client writes frames of any size and cuts the byte stream at 1,024.
        let mut stream = BytesMut::new();
        while let Some(bytes) = self.smux.poll_transmit(1 << 16) {
            stream.extend_from_slice(&bytes);
        }
        while !stream.is_empty() {
            let len = stream.len().min(ssm_channel::MAX_PAYLOAD);
            self.channel
                .send(self.now, stream.split_to(len).freeze())
                .unwrap();
        }
        while let Some(transmit) = self.channel.poll_transmit(self.now) {
            match transmit {
                Transmit::Text(text) => self.texts.push(text),
                Transmit::Binary(bytes) => {
                    let message = AgentMessage::decode(bytes).unwrap();
                    match message.message_type {
                        MessageType::Acknowledge => self.acks.push_back(message),
                        _ => self.data.push_back(message),
                    }
                }
            }
        }
    }

    /// Advances the time and runs timers.
    fn advance(&mut self, to: Duration) {
        while let Some(due) = self.channel.poll_timeout().filter(|due| *due <= to) {
            self.now = self.now.max(due);
            self.channel.handle_timeout(self.now).unwrap();
            self.turn();
        }
        self.now = self.now.max(to);
    }

    fn agent_says(&mut self, bytes: Bytes) {
        self.channel.handle_message(self.now, bytes).unwrap();
        self.turn();
    }

    /// Checks that the next acknowledgement is the captured one, except for its own id and date.
    fn expect_ack(&mut self, captured: &AgentMessage) {
        let ours = self
            .acks
            .pop_front()
            .expect("the real client acknowledged here");
        assert_same(&ours, captured);
    }

    fn expect_data(&mut self, captured: &AgentMessage) {
        let ours = self
            .data
            .pop_front()
            .expect("the real client sent data here");
        assert_same(&ours, captured);
    }

    fn received(&self, id: StreamId) -> Vec<u8> {
        let mut out = Vec::new();
        for event in &self.smux_events {
            if let smux::MuxEvent::Data { id: of, data } = event
                && *of == id
            {
                out.extend_from_slice(data);
            }
        }
        out
    }
}

fn assert_same(ours: &AgentMessage, captured: &AgentMessage) {
    let nameless = AgentMessage {
        id: captured.id,
        created_date: captured.created_date,
        ..ours.clone()
    };
    assert_eq!(&nameless, captured);
    assert!(ours.created_date >= WALL);
}

/// Starts the session of `refused` (or the other one) and returns the remaining lines: the agent's
/// messages from before the client connected are relayed once it is connected.
fn start(refused: bool) -> (Replay, Vec<Line>) {
    let all = lines();
    let second = all
        .iter()
        .map(|l| &l.session)
        .find(|s| **s != all[0].session)
        .unwrap()
        .clone();
    let mut session: Vec<_> = all
        .into_iter()
        .filter(|line| (line.session == second) == refused)
        .collect();
    let open_at = session
        .iter()
        .position(|line| line.from_client && matches!(line.message, Message::Text(_)))
        .unwrap();
    let open = session.remove(open_at);
    let Message::Text(text) = open.message else {
        panic!()
    };
    let replay = Replay::new(&text, ms(open.t_ms));
    assert_eq!(
        replay.texts,
        [text],
        "the opening message is the captured one"
    );
    session.retain(|line| matches!(line.message, Message::Binary(_)));
    (replay, session)
}

fn decode(line: &Line) -> (AgentMessage, Bytes) {
    let Message::Binary(bytes) = &line.message else {
        panic!()
    };
    (AgentMessage::decode(bytes.clone()).unwrap(), bytes.clone())
}

#[test]
fn two_streams_with_echo_half_close_and_spontaneous_repetitions() {
    let (mut replay, lines) = start(false);
    let (first, second) = (StreamId::new(3), StreamId::new(5));
    let mut seen = 0;
    for line in &lines {
        replay.advance(ms(line.t_ms));
        let (message, bytes) = decode(line);
        if !line.from_client {
            replay.agent_says(bytes);
            continue;
        }
        if message.message_type == MessageType::Acknowledge {
            replay.expect_ack(&message);
            continue;
        }
        if message.sequence.get() < seen {
            // The real client repeated a message although it had been acknowledged.
            assert_eq!(message.sequence.get(), 6);
            continue;
        }
        seen = message.sequence.get() + 1;
        match message.sequence.get() {
            0 | 5 | 6 => {}
            1 => assert_eq!(replay.smux.open().unwrap(), first),
            2 => {
                let hello = Bytes::from_static(b"hello through the tunnel\n");
                replay.smux.send(first, hello).unwrap();
            }
            3 => assert_eq!(replay.smux.open().unwrap(), second),
            4 => replay
                .smux
                .send(second, Bytes::from(vec![b'x'; 3000]))
                .unwrap(),
            7 => replay.smux.finish(first),
            8 => replay.smux.finish(second),
            9 => replay.channel.terminate(replay.now),
            other => panic!("message {other} is not in the capture"),
        }
        replay.turn();
        replay.expect_data(&message);
    }
    assert_eq!(seen, 10);
    assert!(replay.data.is_empty());
    // The agent sent number 3 twice more. The real client did not answer; this channel does, both
    // times, and acknowledges those above it as well.
    let number = |ack: &AgentMessage| {
        let ack = ssm_channel::Acknowledge::from_json(&ack.payload).unwrap();
        ack.sequence.get()
    };
    let extra: Vec<u64> = replay.acks.iter().map(number).collect();
    assert_eq!(extra.iter().filter(|&&number| number == 3).count(), 2);
    assert!(extra.iter().all(|&number| number >= 3), "{extra:?}");
    let agent_version: AgentVersion = "3.3.0.0".parse().unwrap();
    let customer_message = String::new();
    assert_eq!(
        replay.events,
        [Event::Established {
            agent_version,
            customer_message
        }]
    );
    assert_eq!(replay.received(first), b"HELLO THROUGH THE TUNNEL\n");
    assert_eq!(replay.received(second), [b'X'; 3000]);
    assert!(replay.channel.is_drained());
    assert_eq!(replay.channel.poll_timeout(), None);
    let session = replay.channel.session_type().unwrap();
    assert_eq!(session.property("host"), Some("127.0.0.1"));
    assert_eq!(session.property("portNumber"), Some("9996"));
    let stats = replay.channel.stats();
    assert_eq!((stats.sent, stats.acked, stats.retransmitted), (10, 10, 0));
    assert_eq!((stats.received, stats.duplicates, stats.ignored), (8, 2, 1));
    assert!(stats.srtt.unwrap() < ms(3));
}

#[test]
fn a_refused_port() {
    let (mut replay, lines) = start(true);
    let stream = StreamId::new(3);
    let mut fin = None;
    for line in &lines {
        replay.advance(ms(line.t_ms));
        let (message, bytes) = decode(line);
        if !line.from_client {
            replay.agent_says(bytes);
            continue;
        }
        match (&message.message_type, message.sequence.get()) {
            (MessageType::Acknowledge, _) => replay.expect_ack(&message),
            (_, 0) => replay.expect_data(&message),
            (_, 1) => {
                assert_eq!(replay.smux.open().unwrap(), stream);
                replay.turn();
                replay.expect_data(&message);
            }
            // The real client read its "hello" late and sent it into the closed stream. This side
            // answers the FIN at once and refuses the data.
            (_, 2) => {
                let hello = Bytes::from_static(b"hello\n");
                assert_eq!(
                    replay.smux.send(stream, hello),
                    Err(smux::MuxError::NotOpen(stream))
                );
                fin = replay.data.pop_front();
            }
            (_, 3) => {
                let ours = fin.take().expect("our FIN left with the agent's");
                assert_eq!((ours.sequence.get(), &ours.payload), (2, &message.payload));
            }
            (_, other) => panic!("message {other} is not in the capture"),
        }
    }
    assert!(replay.data.is_empty() && replay.acks.is_empty());
    assert_eq!(replay.events.len(), 2);
    assert!(matches!(replay.events[0], Event::Established { .. }));
    assert_eq!(replay.events[1], Event::ConnectToPortError);
    assert_eq!(replay.smux_events, [smux::MuxEvent::Finished(stream)]);
    // The captured agent acknowledges a number 3 that this channel never used; that is ignored.
    assert!(replay.channel.is_drained());
    let stats = replay.channel.stats();
    assert_eq!((stats.sent, stats.acked), (3, 3));

    // The terminate flag has the payload of the captured one of the other session.
    replay.channel.terminate(replay.now);
    replay.turn();
    let goodbye = replay.data.pop_front().unwrap();
    assert_eq!(goodbye.payload_type, PayloadType::Flag);
    assert_eq!(goodbye.payload[..], [0, 0, 0, 2]);
}
