//! Tunnel, token and login of one connection, and the retries.

use crate::base::names::Region;
use crate::report;
use bytes::BytesMut;
use pg_handshake::ErrorReply;
use std::sync::Arc;
use std::time::Duration;

use pg_handshake::{Negotiation, Upstream, UpstreamError};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::login::{
    DatabaseServer, LoggedIn, LoginMessages, LoginProgress, LoginToken, login, open,
};
use super::passthrough::passthrough;
use super::ready;
use crate::aws::token::{IamToken, TokenRequest};
use crate::aws::{BESIDE_AN_ERROR, Identity};
use crate::base::jitter::jitter;
use crate::config::{Endpoint, EndpointKind, ResolvedTarget};
use crate::failure::connection::ConnectionError;
use crate::observe::TokenSource;
use crate::postgres::client::probe::is_probe;
use crate::postgres::client::startup::LocalClient;
use crate::postgres::connection_state::ClientConnection;
use crate::postgres::route::{DatabaseFallback, RoutedStartup};
use crate::postgres::server_memory::LoginStrategy;
use crate::postgres::target::PgContext;
use crate::postgres::timings::millis;
use crate::postgres::waiting::{IDENTITY, LOOKUP};
use crate::report::TokenEvidence;
use crate::tunnel::{Readiness, StreamPurpose, TunnelError};

/// Approximate pause before a retry with another token. RDS reports a wrong token and an overloaded
/// IAM service with the same text.
const RETRY_PAUSE: Duration = Duration::from_millis(600);

/// Remaining time that a client waits, over all attempts.
struct TimeBudget {
    /// For tunnel and token.
    connect: Duration,
    /// For TLS and login.
    login: Duration,
}

impl TimeBudget {
    fn of(target: &ResolvedTarget) -> Self {
        Self {
            connect: target.settings.connect_timeout,
            login: target.settings.login.timeout,
        }
    }

    /// Runs the steps before the login, within the remaining time.
    async fn connect<T>(
        &mut self,
        context: &PgContext,
        waits_for: impl FnOnce(&PgContext) -> Option<&'static str>,
        work: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        let began = Instant::now();
        let outcome = timeout(self.connect, work).await;
        self.connect = self.connect.saturating_sub(began.elapsed());
        let readiness = context.transport.readiness();
        match outcome {
            Err(_) => Err(ConnectionError::ConnectTimeout {
                after: context.target.settings.connect_timeout,
                readiness,
                waiting: waits_for(context),
            }),
            Ok(Err(error))
                if readiness == Readiness::Interrupted && error.is_about_the_tunnel() =>
            {
                Err(ConnectionError::Interrupted(Box::new(error)))
            }
            Ok(outcome) => outcome,
        }
    }

    /// Runs the login, within the remaining time.
    async fn login(
        &mut self,
        context: &PgContext,
        login: impl Future<Output = Result<LoggedIn, ConnectionError>>,
    ) -> Result<LoggedIn, ConnectionError> {
        let began = Instant::now();
        let outcome = timeout(self.login, login).await;
        self.login = self.login.saturating_sub(began.elapsed());
        outcome.map_err(|_| ConnectionError::LoginTimeout(context.target.settings.login.timeout))?
    }
}

/// One login with a token, over all attempts.
struct LoginAttempts<'a> {
    context: &'a PgContext,
    user: &'a str,
    server: DatabaseServer,
    kind: EndpointKind,
    request: TokenRequest,
    strategy: LoginStrategy,
    budget: TimeBudget,
    /// The attempt uses a stream that was kept ready.
    in_ready_stream: bool,
    /// Such a stream gave no answer.
    ready_was_stale: bool,
    /// The database has rejected a token before, or had no time to check it.
    tried_token: bool,
    /// That token was rejected.
    refused_token: bool,
    /// The server's error: the database named after the role does not exist.
    no_database: Option<ConnectionError>,
    /// The server's error for the target's default database.
    no_default: Option<String>,
}

