//! Error → ErrorResponse and log line. The only place that knows SQLSTATEs.
//!
//! Every cause has a stable identifier, which the log carries. Messages name the target, Details
//! carry what the other side said, Hints say what to type. An error made by the server keeps its
//! own words; Detail and Hint are appended to them.
//!
//! SQLSTATE classes are chosen for what clients do with them: pools retry on class 08 and on 57P0x
//! but not on class 28, so a tunnel fault is never 28000 and expired credentials are never 08xxx.

mod api;
mod aws;
mod database;
mod ended;
mod tunnel;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use pg_handshake::{ClientError, ErrorReply, SqlState, StartupError};
use tracing::{debug, info, warn};

use crate::config::{Endpoint, Target, Via};
use crate::forward::ForwardError;
use crate::route::RouteError;
use crate::session::SessionError;
use crate::splice::{EndedBy, SessionEnd};
use crate::tunnel::{TunnelError, plain};

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
/// Admin shutdown.
const SHUTDOWN: SqlState = SqlState::new(*b"57P01");
/// Internal error.
const INTERNAL: SqlState = SqlState::new(*b"XX000");
/// Configuration file error.
const CONFIGURATION: SqlState = SqlState::new(*b"F0000");

/// What an error is about, where that is known.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The target of the connection.
    pub target: &'a Target,
    /// The effective database role.
    pub user: &'a str,
    /// The database has received a token and not accepted it.
    pub token_judged: bool,
}

/// One failure, for the client and for the log.
pub struct Report {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// The whole ErrorResponse; `None` where nobody can read one.
    pub reply: Option<Bytes>,
    sqlstate: String,
    message: String,
    /// What the log says beside the message.
    detail: Option<String>,
    level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Ordinary: port scanners, clients that leave.
    Info,
    /// Someone should look at it.
    Warn,
}

/// The parts of a reply of our own.
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
            id,
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
        let mut reply = ErrorReply::fatal(self.sqlstate, &message);
        if let Some(detail) = &self.detail {
            reply = reply.with_detail(detail);
        }
        if let Some(hint) = &self.hint {
            reply = reply.with_hint(hint);
        }
        Report {
            id: self.id,
            reply: Some(reply.encode()),
            sqlstate: self.sqlstate.as_str().to_owned(),
            message,
            detail: self.detail,
            level,
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
        let detail = self.detail.as_deref();
        match self.level {
            Level::Info => info!(id, sqlstate, reason = message, detail, "no session"),
            Level::Warn => warn!(id, sqlstate, reason = message, detail, "no session"),
        }
    }

    /// A failure nobody is there to read about.
    fn silent(id: &'static str, error: &SessionError) -> Self {
        Self {
            id,
            reply: None,
            sqlstate: String::new(),
            message: crate::tunnel::chain(error),
            detail: None,
            level: Level::Info,
        }
    }
}

/// The report of a connection that did not become a session.
#[must_use]
pub fn before_login(error: &SessionError, about: Option<&About<'_>>) -> Report {
    let target = about.map(|about| about.target);
    let warn = |said: Said| said.report(Level::Warn, target);
    match error {
        SessionError::Client(ClientError::DirectTls) => Report::silent("client.direct-tls", error),
        SessionError::Client(refused) => client(refused).report(Level::Info, target),
        SessionError::GreetingTimeout(_) => Report::silent("client.silent", error),
        SessionError::ClientGone(_) => Report::silent("client.gone", error),
        SessionError::LocalTls(_) => Report::silent("client.tls", error),
        SessionError::TooManyConnections { limit } => warn(too_many(*limit)),
        SessionError::Route(refused) => warn(route(refused)),
        SessionError::Credentials(refused) => warn(aws::credentials(refused)),
        SessionError::Token(refused) => warn(aws::token(refused)),
        SessionError::Tunnel(TunnelError::ShuttingDown) | SessionError::ShuttingDown => {
            shutting_down().report(Level::Info, target)
        }
        SessionError::Tunnel(failed) => warn(tunnel::tunnel(failed, about)),
        SessionError::ConnectTimeout(after) => warn(
            Said::new("tunnel.timeout", CANNOT_CONNECT, format!("tunnel and token were not ready within {} s", after.as_secs()))
                .hint(RAISE_TIMEOUT),
        ),
        SessionError::UpstreamTls(failed) => warn(database::tls(failed, about)),
        SessionError::Upstream(failed) => database::upstream(failed, about),
        SessionError::UpstreamLost(lost) => warn(
            Said::new("database.lost", BROKEN, "the connection to the database broke during the login")
                .detail(sentence(&plain(lost))),
        ),
        SessionError::LoginTimeout(after) => warn(
            Said::new("database.timeout", CANNOT_CONNECT, format!("the database did not finish the login within {} s", after.as_secs()))
                .hint(format!(
                    "Most likely the port is filtered: the database's security group must allow it from the bastion's group. {} tells. A database that is starting or out of memory answers late, too.",
                    try_port(about)
                )),
        ),
    }
}

/// What to do when neither the tunnel nor an error came in time.
const RAISE_TIMEOUT: &str =
    "Raise connect_timeout if AWS is slow from here; run with --log debug to see which step waits.";
/// What to do about a session that was lost, when there is nothing better to say.
const RECONNECT: &str = "Reconnect: pgiam opens a new tunnel when it has to.";

