//! Closing, and breaking off.

use bytes::Bytes;
use smux::{MuxError, MuxRole, StreamId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::exchange::{Order, Pipe as _, order, serve};
use super::{Ours, Setup, Theirs};
use crate::random::Rng;

const HELLO: &[u8] = b"hello";

/// A last conversation: the session still works.
async fn still_works(ours: &Ours, theirs: &mut Theirs, role: MuxRole) {
    let plan = Order {
        seed: 77,
        body: 100_000,
        reply: 100_000,
        write: 10_000,
        opener_closes: false,
    };
    match role {
        MuxRole::Client => {
            let opener = ours.open();
            // What was opened before and is of no interest any more is skipped.
            let acceptor = loop {
                let stream = theirs.acceptor.accept().await.unwrap();
                if stream.get_stream_id() == opener.id.get() {
                    break stream;
                }
            };
            tokio::join!(order(opener, plan), serve(acceptor));
        }
        MuxRole::Server => {
            let opener = theirs.connector.connect().unwrap();
            let acceptor = loop {
                let stream = ours.accept().await;
                if stream.id.get() == opener.get_stream_id() {
                    break stream;
                }
            };
            tokio::join!(order(opener, plan), serve(acceptor));
        }
    }
}

/// They shut their writing down and go on reading. Every byte before the FIN arrives; for us the
/// stream is over with it, our FIN answers, and what we had queued is not sent.
#[tokio::test]
async fn their_half_close_ends_the_stream_for_both() {
    let (ours, mut theirs) = Setup::new(MuxRole::Server).start();
    let mut stream = theirs.connector.connect().unwrap();
    stream.write_all(HELLO).await.unwrap();
    stream.shutdown().await.unwrap();
    let acceptor = ours.accept().await;
    assert_eq!(acceptor.receive(100).await, HELLO);
    assert!(acceptor.receive(100).await.is_empty());
    let refused = acceptor.send(Bytes::from_static(HELLO)).await;
    assert_eq!(refused, Err(MuxError::NotOpen(acceptor.id)));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    drop(stream);
    still_works(&ours, &mut theirs, MuxRole::Server).await;
}

/// We close after our last byte. They get all of it and our FIN, may write on for as long as they
/// like, and nobody hears it.
#[tokio::test]
async fn our_close_delivers_everything_and_ends_the_stream_for_both() {
    let (ours, mut theirs) = Setup::new(MuxRole::Client).start();
    let opener = ours.open();
    let body = Rng(4).bytes(200_000);
    opener.send(body.clone()).await.unwrap();
    opener.finish();
    let mut stream = theirs.acceptor.accept().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(heard == body);
    // To them the other direction is open.
    assert!(!stream.is_closed());
    stream.write_all(&body).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(stream.is_closed());
    still_works(&ours, &mut theirs, MuxRole::Client).await;
    let left = ours.until(|s| Some((s.unread, s.end.clone()))).await;
    assert_eq!(left, (0, None));
}

/// A stream without a single byte.
#[tokio::test]
async fn empty_streams() {
    let (ours, mut theirs) = Setup::new(MuxRole::Client).start();
    let opener = ours.open();
    opener.finish();
    let mut stream = theirs.acceptor.accept().await.unwrap();
    assert!(stream.get(1 << 10).await.is_empty());
    drop(stream);
    // Given up before anybody heard of it: they never do.
    let unheard = ours.open();
    let _ = unheard.send(Bytes::from_static(HELLO)).await;
    unheard.abandon();
    let next = ours.open();
    next.send(Bytes::from_static(HELLO)).await.unwrap();
    let mut stream = theirs.acceptor.accept().await.unwrap();
    assert_eq!(stream.get_stream_id(), next.id.get());
    assert_eq!(stream.get(100).await, HELLO);
    still_works(&ours, &mut theirs, MuxRole::Client).await;
}

/// Streams broken off by either side at any moment, in the middle of frames and of packets, while
/// others run. They answer data for a stream they have dropped with a FIN for each frame.
#[tokio::test]
async fn broken_off_streams_leave_the_session_intact() {
    for seed in 0..12 {
        for role in [MuxRole::Client, MuxRole::Server] {
            // Nobody reads here, and a session that holds all it may takes no SYN any more.
            let setup = Setup {
                their_frames: usize::MAX,
                ..Setup::new(role)
            };
            let (ours, mut theirs) = setup.start();
            let mut rng = Rng(seed);
            let mut near = Vec::new();
            let mut far = Vec::new();
            for _ in 0..40 {
                match role {
                    MuxRole::Client => {
                        near.push(ours.open());
                        far.push(theirs.acceptor.accept().await.unwrap());
                    }
                    MuxRole::Server => {
                        far.push(theirs.connector.connect().unwrap());
                        near.push(ours.accept().await);
                    }
                }
                for _ in 0..6 {
                    let (n, f) = (rng.below(near.len().max(1)), rng.below(far.len().max(1)));
                    let len = 1 + rng.below(70_000);
                    let data = rng.bytes(len);
                    match rng.below(8) {
                        0 if !near.is_empty() => near.swap_remove(n).abandon(),
                        1 if !near.is_empty() => near.swap_remove(n).finish(),
                        2 if !far.is_empty() => drop(far.swap_remove(f)),
                        // Sending may be refused: the other side is gone. The queue is bounded, so
                        // only what has room now is sent.
                        3..=5 if !near.is_empty() => {
                            let stream = near[n].clone();
                            tokio::select! {
                                biased;
                                _ = stream.send(data) => {}
                                () = std::future::ready(()) => {}
                            }
                        }
                        _ if !far.is_empty() => far[f].put(data).await,
                        _ => {}
                    }
                    tokio::task::yield_now().await;
                }
                ours.discard();
            }
            for stream in near {
                stream.abandon();
            }
            drop(far);
            ours.quiet().await;
            still_works(&ours, &mut theirs, role).await;
            while theirs.connector.get_num_streams() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// A stream that a server opens is one too many for a client here: the agent opens none.
#[tokio::test]
async fn a_server_may_not_open_streams() {
    let (ours, theirs) = Setup::new(MuxRole::Client).start();
    let _stream = theirs.connector.connect().unwrap();
    let end = ours.until(|s| s.end.clone()).await;
    let id = StreamId::new(2);
    assert_eq!(end, Err(MuxError::ForeignSyn { id, offset: 0 }));
}

/// The other way round it works: they accept what our server side opens.
#[tokio::test]
async fn they_accept_streams_of_our_server() {
    let (ours, mut theirs) = Setup::new(MuxRole::Server).start();
    let opener = ours.open();
    assert_eq!(opener.id.get() % 2, 0);
    let acceptor = theirs.acceptor.accept().await.unwrap();
    let plan = Order {
        seed: 6,
        body: 70_000,
        reply: 70_000,
        write: 9_000,
        opener_closes: true,
    };
    tokio::join!(order(opener, plan), serve(acceptor));
}

/// Their orderly end of the whole session reaches us behind all the data.
#[tokio::test]
async fn the_end_of_the_carrier_comes_after_the_data() {
    let (ours, mut theirs) = Setup::new(MuxRole::Server).start();
    let mut stream = theirs.connector.connect().unwrap();
    let body = Rng(8).bytes(150_000);
    stream.put(body.clone()).await;
    theirs.connector.close().await.unwrap();
    let acceptor = ours.accept().await;
    let mut heard = Vec::new();
    loop {
        let piece = acceptor.receive(usize::MAX).await;
        if piece.is_empty() {
            break;
        }
        heard.extend_from_slice(&piece);
    }
    assert!(heard == body);
    assert_eq!(ours.until(|s| s.end.clone()).await, Ok(()));
}

/// They want to hear something every 3 s and give up after 9: our NOPs are enough, and are taken as
/// nothing else. Theirs do not disturb us.
#[tokio::test(start_paused = true)]
async fn keepalives_keep_both_sides_content() {
    let setup = Setup {
        keep_alive: Some(3),
        ..Setup::new(MuxRole::Client)
    };
    let (ours, mut theirs) = setup.start();
    ours.record();
    let opener = ours.open();
    let mut stream = theirs.acceptor.accept().await.unwrap();
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(5));
    for _ in 0..60 {
        tick.tick().await;
        ours.keep_alive();
    }
    opener.send(Bytes::from_static(HELLO)).await.unwrap();
    assert_eq!(stream.get(100).await, HELLO);
    let nops = ours.until(|s| Some(std::mem::take(&mut s.received))).await;
    assert_eq!(nops.len() % 8, 0);
    assert!(nops.len() / 8 >= 90, "{} bytes", nops.len());
    assert!(
        nops.chunks(8)
            .all(|frame| frame == [1, 3, 0, 0, 0, 0, 0, 0])
    );

    // Without ours they give up.
    assert!(stream.read_u8().await.is_err());
    assert_eq!(ours.until(|s| s.end.clone()).await, Ok(()));
}
