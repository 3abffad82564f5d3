//! The Unix socket.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::signal::Signal;
use protocol_tests::harness::ports::free_port;

use super::world_with;
use crate::support::{PATIENCE, Ran, Setup, World, launch, ordinary_config};

/// What psql says over the socket in `dir`.
async fn over(world: &World, dir: &Path) -> Ran {
    let dir = dir.to_str().expect("a path in UTF-8");
    world.psql(&["-h", dir, "-A", "-t", "-c", "select 1"]).await
}

fn mode(path: &Path) -> u32 {
    let found = std::fs::symlink_metadata(path).expect("it is there");
    found.permissions().mode() & 0o7777
}

#[tokio::test]
async fn psql_finds_it_by_its_directory_and_nothing_stays() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("sockets");
    let world = world_with(&["--socket-dir", &dir.display().to_string()]).await;
    let socket = dir.join(format!(".s.PGSQL.{}", world.proxy.port()));
    assert_eq!((mode(&dir), mode(&socket)), (0o700, 0o600));
    assert_eq!(over(&world, &dir).await.rows(), "1");
    // As with the server there is no TLS over it, and who insists on it is refused by libpq.
    let conninfo = format!("host={} sslmode=require", dir.display());
    let ran = world.psql(&["-d", &conninfo, "-c", "select 1"]).await;
    assert!(ran.rows().contains("1 row"), "{ran:?}");
    world.stop().await;
    let left: Vec<_> = std::fs::read_dir(&dir).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn by_default_it_is_in_the_runtime_directory_and_none_is_none() {
    let runtime = tempfile::tempdir().expect("a directory");
    let dir = runtime.path().join("pgiam");
    let setup = |args: &[&str]| Setup {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![(
            "XDG_RUNTIME_DIR",
            Some(runtime.path().display().to_string()),
        )],
        ..Setup::default()
    };
    let world = World::with(setup(&["--socket-dir", "none"])).await;
    assert_eq!(world.query("select 1").await, "1");
    // What shows and controls the program has a socket of its own there, and clients have none.
    let names = std::fs::read_dir(&dir).expect("the directory");
    let mut names = names.map(|entry| entry.expect("an entry").file_name());
    assert!(names.all(|name| !name.to_string_lossy().contains("PGSQL")));
    world.stop().await;
    let world = World::with(setup(&[])).await;
    assert_eq!(over(&world, &dir).await.rows(), "1");
    world.stop().await;
}

#[tokio::test]
async fn a_dead_programs_is_replaced_and_a_living_ones_is_not() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("sockets");
    let port = free_port();
    let setup = |address: &str| Setup {
        config: Some(ordinary_config().replace("port = 0", &format!("port = {port}"))),
        args: ["--address", address, "--socket-dir"]
            .map(str::to_owned)
            .into_iter()
            .chain([dir.display().to_string()])
            .collect(),
        ..Setup::default()
    };
    let mut world = World::with(setup("127.0.0.1")).await;
    let socket = dir.join(format!(".s.PGSQL.{port}"));
    world.proxy.signal(Signal::SIGKILL).expect("it runs");
    let end = world.proxy.wait_end(PATIENCE).await;
    end.expect("it is dead");
    let left = std::fs::symlink_metadata(&socket).expect("what it left");
    assert!(left.file_type().is_socket());

    world.proxy = launch(&world.sandbox, &setup("127.0.0.1"));
    let ready = world.proxy.wait_ready(PATIENCE).await;
    ready.expect("the dead one's socket is no obstacle");
    assert_eq!(over(&world, &dir).await.rows(), "1");

    // Another one that would have the same name, by another address.
    let mut second = launch(&world.sandbox, &setup("127.0.0.2"));
    let refused = second.wait_ready(PATIENCE).await;
    let refused = refused.expect_err("there is one already").to_string();
    let pid = world.proxy.pid().expect("it runs");
    assert!(refused.contains("exit status: 1"), "{refused}");
    let named = format!("{} is in use by process {pid}", socket.display());
    assert!(refused.contains(&named), "{refused}");
    assert_eq!(over(&world, &dir).await.rows(), "1");
    assert_eq!(world.query("select 1").await, "1");
    // The session that the killed program could not end is AWS's to end.
    for id in world.sandbox.open_sessions() {
        let of_the_living = world.sandbox.cut_client(&id);
        assert!(of_the_living || world.sandbox.terminate_session(&id));
    }
    world.stop().await;
}
