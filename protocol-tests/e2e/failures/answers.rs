//! What answers in AWS's place, or does not come to an end.

use protocol_tests::aws::api::ApiFault;

use super::Record;
use crate::support::{Setup, World, ordinary_config};

/// What may be on its way beside what pgiam has read: buffers of sockets, of TLS, of HTTP.
const BUFFERS: usize = 16 << 20;
const MIB: usize = 1 << 20;

#[tokio::test]
async fn answers_of_session_manager_that_are_none() {
    let mut record = Record::new("answers-of-session-manager");
    let world = World::start().await;
    let api = world.sandbox.api();
    for (title, fault) in [
        ("a page of something else", ApiFault::Nonsense),
        ("an answer without end", ApiFault::Flood),
    ] {
        api.fail("StartSession", fault, 100);
        record.refused(&world, title, &[]).await;
        api.recover();
    }
    let flooded = api.flooded();
    assert!(
        (MIB..MIB + BUFFERS).contains(&flooded),
        "{flooded} bytes were read"
    );
    api.fail("StartSession", ApiFault::Drip, 100);
    record
        .refused(&world, "an answer of a byte now and then", &[])
        .await;
    api.recover();
    let port = world.sandbox.port().to_string();
    record.text = record.text.replace(&port, "PORT");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn answers_about_databases_and_nodes_that_are_none() {
    let mut record = Record::new("answers-about-databases");
    let config = ordinary_config();
    let (_, rest) = config.split_once("user").expect("a user");
    let config = format!("[targets.orders]\ndb = \"orders\"\nuser{rest}");
    for (title, fault) in [
        ("a page of something else from RDS", ApiFault::Nonsense),
        ("a list without end from RDS", ApiFault::Flood),
        ("RDS throttles", ApiFault::Throttled),
    ] {
        let world = World::with(Setup {
            config: Some(format!("{config}connect_timeout = 25\n")),
            ..Setup::default()
        })
        .await;
        // The start has found it; a changed file has it looked up anew.
        let api = world.sandbox.api();
        for call in [
            "DescribeDBClusters",
            "DescribeDBInstances",
            "DescribeDBProxies",
        ] {
            api.fail(call, fault, 1000);
        }
        let ran = list(&world).await;
        record.add(title, &ran);
        let flooded = api.flooded();
        assert!(
            flooded < 3 * (16 * MIB + BUFFERS),
            "{flooded} bytes were read"
        );
        assert_eq!(flooded > 0, fault == ApiFault::Flood);
        record.leave(world).await;
    }
    record.compare();
}

/// What `pgiam list` says when it fails.
async fn list(world: &World) -> String {
    let mut command = tokio::process::Command::new(crate::support::pgiam());
    command
        .arg("list")
        .envs(world.sandbox.env())
        .env("NO_PROXY", "localhost,127.0.0.1")
        .env("PGIAM_STATE_DIR", world.sandbox.dir().join("state"))
        .current_dir(world.sandbox.dir())
        .stdin(std::process::Stdio::null());
    let ran = crate::support::run(command).await;
    let port = world.sandbox.port().to_string();
    let said = format!("{}{}", ran.stdout, ran.stderr).replace(&port, "PORT");
    format!("$ pgiam list\n{said}(exit code {:?})", ran.code)
}
