//! One connection through all stages; the only file that knows all of them.
//!
//! `greet → route → (token ‖ tunnel) → upstream TLS → upstream login → splice → close`
//!
//! The stages before the splice are boxed: a task is as large as its largest stage, and an open
//! connection should not hold memory for its login.

use super::client::admit;
use super::client::probe::is_probe;
use super::client::startup::{AuthState, LocalClient, StartupFailure, StartupRequest};
use super::connection_state::ClientConnection;
use super::database::cancel;
use super::database::login::{LoggedIn, LoginMessages};
use super::io::write_all;
use super::shared::Proxy;
use super::target::PgContext;
use super::target::{PgPortTargets, PgTarget, PgTargetState};
use super::timings::{StageTimings, millis};
use super::waiting::{self};
use crate::failure::ConnectionError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pg_handshake::{AUTHENTICATION_OK, Startup};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error_span, field, info, warn};

use crate::admission::{Admitted, Refused};
use crate::base::error_text::plain;
use crate::base::pump;
use crate::base::stream::Stream;
use crate::config::{Auth, ResolvedTarget};
use crate::failure::connection_end::EndedBy;
use crate::observe::LiveConnection;
use crate::postgres::cancel_keys::KeyRegistration;
use crate::postgres::route;
use crate::postgres::route::{OfferedTargets, RoutedStartup};
use crate::postgres::splice;
use crate::postgres::splice::InitialBytes;
use crate::report::{self};
use crate::serving::protocol::ClientProtocol;
use crate::serving::state::{ConnectionStop, ServingState};
use crate::tunnel::Readiness;

/// Time that a client may stay silent while others wait for its place, and interval of the check.
const CROWDED_PATIENCE: Duration = Duration::from_secs(2);
const CROWDED_LOOK: Duration = Duration::from_millis(250);
/// Time limit for the last ErrorResponse to a client and for closing.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(3);
/// Time limit for the answer to a readiness probe: `pg_isready` waits for 3 s, and reports a
/// timeout as "no response".
const PROBE_DEADLINE: Duration = Duration::from_millis(2500);

impl ClientProtocol for Proxy {
    type TargetState = PgTargetState;

    fn serving(&self) -> &ServingState {
        &self.serving
    }

