//! Bytes there and back.

use smux::MuxRole;
use tokio::task::JoinSet;

use super::exchange::{Order, Pipe, order, read_exact, serve};
use super::{Ours, Setup, Theirs};
use crate::random::Rng;

/// Sizes at which frames, packets and buffers end.
const EDGES: [usize; 12] = [
    0, 1, 7, 1015, 1016, 1017, 32_767, 32_768, 32_769, 65_535, 65_536, 131_071,
];

async fn all(mut tasks: JoinSet<()>) {
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Both forget every stream.
async fn nothing_left(ours: &Ours, theirs: &Theirs) {
    ours.quiet().await;
    while theirs.connector.get_num_streams() > 0 {
        tokio::task::yield_now().await;
    }
    ours.until(|s| {
        assert_eq!((s.unread, &s.end), (0, &None));
        Some(())
    })
    .await;
}

fn orders(count: u64) -> impl Iterator<Item = Order> {
    (0..count).map(|n| {
        let mut rng = Rng(n);
        let mut size = || match rng.below(2) {
            0 => EDGES[rng.below(EDGES.len())],
            _ => rng.below(100_000),
        };
        Order {
            seed: n,
            body: size(),
            reply: size(),
            write: [100, 5000, 200_000][n as usize % 3],
            opener_closes: n % 2 == 0,
        }
    })
}

/// A conversation on each of many streams at the same time, opened by whoever is the client.
async fn many_streams(setup: Setup, count: u64) {
    let role = setup.ours;
    let (ours, mut theirs) = setup.start();
    let mut tasks = JoinSet::new();
    for plan in orders(count) {
        match role {
            MuxRole::Client => tasks.spawn(order(ours.open(), plan)),
            MuxRole::Server => tasks.spawn(order(theirs.connector.connect().unwrap(), plan)),
        };
    }
    for _ in 0..count {
        match role {
            MuxRole::Client => tasks.spawn(serve(theirs.acceptor.accept().await.unwrap())),
            MuxRole::Server => tasks.spawn(serve(ours.accept().await)),
        };
    }
    all(tasks).await;
    nothing_left(&ours, &theirs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_that_we_open() {
    many_streams(Setup::new(MuxRole::Client), 120).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_that_they_open() {
    many_streams(Setup::new(MuxRole::Server), 120).await;
}

/// The carrier holds less than a frame, and our packets are odd.
#[tokio::test]
async fn a_carrier_of_a_few_bytes() {
    for (role, carrier, packet) in [
        (MuxRole::Client, 13, 9),
        (MuxRole::Client, 64, 70_000),
        (MuxRole::Server, 7, 33),
        (MuxRole::Server, 1000, 40_000),
    ] {
        let setup = Setup {
            carrier,
            packet,
            ..Setup::new(role)
        };
        many_streams(setup, 4).await;
    }
}

/// New streams begin while others are busy and end, a few hundred one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_come_and_go() {
    for role in [MuxRole::Client, MuxRole::Server] {
        let (ours, mut theirs) = Setup::new(role).start();
        let mut tasks = JoinSet::new();
        for plan in orders(300) {
            let plan = Order {
                body: plan.body % 5000,
                reply: plan.reply % 5000,
                ..plan
            };
            match role {
                MuxRole::Client => {
                    tasks.spawn(order(ours.open(), plan));
                    tasks.spawn(serve(theirs.acceptor.accept().await.unwrap()));
                }
                MuxRole::Server => {
                    tasks.spawn(order(theirs.connector.connect().unwrap(), plan));
                    tasks.spawn(serve(ours.accept().await));
                }
            }
            while tasks.len() > 20 {
                tasks.join_next().await.unwrap().unwrap();
            }
        }
        all(tasks).await;
        nothing_left(&ours, &theirs).await;
    }
}

/// Megabytes both ways at the same time, and small questions and answers between them.
async fn large_beside_small<A, B>(mut streams: Vec<(A, B)>)
where
    A: Pipe + 'static,
    B: Pipe + 'static,
{
    const LARGE: usize = 16 << 20;
    let mut tasks = JoinSet::new();
    for (seed, body, reply) in [(1, LARGE, 0), (2, 0, LARGE)] {
        let (opener, acceptor) = streams.pop().unwrap();
        let plan = Order {
            seed,
            body,
            reply,
            write: 100_000,
            opener_closes: true,
        };
        tasks.spawn(order(opener, plan));
        tasks.spawn(serve(acceptor));
    }
    let (mut asks, mut answers) = streams.pop().unwrap();
    let question = Rng(3).bytes(100);
    for _ in 0..50 {
        asks.put(question.clone()).await;
        assert_eq!(read_exact::<100>(&mut answers).await[..], question);
        answers.put(question.clone()).await;
        assert_eq!(read_exact::<100>(&mut asks).await[..], question);
    }
    all(tasks).await;
    answers.close().await;
    assert!(asks.get(1).await.is_empty());
    asks.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_small_on_streams_that_we_open() {
    let (ours, mut theirs) = Setup::new(MuxRole::Client).start();
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push((ours.open(), theirs.acceptor.accept().await.unwrap()));
    }
    large_beside_small(streams).await;
    nothing_left(&ours, &theirs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_small_on_streams_that_they_open() {
    let (ours, theirs) = Setup::new(MuxRole::Server).start();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let stream = theirs.connector.connect().unwrap();
        streams.push((stream, ours.accept().await));
    }
    large_beside_small(streams).await;
    nothing_left(&ours, &theirs).await;
}

/// Their writer makes frames of any size up to the most the length field can say.
#[tokio::test]
async fn frames_of_the_largest_size() {
    let (ours, theirs) = Setup::new(MuxRole::Server).start();
    ours.record();
    let mut stream = theirs.connector.connect().unwrap();
    let acceptor = ours.accept().await;
    let body = Rng(9).bytes(1 << 20);
    let writer = tokio::spawn({
        let body = body.clone();
        async move {
            stream.put(body).await;
            stream
        }
    });
    let mut heard = Vec::new();
    while heard.len() < body.len() {
        let piece = acceptor.receive(usize::MAX).await;
        assert!(!piece.is_empty());
        heard.extend_from_slice(&piece);
    }
    assert!(heard == body);
    drop(writer.await.unwrap());
    ours.quiet().await;
    let wire = ours.until(|s| Some(std::mem::take(&mut s.received))).await;
    let mut lengths = Vec::new();
    let mut rest = &wire[..];
    while let [1, command, l0, l1, _, _, _, _, data @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*l0, *l1]));
        if *command == 2 {
            lengths.push(length);
        }
        rest = &data[length..];
    }
    assert!(rest.is_empty());
    assert_eq!(lengths.iter().sum::<usize>(), body.len());
    let largest = lengths.iter().filter(|length| **length == 65_535).count();
    assert_eq!(largest, 16, "{lengths:?}");
}
