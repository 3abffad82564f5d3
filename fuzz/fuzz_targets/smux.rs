//! smux sessions: two of them joined by a carrier that cuts the bytes anywhere, or one of them with a
//! peer that sends whatever it likes.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use smux::{Command, Frame, HEADER_LEN, Header, Mux, MuxError, MuxEvent, MuxRole, StreamId};

#[derive(Debug, Arbitrary)]
enum Scenario<'a> {
    Joined(Vec<Step>),
    Alone {
        server: bool,
        cuts: Vec<u8>,
        input: Vec<Input<'a>>,
    },
}

#[derive(Debug, Arbitrary)]
enum Step {
    Open,
    Send {
        server: bool,
        stream: u8,
        length: u16,
    },
    Finish {
        server: bool,
        stream: u8,
    },
    Abandon {
        server: bool,
        stream: u8,
    },
    KeepAlive {
        server: bool,
    },
    /// One packet of at most `max` bytes goes onto the carrier.
    Transmit {
        server: bool,
        max: u16,
    },
    /// Up to `length` bytes come off the carrier.
    Deliver {
        to_server: bool,
        length: u16,
    },
}

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// A header, mostly a sensible one; data follows only if another part supplies it.
    Header {
        command: u8,
        length: u16,
        id: u8,
    },
    Psh {
        id: u8,
        data: &'a [u8],
    },
    Raw(&'a [u8]),
    /// The session's own side does something meanwhile.
    Open,
    Send {
        id: u8,
        length: u16,
    },
    Finish {
        id: u8,
    },
    Abandon {
        id: u8,
    },
    KeepAlive,
    Transmit {
        max: u16,
    },
}

/// What one side said and heard on one stream.
#[derive(Default)]
struct Log {
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Closed here.
    closed: bool,
    abandoned: bool,
    /// Given up before the peer heard of it.
    vanished: bool,
    peer_closed: bool,
}

impl Log {
    fn is_open(&self) -> bool {
        !self.closed && !self.peer_closed
    }
}

struct Side {
    session: Mux,
    logs: BTreeMap<StreamId, Log>,
    /// On the way to the other side.
    carrier: BytesMut,
    /// Distinguishes every byte sent from its neighbours.
    counter: u32,
}

impl Side {
    fn new(role: MuxRole) -> Self {
        Self {
            session: Mux::new(role),
            logs: BTreeMap::new(),
            carrier: BytesMut::new(),
            counter: 0,
        }
    }

    /// One of the streams this side has ever known, so closed ones are tried too.
    fn stream(&self, number: u8) -> Option<StreamId> {
        let count = self.logs.len();
        (self.logs.keys().nth(usize::from(number) % count.max(1))).copied()
    }

    fn open(&mut self) {
        let id = self.session.open().unwrap();
        assert!(self.logs.insert(id, Log::default()).is_none(), "id reused");
    }

    fn send(&mut self, number: u8, length: u16) {
        let Some(id) = self.stream(number) else {
            return;
        };
        let log = self.logs.get_mut(&id).unwrap();
        let data: Vec<u8> = (0..u32::from(length))
            .map(|n| (self.counter.wrapping_add(n).wrapping_mul(0x9E37_79B9) >> 24) as u8)
            .collect();
        self.counter = self.counter.wrapping_add(u32::from(length));
        let before = self.session.queued(id);
        let outcome = self.session.send(id, Bytes::from(data.clone()));
        if log.is_open() {
            outcome.unwrap();
            assert_eq!(self.session.queued(id), before + data.len());
            log.sent.extend_from_slice(&data);
        } else {
            assert_eq!(outcome, Err(MuxError::NotOpen(id)));
            assert_eq!(self.session.queued(id), before);
        }
    }

    fn finish(&mut self, number: u8) {
        if let Some(id) = self.stream(number) {
            self.session.finish(id);
            self.logs.get_mut(&id).unwrap().closed = true;
        }
    }

    fn abandon(&mut self, number: u8) {
        if let Some(id) = self.stream(number) {
            let known = self.session.abandon(id);
            assert_eq!(self.session.queued(id), 0);
            let log = self.logs.get_mut(&id).unwrap();
            log.closed = true;
            log.abandoned = true;
            log.vanished |= !known;
        }
    }

