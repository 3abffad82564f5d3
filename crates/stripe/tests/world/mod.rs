//! The simulated world.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use stripe::{Bundle, BundleEvent, BundleId, Hello, MAX_WINDOW, Role, StreamId};

/// Virtual time in which everything is long over.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Numbers from a seed (xorshift64*).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn ms(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound * 1_000))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Relay,
}

/// One direction of a carrier: delivers in order, at a rate, after a delay.
struct Pipe {
    /// Bytes per millisecond.
    rate: u64,
    delay: Duration,
    free_at: Duration,
    queue: VecDeque<(Duration, Bytes)>,
}

impl Pipe {
    fn new(rate: u64, delay: Duration) -> Self {
        Self {
            rate,
            delay,
            free_at: Duration::ZERO,
            queue: VecDeque::new(),
        }
    }

    fn push(&mut self, bytes: Bytes, now: Duration) {
        let time = Duration::from_micros(bytes.len() as u64 * 1_000 / self.rate);
        self.free_at = self.free_at.max(now) + time;
        self.queue.push_back((self.free_at + self.delay, bytes));
    }
}

struct Carrier {
    generation: u16,
    up: Pipe,
    down: Pipe,
    /// First bytes at the relay, until the hello is whole.
    hello: Option<Vec<u8>>,
    /// Delivers nothing before this moment.
    frozen_until: Duration,
    is_alive: bool,
}

enum Happening {
    Freeze(u8, Duration),
    Die(u8),
    Noticed(Side, u8, u16),
    Replace(u8),
    Open,
    Read(Side, StreamId),
    Reset(Side, StreamId),
}

/// What a reader of one stream has seen, and what its writer still has to write.
struct End {
    read: u64,
    /// Bytes received and not yet consumed.
    unread: usize,
    write_total: u64,
    written: u64,
    sees_end: bool,
    /// Time between two readings; zero: at once.
    pace: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deaths: u64,
    pub(crate) freezes: u64,
    pub(crate) bytes: u64,
    pub(crate) resets: u64,
    /// Bytes given to carriers.
    pub(crate) sent: u64,
    /// Times that a side learnt that a stream waits for credit.
    pub(crate) limited: u64,
}

pub(crate) struct World {
    rng: Rng,
    now: Duration,
    client: Bundle,
    relay: Bundle,
    carriers: BTreeMap<u8, Carrier>,
    later: BTreeMap<(Duration, u64), Happening>,
    number: u64,
    ends: BTreeMap<(bool, StreamId), End>,
    reset: Vec<StreamId>,
    to_open: u64,
    is_random: bool,
    pub(crate) tally: Tally,
    /// Arrival of each byte count at the client, for measurements.
    arrivals: Vec<(Duration, StreamId, usize)>,
}

/// The byte at an offset of a direction of a stream.
fn byte(id: StreamId, from: Side, offset: u64) -> u8 {
    let mixed = offset ^ (offset >> 8) ^ u64::from(id.get()) ^ u64::from(from == Side::Client) << 7;
    mixed.to_le_bytes()[0]
}

fn bytes(id: StreamId, from: Side, offset: u64, length: usize) -> Bytes {
    let ends = offset..offset + length as u64;
    ends.map(|offset| byte(id, from, offset)).collect()
}

