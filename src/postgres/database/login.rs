//! Login at the database: verified TLS, startup, token.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pg_handshake::{
    ALPN, AUTHENTICATION_OK, CancelKey, Negotiation, Upstream, UpstreamEvent, UpstreamStage,
};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use crate::aws::token::IamToken;
use crate::base::stream::Stream;
use crate::config::Endpoint;
use crate::failure::connection::ConnectionError;
use crate::postgres::database::dial_on_read::DialOnRead;
use crate::postgres::io::{READ, write_all};
use crate::postgres::server_memory::ServerCapabilities;
use crate::postgres::target::PgContext;
use crate::postgres::timings::{StageTimings, millis};
use crate::postgres::waiting::ClientWait;
use crate::tunnel::{StreamPurpose, TunnelError};

/// Maximum size of a server's messages between AuthenticationOk and ReadyForQuery.
const LOGIN_MESSAGES_BYTES: usize = 1024 * 1024;

/// The server's messages during the login. The client gets them in one piece, or not at all if the
/// login is retried.
#[derive(Default)]
pub(in crate::postgres) struct LoginMessages {
    pub(in crate::postgres) bytes: BytesMut,
    /// Contains AuthenticationOk.
    pub(in crate::postgres) authenticated: bool,
    /// The server has requested the token and received it.
    token_given: bool,
    /// A token was sent, requested or not.
    pub(in crate::postgres) token_sent: bool,
    /// The server has sent a byte since the connection was handed to the login.
    pub(in crate::postgres) answered: bool,
    /// Sent right after AuthenticationOk.
    notice: Option<Bytes>,
}

impl LoginMessages {
    /// Creates a greeting that begins with `first` and has `notice` after AuthenticationOk.
    pub(in crate::postgres) fn new(first: Option<&Bytes>, notice: Option<Bytes>) -> Self {
        Self {
            bytes: BytesMut::from(first.map(|first| &first[..]).unwrap_or_default()),
            notice,
            ..Self::default()
        }
    }

    /// Returns whether the server has requested the token and received it.
    pub(in crate::postgres) fn token_given(&self) -> bool {
        self.token_given
    }

    /// Returns whether a refusal now is the answer to the token.
    pub(in crate::postgres) fn token_judged(&self) -> bool {
        self.token_given && !self.authenticated
    }

    /// Returns the value of a run-time parameter that the server has reported (ParameterStatus).
    pub(in crate::postgres) fn reported(&self, name: &str) -> Option<String> {
        let mut rest = &self.bytes[..];
        let mut found = None;
        while let Some((frame, after)) = cut(rest) {
            rest = after;
            let Some(body) = frame.strip_prefix(b"S").and_then(|frame| frame.get(4..)) else {
                continue;
            };
            let mut fields = body.split(|byte| *byte == 0);
            if fields.next() == Some(name.as_bytes()) {
                found = fields.next();
            }
        }
        found.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Adds a message of the server.
    ///
    /// # Errors
    /// The messages are larger than those of any real server before ReadyForQuery.
    pub(in crate::postgres) fn add(&mut self, frame: &Bytes) -> Result<(), ConnectionError> {
        self.bytes.extend_from_slice(frame);
        if frame[..] == AUTHENTICATION_OK {
            self.authenticated = true;
            self.bytes
                .extend_from_slice(&self.notice.take().unwrap_or_default());
        }
        if self.bytes.len() > LOGIN_MESSAGES_BYTES {
            return Err(ConnectionError::UpstreamLost(io::Error::new(
                io::ErrorKind::InvalidData,
                "it sent more than 1 MiB before it was ready for queries",
            )));
        }
        Ok(())
    }
}

/// Returns the first message of `bytes`, type byte included, and the rest.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = bytes.split_first()?;
    let (length, _) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    bytes.split_at_checked(length.checked_add(1)?)
}

/// Server that a connection leads to.
#[derive(Clone)]
pub(in crate::postgres) struct DatabaseServer {
    /// The name that its certificate must contain.
    pub(in crate::postgres) name: String,
    /// Facts known from earlier logins.
    pub(in crate::postgres) capabilities: Arc<ServerCapabilities>,
}

impl DatabaseServer {
    /// Returns the server at `endpoint`.
    pub(in crate::postgres) fn at(context: &PgContext, endpoint: &Endpoint) -> Self {
        Self {
            name: endpoint.host.clone(),
            capabilities: context.protocol.server(endpoint),
        }
    }
}

/// A connection to the database before the login.
pub(in crate::postgres) struct OpenedConnection {
    pub(in crate::postgres) server: DatabaseServer,
    pub(in crate::postgres) machine: Upstream,
    pub(in crate::postgres) stream: Stream,
    /// TLS version, if TLS is established already.
    pub(in crate::postgres) tls: Option<String>,
    /// Time limit for the first byte of the answer to the login; `None`: that of the whole login.
    pub(in crate::postgres) patience: Option<Duration>,
}

