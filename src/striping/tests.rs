//! A client and a relay over carriers that can be cut.

use std::sync::Arc;
use std::time::Duration;

use stripe::{BundleId, StripeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

/// Deadline of everything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client's bundle, a relay's bundle, and the carriers between them.
struct Joined {
    client: StripedBundle,
    relay: StripedBundle,
    opened: OpenedStreams,
    tasks: TaskTracker,
    stop: CancellationToken,
    wires: JoinSet<()>,
    generations: [u16; 32],
}

impl Joined {
    fn new() -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let client = StripedBundle::client(BundleId::new([7; 16]), &tasks, &stop);
        let (relay, opened) = StripedBundle::relay(&tasks, &stop);
        Self {
            client,
            relay,
            opened,
            tasks,
            stop,
            wires: JoinSet::new(),
            generations: [0; 32],
        }
    }

    async fn with_carriers(count: u8) -> Self {
        let mut joined = Self::new();
        for index in 0..count {
            joined.carrier(index).await;
        }
        joined
    }

    /// Adds a carrier; returns the handle that cuts it.
    async fn carrier(&mut self, index: u8) -> AbortHandle {
        let (mut near, mut far) = self.ends(index).await;
        self.wires.spawn(async move {
            _ = copy_bidirectional(&mut near, &mut far).await;
        })
    }

    /// Adds a carrier whose middle is returned, after its hello has passed.
    async fn ends(&mut self, index: u8) -> (DuplexStream, DuplexStream) {
        let generation = &mut self.generations[usize::from(index)];
        *generation += 1;
        let (client, mut near) = duplex(4096);
        let (mut far, mut relay) = duplex(4096);
        let attached = self.client.attach(index, *generation, Box::new(client));
        attached.unwrap();
        let (hello, rest) = read_hello(&mut near).await.unwrap();
        assert_eq!((hello.index, hello.generation), (index, *generation));
        far.write_all(&rest).await.unwrap();
        let mut first = vec![0; rest.len()];
        relay.read_exact(&mut first).await.unwrap();
        let accepted = self.relay.accept(&hello, Box::new(relay), &first);
        accepted.map_err(|failed| failed.1).unwrap();
        (near, far)
    }

    async fn stream(&mut self) -> (StripedStream, StripedStream) {
        let near = self.client.open("db:5432").unwrap();
        let (far, target) = timeout(DEADLINE, self.opened.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(target, "db:5432");
        (near, far)
    }

    async fn until(&self, bundle: &StripedBundle, wanted: impl FnMut(&BundleState) -> bool) {
        let mut state = bundle.state();
        timeout(DEADLINE, state.wait_for(wanted))
            .await
            .unwrap()
            .unwrap();
    }

    /// Ends everything; a task that stays fails the test.
    async fn finish(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(DEADLINE, self.tasks.wait()).await.unwrap();
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
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        writer.write_all(&send).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let receiving = reader.read_to_end(&mut got);
    let ((), read) = timeout(DEADLINE, async { tokio::join!(sending, receiving) })
        .await
        .unwrap();
    read.unwrap();
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_arrive_in_order_in_both_directions_at_once() {
    for carriers in [1, 8] {
        let mut joined = Joined::with_carriers(carriers).await;
        let (near, far) = joined.stream().await;
        let (up, down) = (noise(3_000_000, 1), noise(5_000_000, 2));
        let expected = (down.clone(), up.clone());
        let far = tokio::spawn(exchange(far, down));
        let got = exchange(near, up).await;
        assert!((got, far.await.unwrap()) == expected, "{carriers}");
        joined
            .until(&joined.client, |state| state.streams == 0)
            .await;
        joined
            .until(&joined.relay, |state| state.streams == 0)
            .await;
        let stats = joined.client.stats();
        assert_eq!(stats.len(), usize::from(carriers));
        assert!(
            stats
                .iter()
                .all(|carrier| carrier.is_ready && carrier.sent > 10_000),
            "{stats:?}"
        );
        joined.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_twenty_cut_carriers() {
    let mut joined = Joined::new();
    let mut wires = Vec::new();
    for index in 0..8 {
        wires.push(joined.carrier(index).await);
    }
    let (near, far) = joined.stream().await;
    let (up, down) = (noise(8_000_000, 3), noise(8_000_000, 4));
    let expected = (down.clone(), up.clone());
    let far = tokio::spawn(exchange(far, down));
    let near = tokio::spawn(exchange(near, up));
    let mut random = noise(20, 5).into_iter();
    for cut in 1_u64..=20 {
        // Each cut comes at another moment of the transfer.
        let moved = |stats: &[CarrierStats]| stats.iter().map(|one| one.received).sum::<u64>();
        let before = moved(&joined.client.stats());
        while moved(&joined.client.stats()) < before + 10_000 * (cut % 5) && !near.is_finished() {
            tokio::task::yield_now().await;
        }
        let index = random.next().unwrap() % 8;
        wires[usize::from(index)].abort();
        wires[usize::from(index)] = joined.carrier(index).await;
    }
    assert!((near.await.unwrap(), far.await.unwrap()) == expected);
    joined.finish().await;
}

#[tokio::test]
async fn a_stream_outlives_its_last_carrier() {
    let mut joined = Joined::new();
    let wire = joined.carrier(0).await;
    let (mut near, mut far) = joined.stream().await;
    near.write_all(b"before").await.unwrap();
    wire.abort();
    joined
        .until(&joined.client, |state| state.carriers == 0)
        .await;
    near.write_all(b" and after").await.unwrap();
    near.shutdown().await.unwrap();
    joined.carrier(5).await;
    let mut got = String::new();
    timeout(DEADLINE, far.read_to_string(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, "before and after");
    joined.finish().await;
}

#[tokio::test]
async fn a_refusal_reaches_the_reader_behind_the_data_and_the_writer() {
    let mut joined = Joined::with_carriers(2).await;
    let (mut near, far) = joined.stream().await;
    let refusal = Refusal::new(RefusalKind::NotAllowed, "db:5432 is not allowed");
    far.refuse(&refusal);
    let is_refusal = |error: std::io::Error| match StripingError::of(&error) {
        Some(StripingError::Reset(found)) => *found == refusal,
        _ => false,
    };
    let error = timeout(DEADLINE, near.readable())
        .await
        .unwrap()
        .unwrap_err();
    assert!(is_refusal(error));
    assert!(is_refusal(near.read(&mut [0; 9]).await.unwrap_err()));
    assert!(is_refusal(near.write(b"x").await.unwrap_err()));
    joined.finish().await;
}

#[tokio::test]
async fn a_dropped_handle_resets_or_lets_the_last_bytes_leave() {
    let mut joined = Joined::with_carriers(2).await;
    let (near, mut far) = joined.stream().await;
    drop(near);
    let error = timeout(DEADLINE, far.read(&mut [0; 9]))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let (mut near, mut far) = joined.stream().await;
    near.write_all(b"the last").await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    let mut got = String::new();
    timeout(DEADLINE, far.read_to_string(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, "the last");
    // The other end may still write; nothing reads it any more.
    far.write_all(b"unread").await.unwrap();
    let error = timeout(DEADLINE, far.read(&mut [0; 9])).await;
    drop(error);
    drop(far);
    joined
        .until(&joined.relay, |state| state.streams == 0)
        .await;
    joined
        .until(&joined.client, |state| state.streams == 0)
        .await;
    joined.finish().await;
}

#[tokio::test]
async fn a_reader_that_stops_costs_a_window_and_holds_up_no_other() {
    let mut joined = Joined::with_carriers(4).await;
    let (mut stalled, mut far) = joined.stream().await;
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let writer = tokio::spawn(async move {
        let data = noise(1000, 6);
        while far.write_all(&data).await.is_ok() {
            counter.fetch_add(data.len(), std::sync::atomic::Ordering::Relaxed);
        }
    });
    let (near, other) = joined.stream().await;
    let down = noise(4_000_000, 7);
    let expected = down.clone();
    let other = tokio::spawn(exchange(other, down));
    assert!(exchange(near, Vec::new()).await == expected);
    other.await.unwrap();
    let most = usize::try_from(stripe::INITIAL_WINDOW).unwrap() + 64 * 1024;
    let written = written.load(std::sync::atomic::Ordering::Relaxed);
    assert!((most / 2..=most).contains(&written), "{written} of {most}");
    timeout(DEADLINE, stalled.readable())
        .await
        .unwrap()
        .unwrap();
    drop(stalled);
    timeout(DEADLINE, writer).await.unwrap().unwrap();
    joined.finish().await;
}

#[tokio::test]
async fn the_answer_to_a_hello_is_told() {
    let joined = Joined::new();
    let mut generation = 0;
    for (answer, accepted) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "NotRelay(Magic)"),
        (b"pgSR\x02\0\0\0", "NotRelay(Version(2))"),
        (
            b"pgSR\x02\x01\0\x0dversion: no: ",
            "Refused(Refusal { kind: Version, words: \"no: \" })",
        ),
        (b"", "Closed"),
        (b"pgSR\x01\0\0\0", "accepted"),
    ] {
        generation += 1;
        let (client, mut far) = duplex(4096);
        let mut carrier = joined
            .client
            .attach(0, generation, Box::new(client))
            .unwrap();
        far.write_all(answer).await.unwrap();
        if answer.is_empty() {
            far.shutdown().await.unwrap();
        }
        let ready = timeout(DEADLINE, carrier.ready()).await.unwrap();
        let ready = ready.map_or_else(|end| format!("{end:?}"), |()| "accepted".to_owned());
        assert_eq!(ready, accepted);
        if accepted == "accepted" {
            joined.client.detach(0, generation - 1);
            joined.client.detach(0, generation);
            let end = timeout(DEADLINE, carrier.ended()).await.unwrap();
            assert!(matches!(end, CarrierEnd::Detached), "{end:?}");
            let again = joined.client.attach(0, generation, Box::new(far));
            let again = again.unwrap_err();
            assert!(
                matches!(
                    again,
                    StripingError::NotOpened(StripeError::Generation { .. })
                ),
                "{again:?}"
            );
        }
    }
    joined.finish().await;
}

#[tokio::test]
async fn a_violation_ends_the_bundle_and_all_that_waits() {
    let mut joined = Joined::with_carriers(2).await;
    let (mut near, _far) = joined.stream().await;
    let (_, mut far) = joined.ends(7).await;
    far.write_all(b"\xff").await.unwrap();
    joined
        .until(&joined.relay, |state| {
            state.over.is_some() && state.carriers == 0
        })
        .await;
    let over = joined.relay.state().borrow().over.clone().unwrap();
    assert!(over.contains("unknown frame type 255"), "{over}");
    assert!(joined.relay.open("x:1").is_err());
    // The client sees that its carriers are closed, and may attach others.
    joined
        .until(&joined.client, |state| state.carriers <= 1)
        .await;
    joined.client.shutdown("no relay").await;
    let error = timeout(DEADLINE, near.readable())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the connection to the relay is over: no relay"
    );
    joined.finish().await;
}

#[tokio::test]
async fn a_shutdown_tells_the_peer_and_ends_all_tasks() {
    let mut joined = Joined::with_carriers(3).await;
    let (mut near, _far) = joined.stream().await;
    timeout(DEADLINE, joined.relay.shutdown("the relay stops"))
        .await
        .unwrap();
    let error = timeout(DEADLINE, near.readable())
        .await
        .unwrap()
        .unwrap_err();
    match StripingError::of(&error) {
        Some(StripingError::Reset(refusal)) => {
            let expected = Refusal::new(RefusalKind::Stopping, "the relay stops");
            assert_eq!(*refusal, expected);
        }
        other => panic!("{other:?}"),
    }
    joined
        .until(&joined.client, |state| state.carriers == 0)
        .await;
    joined.finish().await;
}

#[tokio::test]
async fn a_client_learns_that_a_download_waits_for_credit() {
    let mut joined = Joined::new();
    let (mut near, mut far) = joined.ends(0).await;
    // A carrier of a session: 1 KiB per millisecond towards the client.
    joined.wires.spawn(async move {
        let (mut from_client, mut to_client) = tokio::io::split(&mut near);
        let (mut from_relay, mut to_relay) = tokio::io::split(&mut far);
        let down = async {
            let mut piece = [0; 1024];
            while let Ok(length @ 1..) = from_relay.read(&mut piece).await {
                to_client.write_all(&piece[..length]).await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        };
        let up = tokio::io::copy(&mut from_client, &mut to_relay);
        _ = tokio::join!(down, up);
    });
    let (near, far) = joined.stream().await;
    let small = tokio::spawn(exchange(far, noise(20_000, 8)));
    exchange(near, Vec::new()).await;
    small.await.unwrap();
    assert_eq!(joined.client.state().borrow().limited_at, None);

    let (near, far) = joined.stream().await;
    let bulk = tokio::spawn(exchange(far, noise(1_000_000, 9)));
    let reading = tokio::spawn(exchange(near, Vec::new()));
    joined
        .until(&joined.client, |state| state.limited_at.is_some())
        .await;
    assert!(!bulk.is_finished());
    reading.await.unwrap();
    joined.finish().await;
}
