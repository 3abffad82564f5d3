//! The agent's port handler: a multiplexer of its own and the far ends of the streams.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use protocol_tests::aws::wire::{flag, payload};

use super::plan::{Ending, Plan, Speaker, StreamPlan, script};
use crate::random::Rng;

const SYN: u8 = 0;
const FIN: u8 = 1;
const PSH: u8 = 2;
const MAX_FRAME: usize = 32_768;

/// The far end of one stream.
struct Stream {
    plan: StreamPlan,
    dialled: bool,
    heard: usize,
    said: usize,
    /// The client's FIN has come.
    client_closed: bool,
    /// Ours has been queued.
    closed: bool,
}

/// What a stream's two directions came to.
pub(super) struct Outcome {
    pub(super) heard: usize,
    pub(super) said: usize,
    pub(super) closed: bool,
    pub(super) client_closed: bool,
}

pub(super) struct Port {
    seed: u64,
    /// In the order of their opening.
    plans: Vec<StreamPlan>,
    streams: BTreeMap<u32, Stream>,
    /// Bytes of the client that are no whole frame yet.
    input: BytesMut,
    /// Frames on their way into messages.
    output: BytesMut,
    /// Failed dials to be reported: a message that is no part of the stream of frames.
    flags: usize,
    /// Streams to dial for, one after the other, and when the first one's dial is over.
    dialling: VecDeque<u32>,
    dialled_at: Option<Duration>,
}

impl Port {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut plans = plan.streams.clone();
        plans.sort_by_key(|stream| stream.starts);
        Self {
            seed: plan.seed,
            plans,
            streams: BTreeMap::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            flags: 0,
            dialling: VecDeque::new(),
            dialled_at: None,
        }
    }

    pub(super) fn outcome(&self, id: u32) -> Option<Outcome> {
        let stream = self.streams.get(&id)?;
        Some(Outcome {
            heard: stream.heard,
            said: stream.said,
            closed: stream.closed,
            client_closed: stream.client_closed,
        })
    }

    /// Bytes of the client, in order.
    pub(super) fn take(&mut self, now: Duration, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(&[version, command, l0, l1, i0, i1, i2, i3]) = self.input.first_chunk() {
            assert_eq!(version, 1);
            let length = usize::from(u16::from_le_bytes([l0, l1]));
            let id = u32::from_le_bytes([i0, i1, i2, i3]);
            if self.input.len() < 8 + length {
                return;
            }
            let frame = self.input.split_to(8 + length);
            match command {
                SYN => self.open(now, id),
                FIN => self.client_closes(id),
                PSH => self.hear(id, &frame[8..]),
                other => panic!("command {other} from the client"),
            }
        }
    }

    fn open(&mut self, now: Duration, id: u32) {
        assert!(id % 2 == 1 && id >= 3, "{id} is no client's stream");
        let newest = self.streams.last_key_value().map_or(0, |(id, _)| *id);
        assert!(id > newest, "{id} is opened after {newest}");
        let stream = Stream {
            plan: self.plans[(id as usize - 3) / 2],
            dialled: false,
            heard: 0,
            said: 0,
            client_closed: false,
            closed: false,
        };
        if self.dialling.is_empty() {
            self.dialled_at = Some(now + stream.plan.dial);
        }
        self.streams.insert(id, stream);
        self.dialling.push_back(id);
    }

    fn hear(&mut self, id: u32, data: &[u8]) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        assert!(!stream.client_closed, "data after the client's FIN");
        assert!(!data.is_empty() && data.len() <= MAX_FRAME);
        let expected = script(self.seed, id, Speaker::Client, stream.heard, data.len());
        assert!(expected == data, "stream {id} differs at {}", stream.heard);
        stream.heard += data.len();
        assert!(stream.heard <= stream.plan.up, "more than was said");
    }

    fn client_closes(&mut self, id: u32) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        assert!(!stream.client_closed, "two FINs");
        stream.client_closed = true;
        if stream.dialled && !stream.closed {
            self.close(id);
        }
    }

    /// Queues the FIN, once.
    fn close(&mut self, id: u32) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        if !std::mem::replace(&mut stream.closed, true) {
            put_header(&mut self.output, FIN, 0, id);
        }
    }

    pub(super) fn next_dial(&self) -> Option<Duration> {
        self.dialled_at
    }

    /// Ends dials that are over, and streams whose time has come.
    pub(super) fn act(&mut self, now: Duration) {
        while let Some(at) = self.dialled_at.filter(|at| *at <= now) {
            let id = self.dialling.pop_front().expect("a dial is for a stream");
            let next = self.dialling.front().map(|next| &self.streams[next]);
            self.dialled_at = next.map(|stream| at.max(now) + stream.plan.dial);
            let stream = self.streams.get_mut(&id).expect("a stream that was opened");
            stream.dialled = true;
            if stream.plan.ending == Ending::Refused {
                self.flags += 1;
                self.close(id);
            } else if stream.client_closed {
                self.close(id);
            }
        }
        let over = |stream: &Stream| match stream.plan.ending {
            Ending::AgentCloses => {
                stream.heard == stream.plan.up && stream.said == stream.plan.down
            }
            Ending::AgentBreaks(at) | Ending::Both(_, at) => stream.heard + stream.said >= at,
            Ending::ClientCloses | Ending::ClientBreaks(_) | Ending::Refused => false,
        };
        let open = |stream: &Stream| stream.dialled && !stream.closed;
        let over: Vec<u32> = (self.streams.iter())
            .filter(|(_, stream)| open(stream) && over(stream))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.close(id);
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.flags > 0 || self.speakers().next().is_some()
    }

    /// Streams that have more to say.
    fn speakers(&self) -> impl Iterator<Item = u32> {
        let speaks =
            |stream: &Stream| stream.dialled && !stream.closed && stream.said < stream.plan.down;
        (self.streams.iter())
            .filter(move |(_, stream)| speaks(stream))
            .map(|(id, _)| *id)
    }

    /// The next message of at most `most` bytes, with its payload type. Frames are cut anywhere.
    pub(super) fn output(&mut self, rng: &mut Rng, most: usize) -> Option<(u32, Bytes)> {
        if self.flags > 0 {
            self.flags -= 1;
            let flag = flag::CONNECT_TO_PORT_ERROR.to_be_bytes();
            return Some((payload::FLAG, Bytes::copy_from_slice(&flag)));
        }
        while self.output.len() < most && self.speak(rng) {}
        let bytes = self.output.split_to(most.min(self.output.len()));
        (!bytes.is_empty()).then(|| (payload::OUTPUT, bytes.freeze()))
    }

    /// One frame of a stream that has more to say.
    fn speak(&mut self, rng: &mut Rng) -> bool {
        let speakers: Vec<u32> = self.speakers().collect();
        if speakers.is_empty() {
            return false;
        }
        let id = speakers[rng.below(speakers.len())];
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        let left = stream.plan.down - stream.said;
        let most = [100, 2_000, MAX_FRAME][rng.below(3)];
        let length = left.min(1 + rng.below(most));
        put_header(&mut self.output, PSH, length, id);
        let data = script(self.seed, id, Speaker::Agent, stream.said, length);
        self.output.extend_from_slice(&data);
        stream.said += length;
        true
    }
}

fn put_header(out: &mut BytesMut, command: u8, length: usize, id: u32) {
    out.put_u8(1);
    out.put_u8(command);
    out.put_u16_le(length as u16);
    out.put_u32_le(id);
}
