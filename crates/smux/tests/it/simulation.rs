//! Two sessions, a carrier that cuts the bytes anywhere, and random traffic on many streams.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use smux::{Event, Role, Session, StreamId};

use crate::support::Rng;

/// What one side said and heard on one stream.
#[derive(Default)]
struct Log {
    sent: Vec<u8>,
    received: Vec<u8>,
    finished: bool,
    abandoned: bool,
    peer_finished: bool,
}

struct Side {
    session: Session,
    logs: BTreeMap<StreamId, Log>,
    /// Bytes on their way to the other side.
    outbox: VecDeque<u8>,
}

impl Side {
    fn new(role: Role) -> Self {
        Self {
            session: Session::new(role),
            logs: BTreeMap::new(),
            outbox: VecDeque::new(),
        }
    }

    fn usable(&self) -> Vec<StreamId> {
        let open = self
            .logs
            .iter()
            .filter(|(_, l)| !l.finished && !l.peer_finished);
        open.map(|(id, _)| *id).collect()
    }

    fn send(&mut self, rng: &mut Rng) {
        let usable = self.usable();
        if usable.is_empty() {
            return;
        }
        let id = usable[rng.below(usable.len())];
        let max = if rng.below(10) == 0 { 100_000 } else { 300 };
        let len = rng.below(max);
        let data = rng.bytes(len);
        self.logs
            .get_mut(&id)
            .unwrap()
            .sent
            .extend_from_slice(&data);
        self.session.send(id, data).unwrap();
    }

    fn close(&mut self, rng: &mut Rng) {
        let usable = self.usable();
        if usable.is_empty() {
            return;
        }
        let id = usable[rng.below(usable.len())];
        let log = self.logs.get_mut(&id).unwrap();
        log.finished = true;
        log.abandoned = rng.below(3) == 0;
        if log.abandoned {
            self.session.abandon(id);
        } else {
            self.session.finish(id);
        }
    }

    fn transmit(&mut self, max: usize) -> bool {
        let expected = self.session.has_transmit();
        let packet = self.session.poll_transmit(max);
        assert_eq!(packet.is_some(), expected);
        let Some(packet) = packet else { return false };
        assert!(packet.len() <= max);
        self.outbox.extend(packet);
        true
    }

    fn receive(&mut self, data: Bytes) {
        self.session.handle_input(data).unwrap();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Opened(id) => {
                    assert!(self.logs.insert(id, Log::default()).is_none());
                }
                Event::Data { id, data } => {
                    let log = self.logs.get_mut(&id).unwrap();
                    assert!(
                        !log.finished && !log.peer_finished,
                        "an event after the close"
                    );
                    log.received.extend_from_slice(&data);
                }
                Event::Finished(id) => {
                    let log = self.logs.get_mut(&id).unwrap();
                    assert!(
                        !log.finished && !log.peer_finished,
                        "an event after the close"
                    );
                    log.peer_finished = true;
                }
            }
        }
    }
}

fn deliver(from: &mut Side, to: &mut Side, rng: &mut Rng) -> bool {
    let len = from.outbox.len().min(1 + rng.below(3000));
    let data: Vec<u8> = from.outbox.drain(..len).collect();
    to.receive(data.into());
    len > 0
}

/// `heard` must be what `said` says, as far as closing allows.
fn compare(said: &Side, heard: &Side, seed: u64) {
    for (id, log) in &said.logs {
        let Some(other) = heard.logs.get(id) else {
            assert!(log.finished, "seed {seed}: stream {id} never arrived");
            continue;
        };
        assert!(
            log.sent.starts_with(&other.received),
            "seed {seed}: stream {id} differs"
        );
        let cut_short = log.abandoned || other.finished || log.peer_finished;
        assert!(
            cut_short || log.sent.len() == other.received.len(),
            "seed {seed}: stream {id} lost its end"
        );
    }
}

fn run(seed: u64) -> usize {
    let mut rng = Rng(seed);
    let mut client = Side::new(Role::Client);
    let mut server = Side::new(Role::Server);
    for _ in 0..400 {
        match rng.below(12) {
            0 => {
                let id = client.session.open().unwrap();
                client.logs.insert(id, Log::default());
            }
            1..=4 => client.send(&mut rng),
            5..=8 => server.send(&mut rng),
            9 if rng.below(4) == 0 => client.close(&mut rng),
            10 if rng.below(4) == 0 => server.close(&mut rng),
            _ => {}
        }
        let max = if rng.below(4) == 0 {
            1 + rng.below(30)
        } else {
            1024
        };
        client.transmit(max);
        server.transmit(max);
        deliver(&mut client, &mut server, &mut rng);
        deliver(&mut server, &mut client, &mut rng);
    }
    loop {
        let mut moved = client.transmit(1024) | server.transmit(1024);
        moved |= deliver(&mut client, &mut server, &mut rng);
        moved |= deliver(&mut server, &mut client, &mut rng);
        if !moved {
            break;
        }
    }
    compare(&client, &server, seed);
    compare(&server, &client, seed);
    assert_eq!(
        client.session.open_streams(),
        client.usable().len(),
        "seed {seed}"
    );
    assert_eq!(
        server.session.open_streams(),
        server.usable().len(),
        "seed {seed}"
    );
    client
        .logs
        .values()
        .chain(server.logs.values())
        .map(|log| log.received.len())
        .sum()
}

#[test]
fn bytes_out_are_bytes_in_on_every_stream() {
    let total: usize = (0..150).map(run).sum();
    assert!(total > 50_000_000, "the traffic was thin: {total} bytes");
}

/// Any bytes at all: an error or events, never a panic, and the error sticks.
#[test]
fn noise_never_panics() {
    for seed in 0..2000 {
        let mut rng = Rng(seed);
        let mut session = Session::new(Role::Server);
        let mut failed = None;
        for _ in 0..20 {
            let len = rng.below(40);
            let mut data = rng.bytes(len).to_vec();
            // Mostly plausible headers, else every run ends at its first byte.
            for chunk in data.chunks_mut(8) {
                if rng.below(20) != 0 {
                    let plausible = [1, rng.below(4) as u8, 0, 0, 3, 0, 0, 0];
                    chunk.copy_from_slice(&plausible[..chunk.len()]);
                }
            }
            let outcome = session.handle_input(data.into());
            if let Some(error) = &failed {
                assert_eq!(outcome.as_ref(), Err(error), "seed {seed}");
            }
            failed = outcome.err();
            while session.poll_transmit(64).is_some() {}
        }
    }
}
