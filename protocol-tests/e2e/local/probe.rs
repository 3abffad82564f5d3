//! What `pg_isready` is told in every state, and what a client that wants in.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol_tests::aws::api::ApiFault;
use protocol_tests::harness::ports::free_port;
use protocol_tests::harness::program;

use super::told;
use crate::failures::refusals;
use crate::shell::Shell;
use crate::support::{BASTION, Setup, World, eventually, ordinary_config, run};

/// Exit codes of pg_isready.
const ACCEPTING: Option<i32> = Some(0);
const REJECTING: Option<i32> = Some(1);
const NO_RESPONSE: Option<i32> = Some(2);
/// More answers than anybody asks for.
const ALWAYS: usize = 1_000;
const PASSWORD: &str = "a local secret";

const DENIED: ApiFault = ApiFault::Refused {
    status: 400,
    code: "AccessDeniedException",
    message: "not authorized to perform: ssm:StartSession",
};

/// A world whose clients wait no longer than 4 s, and must know the local password or not.
async fn world(password: bool, settings: &str) -> World {
    let secret = password.then(|| PASSWORD.to_owned());
    World::with(Setup {
        config: Some(format!(
            "{}connect_timeout = 4\n{settings}\n",
            ordinary_config()
        )),
        env: vec![("PGIAM_LOCAL_PASSWORD", secret)],
        ..Setup::default()
    })
    .await
}

/// What pg_isready says with its own patience of 3 s.
async fn probed_at(world: &World, port: u16, user: &str) -> Option<i32> {
    probed_by(world, &["-p", &port.to_string(), "-U", user]).await
}

async fn probed_by(world: &World, args: &[&str]) -> Option<i32> {
    let own = world.database.postgres().bindir().join("pg_isready");
    let mut command = tokio::process::Command::new(own);
    program::clean_env(&mut command, &["PG"]);
    command
        .args(["-h", "localhost"])
        .args(args)
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    run(command).await.code
}

async fn probed(world: &World) -> Option<i32> {
    probed_at(world, world.proxy.port(), "db_user").await
}

/// One query with the local password.
async fn query(world: &World, sql: &str) -> String {
    let mut command = world.psql_command(&["-A", "-t", "-c", sql]);
    command.env("PGPASSWORD", PASSWORD);
    run(command).await.rows().to_owned()
}

#[tokio::test]
async fn it_is_accepting_when_a_login_would_reach_the_database() {
    for password in [false, true] {
        let world = world(password, "").await;
        assert_eq!(probed(&world).await, ACCEPTING, "from cold");
        assert_eq!(query(&world, "select 1").await, "1");
        assert_eq!(probed(&world).await, ACCEPTING, "warm");
        // As with the server itself: who may not log in hears so when it tries.
        let port = world.proxy.port();
        assert_eq!(probed_at(&world, port, "no_such_role").await, ACCEPTING);
        let World {
            proxy,
            database,
            sandbox,
        } = world;
        proxy.stop().await.expect("pgiam ends");
        let own = database.postgres().bindir().join("pg_isready");
        let mut command = tokio::process::Command::new(own);
        command.args(["-h", "localhost", "-p", &port.to_string()]);
        assert_eq!(run(command).await.code, NO_RESPONSE);
        database.stop().await.expect("the server stops");
        sandbox.shutdown().await;
    }
}

