//! The login at the database: SSLRequest, verified TLS, startup, token.

use std::io;

use bytes::{Bytes, BytesMut};
use pg_handshake::{CancelKey, Upstream, UpstreamEvent};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::{AUTHENTICATION_OK, READ, Rooms, SessionError, Timings, millis, write_all};
use crate::token::Token;
use crate::tunnel::{Stream, TunnelError};

/// What a server may say between AuthenticationOk and ReadyForQuery.
const GREETING_BYTES: usize = 1024 * 1024;

/// What the server said during the login, kept together: it goes to the client in one piece, and
/// not at all when a refused token is retried.
#[derive(Default)]
pub(super) struct Greeting {
    pub(super) bytes: BytesMut,
    /// AuthenticationOk is in it.
    pub(super) authenticated: bool,
    /// The token has been sent.
    token_sent: bool,
}

impl Greeting {
    /// Whether a refusal now is the answer to the token.
    pub(super) fn token_judged(&self) -> bool {
        self.token_sent && !self.authenticated
    }
}

/// A logged-in connection to the database.
pub(super) struct LoggedIn {
    pub(super) stream: Stream,
    pub(super) key: Option<CancelKey>,
    /// Server bytes behind ReadyForQuery.
    pub(super) after: Bytes,
    pub(super) tls: String,
}

/// The machine and the first bytes it sends: the SSLRequest, which a server may see twice without
/// harm, and which the transport sends along with its dial.
pub(super) fn begin(mut machine: Upstream) -> (Upstream, Bytes) {
    let mut hello = BytesMut::new();
    while let Some(bytes) = machine.poll_output() {
        hello.extend_from_slice(&bytes);
    }
    (machine, hello.freeze())
}

/// What follows the SSLRequest: verified TLS, StartupMessage, token, ReadyForQuery.
pub(super) async fn login(
    timings: &mut Timings,
    rooms: &Rooms,
    (mut machine, mut stream): (Upstream, Stream),
    token: &Token,
    greeting: &mut Greeting,
) -> Result<LoggedIn, SessionError> {
    let began = Instant::now();
    let mut key = None;
    let mut tls_version = String::new();
    let mut login_began = began;
    loop {
        match next_event(&mut machine, &mut stream).await? {
            UpstreamEvent::StartTls => {
                let tls = rooms
                    .tls
                    .connect(&rooms.target.endpoint.host, stream)
                    .await?;
                tls_version = tls_name(tls.get_ref().1.protocol_version());
                stream = Box::new(tls);
                machine.tls_established();
                timings.tls_ms = millis(began);
                login_began = Instant::now();
            }
            // Verified TLS stands: the machine asks only after `tls_established`.
            UpstreamEvent::PasswordRequired => {
                machine.password(token.value.expose().as_bytes())?;
                greeting.token_sent = true;
            }
            UpstreamEvent::Relay(frame) => {
                greeting.authenticated |= frame[..] == AUTHENTICATION_OK;
                greeting.bytes.extend_from_slice(&frame);
                if greeting.bytes.len() > GREETING_BYTES {
                    return Err(SessionError::UpstreamLost(io::Error::other(
                        "it sent more than 1 MiB before it was ready for queries",
                    )));
                }
            }
            UpstreamEvent::BackendKey(backend_key) => key = Some(backend_key),
            UpstreamEvent::Ready => break,
            UpstreamEvent::CancelSent => {} // Not at a login.
        }
    }
    timings.login_ms = millis(login_began);
    Ok(LoggedIn {
        stream,
        key,
        after: machine.into_remainder(),
        tls: tls_version,
    })
}

/// The version as PostgreSQL and OpenSSL write it.
fn tls_name(version: Option<rustls::ProtocolVersion>) -> String {
    version
        .map(|version| format!("{version:?}").replace('_', "."))
        .unwrap_or_default()
}

/// Feeds the machine from the stream until it has something to say. Not cancel-safe: a login that
/// is dropped half-way is not resumed.
pub(super) async fn next_event(
    machine: &mut Upstream,
    stream: &mut Stream,
) -> Result<UpstreamEvent, SessionError> {
    let mut buffer = [0; READ];
    loop {
        write_all(stream, std::iter::from_fn(|| machine.poll_output()))
            .await
            .map_err(lost)?;
        if let Some(event) = machine.poll_event() {
            return Ok(event);
        }
        machine.handle_input(&[])?; // An error comes after the events that were in front of it.
        // The first error sticks, and the line above finds it.
        _ = match stream.read(&mut buffer).await.map_err(lost)? {
            0 => machine.handle_eof(),
            n => machine.handle_input(&buffer[..n]),
        };
    }
}

/// A broken stream's reason: the tunnel's own, if it gave one.
fn lost(error: io::Error) -> SessionError {
    match TunnelError::of(&error) {
        Some(tunnel) => SessionError::Tunnel(tunnel.clone()),
        None => SessionError::UpstreamLost(error),
    }
}
