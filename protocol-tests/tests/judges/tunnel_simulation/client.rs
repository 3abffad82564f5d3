//! Our side: the two machines, and as little of a driver as can be.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use smux::{Mux, MuxRole, StreamId};
use ssm_channel::{Channel, ChannelConfig, ChannelToken, Event, Transmit};

use super::plan::{Ending, Plan, Speaker, StreamPlan, ms, script};
use crate::random::Rng;

/// Bytes a stream may have queued before it stops writing.
const SEND_BUFFER: usize = 16 * 1024;
/// Largest single write.
const WRITE: usize = 5_000;

/// The near end of one stream.
pub(super) struct Stream {
    pub(super) plan: StreamPlan,
    pub(super) said: usize,
    /// Bytes that have come, and those of them that were read.
    pub(super) heard: usize,
    read: usize,
    lazy_until: Option<Duration>,
    /// Closed here.
    pub(super) closed: bool,
    /// Closed by the agent.
    pub(super) finished: bool,
    /// Given up before the agent could hear of it.
    pub(super) vanished: bool,
}

impl Stream {
    pub(super) fn is_over(&self) -> bool {
        self.closed || self.finished
    }
}

pub(super) struct Client {
    seed: u64,
    pub(super) channel: Channel,
    pub(super) mux: Mux,
    /// Streams still to be opened, the next one last.
    waiting: Vec<StreamPlan>,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// Arrived and not read.
    socket: VecDeque<Bytes>,
    pub(super) unread: usize,
    pub(super) most_unread: usize,
    pub(super) refused: usize,
    pub(super) paused: bool,
    established: bool,
    /// How often things happened.
    pub(super) pauses: u64,
    pub(super) reconnects_in_handshake: u64,
    pub(super) stopped_reading: u64,
    /// The token the next opening text must carry.
    opening: Option<String>,
    connections: usize,
}

impl Client {
    pub(super) fn new(plan: &Plan) -> Self {
        let token = "token-0".to_owned();
        let mut config = ChannelConfig::new(
            ChannelToken::new(token.clone()),
            "request-0".to_owned(),
            "client".to_owned(),
            u128::from(plan.seed),
            1_795_442_819_302,
        );
        config.send_window = plan.window;
        config.reorder_messages = plan.reorder;
        // What is lost in the handshake takes its time.
        config.handshake_timeout = ms(3_600_000);
        let mut waiting = plan.streams.clone();
        waiting.sort_by_key(|stream| std::cmp::Reverse(stream.starts));
        // sort_by_key is stable: equals keep their order, which is turned round here.
        for equals in waiting.chunk_by_mut(|a, b| a.starts == b.starts) {
            equals.reverse();
        }
        Self {
            seed: plan.seed,
            channel: Channel::new(config, ms(0)),
            mux: Mux::new(MuxRole::Client),
            waiting,
            streams: BTreeMap::new(),
            socket: VecDeque::new(),
            unread: 0,
            most_unread: plan.unread,
            refused: 0,
            paused: false,
            established: false,
            pauses: 0,
            reconnects_in_handshake: 0,
            stopped_reading: 0,
            opening: Some(token),
            connections: 0,
        }
    }

    /// The connection is lost, with what was in the socket. A driver may tell the machine or not.
    pub(super) fn lose_connection(&mut self, now: Duration, tell: bool) {
        self.socket.clear();
        if tell {
            self.channel.disconnected(now);
        }
    }

    pub(super) fn reconnect(&mut self, now: Duration) {
        self.connections += 1;
        self.reconnects_in_handshake += u64::from(!self.established);
        let token = format!("token-{}", self.connections);
        let request = format!("request-{}", self.connections);
        self.channel
            .reconnect(now, ChannelToken::new(token.clone()), request)
            .unwrap();
        self.opening = Some(token);
        self.take_events();
    }

    pub(super) fn arrive(&mut self, message: Bytes) {
        self.socket.push_back(message);
    }

    pub(super) fn has_waiting_streams(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When it has something to do by itself, apart from the channel's timer.
    pub(super) fn next_moment(&self, now: Duration) -> Option<Duration> {
        let start = self.waiting.last().map(|stream| stream.starts);
        let later = |at: &Duration| *at > now;
        let lazy = self
            .streams
            .values()
            .filter_map(|s| s.lazy_until)
            .filter(later);
        lazy.chain(start).min()
    }

    /// Everything that can be done now, but sending.
    pub(super) fn act(&mut self, rng: &mut Rng, now: Duration) {
        while let Some(plan) = self.waiting.pop_if(|stream| stream.starts <= now) {
            self.open(plan);
        }
        loop {
            self.read(now);
            // Reading stops while too much is unread; what the channel releases at once is more.
            if self.unread >= self.most_unread {
                self.stopped_reading += u64::from(!self.socket.is_empty());
                break;
            }
            let Some(message) = self.socket.pop_front() else {
                break;
            };
            self.channel.handle_message(now, message).unwrap();
            self.take_events();
        }
        self.write(rng);
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.end(id);
        }
        while self.channel.sendable() > 0
            && let Some(bytes) = self.mux.poll_transmit(self.channel.max_payload())
        {
            self.channel.send(now, bytes).unwrap();
        }
    }

