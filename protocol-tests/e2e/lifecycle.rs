//! Stopping, and what happens to open sessions when a part of the way goes.

mod half_close;
mod passing;
mod serving;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use protocol_tests::harness::program::stop_signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::shell::{Shell, numbered, running, streaming};
use crate::support::{BASTION, PATIENCE, Setup, World, eventually, run};

/// Something that is not waited for, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);
const SLEEP: &str = "select pg_sleep(600)";
const DRAINING: &str = "waiting for open connections";
/// What psql shows when a session ends under it, in the server's own format.
const SHUTTING_DOWN: &str =
    "FATAL:  57P01: target \"orders\": terminating connection because pgiam is shutting down\n";

/// A world with further arguments of `pgiam serve`.
async fn world_with(args: &[&str]) -> World {
    World::with(Setup {
        args: args.iter().map(ToString::to_string).collect(),
        ..Setup::default()
    })
    .await
}

/// Ids of the sessions that were started, oldest first.
fn started(world: &World) -> Vec<String> {
    let all = world.sandbox.events().all();
    let ids = all.into_iter().filter_map(|event| match event {
        Event::StartSession { session_id, .. } => Some(session_id),
        _ => None,
    });
    ids.collect()
}

fn was_terminated(world: &World, id: &str) -> bool {
    let events = world.sandbox.events();
    events.count(|e| matches!(e, Event::TerminateSession { session_id } if session_id == id)) == 1
}

/// A psql that sleeps at the server.
async fn sleeper(world: &World) -> Shell {
    let mut psql = Shell::open(world, "application_name=sleeper");
    let pid = psql.backend().await;
    psql.say(&format!("{SLEEP};")).await;
    world.wait_sql(&running(pid, "pg_sleep")).await;
    psql
}

/// What an idle psql says when it finds its session gone.
async fn last_words(mut psql: Shell) -> String {
    psql.say("select 'anybody there?';").await;
    let ran = psql.end().await;
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.code, Some(2), "psql lost its connection: {ran:?}");
    ran.stderr
}

#[tokio::test]
async fn sigterm_without_connections_ends_at_once() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    world.query("select 1").await;
    world.wait_no_backends().await;
    let begun = Instant::now();
    world.proxy.signal(stop_signal()).expect("pgiam runs");
    let status = world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0));
    let sessions = started(&world);
    assert_eq!(sessions.len(), 1);
    assert!(was_terminated(&world, &sessions[0]));
    world.stop().await;
}

#[tokio::test]
async fn a_proxy_nobody_used_asks_nothing_of_aws() {
    let mut world = World::start().await;
    world.proxy.signal(Signal::SIGINT).expect("pgiam runs");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    assert!(world.sandbox.events().all().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn open_sessions_are_told_that_the_proxy_stops() {
    let mut world = world_with(&["--drain-timeout", "1"]).await;
    let mut idle = Shell::open(&world, "sslmode=disable");
    idle.backend().await;
    let mut idle_tls = Shell::open(&world, "sslmode=require");
    idle_tls.backend().await;
    let asleep = sleeper(&world).await;

    world.proxy.signal(stop_signal()).expect("pgiam runs");
    // It is told without having to ask.
    let ran = asleep.end().await;
    assert!(ran.stderr.starts_with(SHUTTING_DOWN), "{ran:?}");
    assert_eq!(ran.code, Some(2), "psql lost its connection");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    for psql in [idle, idle_tls] {
        let said = last_words(psql).await;
        assert!(said.starts_with(SHUTTING_DOWN), "{said}");
    }
    assert!(was_terminated(&world, &started(&world)[0]));
    // The sleeping backend notices when it next looks at its socket; nothing idle is left.
    let left = "select count(*) = 0 from pg_stat_activity \
                where client_addr is not null and state <> 'active'";
    world.wait_sql(left).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_result_puts_nothing_into_it() {
    let mut world = world_with(&["--drain-timeout", "0"]).await;
    let mut psql = streaming(&world, "application_name=slow", &numbered(1_000_000));
    // Nobody takes the rows, so the proxy holds the half of one or of a TLS record.
    let stuck = "select exists (select from pg_stat_activity \
                 where application_name = 'slow' and wait_event = 'ClientWrite')";
    world.wait_sql_steady(stuck, 30).await;
    world.proxy.signal(stop_signal()).expect("pgiam runs");
    let status = world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));

    let output = psql.stdout.take().expect("psql's output");
    let mut lines = BufReader::new(output).lines();
    let mut rows = 0;
    while let Ok(Some(line)) = lines.next_line().await {
        rows += 1;
        assert!(line == format!("{rows:016}").repeat(64), "{rows}: {line}");
    }
    assert!((1..1_000_000).contains(&rows), "{rows} rows");
    let ended = psql.wait_with_output().await.expect("psql");
    assert_ne!(ended.status.code(), Some(0), "half a result is no success");
    world.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_by_itself_ends_the_drain() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    let mut admin = Shell::admin(&world);
    admin.ask("select pg_advisory_lock(1);").await;
    let waits = "select pg_advisory_lock(1), 'done'";
    let psql = tokio::spawn(run(world.psql_command(&["-A", "-t", "-c", waits])));
    let waiting = "select exists (select from pg_stat_activity where wait_event = 'advisory')";
    world.wait_sql(waiting).await;

    world.proxy.signal(stop_signal()).expect("pgiam runs");
    assert!(world.proxy.wait_log(DRAINING, PATIENCE).await.is_some());
    let ran = world.psql(&["-c", "select 1"]).await;
    assert!(ran.stderr.contains("pgiam is shutting down"), "{ran:?}");
    admin.ask("select pg_advisory_unlock(1);").await;
    assert_eq!(psql.await.expect("psql runs").rows(), "|done");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    drop(admin);
    world.stop().await;
}

#[tokio::test]
async fn a_second_signal_cuts_the_drain_short() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    let asleep = sleeper(&world).await;
    world.proxy.signal(Signal::SIGINT).expect("pgiam runs");
    assert!(world.proxy.wait_log(DRAINING, PATIENCE).await.is_some());
    world.proxy.signal(Signal::SIGINT).expect("pgiam waits");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    let ran = asleep.end().await;
    assert!(ran.stderr.starts_with(SHUTTING_DOWN), "{ran:?}");
    assert!(was_terminated(&world, &started(&world)[0]));
    world.stop().await;
}

