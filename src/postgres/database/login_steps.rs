//! A login without a client, stage by stage, for checks.
//!
//! The stages are those of every connection, without the retries: a trial shows the result of the
//! first attempt.

use crate::failure::RouteError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pg_handshake::{Negotiation, ProtocolVersion, Startup, Upstream, UpstreamEvent};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::login::{
    Credentials, Greeting, Opened, Server, handshake, login, next_event, open, tls_name,
};
use crate::aws::Identity;
use crate::base::pump;
use crate::base::stream::Stream;
use crate::config::{Auth, Endpoint};
use crate::failure::connection::SessionError;
use crate::platform;
use crate::postgres::database::attempts::token_request;
use crate::postgres::route;
use crate::postgres::route::{Offer, Routed};
use crate::postgres::target::PgContext;
use crate::postgres::timings::Timings;
use crate::postgres::waiting::Waiting;
use crate::report::{self, ErrorContext, Explanation, TokenEvidence};

impl PgContext {
    /// Explains an error that occurred before a trial existed.
    pub(crate) fn explain(&self, error: &SessionError) -> Explanation {
        report::explain(error, Some(&self.about(None)))
    }

    /// Returns the context of an error, in a trial or before one.
    pub(in crate::postgres) fn about<'a>(&'a self, trial: Option<&'a Trial>) -> ErrorContext<'a> {
        let user = trial
            .map(Trial::user)
            .or(self.target.settings.user.as_deref());
        ErrorContext {
            target: &self.target,
            user: user.unwrap_or_default(),
            token_judged: trial.is_some_and(|trial| trial.token_judged),
            token_sent: trial.is_some_and(|trial| trial.token_sent),
            evidence: trial.and_then(|trial| trial.evidence.as_ref()),
            open_connections: 1,
            startup: trial.map(|trial| &trial.routed.startup),
            no_default: None,
        }
    }
}

/// One login.
pub(crate) struct Trial {
    context: Arc<PgContext>,
    endpoint: Endpoint,
    server: Server,
    routed: Routed,
    evidence: Option<TokenEvidence>,
    token_judged: bool,
    token_sent: bool,
}

/// An open connection to the database, before the first message.
pub(crate) struct Dialled(Opened);

/// The same connection after the TLS handshake.
pub(crate) struct Secured {
    opened: Opened,
    /// The verified certificates of the database, its own first.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: String,
    /// ALPN has confirmed the protocol.
    pub(crate) alpn: bool,
}

/// Result of a login.
pub(crate) enum Outcome {
    /// The login succeeded.
    In(Session),
    /// The database requests a password, which only the client has.
    Asked(String),
}

/// A session that is ready for queries.
pub(crate) struct Session {
    /// The stream to the database.
    pub(crate) stream: Stream,
    /// Bytes received from the server already.
    pub(crate) unread: Bytes,
    /// Server version as the server reports it.
    pub(crate) server_version: Option<String>,
    /// True if the database did not request a token.
    pub(crate) unasked: bool,
}

impl Session {
    /// Sends Terminate (PostgreSQL docs, "Message Formats").
    pub(in crate::postgres) async fn leave(mut self) {
        let bye = std::iter::once(Bytes::from_static(&crate::postgres::splice::TERMINATE));
        // The result does not matter any more.
        _ = crate::postgres::io::write_all(&mut self.stream, bye).await;
        pump::close(&mut self.stream).await;
    }
}

