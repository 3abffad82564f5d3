//! A bad network between the two sides of the message gateway, on command.
//!
//! Conditions act on the relayed binary messages, so they cost nothing while they are off, and both
//! the built-in agent and an independent one feel them.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::harness::sync::lock;

/// What happens to messages of one direction. Shares are 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// One-way delay.
    pub delay: Duration,
    /// Share of messages that vanish.
    pub loss: f64,
    /// Share of messages that arrive twice.
    pub duplicate: f64,
    /// Share of messages that are held back behind later ones.
    pub reorder: f64,
}

impl Conditions {
    fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Which way messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Agent to client.
    ToClient,
    /// Client to agent.
    ToAgent,
}

/// Controls of the link; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    bad: AtomicBool,
    state: Mutex<State>,
    freeze: watch::Sender<Freeze>,
    connections: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Freeze {
    all: bool,
    /// Connections with a smaller number stay frozen for good.
    before: u64,
}

/// One WebSocket's view of the link.
pub(crate) struct Path {
    number: u64,
    freeze: watch::Receiver<Freeze>,
}

impl Path {
    /// Whether bytes of this connection go nowhere at present.
    pub(crate) fn is_frozen(&mut self) -> bool {
        let freeze = *self.freeze.borrow_and_update();
        freeze.all || self.number < freeze.before
    }

    /// Waits until [`Self::is_frozen`] may have another answer.
    pub(crate) async fn changed(&mut self) {
        if self.freeze.changed().await.is_err() {
            // The controls are gone, so nothing will ever change.
            std::future::pending().await
        }
    }
}

struct State {
    to_client: Conditions,
    to_agent: Conditions,
    random: u64,
}

/// What the link decided about one message.
pub(crate) struct Fate {
    /// 0 lost, 1 delivered, 2 delivered twice.
    pub(crate) copies: u8,
    pub(crate) delay: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A perfect link.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            bad: AtomicBool::new(false),
            state: Mutex::new(State {
                to_client: Conditions::default(),
                to_agent: Conditions::default(),
                random: 1,
            }),
            freeze: watch::Sender::new(Freeze::default()),
            connections: AtomicU64::new(0),
        }))
    }

    /// Sets both directions and restarts the random numbers from `seed`.
    pub fn set(&self, conditions: Conditions, seed: u64) {
        self.set_each(conditions, conditions, seed);
    }

    /// Sets each direction and restarts the random numbers from `seed`.
    pub fn set_each(&self, to_client: Conditions, to_agent: Conditions, seed: u64) {
        let mut state = lock(&self.0.state);
        *state = State {
            to_client,
            to_agent,
            random: seed,
        };
        let bad = !(to_client.is_clean() && to_agent.is_clean());
        self.0.bad.store(bad, Ordering::Release);
    }

    /// A perfect link again. Messages under way still arrive when they are due.
    pub fn clear(&self) {
        self.set(Conditions::default(), 1);
    }

    /// Freezes every WebSocket without closing it: nothing is read, written or answered, pings
    /// included, as when packets stop getting through. `false` lets it go on.
    pub fn blackhole(&self, on: bool) {
        self.0.freeze.send_modify(|freeze| freeze.all = on);
    }

    /// Freezes the WebSockets that exist now, for good, while new ones work: a laptop that has
    /// changed networks.
    pub fn strand(&self) {
        let before = self.0.connections.load(Ordering::Acquire);
        self.0.freeze.send_modify(|freeze| freeze.before = before);
    }

    pub(crate) fn path(&self) -> Path {
        Path {
            number: self.0.connections.fetch_add(1, Ordering::AcqRel),
            freeze: self.0.freeze.subscribe(),
        }
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.0.bad.load(Ordering::Acquire)
    }

    pub(crate) fn judge(&self, direction: Direction) -> Fate {
        let mut state = lock(&self.0.state);
        let conditions = match direction {
            Direction::ToClient => state.to_client,
            Direction::ToAgent => state.to_agent,
        };
        let lost = state.roll(conditions.loss);
        let twice = state.roll(conditions.duplicate);
        let late = state.roll(conditions.reorder);
        let mut delay = conditions.delay;
        if late {
            // Far enough behind to be overtaken by what a busy sender sends next.
            delay += conditions.delay / 2 + Duration::from_millis(20);
        }
        Fate {
            copies: if lost { 0 } else { 1 + u8::from(twice) },
            delay,
        }
    }
}

