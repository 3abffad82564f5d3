//! Many clients, many bytes, bad links, slow and vanishing clients.
//!
//! Two workers, because these tests measure how much goes through, and the sandbox lives in the
//! test's own process.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use protocol_tests::harness::program;
use protocol_tests::network::link::Conditions;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::shell::{Shell, admin_command, numbered, signal, streaming};
use crate::support::{BASTION, PATIENCE, World, eventually, run};

/// For whole transfers, which take long on a busy machine.
const TRANSFER: Duration = Duration::from_secs(180);

fn count(world: &World, wanted: impl Fn(&Event) -> bool) -> usize {
    world.sandbox.events().count(wanted)
}

fn is_start(event: &Event) -> bool {
    matches!(event, Event::StartSession { .. })
}

fn is_resent(event: &Event) -> bool {
    matches!(event, Event::AgentResent { .. })
}

/// Resident memory of the program, in KiB.
pub(crate) fn resident(world: &World) -> u64 {
    let pid = world.proxy.pid().expect("pgiam runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.expect("VmRSS")
}

/// Open descriptors of the program.
pub(crate) fn descriptors(world: &World) -> usize {
    let pid = world.proxy.pid().expect("pgiam runs");
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd");
    fds.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_at_once_share_a_few_sessions() {
    const CLIENTS: usize = 50;
    let world = World::start().await;
    let idle = resident(&world);
    let mut admin = Shell::admin(&world);
    admin.ask("select pg_advisory_lock(42);").await;

    // All arrive at a cold proxy, and none can finish before the lock is free.
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let sql = format!("select pg_advisory_lock_shared(42), 'value {n}'");
            let command = world.psql_command(&["-A", "-t", "-q", "-c", &sql]);
            tokio::spawn(run(command))
        })
        .collect();
    let all_wait = format!(
        "select count(*) = {CLIENTS} from pg_stat_activity \
         where usename = 'db_user' and wait_event = 'advisory'"
    );
    world.wait_sql(&all_wait).await;
    let busy = resident(&world);
    println!("VmRSS: idle {idle} KiB, with {CLIENTS} connections {busy} KiB");
    admin.ask("select pg_advisory_unlock(42);").await;
    for (n, client) in clients.into_iter().enumerate() {
        let ran = client.await.expect("psql runs");
        assert_eq!(ran.rows(), format!("|value {n}"));
    }

    let sessions = count(&world, is_start);
    assert!((1..=4).contains(&sessions), "{sessions}");
    let mut streams = BTreeSet::new();
    for event in world.sandbox.events().all() {
        if let Event::Dial {
            session_id,
            stream,
            result,
            ..
        } = event
        {
            assert_eq!(result, Ok(()));
            streams.insert((session_id, stream));
        }
    }
    assert_eq!(streams.len(), CLIENTS);
    let login = |e: &Event| matches!(e, Event::DbToken { outcome: Ok(_), .. });
    assert_eq!(count(&world, login), CLIENTS);
    assert!(busy < 256 * 1024, "{busy} KiB for {CLIENTS} connections");
    drop(admin);
    world.stop().await;
}

