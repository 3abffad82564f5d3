//! Reports about sessions that the SSM service or its agent ended.

use super::context::ErrorContext;
use super::message::{BROKEN, CANNOT_CONNECT, Message};
use super::phrases::{encryption_failed, handshake_timeout, sentence};

use crate::config::Via;
use crate::tunnel::EndCause;

/// Settings that limit the length of sessions.
const LIMITS: &str = "the Session Manager preferences of the account";

/// Reports that the service or the agent ended the session; `reason` is its text.
pub(super) fn ended(cause: EndCause, reason: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let broken = |id, message: &str| Message::new(id, BROKEN, message);
    let said = match cause {
        EndCause::IdleTimeout => broken(
            cause.id(),
            "the SSM session was idle for too long, and AWS ended it",
        )
        .hint(format!(
            "Connect again: pgiam opens a new session. The limit is the idle session timeout in {LIMITS}{}.",
            stay_awake(context)
        )),
        EndCause::MaximumDuration => broken(
            cause.id(),
            "the SSM session reached its maximum duration, and AWS ended it",
        )
        .hint(format!(
            "Connect again: pgiam opens a new session. The limit is the maximum session duration in {LIMITS}."
        )),
        EndCause::Terminated => broken(cause.id(), "the SSM session was terminated")
            .hint("A new connection opens a new session. Either somebody ended it, in which case CloudTrail has the TerminateSession call and who made it, or the bastion shut down."),
        EndCause::Gone => broken(
            cause.id(),
            "the connection to the SSM service was lost, and the session has ended meanwhile",
        )
        .hint("Connect again: pgiam opens a new session. A session outlives a lost connection for as long as its idle timeout and your credentials last."),
        EndCause::Agent | EndCause::Other | EndCause::AtStart => return in_words(cause, reason, context),
    };
    match (cause, reason.strip_prefix(LOST)) {
        // The message contains it already.
        (EndCause::Gone, Some(reason)) => with_words(said, &sentence(reason)),
        _ => with_words(said, reason),
    }
}

/// Beginning of the text for a lost connection.
const LOST: &str = "the connection to the SSM service was lost: ";

/// Returns the hint to enable the setting that helps, unless it is enabled.
fn stay_awake(context: Option<&ErrorContext<'_>>) -> &'static str {
    match context.map(|context| &context.target.settings.via) {
        Some(Via::Ssm(settings)) if settings.keep_alive => "",
        _ => {
            "; where the account's rules allow it, keep_alive = true keeps open connections from reaching it"
        }
    }
}

/// Reports the reasons that the agent gives only as text. Only those with a remedy are recognised
/// (observed in `channel_closed`).
fn in_words(cause: EndCause, reason: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let words = reason;
    let said = if words.contains("Handshake timed out") {
        let bastion = match context.map(|context| &context.target.settings.via) {
            Some(Via::Ssm(settings)) => settings.bastion.to_string(),
            _ => "the bastion".to_owned(),
        };
        handshake_timeout(&bastion, " in time")
    } else if ["KMSEncryption", "data key", "encryption challenge"]
        .iter()
        .any(|part| words.contains(part))
    {
        encryption_failed()
    } else if words.contains("Forwarding to IP address") {
        Message::new(
            "ssm.forbidden-host",
            CANNOT_CONNECT,
            "the SSM agent does not forward to the address of host",
        )
        .hint("host must be the database's endpoint, not an address of instance metadata or DNS.")
    } else if cause == EndCause::Agent {
        Message::new(cause.id(), BROKEN, "the SSM agent on the bastion ended the session")
            .hint("Connect again: pgiam opens a new session. Agents do so when they restart, as for an update, or when the instance stops.")
    } else if cause == EndCause::AtStart {
        Message::new(cause.id(), BROKEN, "the SSM session was ended").hint("Connect again: pgiam opens a new session. It had just begun, so no time limit has ended it; the agent's log on the bastion may say more (/var/log/amazon/ssm/amazon-ssm-agent.log).")
    } else {
        Message::new(cause.id(), BROKEN, "the SSM session was ended").hint(format!(
            "Connect again: pgiam opens a new session. Idle timeout and maximum duration are set in {LIMITS}."
        ))
    };
    with_words(said, words)
}

fn with_words(said: Message, words: &str) -> Message {
    if words.is_empty() {
        said
    } else {
        said.detail(words)
    }
}
