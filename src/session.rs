//! ONE connection through the rooms; the only file that knows all of them.
//!
//! `greet → route → (token ‖ tunnel) → upstream TLS → upstream login → splice → close`

mod cancel;
mod error;
mod greet;
mod login;
mod rooms;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pg_handshake::{Startup, Upstream, UpstreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, debug, field, info, info_span, warn};

use crate::cancel::Registration;
use crate::config::Target;
use crate::report;
use crate::route::{self, Routed};
use crate::splice::{self, EndedBy, First};
use crate::token::{Token, TokenRequest};
use crate::tunnel::{Duplex, Stream, TunnelError, plain};

pub use error::SessionError;
use greet::{Greeted, Local, greet};
use login::{Greeting, LoggedIn, begin, login};
pub use rooms::{Proxy, Rooms, SetupError, rooms};

/// A client has this long to say what it wants, TLS included.
const GREETING_DEADLINE: Duration = Duration::from_secs(30);
/// TLS and login at the database, after the tunnel stands. Below the server's own
/// `authentication_timeout` (60 s), so that the reason comes from us.
const LOGIN_DEADLINE: Duration = Duration::from_secs(30);
/// Writing the last ErrorResponse to a client and closing.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(3);
/// After the stop signal every connection is gone within this.
pub const STOP_DEADLINE: Duration = Duration::from_secs(6);
/// Read size before the splice: startup packets and login answers are small.
const READ: usize = 4 * 1024;
/// What a client may pipeline behind its startup packet before it has to wait.
const EARLY: usize = 64 * 1024;

/// AuthenticationOk (PostgreSQL docs, "Message Formats").
const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

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
            Ok(Ok(Greeted::Cancel { key, stream })) => {
                cancel::deliver(&proxy, &rooms, &key, stream).await
            }
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
                    token_judged: greeting.token_judged(),
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
        let (machine, hello) = begin(Upstream::login(routed.startup.clone()));
        let (token, stream) = self.token_and_tunnel(rooms, &request, hello).await?;
        let from_cache = token.from_cache;
        match self.login(rooms, (machine, stream), &token, greeting).await {
            Err(SessionError::Upstream(UpstreamError::Server(error)))
                if from_cache
                    && greeting.token_judged()
                    && error
                        .sqlstate()
                        .is_some_and(|state| state.as_str() == "28000") =>
            {
                info!("the database refused a cached token; trying once with a fresh one");
                rooms.tokens.invalidate(&request, &token);
                *greeting = Greeting::default();
                let (machine, hello) = begin(Upstream::login(routed.startup.clone()));
                let (token, stream) = self.token_and_tunnel(rooms, &request, hello).await?;
                self.login(rooms, (machine, stream), &token, greeting).await
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
        hello: Bytes,
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
            let stream = rooms
                .transport
                .open(hello)
                .await
                .map_err(SessionError::from)?;
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
        begun: (Upstream, Stream),
        token: &Token,
        greeting: &mut Greeting,
    ) -> Result<LoggedIn, SessionError> {
        let login = login(&mut self.timings, rooms, begun, token, greeting);
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

        let stop = self.proxy.stop.cancelled();
        let first = First {
            up: &early,
            down: &greeting.bytes,
        };
        let end = splice::splice(&mut client, &mut server, first, stop).await;
        let seconds = self.accepted.elapsed().as_secs();
        let reason = end.error.as_ref().map(plain).unwrap_or_default();
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