impl State {
    /// True with the given probability; splitmix64.
    fn roll(&mut self, share: f64) -> bool {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let unit = f64::from(u32::try_from(z >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        unit < share
    }
}

/// Messages under way in one direction of one session.
pub(crate) struct DelayLine {
    input: mpsc::Sender<Travelling>,
    under_way: Arc<AtomicUsize>,
}

struct Travelling {
    due: Instant,
    order: u64,
    message: Bytes,
}

impl PartialEq for Travelling {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Travelling {}
impl PartialOrd for Travelling {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Travelling {
    /// The heap gives its greatest first, so the earliest must be the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

/// Messages that fit on the line; the sender waits for room, as it would for a socket.
const LINE_CAPACITY: usize = 16_384;

impl DelayLine {
    /// A line and the work that moves messages along it: `deliver` is awaited for each when due.
    pub(crate) fn new<F, D>(deliver: D) -> (Self, impl Future<Output = ()> + Send)
    where
        D: Fn(Bytes) -> F + Send,
        F: Future<Output = ()> + Send,
    {
        let (input, output) = mpsc::channel(LINE_CAPACITY);
        let under_way = Arc::new(AtomicUsize::new(0));
        let line = Self {
            input,
            under_way: under_way.clone(),
        };
        (line, carry(output, under_way, deliver))
    }

    /// True when nothing is under way, so a message may pass beside the line without overtaking.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    pub(crate) async fn put(&self, message: Bytes, fate: &Fate) {
        for _ in 0..fate.copies {
            self.under_way.fetch_add(1, Ordering::AcqRel);
            let travelling = Travelling {
                due: Instant::now() + fate.delay,
                order: 0,
                message: message.clone(),
            };
            if self.input.send(travelling).await.is_err() {
                self.under_way.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

async fn carry<F, D>(mut input: mpsc::Receiver<Travelling>, under_way: Arc<AtomicUsize>, deliver: D)
where
    D: Fn(Bytes) -> F + Send,
    F: Future<Output = ()> + Send,
{
    let mut heap = BinaryHeap::new();
    let mut order = 0;
    loop {
        let next = heap.peek().map(|t: &Travelling| t.due);
        let wake = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake => {
                if let Some(due) = heap.pop() {
                    deliver(due.message).await;
                    under_way.fetch_sub(1, Ordering::AcqRel);
                }
            }
            arrived = input.recv(), if heap.len() < LINE_CAPACITY => {
                let Some(mut travelling) = arrived else { return };
                order += 1;
                travelling.order = order;
                heap.push(travelling);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: u8) -> Bytes {
        Bytes::from(vec![n])
    }

    #[tokio::test(start_paused = true)]
    async fn messages_arrive_when_due_and_in_order_of_their_due_time() {
        let (out, mut arrived) = mpsc::unbounded_channel();
        let (line, work) = DelayLine::new(move |m: Bytes| {
            let out = out.clone();
            async move { out.send((Instant::now(), m[0])).unwrap() }
        });
        tokio::spawn(work);
        let begin = Instant::now();
        let fate = |copies, ms| Fate {
            copies,
            delay: Duration::from_millis(ms),
        };
        line.put(bytes(1), &fate(1, 50)).await;
        line.put(bytes(2), &fate(2, 10)).await;
        line.put(bytes(3), &fate(0, 10)).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (at, n) = arrived.recv().await.unwrap();
            seen.push((at.duration_since(begin).as_millis(), n));
        }
        assert_eq!(seen, [(10, 2), (10, 2), (50, 1)]);
        tokio::task::yield_now().await;
        assert!(line.is_empty());
    }

    #[test]
    fn shares_are_kept_and_seeds_repeat() {
        let link = Link::new();
        assert!(!link.is_bad());
        let conditions = Conditions {
            loss: 0.1,
            duplicate: 0.2,
            ..Conditions::default()
        };
        let run = || {
            link.set(conditions, 42);
            let fates = (0..10_000).map(|_| link.judge(Direction::ToClient).copies);
            fates.collect::<Vec<_>>()
        };
        let first = run();
        assert_eq!(first, run());
        let lost = first.iter().filter(|c| **c == 0).count();
        let twice = first.iter().filter(|c| **c == 2).count();
        assert!((900..1100).contains(&lost), "{lost}");
        assert!((1650..1950).contains(&twice), "{twice}");
        link.clear();
        assert!(!link.is_bad());
    }
}
