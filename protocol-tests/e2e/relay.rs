//! `pgiam relay` as a process: a client's bundle over real carriers, and databases that are sockets
//! of the test.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test are test code too"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pgiam::striping::{
    CarrierEnd, Refusal, RefusalKind, StripedBundle, StripedStream, StripingError,
};
use protocol_tests::harness::program::{Launch, Proxy};
use stripe::{BundleId, Hello, HelloReply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{PATIENCE, Ran, pgiam, run};

/// Name of the database in the allow list; the relay has its address from `--resolve`.
const NAME: &str = "db.internal";
/// Bytes that a carrier of a session passes on in a millisecond.
const PACE: usize = 1024;

/// Starts `pgiam relay` on a free port.
async fn relay(args: &[&str]) -> Proxy {
    let mut all = vec!["relay", "--resolve", "db.internal=127.0.0.1"];
    all.extend(args);
    if !args.contains(&"--port") {
        all.extend(["--port", "0"]);
    }
    let mut relay = Proxy::start(Launch {
        pgiam: pgiam(),
        args: all.into_iter().map(Into::into).collect(),
        env: Vec::new(),
        collect_log: true,
    })
    .expect("pgiam starts");
    relay.wait_ready(PATIENCE).await.expect("the relay listens");
    relay
}

/// A database: sends `down` and closes its direction; returns the bytes that came.
async fn database(down: Vec<u8>) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = format!("{NAME}:{}", listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = client.split();
        let sending = async {
            writer.write_all(&down).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(sending, reader.read_to_end(&mut got));
        read.unwrap();
        got
    });
    (target, task)
}

/// An echo server that serves until the test ends; returns its target.
async fn echo() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = format!("{NAME}:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = client.split();
                _ = tokio::io::copy(&mut reader, &mut writer).await;
                _ = writer.shutdown().await;
            });
        }
    });
    target
}

/// A client of a relay.
struct Client {
    port: u16,
    bundle: StripedBundle,
    wires: JoinSet<()>,
    generations: [u16; 32],
    is_paced: bool,
}

impl Client {
    fn new(relay: &Proxy) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let tasks = TaskTracker::new();
        Self {
            port: relay.port(),
            bundle: StripedBundle::client(BundleId::new(id), &tasks, &CancellationToken::new()),
            wires: JoinSet::new(),
            generations: [0; 32],
            is_paced: false,
        }
    }

    async fn with_carriers(relay: &Proxy, count: u8) -> Self {
        let mut client = Self::new(relay);
        for index in 0..count {
            client.carrier(index).await;
        }
        client
    }

    /// One whose carriers are as slow as sessions.
    async fn paced(relay: &Proxy, count: u8) -> Self {
        let mut client = Self::new(relay);
        client.is_paced = true;
        for index in 0..count {
            client.carrier(index).await;
        }
        client
    }

    /// Opens a carrier and waits until the relay has accepted it; returns the handle that cuts it.
    async fn carrier(&mut self, index: u8) -> AbortHandle {
        let (cut, accepted) = self.try_carrier(index).await;
        accepted.unwrap_or_else(|end| panic!("carrier {index}: {end:?}"));
        cut
    }

    async fn try_carrier(&mut self, index: u8) -> (AbortHandle, Result<(), CarrierEnd>) {
        let generation = &mut self.generations[usize::from(index)];
        *generation += 1;
        let (near, middle) = duplex(16 * 1024);
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .unwrap();
        server.set_nodelay(true).unwrap();
        let cut = match self.is_paced {
            true => self.wires.spawn(paced(middle, server)),
            false => self.wires.spawn(async move {
                let (mut middle, mut server) = (middle, server);
                _ = copy_bidirectional(&mut middle, &mut server).await;
            }),
        };
        let carrier = self.bundle.attach(index, *generation, Box::new(near));
        let mut carrier = carrier.unwrap();
        let ready = timeout(PATIENCE, carrier.ready()).await.unwrap();
        (cut, ready)
    }

    fn open(&self, target: &str) -> StripedStream {
        self.bundle.open(target).unwrap()
    }

    /// Opens a stream that the relay refuses; returns the reason.
    async fn refusal(&self, target: &str) -> Refusal {
        refusal(&mut self.open(target)).await
    }
}

