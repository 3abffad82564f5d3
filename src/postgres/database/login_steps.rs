//! A login without a client, one room after the other, for whoever wants to know how far it goes.
//!
//! The rooms are those of every connection. What is left out is what a connection tries again: a trial
//! shows what happens at the first attempt.

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
use crate::aws::{AwsContext, Identity};
use crate::base::stream::Stream;
use crate::config::{Auth, Endpoint};
use crate::failure::connection::SessionError;
use crate::platform;
use crate::postgres::database::attempts::token_request;
use crate::postgres::route;
use crate::postgres::route::{Offer, Routed};
use crate::postgres::target::context::Rooms;
use crate::postgres::timings::Timings;
use crate::postgres::waiting::Waiting;
use crate::report::{self, About, Evidence, Explanation};
use crate::tunnel::Carrier;

impl Rooms {
    /// The AWS identity of the target.
    pub(crate) fn aws(&self) -> &Arc<AwsContext> {
        &self.aws
    }

    /// The endpoint that tokens are signed, and certificates verified, for.
    ///
    /// # Errors
    /// [`SessionError::Alias`].
    pub(crate) async fn real_endpoint(&self) -> Result<Endpoint, SessionError> {
        self.endpoint().await
    }

    /// Who would be asked to carry a connection.
    ///
    /// # Errors
    /// [`SessionError::Tunnel`].
    pub(crate) async fn carriers(&self) -> Result<Vec<Carrier>, SessionError> {
        Ok(self.transport.carriers().await?)
    }

    /// Who carries a connection, after a session has been opened through it where need be.
    ///
    /// # Errors
    /// [`SessionError::Tunnel`], [`SessionError::ConnectTimeout`].
    pub(crate) async fn prepare(&self) -> Result<Option<Arc<str>>, SessionError> {
        connecting(self, async { Ok(self.transport.prepare().await?) }).await
    }

    /// What is wrong, before there is a trial to ask.
    pub(crate) fn explain(&self, error: &SessionError) -> Explanation {
        report::explain(error, Some(&self.about(None)))
    }

