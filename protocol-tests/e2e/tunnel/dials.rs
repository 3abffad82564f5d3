//! Dials of the bastion that fail, and those that would have worked through another session.

use std::time::{Duration, Instant};

use protocol_tests::aws::events::Event;
use protocol_tests::network::vpc::Endpoint;

use super::{dialled, started, world_with};
use crate::shell::Shell;
use crate::support::{HOST, PATIENCE, PORT, World};

#[tokio::test]
async fn a_dial_that_gets_no_answer_ends_in_time_and_hurts_nobody_else() {
    let world = world_with("dial_timeout = 1\nsessions = 1").await;
    let mut beside = Shell::open(&world, "");
    beside.backend().await;
    // Packets to the database vanish from now on.
    let vpc = world.sandbox.vpc();
    vpc.repoint(HOST, PORT, Endpoint::Blackhole);
    let old = vpc.resolve(HOST).expect("an address");
    let begun = Instant::now();
    // The open session still knows the old address, so a client gets through that way.
    assert_eq!(world.query("select 'old address'").await, "old address");
    world.sandbox.end_session(&started(&world)[0], "");
    drop(beside);

    let ran = world.psql(&["-c", "select 1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("within 1 s"), "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(vpc.resolve(HOST), Some(old));

    // The agent is still stuck in that dial; the next client does not go there.
    vpc.repoint(HOST, PORT, Endpoint::Open(world.database.addr()));
    assert_eq!(world.query("select 'through'").await, "through");
    world.stop().await;
}

#[tokio::test]
async fn clients_behind_a_stuck_dial_move_to_another_session() {
    let world = world_with("dial_timeout = 2\nsessions = 1").await;
    let vpc = world.sandbox.vpc();
    vpc.repoint(HOST, PORT, Endpoint::Blackhole);
    let first = tokio::spawn(crate::support::run(
        world.psql_command(&["-c", "select 'first'"]),
    ));
    let started_first = |e: &Event| matches!(e, Event::HandshakeComplete { .. });
    let events = world.sandbox.events();
    let up = events.wait_for_nth(1, started_first, PATIENCE).await;
    up.expect("a session");
    // The first one's session has the old address for good.
    vpc.repoint(HOST, PORT, Endpoint::Open(world.database.addr()));
    let others: Vec<_> = (0..5)
        .map(|n| {
            let sql = format!("select 'number {n}'");
            let command = world.psql_command(&["-A", "-t", "-c", &sql]);
            tokio::spawn(crate::support::run(command))
        })
        .collect();
    for (n, other) in others.into_iter().enumerate() {
        let ran = other.await.expect("psql runs");
        assert_eq!(ran.rows(), format!("number {n}"));
    }
    let ran = first.await.expect("psql runs");
    assert_eq!(
        ran.code,
        Some(2),
        "a fresh session was not tried twice: {ran:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_name_that_has_moved_is_found_through_a_fresh_session() {
    let world = World::start().await;
    let vpc = world.sandbox.vpc();
    assert_eq!(world.query("select 1").await, "1");
    // A failover: the old address refuses, the name leads elsewhere. The agent asks for names once
    // per session.
    vpc.add(HOST, PORT, Endpoint::Refused);
    vpc.repoint(HOST, PORT, Endpoint::Open(world.database.addr()));
    assert_eq!(world.query("select 'moved'").await, "moved");
    assert_eq!(started(&world).len(), 2);
    assert_eq!(dialled(&world).len(), 3);
    // And stays there.
    assert_eq!(world.query("select 'stays'").await, "stays");
    assert_eq!(started(&world).len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_database_that_is_down_does_not_cost_a_session_per_attempt() {
    let world = World::start().await;
    let vpc = world.sandbox.vpc();
    assert_eq!(world.query("select 1").await, "1");
    vpc.add(HOST, PORT, Endpoint::Refused);
    for _ in 0..6 {
        let ran = world.psql(&["-c", "select 1"]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("could not connect"), "{ran:?}");
    }
    assert_eq!(started(&world).len(), 2, "one more, for the name");
    vpc.add(HOST, PORT, Endpoint::Open(world.database.addr()));
    assert_eq!(world.query("select 'up'").await, "up");
    world.stop().await;
}