/// pgbench as psql is called elsewhere: nothing of the caller's.
fn pgbench(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(world.database.postgres().bindir().join("pgbench"));
    program::clean_env(&mut command, &["PG"]);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_runs_without_a_failure() {
    let world = World::start().await;
    let postgres = world.database.postgres();
    let mut init = pgbench(&world, &["-i", "-q", "-s", "1", "-U", "postgres", "app"]);
    init.arg("-h").arg(postgres.socket_dir());
    init.args(["-p", &postgres.addr().port().to_string()]);
    let ran = run(init).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let grant = "grant select on all tables in schema public to db_user";
    world.admin(grant).await;

    // No user, no database, no password.
    let mut bench = pgbench(&world, &["-n", "-S", "-T", "10", "-c", "8", "-j", "2"]);
    bench.args(["-h", "localhost", "-p", &world.proxy.port().to_string()]);
    let ran = run(bench).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let value = |name: &str| -> f64 {
        let line = ran.stdout.lines().find_map(|l| l.strip_prefix(name));
        let word = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        word.unwrap_or_else(|| panic!("no {name:?}: {ran:?}"))
    };
    let done = value("number of transactions actually processed:");
    println!("pgbench: {done} transactions, {} tps", value("tps ="));
    assert!(done > 0.0);
    // Printed since PostgreSQL 15.
    if ran.stdout.contains("number of failed transactions") {
        assert_eq!(value("number of failed transactions:"), 0.0);
    }
    assert!(!ran.stderr.contains("error"), "{ran:?}");
    let sessions = count(&world, is_start);
    assert!((1..=4).contains(&sessions), "{sessions}");
    world.stop().await;
}

/// A table of `rows` rows of 1 KiB of bytes that look random, every value among them, and an empty
/// one.
pub(crate) async fn make_tables(world: &World, rows: u32) {
    world
        .admin(&format!(
            "create unlogged table source (id int primary key, body bytea);
             create unlogged table target (like source including all);
             insert into source select row, string_agg(sha512(convert_to(row || '/' || part, 'UTF8')), '' order by part)
               from generate_series(1, {rows}) row, generate_series(1, 16) part group by row;
             alter table source owner to db_user;
             alter table target owner to db_user;"
        ))
        .await;
}

/// What a table holds, told by the server.
pub(crate) async fn contents(world: &World, table: &str) -> String {
    let sql = format!(
        "select count(*), sum(length(body)), md5(string_agg(md5(body), '' order by id)) from {table}"
    );
    world.admin(&sql).await
}

pub(crate) fn copy_out(table: &str, file: &Path) -> String {
    let file = file.display();
    format!("\\copy (select * from {table} order by id) to '{file}' (format binary)")
}

fn copy_in(table: &str, file: &Path) -> String {
    format!("\\copy {table} from '{}' (format binary)", file.display())
}

/// Copies `source` out to a file and the file into `target`, both through the proxy, and compares
/// the bytes with what the server gives without it. Says how fast it was.
async fn there_and_back(world: &World) -> String {
    let dir = world.sandbox.dir();
    let [direct, out, back] = ["direct", "out", "back"].map(|n| dir.join(n));
    let bytes = |path: &Path| std::fs::read(path).expect("the copied file");
    let same = |a: &Path, b: &Path| bytes(a) == bytes(b);
    let past = run(admin_command(world, &["-c", &copy_out("source", &direct)])).await;
    past.rows();

    let mut took = Vec::new();
    for command in [copy_out("source", &out), copy_in("target", &out)] {
        let begun = Instant::now();
        let psql = world.psql_command(&["-c", &command]).output();
        let ended = timeout(TRANSFER, psql).await.expect("in time");
        let ended = ended.expect("psql runs");
        assert!(ended.status.success(), "{command}: {ended:?}");
        took.push(begun.elapsed());
    }
    assert!(same(&direct, &out), "COPY out changed bytes on the way");
    let expected = contents(world, "source").await;
    assert_eq!(contents(world, "target").await, expected);
    let past = run(admin_command(world, &["-c", &copy_out("target", &back)])).await;
    past.rows();
    assert!(same(&direct, &back), "COPY in changed bytes on the way");

    let size = bytes(&direct).len();
    let speed = |took: Duration| size as f64 / 1e6 / took.as_secs_f64();
    let (down, up) = (speed(took[0]), speed(took[1]));
    format!("COPY of {size} bytes: out {down:.1} MB/s, in {up:.1} MB/s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_each_way_arrive_unchanged() {
    let world = World::start().await;
    make_tables(&world, 50_000).await;
    println!("{}", there_and_back(&world).await);
    assert_eq!(count(&world, is_start), 1);
    // A link without loss gives nothing to repeat, but a pause of a busy machine may.
    let resent = count(&world, is_resent);
    assert!(resent < 100, "the agent repeated {resent} of its messages");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_link_and_an_agent_with_races_change_no_byte() {
    let world = World::start().await;
    make_tables(&world, 2_000).await;
    world.sandbox.agent(BASTION).set_races(true);
    let bad = Conditions {
        loss: 0.02,
        duplicate: 0.02,
        reorder: 0.02,
        ..Conditions::default()
    };
    world.sandbox.link().set(bad, 20_260_805);
    println!("{}", there_and_back(&world).await);

    // It was as bad as it should be, and one session bore it.
    let dropped = |e: &Event| matches!(e, Event::InputDropped { .. });
    assert!(count(&world, dropped) >= 1);
    let resent = count(&world, is_resent);
    assert!(resent >= 20, "the agent repeated {resent} messages only");
    assert_eq!(count(&world, is_start), 1);
    world.sandbox.link().clear();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_costs_no_memory() {
    const ROWS: u32 = 200_000;
    const GROWTH: u64 = 64 * 1024;
    let world = World::start().await;
    world.query("select 1").await;
    let before = resident(&world);
    let mut psql = streaming(&world, "application_name=slow", &numbered(ROWS));
    let mut lines = BufReader::new(psql.stdout.take().expect("psql's output")).lines();
    for row in 1..=1_000 {
        let line = lines.next_line().await.expect("psql's output");
        assert_eq!(line, Some(format!("{row:016}").repeat(64)));
    }

    // Everything on the way is full when the server can write nothing for a whole second.
    let stuck = "select exists (select from pg_stat_activity \
                 where application_name = 'slow' and wait_event = 'ClientWrite')";
    world.wait_sql_steady(stuck, 100).await;
    let stalled = resident(&world);
    println!("VmRSS: before {before} KiB, with a stalled client {stalled} KiB");
    assert!(stalled < before + GROWTH, "{before} → {stalled} KiB");

    let begun = Instant::now();
    for row in 1_001..=ROWS {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("in time");
        let line = line.expect("psql's output").expect("another row");
        assert!(line == format!("{row:016}").repeat(64), "{row}: {line}");
    }
    println!("the rest took {:?}", begun.elapsed());
    assert_eq!(lines.next_line().await.expect("psql's output"), None);
    assert!(psql.wait().await.expect("psql").success());
    let after = resident(&world);
    assert!(after < before + GROWTH, "{before} → {after} KiB");
    assert_eq!(world.query("select 'next'").await, "next");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_leave_nothing_behind() {
    let world = World::start().await;
    make_tables(&world, 1).await;
    let finished = |e: &Event| matches!(e, Event::StreamFinished { .. });
    let before = descriptors(&world);
    let mut gone = 0;
    for (sslmode, reads) in [("disable", true), ("require", true), ("require", false)] {
        // In the middle of a result: flowing, or stuck because nobody takes it.
        let conninfo = format!("sslmode={sslmode} application_name=vanishing");
        let mut psql = streaming(&world, &conninfo, &numbered(10_000_000));
        let mut output = psql.stdout.take().expect("psql's output");
        let mut some = vec![0; 1 << 20];
        let read = timeout(PATIENCE, output.read_exact(&mut some)).await;
        read.expect("in time").expect("a megabyte");
        if !reads {
            let stuck = "select exists (select from pg_stat_activity \
                         where application_name = 'vanishing' and wait_event = 'ClientWrite')";
            world.wait_sql_steady(stuck, 50).await;
        }
        signal(&psql, Signal::SIGKILL);
        psql.wait().await.expect("psql is gone");
        gone += 1;
        let events = world.sandbox.events();
        let end = events.wait_for_nth(gone, finished, PATIENCE).await;
        assert!(end.is_some(), "the agent still has the stream");
        world.wait_no_backends().await;
    }

    // In the middle of sending.
    let copy = "copy target (id) from stdin";
    let mut command = world.psql_command(&["-c", copy]);
    let mut psql = command.stdin(Stdio::piped()).spawn().expect("psql starts");
    let mut input = psql.stdin.take().expect("psql's input");
    let rows: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    input.write_all(rows.as_bytes()).await.expect("psql reads");
    let copying = "select exists (select from pg_stat_progress_copy where bytes_processed > 0)";
    world.wait_sql(copying).await;
    signal(&psql, Signal::SIGKILL);
    psql.wait().await.expect("psql is gone");
    world.wait_no_backends().await;
    assert_eq!(world.admin("select count(*) from target").await, "0");

    // What stays is the session's WebSocket and its note, and the connection to the API.
    eventually("the clients' descriptors are closed", || {
        (descriptors(&world) <= before + 3).then_some(())
    })
    .await;
    assert_eq!(world.query("select 'next'").await, "next");
    assert_eq!(count(&world, is_start), 1);
    world.stop().await;
}
