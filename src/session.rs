//! ONE connection through the rooms; the only file that knows all of them.
//!
//! `greet → route → (token ‖ tunnel) → upstream TLS → upstream login → splice → close`

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pg_handshake::{
    CancelKey, Client, ClientError, ClientEvent, Startup, Upstream, UpstreamError, UpstreamEvent,
};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, field, info, info_span, warn};

use crate::aws::{AwsContext, AwsOptions, CredentialsError};
use crate::cancel::{CancelKeys, Registration};
use crate::config::{Target, Via};
use crate::report;
use crate::route::{self, RouteError, Routed};
use crate::splice::{self, EndedBy};
use crate::tls::local::{self, LocalTlsError};
use crate::tls::upstream::{TrustError, UpstreamTls, UpstreamTlsError};
use crate::token::cached::CachedTokens;
use crate::token::rds::RdsTokens;
use crate::token::{Token, TokenError, TokenProvider, TokenRequest};
use crate::tunnel::direct::Direct;
use crate::tunnel::ssm::supervisor::SsmTransport;
use crate::tunnel::{Duplex, Stream, Transport, TunnelError};

/// A client has this long to say what it wants, TLS included.
const GREETING_DEADLINE: Duration = Duration::from_secs(30);
/// TLS and login at the database, after the tunnel stands. Below the server's own
/// `authentication_timeout` (60 s), so that the reason comes from us.
const LOGIN_DEADLINE: Duration = Duration::from_secs(30);
/// A CancelRequest goes out and the server closes; it never answers.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);
/// Writing the last ErrorResponse to a client and closing.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(3);
/// After the stop signal every connection is gone within this.
pub const STOP_DEADLINE: Duration = Duration::from_secs(6);
/// Read size before the splice: startup packets and login answers are small.
const READ: usize = 4 * 1024;
/// What a client may pipeline behind its startup packet before it has to wait.
const EARLY: usize = 64 * 1024;
/// What a server may say between AuthenticationOk and ReadyForQuery.
const GREETING_BYTES: usize = 1024 * 1024;

/// AuthenticationOk (PostgreSQL docs, "Message Formats").
const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

/// What all connections share.
pub struct Proxy {
    os_user: Option<String>,
    acceptor: TlsAcceptor,
    cancel_keys: CancelKeys,
    /// Cancelled when the remaining connections must end.
    pub stop: CancellationToken,
}

impl Proxy {
    /// Loads or makes the local certificate below `state_dir`.
    ///
    /// # Errors
    /// [`LocalTlsError`].
    pub fn new(state_dir: &Path, os_user: Option<String>) -> Result<Self, LocalTlsError> {
        let (tls, certificate) = local::load_or_create(state_dir)?;
        debug!(certificate = %certificate.display(), "certificate for local TLS clients");
        Ok(Self {
            os_user,
            acceptor: TlsAcceptor::from(tls),
            cancel_keys: CancelKeys::default(),
            stop: CancellationToken::new(),
        })
    }
}

/// What one target needs: where it is, who signs, how to get there, whom to trust.
pub struct Rooms {
    /// The target.
    pub target: Arc<Target>,
    /// The way to it.
    pub transport: Arc<dyn Transport>,
    tokens: Arc<dyn TokenProvider>,
    tls: UpstreamTls,
    aws: Arc<AwsContext>,
}

/// Why the rooms of a target cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The trust roots.
    #[error("target \"{target}\": {source}")]
    Trust {
        /// The target.
        target: String,
        /// What is wrong.
        source: TrustError,
    },
}

