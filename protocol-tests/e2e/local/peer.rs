//! Whose clients are served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::time::timeout;

use super::{DB_USER, SLEEP, Wire, cancel_request, reached, startup, told, world_with};
use crate::failures::refusals;
use crate::shell::running;
use crate::support::{PATIENCE, Ran, Setup, World, eventually, run};

/// The user id that nobody has.
const NOBODY: &str = "65534";

/// Whether this test can play two users; says so when it cannot.
#[expect(
    clippy::print_stdout,
    reason = "a test that does nothing has to say so"
)]
pub(crate) fn two_users() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let setpriv = PathBuf::from("/usr/bin/setpriv").is_file();
    if !(root && setpriv) {
        println!("skipped: only root can play two users, and only with setpriv");
    }
    root && setpriv
}

/// The same command, run by somebody else.
pub(crate) fn by_nobody(command: &Command) -> Command {
    let command = command.as_std();
    let mut other = Command::new("/usr/bin/setpriv");
    other
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(n, v)| Some((n, v?))))
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .kill_on_drop(true);
    other
}

async fn as_nobody(world: &World, host: &str) -> Ran {
    let args = [
        "-h",
        host,
        "-U",
        "db_user",
        // By default libpq before 17 would try again without TLS, and report both.
        "-d",
        "sslmode=require",
        "-A",
        "-t",
        "-c",
        "select current_user",
    ];
    run(by_nobody(&world.psql_command(&args))).await
}

#[tokio::test]
async fn other_users_clients_are_refused_before_anything_is_dialled() {
    if !two_users() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sockets").display().to_string();
    let world = world_with(&["--socket-dir", &path]).await;
    for (nth, host) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        let ran = as_nobody(&world, host).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let said = "FATAL:  this pgiam belongs to another user";
        assert_eq!(ran.stderr.matches(said).count(), 1, "{ran:?}");
        assert!(
            ran.stderr.contains("as user id 65534, pgiam as 0"),
            "{ran:?}"
        );
        let line = told(&world, nth).await;
        assert_eq!(
            (&line["id"], &line["sqlstate"]),
            (&"peer.foreign".into(), &"28000".into())
        );
    }
    // The socket's directory is closed to them.
    let ran = as_nobody(&world, &path).await;
    assert!(ran.stderr.contains("Permission denied"), "{ran:?}");
    assert_eq!(reached(&world), 0, "a stranger costs nothing");
    assert_eq!(world.query("select current_user").await, "db_user");
    world.stop().await;
}

#[tokio::test]
async fn other_users_cancel_requests_are_ignored() {
    if !two_users() {
        return;
    }
    let world = world_with(&[]).await;
    let mut session = Wire::connect(&world).await;
    session.log_in(&startup(0, DB_USER)).await;
    session.query(SLEEP).await;
    let asleep = running(session.pid, "pg_sleep");
    world.wait_sql(&asleep).await;
    let before = reached(&world);

    let request = cancel_request(session.pid, &session.key);
    let request: String = request.iter().map(|b| format!("\\x{b:02x}")).collect();
    let port = world.proxy.port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}' >&3; cat <&3");
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", &script]);
    let ran = run(by_nobody(&bash)).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    let line = told(&world, 0).await;
    assert_eq!(line["id"], "peer.foreign", "{line}");
    assert_eq!(reached(&world), before);
    world.wait_sql(&asleep).await;

    session.cancel_over(Wire::connect(&world).await).await;
    assert_eq!(session.error().await.0, "57014");
    drop(session);
    world.stop().await;
}

/// More than may begin at a time, and each has the right to be silent for half a minute.
#[tokio::test]
async fn other_users_silence_keeps_nobody_waiting() {
    if !two_users() {
        return;
    }
    let world = World::start().await;
    let port = world.proxy.port();
    let script = format!(
        "for n in {{10..160}}; do eval \"exec $n<>/dev/tcp/127.0.0.1/{port}\"; done; echo open; read"
    );
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", &script]);
    let mut silent = by_nobody(&bash);
    silent.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut silent = silent.spawn().expect("bash starts");
    let mut said = BufReader::new(silent.stdout.take().expect("its output")).lines();
    let line = timeout(PATIENCE, said.next_line()).await;
    assert_eq!(
        line.expect("in time").expect("a line").as_deref(),
        Some("open")
    );
    let begun = Instant::now();
    assert_eq!(world.query("select 1").await, "1");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    silent.kill().await.expect("it ends");
    world.stop().await;
}

#[tokio::test]
async fn without_the_check_everybody_is_served() {
    if !two_users() {
        return;
    }
    let world = world_with(&["--peer-check=false"]).await;
    for host in ["127.0.0.1", "::1"] {
        assert_eq!(as_nobody(&world, host).await.rows(), "db_user");
    }
    world.stop().await;
}

/// Java opens IPv6 sockets for everything: the kernel then lists an IPv4 connection among those of
/// IPv6.
#[tokio::test]
async fn an_ipv6_socket_with_an_ipv4_address_is_known_as_ours() {
    let world = World::start().await;
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for address in [IpAddr::V6(mapped), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let mut wire = Wire::connect_to((address, world.proxy.port()).into()).await;
        wire.log_in(&startup(0, DB_USER)).await;
        assert_eq!(wire.value("select 'alive'").await, "alive");
    }
    let ready = world.proxy.wait_log("connection ready", PATIENCE).await;
    assert!(ready.is_some());
    world.stop().await;
}

