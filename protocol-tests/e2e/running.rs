//! A running program as those see it who look after it: health, metrics, `pgiam status`, `wait` and
//! `stop`, the service manager.

mod activation;
mod background;
mod control;
mod exposition;
mod health;
mod page;
mod page_access;
mod page_parts;
mod service;
mod shown;
mod stop_target;
mod systemd;

use std::net::SocketAddr;
use std::path::PathBuf;

use protocol_tests::harness::program::clean_env;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, Ran, Setup, World, pgiam, run};

/// A world whose program answers HTTP.
async fn world() -> World {
    world_with(&[]).await
}

async fn world_with(args: &[&str]) -> World {
    let args = ["--http-port", "0"].iter().chain(args);
    World::with(Setup {
        args: args.map(ToString::to_string).collect(),
        ..Setup::default()
    })
    .await
}

/// `pgiam` with these words, for the program of this world.
pub(crate) fn command(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(pgiam());
    clean_env(&mut command, &["AWS_", "PGIAM_"]);
    command
        .args(args)
        .arg("--state-dir")
        .arg(world.sandbox.dir().join("state"))
        .kill_on_drop(true);
    command
}

pub(crate) async fn ask(world: &World, args: &[&str]) -> Ran {
    run(command(world, args)).await
}

/// What `pgiam status --json` says about the program of this world; others may run, too.
async fn status(world: &World) -> Value {
    let pid = world.proxy.pid().expect("pgiam runs");
    let ran = ask(world, &["status", "--json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let all: Vec<Value> = serde_json::from_str(&ran.stdout).expect("JSON");
    let own = all.into_iter().find(|process| process["pid"] == pid);
    own.unwrap_or_else(|| panic!("{pid} is not among them: {}", ran.stdout))
}

/// Asks until the status of the one target is as it should be.
async fn until(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = timeout(PATIENCE, async {
        loop {
            let target = status(world).await["targets"][0].take();
            if is(&target) {
                return target;
            }
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Where the program answers HTTP.
async fn http(world: &World) -> SocketAddr {
    let process = status(world).await;
    let address = process["http"].as_str().expect("an address");
    address.parse().expect("an address")
}

/// The control socket of a process.
fn socket(world: &World) -> PathBuf {
    let pid = world.proxy.pid().expect("pgiam runs");
    let dir = world.sandbox.dir().join("state").join("run");
    dir.join(format!("pgiam.{pid}.sock"))
}

/// Posts to the control socket; the status and the body of the answer.
async fn post(world: &World, path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket(world)).await.expect("pgiam");
    let request = format!("POST {path} HTTP/1.1\r\nHost: pgiam\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut text = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("in time").expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// What is answered: the status, the head and the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            status: status.expect("a status"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path).await
}

pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    raw(address, &head).await
}

/// Sends the lines of a head.
async fn raw(address: SocketAddr, head: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    let request = format!("{head}\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut text = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("in time").expect("an answer");
    Answer::of(&text)
}
