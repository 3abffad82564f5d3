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
    DatabaseServer, LoginMessages, LoginProgress, LoginToken, OpenedConnection, handshake, login,
    next_event, open, tls_name,
};
use crate::aws::{FOR_A_COMMAND, Identity};
use crate::base::pump;
use crate::base::stream::Stream;
use crate::config::{Auth, Endpoint};
use crate::failure::connection::ConnectionError;
use crate::platform;
use crate::postgres::database::attempts::token_request;
use crate::postgres::route;
use crate::postgres::route::{OfferedTargets, RoutedStartup};
use crate::postgres::target::PgContext;
use crate::postgres::timings::StageTimings;
use crate::postgres::waiting::ClientWait;
use crate::report::{self, ErrorContext, Explanation, TokenEvidence};
use crate::tunnel::StreamPurpose;

impl PgContext {
    /// Explains an error that occurred before a trial existed.
    pub(crate) fn explain(&self, error: &ConnectionError) -> Explanation {
        report::explain(error, Some(&self.about(None)))
    }

    /// Returns the context of an error, in a trial or before one.
    pub(in crate::postgres) fn about<'a>(
        &'a self,
        login_check: Option<&'a LoginCheck>,
    ) -> ErrorContext<'a> {
        let user = login_check
            .map(LoginCheck::user)
            .or(self.target.settings.user.as_deref());
        ErrorContext {
            target: &self.target,
            user: user.unwrap_or_default(),
            token_judged: login_check.is_some_and(|login_check| login_check.token_judged),
            token_sent: login_check.is_some_and(|login_check| login_check.token_sent),
            evidence: login_check.and_then(|login_check| login_check.evidence.as_ref()),
            open_connections: 1,
            iam_login: login_check
                .and_then(|login_check| login_check.iam_login)
                .or(self.target.iam_login),
            startup: login_check.map(|login_check| &login_check.routed.startup),
            no_default: None,
        }
    }
}

/// One login.
pub(crate) struct LoginCheck {
    context: Arc<PgContext>,
    endpoint: Endpoint,
    server: DatabaseServer,
    routed: RoutedStartup,
    evidence: Option<TokenEvidence>,
    token_judged: bool,
    token_sent: bool,
    /// IAM authentication of the database, if RDS reported it.
    pub(crate) iam_login: Option<bool>,
}

/// An open connection to the database, before the first message.
pub(crate) struct DialledConnection(OpenedConnection);

/// The same connection after the TLS handshake.
pub(crate) struct SecuredConnection {
    opened: OpenedConnection,
    /// The verified certificates of the database, its own first.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: String,
    /// ALPN has confirmed the protocol.
    pub(crate) alpn: bool,
}

/// Result of a login.
pub(crate) enum LoginOutcome {
    /// The login succeeded.
    In(ReadyConnection),
    /// The database requests a password, which only the client has.
    Asked(String),
}

/// A connection that is ready for queries.
pub(crate) struct ReadyConnection {
    /// The stream to the database.
    pub(crate) stream: Stream,
    /// Bytes received from the server already.
    pub(crate) unread: Bytes,
    /// Server version as the server reports it.
    pub(crate) server_version: Option<String>,
    /// True if the database did not request a token.
    pub(crate) unasked: bool,
}

impl ReadyConnection {
    /// Sends Terminate (PostgreSQL docs, "Message Formats").
    pub(in crate::postgres) async fn leave(mut self) {
        let bye = std::iter::once(Bytes::from_static(&crate::postgres::splice::TERMINATE));
        // The result does not matter any more.
        _ = crate::postgres::io::write_all(&mut self.stream, bye).await;
        pump::close(&mut self.stream).await;
    }
}

