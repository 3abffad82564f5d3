//! The port of all targets.

use protocol_tests::harness::ports::free_port;

use super::told;
use crate::support::{HOST, PATIENCE, Ran, Setup, World, launch, ordinary_config};

const WHO: &str = "select current_user, current_database()";

async fn world_with_hub(config: &str, hub: u16) -> World {
    World::with(Setup {
        config: Some(config.to_owned()),
        args: vec!["--hub-port".into(), hub.to_string()],
        ..Setup::default()
    })
    .await
}

async fn at(world: &World, port: u16, database: &str) -> Ran {
    let port = port.to_string();
    let args = ["-p", &port, "-d", database, "-A", "-t", "-c", WHO];
    world.psql(&args).await
}

#[tokio::test]
async fn the_database_name_picks_the_target() {
    let orders = ordinary_config();
    let stock = orders
        .replace("targets.orders", "targets.stock")
        .replace("\"app\"", "\"postgres\"");
    for (config, others) in [(orders.clone(), ""), (orders + &stock, ", stock (")] {
        let hub = free_port();
        let world = world_with_hub(&config, hub).await;
        for (database, answer) in [
            ("orders", "db_user|app"),
            ("orders/app", "db_user|app"),
            ("orders/postgres", "db_user|postgres"),
        ] {
            assert_eq!(at(&world, hub, database).await.rows(), answer);
        }
        // Here it is only a database, as it is on a target's own port.
        for (nth, database) in ["app", "nosuch", "nosuch/app"].into_iter().enumerate() {
            let ran = at(&world, hub, database).await;
            assert_eq!(ran.code, Some(2), "{ran:?}");
            let asked = database.split('/').next().expect("a name");
            let said = format!("FATAL:  there is no target \"{asked}\" on this port");
            assert!(ran.stderr.contains(&said), "{ran:?}");
            let hint = format!("Targets on this port: orders ({HOST}:5432){others}");
            assert!(ran.stderr.contains(&hint), "{ran:?}");
            assert_eq!(told(&world, nth).await["sqlstate"], "3D000");
        }
        let own = at(&world, world.proxy.port(), "app").await;
        assert_eq!(own.rows(), "db_user|app");
        if !others.is_empty() {
            let ran = at(&world, hub, "stock").await;
            assert_eq!(ran.rows(), "db_user|postgres");
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn it_is_no_targets_port() {
    let world = World::start().await;
    let port = free_port();
    let setup = Setup {
        config: Some(ordinary_config().replace("port = 0", &format!("port = {port}"))),
        args: vec!["--hub-port".into(), port.to_string()],
        ..Setup::default()
    };
    let mut second = launch(&world.sandbox, &setup);
    let refused = second.wait_ready(PATIENCE).await;
    let said = refused.expect_err("it must not start").to_string();
    assert!(said.contains("exit status: 2"), "{said}");
    let reason = format!("hub_port = {port} is also the port of target \"orders\"");
    assert!(said.contains(&reason), "{said}");
    assert!(
        said.contains("hint: choose another port for one of them"),
        "{said}"
    );
    world.stop().await;
}