    fn serve(
        self: Arc<Self>,
        port_targets: PgPortTargets,
        client: Admitted<Stream>,
        startup_permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send {
        serve(self, port_targets, client, startup_permit)
    }

    fn refuse(
        self: Arc<Self>,
        port_targets: PgPortTargets,
        client: Refused<Stream>,
    ) -> impl Future<Output = ()> + Send {
        turn_away(self, port_targets, client)
    }
}

/// Serves one accepted connection to its end. Failures are logged, not returned. `startup_permit`
/// is released as soon as the client has completed its startup.
async fn serve(
    proxy: Arc<Proxy>,
    port_targets: PgPortTargets,
    connection: Admitted<Stream>,
    startup_permit: OwnedSemaphorePermit,
) {
    let arrival = connection.arrival();
    // Of the lowest level, so that errors name their connection with every filter.
    let span = error_span!("conn", peer = %arrival, program = field::Empty, target = field::Empty, user = field::Empty, database = field::Empty);
    let (accepted, is_owners) = (Instant::now(), connection.is_owners());
    async {
        let stop = proxy.serving.stop.clone();
        let deadline = proxy.serving.startup_timeout;
        let admit_client = Box::pin(admit::admit_client(&proxy, &port_targets, connection));
        let admitted = tokio::select! {
            admitted = timeout(deadline, admit_client) => admitted.map_err(|_| deadline),
            () = crowded(&startup_permit) => Err(accepted.elapsed()),
            () = stop.cancelled() => return,
        };
        match admitted {
            Ok(Ok(StartupRequest::Cancel { key, stream })) => {
                drop(startup_permit);
                Box::pin(cancel::deliver(&proxy, &port_targets, &key, stream)).await;
            }
            Ok(Ok(StartupRequest::Startup { client, startup })) => {
                let connection = ClientConnection {
                    arrival,
                    is_owners,
                    client_asked: proxy.asks_password(&arrival),
                    stop: ConnectionStop {
                        program: stop,
                        target: CancellationToken::new(),
                    },
                    proxy,
                    accepted,
                    waiting: Arc::default(),
                    timings: StageTimings::default(),
                    evidence: None,
                    no_default: None,
                };
                connection
                    .run(client, startup, startup_permit, port_targets)
                    .await;
            }
            Ok(Err(failure)) => refuse_early(&proxy, failure).await,
            Err(after) => {
                refuse_early(&proxy, ConnectionError::StartupTimeout(after).into()).await;
            }
        }
    }
    .instrument(span)
    .await;
}

/// Refuses a client after reading its startup packet. A cancel request is delivered unless the
/// client is known to belong to another user. Needs no startup permit.
async fn turn_away(
    proxy: Arc<Proxy>,
    port_targets: PgPortTargets,
    mut connection: Refused<Stream>,
) {
    let place = connection.take_place();
    let arrival = connection.arrival();
    let span = error_span!("conn", peer = %arrival);
    async {
        let turned_away = tokio::select! {
            turned_away = admit::turn_away(&proxy, connection) => turned_away,
            () = proxy.serving.stop.cancelled() => return,
        };
        match turned_away {
            // The guard counts it, and the client does not read a reply.
            Err(_) if place.is_quiet() => {}
            Ok((key, _)) if place.is_quiet() && proxy.cancel_keys.find(&key).is_empty() => {}
            Ok((key, stream)) => cancel::deliver(&proxy, &port_targets, &key, stream).await,
            Err(failure) => refuse_early(&proxy, failure).await,
        }
    }
    .instrument(span)
    .await;
}

/// Refuses a client before its target is known.
async fn refuse_early(proxy: &Proxy, failure: StartupFailure) {
    let StartupFailure { error, client } = failure;
    refuse(proxy, client, &error, None, &LoginMessages::default()).await;
}

/// Resolves when a client has had enough time for its startup and others wait for its place.
async fn crowded(permit: &OwnedSemaphorePermit) {
    tokio::time::sleep(CROWDED_PATIENCE).await;
    while permit.semaphore().available_permits() > 0 {
        tokio::time::sleep(CROWDED_LOOK).await;
    }
}

/// An error of routing, before the client has a target.
struct RoutingFailure {
    error: ConnectionError,
    /// The target that the error is about, if any.
    target: Option<ResolvedTarget>,
}

impl From<ConnectionError> for RoutingFailure {
    fn from(error: ConnectionError) -> Self {
        let target = None;
        Self { error, target }
    }
}

impl ClientConnection {
    async fn run(
        mut self,
        mut client: LocalClient,
        startup: Startup,
        startup_permit: OwnedSemaphorePermit,
        port_targets: PgPortTargets,
    ) {
        self.timings.startup_ms = millis(self.accepted);
        record_program(&startup);
        let probe = is_probe(&startup);
        let mut login_messages = LoginMessages::default();
        let proxy = Arc::clone(&self.proxy);
        let _place = match self.proxy.serving.connection_limit.acquire() {
            Ok(place) => place,
            Err(limit) => {
                let error = too_many(limit, false);
                return refuse(&proxy, Some(client), &error, None, &login_messages).await;
            }
        };
        drop(startup_permit);
        let route = Box::pin(self.route(port_targets, startup, &mut client));
        let (context, mut routed) = match route.await {
            Ok(both) => both,
            Err(RoutingFailure { error, target }) => {
                let about = target.as_ref().map(report::ErrorContext::target);
                return refuse(&proxy, Some(client), &error, about, &login_messages).await;
            }
        };
        let live = self.admit(&routed);
        let span = Span::current();
        span.record("target", routed.target.name.as_str());
        span.record("user", &routed.user);
        // A span shows the first and the last recorded value, so it is recorded after the decision.
        if routed.fallback.is_none() {
            span.record("database", routed.shown_database());
        }

        let (place, stop) = (context.connection_limit.acquire(), self.stop.clone());
        let waiting = Arc::clone(&self.waiting);
        let connected = Box::pin(async {
            let _ = place.as_ref().map_err(|limit| too_many(*limit, true))?;
            let (client, login_messages) = (&mut client, &mut login_messages);
            waiting.connecting();
            let login = context.await_login(self.is_owners && !probe);
            waiting.while_there(client, Some(&context), login).await?;
            match routed.target.settings.login.auth {
                Auth::Passthrough => {
                    self.carry(&context, &mut routed, client, login_messages)
                        .await
                }
                Auth::Iam => {
                    let connected = self.connect(&context, &mut routed, login_messages);
                    waiting.while_there(client, Some(&context), connected).await
                }
            }
        });
        let connected = tokio::select! {
            connected = answer_in_time(probe, &context, connected) => connected,
            () = stop.requested() => {
                let error = stop.error(&routed.target.name);
                Err(if probe { error.for_a_probe() } else { error })
            }
        };
        if routed.fallback.is_some() {
            span.record("database", routed.shown_database());
            live.leads_to(routed.shown_database());
        }
        match connected {
            Ok(upstream) => {
                if context.last_failure.forget() {
                    self.proxy.serving.recovered.notify_waiters();
                }
                self.splice(client, upstream, login_messages, (&context, &routed, &live))
                    .await;
            }
            Err(error) => {
                if error.is_another_server() {
                    context.forget_endpoint();
                }
                let about = report::ErrorContext {
                    target: &routed.target,
                    user: &routed.user,
                    token_judged: login_messages.token_judged(),
                    token_sent: login_messages.token_sent,
                    evidence: self.evidence.as_ref(),
                    open_connections: context.connection_limit.open(),
                    iam_login: routed.target.iam_login,
                    startup: Some(&routed.startup),
                    no_default: self.no_default.as_deref(),
                };
                context.last_failure.note(&error, &about);
                context.recover(&self.proxy);
                refuse(&proxy, Some(client), &error, Some(about), &login_messages).await;
            }
        }
    }

