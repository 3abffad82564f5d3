//! Bundles: a client and a relay joined by carriers that cut the bytes anywhere, end and stall, or
//! one side with a peer that sends whatever it likes.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use pgiam_fuzz::cut;
use stripe::{Bundle, BundleEvent, BundleId, Hello, HelloReply, Role, StreamId};

/// Carriers of a bundle.
const CARRIERS: u8 = 3;

#[derive(Debug, Arbitrary)]
enum Scenario<'a> {
    Joined(Vec<Step>),
    Alone {
        relay: bool,
        cuts: Vec<u8>,
        input: &'a [u8],
    },
}

#[derive(Debug, Arbitrary)]
enum Step {
    Open,
    Send {
        relay: bool,
        stream: u8,
        length: u16,
    },
    Finish {
        relay: bool,
        stream: u8,
    },
    Reset {
        relay: bool,
        stream: u8,
    },
    Replace {
        carrier: u8,
    },
    /// Time passes.
    Wait {
        ms: u16,
    },
    /// Up to `length` bytes come off a carrier.
    Deliver {
        to_relay: bool,
        carrier: u8,
        length: u16,
    },
}

/// Bytes of one direction of a stream.
#[derive(Default)]
struct Log {
    sent: Vec<u8>,
    received: Vec<u8>,
}

struct Carrier {
    generation: u16,
    up: BytesMut,
    down: BytesMut,
    is_attached: bool,
}

