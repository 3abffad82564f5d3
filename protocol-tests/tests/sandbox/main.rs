//! The sandbox judged by its own means: requests signed by the `aws-sigv4` crate, and a small client
//! written over `wire` alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops where it fails"
)]

mod aws_api;
mod client;
mod ec2;
mod endings;
mod gateway;
mod http;
mod kms;
mod oidc;
mod policy;
mod portal;
mod proxy;
mod rds;
mod signin;
mod speed;
mod standing;
mod sts;
mod targets;
mod tunnel;

use std::net::SocketAddr;
use std::time::Duration;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(20);
const DB_HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

/// A server that sends everything back until the peer closes, and then closes.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    match socket.read(&mut buffer).await {
                        Ok(n @ 1..) => {
                            if socket.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                        }
                        _ => return,
                    }
                }
            });
        }
    });
    address
}

/// A sandbox whose database name leads to an echo server, without pacing.
async fn with_echo() -> Sandbox {
    let sandbox = Sandbox::builder().start().await.unwrap();
    sandbox.vpc().open(DB_HOST, 5432, echo_server().await);
    let agent = sandbox.agent(protocol_tests::aws::sandbox::DEFAULT_TARGET);
    agent.set_pacing(false);
    // The client here is a plain one.
    agent.set_races(false);
    sandbox
}

/// Waits for an event and fails with the whole log when it does not come.
async fn expect_event(sandbox: &Sandbox, wanted: impl Fn(&Event) -> bool) -> Event {
    match sandbox.events().wait_for(wanted, PATIENCE).await {
        Some(event) => event,
        None => panic!("the event never came: {:#?}", sandbox.events()),
    }
}

/// Fails when the client did anything the agent would stumble over.
fn assert_no_violation(sandbox: &Sandbox) {
    let found = sandbox
        .events()
        .count(|e| matches!(e, Event::Violation { .. }));
    assert_eq!(found, 0, "{:#?}", sandbox.events());
}
