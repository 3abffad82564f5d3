//! A stream that is dialled with the first bytes written to it.
//!
//! TLS without an SSLRequest sends its ClientHello first. A tunnel needs those bytes for its dial,
//! because only the server's answer to them confirms it; the TLS library needs a stream to write
//! them to. This type serves both: the bytes written before the first read become the `hello` of
//! [`Transport::open`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::base::stream::{BoxFuture, Stream};
use crate::tunnel::{StreamPurpose, Transport, TunnelError};

/// A stream that is dialled with the first bytes written to it. A failed dial returns an
/// [`io::Error`] that contains the [`TunnelError`], see [`TunnelError::of`].
pub(in crate::postgres) struct DialOnRead {
    state: DialState,
    purpose: StreamPurpose,
    /// Runs from the moment the stream is open until the server has sent something.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Time limit for the server's first byte on an open stream. A server that takes a ClientHello for
/// the beginning of a long packet waits for the rest of it. A tunnel that opens a stream only after
/// the server's answer has its own time limit.
const FIRST_WORD: Duration = Duration::from_secs(4);

enum DialState {
    Collecting(Arc<dyn Transport>, BytesMut),
    Dialling(BoxFuture<'static, Result<Stream, TunnelError>>),
    Open(Stream),
    Failed(TunnelError),
}

impl DialOnRead {
    /// Creates the stream.
    pub(in crate::postgres) fn new(transport: Arc<dyn Transport>, purpose: StreamPurpose) -> Self {
        let state = DialState::Collecting(transport, BytesMut::new());
        let patience = None;
        Self {
            state,
            purpose,
            patience,
        }
    }

    /// Returns the stream, and dials it first if needed.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Stream>> {
        if let DialState::Collecting(transport, hello) = &mut self.state {
            let (transport, hello) = (Arc::clone(transport), std::mem::take(hello).freeze());
            let purpose = self.purpose.clone();
            self.state =
                DialState::Dialling(Box::pin(
                    async move { transport.open_for(purpose, hello).await },
                ));
        }
        if let DialState::Dialling(dial) = &mut self.state {
            self.state = match ready!(dial.as_mut().poll(cx)) {
                Ok(stream) => {
                    self.patience = Some(Box::pin(sleep(FIRST_WORD)));
                    DialState::Open(stream)
                }
                Err(error) => DialState::Failed(error),
            };
        }
        Poll::Ready(match &mut self.state {
            DialState::Open(stream) => Ok(stream),
            DialState::Failed(error) => Err(error.clone().into_io()),
            DialState::Collecting(..) | DialState::Dialling(_) => {
                Err(io::ErrorKind::NotConnected.into())
            }
        })
    }
}

impl AsyncRead for DialOnRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = ready!(self.poll_open(cx))?;
        let read = Pin::new(stream).poll_read(cx, buf);
        match (&read, &mut self.patience) {
            (Poll::Pending, Some(patience)) => {
                ready!(patience.as_mut().poll(cx));
                let text = "the server does not answer a ClientHello";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
            }
            _ => {
                self.patience = None;
                read
            }
        }
    }
}

impl AsyncWrite for DialOnRead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let DialState::Collecting(_, hello) = &mut self.state {
            hello.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let stream = ready!(self.poll_open(cx))?;
        Pin::new(stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            DialState::Open(stream) => Pin::new(stream).poll_flush(cx),
            // The dial sends it.
            DialState::Collecting(..) | DialState::Dialling(_) | DialState::Failed(_) => {
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            DialState::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            DialState::Collecting(..) | DialState::Dialling(_) | DialState::Failed(_) => {
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::tunnel::Readiness;

    /// Transport that returns one end of a pipe, or an error, and records the hello.
    #[derive(Default)]
    struct Once {
        near: Mutex<Option<DuplexStream>>,
        hello: Mutex<Option<Bytes>>,
    }

    impl Transport for Once {
        fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
            *self.hello.lock().unwrap() = Some(hello);
            let near = self.near.lock().unwrap().take();
            Box::pin(async move {
                let near = near.ok_or(TunnelError::NoRegion)?;
                Ok(Box::new(near) as Stream)
            })
        }
        fn readiness(&self) -> Readiness {
            Readiness::Up
        }
        fn shutdown(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn what_is_written_before_the_first_read_goes_with_the_dial() {
        let (mut far, near) = duplex(64);
        let transport = Arc::new(Once::default());
        *transport.near.lock().unwrap() = Some(near);
        let mut stream = DialOnRead::new(transport.clone(), StreamPurpose::Connection);
        stream.write_all(b"client ").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(*transport.hello.lock().unwrap(), None);
        far.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        let hello = transport.hello.lock().unwrap().clone();
        assert_eq!(hello.as_deref(), Some(&b"client hello"[..]));
        stream.write_all(b"more").await.unwrap();
        let mut more = [0; 4];
        far.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_word_has_a_deadline() {
        for says_something in [false, true] {
            let (mut far, near) = duplex(64);
            let transport = Arc::new(Once::default());
            *transport.near.lock().unwrap() = Some(near);
            let mut stream = DialOnRead::new(transport, StreamPurpose::Connection);
            stream.write_all(b"client hello").await.unwrap();
            if says_something {
                far.write_all(b"a").await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'a');
            }
            let read = tokio::time::timeout(10 * FIRST_WORD, stream.read_u8()).await;
            let silent = matches!(&read, Ok(Err(e)) if e.kind() == io::ErrorKind::TimedOut);
            assert_eq!((read.is_err(), silent), (says_something, !says_something));
        }
    }

    #[tokio::test]
    async fn a_failed_dial_keeps_its_reason() {
        let mut stream = DialOnRead::new(Arc::new(Once::default()), StreamPurpose::Brief);
        stream.write_all(b"hello").await.unwrap();
        for _ in 0..2 {
            let error = stream.read(&mut [0; 1]).await.unwrap_err();
            let reason = TunnelError::of(&error);
            assert!(matches!(reason, Some(TunnelError::NoRegion)), "{error:?}");
        }
    }
}