impl LoginAttempts<'_> {
    /// Remembers what a successful login has shown about the server.
    fn succeeded(&self, login_messages: &LoginMessages) {
        // A server that admits the role without a password would fail on an early token.
        if login_messages.token_given() {
            self.server.capabilities.took_clear_text(self.user);
        }
    }

    /// Selects another database after `error`, for a retry. If the database named after the role
    /// does not exist, that is the target's default. If the default is refused, which an earlier
    /// login had shown to be needed, it is the database named after the role. Returns the error if
    /// there is no alternative.
    fn another_database(
        &mut self,
        error: ConnectionError,
        routed: &mut RoutedStartup,
        login_messages: &LoginMessages,
    ) -> Result<(), ConnectionError> {
        let capabilities = Arc::clone(&self.server.capabilities);
        let refused = matches!(error, ConnectionError::Upstream(UpstreamError::Server(_)));
        if let Some(DatabaseFallback { default, .. }) = routed.replaced().cloned() {
            if !refused {
                return Err(error);
            }
            capabilities.own_database_may_exist(self.user);
            // A server that is full or starting is a better reason than a missing database.
            if !error.is_about_the_database() {
                return Err(error);
            }
            self.no_default = Some(format!("\"{default}\": {error}"));
            routed.use_named();
            // Without a fresh error for the named database, the remembered result may be outdated.
            return self.no_database.take().map_or(Ok(()), Err);
        }
        let Some(fallback) = routed.fallback.clone() else {
            return Err(error);
        };
        if self.no_default.is_some() || !error.is_missing_database(&fallback.named, self.kind) {
            return Err(error);
        }
        if !routed.use_default() {
            return Err(error);
        }
        let (named, database) = (&fallback.named, &fallback.default);
        if capabilities.own_database_missing(self.user) {
            info!(
                role = self.user,
                named,
                database,
                "the database named like the role does not exist; using the target's database"
            );
        } else {
            debug!(
                role = self.user,
                named, database, "using the target's database"
            );
        }
        // The server has accepted the role.
        self.succeeded(login_messages);
        self.strategy = capabilities.login_strategy(self.user);
        self.no_database = Some(error);
        Ok(())
    }

    /// Prepares a retry after `error`; each reason counts once. Returns the error if a retry is
    /// pointless.
    async fn again(
        &mut self,
        error: ConnectionError,
        login_messages: &LoginMessages,
        token: Option<IamToken>,
    ) -> Result<(), ConnectionError> {
        let capabilities = &self.server.capabilities;
        if error.is_about_a_full_server() {
            self.context.protocol.ready.server_is_full();
        }
        // The server has received nothing, or died: the normal way shows which.
        if self.in_ready_stream && !login_messages.answered && error.is_about_a_lost_connection() {
            debug!(%error, "the connection that was kept ready gave no answer; opening another");
            self.context.protocol.ready.was_stale();
            self.ready_was_stale = true;
            return Ok(());
        }
        if self.strategy.negotiation == Negotiation::Direct && error.is_about_direct_tls() {
            debug!(%error, "direct TLS failed; retrying with SSLRequest");
            capabilities.direct_failed();
            self.strategy.negotiation = Negotiation::SslRequest;
            return Ok(());
        }
        if matches!(error, ConnectionError::ConnectTimeout { .. }) {
            capabilities.time_ran_out(self.strategy.negotiation);
            return Err(error);
        }
        let token = token.filter(|_| login_messages.token_judged());
        if let Some(token) = token {
            return self.again_with_a_token(error, token).await;
        }
        if error.is_about_the_way_of_asking() {
            capabilities.forget(self.user);
        }
        if self.strategy.early_token && error.may_be_about_an_early_token() {
            debug!(%error, "the login failed with a token sent early; retrying with the token sent on request");
            capabilities.forget(self.user);
            self.strategy.early_token = false;
            return Ok(());
        }
        Err(error)
    }

    async fn again_with_a_token(
        &mut self,
        error: ConnectionError,
        token: IamToken,
    ) -> Result<(), ConnectionError> {
        let capabilities = &self.server.capabilities;
        if !error.refuses_token(self.kind) {
            return Err(error);
        }
        if error.is_competition() {
            info!("too many competing IAM requests; retrying");
        } else if !token.from_cache {
            capabilities.refused_fresh_token(self.user);
            return Err(error);
        }
        if self.tried_token || !capabilities.is_worth_a_retry(self.user) {
            return Err(error);
        }
        if token.from_cache && !error.is_competition() {
            info!("the database refused a cached token; retrying once with a new one");
            self.context.tokens.invalidate(&self.request, &token);
            self.refused_token = true;
        }
        self.tried_token = true;
        sleep(jitter(RETRY_PAUSE)).await;
        Ok(())
    }
}

