//! A conversation that two streams of different make can have.
//!
//! The opener says how much it will send and wants back, then sends; the acceptor answers with the
//! digest of what it got and as much as was wanted. Lengths go first because version 1 has no
//! half-close to mark an end with.

use std::future::Future;

use async_smux::MuxStream;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::ours::OurStream;
use crate::random::Rng;

/// A stream of either make.
pub(super) trait Pipe: Send {
    fn put(&mut self, data: Bytes) -> impl Future<Output = ()> + Send;
    /// At least one byte, none at the end.
    fn get(&mut self, most: usize) -> impl Future<Output = Bytes> + Send;
    /// FIN after what was written.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

impl Pipe for OurStream {
    async fn put(&mut self, data: Bytes) {
        self.send(data).await.unwrap();
    }

    async fn get(&mut self, most: usize) -> Bytes {
        self.receive(most).await
    }

    async fn close(&mut self) {
        self.finish();
    }
}

impl Pipe for MuxStream<DuplexStream> {
    async fn put(&mut self, data: Bytes) {
        self.write_all(&data).await.unwrap();
    }

    async fn get(&mut self, most: usize) -> Bytes {
        let mut buffer = vec![0; most.min(1 << 20)];
        let read = self.read(&mut buffer).await.unwrap();
        buffer.truncate(read);
        buffer.into()
    }

    async fn close(&mut self) {
        self.shutdown().await.unwrap();
    }
}

/// What an opener does.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) seed: u64,
    pub(super) body: usize,
    pub(super) reply: usize,
    /// Largest single write.
    pub(super) write: usize,
    /// Who says FIN first; the other waits for it.
    pub(super) opener_closes: bool,
}

/// The seeded bytes both ends can compute, in pieces of random size.
struct Script {
    words: Rng,
    sizes: Rng,
    left: usize,
    write: usize,
}

impl Script {
    fn new(seed: u64, len: usize, write: usize) -> Self {
        Self {
            words: Rng(seed),
            sizes: Rng(seed ^ 0x51CE5),
            left: len,
            write,
        }
    }

    fn digest(self) -> [u8; 32] {
        let mut digest = Sha256::new();
        self.for_each(|piece| digest.update(piece));
        digest.finalize().into()
    }
}

impl Iterator for Script {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let len = self.left.min(1 + self.sizes.below(self.write));
        self.left -= len;
        (len > 0).then(|| self.words.bytes(len))
    }
}

/// Exactly so many bytes.
pub(super) async fn read_exact<const N: usize>(pipe: &mut impl Pipe) -> [u8; N] {
    let mut have = Vec::new();
    while have.len() < N {
        let piece = pipe.get(N - have.len()).await;
        assert!(!piece.is_empty(), "the stream ended after {}", have.len());
        have.extend_from_slice(&piece);
    }
    have.try_into().unwrap()
}

/// Reads `len` bytes; their digest.
async fn read_digest(pipe: &mut impl Pipe, len: usize) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut left = len;
    while left > 0 {
        let piece = pipe.get(left).await;
        assert!(!piece.is_empty(), "the stream ended {left} of {len} early");
        digest.update(&piece);
        left -= piece.len();
    }
    digest.finalize().into()
}

async fn end(pipe: &mut impl Pipe, first: bool) {
    if first {
        pipe.close().await;
    }
    let after = pipe.get(1).await;
    assert!(after.is_empty(), "bytes behind the last one");
    if !first {
        pipe.close().await;
    }
}

/// The opener's part.
pub(super) async fn order(mut pipe: impl Pipe, order: Order) {
    let mut head = Vec::new();
    let closes = u64::from(order.opener_closes);
    for word in [
        order.seed,
        order.body as u64,
        order.reply as u64,
        order.write as u64,
        closes,
    ] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    pipe.put(head.into()).await;
    for piece in Script::new(order.seed, order.body, order.write) {
        pipe.put(piece).await;
    }
    let heard: [u8; 32] = read_exact(&mut pipe).await;
    let said = Script::new(order.seed, order.body, order.write).digest();
    assert_eq!(heard, said, "the body arrived changed");
    let reply = read_digest(&mut pipe, order.reply).await;
    let expected = Script::new(!order.seed, order.reply, order.write).digest();
    assert_eq!(reply, expected, "the reply arrived changed");
    end(&mut pipe, order.opener_closes).await;
}

/// The acceptor's part.
pub(super) async fn serve(mut pipe: impl Pipe) {
    let mut words = [0; 5];
    for word in &mut words {
        *word = u64::from_le_bytes(read_exact(&mut pipe).await);
    }
    let [seed, body, reply, write, opener_closes] = words;
    let digest = read_digest(&mut pipe, body as usize).await;
    pipe.put(digest.to_vec().into()).await;
    for piece in Script::new(!seed, reply as usize, write as usize) {
        pipe.put(piece).await;
    }
    end(&mut pipe, opener_closes == 0).await;
}
