//! Ctrl-C: a CancelRequest finds the one query it is meant for, and nothing else.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::shell::{Shell, running, signal};
use crate::support::{PATIENCE, World};

/// Far longer than any test: what ends early was cancelled.
const SLEEP: &str = "select pg_sleep(600)";
const CANCELLED: &str = "ERROR:  canceling statement due to user request\n";
/// A cancel is two short connections on one machine.
const SOON: Duration = Duration::from_secs(20);

fn dials(world: &World) -> usize {
    let dial = |event: &Event| matches!(event, Event::Dial { .. });
    world.sandbox.events().count(dial)
}

/// psql that is killed from outside while it sleeps, and then tells that its session lives on.
///
/// After Ctrl-C psql prints no more tables, but it still copies.
async fn ctrl_c(world: &World, sslmode: &str) {
    let conninfo = format!("sslmode={sslmode} application_name=sleeper");
    let alive = "copy (select 'alive', application_name, ssl from pg_stat_activity \
                 join pg_stat_ssl using (pid) where pid = pg_backend_pid()) to stdout";
    let mut command = world.psql_command(&["-d", &conninfo, "-c", SLEEP, "-c", alive]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let psql = command.spawn().expect("psql starts");
    let asleep = "select exists (select from pg_stat_activity where application_name = 'sleeper' \
                  and state = 'active' and wait_event = 'PgSleep')";
    world.wait_sql(asleep).await;

    let pressed = Instant::now();
    signal(&psql, Signal::SIGINT);
    let ended = timeout(PATIENCE, psql.wait_with_output()).await;
    let ended = ended.expect("psql ends").expect("psql");
    assert!(pressed.elapsed() < SOON, "{:?}", pressed.elapsed());
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(stderr, format!("Cancel request sent\n{CANCELLED}"));
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(stdout, "alive\tsleeper\tt\n", "{sslmode}: {stderr}");
}

#[tokio::test]
async fn ctrl_c_ends_the_query_and_not_the_session() {
    let world = World::start().await;
    for sslmode in ["disable", "require"] {
        let before = dials(&world);
        ctrl_c(&world, sslmode).await;
        // One stream for the session, one for the CancelRequest.
        assert_eq!(dials(&world) - before, 2, "sslmode={sslmode}");
    }
    let log = "delivered a cancel request";
    assert!(world.proxy.wait_log(log, PATIENCE).await.is_some());
    world.stop().await;
}

/// Whoever reaches the port can send them.
#[tokio::test]
async fn a_flood_of_strange_cancel_requests_does_not_fill_the_log() {
    const MANY: usize = 600;
    let world = World::start().await;
    let port = world.proxy.port();
    let begun = Instant::now();
    for _ in 0..MANY / 20 {
        let burst = (0..20).map(|_| Raw::cancel(port, 1, 1));
        futures_util::future::join_all(burst).await;
    }
    let log = world.proxy.log_text();
    let lines = log.matches("ignored a cancel request that matches").count();
    let windows = usize::try_from(begun.elapsed().as_secs()).expect("seconds") + 2;
    assert!(
        (64..=64 * windows).contains(&lines),
        "{lines} in {windows} s"
    );
    assert!(lines < MANY, "{lines}");
    assert!(
        log.contains("before they chose a target; suppressing further lines"),
        "{log}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_request_hits_only_its_own_query() {
    let world = World::start().await;
    let mut other = Shell::open(&world, "application_name=other");
    let other_pid = other.backend().await;
    other.say(&format!("{SLEEP};")).await;
    let other_sleeps = running(other_pid, "pg_sleep");
    world.wait_sql(&other_sleeps).await;

    let mut client = Raw::log_in(world.proxy.port()).await;
    client.query(SLEEP).await;
    world.wait_sql(&running(client.pid, "pg_sleep")).await;

    // Right process, wrong key; wrong process, right key; nobody at all.
    let dialled = dials(&world);
    for (pid, key) in [
        (client.pid, client.key ^ 1),
        (other_pid, client.key),
        (0, 0),
    ] {
        Raw::cancel(world.proxy.port(), pid, key).await;
    }
    let ignored = "ignored a cancel request that matches no open connection";
    assert!(world.proxy.wait_log(ignored, PATIENCE).await.is_some());
    assert_eq!(dials(&world), dialled, "a strange key costs nobody a dial");
    world.wait_sql(&running(client.pid, "pg_sleep")).await;

    Raw::cancel(world.proxy.port(), client.pid, client.key).await;
    let answer = client.until_ready().await;
    let error = answer.iter().find(|(kind, _)| *kind == b'E');
    let (_, fields) = error.expect("an ErrorResponse");
    let fields = String::from_utf8_lossy(fields);
    assert!(fields.contains("\0C57014\0"), "{fields:?}");
    world.wait_sql(&other_sleeps).await;

    // The session goes on, and its key still works.
    client.query("select 'alive'").await;
    let kinds: Vec<u8> = client.until_ready().await.iter().map(|m| m.0).collect();
    assert_eq!(kinds, b"TDCZ");
    client.query(SLEEP).await;
    world.wait_sql(&running(client.pid, "pg_sleep")).await;
    Raw::cancel(world.proxy.port(), client.pid, client.key).await;
    assert!(client.until_ready().await.iter().any(|m| m.0 == b'E'));

    // With the session goes its key.
    let (pid, key) = (client.pid, client.key);
    client.leave().await;
    assert!(
        world
            .proxy
            .wait_log("connection ended", PATIENCE)
            .await
            .is_some()
    );
    let dialled = dials(&world);
    Raw::cancel(world.proxy.port(), pid, key).await;
    assert_eq!(dials(&world), dialled);
    world.wait_sql(&other_sleeps).await;

    other.press_ctrl_c();
    let ran = other.end().await;
    assert!(ran.stderr.contains("57014"), "{ran:?}");
    world.wait_no_backends().await;
    world.stop().await;
}

/// A client of the bare protocol, because psql keeps its cancel key to itself.
struct Raw {
    stream: TcpStream,
    pid: u32,
    key: u32,
}

impl Raw {
    async fn connect(port: u16) -> TcpStream {
        let connected = TcpStream::connect(("127.0.0.1", port)).await;
        connected.expect("pgiam listens")
    }

    async fn log_in(port: u16) -> Self {
        let mut packet = 196_608_u32.to_be_bytes().to_vec();
        packet.extend(b"user\0db_user\0database\0app\0\0");
        let length = u32::try_from(packet.len() + 4).expect("it is short");
        let mut client = Self {
            stream: Self::connect(port).await,
            pid: 0,
            key: 0,
        };
        client.send(&[&length.to_be_bytes(), &packet[..]]).await;
        for (kind, body) in client.until_ready().await {
            if kind == b'K' {
                let number = |at: usize| {
                    u32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"))
                };
                (client.pid, client.key) = (number(0), number(4));
            }
        }
        assert_ne!(client.pid, 0, "no BackendKeyData");
        client
    }

    async fn send(&mut self, parts: &[&[u8]]) {
        let sent = self.stream.write_all(&parts.concat()).await;
        sent.expect("pgiam takes it");
    }

    async fn query(&mut self, sql: &str) {
        let length = u32::try_from(sql.len() + 5).expect("it is short");
        self.send(&[b"Q", &length.to_be_bytes(), sql.as_bytes(), b"\0"])
            .await;
    }

    /// Messages up to and with ReadyForQuery.
    async fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let read = async {
            let mut messages = Vec::new();
            loop {
                let kind = self.stream.read_u8().await.expect("a message");
                let length = self.stream.read_u32().await.expect("its length");
                let mut body = vec![0; usize::try_from(length).expect("a length") - 4];
                self.stream.read_exact(&mut body).await.expect("its body");
                messages.push((kind, body));
                if kind == b'Z' {
                    return messages;
                }
            }
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// Terminate, as a client says that is done.
    async fn leave(mut self) {
        self.send(&[b"X\0\0\0\x04"]).await;
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        ended.expect("pgiam closes").expect("in order");
    }

    /// A CancelRequest, up to the close that is all its answer.
    async fn cancel(port: u16, pid: u32, key: u32) {
        let mut stream = Self::connect(port).await;
        let words = [16, 80_877_102, pid, key].map(u32::to_be_bytes);
        let sent = stream.write_all(&words.concat()).await;
        sent.expect("pgiam takes it");
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        ended.expect("pgiam closes").expect("in order");
        assert_eq!(answer, b"", "a CancelRequest has no answer");
    }
}