#[tokio::test]
async fn it_is_rejecting_while_the_tunnel_starts() {
    for password in [false, true] {
        let world = world(password, "").await;
        world.sandbox.agent(BASTION).update(|s| s.mute = true);
        // Somebody has to want it: with a password the question alone starts nothing.
        let mut command = world.psql_command(&["-c", "select 1"]);
        command
            .env("PGPASSWORD", PASSWORD)
            .env("PGCONNECT_TIMEOUT", "30");
        let first = tokio::spawn(run(command));
        let starts = |e: &_| matches!(e, protocol_tests::aws::events::Event::StartSession { .. });
        let events = world.sandbox.events();
        let started = events.wait_for(starts, Duration::from_secs(30)).await;
        started.expect("the tunnel is wanted");
        assert_eq!(probed(&world).await, REJECTING);
        let ran = first.await.expect("psql");
        assert!(ran.stderr.contains("were not ready within 4 s"), "{ran:?}");
        for (nth, id) in ["tunnel.starting", "tunnel.timeout"]
            .into_iter()
            .enumerate()
        {
            let line = eventually("it is logged", || refusals(&world).into_iter().nth(nth)).await;
            assert_eq!(line["id"], id, "{line}");
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn it_is_rejecting_while_aws_refuses() {
    let world = world(false, "").await;
    let api = world.sandbox.api();
    for (known, sqlstate) in [(0, "08001"), (2, "08004")] {
        if known == 0 {
            world.sandbox.agent(BASTION).set_online(false);
        } else {
            world.sandbox.agent(BASTION).set_online(true);
            api.fail("StartSession", DENIED, ALWAYS);
        }
        // Who wants in hears the cause as it is.
        let ran = world.psql(&["-c", "select 1"]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let cause = told(&world, known).await;
        assert_eq!(cause["sqlstate"], sqlstate, "{cause}");
        assert_eq!(probed(&world).await, REJECTING);
        let line = told(&world, known + 1).await;
        assert_eq!(
            (&line["id"], &line["sqlstate"]),
            (&cause["id"], &"57P03".into())
        );
    }
    api.recover();
    eventually_accepting(&world).await;
    world.stop().await;
}

/// pg_isready knows no password, so it is not for it to try.
#[tokio::test]
async fn with_a_password_the_last_connection_tells() {
    let world = world(true, "").await;
    let api = world.sandbox.api();
    api.fail("StartSession", DENIED, ALWAYS);
    let select = || {
        let mut command = world.psql_command(&["-A", "-t", "-c", "select 1"]);
        command.env("PGPASSWORD", PASSWORD);
        run(command)
    };
    let ran = select().await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let cause = told(&world, 0).await;
    assert_eq!(cause["sqlstate"], "08004", "{cause}");
    assert_eq!(probed(&world).await, REJECTING);
    let line = told(&world, 1).await;
    assert_eq!(
        (&line["id"], &line["sqlstate"]),
        (&cause["id"], &"57P03".into())
    );
    api.recover();
    // Who asks does not try; who tries finds out, and whoever asks then is told.
    let begun = Instant::now();
    while select().await.code != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    assert_eq!(probed(&world).await, ACCEPTING);

    // The same for the database's own no.
    let mut admin = Shell::admin(&world);
    admin.backend().await;
    shut_down(&world).await;
    let ran = select().await;
    let said = "the database system is shutting down";
    assert!(ran.stderr.contains(said), "{ran:?}");
    assert_eq!(probed(&world).await, REJECTING);
    drop(admin);
    world.stop().await;
}

/// Which target is meant is not known there unless it is named.
#[tokio::test]
async fn on_the_hub_it_is_rejecting_when_all_targets_are_known_to_fail() {
    let orders = ordinary_config();
    let stock = orders.replace("targets.orders", "targets.stock");
    let hub = free_port().to_string();
    let world = World::with(Setup {
        config: Some(orders + &stock),
        args: vec!["--hub-port".into(), hub.clone()],
        ..Setup::default()
    })
    .await;
    let api = world.sandbox.api();
    api.fail("StartSession", DENIED, ALWAYS);
    let ask = async |target: &str| {
        let args = ["-p", &hub, "-d", target, "-c", "select 1"];
        world.psql(&args).await.code
    };
    assert_eq!(ask("orders").await, Some(2));
    assert_eq!(probed_by(&world, &["-p", &hub]).await, ACCEPTING);
    let named = ["-p", &hub, "-d", "orders/app"];
    assert_eq!(probed_by(&world, &named).await, REJECTING);
    for target in ["orders", "stock"] {
        assert_eq!(ask(target).await, Some(2));
    }
    assert_eq!(probed_by(&world, &["-p", &hub]).await, REJECTING);
    api.recover();
    let begun = Instant::now();
    while ask("stock").await != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    assert_eq!(probed_by(&world, &["-p", &hub]).await, ACCEPTING);
    world.stop().await;
}

/// A refusal is remembered for a moment.
async fn eventually_accepting(world: &World) {
    let begun = Instant::now();
    while probed(world).await != ACCEPTING {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn it_is_rejecting_while_the_tunnel_is_interrupted() {
    for password in [false, true] {
        let world = world(password, "").await;
        // A session is resumed for the sake of its connections.
        let mut held = world.psql_command(&["-c", "select pg_sleep(600)"]);
        held.env("PGPASSWORD", PASSWORD).stdout(Stdio::null());
        let mut held = held.stderr(Stdio::null()).spawn().expect("psql");
        let sleeps = "select exists (select from pg_stat_activity where wait_event = 'PgSleep' \
                      and usename = 'db_user')";
        world.wait_sql(sleeps).await;
        // No way to AWS any more: nothing there answers.
        let api = world.sandbox.api();
        for operation in ["ResumeSession", "StartSession"] {
            api.fail(operation, ApiFault::NoAnswer, ALWAYS);
        }
        let sessions = world.sandbox.open_sessions();
        assert!(world.sandbox.cut_client(&sessions[0]));
        eventually("the program has noticed", || {
            let log = world.proxy.log_text();
            log.contains("connection to the SSM service lost; resuming the session")
                .then_some(())
        })
        .await;
        assert_eq!(probed(&world).await, REJECTING);
        assert_eq!(told(&world, 0).await["sqlstate"], "57P03");
        let mut command = world.psql_command(&["-c", "select 1"]);
        let ran = run({
            command.env("PGPASSWORD", PASSWORD);
            command
        })
        .await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let said = "the tunnel was lost, and pgiam is reconnecting";
        assert_eq!(ran.stderr.matches(said).count(), 1, "{ran:?}");
        assert!(ran.stderr.contains("has waited for 4 s"), "{ran:?}");
        let line = told(&world, 1).await;
        assert_eq!(
            (&line["id"], &line["sqlstate"]),
            (&"tunnel.interrupted".into(), &"57P03".into())
        );
        api.recover();
        held.kill().await.expect("psql ends");
        world.stop().await;
    }
}

/// Shuts the server down as a kind administrator does; an open session keeps it from the end.
async fn shut_down(world: &World) {
    // A smart shutdown waits for the open session, and lets nobody in meanwhile.
    let pid = world.database.postgres().pid().expect("the server runs");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("it runs");
    eventually("the server is shutting down", || {
        let log = world.database.postgres().log_tail();
        log.contains("received smart shutdown request")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_databases_own_not_now_is_passed_on() {
    let world = world(false, "").await;
    let mut admin = Shell::admin(&world);
    admin.backend().await;
    assert_eq!(probed(&world).await, ACCEPTING);
    shut_down(&world).await;
    assert_eq!(probed(&world).await, REJECTING);
    let ran = world.psql(&["-c", "select 1"]).await;
    assert!(
        ran.stderr.contains("the database system is shutting down"),
        "{ran:?}"
    );
    for nth in 0..2 {
        let line = eventually("it is logged", || refusals(&world).into_iter().nth(nth)).await;
        assert_eq!(line["sqlstate"], "57P03", "{line}");
    }
    drop(admin);
    world.stop().await;
}
