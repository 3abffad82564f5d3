//! Measurements; run on purpose with `--ignored --nocapture`.

use std::time::Instant;

use protocol_tests::sandbox::{DEFAULT_TARGET, Sandbox};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::client::{FIN, MiniClient, SYN};
use crate::http::start_session;
use crate::{DB_HOST, assert_no_violation};

/// Bytes per second from a server that sends `total` bytes and closes.
async fn download(paced: bool, total: usize) -> f64 {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    sandbox
        .vpc()
        .open(DB_HOST, 5432, listener.local_addr().unwrap());
    sandbox.agent(DEFAULT_TARGET).set_pacing(paced);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let chunk = vec![7; 1 << 16];
        for _ in 0..total / chunk.len() {
            socket.write_all(&chunk).await.unwrap();
        }
    });
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
    let begin = Instant::now();
    client.frame(SYN, 3, b"").await;
    let mut received = 0;
    loop {
        match client.next_frame().await.unwrap() {
            (FIN, ..) => break,
            (_, _, data) => received += data.len(),
        }
    }
    assert_eq!(received, total);
    assert_no_violation(&sandbox);
    received as f64 / begin.elapsed().as_secs_f64()
}

#[tokio::test]
async fn the_pace_is_the_real_agents() {
    let speed = download(true, 1 << 19).await;
    // A slow machine may be slower, never faster.
    assert!(speed < 800_000.0, "{speed}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn download_speed_paced() {
    println!("{:.2} MB/s", download(true, 2 << 20).await / 1e6);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn download_speed_unpaced() {
    println!("{:.2} MB/s", download(false, 50 << 20).await / 1e6);
}
