//! What passes by itself does not end the program, and it recovers by itself.

use protocol_tests::aws::api::ApiFault;

use crate::daily::command;
use crate::failures::aws::{no_keys, write_keys};
use crate::support::{HOST, PATIENCE, Ran, Setup, World, behind, launch, ordinary_config, run};

const AGAIN: &str = "; retrying";

/// One target by its identifier, without credentials.
fn without_credentials(config: &str) -> Setup {
    Setup {
        config: Some(config.to_owned()),
        env: no_keys(),
        ..Setup::default()
    }
}

fn by_identifier() -> String {
    ordinary_config().replace(&format!("host = \"{HOST}\""), "db = \"orders\"")
}

impl World {
    async fn pgiam(&self, args: &[&str]) -> Ran {
        run(command(&self.sandbox, args)).await
    }
}

/// A client gets in; then everything ends.
async fn is_served(world: World) {
    assert_eq!(world.query("select 'in'").await, "in");
    world.stop().await;
}

#[tokio::test]
async fn the_only_target_without_credentials_is_served_and_recovers() {
    for config in [by_identifier(), ordinary_config()] {
        let mut world = World::with(without_credentials(&config)).await;
        let line = world.proxy.ready_line().to_owned();
        assert!(
            line.starts_with("not ready  orders  psql -h localhost -p "),
            "{line}"
        );
        assert!(
            line.ends_with(&format!("[aws.no-credentials]{AGAIN}")),
            "{line}"
        );
        let waited = world.pgiam(&["wait", "--timeout", "0"]).await;
        assert_eq!(waited.code, Some(3), "{waited:?}");
        assert!(waited.stderr.contains("[aws.no-credentials]"), "{waited:?}");
        let refused = world.psql(&["-c", "select 1"]).await;
        assert!(
            refused.stderr.contains("[aws.no-credentials]"),
            "{refused:?}"
        );
        // Somebody logs in at AWS; nobody comes to pgiam.
        write_keys(&world, world.sandbox.user());
        world.proxy.wait_ready(PATIENCE).await.expect("it says so");
        let line = world.proxy.ready_line();
        assert!(
            line.starts_with("ready  orders  psql -h localhost -p "),
            "{line}"
        );
        let waited = world.pgiam(&["wait", "--timeout", "0"]).await;
        assert_eq!(waited.code, Some(0), "{waited:?}");
        is_served(world).await;
    }
}

#[tokio::test]
async fn throttling_at_the_start_passes() {
    let setup = Setup {
        config: Some(by_identifier()),
        ..Setup::default()
    };
    let (sandbox, database) = behind(&setup).await;
    for action in ["DescribeDBClusters", "DescribeDBInstances"] {
        sandbox.api().fail(action, ApiFault::Throttled, 40);
    }
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("it listens");
    let line = proxy.ready_line().to_owned();
    assert!(line.starts_with("not ready  orders  "), "{line}");
    sandbox.api().recover();
    proxy.wait_ready(PATIENCE).await.expect("it is found");
    assert!(proxy.ready_line().starts_with("ready  orders  "));
    let world = World {
        proxy,
        database,
        sandbox,
    };
    is_served(world).await;
}

#[tokio::test]
async fn a_warm_up_that_fails_is_a_warning_and_no_readiness() {
    let setup = Setup {
        config: Some(ordinary_config() + "warm = true\n"),
        ..Setup::default()
    };
    let (sandbox, database) = behind(&setup).await;
    let denied = ApiFault::Refused {
        status: 400,
        code: "AccessDeniedException",
        message: "not authorized to perform: ssm:StartSession",
    };
    // The first start may be over before it is looked at; then another one is.
    sandbox.api().fail("StartSession", denied, 2);
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("it listens");
    let line = proxy.ready_line().to_owned();
    assert!(line.starts_with("not ready  orders  "), "{line}");
    assert!(
        line.ends_with(&format!("[ssm.access-denied]{AGAIN}")),
        "{line}"
    );
    let log = proxy
        .wait_log("the target is not ready; retrying", PATIENCE)
        .await;
    let log = log.expect("a line");
    assert_eq!(
        (&log["level"], &log["id"]),
        (&"WARN".into(), &"ssm.access-denied".into())
    );
    proxy.wait_ready(PATIENCE).await.expect("it is tried again");
    assert!(proxy.ready_line().starts_with("ready  orders  "));
    let world = World {
        proxy,
        database,
        sandbox,
    };
    is_served(world).await;
}

#[tokio::test]
async fn a_connection_test_at_the_start_names_what_fails() {
    let config = format!(
        "{}[targets.wrong]\nhost = \"{HOST}\"\nuser = \"scram_only\"\nport = 0\nbastion = \"i-0123456789abcdef0\"\n",
        ordinary_config()
    );
    let setup = |targets: &[&str]| Setup {
        config: Some(config.clone()),
        args: targets
            .iter()
            .chain(&["--test"])
            .map(ToString::to_string)
            .collect(),
        ..Setup::default()
    };
    let world = World::with(setup(&["orders"])).await;
    assert!(world.proxy.ready_line().starts_with("ready  orders  "));
    let passed = world
        .proxy
        .wait_log("connection test passed", PATIENCE)
        .await;
    assert_eq!(passed.expect("a line")["name"], "orders");
    let mut second = launch(&world.sandbox, &setup(&[]));
    let ended = second
        .wait_ready(PATIENCE)
        .await
        .expect_err("it must not serve");
    let ended = ended.to_string();
    assert!(ended.contains("exit status: 4"), "{ended}");
    assert!(
        ended.contains("1 of 2 targets failed the connection test\nwrong: "),
        "{ended}"
    );
    assert!(ended.contains("[database.no-rds-iam]"), "{ended}");
    world.stop().await;
}