impl LoginCheck {
    /// Creates the login of a client that names neither user nor database; its `application_name`
    /// is `application`. Sends nothing yet.
    ///
    /// # Errors
    /// [`ConnectionError::Route`].
    pub(crate) fn new(
        context: Arc<PgContext>,
        endpoint: Endpoint,
        application: &str,
    ) -> Result<Self, ConnectionError> {
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
        let offer = OfferedTargets {
            targets: &targets,
            by_name: false,
        };
        let mut routed = route::route(offer, startup, os_user.as_deref())?;
        routed.adapt_to(endpoint.kind());
        Ok(Self {
            server: DatabaseServer::at(&context, &endpoint),
            context,
            endpoint,
            routed,
            evidence: None,
            iam_login: None,
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
    pub(crate) fn explain(&self, error: &ConnectionError) -> Explanation {
        let about = self.context.about(Some(self));
        report::explain(error, Some(&about))
    }

    /// Opens a connection and requests TLS.
    ///
    /// # Errors
    /// [`ConnectionError::Tunnel`], [`ConnectionError::ConnectTimeout`].
    pub(crate) async fn dial(&self) -> Result<DialledConnection, ConnectionError> {
        let startup = self.routed.startup.clone();
        // Every server understands this first message, and it separates the dial from TLS.
        let machine = match self.context.target.settings.login.auth {
            Auth::Iam => Upstream::login(startup, Negotiation::SslRequest),
            Auth::Passthrough => Upstream::passthrough(startup, Negotiation::SslRequest),
        };
        let opening = open(
            &self.context,
            &self.server,
            machine,
            StreamPurpose::Connection,
        );
        self.context
            .within_connect_timeout(opening)
            .await
            .map(DialledConnection)
    }

    /// Establishes verified TLS.
    ///
    /// # Errors
    /// [`ConnectionError::Upstream`] if the database does not support TLS,
    /// [`ConnectionError::UpstreamTls`] if it is not the expected server,
    /// [`ConnectionError::LoginTimeout`].
    pub(crate) async fn secure(
        &self,
        dialled: DialledConnection,
    ) -> Result<SecuredConnection, ConnectionError> {
        let OpenedConnection {
            server,
            mut machine,
            mut stream,
            ..
        } = dialled.0;
        let securing = async {
            // No other event is possible with this configuration of the machine.
            let UpstreamEvent::StartTls = next_event(&mut machine, &mut stream).await? else {
                return Err(ConnectionError::NoAlpn);
            };
            handshake(&self.context, &server, stream, Negotiation::SslRequest).await
        };
        let tls = self.in_time(securing).await?;
        machine.tls_established();
        let session = tls.get_ref().1;
        let certificates = session.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|it| it.clone().into_owned());
        let version = tls_name(session.protocol_version());
        Ok(SecuredConnection {
            certificates: certificates.collect(),
            alpn: session.alpn_protocol().is_some(),
            opened: OpenedConnection {
                server,
                machine,
                tls: Some(version.clone()),
                patience: None,
                stream: Box::new(tls),
            },
            version,
        })
    }

    /// Logs in with a token, or up to the request for the client's password.
    ///
    /// # Errors
    /// The same as for a client's login.
    pub(crate) async fn login(
        &mut self,
        secured: SecuredConnection,
    ) -> Result<LoginOutcome, ConnectionError> {
        match self.context.target.settings.login.auth {
            Auth::Iam => self.with_token(secured.opened).await.map(LoginOutcome::In),
            Auth::Passthrough => {
                let asking = first_question(secured.opened);
                self.in_time(asking).await
            }
        }
    }

    async fn with_token(
        &mut self,
        opened: OpenedConnection,
    ) -> Result<ReadyConnection, ConnectionError> {
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
        let credentials = LoginToken {
            token: &token,
            early: false,
        };
        let (mut timings, mut login_messages) = (StageTimings::default(), LoginMessages::default());
        let waiting = ClientWait::default();
        let progress = LoginProgress {
            timings: &mut timings,
            waiting: &waiting,
        };
        let login = login(progress, &context, opened, credentials, &mut login_messages);
        let logged_in = match self.in_time(login).await {
            Ok(logged_in) => logged_in,
            Err(error) => {
                self.token_judged = login_messages.token_judged();
                self.token_sent = login_messages.token_sent;
                let identity = context.aws.identity(&region, FOR_A_COMMAND).await;
                if let Some(evidence) = &mut self.evidence {
                    evidence.identity = identity;
                    evidence.clock = context.aws.clock_offset();
                }
                return Err(error);
            }
        };
        Ok(ReadyConnection {
            server_version: login_messages.reported("server_version"),
            unasked: !login_messages.token_given(),
            stream: logged_in.stream,
            unread: logged_in.after,
        })
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        let limit: Duration = self.context.target.settings.login.timeout;
        let late = |_| ConnectionError::LoginTimeout(limit);
        timeout(limit, work).await.map_err(late)?
    }
}

/// Returns the first authentication request of the database, for a client with its own password.
async fn first_question(opened: OpenedConnection) -> Result<LoginOutcome, ConnectionError> {
    let OpenedConnection {
        mut machine,
        mut stream,
        ..
    } = opened;
    loop {
        match next_event(&mut machine, &mut stream).await? {
            UpstreamEvent::AuthRequest { method, .. } => {
                return Ok(LoginOutcome::Asked(method.to_string()));
            }
            UpstreamEvent::Ready => {
                return Ok(LoginOutcome::In(ReadyConnection {
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
