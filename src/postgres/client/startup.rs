//! Startup of a local client over plain TCP, a Unix socket or TLS.

use crate::postgres::shared::LocalAcceptor;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use pg_handshake::{CancelKey, Client, ClientError, ClientEvent, MAX_REMAINDER, Startup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::base::stream::Stream;
use crate::failure::connection::ConnectionError;
use crate::postgres::io::{READ, write_all};
use crate::postgres::splice::TERMINATE;

/// Connection to a client before its login at the database.
pub(in crate::postgres) struct LocalClient {
    pub(in crate::postgres) stream: Stream,
    pub(in crate::postgres) tls: bool,
    /// Bytes received after the last message that was processed.
    pub(in crate::postgres) ahead: BytesMut,
    pub(in crate::postgres) auth_state: AuthState,
}

/// Progress of a client's authentication at pgiam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum AuthState {
    /// Nothing was requested from it yet.
    Arrived,
    /// It was sent an authentication request, and has not answered correctly.
    Asked,
    /// It has passed all checks.
    Admitted,
}

impl LocalClient {
    fn new(stream: Stream, tls: bool, ahead: &[u8]) -> Self {
        Self {
            stream,
            tls,
            ahead: BytesMut::from(ahead),
            auth_state: AuthState::Arrived,
        }
    }

    /// Sends a message to the client.
    ///
    /// # Errors
    /// [`ConnectionError::ClientGone`].
    pub(in crate::postgres) async fn say(&mut self, message: Bytes) -> Result<(), ConnectionError> {
        write_all(&mut self.stream, std::iter::once(message))
            .await
            .map_err(ConnectionError::ClientGone)
    }

    /// Resolves when the client closes while it waits; keeps what it sends meanwhile. A client that
    /// has pipelined a query without a Terminate may have closed only its sending side.
    pub(in crate::postgres) async fn gone(&mut self) -> io::Error {
        let mut buffer = [0; READ];
        while self.ahead.len() < MAX_REMAINDER {
            match self.stream.read(&mut buffer).await {
                Ok(0) if !self.ahead.is_empty() && !self.ahead.ends_with(&TERMINATE) => break,
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(n) => self.ahead.extend_from_slice(&buffer[..n]),
                Err(error) => return error,
            }
        }
        std::future::pending().await
    }
}

/// Request of a client.
pub(in crate::postgres) enum StartupRequest {
    Startup {
        client: LocalClient,
        startup: Startup,
    },
    Cancel {
        key: CancelKey,
        stream: Stream,
    },
}

/// A client that failed before its target was known.
pub(in crate::postgres) struct StartupFailure {
    pub(in crate::postgres) error: ConnectionError,
    /// The client that receives the error; `None` if its stream was lost.
    pub(in crate::postgres) client: Option<LocalClient>,
}

impl StartupFailure {
    /// Creates a failure that `client` receives.
    pub(in crate::postgres) fn of(client: LocalClient, error: ConnectionError) -> Self {
        let client = Some(client);
        Self { error, client }
    }
}

impl From<ConnectionError> for StartupFailure {
    /// Creates a failure that no client receives.
    fn from(error: ConnectionError) -> Self {
        let client = None;
        Self { error, client }
    }
}

/// Reads the client's startup, with TLS if the client requests it and there is an `acceptor`. On
/// failure the stream is returned, unless it was lost with TLS.
pub(in crate::postgres) async fn read_startup(
    acceptor: Option<&LocalAcceptor>,
    mut stream: Stream,
) -> Result<StartupRequest, StartupFailure> {
    let mut client = Client::new(acceptor.is_some());
    let mut buffer = [0; READ];
    loop {
        if let Err(error) =
            write_all(&mut stream, std::iter::from_fn(|| client.poll_output())).await
        {
            return Err(ConnectionError::ClientGone(error).into());
        }
        match client.poll_event() {
            Some(ClientEvent::StartTls) => {
                let tls = accept(acceptor, stream).await?;
                stream = Box::new(tls);
                client.tls_established();
                continue;
            }
            Some(ClientEvent::StartDirectTls { received }) => {
                let replayed = ReplayedStream { received, stream };
                let tls = accept(acceptor, Box::new(replayed)).await?;
                let established = client.direct_tls_established(tls.get_ref().1.alpn_protocol());
                stream = Box::new(tls);
                if let Err(error) = established {
                    let client = LocalClient::new(stream, true, &[]);
                    return Err(StartupFailure::of(client, error.into()));
                }
                continue;
            }
            Some(ClientEvent::Startup(startup)) => {
                let tls = client.is_tls();
                let client = LocalClient::new(stream, tls, &client.into_remainder());
                return Ok(StartupRequest::Startup { client, startup });
            }
            Some(ClientEvent::Cancel(key)) => return Ok(StartupRequest::Cancel { key, stream }),
            None => {}
        }
        let heard = match stream.read(&mut buffer).await {
            // Most clients close TLS without a close_notify, and with session tickets unread.
            Err(error) if client.is_tls() && is_the_end(&error) => Ok(0),
            read => read,
        };
        let heard = match heard {
            // Closing between packets is no protocol violation: port checks do it.
            Ok(0) => Err(client.handle_eof().err().map_or_else(
                || match acceptor.filter(|_| client.is_tls()) {
                    Some(acceptor) => ConnectionError::GoneAfterTls {
                        certificate: acceptor.certificate.clone(),
                    },
                    None => ConnectionError::ClientGone(io::ErrorKind::UnexpectedEof.into()),
                },
                ConnectionError::from,
            )),
            Ok(n) => client
                .handle_input(&buffer[..n])
                .map_err(ConnectionError::from),
            Err(error) => Err(ConnectionError::ClientGone(error)),
        };
        if let Err(error) = heard {
            let client = LocalClient::new(stream, client.is_tls(), &[]);
            return Err(StartupFailure::of(client, error));
        }
    }
}

/// Returns whether the error means that the client closed its connection.
fn is_the_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

async fn accept(
    acceptor: Option<&LocalAcceptor>,
    stream: Stream,
) -> Result<TlsStream<Stream>, ConnectionError> {
    // The machine requests TLS only if it was configured with TLS.
    let acceptor = acceptor.ok_or(ClientError::DirectTls)?;
    acceptor
        .tls
        .accept(stream)
        .await
        .map_err(|error| ConnectionError::LocalTls {
            error,
            certificate: acceptor.certificate.clone(),
        })
}

/// A stream with bytes that were already read from it.
struct ReplayedStream {
    received: Bytes,
    stream: Stream,
}

impl AsyncRead for ReplayedStream {
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

impl AsyncWrite for ReplayedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    // TLS writes its output in several pieces, and after an error it writes only once. Without
    // vectored writes the client would get a ServerHello and never the alert after it.
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
