//! Reports about failures after the login, and about connections of `pgiam tunnel`.

use super::client::{foreign_client, unknown_client};
use super::context::ErrorContext;
use super::message::{BROKEN, CANNOT_CONNECT, LogLevel, Message, Report, SHUTDOWN};
use super::phrases::{
    RECONNECT, sentence, shutting_down, stopped, too_many_connections, with_pending_step,
};
use super::{descriptors, tunnel};

use bytes::Bytes;
use tracing::{debug, info, warn};

use crate::admission::Refusal;
use crate::base::error_text::plain;
use crate::base::foreign_text::visible;
use crate::config::{EndpointKind, ResolvedTarget};
use crate::failure::connection_end::{ConnectionEnd, EndedBy};
use crate::failure::forward::ForwardError;
use crate::observe::Failure;
use crate::tunnel::TunnelError;

/// The same for connections of limited duration (Aurora DSQL User Guide, "Understanding connections").
const RECONNECT_DSQL: &str = "Connect again: pgiam opens a new session if necessary. Aurora DSQL ends every connection after one hour; configure the pool to renew connections earlier.";

fn reconnect(target: &ResolvedTarget) -> &'static str {
    match target.endpoint.kind() {
        EndpointKind::Dsql => RECONNECT_DSQL,
        _ => RECONNECT,
    }
}

/// Report of a connection that was lost after its login.
pub struct ConnectionLoss {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// The last message to the client; `None` if the client would take it for part of an unfinished
    /// one.
    pub reply: Option<Bytes>,
    /// The failure to count and display.
    pub failure: Failure,
}

/// Reports a connection that ended for a reason that its client cannot see; `None` if it ended in
/// order.
#[must_use]
pub fn after_login(end: &ConnectionEnd, target: &ResolvedTarget) -> Option<ConnectionLoss> {
    let message = match end.by {
        EndedBy::Client => return None,
        EndedBy::Shutdown => shutting_down(),
        EndedBy::TargetStop => {
            let message = "terminating connection because the target was stopped";
            stopped(SHUTDOWN, message.to_owned())
        }
        EndedBy::Server => {
            let error = end.error.as_ref()?;
            let lost = |reason: &str| {
                Message::new(
                    "session.lost",
                    BROKEN,
                    "the connection to the database was lost",
                )
                .detail(sentence(reason))
            };
            match TunnelError::of(error) {
                Some(error) => {
                    let context = ErrorContext::target(target);
                    let message = tunnel::tunnel(error, Some(&context));
                    let detail = message.detail.map(|detail| format!(". {detail}"));
                    let hint = message.hint.unwrap_or_else(|| reconnect(target).into());
                    lost(&format!(
                        "{}{}",
                        message.message,
                        detail.unwrap_or_default()
                    ))
                    .hint(hint)
                }
                None => lost(&plain(error)).hint(reconnect(target)),
            }
        }
    };
    let level = match end.by {
        EndedBy::Server => LogLevel::Warn,
        EndedBy::Client | EndedBy::Shutdown | EndedBy::TargetStop => LogLevel::Info,
    };
    let report = message.report(level, Some(target));
    let failure = report.failure();
    let Report { id, reply, .. } = report;
    let reply = reply.filter(|_| end.at_boundary);
    if reply.is_none() {
        debug!(
            id,
            "error not sent: the client is in the middle of a message"
        );
    }
    Some(ConnectionLoss { id, reply, failure })
}

/// Writes the log line of a raw tunnel connection that failed, and returns the failure to count and
/// display. Its client cannot receive a message, so the log line contains the complete report.
pub fn log_forward(error: &ForwardError, target: &ResolvedTarget) -> Failure {
    let Message {
        id,
        message,
        detail,
        hint,
        ..
    } = forward(error, target);
    let safe = |text: String| visible(&text).into_owned();
    let message = safe(message);
    let (detail, hint) = (detail.map(safe), hint.map(String::from));
    let notable = !matches!(
        error,
        ForwardError::Tunnel(TunnelError::ShuttingDown)
            | ForwardError::ShuttingDown
            | ForwardError::Refused(Refusal::Gone)
    );
    if notable {
        let (detail, hint) = (detail.as_deref(), hint.as_deref());
        warn!(id, reason = message, detail, hint, "connection failed");
    } else {
        info!(id, reason = message, "connection ended");
    }
    Failure {
        id,
        sqlstate: String::new(),
        message,
        detail,
        hint,
        notable,
        expected: false,
    }
}

pub(super) fn forward(error: &ForwardError, target: &ResolvedTarget) -> Message {
    let context = ErrorContext::target(target);
    if let Some(message) = descriptors::find_exhaustion(error) {
        return message;
    }
    match error {
        ForwardError::Refused(Refusal::Foreign { peer, own }) => foreign_client(*peer, *own),
        ForwardError::Refused(Refusal::Unknown(error)) => unknown_client(error),
        ForwardError::Refused(Refusal::OutOfDescriptors { limit }) => {
            descriptors::exhausted(*limit)
        }
        ForwardError::Refused(gone @ Refusal::Gone) => {
            Message::new("client.gone", CANNOT_CONNECT, gone.to_string())
        }
        ForwardError::Tunnel(failed) => tunnel::tunnel(failed, Some(&context)),
        ForwardError::Timeout { after, waiting } => {
            let text = format!("the tunnel was not ready within {} s", after.as_secs());
            with_pending_step(
                Message::new("tunnel.timeout", CANNOT_CONNECT, text),
                *waiting,
                None, // Its name is the destination, which pgiam check does not know.
            )
        }
        ForwardError::TooManyConnections { limit } => too_many_connections(*limit, false),
        ForwardError::Lost(lost) => Message::new(
            "tunnel.lost",
            BROKEN,
            format!("the connection to {} was lost", target.endpoint),
        )
        .detail(sentence(&plain(lost))),
        ForwardError::ShuttingDown => shutting_down(),
    }
}
