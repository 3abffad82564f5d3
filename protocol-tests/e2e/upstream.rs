//! The way to the database: how many round trips it takes, what is tried and what is done when that
//! was too optimistic, and the servers that are not plain PostgreSQL.

mod alias;
mod direct_tls;
mod dsql;
mod early_token;
mod lost;
mod passthrough;
mod protocol;
mod proxy;
mod ready;
mod replication;
mod trips;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use protocol_tests::database::front::{FrontKind, RdsFront};
use protocol_tests::database::postgres::{Postgres18, postgres18};
use protocol_tests::database::rds::Engine;
use protocol_tests::network::line::{Flights, LineOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::failures::refusals;
use crate::shell::signal;
use crate::support::{BASTION, HOST, PATIENCE, Ran, Setup, World, eventually, run};

/// A target with one bastion and further lines.
fn config(host: &str, more: &str) -> String {
    format!(
        "[targets.orders]\nhost = \"{host}\"\nuser = \"db_user\"\ndatabase = \"app\"\nport = 0\n\
         bastion = \"{BASTION}\"\n{more}\n"
    )
}

/// PostgreSQL 18, which the tests of what is new in it cannot do without.
fn eighteen() -> Postgres18 {
    postgres18().expect("PostgreSQL 18")
}

/// An instance whose front takes direct TLS or does not, before this server or the installed one.
fn instance(direct: bool, bindir: Option<PathBuf>) -> Setup {
    Setup {
        engine: Engine::Front {
            kind: FrontKind::Instance,
            direct,
            bindir,
        },
        line: Some(LineOptions::counting()),
        ..Setup::default()
    }
}

fn front(world: &World) -> &RdsFront {
    world.database.front().expect("a database with a front")
}

/// The flights of every connection to the database so far.
fn flights(world: &World) -> Vec<Flights> {
    world.database.line().expect("a counting line").flights()
}

/// Round trips of a login over one connection to the database, which is the last one.
async fn round_trips(world: &World, user: &str) -> u32 {
    let known = flights(world).len();
    let client = Raw::log_in(world.proxy.port(), &[("user", user), ("database", "app")]).await;
    let now = flights(world);
    assert_eq!(now.len(), known + 1, "connections of one login: {now:?}");
    let last = now[known];
    assert_eq!(last.up, last.down, "{last:?}");
    client.leave().await;
    last.down
}

fn count(world: &World, wanted: impl Fn(&Event) -> bool) -> usize {
    world.sandbox.events().count(wanted)
}

fn startups(world: &World) -> usize {
    count(world, |event| matches!(event, Event::FrontStartup { .. }))
}

fn dials(world: &World) -> usize {
    count(world, |event| matches!(event, Event::Dial { .. }))
}

/// Version of the protocol, and parameters, of the last startup the front has seen.
fn last_startup(world: &World) -> ((u16, u16), Vec<(String, String)>) {
    let mut all = world.sandbox.events().all().into_iter().rev();
    all.find_map(|event| match event {
        Event::FrontStartup {
            protocol,
            parameters,
            ..
        } => Some((protocol, parameters)),
        _ => None,
    })
    .expect("a startup")
}

/// Whether each TLS connection to the front began without an SSLRequest; and all else about it is
/// as it must be.
fn direct(world: &World, host: &str) -> Vec<bool> {
    let all = world.sandbox.events().all();
    let seen = all.into_iter().filter_map(|event| match event {
        Event::FrontTls {
            direct,
            alpn,
            server_name,
            version,
            ..
        } => {
            assert_eq!(server_name.as_deref(), Some(host));
            assert_eq!(version, "TLSv1.3");
            if direct {
                assert_eq!(alpn.as_deref(), Some("postgresql"));
            }
            Some(direct)
        }
        _ => None,
    });
    seen.collect()
}

/// The verdicts about tokens so far: true for a good one.
fn tokens(world: &World) -> Vec<bool> {
    let all = world.sandbox.events().all();
    let seen = all.into_iter().filter_map(|event| match event {
        Event::DbToken { outcome, .. } => Some(outcome.is_ok()),
        _ => None,
    });
    seen.collect()
}

/// A login with psql that must fail: what psql says, and the log's line about it.
async fn refused(world: &World, args: &[&str]) -> (String, Value) {
    refused_command(
        world,
        world.psql_command(&[args, &["-c", "select 1"]].concat()),
    )
    .await
}

async fn refused_command(world: &World, command: Command) -> (String, Value) {
    let known = refusals(world).len();
    let ran = run(command).await;
    assert_eq!(ran.code, Some(2), "no connection: {ran:?}");
    let line = eventually("a refusal", || refusals(world).into_iter().nth(known)).await;
    (ran.stderr, line)
}

/// psql with the client library of PostgreSQL 18.
fn psql18(world: &World, args: &[&str]) -> Command {
    let mut command = world.psql_command(args);
    command.env("LD_LIBRARY_PATH", eighteen().libdir());
    command
}

/// What psql answers that was let in, and has nothing to complain about.
fn clean_rows(ran: &Ran) -> &str {
    assert_eq!(ran.stderr, "", "{ran:?}");
    ran.rows()
}

/// Adds to a psql that it sleeps, interrupts it, and sees the server's answer to that.
async fn ctrl_c(world: &World, mut command: Command) {
    command
        .args(["-c", "select pg_sleep(600)"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let psql = command.spawn().expect("psql starts");
    let asleep = "select exists (select from pg_stat_activity where state = 'active' \
                  and wait_event = 'PgSleep' and query = 'select pg_sleep(600)')";
    world.wait_sql(asleep).await;
    signal(&psql, Signal::SIGINT);
    let ended = timeout(PATIENCE, psql.wait_with_output()).await;
    let ended = ended.expect("psql ends").expect("psql");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let expected = "Cancel request sent\nERROR:  canceling statement due to user request\n";
    assert_eq!(stderr, expected);
}

/// Protocol version 3 with this minor number, as a startup packet has it.
const fn version(minor: u32) -> u32 {
    3 << 16 | minor
}

/// A client of the bare protocol.
struct Raw {
    stream: TcpStream,
    /// Everything the server has said before the first ReadyForQuery, that one included.
    greeting: Vec<(u8, Vec<u8>)>,
}

impl Raw {
    /// Version 3.0 up to the first ReadyForQuery.
    async fn log_in(port: u16, parameters: &[(&str, &str)]) -> Self {
        let addr = ([127, 0, 0, 1], port).into();
        let client = Self::with_version(addr, version(0), parameters).await;
        let last = client.greeting.last().map(|(kind, body)| (*kind, body));
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        assert!(
            matches!(last, Some((b'Z', _))),
            "{:?}",
            last.map(|(_, body)| text(body))
        );
        client
    }

    /// Up to the first ReadyForQuery, or an error.
    async fn with_version(addr: SocketAddr, version: u32, parameters: &[(&str, &str)]) -> Self {
        let mut client = Self::begin(addr, version, parameters).await;
        client.greeting = client.hear().await;
        client
    }

    /// Only sends the startup packet.
    async fn begin(addr: SocketAddr, version: u32, parameters: &[(&str, &str)]) -> Self {
        let mut packet = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            packet.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        packet.push(0);
        let length = u32::try_from(packet.len() + 4).expect("it is short");
        let mut stream = TcpStream::connect(addr).await.expect("somebody listens");
        let packet = [&length.to_be_bytes(), &packet[..]].concat();
        let sent = stream.write_all(&packet).await;
        sent.expect("the startup is taken");
        Self {
            stream,
            greeting: Vec::new(),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is taken");
    }

    /// The next message: its kind and its body.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let kind = self.stream.read_u8().await.expect("a message");
            let length = self.stream.read_u32().await.expect("its length");
            let mut body = vec![0; usize::try_from(length).expect("a length") - 4];
            self.stream.read_exact(&mut body).await.expect("its body");
            (kind, body)
        };
        timeout(PATIENCE, read).await.expect("a message in time")
    }

    /// Messages up to ReadyForQuery or an error.
    async fn hear(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.next().await);
            if let Some((b'Z' | b'E', _)) = messages.last() {
                return messages;
            }
        }
    }

    /// Sends a query.
    async fn ask(&mut self, sql: &str) {
        let length = u32::try_from(sql.len() + 5).expect("it is short");
        let packet = [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat();
        self.send(&packet).await;
    }

    /// The kinds of messages that answer a query.
    async fn query(&mut self, sql: &str) -> Vec<u8> {
        self.ask(sql).await;
        self.hear().await.iter().map(|(kind, _)| *kind).collect()
    }

    /// The contents of the one message of this kind in the greeting.
    fn told(&self, kind: u8) -> &[u8] {
        let mut all = self.greeting.iter().filter(|message| message.0 == kind);
        let (_, body) = all.next().expect("such a message");
        assert!(all.next().is_none(), "more than one of them");
        body
    }

    /// Terminate, as a client says that is done.
    async fn leave(mut self) {
        let said = self.stream.write_all(b"X\0\0\0\x04").await;
        said.expect("it is taken");
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        ended.expect("the other side closes").expect("in order");
    }
}