#[tokio::test]
async fn a_login_under_way_is_told_as_well_and_its_session_ended() {
    let mut world = world_with(&["--drain-timeout", "1"]).await;
    // The tunnel comes up as far as the agent's first word, which never comes.
    world
        .sandbox
        .agent(BASTION)
        .update(|agent| agent.mute = true);
    let psql = tokio::spawn(run(world.psql_command(&["-c", "select 1"])));
    let connected = |event: &Event| matches!(event, Event::GatewayConnected { .. });
    let connected = world.sandbox.events().wait_for(connected, PATIENCE).await;
    assert!(connected.is_some());

    world.proxy.signal(stop_signal()).expect("pgiam runs");
    let ran = psql.await.expect("psql runs");
    let told = "FATAL:  target \"orders\": terminating connection because pgiam is shutting down\n\
                HINT:  Connect again after pgiam has restarted. [server.shutdown]\n";
    assert!(ran.stderr.ends_with(told), "{ran:?}");
    assert_eq!(ran.code, Some(2));
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    assert!(was_terminated(&world, &started(&world)[0]));
    world.stop().await;
}

#[tokio::test]
async fn an_ended_session_is_named_and_the_next_connection_gets_another() {
    let world = World::start().await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let sessions = started(&world);
    assert_eq!(sessions.len(), 1);
    let reason = "Something this program has never heard of";
    assert!(world.sandbox.end_session(&sessions[0], reason));
    // The proxy knows before psql asks.
    eventually("the session has ended", || {
        let log = world.proxy.log_text();
        log.contains("\"connection ended\"").then_some(())
    })
    .await;
    let said = last_words(psql).await;
    let lost = "FATAL:  08006: target \"orders\": the connection to the database was lost\n\
                DETAIL:  ";
    assert!(said.starts_with(lost) && said.contains(reason), "{said}");
    let hint = "HINT:  Connect again: pgiam opens a new session.";
    assert!(said.contains(hint), "{said}");
    assert_eq!(world.query("select 'back'").await, "back");
    assert_eq!(started(&world).len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_server_restart_reaches_the_client_in_the_servers_words() {
    let mut world = World::start().await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    world
        .database
        .postgres_mut()
        .restart()
        .await
        .expect("restart");
    let ended = world.proxy.wait_log("connection ended", PATIENCE).await;
    assert_eq!(ended.expect("the session ends")["by"], "server");
    let said = last_words(psql).await;
    let words = "FATAL:  57P01: terminating connection due to administrator command\n";
    assert!(said.starts_with(words), "{said}");
    assert!(!said.contains("orders"), "nothing of ours: {said}");
    // The tunnel stands; only the stream had to go.
    assert_eq!(world.query("select 'back'").await, "back");
    assert_eq!(started(&world).len(), 1);
    world.stop().await;
}
