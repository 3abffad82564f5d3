//! Error → ErrorResponse and log line. SQLSTATEs are defined only here.
//!
//! Every cause has a stable identifier, which the log line contains. The message names the target,
//! the Detail quotes the other side, and the Hint gives a command to type. An error from the server
//! keeps its text; Detail and Hint are appended.
//!
//! SQLSTATE classes follow from how clients react. Pools retry on class 08 and on 57P0x but not on
//! class 28, so a tunnel fault is never 28000 and expired credentials are never 08xxx.

mod after_login;
mod api;
mod aws;
mod client;
mod database;
mod descriptors;
mod discovery;
mod explain;
mod iam_refusal;
mod ids;
mod role;
mod server;
mod server_text;
mod ssm_end;
mod token_evidence;
mod tunnel;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use bytes::Bytes;
use pg_handshake::{ClientError, ErrorReply, SqlState, Startup};
use tracing::{info, warn};

use crate::aws::calls::CREDENTIALS_STEP;
use crate::aws::token::TokenRequest;
use crate::aws::{ClockOffset, Identity};
use crate::base::error_text::plain;
use crate::base::foreign_text::visible;
use crate::config::{Endpoint, Target, Via};
use crate::failure::connection::SessionError;
use crate::observe::Failure;
use crate::tunnel::TunnelError;
pub use after_login::{Ending, after_login, log_forward};
pub use discovery::explain_lookup;
pub use explain::{
    Explanation, explain, explain_clock, explain_credentials, explain_iam_off, explain_status,
};
pub use ids::IDS;

use client::{
    channel_binding, client, configured, failed_before, foreign, gone_after_tls, local_password,
    local_tls, not_yet, route, timed_out, two_passwords, unknown,
};

/// Invalid authorization specification: credentials, or permission to log in.
const NOT_AUTHORIZED: SqlState = SqlState::new(*b"28000");
/// The client cannot establish a connection: the tunnel cannot be built.
const CANNOT_CONNECT: SqlState = SqlState::new(*b"08001");
/// The server rejected the connection: AWS refused the session.
const REJECTED: SqlState = SqlState::new(*b"08004");
/// Connection failure: the tunnel broke.
const BROKEN: SqlState = SqlState::new(*b"08006");
/// Protocol violation: a malformed startup.
const PROTOCOL_VIOLATION: SqlState = SqlState::new(*b"08P01");
/// Invalid catalog name: no such target.
const NO_SUCH_DATABASE: SqlState = SqlState::new(*b"3D000");
/// Feature not supported.
const NOT_SUPPORTED: SqlState = SqlState::new(*b"0A000");
/// Too many connections.
const TOO_MANY: SqlState = SqlState::new(*b"53300");
/// Configuration limit exceeded: AWS throttles.
const THROTTLED: SqlState = SqlState::new(*b"53400");
/// Cannot connect now: not yet, or not at the moment. `pg_isready` calls it "rejecting".
const NOT_NOW: SqlState = SqlState::new(*b"57P03");
/// Invalid password.
const WRONG_PASSWORD: SqlState = SqlState::new(*b"28P01");
/// Warning.
pub const WARNING: SqlState = SqlState::new(*b"01000");
/// Admin shutdown.
const SHUTDOWN: SqlState = SqlState::new(*b"57P01");
/// Internal error.
const INTERNAL: SqlState = SqlState::new(*b"XX000");
/// Configuration file error.
const CONFIGURATION: SqlState = SqlState::new(*b"F0000");

/// Context of an error, as far as it is known.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The target of the connection.
    pub target: &'a Target,
    /// The effective database role.
    pub user: &'a str,
    /// The database has received the token and rejected it.
    pub token_judged: bool,
    /// A token was sent, in this or an earlier attempt of the login.
    pub token_sent: bool,
    /// The facts known about the last token.
    pub evidence: Option<&'a Evidence>,
    /// Number of open connections to the target, including this one.
    pub open_connections: usize,
    /// The startup packet as it is sent to the database.
    pub startup: Option<&'a Startup>,
    /// The target's default database, and the error that prevented its use in place of the missing
    /// one.
    pub no_default: Option<&'a str>,
}