impl Trial {
    /// Creates the login of a client that names neither user nor database; its `application_name`
    /// is `application`. Sends nothing yet.
    ///
    /// # Errors
    /// [`SessionError::Route`].
    pub(crate) fn new(
        context: Arc<PgContext>,
        endpoint: Endpoint,
        application: &str,
    ) -> Result<Self, SessionError> {
        let os_user = platform::os_user();
        let mut startup = Startup::new(ProtocolVersion::V3_0);
        let parameters = [
            ("user", os_user.as_deref()),
            ("application_name", Some(application)),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                let set = startup.set(name, value.as_bytes());
                set.map_err(RouteError::from)?;
            }
        }
        let targets = [Arc::clone(&context.target)];
        let offer = Offer {
            targets: &targets,
            by_name: false,
        };
        let mut routed = route::route(offer, startup, os_user.as_deref())?;
        routed.adapt_to(endpoint.kind());
        Ok(Self {
            server: Server::at(&context, &endpoint),
            context,
            endpoint,
            routed,
            evidence: None,
            token_judged: false,
            token_sent: false,
        })
    }

    /// Returns the role of the login.
    pub(crate) fn user(&self) -> &str {
        &self.routed.user
    }

    /// Returns the requested database; `None` for the one named after the role.
    pub(crate) fn database(&self) -> Option<&str> {
        self.routed.database.as_deref()
    }

    /// Explains an error in the same text that a client would get.
    pub(crate) fn explain(&self, error: &SessionError) -> Explanation {
        let about = self.context.about(Some(self));
        report::explain(error, Some(&about))
    }

    /// Opens a connection and requests TLS.
    ///
    /// # Errors
    /// [`SessionError::Tunnel`], [`SessionError::ConnectTimeout`].
    pub(crate) async fn dial(&self) -> Result<Dialled, SessionError> {
        let startup = self.routed.startup.clone();
        // Every server understands this first message, and it separates the dial from TLS.
        let machine = match self.context.target.settings.login.auth {
            Auth::Iam => Upstream::login(startup, Negotiation::SslRequest),
            Auth::Passthrough => Upstream::passthrough(startup, Negotiation::SslRequest),
        };
        let opening = open(&self.context, &self.server, machine, false);
        self.context
            .within_connect_timeout(opening)
            .await
            .map(Dialled)
    }

    /// Establishes verified TLS.
    ///
    /// # Errors
    /// [`SessionError::Upstream`] if the database does not support TLS,
    /// [`SessionError::UpstreamTls`] if it is not the expected server,
    /// [`SessionError::LoginTimeout`].
    pub(crate) async fn secure(&self, dialled: Dialled) -> Result<Secured, SessionError> {
        let Opened {
            server,
            mut machine,
            mut stream,
            ..
        } = dialled.0;
        let securing = async {
            // No other event is possible with this configuration of the machine.
            let UpstreamEvent::StartTls = next_event(&mut machine, &mut stream).await? else {
                return Err(SessionError::NoAlpn);
            };
            handshake(&self.context, &server, stream, Negotiation::SslRequest).await
        };
        let tls = self.in_time(securing).await?;
        machine.tls_established();
        let session = tls.get_ref().1;
        let certificates = session.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|it| it.clone().into_owned());
        let version = tls_name(session.protocol_version());
        Ok(Secured {
            certificates: certificates.collect(),
            alpn: session.alpn_protocol().is_some(),
            opened: Opened {
                server,
                machine,
                tls: Some(version.clone()),
                stream: Box::new(tls),
            },
            version,
        })
    }

    /// Logs in with a token, or up to the request for the client's password.
    ///
    /// # Errors
    /// The same as for a client's login.
    pub(crate) async fn login(&mut self, secured: Secured) -> Result<Outcome, SessionError> {
        match self.context.target.settings.login.auth {
            Auth::Iam => self.with_token(secured.opened).await.map(Outcome::In),
            Auth::Passthrough => {
                let asking = first_question(secured.opened);
                self.in_time(asking).await
            }
        }
    }

    async fn with_token(&mut self, opened: Opened) -> Result<Session, SessionError> {
        let context = Arc::clone(&self.context);
        let signing = async {
            let request = token_request(&context, &self.routed, self.endpoint.clone()).await?;
            let token = context.tokens.token(&request).await?;
            Ok((request, token))
        };
        let (request, token) = context.within_connect_timeout(signing).await?;
        let region = request.region.clone();
        self.evidence = Some(TokenEvidence {
            request,
            expires_at: token.expires_at,
            from_cache: token.from_cache,
            early: false,
            second: false,
            clock: context.aws.clock_offset(),
            identity: Identity::default(),
        });
        let credentials = Credentials {
            token: &token,
            early: false,
        };
        let (mut timings, mut greeting) = (Timings::default(), Greeting::default());
        let waiting = Waiting::default();
        let told = (&mut timings, &waiting);
        let login = login(told, &context, opened, credentials, &mut greeting);
        let logged_in = match self.in_time(login).await {
            Ok(logged_in) => logged_in,
            Err(error) => {
                self.token_judged = greeting.token_judged();
                self.token_sent = greeting.token_sent;
                let identity = context.aws.identity(&region).await;
                if let Some(evidence) = &mut self.evidence {
                    evidence.identity = identity;
                    evidence.clock = context.aws.clock_offset();
                }
                return Err(error);
            }
        };
        Ok(Session {
            server_version: greeting.reported("server_version"),
            unasked: !greeting.token_given(),
            stream: logged_in.stream,
            unread: logged_in.after,
        })
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        let limit: Duration = self.context.target.settings.login.timeout;
        let late = |_| SessionError::LoginTimeout(limit);
        timeout(limit, work).await.map_err(late)?
    }
}

/// Returns the first authentication request of the database, for a client with its own password.
async fn first_question(opened: Opened) -> Result<Outcome, SessionError> {
    let Opened {
        mut machine,
        mut stream,
        ..
    } = opened;
    loop {
        match next_event(&mut machine, &mut stream).await? {
            UpstreamEvent::AuthRequest { method, .. } => {
                return Ok(Outcome::Asked(method.to_string()));
            }
            UpstreamEvent::Ready => {
                return Ok(Outcome::In(Session {
                    stream,
                    unread: machine.into_remainder(),
                    server_version: None,
                    unasked: true,
                }));
            }
            UpstreamEvent::Relay(_)
            | UpstreamEvent::StartTls
            | UpstreamEvent::PasswordRequired
            | UpstreamEvent::BackendKey(_)
            | UpstreamEvent::CancelSent => {}
        }
    }
}
