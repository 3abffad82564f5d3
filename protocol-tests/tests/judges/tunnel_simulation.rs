//! Our two machines together, as the program runs them, against an agent and a network made for it,
//! on a virtual clock.
//!
//! The client is [`ssm_channel::Channel`] with [`smux::Mux`] on top and as little driver as
//! possible. The [agent](agent) is written after the observed behaviour of the real one and uses
//! none of our code: it acknowledges each message, resends only its oldest, has no send window, is
//! deaf at first, dials one stream after the other. The [network](link) delays, loses, repeats and
//! reorders; either end goes away and comes back, the client with a new connection and everything
//! replayed.
//!
//! A seed decides all of it. After every step of the loop the [invariants](world) are asserted: the
//! window and every buffer within bounds, every byte once, in order and in its own stream. A seed
//! that fails is named, and `SIMULATION_SEED=n` runs it alone.

mod agent;
mod client;
mod link;
mod plan;
mod port;
mod world;

use crate::random::for_each_seed;
use plan::{Kind, Plan};
use world::{Tally, World};

/// Runs two thousand seeds of a kind; what happened in them, `None` when only one was wanted.
fn run(kind: Kind, first: u64) -> Option<Tally> {
    let seed = |seed| World::new(Plan::new(kind, seed)).run();
    let tallies = for_each_seed(first..first + 2_000, seed)?;
    let all = tallies.into_iter().reduce(Tally::plus)?;
    // A simulation in which nothing happens finds nothing.
    assert!(all.up > 10_000_000 && all.down > 10_000_000, "{all:?}");
    assert!(all.refused > 200 && all.vanished > 0, "{all:?}");
    assert!(all.stopped_reading > 100, "{all:?}");
    Some(all)
}

/// Any delay, no loss: slow dials, deaf agents, slow readers, broken-off streams.
#[test]
fn on_a_clean_path() {
    run(Kind::Clean, 0);
}

/// Up to 5 % lost, repeated and reordered.
#[test]
fn on_a_bad_path() {
    if let Some(all) = run(Kind::Lossy, 2_000) {
        assert!(all.repeated > 3_000 && all.duplicates > 2_000, "{all:?}");
        assert!(all.dropped > 1_000, "{all:?}");
    }
}

/// The agent goes away and comes back: pause and start.
#[test]
fn with_pauses() {
    if let Some(all) = run(Kind::Pauses, 4_000) {
        assert!(all.pauses > 1_000 && all.repeated > 3_000, "{all:?}");
    }
}

/// The client's connection is lost and resumed, up to six times, in the handshake as well.
#[test]
fn with_lost_connections() {
    if let Some(all) = run(Kind::Reconnects, 6_000) {
        assert!(all.reconnects > 3_000 && all.repeated > 3_000, "{all:?}");
        assert!(all.reconnects_in_handshake > 300, "{all:?}");
    }
}

/// All of it at once.
#[test]
fn with_everything() {
    if let Some(all) = run(Kind::Everything, 8_000) {
        assert!(all.reconnects > 3_000 && all.pauses > 1_000, "{all:?}");
        assert!(all.repeated > 3_000 && all.duplicates > 2_000, "{all:?}");
    }
}
