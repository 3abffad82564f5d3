//! What the local client says first, over plain TCP, a Unix socket or TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use pg_handshake::{CancelKey, Client, ClientEvent, Startup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{READ, SessionError, write_all};
use crate::tunnel::Stream;

/// The connection to the client.
pub(super) struct Local {
    pub(super) stream: Stream,
    pub(super) tls: bool,
}

/// What a client wants.
pub(super) enum Greeted {
    Startup {
        client: Local,
        startup: Startup,
        early: Bytes,
    },
    Cancel {
        key: CancelKey,
        stream: Stream,
    },
}

/// Reads the client's startup, with TLS if it asks and there is an `acceptor`. On failure the stream
/// comes back, unless TLS took it down.
pub(super) async fn greet(
    acceptor: Option<&TlsAcceptor>,
    mut stream: Stream,
) -> Result<Greeted, (SessionError, Option<Local>)> {
    let mut client = Client::new(acceptor.is_some());
    let mut buffer = [0; READ];
    loop {
        if let Err(error) =
            write_all(&mut stream, std::iter::from_fn(|| client.poll_output())).await
        {
            return Err((SessionError::ClientGone(error), None));
        }
        match client.poll_event() {
            Some(ClientEvent::StartTls) => {
                let tls = accept(acceptor, stream).await.map_err(|e| (e, None))?;
                stream = Box::new(tls);
                client.tls_established();
                continue;
            }
            Some(ClientEvent::StartDirectTls { received }) => {
                let replayed = Replayed { received, stream };
                let tls = accept(acceptor, Box::new(replayed)).await;
                let tls = tls.map_err(|e| (e, None))?;
                let established = client.direct_tls_established(tls.get_ref().1.alpn_protocol());
                stream = Box::new(tls);
                if let Err(error) = established {
                    let tls = true;
                    return Err((error.into(), Some(Local { stream, tls })));
                }
                continue;
            }
            Some(ClientEvent::Startup(startup)) => {
                let local = Local {
                    stream,
                    tls: client.is_tls(),
                };
                let early = client.into_remainder();
                return Ok(Greeted::Startup {
                    client: local,
                    startup,
                    early,
                });
            }
            Some(ClientEvent::Cancel(key)) => return Ok(Greeted::Cancel { key, stream }),
            None => {}
        }
        let heard = match stream.read(&mut buffer).await {
            // Going away between packets is no fault of protocol: a port check does it.
            Ok(0) => Err(client.handle_eof().err().map_or_else(
                || SessionError::ClientGone(io::ErrorKind::UnexpectedEof.into()),
                SessionError::from,
            )),
            Ok(n) => client
                .handle_input(&buffer[..n])
                .map_err(SessionError::from),
            Err(error) => Err(SessionError::ClientGone(error)),
        };
        if let Err(error) = heard {
            let tls = client.is_tls();
            return Err((error, Some(Local { stream, tls })));
        }
    }
}

async fn accept(
    acceptor: Option<&TlsAcceptor>,
    stream: Stream,
) -> Result<TlsStream<Stream>, SessionError> {
    match acceptor {
        Some(acceptor) => acceptor.accept(stream).await,
        // The machine asks for TLS only where it was told that there is.
        None => Err(io::ErrorKind::Unsupported.into()),
    }
    .map_err(SessionError::LocalTls)
}

/// A stream of which some bytes have been read already.
struct Replayed {
    received: Bytes,
    stream: Stream,
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..length]);
        self.received.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    // What TLS has to say comes in several pieces, and when it fails it writes just once: without
    // this the client would get a ServerHello and never the alert behind it.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