struct World {
    client: Bundle,
    relay: Bundle,
    carriers: BTreeMap<u8, Carrier>,
    /// By stream, up and down.
    logs: BTreeMap<(StreamId, bool), Log>,
    streams: Vec<StreamId>,
    counter: u32,
    now: Duration,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            client: Bundle::new(Role::Client(BundleId::new([3; 16]))),
            relay: Bundle::new(Role::Relay),
            carriers: BTreeMap::new(),
            logs: BTreeMap::new(),
            streams: Vec::new(),
            counter: 0,
            now: Duration::ZERO,
        };
        for index in 0..CARRIERS {
            world.replace(index);
        }
        world
    }

    fn replace(&mut self, index: u8) {
        let generation = self
            .carriers
            .get(&index)
            .map_or(1, |old| old.generation + 1);
        if let Some(old) = self.carriers.get(&index) {
            self.relay.detach(index, old.generation, self.now);
            self.client.detach(index, old.generation, self.now);
        }
        self.client.attach(index, generation, self.now).unwrap();
        let carrier = Carrier {
            generation,
            up: BytesMut::new(),
            down: BytesMut::new(),
            is_attached: false,
        };
        self.carriers.insert(index, carrier);
    }

    fn stream(&self, number: u8) -> Option<StreamId> {
        let count = self.streams.len().max(1);
        self.streams.get(usize::from(number) % count).copied()
    }

    fn side(&mut self, relay: bool) -> &mut Bundle {
        match relay {
            true => &mut self.relay,
            false => &mut self.client,
        }
    }

    fn send(&mut self, relay: bool, number: u8, length: u16) {
        let Some(id) = self.stream(number) else {
            return;
        };
        let data: Vec<u8> = (0..u32::from(length))
            .map(|n| (self.counter.wrapping_add(n).wrapping_mul(0x9E37_79B9) >> 24) as u8)
            .collect();
        self.counter = self.counter.wrapping_add(u32::from(length));
        if self.side(relay).send(id, Bytes::from(data.clone())).is_ok() {
            let log = self.logs.entry((id, relay)).or_default();
            log.sent.extend_from_slice(&data);
        }
    }

    fn deliver(&mut self, to_relay: bool, index: u8, length: usize) {
        let now = self.now;
        let Some(carrier) = self.carriers.get_mut(&index) else {
            return;
        };
        if !to_relay {
            let length = length.min(carrier.down.len());
            let bytes = carrier.down.split_to(length).freeze();
            return self.client.handle_input(index, &bytes, now).unwrap();
        }
        if !carrier.is_attached {
            let Some((hello, length)) = Hello::decode(&carrier.up).unwrap() else {
                return;
            };
            assert_eq!((hello.index, hello.generation), (index, carrier.generation));
            _ = carrier.up.split_to(length);
            carrier.is_attached = true;
            self.relay.attach(index, hello.generation, now).unwrap();
        }
        let length = length.min(carrier.up.len());
        let bytes = carrier.up.split_to(length).freeze();
        self.relay.handle_input(index, &bytes, now).unwrap();
    }

    /// Moves what can move, and checks what arrives.
    fn settle(&mut self) {
        for relay in [false, true] {
            let now = self.now;
            while let Some(event) = self.side(relay).poll_event() {
                match event {
                    BundleEvent::Data { id, data } => {
                        assert!(!data.is_empty());
                        let length = data.len();
                        let log = self.logs.entry((id, !relay)).or_default();
                        log.received.extend_from_slice(&data);
                        assert!(log.sent.starts_with(&log.received), "bytes differ");
                        self.side(relay).consume(id, length, now);
                    }
                    BundleEvent::Opened { target, .. } => assert_eq!(target, "db:5432"),
                    BundleEvent::Refused { reason, .. } => panic!("{reason}"),
                    _ => {}
                }
            }
            while let Some(transmit) = self.side(relay).poll_transmit(now) {
                assert!(!transmit.bytes.is_empty());
                let carrier = self.carriers.get_mut(&transmit.index).unwrap();
                match relay {
                    true => carrier.down.extend_from_slice(&transmit.bytes),
                    false => carrier.up.extend_from_slice(&transmit.bytes),
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Open => {
                let id = self.client.open("db:5432", self.now).unwrap();
                self.streams.push(id);
            }
            Step::Send {
                relay,
                stream,
                length,
            } => self.send(relay, stream, length),
            Step::Finish { relay, stream } => {
                if let Some(id) = self.stream(stream) {
                    self.side(relay).finish(id);
                }
            }
            Step::Reset { relay, stream } => {
                if let Some(id) = self.stream(stream) {
                    self.side(relay).reset(id, "no more");
                }
            }
            Step::Replace { carrier } => self.replace(carrier % CARRIERS),
            Step::Wait { ms } => {
                self.now += Duration::from_millis(u64::from(ms));
                self.client.handle_timeout(self.now);
                self.relay.handle_timeout(self.now);
            }
            Step::Deliver {
                to_relay,
                carrier,
                length,
            } => {
                self.deliver(to_relay, carrier % CARRIERS, usize::from(length));
            }
        }
        self.settle();
    }

    /// Lets everything arrive; then nothing may be left but streams that nobody ended.
    fn finish(&mut self) {
        for id in self.streams.clone() {
            self.client.finish(id);
        }
        for _ in 0..10_000 {
            self.settle();
            for index in 0..CARRIERS {
                self.deliver(true, index, usize::MAX);
                self.deliver(false, index, usize::MAX);
            }
            self.settle();
            for id in self.streams.clone() {
                self.relay.finish(id);
            }
            let next = [self.client.poll_timeout(), self.relay.poll_timeout()];
            let is_over = self.client.open_streams() == 0 && self.relay.open_streams() == 0;
            match next.into_iter().flatten().min() {
                Some(next) if !is_over => self.now = self.now.max(next),
                _ if is_over => return,
                _ => {}
            }
            self.client.handle_timeout(self.now);
            self.relay.handle_timeout(self.now);
        }
        panic!("streams do not end: {:?} {:?}", self.client, self.relay);
    }
}

fn alone(relay: bool, cuts: &[u8], input: &[u8]) {
    let now = Duration::ZERO;
    _ = Hello::decode(input);
    _ = HelloReply::decode(input);
    let role = match relay {
        true => Role::Relay,
        false => Role::Client(BundleId::new([3; 16])),
    };
    let mut bundle = Bundle::new(role);
    bundle.attach(0, 1, now).unwrap();
    if !relay {
        _ = bundle.open("db:5432", now).unwrap();
        let accepted = HelloReply::Accepted.encode();
        bundle.handle_input(0, &accepted, now).unwrap();
    }
    for piece in cut(input, cuts) {
        let outcome = bundle.handle_input(0, piece, now);
        while let Some(event) = bundle.poll_event() {
            if let BundleEvent::Data { id, data } = event {
                bundle.consume(id, data.len(), now);
                _ = bundle.send(id, data);
            }
        }
        while bundle.poll_transmit(now).is_some() {}
        if let Err(error) = outcome {
            assert!(error.is_fatal(), "{error}");
            assert!(bundle.open("db:5432", now).is_err());
            return;
        }
    }
}

fuzz_target!(|scenario: Scenario<'_>| match scenario {
    Scenario::Joined(steps) => {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
    Scenario::Alone { relay, cuts, input } => alone(relay, &cuts, input),
});
