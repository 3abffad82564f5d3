//! Copies bytes between a stream and its database, in both directions.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::striping::StripedStream;

/// Size of the buffer that a thread reads databases into.
const BUFFER: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Bytes that were copied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    pub(super) to_database: u64,
    pub(super) to_client: u64,
}

/// Reason why a connection broke.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client has reset the stream, or its bundle is over.
    Client(io::Error),
    /// The connection to the database is lost.
    Database(io::Error),
}

/// One connection. Without bytes it has no buffer.
pub(super) struct Copier<'a> {
    pub(super) stream: &'a mut StripedStream,
    pub(super) database: &'a mut TcpStream,
    /// Bytes on their way to the database.
    piece: Bytes,
    is_up_over: bool,
    is_down_over: bool,
    copied: Copied,
}

impl<'a> Copier<'a> {
    pub(super) fn new(stream: &'a mut StripedStream, database: &'a mut TcpStream) -> Self {
        Self {
            stream,
            database,
            piece: Bytes::new(),
            is_up_over: false,
            is_down_over: false,
            copied: Copied::default(),
        }
    }

    /// Copies until both directions have ended, or one has broken.
    pub(super) async fn run(mut self) -> (Copied, Result<(), Broken>) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        (self.copied, ended)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !self.is_up_over {
            self.is_up_over = match self.poll_up(cx) {
                Poll::Ready(ended) => ended.map(|()| true)?,
                Poll::Pending => false,
            };
        }
        if !self.is_down_over {
            self.is_down_over = match self.poll_down(cx) {
                Poll::Ready(ended) => ended.map(|()| true)?,
                Poll::Pending => false,
            };
        }
        match self.is_up_over && self.is_down_over {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Copies to the database. What it does not take stays in the window of the stream.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            while !self.piece.is_empty() {
                let database = Pin::new(&mut *self.database);
                let written = ready!(database.poll_write(cx, &self.piece));
                let written = written.map_err(Broken::Database)?;
                self.piece.advance(written);
                self.stream.consumed(written);
                self.copied.to_database += written as u64;
            }
            match ready!(self.stream.poll_take(cx)).map_err(Broken::Client)? {
                Some(piece) => self.piece = piece,
                None => {
                    let shut = ready!(Pin::new(&mut *self.database).poll_shutdown(cx));
                    // The database may have closed the connection by itself.
                    return Poll::Ready(match shut {
                        Err(error) if !self.is_down_over => Err(Broken::Database(error)),
                        _ => Ok(()),
                    });
                }
            }
        }
    }

    /// Copies to the client. The database is read only while the stream has room.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let room = ready!(self.stream.poll_room(cx)).map_err(Broken::Client)?;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let most = room.min(scratch.len());
                let mut buffer = ReadBuf::new(&mut scratch[..most]);
                let database = Pin::new(&mut *self.database);
                let read = ready!(tokio::io::AsyncRead::poll_read(database, cx, &mut buffer));
                Poll::Ready(read.map(|()| Bytes::copy_from_slice(buffer.filled())))
            });
            let data = ready!(read).map_err(Broken::Database)?;
            if data.is_empty() {
                let shut = ready!(Pin::new(&mut *self.stream).poll_shutdown(cx));
                return Poll::Ready(shut.map_err(Broken::Client));
            }
            self.copied.to_client += data.len() as u64;
            self.stream.send(data).map_err(Broken::Client)?;
        }
    }
}
