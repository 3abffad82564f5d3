//! Many sockets: other users' connections, other programs', and more than there are descriptors for.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use protocol_tests::network::dns::DnsServer;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;

use super::peer::two_users;
use super::{DB_USER, Wire, startup};
use crate::failures::refusals;
use crate::support::{HOST, PATIENCE, Setup, World, eventually, name_of_this_machine, pgiam, run};

/// Connections of another user that do nothing.
const IDLE: usize = 3_000;
/// Sockets of other programs, two for each of their connections.
const OTHERS: usize = 8_000;
/// Logins whose processor time is compared; the kernel counts in 10 ms.
const LOGINS: u32 = 100;

/// Whether this process may open so many files; says so if not.
#[expect(
    clippy::print_stdout,
    reason = "a test that does nothing has to say so"
)]
fn may_open(files: usize) -> bool {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let may = soft > u64::try_from(files + 200).expect("a number");
    if !may {
        println!("skipped: this needs {files} open files, and the limit is {soft}");
    }
    may
}

/// What the kernel knows of the process: a number of `/proc/PID/status`.
fn status(world: &World, field: &str) -> u64 {
    let pid = world.proxy.pid().expect("pgiam runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("proc(5)");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_else(|| panic!("{field} in {status}"))
}

fn descriptors(world: &World) -> usize {
    let pid = world.proxy.pid().expect("pgiam runs");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("proc(5)");
    open.count()
}

/// Processor time that the program has used, in 10 ms.
fn ticks(world: &World) -> u64 {
    let pid = world.proxy.pid().expect("pgiam runs");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("proc(5)");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    // utime and stime.
    let times = fields.split_whitespace().skip(11).take(2);
    times
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

/// A connection of a socket that another user owns.
async fn foreign(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    std::os::unix::fs::fchown(socket.as_fd(), Some(12_345), None).expect("root may");
    socket.connect(to).await.expect("pgiam listens")
}

#[tokio::test]
async fn other_users_idle_connections_do_not_delay_the_owner() {
    if !two_users() || !may_open(IDLE) {
        return;
    }
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let (files, threads) = (descriptors(&world), status(&world, "Threads"));
    let to = (Ipv4Addr::LOCALHOST, world.proxy.port()).into();
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(foreign(to).await);
    }
    let begun = Instant::now();
    assert_eq!(world.query("select 1").await, "1");
    let took = begun.elapsed();
    println!(
        "psql beside {IDLE} idle connections of another user: {took:?}, {} threads, {} descriptors, {} kB resident",
        status(&world, "Threads"),
        descriptors(&world),
        status(&world, "VmRSS"),
    );
    // 0.5 s on a quiet machine.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(
        status(&world, "Threads") < threads + 8,
        "no thread for each of them"
    );
    eventually("they are closed", || {
        (descriptors(&world) < files + 20).then_some(())
    })
    .await;
    // What is said of them is bounded.
    eventually("some are told", || refusals(&world).first().cloned()).await;
    assert!(refusals(&world).len() <= IDLE / 2);
    let more = world.proxy.wait_log(
        "too many refused connections; closing further ones without an answer",
        PATIENCE,
    );
    assert!(more.await.is_some());
    world.stop().await;
}

/// Processor time in 10 ms of some direct logins.
async fn logins(world: &World) -> u64 {
    let before = ticks(world);
    for _ in 0..LOGINS {
        let mut wire = Wire::connect(world).await;
        wire.log_in(&startup(0, DB_USER)).await;
    }
    ticks(world) - before
}

