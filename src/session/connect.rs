//! Tunnel, token and login of one session, and which of them are tried again.

use bytes::BytesMut;
use pg_handshake::{Negotiation, Upstream, UpstreamError};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::greet::Local;
use super::known::Way;
use super::login::{Credentials, Greeting, LoggedIn, login, open};
use super::passthrough::passthrough;
use super::{Rooms, Session, SessionError, is_probe, millis, write_all};
use crate::aws::Identity;
use crate::config::{Endpoint, EndpointKind};
use crate::report::Evidence;
use crate::route::Routed;
use crate::token::{Token, TokenRequest};
use crate::tunnel::{Readiness, TunnelError};

impl Session {
    /// A login with a token, by the way that takes the fewest round trips; and again, once per
    /// reason, where that was too optimistic, or the token from the cache too old.
    pub(super) async fn connect(
        &mut self,
        rooms: &Rooms,
        routed: &mut Routed,
        greeting: &mut Greeting,
    ) -> Result<LoggedIn, SessionError> {
        let endpoint = rooms.endpoint().await?;
        let kind = endpoint.kind();
        routed.adapt_to(kind);
        let request = self.token_request(rooms, routed, endpoint).await?;
        let mut way = rooms.known.way(&routed.user, kind);
        let mut retried = false;
        loop {
            *greeting = self.greeting(routed);
            let (outcome, token) = self
                .attempt(rooms, routed, &request, (way, &mut *greeting))
                .await;
            let error = match outcome {
                Ok(logged_in) => {
                    // Who lets the role in unasked would only stumble over an early token.
                    if greeting.token_given() {
                        rooms.known.took_clear_text(&routed.user);
                    }
                    return Ok(logged_in);
                }
                Err(error) => error,
            };
            if way.negotiation == Negotiation::Direct && error.is_about_direct_tls() {
                debug!(%error, "no direct TLS with this server; asking first from now on");
                rooms.known.direct_refused();
                way.negotiation = Negotiation::SslRequest;
            } else if way.early_token
                && error.may_be_about_an_early_token()
                && !greeting.token_judged()
            {
                debug!(%error, "the login broke off with the token sent early; waiting to be asked");
                rooms.known.forget(&routed.user);
                way.early_token = false;
            } else if let Some(token) = token
                && token.from_cache
                && !retried
                && greeting.token_judged()
                && refuses_token(kind, &error)
            {
                info!("the database refused a cached token; trying once with a fresh one");
                rooms.tokens.invalidate(&request, &token);
                retried = true;
            } else {
                if matches!(
                    error,
                    SessionError::Upstream(UpstreamError::UnexpectedAuth(_))
                ) {
                    rooms.known.forget(&routed.user);
                }
                if greeting.token_judged()
                    && refuses_token(kind, &error)
                    && !is_probe(&routed.startup)
                {
                    self.ask_aws(rooms, &request.region).await;
                }
                return Err(error);
            }
        }
    }

    /// One login; and the token it had, if it came to that.
    async fn attempt(
        &mut self,
        rooms: &Rooms,
        routed: &Routed,
        request: &TokenRequest,
        (way, greeting): (Way, &mut Greeting),
    ) -> (Result<LoggedIn, SessionError>, Option<Token>) {
        let machine = Upstream::login(routed.startup.clone(), way.negotiation);
        let began = Instant::now();
        let token = async {
            let token = rooms.tokens.token(request).await;
            Ok((token.map_err(SessionError::from)?, millis(began)))
        };
        let opened = async {
            let opened = open(rooms, &request.host, machine, false).await?;
            Ok::<_, SessionError>((opened, millis(began)))
        };
        let both = async { tokio::try_join!(token, opened) };
        let ((token, token_ms), (opened, tunnel_ms)) = match ready_in_time(rooms, both).await {
            Ok(both) => both,
            Err(error) => return (Err(error), None),
        };
        (self.timings.token_ms, self.timings.tunnel_ms) = (token_ms, tunnel_ms);
        self.evidence = Some(Evidence {
            request: request.clone(),
            expires_at: token.expires_at,
            from_cache: token.from_cache,
            early: way.early_token,
            clock: rooms.aws.clock_offset(),
            identity: Identity::default(),
        });
        let credentials = Credentials {
            name: &request.host,
            token: &token,
            early: way.early_token,
        };
        let login = login(&mut self.timings, rooms, opened, credentials, greeting);
        (login_in_time(rooms, login).await, Some(token))
    }