impl ClientConnection {
    /// Creates the greeting, with pgiam's own messages for the client.
    pub(in crate::postgres) fn login_messages(&self, routed: &RoutedStartup) -> LoginMessages {
        let mut notices = BytesMut::new();
        if !routed.ignored.is_empty() {
            let names = routed.ignored.join(", ");
            let message = format!("pgiam removed startup parameters: {names}");
            let notice = ErrorReply::notice(report::WARNING, message)
                .with_hint("They are listed in ignore_startup_parameters of the target.");
            notices.extend_from_slice(&notice.encode());
        }
        if let Some(fallback) = routed.replaced() {
            let (DatabaseFallback { named, default, .. }, target) = (fallback, &routed.target.name);
            let message = format!(
                "database \"{named}\" does not exist; connected to \"{default}\", the default database of target \"{target}\""
            );
            let notice = ErrorReply::notice(report::WARNING, message)
                .with_hint(format!("Select it by name: psql -d {default}."));
            notices.extend_from_slice(&notice.encode());
        }
        let notices = (!notices.is_empty()).then(|| notices.freeze());
        LoginMessages::new(routed.negotiated.as_ref(), notices)
    }

    /// Logs in with a token, in the fewest round trips. Retries once per reason: if a shortcut
    /// failed, or if a token from the cache was rejected.
    pub(in crate::postgres) async fn connect(
        &mut self,
        context: &Arc<PgContext>,
        routed: &mut RoutedStartup,
        login_messages: &mut LoginMessages,
    ) -> Result<LoggedIn, ConnectionError> {
        let mut budget = TimeBudget::of(&context.target);
        self.waiting.at(LOOKUP);
        let looked_up = async {
            let endpoint = context.endpoint().await?;
            let request = token_request(context, routed, endpoint.clone()).await?;
            Ok((endpoint, request))
        };
        let (endpoint, request) = budget.connect(context, |_| Some(LOOKUP), looked_up).await?;
        routed.adapt_to(endpoint.kind());
        let user = routed.user.clone();
        let server = DatabaseServer::at(context, &endpoint);
        if server.capabilities.lacks_own_database(&user) {
            routed.use_default();
        }
        let mut login = LoginAttempts {
            context,
            user: &user,
            kind: endpoint.kind(),
            request,
            strategy: server.capabilities.login_strategy(&user),
            server,
            budget,
            in_ready_stream: false,
            ready_was_stale: false,
            tried_token: false,
            refused_token: false,
            no_database: None,
            no_default: None,
        };
        loop {
            let token_sent = login_messages.token_sent;
            *login_messages = self.login_messages(routed);
            login_messages.token_sent = token_sent;
            match self.attempt(&mut login, routed, login_messages).await {
                (Ok(logged_in), _) => {
                    login.succeeded(login_messages);
                    ready::keep(context, &login.server);
                    if routed.fallback.is_some() && routed.replaced().is_none() {
                        login.server.capabilities.own_database_may_exist(&user);
                    }
                    return Ok(logged_in);
                }
                (Err(error), token) => {
                    let again = match login.again(error, login_messages, token).await {
                        Err(error) => login.another_database(error, routed, login_messages),
                        again => again,
                    };
                    if let Err(error) = again {
                        self.no_default = login.no_default.take();
                        let refused =
                            login_messages.token_judged() && error.refuses_token(login.kind);
                        if refused && !is_probe(&routed.startup) {
                            self.ask_aws(context, &login.request.region).await;
                        }
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Makes one attempt, and returns its token if it got one.
    async fn attempt(
        &mut self,
        attempt: &mut LoginAttempts<'_>,
        routed: &RoutedStartup,
        login_messages: &mut LoginMessages,
    ) -> (Result<LoggedIn, ConnectionError>, Option<IamToken>) {
        let LoginAttempts {
            context,
            server,
            request,
            strategy,
            budget,
            in_ready_stream,
            ready_was_stale,
            ..
        } = attempt;
        let startup = || routed.startup.clone();
        let observed = Arc::clone(&self.proxy.serving.observed);
        let began = Instant::now();
        let token = async {
            let token = context.tokens.token(request).await;
            let source = match &token {
                Ok(token) if token.from_cache => TokenSource::Cache,
                Ok(_) => TokenSource::Fresh,
                Err(_) => TokenSource::Failed,
            };
            observed.token(&context.target.name, source);
            Ok((token.map_err(ConnectionError::from)?, millis(began)))
        };
        let opened = async {
            let ready = match *ready_was_stale {
                true => None,
                false => ready::take(context, server).await,
            };
            *in_ready_stream = ready.is_some();
            let opened = match ready {
                Some(ready) => ready.begin(startup()),
                None => {
                    let machine = Upstream::login(startup(), strategy.negotiation);
                    open(context, server, machine, StreamPurpose::Connection).await?
                }
            };
            Ok::<_, ConnectionError>((opened, millis(began)))
        };
        let both = async { tokio::try_join!(token, opened) };
        self.waiting.connecting();
        let ((token, token_ms), (opened, tunnel_ms)) =
            match budget.connect(context, PgContext::waits_for, both).await {
                Ok(both) => both,
                Err(error) => return (Err(error), None),
            };
        (self.timings.token_ms, self.timings.tunnel_ms) = (token_ms, tunnel_ms);
        self.evidence = Some(TokenEvidence {
            request: request.clone(),
            expires_at: token.expires_at,
            from_cache: token.from_cache,
            early: strategy.early_token,
            second: attempt.refused_token,
            clock: context.aws.clock_offset(),
            identity: Identity::default(),
        });
        let credentials = LoginToken {
            token: &token,
            early: strategy.early_token,
        };
        let progress = LoginProgress {
            timings: &mut self.timings,
            waiting: &self.waiting,
        };
        let login = login(progress, context, opened, credentials, login_messages);
        (budget.login(context, login).await, Some(token))
    }

    /// Asks AWS about keys and clock, for the report: the database does not say why it rejects a
    /// token.
    async fn ask_aws(&mut self, context: &PgContext, region: &Region) {
        self.waiting.at(IDENTITY);
        let identity = context.aws.identity(region, BESIDE_AN_ERROR).await;
        if let Some(evidence) = &mut self.evidence {
            evidence.identity = identity;
            evidence.clock = context.aws.clock_offset();
        }
    }

    /// Relays a login between the client and the database.
    pub(in crate::postgres) async fn carry(
        &mut self,
        context: &PgContext,
        routed: &mut RoutedStartup,
        client: &mut LocalClient,
        login_messages: &mut LoginMessages,
    ) -> Result<LoggedIn, ConnectionError> {
        let mut budget = TimeBudget::of(&context.target);
        let began = Instant::now();
        let looked_up = budget.connect(context, |_| Some(LOOKUP), context.endpoint());
        let waiting = Arc::clone(&self.waiting);
        waiting.at(LOOKUP);
        let endpoint = waiting
            .while_there(client, Some(context), looked_up)
            .await?;
        routed.adapt_to(endpoint.kind());
        *login_messages = self.login_messages(routed);
        let server = DatabaseServer::at(context, &endpoint);
        let mut negotiation = server.capabilities.negotiation();
        let opened = loop {
            let machine = Upstream::passthrough(routed.startup.clone(), negotiation);
            let machine = machine.without_channel_binding();
            let opened = open(context, &server, machine, StreamPurpose::Connection);
            let opened = budget.connect(context, PgContext::waits_for, opened);
            waiting.connecting();
            match waiting.while_there(client, Some(context), opened).await {
                Err(error) if negotiation == Negotiation::Direct && error.is_about_direct_tls() => {
                    server.capabilities.direct_failed();
                    negotiation = Negotiation::SslRequest;
                }
                opened => break opened?,
            }
        };
        self.timings.tunnel_ms = millis(began);
        let progress = LoginProgress {
            timings: &mut self.timings,
            waiting: &waiting,
        };
        let login = passthrough(progress, context, opened, client, login_messages);
        budget.login(context, login).await
    }
}

/// Returns the request for the token.
pub(in crate::postgres) async fn token_request(
    context: &PgContext,
    routed: &RoutedStartup,
    endpoint: Endpoint,
) -> Result<TokenRequest, ConnectionError> {
    // For an alias, the real name contains the database's region; the configured region is the
    // tunnel's.
    let region = match (endpoint.region(), &routed.target.region) {
        (Some(region), _) => region.into(),
        (None, Some(region)) => region.clone(),
        (None, None) => context.aws.region().await?.ok_or(TunnelError::NoRegion)?,
    };
    Ok(TokenRequest {
        host: endpoint.host,
        port: endpoint.port,
        user: routed.user.clone(),
        region,
    })
}
