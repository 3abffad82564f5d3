//! The named pipe of a Windows program, and the owners of its clients.

use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

use super::folder;
use crate::running::{ask, command};
use crate::shell::Shell;
use crate::support::{PATIENCE, Setup, World, launch, run};

/// What `pgiam status --json` says about the one program of this world.
async fn status(world: &World) -> Value {
    let ran = ask(world, &["status", "--json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut all: Vec<Value> = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// The files by which the programs of this world are found.
fn files(world: &World) -> Vec<PathBuf> {
    let dir = world.sandbox.dir().join("state").join("run");
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "pipe"))
        .collect()
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn a_server_is_found_waited_for_and_stopped() {
    assert!(folder().is_dir());
    let mut world = World::with(Setup {
        args: ["--drain-timeout", "600"].map(str::to_owned).to_vec(),
        ..Setup::default()
    })
    .await;
    assert_eq!(ask(&world, &["wait", "orders"]).await.code, Some(0));
    let process = status(&world).await;
    assert_eq!(process["targets"][0]["port"], world.proxy.port());
    let pid = process["pid"].to_string();
    let shown = ask(&world, &["status"]).await;
    assert!(shown.stdout.contains("pgiam serve"), "{shown:?}");
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let mut stopping = command(&world, &["stop", "--pid", &pid, "--timeout", "60"]);
    let stopping = tokio::spawn(async move { stopping.output().await });
    let draining = world
        .proxy
        .wait_log("waiting for open connections", PATIENCE);
    draining.await.expect("it drains");
    assert_eq!(status(&world).await["state"], "draining");
    assert_eq!(psql.ask("select 'in peace';").await, "in peace");
    drop(psql);
    let stopped = stopping.await.expect("a task").expect("pgiam starts");
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let said = String::from_utf8_lossy(&stopped.stdout).replace('\r', "");
    assert_eq!(said, format!("stopped {pid}\n"));
    let ended = world.proxy.wait_end(PATIENCE).await.expect("it ends");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(files(&world), Vec::<PathBuf>::new());
    assert_eq!(ask(&world, &["status"]).await.code, Some(3));
    world.stop().await;
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn a_killed_program_is_passed_over_and_its_file_removed_by_the_next() {
    assert!(folder().is_dir());
    let mut world = World::start().await;
    let left = files(&world);
    assert_eq!(left.len(), 1, "{left:?}");
    world.proxy.signal(Signal::SIGKILL).expect("pgiam runs");
    world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    assert_eq!(files(&world), left);
    assert_eq!(ask(&world, &["status"]).await.code, Some(3));
    let mut second = launch(&world.sandbox, &Setup::default());
    second.wait_ready(PATIENCE).await.expect("it starts");
    assert_eq!(files(&world).len(), 1);
    assert_ne!(files(&world), left);
    status(&world).await;
    second.stop().await.expect("pgiam ends");
    world.stop().await;
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn a_second_server_names_the_first_that_uses_its_port() {
    assert!(folder().is_dir());
    let world = World::start().await;
    let (port, pid) = (world.proxy.port(), status(&world).await["pid"].take());
    let second = serve_at(&world, port);
    let ran = run(second).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = format!("the port is in use by pgiam serve, process {pid} (orders)");
    assert!(ran.stderr.contains(&said), "{ran:?}");
    let stop = format!("pgiam stop --pid {pid}");
    assert!(ran.stderr.contains(&stop), "{ran:?}");
    world.stop().await;
}

/// Another `pgiam serve` with the same configuration and state.
fn serve_at(world: &World, port: u16) -> Command {
    crate::daily::command(&world.sandbox, &["serve", "--port", &port.to_string()])
}

/// The status needs a known owner if database clients need a password. Wine knows the owners of
/// Windows programs only.
#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn a_windows_client_is_known_and_another_one_is_not() {
    let world = World::with(Setup {
        args: ["--http-port", "0"].map(str::to_owned).to_vec(),
        env: vec![("PGIAM_LOCAL_PASSWORD", Some("secret".to_owned()))],
        ..Setup::default()
    })
    .await;
    let http = status(&world).await["http"].take();
    let http = http.as_str().expect("an address").to_owned();
    let port = http.rsplit_once(':').expect("a port").1;
    let mut client = Command::new("wine");
    client
        .arg(folder().join("http.exe"))
        .args([port, "/status"])
        .env("WINEPREFIX", folder().join("prefix"))
        .env("WINEDEBUG", "-all")
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let known = client.output().await.expect("Wine");
    let known = String::from_utf8_lossy(&known.stdout);
    assert!(known.starts_with("HTTP/1.1 200"), "{known}");
    let address = http.parse().expect("an address");
    let unknown = crate::running::request(address, "GET", "/status").await;
    assert_eq!(unknown.status, 403, "{unknown:?}");
    world.stop().await;
}