    /// Returns the target that the client requests, after an RDS lookup if needed, and the rewritten
    /// startup. The other targets of the port are released, because a connection may far outlive
    /// them.
    async fn route(
        &mut self,
        port_targets: PgPortTargets,
        startup: Startup,
        client: &mut LocalClient,
    ) -> Result<(Arc<PgContext>, RoutedStartup), RoutingFailure> {
        let served = route::choose(&port_targets, &startup).map_err(ConnectionError::from)?;
        self.stop.target = served.stop.clone();
        let context = match served.ready() {
            Some(context) => Arc::clone(context),
            None => {
                let found = self.look_up(served, is_probe(&startup), client).await;
                found.map_err(|error| RoutingFailure {
                    error,
                    target: Some(served.provisional()),
                })?
            }
        };
        let offer = OfferedTargets {
            targets: &[Arc::clone(&context.target)],
            by_name: port_targets.picks_by_name(),
        };
        let routed = route::route(offer, startup, self.proxy.os_user.as_deref());
        let routed = routed.map_err(ConnectionError::from)?;
        if self.client_asked && routed.target.settings.login.auth == Auth::Passthrough {
            return Err(ConnectionError::TwoPasswords.into());
        }
        Ok((context, routed))
    }

    /// Waits for the lookup of a target's database while the client stays connected.
    async fn look_up(
        &self,
        served: &PgTarget,
        probe: bool,
        client: &mut LocalClient,
    ) -> Result<Arc<PgContext>, ConnectionError> {
        self.waiting.at(waiting::DISCOVERY);
        let found = served.context_after_login(self.is_owners && !probe);
        let found = self.waiting.while_there(client, None, found);
        let patience = if probe { PROBE_DEADLINE } else { Duration::MAX };
        tokio::select! {
            found = timeout(patience, found) => {
                let late = || Err(ConnectionError::NoTunnelYet(Readiness::Starting));
                let found = found.unwrap_or_else(|_| late());
                if probe { found.map_err(ConnectionError::for_a_probe) } else { found }
            }
            () = self.stop.requested() => Err(self.stop.error(&served.config.name)),
        }
    }