impl World {
    fn empty(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            rng: Rng(random),
            now: Duration::ZERO,
            client: Bundle::new(Role::Client(BundleId::new([1; 16]))),
            relay: Bundle::new(Role::Relay),
            carriers: BTreeMap::new(),
            later: BTreeMap::new(),
            number: 0,
            ends: BTreeMap::new(),
            reset: Vec::new(),
            to_open: 0,
            is_random: false,
            tally: Tally::default(),
            arrivals: Vec::new(),
        }
    }

    /// A random world.
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self::empty(seed);
        world.is_random = true;
        let carriers = 1 + world.rng.below(6);
        for index in 0..u8::try_from(carriers).unwrap() {
            let (rate, delay) = (20 + world.rng.below(1_500), world.rng.ms(80));
            world.add(index, 1, rate, delay);
        }
        world.to_open = 1 + world.rng.below(5);
        for _ in 0..world.to_open {
            let at = world.rng.ms(500);
            world.at(at, Happening::Open);
        }
        for _ in 0..world.rng.below(8) {
            let at = world.rng.ms(1_500);
            let index = u8::try_from(world.rng.below(carriers)).unwrap();
            let happening = match world.rng.below(3) {
                0 => Happening::Freeze(index, world.rng.ms(4_000)),
                _ => Happening::Die(index),
            };
            world.at(at, happening);
        }
        world
    }

    /// A world where nothing happens: carriers with a rate in bytes per millisecond and a delay.
    pub(crate) fn steady(carriers: u8, rate: u64, delay: u64) -> Self {
        let mut world = Self::empty(1);
        for index in 0..carriers {
            world.add(index, 1, rate, Duration::from_millis(delay));
        }
        world
    }

    pub(crate) fn slow_down(&mut self, index: u8, rate: u64) {
        self.carriers.get_mut(&index).unwrap().down.rate = rate;
    }

    /// Freezes a carrier after `at` milliseconds, for `time` milliseconds.
    pub(crate) fn freeze(&mut self, index: u8, at: u64, time: u64) {
        let [at, time] = [at, time].map(Duration::from_millis);
        self.at(at, Happening::Freeze(index, time));
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.number += 1;
        self.later.insert((at, self.number), happening);
    }

    fn add(&mut self, index: u8, generation: u16, rate: u64, delay: Duration) {
        self.client.attach(index, generation, self.now).unwrap();
        let carrier = Carrier {
            generation,
            up: Pipe::new(20_000, delay),
            down: Pipe::new(rate, delay),
            hello: Some(Vec::new()),
            frozen_until: Duration::ZERO,
            is_alive: true,
        };
        self.carriers.insert(index, carrier);
    }

    /// Runs until everything is over, and checks it.
    pub(crate) fn run(&mut self) {
        while self.step() {
            assert!(self.now < LONGEST, "something hangs: {:?}", self.client);
        }
        for (_, id) in self.ends.keys() {
            if !self.reset.contains(id) {
                for is_client in [true, false] {
                    let end = &self.ends[&(is_client, *id)];
                    let other = &self.ends[&(!is_client, *id)];
                    assert!(end.sees_end, "{id} has no end");
                    assert_eq!(end.read, other.write_total, "{id}");
                }
            }
        }
        assert_eq!(self.client.open_streams(), 0);
        assert_eq!(self.relay.open_streams(), 0);
        assert_eq!(self.to_open, 0);
    }

    /// Lets the relay send `total` bytes on one stream; returns the seconds until the last
    /// of them has arrived.
    pub(crate) fn seconds_for(&mut self, total: u64) -> f64 {
        self.open(0, total);
        self.run();
        let (last, ..) = self.arrivals.last().unwrap();
        last.as_secs_f64()
    }

    /// Measures messages of 64 bytes beside a bulk stream, in milliseconds, sorted.
    pub(crate) fn latencies_beside_bulk(&mut self, count: u64) -> Vec<f64> {
        let bulk = self.open(0, 100_000_000);
        let small = self.open(1, 0);
        let mut latencies = Vec::new();
        let mut next = Duration::from_secs(1);
        let mut sent: Option<Duration> = None;
        while latencies.len() < usize::try_from(count).unwrap() {
            if sent.is_none() && self.now < next {
                self.at(next, Happening::Replace(u8::MAX));
            } else if sent.is_none() {
                self.relay
                    .send(small, bytes(small, Side::Relay, 0, 64))
                    .unwrap();
                sent = Some(self.now);
                self.arrivals.clear();
            }
            assert!(self.step());
            let arrived = self.arrivals.iter().find(|(_, id, _)| *id == small);
            if let (Some(since), Some((at, ..))) = (sent, arrived) {
                latencies.push((*at - since).as_secs_f64() * 1_000.0);
                sent = None;
                next = self.now + Duration::from_millis(20);
                let end = self.ends.get_mut(&(true, small)).unwrap();
                end.read = 0;
            }
        }
        assert!(
            self.ends[&(true, bulk)].read < 100_000_000,
            "bulk to the end"
        );
        latencies.sort_by(f64::total_cmp);
        latencies
    }

    /// Returns the bytes that each of two bulk streams has received when one is through.
    pub(crate) fn shares(&mut self, total: u64) -> [u64; 2] {
        let both = [self.open(0, total), self.open(0, total)];
        let read = |world: &Self| both.map(|id| world.ends.get(&(true, id)).unwrap().read);
        while read(self).iter().all(|read| *read < total) {
            assert!(self.step());
        }
        read(self)
    }

    fn open(&mut self, up: u64, down: u64) -> StreamId {
        let id = self.client.open("db:5432", self.now).unwrap();
        for (is_client, write_total) in [(true, up), (false, down)] {
            let pace = match self.is_random {
                true if self.rng.below(3) == 0 => self.rng.ms(40),
                _ => Duration::ZERO,
            };
            let end = End {
                read: 0,
                unread: 0,
                write_total,
                written: 0,
                sees_end: false,
                pace,
            };
            self.ends.insert((is_client, id), end);
        }
        self.write(Side::Client, id);
        id
    }

    fn bundle(&mut self, side: Side) -> &mut Bundle {
        match side {
            Side::Client => &mut self.client,
            Side::Relay => &mut self.relay,
        }
    }

    /// Writes as much as the stream takes.
    fn write(&mut self, side: Side, id: StreamId) {
        let key = (side == Side::Client, id);
        let Some(end) = self.ends.get(&key) else {
            return;
        };
        let (mut written, total) = (end.written, end.write_total);
        // The end of a steady small stream stays open.
        let is_small_probe = !self.is_random && total == 0 && side == Side::Relay;
        loop {
            let room = self.bundle(side).room(id) as u64;
            let most = match self.is_random {
                true => 1 + self.rng.below(9_000),
                false => 16_384,
            };
            let length = room.min(total - written).min(most);
            if length == 0 {
                break;
            }
            let data = bytes(id, side, written, usize::try_from(length).unwrap());
            if self.bundle(side).send(id, data).is_err() {
                break;
            }
            written += length;
        }
        if written == total && !is_small_probe {
            self.bundle(side).finish(id);
        }
        self.ends.get_mut(&key).unwrap().written = written;
    }

    /// Does what happens next. Returns false when nothing does any more.
    fn step(&mut self) -> bool {
        self.settle();
        let deliveries = self.carriers.values().flat_map(|carrier| {
            let fronts = [carrier.up.queue.front(), carrier.down.queue.front()];
            let at = |(at, _): &(Duration, Bytes)| (*at).max(carrier.frozen_until);
            fronts.map(|front| front.map(at))
        });
        let timers = [&self.client, &self.relay].map(Bundle::poll_timeout);
        let first = self.later.first_key_value().map(|((at, _), _)| *at);
        let all = deliveries.chain(timers).chain([first]);
        let Some(next) = all.flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        self.client.handle_timeout(self.now);
        self.relay.handle_timeout(self.now);
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= self.now
        {
            let happening = entry.remove();
            self.happen(happening);
        }
        for index in 0..=u8::try_from(self.carriers.len()).unwrap() {
            self.deliver(index);
        }
        true
    }

    fn deliver(&mut self, index: u8) {
        for to in [Side::Relay, Side::Client] {
            while let Some(bytes) = self.arrived(index, to) {
                match to {
                    Side::Relay => self.at_relay(index, bytes),
                    Side::Client => self.client.handle_input(index, &bytes, self.now).unwrap(),
                }
            }
        }
    }

    fn arrived(&mut self, index: u8, to: Side) -> Option<Bytes> {
        let now = self.now;
        let carrier = self.carriers.get_mut(&index)?;
        let pipe = match to {
            Side::Relay => &mut carrier.up,
            Side::Client => &mut carrier.down,
        };
        let (at, bytes) = pipe.queue.front_mut()?;
        if (*at).max(carrier.frozen_until) > now {
            return None;
        }
        if self.is_random && bytes.len() > 1 && self.rng.below(4) == 0 {
            let cut = 1 + usize::try_from(self.rng.below(bytes.len() as u64 - 1)).unwrap();
            return Some(bytes.split_to(cut));
        }
        pipe.queue.pop_front().map(|(_, bytes)| bytes)
    }

    fn at_relay(&mut self, index: u8, bytes: Bytes) {
        let carrier = self.carriers.get_mut(&index).unwrap();
        let Some(begin) = &mut carrier.hello else {
            // The relay may not know yet that its own end is gone.
            self.relay.handle_input(index, &bytes, self.now).unwrap();
            return;
        };
        begin.extend_from_slice(&bytes);
        if let Some((hello, length)) = Hello::decode(begin).unwrap() {
            let rest = begin.split_off(length);
            carrier.hello = None;
            self.relay
                .attach(hello.index, hello.generation, self.now)
                .unwrap();
            self.relay.handle_input(index, &rest, self.now).unwrap();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Open => {
                let [up, down] = [0, 1].map(|_| match self.rng.below(4) {
                    0 => self.rng.below(600_000),
                    1 => 0,
                    _ => self.rng.below(20_000),
                });
                self.to_open -= 1;
                let id = self.open(up, down);
                if self.rng.below(6) == 0 {
                    let at = self.now + self.rng.ms(800);
                    let side = [Side::Client, Side::Relay][usize::from(self.rng.below(2) == 0)];
                    self.at(at, Happening::Reset(side, id));
                }
            }
            Happening::Freeze(index, time) => {
                self.tally.freezes += 1;
                self.carriers.get_mut(&index).unwrap().frozen_until = self.now + time;
            }
            Happening::Die(index) => self.die(index),
            Happening::Noticed(side, index, generation) => {
                let now = self.now;
                self.bundle(side).detach(index, generation, now);
            }
            Happening::Replace(u8::MAX) => {}
            Happening::Replace(index) => {
                let generation = self.carriers[&index].generation + 1;
                let (rate, delay) = (20 + self.rng.below(1_500), self.rng.ms(80));
                self.add(index, generation, rate, delay);
            }
            Happening::Read(side, id) => self.consume(side, id),
            Happening::Reset(side, id) => {
                self.tally.resets += 1;
                self.reset.push(id);
                self.bundle(side).reset(id, "changed my mind");
            }
        }
    }

    fn die(&mut self, index: u8) {
        let carrier = self.carriers.get_mut(&index).unwrap();
        if !std::mem::take(&mut carrier.is_alive) {
            return;
        }
        carrier.up.queue.clear();
        carrier.down.queue.clear();
        let generation = carrier.generation;
        self.tally.deaths += 1;
        let [client, relay] = [300, 2_500].map(|bound| self.now + self.rng.ms(bound));
        self.at(client, Happening::Noticed(Side::Client, index, generation));
        self.at(relay, Happening::Noticed(Side::Relay, index, generation));
        let again = client + self.rng.ms(600);
        self.at(again, Happening::Replace(index));
    }

    fn consume(&mut self, side: Side, id: StreamId) {
        let end = self.ends.get_mut(&(side == Side::Client, id)).unwrap();
        let unread = std::mem::take(&mut end.unread);
        let now = self.now;
        self.bundle(side).consume(id, unread, now);
    }

    /// Handles all events and moves all bytes that can move now.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in [Side::Client, Side::Relay] {
                while let Some(event) = self.bundle(side).poll_event() {
                    moved = true;
                    self.handle(side, event);
                }
                let now = self.now;
                while let Some(transmit) = self.bundle(side).poll_transmit(now) {
                    moved = true;
                    self.tally.sent += transmit.bytes.len() as u64;
                    let carrier = self.carriers.get_mut(&transmit.index).unwrap();
                    match side {
                        _ if !carrier.is_alive => {}
                        Side::Client => carrier.up.push(transmit.bytes, now),
                        // The relay may not know yet that the carrier was replaced.
                        Side::Relay if carrier.hello.is_some() => {}
                        Side::Relay => carrier.down.push(transmit.bytes, now),
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn handle(&mut self, side: Side, event: BundleEvent) {
        match event {
            BundleEvent::Opened { id, target } => {
                assert_eq!((side, target.as_str()), (Side::Relay, "db:5432"));
                self.write(Side::Relay, id);
            }
            BundleEvent::Writable(id) => self.write(side, id),
            BundleEvent::Data { id, data } => self.data(side, id, &data),
            BundleEvent::Finished(id) => {
                let end = self.ends.get_mut(&(side == Side::Client, id)).unwrap();
                assert!(!end.sees_end, "the end came twice");
                end.sees_end = true;
            }
            BundleEvent::Reset { id, reason } => {
                assert_eq!(reason, "changed my mind");
                assert!(self.reset.contains(&id));
            }
            BundleEvent::Ready(_) => {}
            BundleEvent::Limited => self.tally.limited += 1,
            BundleEvent::Refused { index, reason } => panic!("{index}: {reason}"),
        }
    }

    fn data(&mut self, side: Side, id: StreamId, data: &Bytes) {
        let from = match side {
            Side::Client => Side::Relay,
            Side::Relay => Side::Client,
        };
        self.tally.bytes += data.len() as u64;
        if side == Side::Client && !self.is_random {
            self.arrivals.push((self.now, id, data.len()));
        }
        let end = self.ends.get_mut(&(side == Side::Client, id)).unwrap();
        for (place, got) in data.iter().enumerate() {
            assert_eq!(
                *got,
                byte(id, from, end.read + place as u64),
                "{id} at {}",
                end.read
            );
        }
        end.read += data.len() as u64;
        let was_read = end.unread == 0;
        end.unread += data.len();
        assert!(end.unread as u64 <= MAX_WINDOW, "beyond the window");
        match end.pace {
            Duration::ZERO => self.consume(side, id),
            pace if was_read => {
                let at = self.now + pace;
                self.at(at, Happening::Read(side, id));
            }
            _ => {}
        }
    }
}
