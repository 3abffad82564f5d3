//! `pgiam wait` and `pgiam stop`, and the socket that they and `pgiam status` use.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use protocol_tests::harness::program::psql;

use super::{ask, command, get, http, post, request, socket, status, world, world_with};
use crate::local::peer::{by_nobody, two_users};
use crate::shell::Shell;
use crate::support::{PATIENCE, Setup, World, launch, ordinary_config, run};

#[tokio::test]
async fn waiting_ends_when_the_program_is_ready() {
    let mut world = world().await;
    // Another program in the same place, started while somebody waits for it.
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    let mut waiting = command(&world, &["wait", "orders", "--timeout", "60"]);
    let waiting = tokio::spawn(async move { waiting.output().await });
    let mut second = launch(&world.sandbox, &Setup::default());
    let waited = waiting.await.expect("a task").expect("pgiam starts");
    assert_eq!(waited.status.code(), Some(0), "{waited:?}");
    assert!(
        waited.stdout.is_empty() && waited.stderr.is_empty(),
        "{waited:?}"
    );
    second.wait_ready(PATIENCE).await.expect("it is");
    second.stop().await.expect("pgiam ends");
    world.stop().await;
}

#[tokio::test]
async fn waiting_for_what_does_not_come_says_so() {
    let world = world().await;
    assert_eq!(ask(&world, &["wait", "--timeout", "0"]).await.code, Some(0));
    let ran = ask(&world, &["wait", "other", "--timeout", "0"]).await;
    assert_eq!(ran.code, Some(3));
    let said = "pgiam: not ready after 0 s: no pgiam process serves target \"other\"\n";
    assert_eq!(ran.stderr, said);
    world.stop().await;
}

#[tokio::test]
async fn stopping_waits_until_the_program_has_drained() {
    let mut world = world_with(&["--drain-timeout", "600"]).await;
    let pid = world.proxy.pid().expect("pgiam runs").to_string();
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let address = http(&world).await;
    let own = socket(&world);
    let mut stopping = command(&world, &["stop", "--pid", &pid, "--timeout", "60"]);
    let stopping = tokio::spawn(async move { stopping.output().await });
    let draining = world
        .proxy
        .wait_log("waiting for open connections", PATIENCE)
        .await;
    draining.expect("it drains");
    assert_eq!(status(&world).await["state"], "draining");
    let answer = request(address, "GET", "/readiness").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.starts_with("not ready: pgiam is stopping\n"),
        "{answer:?}"
    );
    assert_eq!(request(address, "GET", "/startup").await.status, 200);
    assert!(!stopping.is_finished());
    assert_eq!(psql.ask("select 'in peace';").await, "in peace");
    drop(psql);
    let stopped = stopping.await.expect("a task").expect("pgiam starts");
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert_eq!(
        String::from_utf8_lossy(&stopped.stdout),
        format!("stopped {pid}\n")
    );
    let status = world.proxy.wait_end(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!own.exists());
    let ran = ask(&world, &["stop", "--pid", &pid]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn the_socket_of_a_killed_program_is_passed_over_and_removed_by_the_next() {
    let mut world = world().await;
    let pid = world.proxy.pid().expect("pgiam runs");
    let left = socket(&world);
    world.proxy.signal(Signal::SIGKILL).expect("pgiam runs");
    world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    assert!(left.exists());
    let ran = ask(&world, &["status", "--json"]).await;
    assert!(!ran.stdout.contains(&format!("\"pid\": {pid}")), "{ran:?}");
    let mut second = launch(&world.sandbox, &Setup::default());
    second.wait_ready(PATIENCE).await.expect("it starts");
    assert!(!left.exists());
    second.stop().await.expect("pgiam ends");
    world.stop().await;
}

#[tokio::test]
async fn a_reload_that_is_asked_for_shows_in_the_status() {
    let world = world().await;
    let more = format!(
        "{}\n[targets.reports]\nhost = \"reports.abc.eu-central-1.rds.amazonaws.com\"\nvia = \"direct\"\nport = 0\n",
        ordinary_config()
    );
    std::fs::write(world.sandbox.dir().join("pgiam.toml"), more).expect("pgiam.toml");
    assert_eq!(post(&world, "/reload").await.0, 202);
    let log = "reloading the configuration on request";
    world.proxy.wait_log(log, PATIENCE).await.expect("it does");
    let waited = ask(&world, &["wait", "reports", "--timeout", "60"]).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    let process = status(&world).await;
    let names = process["targets"].as_array().expect("targets").iter();
    let names: Vec<_> = names.map(|target| &target["name"]).collect();
    assert_eq!(names, ["orders", "reports"]);
    let metrics = request_metrics(&world).await;
    assert!(metrics.contains("pgiam_logins_total{target=\"reports\"} 0"));
    world.stop().await;
}

async fn request_metrics(world: &World) -> String {
    get(http(world).await, "/metrics").await.body
}

fn open_to_all(path: &Path) {
    let mode = Permissions::from_mode(0o777);
    std::fs::set_permissions(path, mode).expect("a mode");
}

#[tokio::test]
async fn somebody_else_is_not_answered() {
    if !two_users() {
        return;
    }
    let world = world().await;
    let own = socket(&world);
    // The directory keeps them out; and if it did not, the socket would.
    let run_dir = own.parent().expect("a directory");
    let mut dirs = run_dir.ancestors();
    for dir in dirs
        .by_ref()
        .take_while(|dir| dir.starts_with(world.sandbox.dir()))
    {
        open_to_all(dir);
    }
    open_to_all(&own);
    // psql is a program that connects to a socket, if that has the right name.
    symlink(&own, run_dir.join(".s.PGSQL.1")).expect("a link");
    let mut client = psql(&world.database.postgres().psql_program(), 1);
    client
        .arg("-h")
        .arg(run_dir)
        .args(["-U", "db_user", "-c", "select 1"]);
    let ran = run(by_nobody(&client)).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("closed the connection"), "{ran:?}");
    let line = world
        .proxy
        .wait_log(
            "refused a request of another user at the control socket",
            PATIENCE,
        )
        .await
        .expect("a line");
    assert_eq!(line["uid"], 65_534);
    status(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn a_tunnel_and_a_server_are_shown_side_by_side() {
    let world = World::start().await;
    let mut tunnel = command(
        &world,
        &[
            "tunnel",
            "mysql.internal:3306",
            "--bastion",
            "i-1",
            "--listen",
            "0",
            "--log",
            "error",
        ],
    );
    let mut tunnel = tunnel
        .current_dir(world.sandbox.dir())
        .envs(world.sandbox.env())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("pgiam starts");
    let waited = ask(&world, &["wait", "mysql.internal:3306", "--timeout", "60"]).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    let ran = ask(&world, &["status"]).await;
    for part in ["pgiam serve", "pgiam tunnel", "mysql.internal:3306"] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    // Without words it would end the servers of whoever runs the tests.
    let stopped = ask(&world, &["stop", "mysql.internal:3306"]).await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let ended = tokio::time::timeout(Duration::from_secs(10), tunnel.wait()).await;
    assert_eq!(
        ended.expect("it has ended").expect("a status").code(),
        Some(0)
    );
    world.stop().await;
}
