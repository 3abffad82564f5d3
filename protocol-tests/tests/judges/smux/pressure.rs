//! Readers that do not read, and what the other side does about it.
//!
//! Version 1 has no window: all that a receiver can do is stop reading the carrier, which stops
//! every stream. What matters is that nobody collects without bound, and that everything goes on
//! afterwards.

use bytes::Bytes;
use smux::MuxRole;

use super::exchange::{Order, Pipe as _, order, serve};
use super::ours::{READ, RECEIVE_BUFFER, SEND_BUFFER};
use super::{CARRIER, PACKET, Setup};
use crate::random::Rng;

const WRITE: usize = 10_000;

/// Their application stops reading: they stop taking bytes, and our queue fills to its bound.
#[tokio::test]
async fn a_slow_reader_of_theirs_stops_us_and_loses_nothing() {
    const FRAMES: usize = 16;
    for role in [MuxRole::Client, MuxRole::Server] {
        let setup = Setup {
            their_frames: FRAMES,
            ..Setup::new(role)
        };
        let (ours, mut theirs) = setup.start();
        let (stream, mut slow) = match role {
            MuxRole::Client => (ours.open(), theirs.acceptor.accept().await.unwrap()),
            MuxRole::Server => {
                let slow = theirs.connector.connect().unwrap();
                (ours.accept().await, slow)
            }
        };
        let body = Rng(1).bytes(4 << 20);
        let mut sent = 0;
        // A stopped peer shows as a queue that stays full: the runtime has one thread, so when this
        // task is the only one that can go on, nothing else moves any more.
        let most = SEND_BUFFER + WRITE + CARRIER + (FRAMES + 2) * PACKET + 2 * 8192;
        while sent < body.len() {
            let piece = body.slice(sent..body.len().min(sent + WRITE));
            tokio::select! {
                biased;
                done = stream.send(piece.clone()) => {
                    done.unwrap();
                    sent += piece.len();
                    assert!(sent <= most, "{sent} bytes taken and none read");
                }
                () = idle() => break,
            }
        }
        assert!(sent > SEND_BUFFER, "stopped too early, at {sent}");
        let rest = tokio::spawn({
            let (stream, rest) = (stream.clone(), body.slice(sent..));
            async move { stream.send(rest).await.unwrap() }
        });
        let mut heard = Vec::new();
        while heard.len() < body.len() {
            let piece = slow.get(1 << 20).await;
            assert!(!piece.is_empty());
            heard.extend_from_slice(&piece);
        }
        assert!(heard == body);
        rest.await.unwrap();
    }
}

/// Returns when every other task of this one-threaded runtime has been idle for a while.
async fn idle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Ours does not read: our driver stops reading the carrier, and they stop writing.
#[tokio::test]
async fn a_slow_reader_of_ours_stops_them_and_loses_nothing() {
    for role in [MuxRole::Client, MuxRole::Server] {
        let (ours, mut theirs) = Setup::new(role).start();
        let (slow, mut stream) = match role {
            MuxRole::Client => (ours.open(), theirs.acceptor.accept().await.unwrap()),
            MuxRole::Server => {
                let stream = theirs.connector.connect().unwrap();
                (ours.accept().await, stream)
            }
        };
        let body = Rng(2).bytes(4 << 20);
        let writer = tokio::spawn({
            let body = body.clone();
            async move {
                stream.put(body).await;
                stream
            }
        });
        ours.until(|s| (s.unread >= RECEIVE_BUFFER).then_some(()))
            .await;
        idle().await;
        let unread = ours.until(|s| Some(s.unread)).await;
        assert!(unread < RECEIVE_BUFFER + READ, "{unread}");
        let mut heard = Vec::new();
        while heard.len() < body.len() {
            let piece = slow.receive(usize::MAX).await;
            assert!(!piece.is_empty());
            heard.extend_from_slice(&piece);
        }
        assert!(heard == body);
        drop(writer.await.unwrap());
        ours.quiet().await;
    }
}

/// A stalled stream that is given up makes room for the others.
#[tokio::test]
async fn giving_up_a_stalled_stream_frees_the_session() {
    let (ours, mut theirs) = Setup::new(MuxRole::Client).start();
    let stalled = ours.open();
    let mut flood = theirs.acceptor.accept().await.unwrap();
    let flooding = tokio::spawn(async move {
        let piece = Bytes::from(vec![1; 50_000]);
        // Their half stays open until they notice; what they write to it is dropped.
        for _ in 0..100 {
            flood.put(piece.clone()).await;
        }
        flood
    });
    ours.until(|s| (s.unread >= RECEIVE_BUFFER).then_some(()))
        .await;
    let other = ours.open();
    stalled.abandon();
    let accepted = theirs.acceptor.accept().await.unwrap();
    let plan = Order {
        seed: 5,
        body: 300_000,
        reply: 300_000,
        write: 20_000,
        opener_closes: true,
    };
    tokio::join!(order(other, plan), serve(accepted));
    drop(flooding.await.unwrap());
    ours.quiet().await;
}
