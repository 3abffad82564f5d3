//! What a seed decides beforehand.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use crate::random::Rng;

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Clean,
    Lossy,
    Pauses,
    Reconnects,
    Everything,
}

/// How bad the network is: percent of the messages, and milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Network {
    pub(super) loss: usize,
    pub(super) duplication: usize,
    pub(super) reordering: usize,
    pub(super) delay: u64,
    pub(super) jitter: u64,
}

/// Who ends a stream, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client, when it has said and heard everything.
    ClientCloses,
    /// The agent, when it has said and heard everything.
    AgentCloses,
    /// The client gives up when so many bytes have gone either way.
    ClientBreaks(usize),
    /// The agent's connection to the port breaks when so many bytes have gone either way.
    AgentBreaks(usize),
    /// The client closes behind what it has queued when the first number of bytes has gone either
    /// way, the agent's connection breaks at the second: whose FIN comes first is open.
    Both(usize, usize),
    /// The agent cannot dial.
    Refused,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct StreamPlan {
    pub(super) starts: Duration,
    /// Bytes from the client, bytes from the agent.
    pub(super) up: usize,
    pub(super) down: usize,
    pub(super) ending: Ending,
    /// How long the agent dials.
    pub(super) dial: Duration,
    /// After so many bytes the client does not read for so long.
    pub(super) lazy: Option<(usize, Duration)>,
}

/// The client's connection is lost at `at` for `lasts`; or the agent's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    /// The other end is told.
    pub(super) told: bool,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) network: Network,
    pub(super) streams: Vec<StreamPlan>,
    /// The client's send window and reorder buffer, in messages.
    pub(super) window: usize,
    pub(super) reorder: usize,
    /// Bytes the client holds unread before it stops reading its socket.
    pub(super) unread: usize,
    /// How long the agent is deaf after the handshake.
    pub(super) deaf: Duration,
    /// Messages the agent sends in a millisecond, and the largest.
    pub(super) pace: usize,
    pub(super) payload: usize,
    pub(super) resend: Duration,
    /// Percent of the acknowledgements that the agent misses because it has not recorded the
    /// message.
    pub(super) ack_race: usize,
    pub(super) lost_connections: Vec<Outage>,
    pub(super) away: Vec<Outage>,
}

impl Plan {
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        // Not the seed of the world's own dice.
        let mut rng = Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let everything = kind == Kind::Everything;
        let network = network(&mut rng, everything || kind == Kind::Lossy);
        let streams = (0..1 + rng.below(4)).map(|_| stream(&mut rng)).collect();
        let mut outages = |wanted: bool| match wanted {
            true => (0..1 + rng.below(6)).map(|_| outage(&mut rng)).collect(),
            false => Vec::new(),
        };
        let lost_connections = apart(outages(everything || kind == Kind::Reconnects));
        let away = apart(outages(everything || kind == Kind::Pauses));
        Self {
            seed,
            network,
            streams,
            window: [1, 4, 30, 256, 4096][rng.below(5)],
            reorder: [1, 10, 100, 10_000][rng.below(4)],
            unread: [1, 3_000, 30_000, 1 << 20][rng.below(4)],
            deaf: ms([0, 0, 5, 400][rng.below(4)]),
            pace: [1, 1, 1, 25][rng.below(4)],
            payload: [1024, 1024, 300, 1000][rng.below(4)],
            resend: ms(200 + rng.next() % 800),
            ack_race: [0, 0, 5][rng.below(3)],
            lost_connections,
            away,
        }
    }
}

fn network(rng: &mut Rng, bad: bool) -> Network {
    let clean = Network {
        delay: [0, 1, 25, 150][rng.below(4)],
        ..Network::default()
    };
    if !bad {
        return clean;
    }
    Network {
        loss: rng.below(6),
        duplication: rng.below(6),
        reordering: rng.below(6),
        jitter: rng.next() % 20,
        ..clean
    }
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..=4 => 0,
        5..=39 => 1 + rng.below(200),
        40..=69 => 1 + rng.below(3_000),
        70..=98 => 1 + rng.below(20_000),
        _ => 1 + rng.below(200_000),
    }
}

fn stream(rng: &mut Rng) -> StreamPlan {
    let (up, down) = (size(rng), size(rng));
    let some = rng.below(up + down + 1);
    let ending = match rng.below(10) {
        0..=2 => Ending::ClientCloses,
        3..=5 => Ending::AgentCloses,
        6 => Ending::ClientBreaks(some),
        7 => Ending::AgentBreaks(some),
        8 => Ending::Both(rng.below(up + down + 1), some),
        _ => Ending::Refused,
    };
    let lazy = (rng.below(down.max(1)), ms(rng.next() % 3_000));
    StreamPlan {
        starts: ms([0, rng.next() % 300, rng.next() % 2_000][rng.below(3)]),
        up,
        down,
        ending,
        dial: ms([0, 1, 30, 1_000][rng.below(4)]),
        lazy: rng.chance(20).then_some(lazy),
    }
}

fn outage(rng: &mut Rng) -> Outage {
    Outage {
        at: ms(rng.next() % [30, 300, 3_000][rng.below(3)]),
        lasts: ms([0, 10, 300, 5_000, 600_000][rng.below(5)]),
        told: rng.chance(70),
    }
}

/// One after the other: the next begins its time after the end of the last one.
fn apart(mut outages: Vec<Outage>) -> Vec<Outage> {
    let mut end = Duration::ZERO;
    for outage in &mut outages {
        outage.at += end;
        end = outage.at + outage.lasts;
    }
    outages
}

/// Who speaks on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Agent,
}

/// What is said on the streams of a seed: `len` bytes (up to 130,000) from `offset`. The same text
/// for all, from another place for each stream and direction, so that a byte in the wrong place or
/// stream is noticed.
pub(super) fn script(seed: u64, stream: u32, speaker: Speaker, offset: usize, len: usize) -> Bytes {
    /// A prime: nothing that goes missing in blocks is made good by the repetition.
    const PERIOD: usize = 65_521;
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Rng(1).bytes(PERIOD).repeat(3).into());
    let direction = u64::from(stream) << 1 | u64::from(speaker == Speaker::Agent);
    let start = Rng(seed << 34 ^ direction).below(PERIOD);
    let start = (start + offset) % PERIOD;
    TEXT.slice(start..start + len)
}