/// Sets up every target; targets with the same profile and region share their AWS context.
///
/// # Errors
/// [`SetupError`] for settings that can never work. Nothing is asked of AWS here.
pub fn rooms(targets: Vec<Target>) -> Result<Vec<Arc<Rooms>>, SetupError> {
    let mut contexts: Vec<(Option<String>, Option<String>, Arc<AwsContext>)> = Vec::new();
    let mut rooms = Vec::new();
    for target in targets {
        let name = || target.name.clone();
        let (profile, region) = (target.profile.clone(), target.region.clone());
        let known = contexts
            .iter()
            .find(|(p, r, _)| *p == profile && *r == region);
        let aws = match known {
            Some((_, _, aws)) => Arc::clone(aws),
            None => {
                let aws = Arc::new(AwsContext::new(AwsOptions {
                    profile: profile.clone(),
                    region: region.clone(),
                    ..AwsOptions::default()
                }));
                contexts.push((profile, region, Arc::clone(&aws)));
                aws
            }
        };
        let tls =
            UpstreamTls::new(target.ca_file.as_deref()).map_err(|source| SetupError::Trust {
                target: name(),
                source,
            })?;
        let transport: Arc<dyn Transport> = match &target.via {
            Via::Direct => Arc::new(Direct::new(target.endpoint.clone())),
            Via::Ssm { bastion } => Arc::new(SsmTransport::new(
                Arc::clone(&aws),
                target.region.clone(),
                bastion,
                target.endpoint.clone(),
            )),
        };
        let tokens = Arc::new(CachedTokens::new(RdsTokens::new(Arc::clone(&aws))));
        rooms.push(Arc::new(Rooms {
            target: Arc::new(target),
            transport,
            tokens,
            tls,
            aws,
        }));
    }
    Ok(rooms)
}

/// Why a connection did not become a session.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The client broke the startup protocol.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client said nothing useful in time.
    #[error("the client sent no complete startup packet within {} s", .0.as_secs())]
    GreetingTimeout(Duration),
    /// The client went away, or its connection broke.
    #[error("the client went away: {0}")]
    ClientGone(io::Error),
    /// The local TLS handshake failed.
    #[error("TLS handshake with the local client failed: {0}")]
    LocalTls(io::Error),
    /// Too many connections at once.
    #[error("too many connections: {limit} are open")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// No target, or no user.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No credentials, where the region had to be looked up.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No tunnel.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Tunnel and token took too long.
    #[error("tunnel and token were not ready within {} s", .0.as_secs())]
    ConnectTimeout(Duration),
    /// No verified TLS to the database.
    #[error(transparent)]
    UpstreamTls(#[from] UpstreamTlsError),
    /// The database refused, or does not speak the protocol.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The connection to the database broke during the login.
    #[error("the connection to the database broke: {0}")]
    UpstreamLost(io::Error),
    /// TLS and login took too long.
    #[error("the database did not finish the login within {} s", .0.as_secs())]
    LoginTimeout(Duration),
    /// The program is stopping.
    #[error("pgiam is shutting down")]
    ShuttingDown,
}

/// Milliseconds spent in each stage of one connection.
#[derive(Clone, Copy, Debug, Default)]
struct Timings {
    startup_ms: f64,
    token_ms: f64,
    tunnel_ms: f64,
    tls_ms: f64,
    login_ms: f64,
}

