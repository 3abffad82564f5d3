//! `pgiam tunnel`: bytes of any protocol through the sandbox's Session Manager, to servers that
//! only the bastion can reach.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::program::{Launch, Proxy, clean_env, stop_signal};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::local::peer::{by_nobody, two_users};
use crate::support::{BASTION, HOST, PATIENCE, REGION, Ran, eventually, pgiam, run};

const NAME: &str = "echo.internal";
const PORT: u16 = 7007;

/// A sandbox and what tunnels through it.
struct World {
    tunnel: Proxy,
    sandbox: Sandbox,
}

impl World {
    /// `pgiam tunnel` with these arguments and a free local port, in a world where `server` listens
    /// at `NAME`.
    async fn start(server: SocketAddr, args: &[&str]) -> Self {
        let sandbox = sandbox(server).await;
        Self::launch(sandbox, args).await
    }

    async fn launch(sandbox: Sandbox, args: &[&str]) -> Self {
        let env = sandbox.env();
        Self::launch_with(sandbox, args, env).await
    }

    async fn launch_with(sandbox: Sandbox, args: &[&str], env: Vec<(String, String)>) -> Self {
        let mut tunnel = Proxy::start(Launch {
            pgiam: pgiam(),
            args: arguments(&sandbox, args),
            env,
            collect_log: true,
        })
        .expect("pgiam starts");
        tunnel.wait_ready(PATIENCE).await.expect("pgiam is ready");
        Self { tunnel, sandbox }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.tunnel.port()))
            .await
            .expect("the tunnel accepts")
    }

    /// The one log line about a connection that failed.
    async fn failure(&self) -> Value {
        self.tunnel
            .wait_log("connection failed", PATIENCE)
            .await
            .expect("the failure is logged")
    }

    async fn stop(self) {
        self.tunnel.stop().await.expect("pgiam ends on SIGTERM");
        let left = self.sandbox.open_sessions();
        assert_eq!(left, Vec::<String>::new(), "sessions left at AWS");
        let mut events = self.sandbox.events().all();
        events.retain(|event| matches!(event, Event::Violation { .. }));
        assert_eq!(events, [], "what the real agent would stumble over");
        self.sandbox.shutdown().await;
    }
}

async fn sandbox(server: SocketAddr) -> Sandbox {
    let sandbox = Sandbox::builder()
        .region(REGION)
        .start()
        .await
        .expect("sandbox");
    sandbox.agent(BASTION).set_pacing(false);
    sandbox.vpc().open(NAME, PORT, server);
    sandbox
}

/// What is typed, with a configuration file of its own: nobody else's shall be found.
fn arguments(sandbox: &Sandbox, args: &[&str]) -> Vec<std::ffi::OsString> {
    let config = config_file(sandbox);
    if !config.exists() {
        std::fs::write(&config, "").expect("pgiam.toml");
    }
    let mut all = vec!["tunnel".into()];
    all.extend(args.iter().map(Into::into));
    all.extend(["--listen".into(), "0".into()]);
    all.extend(["--config".into(), config.into_os_string()]);
    let state = sandbox.dir().join("state");
    all.extend(["--state-dir".into(), state.into_os_string()]);
    all
}

fn config_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.dir().join("pgiam.toml")
}

fn to() -> String {
    format!("{NAME}:{PORT}")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a server");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Sends everything back, until the other side ends.
async fn echo_server() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut input, mut output) = stream.split();
                let _ = tokio::io::copy(&mut input, &mut output).await;
            });
        }
    });
    address
}

/// Answers one request line per connection, with many bytes, and closes: as HTTP/1.0 does.
async fn page_server(page: Vec<u8>) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4];
            if stream.read_exact(&mut request).await.is_ok() {
                let _ = stream.write_all(&page).await;
            }
        }
    });
    address
}

fn bytes(n: u32) -> Vec<u8> {
    (0..n)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect()
}