/// A logged-in connection to the database.
pub(in crate::postgres) struct LoggedIn {
    pub(in crate::postgres) stream: Stream,
    pub(in crate::postgres) key: Option<CancelKey>,
    /// Bytes from the server after ReadyForQuery.
    pub(in crate::postgres) after: Bytes,
    pub(in crate::postgres) tls: String,
}

/// Opens a connection with the first message of `machine`: an SSLRequest, which is sent with the
/// dial, or the ClientHello of direct TLS. A server may receive either one twice without harm.
pub(in crate::postgres) async fn open(
    context: &PgContext,
    server: &DatabaseServer,
    mut machine: Upstream,
    purpose: StreamPurpose,
) -> Result<OpenedConnection, ConnectionError> {
    let server = server.clone();
    let mut hello = BytesMut::new();
    while let Some(bytes) = machine.poll_output() {
        hello.extend_from_slice(&bytes);
    }
    if machine.stage() != UpstreamStage::TlsHandshake {
        let hello = hello.freeze();
        let stream = context.transport.open_for(purpose, hello).await?;
        let tls = None;
        return Ok(OpenedConnection {
            server,
            machine,
            stream,
            tls,
            patience: None,
        });
    }
    let stream = Box::new(DialOnRead::new(context.transport.clone(), purpose));
    machine.poll_event(); // StartTls, which comes next.
    let (stream, tls) = secure(context, &server, stream, Negotiation::Direct).await?;
    machine.tls_established();
    let tls = Some(tls);
    Ok(OpenedConnection {
        server,
        machine,
        stream,
        tls,
        patience: None,
    })
}

/// Establishes verified TLS on `stream`, and returns its version.
pub(in crate::postgres) async fn secure(
    context: &PgContext,
    server: &DatabaseServer,
    stream: Stream,
    negotiation: Negotiation,
) -> Result<(Stream, String), ConnectionError> {
    let tls = handshake(context, server, stream, negotiation).await?;
    let version = tls_name(tls.get_ref().1.protocol_version());
    Ok((Box::new(tls), version))
}

/// Establishes verified TLS on `stream`.
pub(in crate::postgres) async fn handshake(
    context: &PgContext,
    server: &DatabaseServer,
    stream: Stream,
    negotiation: Negotiation,
) -> Result<TlsStream<Stream>, ConnectionError> {
    let tls = context.tls.connect(&server.name, stream).await?;
    let session = tls.get_ref().1;
    // PostgreSQL docs, "SSL Session Encryption": without ALPN, direct TLS might reach a server of
    // another protocol. After an SSLRequest, the reply S identifies the server.
    if negotiation == Negotiation::Direct && session.alpn_protocol() != Some(ALPN) {
        return Err(ConnectionError::NoAlpn);
    }
    server.capabilities.secured(negotiation);
    Ok(tls)
}

/// Progress of a login, for logs and for the report of a client that leaves.
pub(in crate::postgres) struct LoginProgress<'a> {
    pub(in crate::postgres) timings: &'a mut StageTimings,
    pub(in crate::postgres) waiting: &'a ClientWait,
}

/// Values that a login with a token needs besides the connection.
pub(in crate::postgres) struct LoginToken<'a> {
    pub(in crate::postgres) token: &'a IamToken,
    /// Send the token before the server requests it.
    pub(in crate::postgres) early: bool,
}

