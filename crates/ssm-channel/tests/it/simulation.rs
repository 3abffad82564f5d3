//! The channel on simulated networks.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::support::{Rng, ms};
use crate::world::{Link, Plan, World};

/// Events reached by a range of seeds, so that a simulation that no longer reaches one is noticed.
#[derive(Debug, Default)]
struct Seen {
    dropped_before_ready: usize,
    acks_lost: usize,
    retransmitted: u64,
    duplicates: u64,
    reconnects: u64,
    early_reconnects: u64,
    encrypted: u64,
}

fn run(plan: &Plan) -> World {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan);
        world.run();
        world
    }));
    outcome.unwrap_or_else(|panic| {
        let message = format!("the plan that failed: {plan:?}");
        // The harness shows it with the failed test.
        std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes()).unwrap();
        resume_unwind(panic)
    })
}

/// Returns a moderately bad network and small scripts: cheap enough for thousands.
fn plan(seed: u64) -> Plan {
    let mut rng = Rng(seed ^ 0xFEED);
    Plan {
        seed,
        link: Link {
            loss: rng.below(6),
            duplication: rng.below(6),
            reordering: rng.below(6),
            delay_ms: rng.below([2, 40, 150][seed as usize % 3]),
            jitter_ms: rng.below([2, 30][seed as usize % 2]),
        },
        client_bytes: rng.below(6000) as usize,
        agent_bytes: rng.below(6000) as usize,
        message: [20, 200, 900][rng.below(3) as usize],
        window: [1, 4, 30, 4096][rng.below(4) as usize],
        reorder: [1, 10, 10_000][rng.below(3) as usize],
        pauses: rng.chance(20),
        cuts: [0, 0, 1, 3][rng.below(4) as usize],
        agent_cuts: [0, 0, 0, 2][rng.below(4) as usize],
        // Few: without optimisation the cipher costs more than everything else.
        kms: rng.chance(10).then(|| rng.chance(50)),
    }
}

fn run_seeds(seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let mut seen = Seen::default();
    for seed in seeds {
        let plan = plan(seed);
        let world = run(&plan);
        let stats = world.channel.stats();
        seen.dropped_before_ready += world.agent.dropped_before_ready;
        seen.acks_lost += world.agent.acks_lost;
        seen.retransmitted += stats.retransmitted;
        seen.duplicates += stats.duplicates;
        seen.reconnects += stats.reconnects;
        seen.early_reconnects += world.early_reconnects;
        seen.encrypted += u64::from(plan.kms.is_some());
    }
    let enough = seen.dropped_before_ready as u64 > count / 4
        && seen.acks_lost as u64 > count / 10
        && seen.retransmitted > count
        && seen.duplicates > count
        && seen.reconnects > count / 2
        && seen.early_reconnects > count / 20
        && seen.encrypted > count / 20;
    assert!(enough, "{seen:?}");
}

#[test]
fn seeds_0_to_2499() {
    run_seeds(0..2500);
}

#[test]
fn seeds_2500_to_4999() {
    run_seeds(2500..5000);
}

#[test]
fn seeds_5000_to_7499() {
    run_seeds(5000..7500);
}

#[test]
fn seeds_7500_to_9999() {
    run_seeds(7500..10_000);
}

/// Returns a plan without faults.
fn plain(seed: u64, link: Link) -> Plan {
    Plan {
        seed,
        link,
        client_bytes: 0,
        agent_bytes: 0,
        message: ssm_channel::MAX_PAYLOAD,
        window: 256,
        reorder: 10_000,
        pauses: false,
        cuts: 0,
        agent_cuts: 0,
        kms: None,
    }
}

#[test]
fn a_terrible_network() {
    for seed in 0..60 {
        let mut rng = Rng(seed ^ 0xFEED);
        let link = Link {
            loss: rng.below(21),
            duplication: rng.below(21),
            reordering: rng.below(21),
            delay_ms: rng.below(120),
            jitter_ms: rng.below(50),
        };
        run(&Plan {
            client_bytes: 60_000,
            agent_bytes: 60_000,
            window: 1 + rng.below(64) as usize,
            reorder: 1 + rng.below(64) as usize,
            pauses: seed % 3 == 0,
            cuts: seed % 4,
            ..plain(seed, link)
        });
    }
}

#[test]
fn several_thousand_messages_both_ways() {
    let link = Link {
        loss: 20,
        duplication: 20,
        reordering: 20,
        delay_ms: 10,
        jitter_ms: 40,
    };
    let world = run(&Plan {
        client_bytes: 3_000_000,
        agent_bytes: 1_500_000,
        pauses: true,
        cuts: 3,
        ..plain(1, link)
    });
    let stats = world.channel.stats();
    assert!(stats.sent > 5000 && stats.received > 2500, "{stats:?}");
    assert!(stats.retransmitted > stats.sent / 5, "{stats:?}");
    assert_eq!(
        stats.dropped, 0,
        "the default limit holds a whole session of this size"
    );
}

/// Only loss makes messages repeat: a clean path of any delay must not.
#[test]
fn a_clean_path_repeats_nothing_once_it_is_measured() {
    for delay_ms in [0, 1, 20, 90, 150, 400] {
        let link = Link {
            loss: 0,
            duplication: 0,
            reordering: 0,
            delay_ms,
            jitter_ms: 2,
        };
        let world = run(&Plan {
            client_bytes: 500_000,
            agent_bytes: 100_000,
            window: 64,
            ..plain(delay_ms, link)
        });
        let stats = world.channel.stats();
        // Before the first measurement a slow path looks like a lossy one, and messages before the
        // agent is ready are lost: no more than two windows.
        assert!(stats.retransmitted <= 2 * 64, "{delay_ms} ms: {stats:?}");
        let srtt = stats.srtt.unwrap();
        let round_trip = ms(2 * delay_ms);
        assert!(
            srtt >= round_trip && srtt <= round_trip + ms(10),
            "{delay_ms} ms: {stats:?}"
        );
    }
}

/// Every unacknowledged message has its own timer, so a fifth of the messages lost costs a few
/// timeouts, not one for each loss as with oldest-only repetition.
#[test]
fn loss_does_not_serialise_the_sender() {
    let link = Link {
        loss: 20,
        duplication: 0,
        reordering: 0,
        delay_ms: 10,
        jitter_ms: 0,
    };
    let world = run(&Plan {
        client_bytes: 500_000,
        ..plain(3, link)
    });
    let lost = world.channel.stats().retransmitted;
    assert!(lost > 200, "{lost}");
    let took = world.now;
    assert!(took < ms(60 * lost), "{took:?} for {lost} repetitions");
}
