//! A client and a relay over carriers that delay, cut, freeze and die, in virtual time.
//!
//! Each seed is one run. In each run every byte arrives in order and once, every stream ends, both
//! sides keep to their bounds, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    reason = "a simulation that cannot go on has failed"
)]

mod world;

use world::World;

/// Runs of each kind of world.
const SEEDS: u64 = 10_000;

/// Totals over all runs, to see that enough happens.
#[derive(Debug, Default)]
struct Totals {
    deaths: u64,
    freezes: u64,
    bytes: u64,
    resets: u64,
    repeated: u64,
}

#[test]
fn streams_survive_everything_that_happens_to_carriers() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.run();
        let tally = world.tally;
        totals.deaths += tally.deaths;
        totals.freezes += tally.freezes;
        totals.bytes += tally.bytes;
        totals.resets += tally.resets;
        totals.repeated += tally.sent.saturating_sub(tally.bytes);
    }
    assert!(totals.deaths > SEEDS, "{totals:?}");
    assert!(totals.freezes > SEEDS / 2, "{totals:?}");
    assert!(totals.resets > SEEDS / 10, "{totals:?}");
    assert!(totals.bytes > SEEDS * 50_000, "{totals:?}");
    assert!(totals.repeated > SEEDS * 1_000, "{totals:?}");
}

#[test]
fn carriers_add_up() {
    let one = World::steady(1, 700, 10).seconds_for(2_000_000);
    for (carriers, least) in [(2, 1.8), (4, 3.6), (8, 7.0), (16, 13.5)] {
        let many = World::steady(carriers, 700, 10).seconds_for(2_000_000 * u64::from(carriers));
        let ratio = one * f64::from(carriers) / many;
        assert!(ratio >= least, "{carriers} carriers: {ratio}");
    }
}

#[test]
fn the_client_learns_that_more_carriers_would_help() {
    let mut bulk = World::steady(1, 700, 10);
    bulk.seconds_for(2_000_000);
    // In these three seconds it is told every half second.
    assert!((3..=7).contains(&bulk.tally.limited), "{:?}", bulk.tally);
    let mut little = World::steady(1, 700, 10);
    little.seconds_for(40_000);
    assert_eq!(little.tally.limited, 0);
}

#[test]
fn a_slow_carrier_holds_back_its_own_part_only() {
    let all = World::steady(8, 700, 10).seconds_for(30_000_000);
    let mut world = World::steady(8, 700, 10);
    world.slow_down(3, 20);
    let slowed = world.seconds_for(30_000_000);
    assert!(
        all / slowed > 0.8,
        "{all} s, with a slow carrier {slowed} s"
    );
}

#[test]
fn what_a_frozen_carrier_holds_goes_over_the_others() {
    let all = World::steady(8, 700, 10).seconds_for(8_000_000);
    let mut world = World::steady(8, 700, 10);
    world.freeze(3, 500, 4_000);
    let frozen = world.seconds_for(8_000_000);
    assert!(
        frozen < all + 1.0,
        "{all} s, with a frozen carrier {frozen} s"
    );
}

#[test]
fn a_small_message_does_not_wait_behind_bulk() {
    let mut world = World::steady(8, 700, 10);
    let latencies = world.latencies_beside_bulk(200);
    let worst = latencies[latencies.len() * 99 / 100];
    // One way is 10 ms, and there and back are 20.
    assert!(worst <= 50.0, "{worst} ms");
}

#[test]
fn two_bulk_streams_share_fairly() {
    let mut world = World::steady(8, 700, 10);
    let [first, second] = world.shares(4_000_000);
    let ratio = first as f64 / second as f64;
    assert!((0.9..1.1).contains(&ratio), "{first} and {second} bytes");
}
