//! Replication: with a password it passes, with IAM it is refused before anybody is asked.

use std::path::Path;

use super::*;

const HBA: &str = "hostssl all all 127.0.0.1/32 scram-sha-256\n\
                   hostssl replication all 127.0.0.1/32 scram-sha-256";

#[tokio::test]
async fn with_iam_nothing_is_dialled_for_it() {
    let world = World::start().await;
    for kind in ["database", "true"] {
        let conninfo = format!("replication={kind} dbname=app");
        let (said, log) = refused(&world, &["-d", &conninfo]).await;
        assert_eq!(log["id"], "target.replication", "{said}");
        assert_eq!(log["sqlstate"], "0A000");
        assert!(said.contains("auth = \"passthrough\""), "{said}");
    }
    assert_eq!(world.sandbox.events().all(), []);
    world.stop().await;
}

/// One of PostgreSQL's replication programs, through the proxy.
fn program(world: &World, name: &str, args: &[&str]) -> Command {
    let program = world.database.postgres().bindir().join(name);
    let mut command = protocol_tests::harness::program::psql(&program, world.proxy.port());
    // What `psql` has in front is for psql.
    let mut own = Command::new(&program);
    for (name, value) in command.as_std_mut().get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    let port = world.proxy.port();
    own.args([
        "-w",
        "-d",
        &format!("host=localhost port={port} user=repl dbname=app sslmode=disable"),
    ])
    .args(args)
    .env("PGPASSWORD", "copies all")
    .stdin(std::process::Stdio::null())
    .kill_on_drop(true);
    own
}

impl World {
    /// Where the log ends now; it grows beyond, because the programs end only when it has.
    async fn end_of_wal(&self) -> String {
        let end = self.admin("select pg_current_wal_insert_lsn()").await;
        self.admin("create table if not exists beyond (n int)")
            .await;
        self.admin("insert into beyond values (1)").await;
        end
    }
}

async fn done(command: Command) -> Ran {
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

#[tokio::test]
async fn with_a_password_changes_and_wal_come_through() {
    let world = World::with(Setup {
        config: Some(config(HOST, "auth = \"passthrough\"")),
        engine: Engine::Passwords { bindir: None },
        hba: Some(HBA.to_owned()),
        settings: vec![("wal_level", "logical")],
        ..Setup::default()
    })
    .await;
    let role = "create role repl login replication password 'copies all'";
    world.admin(role).await;

    let slot = ["--slot", "changes", "--create-slot", "-P", "test_decoding"];
    done(program(&world, "pg_recvlogical", &slot)).await;
    world
        .admin("create table t (n int); insert into t select generate_series(1, 3)")
        .await;
    let end = world.end_of_wal().await;
    let changes = program(
        &world,
        "pg_recvlogical",
        &[
            "--slot",
            "changes",
            "--start",
            "--no-loop",
            "-f",
            "-",
            "--endpos",
            &end,
        ],
    );
    let ran = done(changes).await;
    let rows: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| line.starts_with("table "))
        .collect();
    let expected = [1, 2, 3].map(|n| format!("table public.t: INSERT: n[integer]:{n}"));
    assert_eq!(rows, expected, "{ran:?}");

    // A whole segment, and a byte of the next one.
    world.admin("select pg_switch_wal()").await;
    world.admin("insert into t values (4)").await;
    let dir = world.sandbox.dir().join("wal");
    std::fs::create_dir(&dir).expect("a directory");
    let end = world.end_of_wal().await;
    let segment = world
        .admin(&format!("select pg_walfile_name('{end}')"))
        .await;
    let dir_text = dir.display().to_string();
    let wal = ["-D", &dir_text, "--no-loop", "--endpos", &end];
    done(program(&world, "pg_receivewal", &wal)).await;
    let received = holds(&dir, &segment);
    let data = world.admin("show data_directory").await;
    let kept = holds(&Path::new(&data).join("pg_wal"), &segment);
    let half = kept.len().min(received.len()).min(8192);
    assert!(half > 0 && received[..half] == kept[..half], "WAL differs");
    world.stop().await;
}

/// The contents of a WAL segment, finished or not.
fn holds(dir: &Path, segment: &str) -> Vec<u8> {
    let partial = dir.join(format!("{segment}.partial"));
    let whole = dir.join(segment);
    let path = if whole.is_file() { whole } else { partial };
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