    /// Why a database refuses a token it does not say; what AWS tells about keys and clock goes with
    /// the report.
    async fn ask_aws(&mut self, rooms: &Rooms, region: &str) {
        let identity = rooms.aws.identity(region).await;
        if let Some(evidence) = &mut self.evidence {
            evidence.identity = identity;
            evidence.clock = rooms.aws.clock_offset();
        }
    }

    /// A login in which the client and the database agree between themselves.
    pub(super) async fn carry(
        &mut self,
        rooms: &Rooms,
        routed: &mut Routed,
        client: (&mut Local, &mut BytesMut),
    ) -> Result<LoggedIn, SessionError> {
        let endpoint = rooms.endpoint().await?;
        routed.adapt_to(endpoint.kind());
        let mut negotiation = rooms.known.negotiation(endpoint.kind());
        let name = endpoint.host;
        let opened = loop {
            let began = Instant::now();
            let machine = Upstream::passthrough(routed.startup.clone(), negotiation);
            let opened = open(rooms, &name, machine.without_channel_binding(), false);
            match ready_in_time(rooms, opened).await {
                Err(error) if negotiation == Negotiation::Direct && error.is_about_direct_tls() => {
                    rooms.known.direct_refused();
                    negotiation = Negotiation::SslRequest;
                }
                opened => {
                    self.timings.tunnel_ms = millis(began);
                    break opened?;
                }
            }
        };
        let (local, early) = client;
        let first = [routed.negotiated.clone(), None];
        write_all(&mut local.stream, first.into_iter().flatten())
            .await
            .map_err(SessionError::ClientGone)?;
        let login = passthrough(&mut self.timings, rooms, &name, opened, (local, early));
        login_in_time(rooms, login).await
    }

    async fn token_request(
        &self,
        rooms: &Rooms,
        routed: &Routed,
        endpoint: Endpoint,
    ) -> Result<TokenRequest, SessionError> {
        let region = match (&routed.target.region, endpoint.region()) {
            (Some(region), _) => region.clone(),
            (None, Some(region)) => region.to_owned(),
            (None, None) => rooms.aws.region().await?.ok_or(TunnelError::NoRegion)?,
        };
        Ok(TokenRequest {
            host: endpoint.host,
            port: endpoint.port,
            user: routed.user.clone(),
            region,
        })
    }
}

/// Whether this is how the server says that it does not accept the token.
fn refuses_token(kind: EndpointKind, error: &SessionError) -> bool {
    let state = error.sqlstate();
    match kind {
        // Aurora DSQL User Guide, "Troubleshooting": "access denied" comes with 08006.
        EndpointKind::Dsql => matches!(state.as_deref(), Some("28000" | "08006")),
        _ => state.as_deref() == Some("28000"),
    }
}

/// Waits for tunnel and token as long as the target's clients do.
async fn ready_in_time<T>(
    rooms: &Rooms,
    ready: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let after = rooms.target.connect_timeout;
    let outcome = timeout(after, ready).await;
    let readiness = rooms.transport.readiness();
    match outcome {
        Err(_) => Err(SessionError::ConnectTimeout { after, readiness }),
        Ok(Err(error)) if readiness == Readiness::Interrupted && error.is_about_the_tunnel() => {
            Err(SessionError::Interrupted(Box::new(error)))
        }
        Ok(outcome) => outcome,
    }
}

async fn login_in_time(
    rooms: &Rooms,
    login: impl Future<Output = Result<LoggedIn, SessionError>>,
) -> Result<LoggedIn, SessionError> {
    let after = rooms.target.login.timeout;
    timeout(after, login)
        .await
        .map_err(|_| SessionError::LoginTimeout(after))?
}
