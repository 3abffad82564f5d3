//! Two sessions, a carrier that cuts the bytes anywhere, and random traffic on many streams.
//!
//! Each seed is a small world of its own: packet sizes, number of streams, write sizes and the
//! speed of the carrier all come from it. [`wire`](crate::wire) reads every byte that leaves a
//! session; invariants are asserted after every step. A seed that fails is named, and
//! `SIMULATION_SEED=n` runs it alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::catch_unwind;

use bytes::{Bytes, BytesMut};
use smux::{Mux, MuxError, MuxEvent, MuxRole, StreamId};

use crate::support::Rng;
use crate::wire::{Content, Said, Wire};

/// Parameters drawn from the seed.
struct Plan {
    steps: usize,
    /// Largest packet, most of the time.
    packet: usize,
    /// Largest single write, most of the time.
    write: usize,
    /// Streams the client keeps open at most.
    streams: usize,
    /// Most bytes that come off the carrier in one step.
    carrier: usize,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        Self {
            steps: 50 + rng.below(250),
            packet: [1024, 1024, 1024, 20, 9, 100, 70_000][rng.below(7)],
            write: [100, 300, 3000][rng.below(3)],
            streams: 1 + rng.below(12),
            carrier: [1, 50, 1100, 3000, 100_000][rng.below(5)],
        }
    }
}

/// One side's record of one stream.
#[derive(Default)]
struct Log {
    said: usize,
    heard: usize,
    /// Closed here with `finish`.
    finished: bool,
    abandoned: bool,
    /// Abandoned before its SYN left.
    vanished: bool,
    /// An event said that the peer closed it.
    peer_closed: bool,
    /// The peer's FIN has arrived, with or without an event.
    peer_left: bool,
}

impl Log {
    fn is_open(&self) -> bool {
        !self.finished && !self.abandoned && !self.peer_closed
    }

    /// Returns true if queued data was dropped.
    fn is_cut_short(&self) -> bool {
        self.abandoned || self.peer_left
    }
}

struct Side {
    role: MuxRole,
    session: Mux,
    logs: BTreeMap<StreamId, Log>,
    /// Everything this side has put on the carrier, as an observer parses it.
    wire: Wire,
    /// Everything that has arrived here, parsed the same way.
    arrived: Wire,
    /// Bytes on their way to the other side.
    carrier: BytesMut,
    nop_wanted: bool,
}

impl Side {
    fn new(role: MuxRole, content: &Content) -> Self {
        let peer = match role {
            MuxRole::Client => MuxRole::Server,
            MuxRole::Server => MuxRole::Client,
        };
        Self {
            role,
            session: Mux::new(role),
            logs: BTreeMap::new(),
            wire: Wire::new(role, content.clone()),
            arrived: Wire::new(peer, content.clone()),
            carrier: BytesMut::new(),
            nop_wanted: false,
        }
    }

    /// Picks any stream this side has ever known: closed ones are tried as well.
    fn stream(&self, rng: &mut Rng) -> Option<StreamId> {
        let count = self.logs.len();
        // Mostly recent ones, else nearly all choices are closed before long.
        let recent = 1 + rng.below(8);
        let back = rng.below(count.clamp(1, recent));
        self.logs.keys().nth(count.checked_sub(1 + back)?).copied()
    }

    fn open_streams(&self) -> usize {
        self.logs.values().filter(|log| log.is_open()).count()
    }

    fn open(&mut self) {
        let id = self.session.open().unwrap();
        assert!(self.logs.insert(id, Log::default()).is_none(), "id reused");
    }

    fn send(&mut self, rng: &mut Rng, plan: &Plan, content: &Content) {
        let Some(id) = self.stream(rng) else { return };
        let log = self.logs.get_mut(&id).unwrap();
        let max = if rng.below(50) == 0 {
            60_000
        } else {
            plan.write
        };
        let data = content.piece(self.role, id, log.said, rng.below(max));
        let outcome = self.session.send(id, data.clone());
        if log.is_open() {
            outcome.unwrap();
            log.said += data.len();
        } else {
            assert_eq!(outcome, Err(MuxError::NotOpen(id)));
        }
    }