    fn transmit(&mut self, max: usize) -> bool {
        let expected = max > 0 && self.session.has_transmit();
        let packet = self.session.poll_transmit(max);
        assert_eq!(packet.is_some(), expected);
        let Some(packet) = packet else { return false };
        assert!(!packet.is_empty() && packet.len() <= max);
        self.carrier.extend_from_slice(&packet);
        true
    }

    fn receive(&mut self, data: Bytes) {
        self.session.handle_input(data).unwrap();
        while let Some(event) = self.session.poll_event() {
            match event {
                MuxEvent::Opened(id) => {
                    assert!(self.logs.insert(id, Log::default()).is_none());
                }
                MuxEvent::Data { id, data } => {
                    let log = self.logs.get_mut(&id).unwrap();
                    assert!(log.is_open() && !data.is_empty());
                    log.received.extend_from_slice(&data);
                }
                MuxEvent::Finished(id) => {
                    let log = self.logs.get_mut(&id).unwrap();
                    assert!(log.is_open());
                    log.peer_closed = true;
                }
                MuxEvent::Closed(id) => assert!(!self.logs[&id].is_open()),
            }
        }
        let open = self.logs.values().filter(|log| log.is_open()).count();
        assert_eq!(self.session.open_streams(), open);
    }
}

fn deliver(from: &mut Side, to: &mut Side, length: usize) -> bool {
    let data = from.carrier.split_to(length.min(from.carrier.len()));
    let some = !data.is_empty();
    to.receive(data.freeze());
    some
}

/// `heard` is what `said` says, as far as closing allows.
fn compare(said: &Side, heard: &Side) {
    for (id, log) in &said.logs {
        let Some(other) = heard.logs.get(id) else {
            assert!(log.vanished, "stream {id} never arrived");
            continue;
        };
        assert!(!log.vanished, "a stream the peer should not know");
        assert!(log.sent.starts_with(&other.received), "stream {id} differs");
        let cut_short = log.abandoned || log.peer_closed || other.closed;
        assert!(
            cut_short || log.sent.len() == other.received.len(),
            "stream {id} lost its end"
        );
        assert_eq!(log.is_open(), other.is_open(), "stream {id}");
        assert_eq!(said.session.queued(*id), 0);
    }
}

fn joined(steps: &[Step]) {
    let mut client = Side::new(MuxRole::Client);
    let mut server = Side::new(MuxRole::Server);
    for step in steps {
        let server_acts = match step {
            Step::Open => false,
            Step::Send { server, .. }
            | Step::Finish { server, .. }
            | Step::Abandon { server, .. }
            | Step::KeepAlive { server }
            | Step::Transmit { server, .. } => *server,
            Step::Deliver { to_server, .. } => !to_server,
        };
        let (actor, other) = if server_acts {
            (&mut server, &mut client)
        } else {
            (&mut client, &mut server)
        };
        match *step {
            Step::Open => actor.open(),
            Step::Send { stream, length, .. } => actor.send(stream, length),
            Step::Finish { stream, .. } => actor.finish(stream),
            Step::Abandon { stream, .. } => actor.abandon(stream),
            Step::KeepAlive { .. } => {
                actor.session.keep_alive();
                assert!(actor.session.has_transmit());
            }
            Step::Transmit { max, .. } => {
                actor.transmit(usize::from(max));
            }
            Step::Deliver { length, .. } => {
                deliver(actor, other, usize::from(length));
            }
        }
    }
    // Everything that is under way arrives, and then there is silence.
    loop {
        let mut busy = client.transmit(1024) | server.transmit(1024);
        busy |= deliver(&mut client, &mut server, usize::MAX);
        busy |= deliver(&mut server, &mut client, usize::MAX);
        if !busy {
            break;
        }
    }
    compare(&client, &server);
    compare(&server, &client);
}

/// Events, neighbouring data of one stream put together: pieces are allowed to differ.
fn collect(session: &mut Mux, events: &mut Vec<MuxEvent>) {
    while let Some(event) = session.poll_event() {
        if let MuxEvent::Data { id, data } = &event {
            assert!(!data.is_empty());
            if let Some(MuxEvent::Data {
                id: last,
                data: have,
            }) = events.last_mut()
                && last == id
            {
                *have = [have.as_ref(), data].concat().into();
                continue;
            }
        }
        events.push(event);
    }
}