async fn echoed(stream: &mut TcpStream, sent: &[u8]) {
    let (mut input, mut output) = stream.split();
    let mut back = vec![0; sent.len()];
    let both = async { tokio::try_join!(output.write_all(sent), input.read_exact(&mut back)) };
    timeout(PATIENCE, both)
        .await
        .expect("the bytes come back in time")
        .expect("the bytes come back");
    assert!(back == sent, "the bytes come back as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_on_both_loopback_addresses() {
    let world = World::start(echo_server().await, &[&to(), "--bastion", BASTION]).await;
    let port = world.tunnel.port();
    assert_eq!(
        world.tunnel.ready_line(),
        format!("ready  tunnel  127.0.0.1:{port}  → {NAME}:{PORT} via ssm {BASTION}"),
    );
    let mut streams = vec![world.connect().await, world.connect().await];
    // A machine without IPv6 does with one.
    streams.extend(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await);
    let sent = bytes(1_000_000);
    futures_join(streams.iter_mut().map(|stream| echoed(stream, &sent))).await;
    drop(streams);
    world.stop().await;
}

/// Runs all at once.
async fn futures_join(work: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut work: Vec<_> = work.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        work.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if work.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_sending_side_gets_the_whole_answer() {
    let page = bytes(300_000);
    let server = page_server(page.clone()).await;
    let world = World::start(server, &[&to(), "--bastion", BASTION]).await;
    let mut client = world.connect().await;
    client.write_all(b"GET\n").await.expect("the request");
    client.shutdown().await.expect("no more requests");
    let mut answer = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut answer))
        .await
        .expect("the server's close arrives")
        .expect("in order");
    assert!(answer == page, "{} of {} bytes", answer.len(), page.len());
    world.stop().await;
}

/// The server waits for the end, which the tunnel cannot pass on alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_sending_side_does_not_wait_for_a_server_that_stays_open() {
    let world = World::start(echo_server().await, &[&to(), "--bastion", BASTION]).await;
    let mut client = world.connect().await;
    client.write_all(b"PING\n").await.expect("the request");
    client.shutdown().await.expect("no more requests");
    let mut answer = [0; 5];
    timeout(PATIENCE, client.read_exact(&mut answer))
        .await
        .expect("an answer in time")
        .expect("an answer");
    let answered = Instant::now();
    let end = timeout(PATIENCE, client.read(&mut [0])).await;
    assert_eq!(end.expect("the end in time").expect("in order"), 0);
    let took = answered.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_a_target_leads_to_an_address() {
    let server = echo_server().await;
    let sandbox = sandbox(server).await;
    sandbox.vpc().open("10.0.3.7", 80, server);
    let config = format!(
        "[targets.orders]\nhost = \"{HOST}\"\nport = 0\nbastion = {{ tag = \"Name=unused\" }}\n\
         [targets.near]\nhost = \"{HOST}\"\nport = 0\nbastion = \"{BASTION}\"\n"
    );
    std::fs::write(config_file(&sandbox), config).expect("pgiam.toml");
    let world = World::launch(sandbox, &["10.0.3.7:80", "--target", "near"]).await;
    echoed(&mut world.connect().await, b"by address").await;
    world.stop().await;
}