    /// Runs the connection, from the first ReadyForQuery to the end.
    async fn splice(
        self,
        client: LocalClient,
        upstream: LoggedIn,
        mut login_messages: LoginMessages,
        (context, routed, live): (&Arc<PgContext>, &RoutedStartup, &LiveConnection),
    ) {
        let LoggedIn {
            stream: mut server,
            key,
            after,
            tls,
        } = upstream;
        let registration: Option<KeyRegistration<PgContext>> =
            key.map(|key| self.proxy.cancel_keys.register(key, Arc::clone(context)));
        login_messages.bytes.extend_from_slice(&after);
        let StageTimings {
            startup_ms,
            token_ms,
            tunnel_ms,
            tls_ms,
            login_ms,
        } = self.timings;
        let total_ms = millis(self.accepted);
        info!(
            startup_ms,
            token_ms, tunnel_ms, tls_ms, login_ms, total_ms, tls, "connection ready"
        );
        self.count_login(&routed.target, total_ms);
        live.opened();

        let stop = self.stop.requested();
        let LocalClient {
            stream: mut client,
            ahead,
            ..
        } = client;
        let first = InitialBytes {
            up: &ahead,
            down: &login_messages.bytes,
        };
        let mut end = splice::splice(&mut client, &mut server, first, live.traffic(), stop).await;
        if end.by == EndedBy::Shutdown && self.stop.is_of_target() {
            end.by = EndedBy::TargetStop;
        }
        drop(registration); // The key is no longer valid.
        let seconds = self.accepted.elapsed().as_secs();
        let reason = end.error.as_ref().map(plain).unwrap_or_default();
        let reason = &*reason;
        let (by, sent, received) = (end.by.as_str(), end.sent, end.received);
        let ending = report::after_login(&end, &routed.target);
        let id = ending.as_ref().map(|ending| ending.id);
        if let Some(ending) = &ending {
            let (observed, target) = (&self.proxy.serving.observed, &routed.target.name);
            observed.failed(Some(target), ending.failure.clone());
        }
        if end.by == EndedBy::Server && end.error.is_some() {
            let hint = ending.as_ref().and_then(|it| it.failure.hint.as_deref());
            warn!(
                id,
                by, reason, hint, sent, received, seconds, "connection ended"
            );
        } else {
            info!(id, by, reason, sent, received, seconds, "connection ended");
        }
        let farewell = async {
            if let Some(message) = ending.and_then(|ending| ending.reply)
                && let Err(error) = write_all(&mut client, [message].into_iter()).await
            {
                debug!(%error, "cannot send the error to the client");
            }
            tokio::join!(pump::close(&mut client), pump::close(&mut server));
        };
        if timeout(FAREWELL_DEADLINE, farewell).await.is_err() {
            debug!("closing the connection timed out");
        }
    }
}

/// Records the name of the client's program in the span of its connection.
fn record_program(startup: &Startup) {
    if let Some(name) = startup.get("application_name") {
        let name = String::from_utf8_lossy(name);
        Span::current().record("program", &*name);
    }
}

fn too_many(limit: usize, of_target: bool) -> ConnectionError {
    ConnectionError::TooManyConnections { limit, of_target }
}

/// Awaits the result of a login. A `probe` gets its result within [`PROBE_DEADLINE`], in a form
/// that it understands.
async fn answer_in_time(
    probe: bool,
    context: &PgContext,
    connected: impl Future<Output = Result<LoggedIn, ConnectionError>>,
) -> Result<LoggedIn, ConnectionError> {
    if !probe {
        return connected.await;
    }
    let late = || Err(ConnectionError::NoTunnelYet(context.transport.readiness()));
    let answer = timeout(PROBE_DEADLINE, connected).await;
    answer
        .unwrap_or_else(|_| late())
        .map_err(ConnectionError::for_a_probe)
}

/// Reports to the client and the log why the connection failed.
///
/// Over TLS the error follows an AuthenticationOk. With its default `sslmode=prefer`, libpq takes
/// an earlier error as a reason to retry without TLS, so every failure would be tried, awaited and
/// printed twice. AuthenticationOk is sent only if the client has passed our checks and the
/// database has requested nothing from it. Otherwise libpq with `require_auth` or
/// `channel_binding`, and other drivers, would report a broken login instead of the reason. "Not
/// ready" omits AuthenticationOk as well, because a readiness probe takes it for success.
async fn refuse(
    proxy: &Proxy,
    client: Option<LocalClient>,
    error: &ConnectionError,
    about: Option<report::ErrorContext<'_>>,
    login_messages: &LoginMessages,
) {
    let refuse = async move {
        let report = report::before_login(error, about.as_ref());
        // Before its target is known a client may be a stranger.
        if about.is_some() || proxy.serving.may_log() {
            report.log();
        }
        let target = about.map(|about| &about.target.name);
        proxy.serving.observed.failed(target, report.failure());
        let (Some(mut client), Some(reply)) = (client, report.reply) else {
            return;
        };
        let admitted = client.auth_state == AuthState::Admitted && !login_messages.authenticated;
        let authentication: &'static [u8] = if client.tls && admitted && !report.not_ready {
            &AUTHENTICATION_OK
        } else {
            &[]
        };
        let parts = [
            Bytes::copy_from_slice(&login_messages.bytes),
            Bytes::from_static(authentication),
            reply,
        ];
        let farewell = async {
            if let Err(error) = write_all(&mut client.stream, parts.into_iter()).await {
                debug!(%error, "cannot send the error to the client");
            }
            pump::close(&mut client.stream).await;
        };
        if timeout(FAREWELL_DEADLINE, farewell).await.is_err() {
            debug!("sending the error to the client timed out");
        }
    };
    Box::pin(refuse).await;
}