    /// Messages to send. The first of a connection must be the opening text, and no other is one.
    pub(super) fn transmit(&mut self, now: Duration) -> Vec<Bytes> {
        let mut out = Vec::new();
        while let Some(transmit) = self.channel.poll_transmit(now) {
            match (transmit, self.opening.take()) {
                (Transmit::Text(text), Some(token)) => {
                    let open: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(open["TokenValue"], token);
                    assert_eq!(open["ClientId"], "client");
                    assert_eq!(open["RequestId"], token.replace("token", "request"));
                }
                (Transmit::Binary(bytes), None) => out.push(bytes),
                (Transmit::Text(_), None) => panic!("a second opening text"),
                (Transmit::Binary(_), Some(_)) => panic!("a message before the opening text"),
            }
        }
        out
    }

    fn open(&mut self, plan: StreamPlan) {
        let id = self.mux.open().unwrap();
        let stream = Stream {
            plan,
            said: 0,
            heard: 0,
            read: 0,
            lazy_until: None,
            closed: false,
            finished: false,
            vanished: false,
        };
        self.streams.insert(id, stream);
    }

    fn take_events(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::Output(bytes) => self.mux.handle_input(bytes).unwrap(),
                Event::ConnectToPortError => self.refused += 1,
                Event::Paused => {
                    self.paused = true;
                    self.pauses += 1;
                }
                Event::Restarted => self.paused = false,
                Event::Established { .. } => {
                    assert!(!self.established, "established twice");
                    self.established = true;
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.mux.poll_event() {
            match event {
                smux::MuxEvent::Data { id, data } => self.hear(id, &data),
                smux::MuxEvent::Finished(id) => {
                    let stream = self.streams.get_mut(&id).unwrap();
                    assert!(!stream.is_over(), "two ends of a stream");
                    stream.finished = true;
                }
                smux::MuxEvent::Closed(id) => assert!(self.streams[&id].is_over()),
                smux::MuxEvent::Opened(id) => panic!("the agent opened {id}"),
            }
        }
    }

    fn hear(&mut self, id: StreamId, data: &[u8]) {
        let stream = self.streams.get_mut(&id).expect("a stream of ours");
        assert!(!stream.is_over(), "data after the end");
        let expected = script(
            self.seed,
            id.get(),
            Speaker::Agent,
            stream.heard,
            data.len(),
        );
        assert!(expected == data, "stream {id} differs at {}", stream.heard);
        stream.heard += data.len();
        self.unread += data.len();
    }

    /// The streams' owners read, unless they are lazy at the moment.
    fn read(&mut self, now: Duration) {
        for stream in self.streams.values_mut() {
            let mut readable = stream.heard - stream.read;
            if let Some((at, lasts)) = stream.plan.lazy
                && stream.read + readable > at
            {
                let until = *stream.lazy_until.get_or_insert(now + lasts);
                // Nobody waits for bytes of a stream that was given up here.
                if now < until && !stream.closed {
                    readable = at.saturating_sub(stream.read);
                }
            }
            stream.read += readable;
            self.unread -= readable;
        }
    }

    fn write(&mut self, rng: &mut Rng) {
        for (id, stream) in &mut self.streams {
            while !stream.is_over()
                && stream.said < stream.plan.up
                && self.mux.queued(*id) < SEND_BUFFER
            {
                let len = (stream.plan.up - stream.said).min(1 + rng.below(WRITE));
                let data = script(self.seed, id.get(), Speaker::Client, stream.said, len);
                self.mux.send(*id, data).unwrap();
                stream.said += len;
            }
            assert!(self.mux.queued(*id) < SEND_BUFFER + WRITE);
        }
    }

    fn end(&mut self, id: StreamId) {
        let stream = self.streams.get_mut(&id).expect("a stream of ours");
        if stream.is_over() {
            return;
        }
        match stream.plan.ending {
            Ending::ClientCloses => {
                if stream.said == stream.plan.up && stream.heard == stream.plan.down {
                    stream.closed = true;
                    self.mux.finish(id);
                }
            }
            Ending::ClientBreaks(at) => {
                if stream.said + stream.heard >= at {
                    stream.closed = true;
                    stream.vanished = !self.mux.abandon(id);
                }
            }
            Ending::Both(at, _) => {
                if stream.said + stream.heard >= at {
                    stream.closed = true;
                    self.mux.finish(id);
                }
            }
            Ending::AgentCloses | Ending::AgentBreaks(_) | Ending::Refused => {}
        }
    }
}
