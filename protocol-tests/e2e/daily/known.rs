//! Commands that know the running pgiam: `pgiam url` and `pgiam check`.

use serde_json::Value;

use super::{Lab, command, write};
use crate::support::{HOST, Ran, World, ordinary_config, run};

async fn pgiam(world: &World, args: &[&str]) -> Ran {
    run(command(&world.sandbox, args)).await
}

#[tokio::test]
async fn url_has_the_port_of_the_running_server() {
    let world = World::start().await;
    let (port, pid) = (world.proxy.port(), world.proxy.pid().expect("it runs"));
    let expected = format!("postgresql://db_user@localhost:{port}/app\n");
    let ran = pgiam(&world, &["url", "orders"]).await;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        (expected.as_str(), "")
    );
    let all = pgiam(&world, &["url", "--json"]).await;
    let all: Value = serde_json::from_str(all.rows()).expect("JSON");
    assert_eq!(
        (all["pid"].as_u64(), all["port"].as_u64()),
        (Some(pid.into()), Some(port.into()))
    );
    let socket = all["socket"].as_str().expect("a socket");
    assert!(socket.ends_with(&format!("/.s.PGSQL.{port}")), "{socket}");
    // Another database of this name is not served.
    let other = pgiam(
        &world,
        &["url", "orders", "--host", HOST, "--profile", "prod"],
    )
    .await;
    assert_eq!(
        (other.code, other.stdout.as_str()),
        (Some(1), ""),
        "{other:?}"
    );
    // A given port is the caller's business.
    let given = pgiam(&world, &["url", "orders", "--port", "6000"]).await;
    assert_eq!(given.stdout, "postgresql://db_user@localhost:6000/app\n");
    assert_eq!(given.stderr, "");
    // The server's own knowledge is enough.
    std::fs::remove_file(world.sandbox.dir().join("pgiam.toml")).expect("the file");
    for args in [&["url"][..], &["url", "orders"]] {
        assert_eq!(pgiam(&world, args).await.stdout, expected, "{args:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn url_says_that_no_server_runs() {
    let lab = Lab::open().await;
    let ran = run(command(&lab.sandbox, &["url", "orders"])).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "pgiam: target \"orders\" uses a new free port at each start (port = 0), and no running pgiam serves it\nhint: start it, then repeat this command:\n  pgiam serve orders\n"
    );
    let file = lab.sandbox.dir().join("pgiam.toml");
    write(&file, &ordinary_config().replace("port = 0", "port = 5433"));
    let ran = run(command(&lab.sandbox, &["url", "orders", "--format", "dsn"])).await;
    assert_eq!(
        ran.stdout,
        "host=localhost port=5433 user=db_user dbname=app sslmode=disable\n"
    );
    assert_eq!(
        ran.stderr,
        "note: no running pgiam serves orders; start it:\n  pgiam serve orders\n"
    );
    lab.close().await;
}

#[tokio::test]
async fn check_reports_the_running_server() {
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let args = ["check", "orders", "--no-speed", "--json"];
    let step = async || {
        let ran = pgiam(&world, &args).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        all["steps"][0].clone()
    };
    let (port, pid) = (world.proxy.port(), world.proxy.pid().expect("it runs"));
    let found = step().await;
    assert_eq!(found["name"], "running");
    assert_eq!(found["result"], "ok", "{found}");
    assert_eq!(found["said"], format!("process {pid}, port {port}: ready"));
    assert_eq!(
        (found["pid"].as_u64(), found["port"].as_u64()),
        (Some(pid.into()), Some(port.into()))
    );
    // A server that cannot connect is a warning; the check has a connection of its own.
    let mut elsewhere = command(&world.sandbox, &args);
    elsewhere.env("PGIAM_PROFILE", "default");
    let ran = run(elsewhere).await;
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(all["steps"][0]["result"], "warning", "{all}");
    world.stop().await;
}