impl<'a> About<'a> {
    /// Creates a context that holds only the target.
    #[must_use]
    pub fn target(target: &'a Target) -> Self {
        Self {
            target,
            user: "",
            token_judged: false,
            token_sent: false,
            evidence: None,
            open_connections: 0,
            startup: None,
            no_default: None,
        }
    }
}

/// Facts known about a token that was sent.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The request that it was signed for.
    pub request: TokenRequest,
    /// End of its validity.
    pub expires_at: SystemTime,
    /// It came from the cache: an earlier connection had requested it.
    pub from_cache: bool,
    /// It was sent before the database requested it.
    pub early: bool,
    /// Another token had been rejected just before.
    pub second: bool,
    /// Difference between this machine's clock and AWS's; `None` if no answer from AWS has shown
    /// it.
    pub clock: Option<ClockOffset>,
    /// The caller identity behind the credentials, if AWS was asked.
    pub identity: Identity,
}

/// Report of one failure, for the client and for the log.
pub struct Report {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// The complete ErrorResponse; `None` if the client cannot receive one.
    pub reply: Option<Bytes>,
    /// It means "not ready", which `pg_isready` must not take for success.
    pub not_ready: bool,
    sqlstate: String,
    message: String,
    /// Extra text in the log line, after the message.
    detail: Option<String>,
    hint: Option<String>,
    level: Level,
    /// Part of normal client behaviour, not counted as a failure.
    expected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Routine: port scanners, clients that leave.
    Info,
    /// Needs attention.
    Warn,
}