    fn close(&mut self, rng: &mut Rng) {
        let Some(id) = self.stream(rng) else { return };
        let log = self.logs.get_mut(&id).unwrap();
        if rng.below(3) == 0 {
            log.vanished |= !self.session.abandon(id);
            log.abandoned = true;
        } else {
            self.session.finish(id);
            log.finished = true;
        }
    }

    /// Puts one packet of at most `max` bytes onto the carrier; returns false when there was none.
    fn transmit(&mut self, max: usize) -> bool {
        let expected = self.session.has_transmit();
        let packet = self.session.poll_transmit(max);
        assert_eq!(packet.is_some(), expected);
        let Some(packet) = packet else { return false };
        assert!(!packet.is_empty() && packet.len() <= max);
        let begins_frame = self.wire.is_between_frames();
        for said in self.wire.take(&packet) {
            self.check_said(said);
        }
        if begins_frame && max > smux::HEADER_LEN {
            assert!(self.wire.is_between_frames(), "a frame was split");
            let room = max - packet.len();
            assert!(
                room <= smux::HEADER_LEN || !self.session.has_transmit(),
                "a packet with room for more"
            );
        }
        self.carrier.extend_from_slice(&packet);
        true
    }

    /// Checks that a frame was allowed to leave now.
    fn check_said(&mut self, said: Said) {
        match said {
            Said::Nop => assert!(std::mem::take(&mut self.nop_wanted), "a NOP nobody wanted"),
            Said::Opened(id) => {
                assert!(self.role == MuxRole::Client && !self.logs[&id].vanished);
            }
            Said::Data { id, total, split } => {
                let log = &self.logs[&id];
                assert!(total <= log.said, "more than was given");
                // With its header under way it has to continue in any case.
                assert!(split || !log.is_cut_short(), "data nobody reads");
            }
            Said::Closed { id, total } => {
                let log = &self.logs[&id];
                assert!(!log.is_open(), "a FIN nobody wanted");
                let all = log.is_cut_short() || total == log.said;
                assert!(all, "a FIN before the data");
            }
        }
    }

    fn receive(&mut self, data: Bytes, content: &Content) {
        let arrived = self.arrived.take(&data);
        self.session.handle_input(data).unwrap();
        while let Some(event) = self.session.poll_event() {
            self.check_heard(event, content);
        }
        for said in arrived {
            if let Said::Closed { id, .. } = said
                && let Some(log) = self.logs.get_mut(&id)
            {
                assert!(!log.is_open(), "a FIN without an event");
                log.peer_left = true;
            }
        }
    }

    fn check_heard(&mut self, event: MuxEvent, content: &Content) {
        match event {
            MuxEvent::Opened(id) => {
                assert!(self.role == MuxRole::Server);
                assert!(self.logs.insert(id, Log::default()).is_none());
            }
            MuxEvent::Data { id, data } => {
                let log = self.logs.get_mut(&id).unwrap();
                assert!(log.is_open() && !data.is_empty());
                let expected = content.piece(self.arrived.role(), id, log.heard, data.len());
                assert!(
                    expected == data,
                    "stream {id} differs after {} bytes",
                    log.heard
                );
                log.heard += data.len();
            }
            MuxEvent::Finished(id) => {
                let log = self.logs.get_mut(&id).unwrap();
                assert!(log.is_open(), "an event after the close");
                log.peer_closed = true;
            }
            MuxEvent::Closed(id) => assert!(!self.logs[&id].is_open(), "it was still open"),
        }
    }

    /// Checks the invariants.
    fn check(&self) {
        assert_eq!(self.session.open_streams(), self.open_streams());
        for (id, log) in &self.logs {
            if self.wire.is_between_frames() {
                let unsent = log.said - self.wire.said(*id);
                let waiting = if log.is_cut_short() { 0 } else { unsent };
                assert_eq!(self.session.queued(*id), waiting, "stream {id}");
            }
            if self.arrived.is_between_frames() && !log.finished && !log.abandoned {
                assert_eq!(log.heard, self.arrived.said(*id), "kept back: stream {id}");
            }
        }
    }
}

fn deliver(from: &mut Side, to: &mut Side, most: usize, content: &Content) -> bool {
    let data = from.carrier.split_to(most.min(from.carrier.len()));
    let some = !data.is_empty();
    to.receive(data.freeze(), content);
    some
}