/// Logs in on an open connection: verified TLS, StartupMessage, token, ReadyForQuery.
pub(in crate::postgres) async fn login(
    progress: LoginProgress<'_>,
    context: &PgContext,
    opened: OpenedConnection,
    credentials: LoginToken<'_>,
    login_messages: &mut LoginMessages,
) -> Result<LoggedIn, ConnectionError> {
    let OpenedConnection {
        server,
        mut machine,
        mut stream,
        tls,
        patience,
    } = opened;
    let LoginToken { token, early } = credentials;
    let LoginProgress { timings, waiting } = progress;
    let token = token.value.expose().as_bytes();
    let began = Instant::now();
    let mut login_began = began;
    let mut key = None;
    let mut tls_version = tls.unwrap_or_default();
    loop {
        // Only over TLS that was verified for the endpoint's name: the machine enters this stage
        // after `tls_established` and not before.
        if early && machine.stage() == UpstreamStage::Authentication {
            machine.password(token)?;
            login_messages.token_sent = true;
        }
        waiting.for_database(machine.stage());
        let first = patience.filter(|_| !login_messages.answered);
        let heard = &mut login_messages.answered;
        let event = next_event_within(&mut machine, &mut stream, first, heard).await;
        login_messages.token_given |= early && machine.password_asked();
        match event? {
            UpstreamEvent::StartTls => {
                waiting.for_database(UpstreamStage::TlsHandshake);
                (stream, tls_version) =
                    secure(context, &server, stream, Negotiation::SslRequest).await?;
                machine.tls_established();
                timings.tls_ms = millis(began);
                login_began = Instant::now();
            }
            UpstreamEvent::PasswordRequired => {
                machine.password(token)?;
                login_messages.token_given = true;
                login_messages.token_sent = true;
            }
            UpstreamEvent::Relay(frame) => {
                if let Some(major) = server_version(&frame) {
                    server.capabilities.saw_version(major);
                }
                login_messages.add(&frame)?;
            }
            UpstreamEvent::BackendKey(backend_key) => key = Some(backend_key),
            UpstreamEvent::Ready => break,
            // Not in pgiam's own login.
            UpstreamEvent::CancelSent | UpstreamEvent::AuthRequest { .. } => {}
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

/// Returns the major version from a ParameterStatus frame that contains it; `None` for every other
/// frame.
pub(in crate::postgres) fn server_version(frame: &[u8]) -> Option<u32> {
    let body = frame.strip_prefix(b"S")?.get(4..)?;
    let value = body.strip_prefix(b"server_version\0")?;
    let digits = value.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the version as PostgreSQL and OpenSSL write it.
pub(in crate::postgres) fn tls_name(version: Option<rustls::ProtocolVersion>) -> String {
    version
        .map(|version| format!("{version:?}").replace('_', "."))
        .unwrap_or_default()
}

/// Feeds the machine from the stream until it returns an event. Not cancel-safe: a login that is
/// dropped half-way cannot be resumed.
pub(in crate::postgres) async fn next_event(
    machine: &mut Upstream,
    stream: &mut Stream,
) -> Result<UpstreamEvent, ConnectionError> {
    next_event_within(machine, stream, None, &mut false).await
}

/// Like [`next_event`], with a time limit for each read. Sets `heard` when a byte has arrived.
async fn next_event_within(
    machine: &mut Upstream,
    stream: &mut Stream,
    limit: Option<Duration>,
    heard: &mut bool,
) -> Result<UpstreamEvent, ConnectionError> {
    let mut buffer = [0; READ];
    loop {
        write_all(stream, std::iter::from_fn(|| machine.poll_output()))
            .await
            .map_err(lost)?;
        if let Some(event) = machine.poll_event() {
            return Ok(event);
        }
        machine.handle_input(&[])?; // An error comes after the events before it.
        let read = stream.read(&mut buffer);
        let read = match limit {
            Some(limit) => timeout(limit, read)
                .await
                .map_err(io::Error::from)
                .flatten(),
            None => read.await,
        };
        let read = read.map_err(lost)?;
        *heard |= read > 0;
        // The machine keeps its first error; the line above returns it.
        _ = match read {
            0 => machine.handle_eof(),
            n => machine.handle_input(&buffer[..n]),
        };
    }
}

/// Converts the error of a broken stream; the tunnel's own reason takes precedence.
pub(in crate::postgres) fn lost(error: io::Error) -> ConnectionError {
    match TunnelError::of(&error) {
        Some(tunnel) => ConnectionError::Tunnel(tunnel.clone()),
        None => ConnectionError::UpstreamLost(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{LoginMessages, server_version};

    #[test]
    fn reported_parameters_are_found() {
        let mut login_messages = LoginMessages::default();
        assert_eq!(login_messages.reported("TimeZone"), None);
        for frame in [
            &b"R\0\0\0\x08\0\0\0\0"[..],
            b"S\0\0\0\x11TimeZone\0UTC\0",
            b"S\0\0\0\x0aa\0bcd\0",
            b"Z\0\0\0\x05I",
        ] {
            login_messages.add(&Bytes::from_static(frame)).unwrap();
        }
        assert_eq!(login_messages.reported("TimeZone").as_deref(), Some("UTC"));
        assert_eq!(login_messages.reported("a").as_deref(), Some("bcd"));
        assert_eq!(login_messages.reported("UTC"), None);
    }

    #[test]
    fn the_version_is_found_where_it_is_told() {
        let status = |body: &str| [b"S\0\0\0\0", body.as_bytes()].concat();
        for (body, expected) in [
            (
                "server_version\x0015.18 (Debian 15.18-0+deb12u1)\0",
                Some(15),
            ),
            ("server_version\x0018.4\0", Some(18)),
            ("server_version\x0019devel\0", Some(19)),
            ("server_version\0\0", None),
            ("server_version\0x\0", None),
            ("server_version_num\x00180004\0", None),
            ("TimeZone\0Etc/UTC\0", None),
        ] {
            assert_eq!(server_version(&status(body)), expected, "{body:?}");
        }
        assert_eq!(server_version(b"S"), None);
        assert_eq!(server_version(b"Z\0\0\0\x05I"), None);
    }
}
