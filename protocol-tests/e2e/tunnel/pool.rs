//! Several sessions of one target: when they are started, who gets which, when they end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::{dialled, started, world_with};
use crate::shell::{Shell, numbered, streaming};
use crate::support::{BASTION, PATIENCE, World, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_copies_at_once_have_a_session_each() {
    let world = World::start().await;
    // At the real agent's pace, so that each of them takes its time.
    world.sandbox.agent(BASTION).set_pacing(true);
    let mut copies: Vec<_> = (0..4)
        .map(|n| {
            streaming(
                &world,
                &format!("application_name=copy{n}"),
                &numbered(4_000),
            )
        })
        .collect();
    for copy in &mut copies {
        let mut pipe = copy.stdout.take().expect("psql's output");
        let mut received = Vec::new();
        let read = timeout(PATIENCE, pipe.read_to_end(&mut received)).await;
        assert_eq!(read.expect("in time").expect("the rows"), 4_000 * 1_025);
        assert!(copy.wait().await.expect("psql").success());
    }
    let sessions = dialled(&world);
    assert_eq!(sessions.len(), 4);
    let different: BTreeSet<_> = sessions.iter().collect();
    assert_eq!(different.len(), 4, "{sessions:?}");
    world.stop().await;
}

#[tokio::test]
async fn connections_that_are_merely_open_share_a_session() {
    let world = World::start().await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut psql = Shell::open(&world, "");
        psql.backend().await;
        open.push(psql);
        // Nobody opens connections by hand faster than this; a burst is another matter.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(started(&world).len(), 1);
    drop(open);
    world.stop().await;
}

#[tokio::test]
async fn sessions_are_not_more_than_configured() {
    let world = world_with("sessions = 2").await;
    world.sandbox.agent(BASTION).set_pacing(true);
    let copies: Vec<_> = (0..5)
        .map(|n| streaming(&world, &format!("application_name=copy{n}"), &numbered(200)))
        .collect();
    for copy in copies {
        let ended = timeout(PATIENCE, copy.wait_with_output()).await;
        let ended = ended.expect("in time").expect("psql");
        assert_eq!(ended.stdout.len(), 200 * 1_025, "{ended:?}");
    }
    assert_eq!(started(&world).len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_further_session_connections_share_what_there_is() {
    let world = World::start().await;
    world.sandbox.agent(BASTION).set_pacing(true);
    let first = streaming(&world, "application_name=first", &numbered(5_000));
    eventually("the first is under way", || {
        (dialled(&world).len() == 1).then_some(())
    })
    .await;
    let api = world.sandbox.api();
    api.fail("StartSession", ApiFault::InternalError, 100);
    // It waits for a further session first, and for AWS's own retries.
    assert_eq!(world.query("select 'shared'").await, "shared");
    let begun = Instant::now();
    assert_eq!(world.query("select 'at once'").await, "at once");
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(started(&world).len(), 1);
    let log = world.proxy.log_text();
    assert!(
        log.contains("cannot open another session; new connections share"),
        "{log}"
    );
    let ended = timeout(PATIENCE, first.wait_with_output()).await;
    let ended = ended.expect("in time").expect("psql");
    assert_eq!(ended.stdout.len(), 5_000 * 1_025);
    world.stop().await;
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let world = World::start().await;
    // The SDK itself tries three times.
    world
        .sandbox
        .api()
        .fail("StartSession", ApiFault::Throttled, 5);
    assert_eq!(world.query("select 'patience'").await, "patience");
    assert_eq!(started(&world).len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn idle_sessions_end_the_last_one_later() {
    let world = world_with("sessions = 3\nidle_timeout = 1").await;
    world.sandbox.agent(BASTION).set_pacing(true);
    let copies: Vec<_> = (0..3)
        .map(|n| streaming(&world, &format!("application_name=copy{n}"), &numbered(300)))
        .collect();
    for copy in copies {
        timeout(PATIENCE, copy.wait_with_output())
            .await
            .expect("in time")
            .expect("psql");
    }
    let idle = Instant::now();
    assert_eq!(started(&world).len(), 3);
    let open = || world.sandbox.open_sessions().len();
    eventually("the others end", || (open() <= 1).then_some(())).await;
    assert_eq!(open(), 1, "they ended together");
    eventually("the last one ends", || (open() == 0).then_some(())).await;
    assert!(idle.elapsed() >= Duration::from_secs(3));
    assert_eq!(world.query("select 'a new one'").await, "a new one");
    assert_eq!(started(&world).len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn a_warm_target_has_its_first_session_before_the_first_client() {
    let world = world_with("warm = true").await;
    let events = world.sandbox.events();
    let complete = |e: &Event| matches!(e, Event::HandshakeComplete { .. });
    let ready = events.wait_for_nth(1, complete, PATIENCE).await;
    ready.expect("a session");
    assert_eq!(world.query("select 'warm'").await, "warm");
    assert_eq!(started(&world).len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_does_not_hold_up_those_that_come_later() {
    let world = World::start().await;
    let mut stuck = streaming(&world, "application_name=stuck", &numbered(100_000));
    let waiting = "select exists (select from pg_stat_activity \
                   where application_name = 'stuck' and wait_event = 'ClientWrite')";
    world.wait_sql_steady(waiting, 50).await;
    for n in 0..10 {
        let begun = Instant::now();
        assert_eq!(world.query(&format!("select {n}")).await, n.to_string());
        assert!(begun.elapsed() < Duration::from_secs(5), "{n}");
    }
    // It is still there, and gets all of its rows.
    let mut pipe = stuck.stdout.take().expect("psql's output");
    let mut received = Vec::new();
    let read = timeout(PATIENCE, pipe.read_to_end(&mut received)).await;
    assert_eq!(read.expect("in time").expect("the rows"), 100_000 * 1_025);
    assert!(stuck.wait().await.expect("psql").success());
    assert!(!world.proxy.log_text().contains("tunnel.overrun"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_session_only_a_client_that_stops_reading_is_ended_when_others_wait() {
    let world = world_with("sessions = 1").await;
    let mut beside = Shell::open(&world, "");
    beside.backend().await;
    let stuck = streaming(&world, "application_name=stuck", &numbered(200_000));
    let waiting = "select exists (select from pg_stat_activity \
                   where application_name = 'stuck' and wait_event = 'ClientWrite')";
    world.wait_sql_steady(waiting, 100).await;
    let begun = Instant::now();
    assert_eq!(beside.ask("select 'go on';").await, "go on");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let log = world.proxy.log_text();
    assert!(
        log.contains("ending a connection whose client does not read"),
        "{log}"
    );
    drop((beside, stuck));
    world.stop().await;
}
