//! aws-ssm-bridge, a client by somebody else, judges the sandbox: it signs its own requests, frames
//! its own messages and multiplexes its own streams, and nothing of it was written with our agent in
//! view.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use protocol_tests::bench::blast::{self, Blast};
use protocol_tests::bench::forwarder::Forwarder;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Where `./dev test` says the program is.
const VARIABLE: &str = "PGIAM_BRIDGE_FORWARD";
/// What the sessions lead to.
const GOAL: (&str, u16) = ("service.internal", 7000);
/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    match std::env::var_os(VARIABLE) {
        Some(path) => path.into(),
        None => panic!(
            "{VARIABLE} is not set: `./dev judges` builds the program and prints the line to \
             export, and `./dev test` does all of it"
        ),
    }
}

/// A sandbox with `service` behind its bastion, without the agent's pace, and a forwarder to it.
async fn world(service: SocketAddr) -> (Sandbox, Forwarder) {
    let sandbox = Sandbox::builder().start().await.unwrap();
    sandbox.vpc().open(GOAL.0, GOAL.1, service);
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.set_pacing(false);
    agent.set_races(false);
    let bridge = start(&sandbox).await;
    (sandbox, bridge)
}

async fn start(sandbox: &Sandbox) -> Forwarder {
    Forwarder::bridge(&program(), sandbox, DEFAULT_TARGET, GOAL)
        .await
        .unwrap()
}

/// A server that sends everything back until the peer closes, and then closes.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    address
}

/// Bytes that no other seed has.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let blocks =
        (0_u64..).flat_map(|n| Sha256::digest([seed.to_be_bytes(), n.to_be_bytes()].concat()));
    blocks.take(length).collect()
}

/// Sends `bytes` and returns the hash of as many that come back.
async fn echo(address: SocketAddr, bytes: Vec<u8>) -> [u8; 32] {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let length = bytes.len();
    // Kept until the end: with this way closed the service would close the other one too.
    let sender = tokio::spawn(async move {
        writer.write_all(&bytes).await.unwrap();
        writer
    });
    let mut back = vec![0; length];
    let read = timeout(PATIENCE, reader.read_exact(&mut back));
    read.await.expect("in time").unwrap();
    drop(sender.await.unwrap());
    Sha256::digest(&back).into()
}

/// Several connections at once, each with bytes of its own.
async fn echo_in_parallel(address: SocketAddr, connections: u64, length: usize) {
    let all = (0..connections).map(|seed| {
        let bytes = noise(seed, length);
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        tokio::spawn(async move { (seed, echo(address, bytes).await == expected) })
    });
    for connection in all.collect::<Vec<_>>() {
        let (seed, same) = connection.await.unwrap();
        assert!(same, "connection {seed} got other bytes back");
    }
}

fn assert_no_violation(sandbox: &Sandbox) {
    let mut events = sandbox.events().all().into_iter();
    let violation = events.find(|event| matches!(event, Event::Violation { .. }));
    assert_eq!(violation, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_connections_carry_their_own_bytes_both_ways() {
    let (sandbox, bridge) = world(echo_server().await).await;
    echo_in_parallel(bridge.address(), 1, 4 << 20).await;
    echo_in_parallel(bridge.address(), 8, 512 << 10).await;
    let dials = |event: &Event| matches!(event, Event::Dial { result: Ok(()), .. });
    assert_eq!(sandbox.events().count(dials), 9);
    assert_no_violation(&sandbox);
    bridge.stop().await.unwrap();
    let ended = |event: &Event| matches!(event, Event::SessionEnded { .. });
    let ended = sandbox.events().wait_for(ended, PATIENCE).await;
    assert!(ended.is_some(), "the session outlives its client");
    sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_goes_both_ways_at_the_same_time() {
    let service = Blast::start().await.unwrap();
    let (sandbox, bridge) = world(service.address()).await;
    let (address, count) = (bridge.address(), 8 << 20);
    let both = async {
        tokio::try_join!(
            blast::download(address, count),
            blast::upload(address, count),
            blast::download(address, count / 4),
        )
    };
    timeout(PATIENCE, both).await.expect("in time").unwrap();
    assert_no_violation(&sandbox);
    bridge.stop().await.unwrap();
    sandbox.shutdown().await;
}

/// The agent loses the first stream message and looks away when some acknowledgements come, as the
/// real one does on a fast link. Another client has to get over that as well as ours.
#[tokio::test(flavor = "multi_thread")]
async fn the_races_of_a_fast_link_cost_no_byte() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    sandbox.vpc().open(GOAL.0, GOAL.1, echo_server().await);
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.set_pacing(false);
    agent.set_races(true);
    let bridge = start(&sandbox).await;
    echo_in_parallel(bridge.address(), 4, 256 << 10).await;
    let events = sandbox.events();
    assert_eq!(events.count(|e| matches!(e, Event::InputDropped { .. })), 1);
    let resent = |event: &Event| matches!(event, Event::AgentResent { .. });
    assert!(events.wait_for(resent, PATIENCE).await.is_some());
    assert_no_violation(&sandbox);
    bridge.stop().await.unwrap();
    sandbox.shutdown().await;
}
