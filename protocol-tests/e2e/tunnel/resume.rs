//! WebSockets that break, and what the clients notice of it: nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{resumed, started};
use crate::failures::aws::{no_keys, write_keys};
use crate::load::{contents, copy_out, descriptors, make_tables};
use crate::shell::{Shell, admin_command, running};
use crate::support::{BASTION, PATIENCE, Setup, World, eventually, run};

const CUTS: usize = 20;

fn is_connected(event: &Event) -> bool {
    matches!(event, Event::GatewayConnected { .. })
}

/// Breaks the connection of the one open session, and waits until the program is back.
async fn cut(world: &World) {
    let events = world.sandbox.events();
    let nth = events.count(is_connected) + 1;
    let sessions = world.sandbox.open_sessions();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert!(world.sandbox.cut_client(&sessions[0]));
    let back = events.wait_for_nth(nth, is_connected, PATIENCE).await;
    back.expect("the program is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_each_way_survives_twenty_cuts_in_a_row() {
    let world = World::start().await;
    // At the real agent's pace: what it sends into a broken connection it repeats at 10 messages a
    // second, and without the pace that would be thousands.
    world.sandbox.agent(BASTION).set_pacing(true);
    make_tables(&world, 5_000).await;
    world.query("select 1").await;
    let before = descriptors(&world);
    let [direct, out] = ["direct", "out"].map(|n| world.sandbox.dir().join(n));
    let past = run(admin_command(&world, &["-c", &copy_out("source", &direct)])).await;
    past.rows();
    let expected = std::fs::read(&direct).expect("the file");
    let step = expected.len() / (CUTS + 2);

    // Out: psql's pipe holds back what the test does not take, so that every cut hits a COPY that is
    // under way, with bytes of it everywhere.
    let copy = "copy (select * from source order by id) to stdout (format binary)";
    let mut command = world.psql_command(&["-c", copy]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut psql = command.spawn().expect("psql starts");
    let mut pipe = psql.stdout.take().expect("psql's output");
    let mut received = vec![0; step];
    for nth in 0..CUTS {
        let part = &mut received[nth * step..];
        let read = timeout(PATIENCE, pipe.read_exact(part)).await;
        read.expect("in time").expect("a part of the copy");
        cut(&world).await;
        received.resize((nth + 2) * step, 0);
    }
    received.truncate(CUTS * step);
    let rest = timeout(PATIENCE, pipe.read_to_end(&mut received)).await;
    rest.expect("in time").expect("the rest");
    assert!(psql.wait().await.expect("psql").success());
    assert!(received == expected, "COPY out changed bytes on the way");
    std::fs::write(&out, &received).expect("the file");

    // In: the same, with a part of the file at a time.
    let copy = "copy target from stdin (format binary)";
    let mut command = world.psql_command(&["-c", copy]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut psql = command.spawn().expect("psql starts");
    let mut pipe = psql.stdin.take().expect("psql's input");
    for (nth, part) in received.chunks(step).enumerate() {
        let written = timeout(PATIENCE, pipe.write_all(part)).await;
        written.expect("in time").expect("psql takes input");
        if nth < CUTS {
            cut(&world).await;
        }
    }
    drop(pipe);
    let ended = timeout(PATIENCE, psql.wait_with_output()).await;
    let ended = ended.expect("in time").expect("psql");
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(
        contents(&world, "target").await,
        contents(&world, "source").await
    );

    assert_eq!(started(&world).len(), 1, "one session bore it all");
    assert_eq!(resumed(&world), 2 * CUTS);
    eventually("the descriptors are back", || {
        (descriptors(&world) <= before).then_some(())
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn the_hourly_close_passes_unnoticed_in_the_middle_of_a_statement() {
    let world = World::start().await;
    let mut psql = Shell::open(&world, "");
    let pid = psql.backend().await;
    psql.say("select 'slow', pg_sleep(1);").await;
    world.wait_sql(&running(pid, "pg_sleep")).await;
    for _ in 0..3 {
        let nth = world.sandbox.events().count(is_connected) + 1;
        let id = &started(&world)[0];
        assert!(world.sandbox.close_client(id, 1000, "Bye"));
        let events = world.sandbox.events();
        let back = events.wait_for_nth(nth, is_connected, PATIENCE).await;
        back.expect("the program is back");
    }
    assert_eq!(psql.hear().await, "slow|");
    assert_eq!(psql.ask("select 'next';").await, "next");
    assert_eq!((started(&world).len(), resumed(&world)), (1, 3));
    drop(psql);
    world.stop().await;
}

#[tokio::test]
async fn a_service_that_fails_for_a_while_is_asked_again() {
    let world = World::start().await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let api = world.sandbox.api();
    // Each answer that fails is asked for up to three times by the SDK itself.
    api.fail("ResumeSession", ApiFault::InternalError, 7);
    let id = started(&world).remove(0);
    assert!(world.sandbox.cut_client(&id));
    psql.say("select 'still there';").await;
    assert_eq!(psql.hear().await, "still there");
    assert_eq!(started(&world).len(), 1);
    let log = world.proxy.log_text();
    assert_eq!(
        log.matches("resuming the SSM session failed; retrying")
            .count(),
        1
    );
    drop(psql);
    world.stop().await;
}

#[tokio::test]
async fn a_session_that_is_over_ends_its_connections_with_the_reason() {
    for without in [false, true] {
        let world = World::start().await;
        world.sandbox.api().leave_token_out(without);
        let mut psql = Shell::open(&world, "");
        psql.backend().await;
        let id = started(&world).remove(0);
        // Ended while nobody is connected: only the missing token tells.
        world.sandbox.link().strand();
        assert!(world.sandbox.end_session(&id, "whatever"));
        assert!(world.sandbox.cut_client(&id) || !world.sandbox.open_sessions().contains(&id));
        eventually("the program knows", || {
            let log = world.proxy.log_text();
            log.contains("\"connection ended\"").then_some(())
        })
        .await;
        psql.say("select 'anybody there';").await;
        let said = psql.end().await.stderr;
        assert!(said.contains("08006"), "{said}");
        assert_eq!(world.query("select 'back'").await, "back");
        assert_eq!(started(&world).len(), 2);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_path_that_dies_silently_is_found_and_replaced() {
    let world = World::start().await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let begun = Instant::now();
    // From now on this connection's bytes go nowhere, and nobody says so.
    world.sandbox.link().strand();
    psql.say("select 'answered';").await;
    assert_eq!(psql.hear().await, "answered");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!((started(&world).len(), resumed(&world)), (1, 1));
    drop(psql);
    world.stop().await;
}

#[tokio::test]
async fn keys_that_were_renewed_in_the_file_resume_a_session_that_the_old_ones_began() {
    let world = World::with(Setup {
        env: no_keys(),
        ..Setup::default()
    })
    .await;
    let old = world.sandbox.user().clone();
    write_keys(&world, &old);
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    // Keys without an expiry, so nothing but AWS's answer tells that they are over.
    let iam = world.sandbox.iam();
    let new = protocol_tests::aws::iam::User {
        access_key_id: "AKIARENEWEDRENEWED00".to_owned(),
        secret_access_key: "renewed".repeat(6),
        ..old.clone()
    };
    write_keys(&world, &new);
    iam.add(new);
    iam.remove(&old.access_key_id).expect("the old keys");
    cut(&world).await;
    assert_eq!(psql.ask("select 'still there';").await, "still there");
    assert_eq!((started(&world).len(), resumed(&world)), (1, 1));
    drop(psql);
    world.stop().await;
}