/// The last words to a client whose session ended for a reason that it cannot see; `None` when it
/// ended in order, or when the client would take them for part of a message.
#[must_use]
pub fn after_login(end: &SessionEnd, target: &Target) -> Option<Bytes> {
    let said = match end.by {
        EndedBy::Client => return None,
        EndedBy::Shutdown => shutting_down(),
        EndedBy::Server => {
            let error = end.error.as_ref()?;
            let lost = |reason: &str| {
                Said::new(
                    "session.lost",
                    BROKEN,
                    "the connection to the database was lost",
                )
                .detail(sentence(reason))
            };
            match TunnelError::of(error) {
                Some(error) => {
                    let about = About {
                        target,
                        user: "",
                        token_judged: false,
                    };
                    let said = tunnel::tunnel(error, Some(&about));
                    let detail = said.detail.map(|detail| format!(". {detail}"));
                    let hint = said.hint.unwrap_or_else(|| RECONNECT.to_owned());
                    lost(&format!("{}{}", said.message, detail.unwrap_or_default())).hint(hint)
                }
                None => lost(&plain(error)).hint(RECONNECT),
            }
        }
    };
    if !end.at_boundary {
        debug!(
            message = said.message,
            "not told to the client, which is in the middle of a message"
        );
        return None;
    }
    said.report(Level::Info, Some(target)).reply
}

/// Writes the log line of a connection that a raw tunnel could not carry, or not to its end. Its
/// client can be told nothing, so all that there is to say is said here.
pub fn log_forward(error: &ForwardError, target: &Target) {
    let Said {
        id,
        message,
        detail,
        hint,
        ..
    } = forward(error, target);
    let (detail, hint) = (detail.as_deref(), hint.as_deref());
    match error {
        ForwardError::Tunnel(TunnelError::ShuttingDown) | ForwardError::ShuttingDown => {
            info!(id, reason = message, "connection ended");
        }
        _ => warn!(id, reason = message, detail, hint, "connection failed"),
    }
}

fn forward(error: &ForwardError, target: &Target) -> Said {
    let about = About {
        target,
        user: "",
        token_judged: false,
    };
    match error {
        ForwardError::Tunnel(failed) => tunnel::tunnel(failed, Some(&about)),
        ForwardError::Timeout(after) => Said::new(
            "tunnel.timeout",
            CANNOT_CONNECT,
            format!("the tunnel was not ready within {} s", after.as_secs()),
        )
        .hint(RAISE_TIMEOUT),
        ForwardError::TooManyConnections { limit } => too_many(*limit),
        ForwardError::Lost(lost) => Said::new(
            "tunnel.lost",
            BROKEN,
            format!("the connection to {} was lost", target.endpoint),
        )
        .detail(sentence(&plain(lost))),
        ForwardError::ShuttingDown => shutting_down(),
    }
}

fn too_many(limit: usize) -> Said {
    Said::new(
        "limit.connections",
        TOO_MANY,
        "sorry, too many clients already",
    )
    .detail(format!("pgiam serves {limit} connections at once."))
    .hint("Close connections that are no longer needed, or pool them.")
}

fn shutting_down() -> Said {
    Said::new(
        "server.shutdown",
        SHUTDOWN,
        "terminating connection because pgiam is shutting down",
    )
}

fn client(error: &ClientError) -> Said {
    let message = match error {
        ClientError::Startup(StartupError::UnsupportedProtocol(_)) => {
            return Said::new("client.protocol", NOT_SUPPORTED, error.to_string());
        }
        // These speak of the packet themselves.
        ClientError::Startup(error) => error.to_string(),
        other => format!("invalid startup: {other}"),
    };
    Said::new("client.startup", PROTOCOL_VIOLATION, message)
        .hint("This port speaks the PostgreSQL protocol, version 3.")
}

/// The words of a library as a sentence of its own, as Detail wants them (PostgreSQL docs, "Error
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

/// The command that shows from where the database would be dialled what becomes of that.
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

fn route(error: &RouteError) -> Said {
    match error {
        RouteError::UnknownTarget { asked, known } => {
            let names: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
            let message = if asked.is_empty() {
                "several targets share this port, and no target is named".to_owned()
            } else {
                format!("there is no target \"{asked}\" on this port")
            };
            Said::new("target.unknown", NO_SUCH_DATABASE, message).hint(format!(
                "Give the target's name, or TARGET/DATABASE, as database name. Targets here: {}.",
                names.join(", ")
            ))
        }
        RouteError::NoUser { target } => Said::new(
            "target.no-user",
            NOT_AUTHORIZED,
            format!("target \"{target}\": no user name"),
        )
        .hint(format!(
            "Give one (psql -U ROLE), or set user = \"ROLE\" under [targets.{target}]."
        )),
        RouteError::Replication => {
            Said::new("target.replication", NOT_SUPPORTED, error.to_string())
                .detail("Amazon RDS does not support IAM authentication for replication.")
        }
        RouteError::UserNotUtf8 => {
            Said::new("target.user-encoding", NOT_AUTHORIZED, error.to_string())
                .hint("IAM tokens are signed for user names in UTF-8.")
        }
        RouteError::Startup(_) => Said::new("target.startup", CONFIGURATION, error.to_string()),
    }
}