/// What the client of a tunnel sees of every failure.
async fn reset(world: &World) {
    let address = (Ipv4Addr::LOCALHOST, world.tunnel.port());
    let mut client = match TcpStream::connect(address).await {
        // A failure that is known already can be faster than the handshake.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
        connected => connected.expect("the tunnel accepts"),
    };
    let read = timeout(PATIENCE, client.read(&mut [0])).await;
    let error = read
        .expect("the connection is given up in time")
        .expect_err("no end that could be taken for an answer");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_bastion_cannot_resolve_resets_clients_without_a_session_each() {
    let to = "nowhere.internal:80";
    let world = World::start(echo_server().await, &[to, "--bastion", BASTION]).await;
    for _ in 0..3 {
        reset(&world).await;
    }
    let log = world.failure().await;
    assert_eq!(log["id"], "tunnel.name", "{log}");
    let reason = format!("the bastion {BASTION} cannot resolve nowhere.internal");
    assert_eq!(log["reason"], reason, "{log}");
    let started = |event: &Event| matches!(event, Event::StartSession { .. });
    assert_eq!(world.sandbox.events().count(started), 1);
    world.stop().await;
}

/// What the agent acknowledges and throws away is lost for good: nothing that matters may be in it.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_lost_to_an_agent_that_is_not_ready() {
    let sandbox = sandbox(echo_server().await).await;
    sandbox.agent(BASTION).update(|s| {
        s.races = None;
        s.discard_messages = 1;
        s.discard_for = Duration::from_millis(50);
        s.not_ready_for = Duration::from_millis(30);
    });
    let world = World::launch(sandbox, &[&to(), "--bastion", BASTION]).await;
    let sent = bytes(100_000);
    echoed(&mut world.connect().await, &sent).await;
    let discarded = |event: &Event| matches!(event, Event::InputDiscarded { .. });
    assert!(world.sandbox.events().count(discarded) >= 1);
    let dials = |event: &Event| matches!(event, Event::Dial { .. });
    assert_eq!(world.sandbox.events().count(dials), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_dial_resets_the_client_and_is_explained_in_the_log() {
    let sandbox = sandbox(echo_server().await).await;
    let refused = protocol_tests::network::vpc::Endpoint::Refused;
    sandbox.vpc().add("nowhere.internal", 80, refused);
    let args = ["nowhere.internal:80", "--bastion", BASTION];
    let world = World::launch(sandbox, &args).await;
    reset(&world).await;
    let log = world.failure().await;
    assert_eq!(log["id"], "tunnel.dial", "{log}");
    assert_eq!(log["level"], "WARN", "{log}");
    let reason = format!("the bastion {BASTION} could not connect to nowhere.internal:80");
    assert_eq!(log["reason"], reason, "{log}");
    let hint = log["hint"].as_str().unwrap_or_default();
    assert!(
        hint.ends_with("run on the bastion:\n  nc -vz nowhere.internal 80"),
        "{log}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_is_off_resets_the_client_and_is_explained_in_the_log() {
    let world = World::start(echo_server().await, &[&to(), "--bastion", BASTION]).await;
    world.sandbox.agent(BASTION).set_online(false);
    reset(&world).await;
    let log = world.failure().await;
    assert_eq!(log["id"], "ssm.target-not-connected", "{log}");
    assert!(
        log["detail"].is_string() && log["hint"].is_string(),
        "{log}"
    );
    // And once it is there, the next connection works.
    world.sandbox.agent(BASTION).set_online(true);
    echoed(&mut world.connect().await, b"hello").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_aws_ends_resets_the_client_with_the_reason() {
    let world = World::start(echo_server().await, &[&to(), "--bastion", BASTION]).await;
    let mut client = world.connect().await;
    echoed(&mut client, b"hello").await;
    let session = world.sandbox.open_sessions().remove(0);
    assert!(
        world
            .sandbox
            .end_session(&session, "Session: gone for good.")
    );
    let error = timeout(PATIENCE, client.read(&mut [0]))
        .await
        .expect("the end arrives")
        .expect_err("not as an end of file");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let log = world.failure().await;
    assert_eq!(log["detail"], "Session: gone for good.", "{log}");
    // The next one gets a session of its own.
    echoed(&mut world.connect().await, b"again").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_is_open_and_then_ends_with_success() {
    let args = [&to()[..], "--bastion", BASTION, "--drain-timeout", "3600"];
    let mut world = World::start(echo_server().await, &args).await;
    let mut client = world.connect().await;
    echoed(&mut client, b"before").await;
    world.tunnel.signal(stop_signal()).expect("it runs");
    let port = world.tunnel.port();
    eventually("the port is closed", || {
        let address = (Ipv4Addr::LOCALHOST, port);
        std::net::TcpStream::connect(address).is_err().then_some(())
    })
    .await;
    echoed(&mut client, b"still there").await;
    drop(client);
    let status = world.tunnel.wait_end(PATIENCE).await.expect("it ends");
    assert!(status.success(), "{status}");
    assert_eq!(world.sandbox.open_sessions(), Vec::<String>::new());
    world.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_hurries() {
    let args = [&to()[..], "--bastion", BASTION, "--drain-timeout", "3600"];
    let mut world = World::start(echo_server().await, &args).await;
    let mut client = world.connect().await;
    echoed(&mut client, b"before").await;
    world.tunnel.signal(Signal::SIGINT).expect("it runs");
    let waits = world
        .tunnel
        .wait_log("waiting for open connections", PATIENCE);
    assert!(waits.await.is_some());
    world.tunnel.signal(stop_signal()).expect("it runs");
    let limit = Duration::from_secs(20);
    let status = world.tunnel.wait_end(limit).await.expect("it ends");
    assert!(status.success(), "{status}");
    assert!(client.read(&mut [0]).await.is_err(), "cut off, and told so");
    assert_eq!(world.sandbox.open_sessions(), Vec::<String>::new());
    world.sandbox.shutdown().await;
}

/// A connection to the tunnel of a socket that another user owns, which only root can make.
async fn foreign(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.expect("a socket");
    std::os::unix::fs::fchown(socket.as_fd(), Some(12_345), None).expect("root may");
    socket.connect(address).await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_clients_are_reset_before_anything_is_dialled() {
    if !two_users() {
        return;
    }
    let world = World::start(echo_server().await, &[&to(), "--bastion", BASTION]).await;
    let port = world.tunnel.port();
    let addresses: [SocketAddr; 2] = [
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ];
    for address in addresses {
        // The reset may come while it still connects.
        let served = async { foreign(address).await?.read(&mut [0]).await };
        let served = timeout(PATIENCE, served).await.expect("in time");
        let error = served.expect_err("nothing is served");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{address}"
        );
    }
    let log = world.failure().await;
    assert_eq!(log["id"], "peer.foreign", "{log}");
    assert_eq!(log["level"], "WARN", "{log}");
    assert_eq!(log["reason"], "this pgiam belongs to another user", "{log}");
    let detail = log["detail"].as_str().unwrap_or_default();
    assert!(
        detail.starts_with("The client runs as user id 12345, pgiam as 0"),
        "{log}"
    );
    let started = |event: &Event| event.session_id().is_some();
    assert_eq!(world.sandbox.events().count(started), 0, "it costs nothing");
    // And a program that really runs as somebody else.
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3")]);
    let ran = run(by_nobody(&bash)).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    // The owner's go on.
    echoed(&mut world.connect().await, b"hello").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_check_every_user_is_served_as_by_serve() {
    if !two_users() {
        return;
    }
    for (words, variable, file) in [
        (&["--peer-check=false"][..], None, ""),
        (&[], Some("false"), ""),
        (&[], None, "[serve]\npeer_check = false\n"),
        // Flags come before variables, and these before the file.
        (
            &["--peer-check=false"],
            Some("true"),
            "[serve]\npeer_check = true\n",
        ),
    ] {
        let sandbox = sandbox(echo_server().await).await;
        std::fs::write(config_file(&sandbox), file).expect("pgiam.toml");
        let destination = to();
        let args = [&[&destination[..], "--bastion", BASTION], words].concat();
        let mut env = sandbox.env();
        env.extend(variable.map(|value| ("PGIAM_PEER_CHECK".to_owned(), value.to_owned())));
        let world = World::launch_with(sandbox, &args, env).await;
        let address = (Ipv4Addr::LOCALHOST, world.tunnel.port()).into();
        let mut client = foreign(address).await.expect("the tunnel listens");
        echoed(&mut client, b"somebody else's").await;
        world.stop().await;
    }
}

/// The program's last words, without starting anything.
async fn refused(args: &[&str]) -> Ran {
    let mut command = Command::new(pgiam());
    clean_env(&mut command, &["AWS_", "PGIAM_"]);
    command
        .arg("tunnel")
        .args(args)
        .args(["--config", "/dev/null"]);
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_with_the_remedy() {
    let taken = listener().await;
    let address = taken.1.to_string();
    for (args, code, expected) in [
        (&[][..], 2, "<HOST:PORT>"),
        (
            &["db.internal"],
            2,
            "the port is missing; expected HOST:PORT",
        ),
        (
            &["db:1", "--bastion", "i-1", "--listen", "0.0.0.0:1"],
            2,
            "the tunnel without a password; listen on 127.0.0.1 or [::1]",
        ),
        (
            &["db:1"],
            2,
            "target \"db:1\" has no bastion.\nhint: use --bastion i-",
        ),
        (
            &["db:1", "--bastion", "bastion-1"],
            2,
            "target \"db:1\": invalid bastion \"bastion-1\":",
        ),
        (
            &["db:1", "--bastion", "i-1", "--sessions", "33"],
            2,
            "invalid sessions 33: expected 1 to 32",
        ),
        (
            &["db:1", "--target", "orders"],
            2,
            "there is no target \"orders\"",
        ),
        (
            &["db:1", "--bastion", "i-1", "--listen", &address],
            1,
            "the port is in use\nhint: choose another port: --listen ",
        ),
    ] {
        let Ran {
            code: ended,
            stdout,
            stderr,
        } = refused(args).await;
        assert_eq!(ended, Some(code), "{args:?}\n{stderr}");
        assert_eq!(stdout, "", "{args:?}");
        assert!(stderr.contains(expected), "{args:?}\n→ {stderr}");
    }
}