/// A carrier as slow as a session towards the client.
async fn paced(middle: tokio::io::DuplexStream, mut server: TcpStream) {
    let (mut from_client, mut to_client) = split(middle);
    let (mut from_relay, mut to_relay) = server.split();
    let down = async {
        let mut piece = [0; PACE];
        while let Ok(length @ 1..) = from_relay.read(&mut piece).await {
            if to_client.write_all(&piece[..length]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let up = tokio::io::copy(&mut from_client, &mut to_relay);
    _ = tokio::join!(down, up);
}

async fn refusal(stream: &mut StripedStream) -> Refusal {
    let error = loop {
        match timeout(PATIENCE, stream.read(&mut [0; 4096]))
            .await
            .unwrap()
        {
            Ok(0) => panic!("the stream ended in order"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    match StripingError::of(&error) {
        Some(StripingError::Reset(refusal)) => refusal.clone(),
        other => panic!("{other:?}: {error}"),
    }
}

/// Bytes that are different everywhere.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Sends and receives at once; returns what came.
async fn exchange(stream: StripedStream, send: Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = split(stream);
    let sending = async {
        writer.write_all(&send).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let both = async { tokio::join!(sending, reader.read_to_end(&mut got)) };
    let ((), read) = timeout(PATIENCE, both).await.unwrap();
    read.unwrap();
    got
}

/// Resident memory of a process in bytes.
fn resident(relay: &Proxy) -> u64 {
    let path = format!("/proc/{}/status", relay.pid().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

async fn stop(relay: Proxy) {
    relay.stop().await.expect("the relay ends with success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_arrive_over_eight_sessions_in_both_directions_at_once() {
    let (up, down) = (noise(6_000_000, 1), noise(9_000_000, 2));
    let (target, database) = database(down.clone()).await;
    let relay = relay(&["--allow", &target]).await;
    let client = Client::with_carriers(&relay, 8).await;
    let got = exchange(client.open(&target), up.clone()).await;
    assert!(got == down, "download");
    assert!(database.await.unwrap() == up, "upload");
    client.bundle.shutdown("done").await;
    stop(relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_twenty_killed_sessions() {
    let (up, down) = (noise(8_000_000, 3), noise(12_000_000, 4));
    let (target, database) = database(down.clone()).await;
    let relay = relay(&["--allow", &target]).await;
    let mut client = Client::new(&relay);
    let mut wires = Vec::new();
    for index in 0..8 {
        wires.push(client.carrier(index).await);
    }
    let transfer = tokio::spawn(exchange(client.open(&target), up.clone()));
    let received = |client: &Client| {
        let stats = client.bundle.stats();
        stats.iter().map(|carrier| carrier.received).sum::<u64>()
    };
    for (cut, random) in noise(20, 5).into_iter().enumerate() {
        // Each cut comes at another moment of the transfer.
        let before = received(&client);
        while received(&client) < before + 20_000 * (cut as u64 % 7) && !transfer.is_finished() {
            tokio::task::yield_now().await;
        }
        let index = random % 8;
        wires[usize::from(index)].abort();
        wires[usize::from(index)] = client.carrier(index).await;
    }
    assert!(transfer.await.unwrap() == down, "download");
    assert!(database.await.unwrap() == up, "upload");
    stop(relay).await;
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let shut = format!("{NAME}:{}", closed.local_addr().unwrap().port());
    drop(closed);
    let relay = relay(&["--allow", &shut, "--allow", "localhost,db.invalid"]).await;
    let client = Client::with_carriers(&relay, 2).await;
    for (target, kind, words) in [
        (
            "secret.internal:22",
            RefusalKind::NotAllowed,
            "secret.internal:22 is not in the allow list of this relay; add it there: pgiam relay --allow secret.internal:22",
        ),
        (
            "127.0.0.1:22",
            RefusalKind::NotAllowed,
            "127.0.0.1:22 is not in the allow list of this relay; add it there: pgiam relay --allow 127.0.0.1:22",
        ),
        (
            "169.254.169.254:80",
            RefusalKind::NotAllowed,
            "is not in the allow list",
        ),
        (
            "localhost:5432",
            RefusalKind::NotAllowed,
            "an address of the bastion itself or of its metadata service",
        ),
        (
            "db.invalid:5432",
            RefusalKind::UnknownName,
            "the bastion cannot resolve db.invalid: ",
        ),
        (&shut, RefusalKind::Refused, " refused the connection"),
        (
            "\u{1b}[31m",
            RefusalKind::Other,
            "the target is not HOST:PORT",
        ),
    ] {
        let refusal = client.refusal(target).await;
        assert_eq!(refusal.kind, kind, "{target}: {refusal}");
        assert!(refusal.words.contains(words), "{target}: {refusal}");
    }
    let line = relay.wait_log("refused", PATIENCE).await.unwrap();
    assert_eq!(line["endpoint"], "secret.internal:22", "{line}");
    assert_eq!(line["code"], "not-allowed", "{line}");
    assert!(
        !relay.log_text().contains("\\u001b[31m"),
        "{}",
        relay.log_text()
    );
    stop(relay).await;
}

#[tokio::test]
async fn a_hello_of_another_version_and_of_an_unknown_client_get_words() {
    let mut relay = relay(&[]).await;
    let port = relay.port();
    let dial = || async move {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap()
    };
    let answer = |first: Vec<u8>| async move {
        let mut socket = dial().await;
        socket.write_all(&first).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, socket.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    };
    let hello = |index, generation| Hello {
        bundle: BundleId::new([3; 16]),
        index,
        generation,
    };
    let refusal = |answer: &[u8]| match HelloReply::decode(answer).unwrap() {
        Some((HelloReply::Refused(text), length)) if length == answer.len() => {
            Refusal::parse(&text)
        }
        other => panic!("{other:?}"),
    };

    let mut later = hello(0, 1).encode().to_vec();
    later[4] = 2;
    let refused = refusal(&answer(later).await);
    assert_eq!(refused.kind, RefusalKind::Version);
    assert_eq!(
        refused.words,
        "the relay speaks version 1 of its protocol, the client version 2; update the older pgiam"
    );
    for (index, generation) in [(0, 2), (1, 1)] {
        let refused = refusal(&answer(hello(index, generation).encode().to_vec()).await);
        assert_eq!(refused.kind, RefusalKind::UnknownBundle, "{refused}");
    }
    // A known bundle takes each generation once.
    let mut first = dial().await;
    first.write_all(&hello(0, 1).encode()).await.unwrap();
    let mut accepted = [0; 8];
    timeout(PATIENCE, first.read_exact(&mut accepted))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        HelloReply::decode(&accepted),
        Ok(Some((HelloReply::Accepted, 8)))
    );
    let refused = refusal(&answer(hello(0, 1).encode().to_vec()).await);
    assert_eq!(refused.kind, RefusalKind::Generation, "{refused}");
    assert!(
        refused.words.contains("subflow 0 has generation 1 already"),
        "{refused}"
    );

    // Other protocols get no answer, and a health check no line.
    assert_eq!(answer(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await, b"");
    let mut check = dial().await;
    check.shutdown().await.unwrap();
    let closed = timeout(PATIENCE, check.read(&mut [0; 1])).await.unwrap();
    assert_eq!(closed.unwrap(), 0);
    relay.signal(Signal::SIGTERM).unwrap();
    relay.wait_end(PATIENCE).await.unwrap();
    relay.wait_log("stopped", PATIENCE).await.unwrap();
    let log = relay.log_text();
    for (message, count) in [("refused", 4), ("client connected", 1), ("client gone", 1)] {
        let found = log.matches(&format!("\"message\":\"{message}\"")).count();
        assert_eq!(found, count, "{message}: {log}");
    }
    // stopping, stopped
    assert_eq!(log.lines().count(), 4 + 1 + 1 + 2, "{log}");
}

/// Connections of which neither end reads, beside one that both ends use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_ends_cost_a_bounded_amount_of_memory() {
    const STALLED: usize = 20;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stalled = format!("{NAME}:{}", listener.local_addr().unwrap().port());
    let echo = echo().await;
    let relay = relay(&["--allow", &format!("{stalled},{echo}")]).await;
    let client = Client::with_carriers(&relay, 4).await;
    let small = |seed| exchange(client.open(&echo), noise(200_000, seed));
    assert!(small(1).await == noise(200_000, 1));
    let before = resident(&relay);
    let sent = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let mut write = |mut writer: Box<dyn tokio::io::AsyncWrite + Unpin + Send>| {
        let sent = Arc::clone(&sent);
        writers.spawn(async move {
            let data = vec![7; 16 * 1024];
            while writer.write_all(&data).await.is_ok() {
                sent.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
        });
    };
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        let (near_reader, near) = split(client.open(&stalled));
        let (far_reader, far) = listener.accept().await.unwrap().0.into_split();
        write(Box::new(near));
        write(Box::new(far));
        readers.push((near_reader, far_reader));
    }
    // Until no writer gets further, and the working connection still does.
    let mut last = (0, Instant::now());
    while last.1.elapsed() < Duration::from_millis(500) {
        assert!(small(2).await == noise(200_000, 2));
        let now = sent.load(Ordering::Relaxed);
        if now > last.0 {
            last = (now, Instant::now());
        }
    }
    // Up: a window of 256 KiB in the relay. Down: 64 KiB of queue and a window in flight.
    let grown = resident(&relay).saturating_sub(before);
    let bound = STALLED as u64 * 2 * (256 + 64) * 1024 + 16 * 1024 * 1024;
    assert!(grown < bound, "{grown} bytes more, the bound is {bound}");
    writers.abort_all();
    stop(relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_streams_share_and_leave_room_for_small_messages() {
    let echo = echo().await;
    let big = noise(3_000_000, 6);
    let (first, second) = (database(big.clone()).await, database(big.clone()).await);
    let allow = format!("{echo},{},{}", first.0, second.0);
    let relay = relay(&["--allow", &allow]).await;
    let client = Client::paced(&relay, 8).await;
    let read = |target: &str| {
        let (mut stream, total) = (client.open(target), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&total);
        let length = big.len() as u64;
        let task = tokio::spawn(async move {
            let mut piece = vec![0; 64 * 1024];
            while counter.load(Ordering::Relaxed) < length {
                let read = stream.read(&mut piece).await.unwrap();
                counter.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
        (task, total)
    };
    let (one, two) = (read(&first.0), read(&second.0));
    let mut small = client.open(&echo);
    let mut waits = Vec::new();
    while !one.0.is_finished() && !two.0.is_finished() {
        let begun = Instant::now();
        small.write_all(&[9; 64]).await.unwrap();
        timeout(PATIENCE, small.read_exact(&mut [0; 64]))
            .await
            .unwrap()
            .unwrap();
        waits.push(begun.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let read = [&one.1, &two.1].map(|total| total.load(Ordering::Relaxed));
    let ratio = read[0] as f64 / read[1] as f64;
    assert!((0.8..1.25).contains(&ratio), "{read:?}");
    waits.sort();
    // 6 MB through 8 sessions: without the express lane each message waits behind 30 KB in one of
    // them, 30 ms at least.
    let median = waits[waits.len() / 2];
    assert!(
        waits.len() > 10 && median < Duration::from_millis(25),
        "{median:?} of {}",
        waits.len()
    );
    one.0.abort();
    two.0.abort();
    stop(relay).await;
}

#[tokio::test]
async fn a_restarted_relay_does_not_know_its_clients() {
    let echo = echo().await;
    let mut first = relay(&["--allow", &echo]).await;
    let mut client = Client::with_carriers(&first, 2).await;
    let mut open = client.open(&echo);
    open.write_all(b"hello").await.unwrap();
    timeout(PATIENCE, open.read_exact(&mut [0; 5]))
        .await
        .unwrap()
        .unwrap();
    first.signal(Signal::SIGKILL).unwrap();
    first.wait_end(PATIENCE).await.unwrap();
    let port = first.port().to_string();
    let second = relay(&["--allow", &echo, "--port", &port]).await;
    for index in 0..2 {
        match client.try_carrier(index).await.1 {
            Err(CarrierEnd::Refused(refusal)) => {
                assert_eq!(refusal.kind, RefusalKind::UnknownBundle);
                assert!(refusal.words.contains("it was restarted"), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
    }
    // A new bundle works.
    let again = Client::with_carriers(&second, 1).await;
    assert!(exchange(again.open(&echo), b"again".to_vec()).await == b"again");
    stop(second).await;
}

#[tokio::test]
async fn sigterm_lets_connections_finish_and_tells_the_others() {
    let echo = echo().await;
    let mut relay = relay(&["--allow", &echo, "--drain-timeout", "2"]).await;
    let client = Client::with_carriers(&relay, 2).await;
    let mut open = client.open(&echo);
    let mut ends = client.open(&echo);
    for stream in [&mut open, &mut ends] {
        stream.write_all(b"hello").await.unwrap();
        timeout(PATIENCE, stream.read_exact(&mut [0; 5]))
            .await
            .unwrap()
            .unwrap();
    }
    relay.signal(Signal::SIGTERM).unwrap();
    // It refuses new connections by then.
    let waiting = relay.wait_log("waiting for open connections", PATIENCE);
    waiting.await.unwrap();
    assert_eq!(
        client.refusal(&echo).await,
        Refusal::new(RefusalKind::Stopping, "the relay is stopping")
    );
    // It still works while the relay waits.
    assert!(exchange(ends, b"last".to_vec()).await == b"last");
    assert_eq!(
        refusal(&mut open).await,
        Refusal::new(RefusalKind::Stopping, "the relay is stopping")
    );
    let ended = relay.wait_end(PATIENCE).await.unwrap();
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn a_relay_at_its_limit_of_connections_says_so() {
    let echo = echo().await;
    let relay = relay(&["--allow", &echo, "--max-connections", "1"]).await;
    let client = Client::with_carriers(&relay, 1).await;
    let mut first = client.open(&echo);
    first.write_all(b"hello").await.unwrap();
    timeout(PATIENCE, first.read_exact(&mut [0; 5]))
        .await
        .unwrap()
        .unwrap();
    let refused = client.refusal(&echo).await;
    assert_eq!(refused.kind, RefusalKind::Full);
    assert!(
        refused.words.contains("pgiam relay --max-connections"),
        "{refused}"
    );
    // The place is free again when the connection has ended.
    first.shutdown().await.unwrap();
    assert_eq!(
        timeout(PATIENCE, first.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    drop(first);
    let until = Instant::now() + PATIENCE;
    loop {
        let mut next = client.open(&echo);
        next.write_all(b"again").await.unwrap();
        match timeout(PATIENCE, next.read_exact(&mut [0; 5]))
            .await
            .unwrap()
        {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
    stop(relay).await;
}

#[tokio::test]
async fn the_command_line_takes_ports_and_patterns_only() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let taken = port.local_addr().unwrap().port().to_string();
    for (args, code, words) in [
        (
            &["--port", "0.0.0.0:5439"][..],
            2,
            "expected a whole number",
        ),
        (
            &["--allow", "*"],
            2,
            "a name of * alone would allow every host",
        ),
        (&["--allow", "db:0"], 2, "\"0\" is not a port"),
        (&["--resolve", "db"], 2, "expected NAME=ADDRESS"),
        (&["--port", &taken], 1, "choose another port"),
    ] {
        let mut command = tokio::process::Command::new(pgiam());
        protocol_tests::harness::program::clean_env(&mut command, &["PGIAM_", "AWS_"]);
        command.arg("relay").args(args);
        let Ran {
            code: ended,
            stderr,
            ..
        } = run(command).await;
        assert_eq!(ended, Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
    let relay = relay(&["--allow", "rds,*.internal:5432"]).await;
    let ready = format!(
        "ready  relay  127.0.0.1:{}  → RDS, Aurora, RDS Proxy and DSQL endpoints, *.internal:5432",
        relay.port()
    );
    assert_eq!(relay.ready_line(), ready);
    stop(relay).await;
}
