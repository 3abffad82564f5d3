//! How many connections there may be.

use std::time::{Duration, Instant};

use protocol_tests::harness::ports::free_port;

use super::{DB_USER, Wire, reached, startup, told, world_with};
use crate::failures::refusals;
use crate::load::descriptors;
use crate::shell::{Shell, running};
use crate::support::{Setup, World, eventually, ordinary_config};

/// A login is refused for this reason, and the database hears nothing of it.
async fn refused(world: &World, port: u16, id: &str, said: &str) {
    let (known, before) = (refusals(world).len(), reached(world));
    let port = port.to_string();
    let ran = world.psql(&["-p", &port, "-c", "select 1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.stderr.matches(said).count(), 1, "{ran:?}");
    let line = told(world, known).await;
    assert_eq!(
        (&line["id"], &line["sqlstate"]),
        (&id.into(), &"53300".into())
    );
    assert_eq!(reached(world), before);
}

/// A login works as soon as a place is free.
async fn soon_served(world: &World) {
    let begun = Instant::now();
    loop {
        let ran = world.psql(&["-A", "-t", "-c", "select 'next'"]).await;
        if ran.code == Some(0) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{ran:?}");
    }
}

#[tokio::test]
async fn the_programs_limit_leaves_cancelling_alone() {
    let world = world_with(&["--max-connections", "2"]).await;
    let port = world.proxy.port();
    let mut first = Shell::open(&world, "");
    let mut second = Shell::open(&world, "");
    first.backend().await;
    let pid = second.backend().await;
    refused(&world, port, "limit.connections", "too many clients").await;

    second.say("select pg_sleep(600);").await;
    world.wait_sql(&running(pid, "pg_sleep")).await;
    second.press_ctrl_c();
    let ran = second.end().await;
    assert!(ran.stderr.contains("57014"), "{ran:?}");
    soon_served(&world).await;
    assert_eq!(first.ask("select 'alive';").await, "alive");
    drop(first);
    world.stop().await;
}

#[tokio::test]
async fn a_targets_limit_is_its_own() {
    let orders = ordinary_config() + "connection_limit = 1\n";
    let stock_port = free_port();
    let stock = ordinary_config()
        .replace("targets.orders", "targets.stock")
        .replace("port = 0", &format!("port = {stock_port}"));
    let hub = free_port();
    let world = World::with(Setup {
        config: Some(orders + &stock),
        args: vec!["--hub-port".into(), hub.to_string()],
        ..Setup::default()
    })
    .await;
    let mut only = Shell::open(&world, &format!("port={hub} dbname=orders/app"));
    only.backend().await;
    let mut other = Shell::open_port(&world, stock_port);
    other.backend().await;
    refused(
        &world,
        world.proxy.port(),
        "limit.target",
        "target \"orders\": too many",
    )
    .await;
    drop((only, other));
    soon_served(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn silent_clients_are_closed_and_keep_nobody_out() {
    let world = world_with(&["--startup-timeout", "2"]).await;
    assert_eq!(world.query("select 1").await, "1");
    let before = eventually("the first session's end", || {
        let log = world.proxy.log_text();
        log.contains("connection ended")
            .then(|| descriptors(&world))
    })
    .await;
    let mut silent = Vec::new();
    for nth in 0..200 {
        let mut wire = Wire::connect(&world).await;
        if nth % 2 == 0 {
            wire.send(&startup(0, DB_USER)[..9]).await;
        }
        silent.push(wire);
    }
    // More than are let in at a time, so this one waits for the first of them to be closed.
    assert_eq!(world.query("select 'in'").await, "in");
    for mut wire in silent {
        wire.rest().await;
    }
    eventually("as many are logged as fill no log", || {
        let log = refusals(&world);
        let silent = log.iter().filter(|line| line["id"] == "client.silent");
        (silent.count() >= 64).then_some(())
    })
    .await;
    eventually("all descriptors are back", || {
        (descriptors(&world) <= before).then_some(())
    })
    .await;
    world.stop().await;
}

/// Each of them listens on two addresses and a socket: more places to listen at than clients that
/// may begin at a time.
#[tokio::test]
async fn a_file_full_of_targets_is_served_to_the_last() {
    let one = ordinary_config();
    let many: Vec<String> = (0..50)
        .map(|nth| one.replace("targets.orders", &format!("targets.orders{nth}")))
        .collect();
    let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
    let many: String = many
        .iter()
        .zip(&ports)
        .map(|(target, port)| target.replace("port = 0", &format!("port = {port}")))
        .collect();
    let world = World::with(Setup {
        config: Some(many),
        args: vec!["--startup-timeout".into(), "5".into()],
        ..Setup::default()
    })
    .await;
    // Answered by the program itself, without a login.
    for port in ports {
        let mut wire = Wire::connect_to(([127, 0, 0, 1], port).into()).await;
        wire.send(super::SSL_REQUEST).await;
        assert_eq!(wire.byte().await, b'S');
    }
    world.stop().await;
}