#[tokio::test]
async fn a_login_costs_the_same_beside_many_other_sockets() {
    let Some(name) = name_of_this_machine() else {
        return;
    };
    if !may_open(OTHERS) {
        return;
    }
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_cname(&name, HOST);
    let listener = TcpListener::bind((&*name, 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let world = World::with(Setup {
        endpoint: (HOST, port),
        config: Some(format!(
            "[targets.near]\nhost = \"{name}:{port}\"\nuser = \"db_user\"\ndatabase = \"app\"\n\
             port = 0\nvia = \"direct\"\ndns_server = \"{}\"\n",
            dns.addr()
        )),
        ..Setup::default()
    })
    .await;
    let database = world.database.addr();
    let route = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(database).await.expect("the database");
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    logins(&world).await; // What the first ones cost is another matter.
    let alone = logins(&world).await;
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let to = busy.local_addr().expect("its address");
    let mut others = Vec::with_capacity(OTHERS);
    while others.len() < OTHERS {
        others.push(TcpStream::connect(to).await.expect("it listens"));
        others.push(busy.accept().await.expect("it comes").0);
    }
    let beside = logins(&world).await;
    println!("{LOGINS} direct logins: {alone} ticks alone, {beside} beside {OTHERS} other sockets");
    // 1.1 on a quiet machine. Reading a table of that length makes it 5 and more.
    assert!(beside * 2 <= alone * 3 + 20, "{alone} → {beside} ticks");
    drop(others);
    world.stop().await;
    route.abort();
}

#[tokio::test]
async fn clients_are_told_that_there_are_no_descriptors() {
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let pid = world.proxy.pid().expect("pgiam runs").to_string();
    let limit = descriptors(&world) + 24;
    let set = format!("--nofile={limit}:{limit}");
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid, &set]);
    assert_eq!(run(prlimit).await.code, Some(0));

    let to: SocketAddr = (Ipv4Addr::LOCALHOST, world.proxy.port()).into();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(to).await.expect("it listens"));
    }
    let mut late = Wire::connect(&world).await;
    late.send(&startup(0, DB_USER)).await;
    let (code, said) = late.error().await;
    assert_eq!(code, "53300", "{said}");
    let expected = format!("pgiam has run out of file descriptors: its limit is {limit}");
    assert_eq!(said, expected);
    let told = refusals(&world);
    let about = |line: &&serde_json::Value| line["id"] == "limit.descriptors";
    assert!(told.iter().any(|line| about(&line)), "{told:?}");
    assert!(
        told.iter().all(|line| line["id"] != "peer.foreign"),
        "{told:?}"
    );
    let log = world.proxy.log_text();
    let waits = log
        .matches("new connections wait until one is free")
        .count();
    assert!(waits <= 2, "{waits} lines about the same");

    drop((idle, late));
    eventually("they are closed", || {
        (descriptors(&world) + 12 < limit).then_some(())
    })
    .await;
    assert_eq!(world.query("select 'again'").await, "again");
    world.stop().await;
}

/// `pgiam` with these words, started with these limits of descriptors.
fn limited(limits: &str, words: &str) -> Command {
    let script = format!("ulimit {limits}; exec \"$0\" {words}");
    let mut command = Command::new("/bin/sh");
    protocol_tests::harness::program::clean_env(&mut command, &["AWS_", "PGIAM_"]);
    command
        .arg("-c")
        .arg(script)
        .arg(pgiam())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn more_targets_than_can_be_listened_to_are_refused_at_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("pgiam.toml");
    let targets: String = (0..500)
        .map(|n| {
            format!(
                "[targets.t{n}]\nhost = \"t{n}.abc.eu-central-1.rds.amazonaws.com\"\nport = 0\nbastion = \"i-1\"\n"
            )
        })
        .collect();
    fs::write(&config, targets).expect("pgiam.toml");
    let words = format!(
        "serve --config {} --state-dir {}",
        config.display(),
        dir.path().join("state").display()
    );
    for limits in ["-n 256", "-n 1024"] {
        let ran = run(limited(limits, &words)).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(ran.stdout, "", "nothing is said to be ready");
        let limit = limits.trim_start_matches("-n ");
        let said =
            format!("and the limit of this process is {limit}\nhint: raise the limit (ulimit -n");
        assert!(
            ran.stderr
                .contains("cannot listen on 500 ports: they need ")
                && ran.stderr.contains(&said),
            "{ran:?}"
        );
        assert!(ran.stderr.lines().count() < 10, "{ran:?}");
    }
}