/// An address of this machine, of the family of `loopback`, that is not the loopback's: the one that
/// packets to elsewhere would leave from. None are sent.
pub(crate) fn interface_address(loopback: IpAddr) -> Option<IpAddr> {
    let (any, elsewhere): (IpAddr, IpAddr) = match loopback {
        IpAddr::V4(_) => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(198, 51, 100, 1).into(),
        ),
        IpAddr::V6(_) => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((elsewhere, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A connection from the address `from`, of a socket that `owner` owns.
async fn connected(from: IpAddr, to: SocketAddr, owner: Option<u32>) -> Wire {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.expect("a socket");
    socket.bind((from, 0).into()).expect("an address of ours");
    if owner.is_some() {
        std::os::unix::fs::fchown(socket.as_fd(), owner, None).expect("root may");
    }
    let connected = timeout(PATIENCE, socket.connect(to)).await;
    Wire::new(connected.expect("in time").expect("pgiam listens"))
}

/// A client may give its end any address of the machine, and reaches 127.0.0.1 from it.
#[tokio::test]
async fn another_address_of_this_machine_hides_nobody() {
    let world = World::start().await;
    let root = nix::unistd::geteuid().is_root();
    let mut refused = 0;
    for loopback in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let Some(from) = interface_address(loopback) else {
            println!("skipped: this machine has no further address like {loopback}");
            continue;
        };
        let to = (loopback, world.proxy.port()).into();
        let mut own = connected(from, to, None).await;
        own.log_in(&startup(0, DB_USER)).await;
        assert_eq!(own.value("select 'alive'").await, "alive");
        if !root {
            println!("skipped: only root can give a socket away");
            continue;
        }
        let mut other = connected(from, to, Some(12_345)).await;
        other.send(&startup(0, DB_USER)).await;
        let (code, said) = other.error().await;
        assert_eq!(code, "28000", "{from}");
        assert_eq!(said, "this pgiam belongs to another user", "{from}");
        assert_eq!(told(&world, refused).await["id"], "peer.foreign");
        refused += 1;
    }
    world.stop().await;
}

/// Whoever listens for other machines still tells the users of this one apart; and listens at all
/// addresses of both families.
#[tokio::test]
async fn listening_for_other_machines_serves_no_other_users() {
    let world = World::with(Setup {
        args: ["--address", "0.0.0.0", "--address", "::"]
            .map(str::to_owned)
            .into(),
        env: vec![("PGIAM_LOCAL_PASSWORD", Some("a local secret".to_owned()))],
        ..Setup::default()
    })
    .await;
    let (v4, v6) = (
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    );
    let interfaces = [v4, v6].into_iter().filter_map(interface_address);
    let mut refused = 0;
    for address in [v4, v6].into_iter().chain(interfaces) {
        let to = (address, world.proxy.port()).into();
        let mut own = connected(address, to, None).await;
        own.send(&startup(0, DB_USER)).await;
        assert_eq!(
            own.byte().await,
            b'R',
            "{address}: the password is asked for"
        );
        if nix::unistd::geteuid().is_root() {
            let mut other = connected(address, to, Some(12_345)).await;
            other.send(&startup(0, DB_USER)).await;
            assert_eq!(other.error().await.0, "28000", "{address}");
            refused += 1;
        }
    }
    let foreign = || {
        let log = refusals(&world);
        log.iter()
            .filter(|line| line["id"] == "peer.foreign")
            .count()
    };
    eventually("they are logged", || (foreign() == refused).then_some(())).await;
    world.stop().await;
}

/// Drivers send the request, close, and wait for nothing (tokio-postgres; the server's own manual
/// allows it).
#[tokio::test]
async fn cancels_of_clients_that_have_left_are_delivered() {
    const CANCELS: usize = 200;
    let world = world_with(&[]).await;
    let mut session = Wire::connect(&world).await;
    session.log_in(&startup(0, DB_USER)).await;
    let request = cancel_request(session.pid, &session.key);
    let send_and_leave = async |by_halves: bool| {
        let mut carrier = Wire::connect(&world).await;
        carrier.send(&request).await;
        if by_halves {
            carrier.stream.shutdown().await.expect("it is open");
        }
    };
    for nth in 0..CANCELS {
        send_and_leave(nth % 2 == 0).await;
    }
    // Each leaves one line, whatever becomes of it.
    let outcomes = || {
        let log = world.proxy.log_text();
        let of_interest =
            |line: &&str| line.contains("cancel request") || line.contains("connection failed");
        log.lines()
            .filter(of_interest)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let all = eventually("all are heard of", || {
        Some(outcomes()).filter(|all| all.len() == CANCELS)
    })
    .await;
    let lost: Vec<_> = all
        .iter()
        .filter(|line| !line.contains("\"delivered a cancel request\""))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
    session.query(SLEEP).await;
    world.wait_sql(&running(session.pid, "pg_sleep")).await;
    send_and_leave(false).await;
    assert_eq!(session.error().await.0, "57014");
    drop(session);
    world.stop().await;
}