fn bytes_of(input: &Input<'_>) -> Bytes {
    let mut out = BytesMut::new();
    match input {
        Input::Header {
            command,
            length,
            id,
        } => {
            let command = match command % 4 {
                0 => Command::Syn,
                1 => Command::Fin,
                2 => Command::Psh,
                _ => Command::Nop,
            };
            let header = Header {
                command,
                length: if command == Command::Psh { *length } else { 0 },
                stream: StreamId::new(u32::from(*id)),
            };
            out.extend_from_slice(&header.encode());
        }
        Input::Psh { id, data } => {
            let frame = Frame::Psh {
                id: StreamId::new(u32::from(*id)),
                data: Bytes::copy_from_slice(data),
            };
            frame.encode(&mut out).unwrap();
        }
        Input::Raw(bytes) => out.extend_from_slice(bytes),
        _ => {}
    }
    out.freeze()
}

/// Two sessions get the same bytes, cut in two ways, and the same calls.
fn alone(server: bool, cuts: &[u8], inputs: &[Input<'_>]) {
    let role = if server {
        MuxRole::Server
    } else {
        MuxRole::Client
    };
    let mut sessions = [Mux::new(role), Mux::new(role)];
    let mut events = [Vec::new(), Vec::new()];
    let mut sent = BytesMut::new();
    let mut failed = None;
    for input in inputs {
        let id = StreamId::new(u32::from(match input {
            Input::Send { id, .. } | Input::Finish { id } | Input::Abandon { id } => *id,
            _ => 0,
        }));
        let data = bytes_of(input);
        let outcomes = sessions.each_mut().map(|session| match input {
            Input::Open => session.open().map(drop),
            Input::Send { length, .. } => session.send(id, vec![1; usize::from(*length)].into()),
            Input::Finish { .. } => {
                session.finish(id);
                Ok(())
            }
            Input::Abandon { .. } => {
                session.abandon(id);
                Ok(())
            }
            Input::KeepAlive => {
                session.keep_alive();
                Ok(())
            }
            _ => Ok(()),
        });
        assert_eq!(outcomes[0], outcomes[1]);
        if let Input::Transmit { max } = input {
            let packets = sessions
                .each_mut()
                .map(|s| s.poll_transmit(usize::from(*max)));
            assert_eq!(packets[0], packets[1]);
            sent.extend_from_slice(packets[0].as_deref().unwrap_or_default());
            assert!(
                failed.is_none() || packets[0].is_none(),
                "sent after the end"
            );
        }
        if !data.is_empty() {
            let [cut, whole] = &mut sessions;
            let outcome = whole.handle_input(data.clone());
            let mut last = Ok(());
            for piece in pgiam_fuzz::cut(&data, cuts) {
                last = cut.handle_input(data.slice_ref(piece));
            }
            assert_eq!(last, outcome);
            if let Some(error) = failed {
                assert_eq!(outcome, Err(error), "the first error sticks");
            }
            failed = outcome.err();
            assert!(failed.as_ref().is_none_or(MuxError::is_fatal));
        }
        for (session, events) in sessions.iter_mut().zip(&mut events) {
            collect(session, events);
        }
        assert_eq!(events[0], events[1]);
    }
    check_frames(&sent.freeze());
}

/// What was sent is a row of whole frames; the last may be cut by the last packet's size.
fn check_frames(sent: &Bytes) {
    let mut rest = sent.clone();
    while let Some(frame) = Frame::decode(&mut rest).expect("a frame") {
        let mut again = BytesMut::new();
        frame.encode(&mut again).unwrap();
        let end = sent.len() - rest.len();
        assert_eq!(again, sent[end - again.len()..end]);
    }
    assert!(rest.len() < HEADER_LEN + 32_768);
}

fuzz_target!(|scenario: Scenario<'_>| match scenario {
    Scenario::Joined(steps) => joined(&steps),
    Scenario::Alone {
        server,
        cuts,
        input,
    } => alone(server, &cuts, &input),
});
