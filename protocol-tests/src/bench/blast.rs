//! A TCP server that sends or takes as many bytes as it is asked for, and its client.
//!
//! A connection begins with one command byte and a count of bytes (u64, big-endian): `D` lets the
//! server send that many, `U` lets it take that many and answer with the number it took. Both sides
//! compare every byte with the same repeating pattern, which costs next to nothing beside the way
//! in between, and end the connection at the first byte that is wrong.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const DOWNLOAD: u8 = b'D';
const UPLOAD: u8 = b'U';

/// Length of the pattern, after which it repeats.
const PATTERN: usize = 1 << 20;
/// Most bytes of one read or write.
const CHUNK: usize = 256 << 10;

/// A running server on a port of 127.0.0.1; ends when dropped.
#[derive(Debug)]
pub struct Blast {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Blast {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Blast {
    /// Binds a free port and starts answering.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // The client sees a broken transfer by itself; it has the better words for it.
                    if let Err(error) = serve(socket).await {
                        tracing::debug!(%error, "blast: connection ended");
                    }
                });
            }
        });
        Ok(Self { address, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let command = socket.read_u8().await?;
    let count = socket.read_u64().await?;
    match command {
        DOWNLOAD => {
            send(&mut socket, count).await?;
            // The client closes first, so that nothing can be cut off.
            let _ = socket.read_u8().await;
            Ok(())
        }
        UPLOAD => {
            receive(&mut socket, count).await?;
            socket.write_u64(count).await
        }
        _ => Err(io::Error::other("unknown command")),
    }
}

/// Lets the server behind `address` send `count` bytes; returns the time from the connect to the
/// last byte.
///
/// # Errors
/// When the connection breaks or a byte is not the right one.
pub async fn download(address: SocketAddr, count: u64) -> io::Result<Duration> {
    let began = Instant::now();
    let mut socket = command(address, DOWNLOAD, count).await?;
    receive(&mut socket, count).await?;
    Ok(began.elapsed())
}

/// Sends `count` bytes to the server behind `address`; returns the time from the connect to its
/// word that all have arrived and were right.
///
/// # Errors
/// When the connection breaks, as the server lets it when a byte is not the right one.
pub async fn upload(address: SocketAddr, count: u64) -> io::Result<Duration> {
    let began = Instant::now();
    let mut socket = command(address, UPLOAD, count).await?;
    send(&mut socket, count).await?;
    let taken = socket.read_u64().await?;
    if taken != count {
        let text = format!("the server took {taken} of {count} bytes");
        return Err(io::Error::other(text));
    }
    Ok(began.elapsed())
}

async fn command(address: SocketAddr, command: u8, count: u64) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut head = [command; 9];
    head[1..].copy_from_slice(&count.to_be_bytes());
    socket.write_all(&head).await?;
    Ok(socket)
}

async fn send(socket: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < count {
        let part = right_bytes(sent, count - sent);
        socket.write_all(part).await?;
        sent += part.len() as u64;
    }
    Ok(())
}

async fn receive(socket: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    while received < count {
        let room = usize::try_from(count - received)
            .unwrap_or(CHUNK)
            .min(CHUNK);
        let length = socket.read(&mut buffer[..room]).await?;
        if length == 0 {
            let text = format!("ended after {received} of {count} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        if let Some(at) = first_wrong(received, &buffer[..length]) {
            let text = format!("byte {at} of {count} is wrong");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        received += length as u64;
    }
    Ok(())
}

/// Position in the stream of the first byte of `data` that is wrong, when `data` begins at `from`.
fn first_wrong(from: u64, data: &[u8]) -> Option<u64> {
    let mut at = from;
    let mut rest = data;
    while !rest.is_empty() {
        let right = right_bytes(at, rest.len() as u64);
        let (part, later) = rest.split_at(right.len());
        if part != right {
            let off = part.iter().zip(right).position(|(a, b)| a != b)?;
            return Some(at + off as u64);
        }
        at += part.len() as u64;
        rest = later;
    }
    None
}

/// The bytes of the stream from `from` on: at least one, at most `limit` and [`CHUNK`].
fn right_bytes(from: u64, limit: u64) -> &'static [u8] {
    let start = usize::try_from(from % PATTERN as u64).unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(CHUNK).min(CHUNK);
    let end = (start + limit).min(PATTERN);
    &pattern()[start..end]
}

fn pattern() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        // xorshift64: no two stretches of it look alike, so a shifted stream is found at once.
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let next = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        next.take(PATTERN / 8).flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_over_the_end_of_the_pattern() {
        let blast = Blast::start().await.unwrap();
        let count = 2 * PATTERN as u64 + 12_345;
        download(blast.address(), count).await.unwrap();
        upload(blast.address(), count).await.unwrap();
        upload(blast.address(), 0).await.unwrap();
    }

    #[test]
    fn a_wrong_a_missing_and_a_repeated_byte_are_found() {
        let from = PATTERN as u64 - 10;
        let mut data: Vec<u8> = Vec::new();
        while data.len() < 100 {
            data.extend(right_bytes(
                from + data.len() as u64,
                100 - data.len() as u64,
            ));
        }
        assert_eq!(first_wrong(from, &data), None);
        for at in [0, 9, 10, 99] {
            let mut bad = data.clone();
            bad[at] ^= 1;
            assert_eq!(first_wrong(from, &bad), Some(from + at as u64));
        }
        let mut missing = data.clone();
        missing.remove(50);
        assert!(first_wrong(from, &missing).is_some());
        let mut repeated = data.clone();
        repeated.insert(50, data[50]);
        assert!(first_wrong(from, &repeated).is_some());
    }

    #[tokio::test]
    async fn a_server_that_stops_early_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // A socket closed with unread bytes is reset, which is another error.
            socket.read_exact(&mut [0; 9]).await.unwrap();
            socket.write_all(right_bytes(0, 100)).await.unwrap();
        });
        let error = download(address, 200).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