fn millis(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// Serves one accepted connection to its end. Logs how it went; returns nothing, because nobody
/// waits for it.
pub async fn serve(
    proxy: Arc<Proxy>,
    rooms: Arc<[Arc<Rooms>]>,
    stream: Stream,
    peer: SocketAddr,
    permitted: bool,
) {
    let span = info_span!("conn", %peer, target = field::Empty, user = field::Empty, database = field::Empty);
    let accepted = Instant::now();
    async {
        let greeting = tokio::select! {
            greeting = timeout(GREETING_DEADLINE, greet(&proxy.acceptor, stream)) => greeting,
            () = proxy.stop.cancelled() => return,
        };
        match greeting {
            Ok(Ok(Greeted::Cancel { key, stream })) => cancel(&proxy, &rooms, &key, stream).await,
            Ok(Ok(Greeted::Startup {
                client,
                startup,
                early,
            })) => {
                let session = Session {
                    proxy,
                    rooms,
                    accepted,
                    timings: Timings::default(),
                };
                session.run(client, startup, early, permitted).await;
            }
            Ok(Err((error, client))) => refuse(client, &error, None, &Greeting::default()).await,
            Err(_) => {
                let error = SessionError::GreetingTimeout(GREETING_DEADLINE);
                refuse(None, &error, None, &Greeting::default()).await;
            }
        }
    }
    .instrument(span)
    .await;
}

/// The connection to the client.
struct Local {
    stream: Stream,
    tls: bool,
}

/// What the server said during the login, kept together: it goes to the client in one piece, and
/// not at all when a refused token is retried.
#[derive(Default)]
struct Greeting {
    bytes: BytesMut,
    /// AuthenticationOk is in it.
    authenticated: bool,
}

/// What a client wants.
enum Greeted {
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
async fn greet(
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

async fn write_all(stream: &mut dyn Duplex, chunks: impl Iterator<Item = Bytes>) -> io::Result<()> {
    let mut wrote = false;
    for chunk in chunks {
        stream.write_all(&chunk).await?;
        wrote = true;
    }
    if wrote { stream.flush().await } else { Ok(()) }
}

/// A connection that has said what it wants.
struct Session {
    proxy: Arc<Proxy>,
    rooms: Arc<[Arc<Rooms>]>,
    accepted: Instant,
    timings: Timings,
}

/// A logged-in connection to the database.
struct LoggedIn {
    stream: Stream,
    key: Option<CancelKey>,
    /// Server bytes behind ReadyForQuery.
    after: Bytes,
    tls: String,
}

impl Session {
    async fn run(mut self, mut client: Local, startup: Startup, early: Bytes, permitted: bool) {
        self.timings.startup_ms = millis(self.accepted);
        let mut greeting = Greeting::default();
        if !permitted {
            let error = SessionError::TooManyConnections {
                limit: crate::server::MAX_CONNECTIONS,
            };
            return refuse(Some(client), &error, None, &greeting).await;
        }
        let targets: Vec<Arc<Target>> = self
            .rooms
            .iter()
            .map(|rooms| Arc::clone(&rooms.target))
            .collect();
        let routed = match route::route(&targets, startup, self.proxy.os_user.as_deref()) {
            Ok(routed) => routed,
            Err(error) => return refuse(Some(client), &error.into(), None, &greeting).await,
        };
        let Some(rooms) = self
            .rooms
            .iter()
            .find(|rooms| rooms.target.name == routed.target.name)
            .cloned()
        else {
            return; // The router chooses among these very targets.
        };
        let span = Span::current();
        span.record("target", &routed.target.name);
        span.record("user", &routed.user);
        span.record("database", routed.database.as_deref().unwrap_or_default());

        let mut early = BytesMut::from(&early[..]);
        let stop = self.proxy.stop.clone();
        let connected = tokio::select! {
            connected = self.connect(&rooms, &routed, &mut greeting) => connected,
            gone = client_gone(&mut client.stream, &mut early) => Err(SessionError::ClientGone(gone)),
            () = stop.cancelled() => Err(SessionError::ShuttingDown),
        };
        match connected {
            Ok(upstream) => {
                self.splice(client.stream, upstream, greeting, early, &routed)
                    .await
            }
            Err(error) => {
                let about = report::About {
                    target: &routed.target,
                    user: &routed.user,
                };
                refuse(Some(client), &error, Some(about), &greeting).await;
            }
        }
    }

    /// Token and tunnel side by side, then the login; once more with a fresh token when the server
    /// refused one that came from the cache.
    async fn connect(
        &mut self,
        rooms: &Rooms,
        routed: &Routed,
        greeting: &mut Greeting,
    ) -> Result<LoggedIn, SessionError> {
        let request = self.token_request(rooms, routed).await?;
        let (token, stream) = self.token_and_tunnel(rooms, &request).await?;
        let from_cache = token.from_cache;
        match self.login(rooms, routed, stream, &token, greeting).await {
            Err(SessionError::Upstream(UpstreamError::Server(error)))
                if from_cache
                    && error
                        .sqlstate()
                        .is_some_and(|state| state.as_str() == "28000") =>
            {
                info!("the database refused a cached token; trying once with a fresh one");
                rooms.tokens.invalidate(&request, &token);
                *greeting = Greeting::default();
                let (token, stream) = self.token_and_tunnel(rooms, &request).await?;
                self.login(rooms, routed, stream, &token, greeting).await
            }
            outcome => outcome,
        }
    }

    async fn token_request(
        &self,
        rooms: &Rooms,
        routed: &Routed,
    ) -> Result<TokenRequest, SessionError> {
        let target = &routed.target;
        let region = match &target.region {
            Some(region) => region.clone(),
            None => rooms.aws.region().await?.ok_or(TunnelError::NoRegion)?,
        };
        Ok(TokenRequest {
            host: target.endpoint.host.clone(),
            port: target.endpoint.port,
            user: routed.user.clone(),
            region,
        })
    }

    async fn token_and_tunnel(
        &mut self,
        rooms: &Rooms,
        request: &TokenRequest,
    ) -> Result<(Token, Stream), SessionError> {
        let began = Instant::now();
        let token = async {
            let token = rooms
                .tokens
                .token(request)
                .await
                .map_err(SessionError::from)?;
            Ok::<_, SessionError>((token, millis(began)))
        };
        let tunnel = async {
            let stream = rooms.transport.open().await.map_err(SessionError::from)?;
            Ok::<_, SessionError>((stream, millis(began)))
        };
        let deadline = rooms.target.connect_timeout;
        let both = timeout(deadline, async { tokio::try_join!(token, tunnel) }).await;
        let ((token, token_ms), (stream, tunnel_ms)) =
            both.map_err(|_| SessionError::ConnectTimeout(deadline))??;
        (self.timings.token_ms, self.timings.tunnel_ms) = (token_ms, tunnel_ms);
        Ok((token, stream))
    }

    async fn login(
        &mut self,
        rooms: &Rooms,
        routed: &Routed,
        stream: Stream,
        token: &Token,
        greeting: &mut Greeting,
    ) -> Result<LoggedIn, SessionError> {
        let login = login(
            &mut self.timings,
            rooms,
            routed.startup.clone(),
            stream,
            token,
            greeting,
        );
        timeout(LOGIN_DEADLINE, login)
            .await
            .map_err(|_| SessionError::LoginTimeout(LOGIN_DEADLINE))?
    }

    /// The session proper, from the first ReadyForQuery to the end.
    async fn splice(
        self,
        mut client: Stream,
        upstream: LoggedIn,
        mut greeting: Greeting,
        early: BytesMut,
        routed: &Routed,
    ) {
        let LoggedIn {
            stream: mut server,
            key,
            after,
            tls,
        } = upstream;
        let _registration: Option<Registration> = key.map(|key| {
            self.proxy
                .cancel_keys
                .register(key, Arc::clone(&routed.target))
        });
        greeting.bytes.extend_from_slice(&after);
        let Timings {
            startup_ms,
            token_ms,
            tunnel_ms,
            tls_ms,
            login_ms,
        } = self.timings;
        let total_ms = millis(self.accepted);
        info!(
            startup_ms,
            token_ms, tunnel_ms, tls_ms, login_ms, total_ms, tls, "session ready"
        );

        if let Err(error) = write_all(&mut client, [greeting.bytes.freeze()].into_iter()).await {
            info!(by = EndedBy::Client.as_str(), %error, "session ended");
            return splice::close(&mut server).await;
        }
        let stop = self.proxy.stop.cancelled();
        let end = splice::splice(&mut client, &mut server, early.freeze(), stop).await;
        let seconds = self.accepted.elapsed().as_secs();
        let reason = end
            .error
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let (by, sent, received) = (end.by.as_str(), end.sent, end.received);
        if end.by == EndedBy::Server && end.error.is_some() {
            warn!(by, reason, sent, received, seconds, "session ended");
        } else {
            info!(by, reason, sent, received, seconds, "session ended");
        }
        let last_words = report::after_login(&end, &routed.target);
        let farewell = async {
            if let Some(message) = last_words
                && let Err(error) = write_all(&mut client, [message].into_iter()).await
            {
                debug!(%error, "the client did not take the reason");
            }
            tokio::join!(splice::close(&mut client), splice::close(&mut server));
        };
        if timeout(FAREWELL_DEADLINE, farewell).await.is_err() {
            debug!("a side did not close in time");
        }
    }
}

/// SSLRequest, verified TLS, StartupMessage, token, ReadyForQuery.
async fn login(
    timings: &mut Timings,
    rooms: &Rooms,
    startup: Startup,
    mut stream: Stream,
    token: &Token,
    greeting: &mut Greeting,
) -> Result<LoggedIn, SessionError> {
    let began = Instant::now();
    let mut machine = Upstream::login(startup);
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
            UpstreamEvent::PasswordRequired => machine.password(token.value.expose().as_bytes())?,
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
async fn next_event(
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

/// Resolves when the client closes while it waits for its login; keeps what it sends meanwhile.
async fn client_gone(stream: &mut Stream, early: &mut BytesMut) -> io::Error {
    let mut buffer = [0; READ];
    while early.len() < EARLY {
        match stream.read(&mut buffer).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(n) => early.extend_from_slice(&buffer[..n]),
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// Passes a CancelRequest on. As with the server itself the client learns nothing from the answer
/// but that the connection closes (PostgreSQL docs, "Canceling Requests in Progress"), which we do
/// when the server has: libpq takes the close as "processed".
async fn cancel(proxy: &Proxy, rooms: &[Arc<Rooms>], key: &CancelKey, mut stream: Stream) {
    let pid = key.pid();
    let rooms = proxy
        .cancel_keys
        .find(key)
        .and_then(|target| rooms.iter().find(|rooms| rooms.target.name == target.name));
    match rooms {
        None => info!(
            pid,
            "cancel request for no open connection; ignored, as the server does"
        ),
        Some(rooms) => {
            Span::current().record("target", &rooms.target.name);
            match timeout(CANCEL_DEADLINE, forward_cancel(rooms, key)).await {
                Ok(Ok(())) => info!(pid, "cancel request delivered"),
                Ok(Err(error)) => warn!(
                    pid,
                    reason = crate::tunnel::chain(&error),
                    "cancel request not delivered"
                ),
                Err(_) => warn!(
                    pid,
                    seconds = CANCEL_DEADLINE.as_secs(),
                    "cancel request not delivered in time"
                ),
            }
        }
    }
    splice::close(&mut stream).await;
}

async fn forward_cancel(rooms: &Rooms, key: &CancelKey) -> Result<(), SessionError> {
    let mut stream = rooms.transport.open().await?;
    let mut machine = Upstream::cancel(key.clone());
    while next_event(&mut machine, &mut stream).await? == UpstreamEvent::StartTls {
        stream = Box::new(
            rooms
                .tls
                .connect(&rooms.target.endpoint.host, stream)
                .await?,
        );
        machine.tls_established();
    }
    let mut rest = [0; 64];
    // The server closes when it has signalled the backend; how it closes does not matter.
    while let Ok(1..) = stream.read(&mut rest).await {}
    Ok(())
}

/// Tells client and log why there is no session.
///
/// Over TLS the error follows an AuthenticationOk: libpq, by its default `sslmode=prefer`, takes an
/// error in its place as a reason to try the same again without TLS, so that every failure would be
/// tried, waited for and printed twice. The client has indeed passed what we ask of it.
async fn refuse(
    client: Option<Local>,
    error: &SessionError,
    about: Option<report::About<'_>>,
    greeting: &Greeting,
) {
    let report = report::before_login(error, about.as_ref());
    report.log();
    let (Some(mut client), Some(reply)) = (client, report.reply) else {
        return;
    };
    let welcome: &'static [u8] = if client.tls && !greeting.authenticated {
        &AUTHENTICATION_OK
    } else {
        &[]
    };
    let parts = [
        Bytes::copy_from_slice(&greeting.bytes),
        Bytes::from_static(welcome),
        reply,
    ];
    let farewell = async {
        if let Err(error) = write_all(&mut client.stream, parts.into_iter()).await {
            debug!(%error, "the client did not take the reason");
        }
        splice::close(&mut client.stream).await;
    };
    if timeout(FAREWELL_DEADLINE, farewell).await.is_err() {
        debug!("the client did not take the reason in time");
    }
}