    /// What an error of a trial, or before there is one, is about.
    pub(in crate::postgres) fn about<'a>(&'a self, trial: Option<&'a Trial>) -> About<'a> {
        let user = trial.map(Trial::user).or(self.target.user.as_deref());
        About {
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
    rooms: Arc<Rooms>,
    endpoint: Endpoint,
    server: Server,
    routed: Routed,
    evidence: Option<Evidence>,
    token_judged: bool,
    token_sent: bool,
}

/// A connection to the database that nothing has been said on.
pub(crate) struct Dialled(Opened);

/// The same after the TLS handshake.
pub(crate) struct Secured {
    opened: Opened,
    /// What the database has shown, its own certificate first; verified.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: String,
    /// Both sides have agreed on the protocol's name.
    pub(crate) alpn: bool,
}

/// Where a login has led to.
pub(crate) enum Outcome {
    /// Into the database.
    In(Session),
    /// To a question that only the client can answer, for it has the password.
    Asked(String),
}

/// A session that waits for queries.
pub(crate) struct Session {
    /// What goes back and forth.
    pub(crate) stream: Stream,
    /// What the server has said already.
    pub(crate) unread: Bytes,
    /// Its version, as it says itself.
    pub(crate) server_version: Option<String>,
    /// Whether the database let us in without asking for a token.
    pub(crate) unasked: bool,
}

impl Session {
    /// Takes leave (PostgreSQL docs, "Message Formats", Terminate).
    pub(in crate::postgres) async fn leave(mut self) {
        let bye = std::iter::once(Bytes::from_static(&crate::postgres::splice::TERMINATE));
        // Whether it still hears that does not matter.
        _ = crate::postgres::io::write_all(&mut self.stream, bye).await;
        crate::postgres::splice::close(&mut self.stream).await;
    }
}

impl Trial {
    /// The login of a client that leaves user and database to the target and calls itself
    /// `application`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`SessionError::Route`].
    pub(crate) fn new(
        rooms: Arc<Rooms>,
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
        let targets = [Arc::clone(&rooms.target)];
        let offer = Offer {
            targets: &targets,
            by_name: false,
        };
        let mut routed = route::route(offer, startup, os_user.as_deref())?;
        routed.adapt_to(endpoint.kind());
        Ok(Self {
            server: Server::at(&rooms, &endpoint),
            rooms,
            endpoint,
            routed,
            evidence: None,
            token_judged: false,
            token_sent: false,
        })
    }

    /// The role that logs in.
    pub(crate) fn user(&self) -> &str {
        &self.routed.user
    }

    /// The database it asks for; `None`: the one that is called like it.
    pub(crate) fn database(&self) -> Option<&str> {
        self.routed.database.as_deref()
    }

    /// What is wrong, in the words that a client would get.
    pub(crate) fn explain(&self, error: &SessionError) -> Explanation {
        let about = self.rooms.about(Some(self));
        report::explain(error, Some(&about))
    }

    /// Opens a connection and asks for TLS.
    ///
    /// # Errors
    /// [`SessionError::Tunnel`], [`SessionError::ConnectTimeout`].
    pub(crate) async fn dial(&self) -> Result<Dialled, SessionError> {
        let startup = self.routed.startup.clone();
        // Every server understands this beginning, and it keeps dial and TLS apart.
        let machine = match self.rooms.target.login.auth {
            Auth::Iam => Upstream::login(startup, Negotiation::SslRequest),
            Auth::Passthrough => Upstream::passthrough(startup, Negotiation::SslRequest),
        };
        let opening = open(&self.rooms, &self.server, machine, false);
        connecting(&self.rooms, opening).await.map(Dialled)
    }

    /// Verified TLS.
    ///
    /// # Errors
    /// [`SessionError::Upstream`] when the database does not want TLS, [`SessionError::UpstreamTls`]
    /// when it is not the one that is meant, [`SessionError::LoginTimeout`].
    pub(crate) async fn secure(&self, dialled: Dialled) -> Result<Secured, SessionError> {
        let Opened {
            server,
            mut machine,
            mut stream,
            ..
        } = dialled.0;
        let securing = async {
            // Nothing else can come first: the machine was made so.
            let UpstreamEvent::StartTls = next_event(&mut machine, &mut stream).await? else {
                return Err(SessionError::NoAlpn);
            };
            handshake(&self.rooms, &server, stream, Negotiation::SslRequest).await
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

    /// The login: with a token, or up to the question for the client's password.
    ///
    /// # Errors
    /// Whatever keeps a client from it.
    pub(crate) async fn login(&mut self, secured: Secured) -> Result<Outcome, SessionError> {
        match self.rooms.target.login.auth {
            Auth::Iam => self.with_token(secured.opened).await.map(Outcome::In),
            Auth::Passthrough => {
                let asking = first_question(secured.opened);
                self.in_time(asking).await
            }
        }
    }

    async fn with_token(&mut self, opened: Opened) -> Result<Session, SessionError> {
        let rooms = Arc::clone(&self.rooms);
        let signing = async {
            let request = token_request(&rooms, &self.routed, self.endpoint.clone()).await?;
            let token = rooms.tokens.token(&request).await?;
            Ok((request, token))
        };
        let (request, token) = connecting(&rooms, signing).await?;
        let region = request.region.clone();
        self.evidence = Some(Evidence {
            request,
            expires_at: token.expires_at,
            from_cache: token.from_cache,
            early: false,
            second: false,
            clock: rooms.aws.clock_offset(),
            identity: Identity::default(),
        });
        let credentials = Credentials {
            token: &token,
            early: false,
        };
        let (mut timings, mut greeting) = (Timings::default(), Greeting::default());
        let waiting = Waiting::default();
        let told = (&mut timings, &waiting);
        let login = login(told, &rooms, opened, credentials, &mut greeting);
        let logged_in = match self.in_time(login).await {
            Ok(logged_in) => logged_in,
            Err(error) => {
                self.token_judged = greeting.token_judged();
                self.token_sent = greeting.token_sent;
                let identity = rooms.aws.identity(&region).await;
                if let Some(evidence) = &mut self.evidence {
                    evidence.identity = identity;
                    evidence.clock = rooms.aws.clock_offset();
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
        let limit: Duration = self.rooms.target.login.timeout;
        let late = |_| SessionError::LoginTimeout(limit);
        timeout(limit, work).await.map_err(late)?
    }
}

/// What comes before TLS and login, in the time that a client waits for it.
async fn connecting<T>(
    rooms: &Rooms,
    work: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let after = rooms.target.connect_timeout;
    let late = |_| SessionError::ConnectTimeout {
        after,
        readiness: rooms.transport.readiness(),
        waiting: rooms.waits_for(),
    };
    timeout(after, work).await.map_err(late)?
}

/// What the database asks a client for that logs in by itself.
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