/// The parts of a reply that pgiam writes itself.
struct Said {
    id: &'static str,
    sqlstate: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Said {
    fn new(id: &'static str, sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            id: known_id(id),
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn report(self, level: Level, target: Option<&Target>) -> Report {
        let message = match target {
            Some(target) => format!("target \"{}\": {}", target.name, self.message),
            None => self.message,
        };
        let Self {
            id,
            sqlstate,
            detail,
            hint,
            ..
        } = self;
        // Text from the other side is escaped already. Names from the configuration and from the
        // client are escaped here, for the client and the log alike.
        let safe = |text: String| visible(&text).into_owned();
        let message = safe(message);
        let (detail, hint) = (detail.map(safe), hint.map(safe));
        let reply = reply(id, sqlstate, &message, (detail.as_deref(), hint.as_deref()));
        Report {
            id,
            reply: Some(reply),
            not_ready: sqlstate == NOT_NOW,
            sqlstate: sqlstate.as_str().to_owned(),
            message,
            detail,
            hint,
            level,
            expected: false,
        }
    }
}

impl Report {
    /// Writes the log line of this failure.
    pub fn log(&self) {
        let Self {
            id,
            sqlstate,
            message,
            ..
        } = self;
        let (detail, hint) = (self.detail.as_deref(), self.hint.as_deref());
        match self.level {
            Level::Info => info!(id, sqlstate, reason = message, detail, hint, "no session"),
            Level::Warn => warn!(id, sqlstate, reason = message, detail, hint, "no session"),
        }
    }

    /// Returns the failure as it is counted and displayed. Clients that leave, and answers to
    /// readiness probes, are not notable.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure {
            id: self.id,
            sqlstate: self.sqlstate.clone(),
            message: self.message.clone(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
            notable: self.level == Level::Warn,
            expected: self.expected,
        }
    }

    /// Converts the reply to "not ready", with an extra Detail.
    fn not_now(self, detail: Option<&str>) -> Self {
        let all = [self.detail.as_deref(), detail].into_iter().flatten();
        let all: Vec<&str> = all.collect();
        let detail = (!all.is_empty()).then(|| all.join(" "));
        let said = (detail.as_deref(), self.hint.as_deref());
        let reply = self
            .reply
            .map(|_| reply(self.id, NOT_NOW, &self.message, said));
        Self {
            reply,
            not_ready: true,
            sqlstate: NOT_NOW.as_str().to_owned(),
            detail,
            ..self
        }
    }

    /// Creates a report that only the log receives.
    fn silent(id: &'static str, error: &SessionError) -> Self {
        Self {
            id: known_id(id),
            reply: None,
            not_ready: false,
            sqlstate: String::new(),
            message: crate::base::error_text::chain(error).into_string(),
            detail: None,
            hint: None,
            level: Level::Info,
            expected: false,
        }
    }
}

/// Builds the ErrorResponse from these parts. The Hint ends with the cause's identifier, which is a
/// heading in `docs/errors.md`.
fn reply(
    id: &str,
    sqlstate: SqlState,
    message: &str,
    (detail, hint): (Option<&str>, Option<&str>),
) -> Bytes {
    let mut reply = ErrorReply::fatal(sqlstate, message);
    if let Some(hint) = hint {
        reply = reply.with_hint(with_id(hint, id));
    }
    if let Some(detail) = detail {
        reply = reply.with_detail(detail);
    }
    reply.encode()
}

/// Returns `id` after checking that it is in the list, which `docs/errors.md` is checked against.
fn known_id(id: &'static str) -> &'static str {
    debug_assert!(IDS.contains(&id), "{id} is not in the list of identifiers");
    id
}

fn with_id(hint: &str, id: &str) -> String {
    format!("{hint} [{id}]")
}

/// Creates the report of a connection that did not become a session.
#[must_use]
pub fn before_login(error: &SessionError, about: Option<&About<'_>>) -> Report {
    let target = about.map(|about| about.target);
    let warn = |said: Said| said.report(Level::Warn, target);
    // An error from the database concerns its own descriptors, not ours.
    if !matches!(error, SessionError::Upstream(_))
        && let Some(said) = descriptors::behind(error)
    {
        return warn(said);
    }
    match error {
        SessionError::OutOfDescriptors(limit) => warn(descriptors::exhausted(*limit)),
        SessionError::Client(ClientError::DirectTls) => Report::silent("client.direct-tls", error),
        SessionError::ForeignPeer { peer, own } => warn(foreign(*peer, *own)),
        SessionError::UnknownPeer(error) => warn(unknown(error)),
        SessionError::Password(refused) => {
            Said::new("client.password", PROTOCOL_VIOLATION, refused.to_string())
                .hint("The client's answer to the password request does not follow the PostgreSQL protocol: update it.")
                .report(Level::Info, target)
        }
        SessionError::LocalPassword(refused) => warn(local_password(refused)),
        SessionError::TwoPasswords => warn(two_passwords()),
        // Most clients with sslmode=prefer reconnect at once without TLS, and succeed.
        SessionError::ChannelBinding => Report {
            expected: true,
            ..channel_binding().report(Level::Info, target)
        },
        SessionError::Alias(refused) => warn(database::alias(refused)),
        SessionError::NoAlpn => warn(database::no_alpn(about)),
        SessionError::NoTunnelYet(readiness) => not_yet(*readiness).report(Level::Info, target),
        SessionError::FailedBefore(id) => failed_before(id).report(Level::Info, target),
        // A new tunnel cannot be opened while the previous one is lost, most likely for the same
        // reason.
        SessionError::Interrupted(cause) => {
            before_login(cause, about).not_now(Some("The tunnel that was there was lost and is being tried again."))
        }
        SessionError::NotReady(cause) if matches!(**cause, SessionError::ShuttingDown) => {
            too_late().report(Level::Info, target)
        }
        SessionError::NotReady(cause) => before_login(cause, about).not_now(None),
        SessionError::Client(refused) => client(refused).report(Level::Info, target),
        SessionError::GreetingTimeout(_) => Report::silent("client.silent", error),
        SessionError::ClientGone(_) => Report::silent("client.gone", error),
        SessionError::ClientLeft { after, waiting } => client::left(error, (*after, *waiting), target),
        SessionError::LocalTls { error: failed, certificate } => local_tls(error, failed, certificate.as_deref()),
        SessionError::GoneAfterTls { certificate } => gone_after_tls(error, certificate.as_deref()),
        SessionError::TooManyConnections { limit, of_target } => warn(too_many(*limit, *of_target)),
        SessionError::Route(refused) => warn(route(refused)),
        SessionError::Credentials(refused) => warn(aws::credentials(refused)),
        SessionError::Discovery(failed) => warn(discovery::discovery(failed, about)),
        SessionError::LookupTimeout(after) => warn(discovery::timed_out(*after)),
        SessionError::Config(_) | SessionError::Setup(_) => warn(configured(error)),
        SessionError::Internal(stopped) => warn(aws::internal(stopped, error.to_string())),
        SessionError::Token(refused) => warn(aws::token(refused)),
        SessionError::Tunnel(TunnelError::ShuttingDown) | SessionError::ShuttingDown => {
            shutting_down().report(Level::Info, target)
        }
        SessionError::Tunnel(failed) => warn(tunnel::tunnel(failed, about)),
        SessionError::ConnectTimeout {
            after,
            readiness,
            waiting,
        } => warn(timed_out(*after, *readiness, *waiting)),
        SessionError::UpstreamTls(failed) => warn(database::tls(failed, about)),
        SessionError::Upstream(failed) => database::upstream(failed, about),
        SessionError::UpstreamLost(lost) => warn(
            Said::new("database.lost", BROKEN, "the connection to the database broke during the login")
                .detail(sentence(&plain(lost)))
                .hint(database::AGAIN),
        ),
        SessionError::LoginTimeout(after) => warn(
            Said::new("database.timeout", CANNOT_CONNECT, format!("the database did not finish the login within {} s", after.as_secs()))
                .hint(format!(
                    "Possible causes: the database is starting, overloaded or out of memory, so that its own check of the login takes long (see its log, and raise login_timeout if it is only slow); or the port is filtered, which {} tells.",
                    try_port(about)
                )),
        ),
    }
}

/// Adds the step that timed out, and its remedy.
fn waited_for(said: Said, waiting: Option<&'static str>) -> Said {
    let Some(step) = waiting else {
        return said.hint(
            "Raise connect_timeout if AWS is slow from here; run with --log debug to see which step waits.",
        );
    };
    let said = said.detail(format!("At that time pgiam was waiting for {step}."));
    match step == CREDENTIALS_STEP {
        true => said.hint(format!(
            "{} Raise connect_timeout if they only take long.",
            aws::SLOW_CREDENTIALS
        )),
        false => said.hint(
            "Raise connect_timeout if that is only slow; pgiam check tries each step by itself.",
        ),
    }
}

fn too_many(limit: usize, of_target: bool) -> Said {
    if of_target {
        return Said::new(
            "limit.target",
            TOO_MANY,
            "too many connections to this target",
        )
        .detail(format!("Its connection_limit allows {limit} at a time."))
        .hint("Close connections that are no longer needed, or raise connection_limit.");
    }
    Said::new(
        "limit.connections",
        TOO_MANY,
        "sorry, too many clients already",
    )
    .detail(format!("pgiam serves {limit} connections at once."))
    .hint("Close connections that are no longer needed, pool them, or raise max_connections.")
}

fn shutting_down() -> Said {
    Said::new(
        "server.shutdown",
        SHUTDOWN,
        "terminating connection because pgiam is shutting down",
    )
    .hint("Connect again when pgiam runs again.")
}

/// Refuses a client that connects while the program waits for open connections to end.
fn too_late() -> Said {
    Said::new("server.shutdown", NOT_NOW, "pgiam is shutting down").hint(
        "It waits for its open connections to end. Connect again when it has been started anew.",
    )
}

/// Formats the text of a library as a sentence, as a Detail requires (PostgreSQL docs, "Error
/// Message Style Guide").
fn sentence(words: &str) -> String {
    let mut rest = words.chars();
    let first: String = rest
        .next()
        .map(|c| c.to_uppercase().collect())
        .unwrap_or_default();
    let end = if words.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", rest.as_str())
}

/// Returns the command that tests a dial from the host that dials the database.
fn try_port(about: Option<&About<'_>>) -> String {
    let Some(About { target, .. }) = about else {
        return "nc -vz HOST PORT on the bastion".to_owned();
    };
    let Endpoint { host, port } = &target.endpoint;
    let place = match target.via {
        Via::Ssm(_) => " on the bastion",
        Via::Direct => "",
    };
    format!("nc -vz {host} {port}{place}")
}
