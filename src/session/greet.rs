//! What the local client says first, over plain TCP or TLS.

use std::io;

use bytes::Bytes;
use pg_handshake::{CancelKey, Client, ClientEvent, Startup};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

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

/// Reads the client's startup, with TLS if it asks. On failure the stream comes back, unless TLS
/// took it down.
pub(super) async fn greet(
    acceptor: &TlsAcceptor,
    mut stream: Stream,
) -> Result<Greeted, (SessionError, Option<Local>)> {
    let mut client = Client::new(true);
    let mut buffer = [0; READ];
    loop {
        if let Err(error) =
            write_all(&mut stream, std::iter::from_fn(|| client.poll_output())).await
        {
            return Err((SessionError::ClientGone(error), None));
        }
        match client.poll_event() {
            Some(ClientEvent::StartTls) => {
                stream = match acceptor.accept(stream).await {
                    Ok(tls) => Box::new(tls),
                    Err(error) => return Err((SessionError::LocalTls(error), None)),
                };
                client.tls_established();
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
