//! Report of a failure: SQLSTATE, message, detail, hint and identifier.

use bytes::Bytes;
use pg_handshake::{ErrorReply, SqlState};
use tracing::{info, warn};

use super::hint::{Hint, with_id};
use super::ids::IDS;
use crate::base::foreign_text::visible;
use crate::config::ResolvedTarget;
use crate::failure::connection::ConnectionError;
use crate::observe::Failure;

/// Invalid authorization specification: credentials, or permission to log in.
pub(super) const NOT_AUTHORIZED: SqlState = SqlState::new(*b"28000");

/// The client cannot establish a connection: the tunnel cannot be built.
pub(super) const CANNOT_CONNECT: SqlState = SqlState::new(*b"08001");

/// The server rejected the connection: AWS refused the session.
pub(super) const REJECTED: SqlState = SqlState::new(*b"08004");

/// Connection failure: the tunnel broke.
pub(super) const BROKEN: SqlState = SqlState::new(*b"08006");

/// Protocol violation: a malformed startup.
pub(super) const PROTOCOL_VIOLATION: SqlState = SqlState::new(*b"08P01");

/// Invalid catalog name: no such target.
pub(super) const NO_SUCH_DATABASE: SqlState = SqlState::new(*b"3D000");

/// Feature not supported.
pub(super) const NOT_SUPPORTED: SqlState = SqlState::new(*b"0A000");

/// Too many connections.
pub(super) const TOO_MANY: SqlState = SqlState::new(*b"53300");

/// Configuration limit exceeded: AWS throttles.
pub(super) const THROTTLED: SqlState = SqlState::new(*b"53400");

/// Cannot connect now: not yet, or not at the moment. `pg_isready` calls it "rejecting".
pub(super) const NOT_NOW: SqlState = SqlState::new(*b"57P03");

/// Invalid password.
pub(super) const WRONG_PASSWORD: SqlState = SqlState::new(*b"28P01");

/// Warning.
pub const WARNING: SqlState = SqlState::new(*b"01000");

/// Admin shutdown.
pub(super) const SHUTDOWN: SqlState = SqlState::new(*b"57P01");

/// Internal error.
pub(super) const INTERNAL: SqlState = SqlState::new(*b"XX000");

/// Configuration file error.
pub(super) const CONFIGURATION: SqlState = SqlState::new(*b"F0000");

/// The parts of a reply that pgiam writes itself.
pub(super) struct Message {
    pub(super) id: &'static str,
    pub(super) sqlstate: SqlState,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<Hint>,
}

impl Message {
    pub(super) fn new(id: &'static str, sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            id: checked_id(id),
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn report(self, level: LogLevel, target: Option<&ResolvedTarget>) -> Report {
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
        let (detail, hint) = (detail.map(safe), hint.map(String::from));
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

/// Report of one failure, for the client and for the log.
pub struct Report {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// The complete ErrorResponse; `None` if the client cannot receive one.
    pub reply: Option<Bytes>,
    /// It means "not ready", which `pg_isready` must not take for success.
    pub not_ready: bool,
    pub(super) sqlstate: String,
    pub(super) message: String,
    /// Extra text in the log line, after the message.
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) level: LogLevel,
    /// Part of normal client behaviour, not counted as a failure.
    pub(super) expected: bool,
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
            LogLevel::Info => info!(
                id,
                sqlstate,
                reason = message,
                detail,
                hint,
                "connection failed"
            ),
            LogLevel::Warn => warn!(
                id,
                sqlstate,
                reason = message,
                detail,
                hint,
                "connection failed"
            ),
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
            notable: self.level == LogLevel::Warn,
            expected: self.expected,
        }
    }

    /// Converts the reply to "not ready", with an extra Detail.
    pub(super) fn into_not_ready(self, detail: Option<&str>) -> Self {
        let all = [self.detail.as_deref(), detail].into_iter().flatten();
        let all: Vec<&str> = all.collect();
        let detail = (!all.is_empty()).then(|| all.join(" "));
        let parts = (detail.as_deref(), self.hint.as_deref());
        let reply = self
            .reply
            .map(|_| reply(self.id, NOT_NOW, &self.message, parts));
        Self {
            reply,
            not_ready: true,
            sqlstate: NOT_NOW.as_str().to_owned(),
            detail,
            ..self
        }
    }

    /// Creates a report that only the log receives.
    pub(super) fn log_only(id: &'static str, error: &ConnectionError) -> Self {
        Self {
            id: checked_id(id),
            reply: None,
            not_ready: false,
            sqlstate: String::new(),
            message: crate::base::error_text::chain(error).into_string(),
            detail: None,
            hint: None,
            level: LogLevel::Info,
            expected: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogLevel {
    /// Routine: port scanners, clients that leave.
    Info,
    /// Needs attention.
    Warn,
}

/// Builds the ErrorResponse from these parts. The Hint ends with the cause's identifier.
pub(super) fn reply(
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
pub(super) fn checked_id(id: &'static str) -> &'static str {
    debug_assert!(IDS.contains(&id), "{id} is not in the list of identifiers");
    id
}
