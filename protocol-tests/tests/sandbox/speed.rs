//! Measurements; run on purpose with `--ignored --nocapture`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

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

/// The sandbox on a thread and a runtime of its own, so that what it costs can be told from what
/// the client and the server cost.
struct Apart {
    sandbox: Arc<Sandbox>,
    /// The thread's entry in `/proc`.
    thread: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    running: Option<std::thread::JoinHandle<()>>,
}

impl Apart {
    async fn start() -> Self {
        let (ready, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("sandbox".to_owned());
        let running = thread.spawn(move || {
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let sandbox = Arc::new(Sandbox::builder().start().await.unwrap());
                let thread = PathBuf::from("/proc").join(thread);
                drop(ready.send((sandbox, thread)));
                let _ = stopped.await;
            });
        });
        let running = running.unwrap();
        let (sandbox, thread) = started.await.unwrap();
        Self {
            sandbox,
            thread,
            stop: Some(stop),
            running: Some(running),
        }
    }

    /// Processor time of the thread so far, in seconds.
    fn spent(&self) -> f64 {
        let text = std::fs::read_to_string(self.thread.join("schedstat")).unwrap();
        let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
        nanoseconds / 1e9
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// What the gateway and the agent spend on each message they send, its acknowledgement included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_a_message() {
    let total = 256 << 20;
    let apart = Apart::start().await;
    let sandbox = &apart.sandbox;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    sandbox
        .vpc()
        .open(DB_HOST, 5432, listener.local_addr().unwrap());
    sandbox.agent(DEFAULT_TARGET).set_pacing(false);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let chunk = vec![7; 1 << 16];
        for _ in 0..total / chunk.len() {
            socket.write_all(&chunk).await.unwrap();
        }
    });
    let session = start_session(sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(sandbox, &session, "1.2.764.0").await;
    let (begin, before) = (Instant::now(), apart.spent());
    client.frame(SYN, 3, b"").await;
    let mut received = 0;
    loop {
        match client.next_frame().await.unwrap() {
            (FIN, ..) => break,
            (_, _, data) => received += data.len(),
        }
    }
    assert_eq!(received, total);
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), apart.spent() - before);
    let messages = total as f64 / 1024.0;
    println!(
        "{:.0} ns of sandbox per message; {:.0} MB/s wall, {:.0} MB/s by its processor time",
        cpu * 1e9 / messages,
        total as f64 / wall / 1e6,
        total as f64 / cpu / 1e6,
    );
}