/// Compares the sides once everything has arrived: `heard` has all that `said` sent, as far as
/// closing allows.
fn compare(said: &Side, heard: &Side) {
    for (id, log) in &said.logs {
        let Some(other) = heard.logs.get(id) else {
            assert!(log.vanished, "stream {id} never arrived");
            continue;
        };
        assert!(!log.vanished, "a stream the peer should not know");
        assert_eq!(log.is_open(), other.is_open(), "stream {id}");
        let cut_short = log.is_cut_short() || other.finished || other.abandoned;
        assert!(
            cut_short || log.said == other.heard,
            "stream {id} lost its end: {} of {}",
            other.heard,
            log.said
        );
    }
    assert!(!said.nop_wanted, "a NOP was forgotten");
}

/// Runs one seed; returns the bytes received by both sides.
fn run(seed: u64, content: &Content) -> usize {
    let mut rng = Rng(seed);
    let plan = Plan::new(&mut rng);
    let mut client = Side::new(MuxRole::Client, content);
    let mut server = Side::new(MuxRole::Server, content);
    for _ in 0..plan.steps {
        match rng.below(14) {
            0 | 1 if client.open_streams() < plan.streams => client.open(),
            2..=5 => client.send(&mut rng, &plan, content),
            6..=9 => server.send(&mut rng, &plan, content),
            10 if rng.below(3) == 0 => client.close(&mut rng),
            11 if rng.below(3) == 0 => server.close(&mut rng),
            12 => {
                let side = if rng.below(2) == 0 {
                    &mut client
                } else {
                    &mut server
                };
                // Inside a frame it is unknown if that frame is the NOP requested before.
                if side.wire.is_between_frames() {
                    side.session.keep_alive();
                    side.nop_wanted = true;
                }
            }
            _ => {}
        }
        for side in [&mut client, &mut server] {
            let max = match rng.below(8) {
                0 => rng.below(30),
                1 => continue,
                _ => plan.packet,
            };
            if max > 0 {
                side.transmit(max);
            } else {
                assert_eq!(side.session.poll_transmit(0), None);
            }
        }
        let most = 1 + rng.below(plan.carrier);
        deliver(&mut client, &mut server, most, content);
        deliver(&mut server, &mut client, most, content);
        client.check();
        server.check();
    }
    loop {
        let mut moved = client.transmit(1024) | server.transmit(1024);
        moved |= deliver(&mut client, &mut server, 5000, content);
        moved |= deliver(&mut server, &mut client, 5000, content);
        client.check();
        server.check();
        if !moved {
            break;
        }
    }
    compare(&client, &server);
    compare(&server, &client);
    let heard = |side: &Side| side.logs.values().map(|log| log.heard).sum::<usize>();
    heard(&client) + heard(&server)
}

/// Runs all seeds of a range, or the one the environment names if it is in there.
fn seeds(range: Range<u64>) {
    let only = std::env::var("SIMULATION_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("SIMULATION_SEED is a number"));
    let content = Content::new();
    let count = range.end - range.start;
    let mut total = 0;
    for seed in range.filter(|seed| only.is_none_or(|only| only == *seed)) {
        total += catch_unwind(|| run(seed, &content))
            .unwrap_or_else(|_| panic!("SIMULATION_SEED={seed} shows what is printed above"));
    }
    let thin = only.is_none() && total < count as usize * 10_000;
    assert!(!thin, "the traffic was thin: {total} bytes");
}

#[test]
fn every_byte_once_and_in_order_first_quarter() {
    seeds(0..2_500);
}

#[test]
fn every_byte_once_and_in_order_second_quarter() {
    seeds(2_500..5_000);
}

#[test]
fn every_byte_once_and_in_order_third_quarter() {
    seeds(5_000..7_500);
}

#[test]
fn every_byte_once_and_in_order_fourth_quarter() {
    seeds(7_500..10_000);
}

/// Any bytes at all: an error or events, never a panic, and the error sticks.
#[test]
fn noise_never_panics() {
    for seed in 0..2000 {
        let mut rng = Rng(seed);
        let mut session = Mux::new(MuxRole::Server);
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
