//! `pgiam status`.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use super::{ask, command, status, until, world};
use crate::shell::Shell;
use crate::support::{BASTION, HOST, PATIENCE, PORT};

#[tokio::test]
async fn an_open_connection_is_shown_with_its_client() {
    let world = world().await;
    let mut psql = Shell::open(&world, "application_name=reporting");
    psql.backend().await;
    assert_eq!(psql.ask("select length(repeat('x', 5));").await, "5");
    psql.say("select repeat('x', 50000);").await;
    assert_eq!(psql.hear().await.len(), 50_000);
    let process = status(&world).await;
    assert_eq!(
        (&process["kind"], &process["state"]),
        (&"serve".into(), &"serving".into())
    );
    assert_eq!(
        (&process["open_connections"], &process["max_connections"]),
        (&1.into(), &400.into())
    );
    let config = process["config"].as_str().expect("a file");
    assert!(config.ends_with("pgiam.toml"), "{config}");
    let target = &process["targets"][0];
    assert_eq!(target["port"], world.proxy.port());
    assert_eq!(target["endpoint"], format!("{HOST}:{PORT}"));
    assert_eq!(
        (&target["via"], &target["bastion"]),
        (&"ssm".into(), &BASTION.into())
    );
    assert_eq!(target["state"], "ready");
    let client = &target["connections"][0];
    for (key, expected) in [
        ("program", "reporting"),
        ("user", "db_user"),
        ("database", "app"),
        ("state", "open"),
    ] {
        assert_eq!(client[key], expected, "{key}");
    }
    let down = client["bytes_down"].as_u64().expect("a number");
    assert!((50_000..60_000).contains(&down), "{down}");
    let session = &target["sessions"][0];
    assert_eq!(
        (&session["bastion"], &session["state"]),
        (&BASTION.into(), &"up".into())
    );
    assert_eq!(session["streams"], 1);

    let ran = ask(&world, &["status"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in [
        "TARGET",
        "SESSION",
        "PROGRAM",
        "reporting",
        "db_user",
        BASTION,
    ] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\x1b'), "no colours in a pipe");
    drop(psql);
    until(&world, "the connection is gone", |target| {
        target["connections"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_login_that_the_database_refuses_is_the_last_error() {
    let world = world().await;
    let ran = world
        .psql(&["-U", "nobody_of_that_name", "-c", "select 1"])
        .await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let process = status(&world).await;
    let target = &process["targets"][0];
    assert_eq!(target["last_error"]["id"], "database.no-rds-iam");
    assert_eq!(target["ready"], true, "others can log in");
    let ran = ask(&world, &["status"]).await;
    assert!(ran.stdout.contains("database.no-rds-iam"), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn watching_in_a_pipe_says_it_again_and_again() {
    let world = world().await;
    let mut watching = command(&world, &["status", "--watch"]);
    let mut watching = watching
        .stdout(Stdio::piped())
        .spawn()
        .expect("pgiam starts");
    let output = watching.stdout.take().expect("its output");
    let mut lines = BufReader::new(output).lines();
    let mut blocks = 0;
    while blocks < 2 {
        let line = timeout(PATIENCE, lines.next_line()).await;
        let line = line.expect("in time").expect("its output").expect("a line");
        assert!(!line.contains('\x1b'), "{line:?}");
        blocks += usize::from(line.starts_with("TARGET"));
    }
    // A reader that has had enough ends it.
    drop(lines);
    let ended = timeout(PATIENCE, watching.wait()).await;
    let ended = ended.expect("in time").expect("pgiam");
    assert_eq!(ended.code(), Some(0));
    world.stop().await;
}
