//! Reports about sessions that the SSM service or its agent ended.

use super::context::ErrorContext;
use super::message::{BROKEN, CANNOT_CONNECT, Message};
use super::phrases::{NEW_SESSION, encryption_failed, handshake_timeout, sentence};

use crate::config::Via;
use crate::tunnel::EndCause;

/// Settings that limit the length of sessions.
const LIMITS: &str = "the Session Manager preferences of the account";

/// Reports that the service or the agent ended the session; `reason` is its text.
pub(super) fn ended(cause: EndCause, reason: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let broken = |id, message: &str| Message::new(id, BROKEN, message);
    let message = match cause {
        EndCause::IdleTimeout => broken(
            cause.id(),
            "the SSM session reached its idle timeout, and AWS ended it",
        )
        .hint(format!(
            "{NEW_SESSION} The limit is the idle session timeout in {LIMITS}.{}",
            keep_alive_hint(context)
        )),
        EndCause::MaximumDuration => broken(
            cause.id(),
            "the SSM session reached its maximum duration, and AWS ended it",
        )
        .hint(format!(
            "{NEW_SESSION} The limit is the maximum session duration in {LIMITS}."
        )),
        EndCause::Terminated => broken(cause.id(), "the SSM session was terminated")
            .hint(format!("{NEW_SESSION} Possible causes: a TerminateSession call (CloudTrail shows the caller); the bastion shut down.")),
        EndCause::Gone => broken(
            cause.id(),
            "the connection to the SSM service was lost, and the session ended before pgiam resumed it",
        )
        .hint(format!("{NEW_SESSION} pgiam can resume a session only until its idle timeout is reached or your credentials expire.")),
        EndCause::Agent | EndCause::Other | EndCause::AtStart => return recognise_reason(cause, reason, context),
    };
    match (cause, reason.strip_prefix(LOST_PREFIX)) {
        // The message contains it already.
        (EndCause::Gone, Some(reason)) => with_reason(message, &sentence(reason)),
        _ => with_reason(message, reason),
    }
}

/// Beginning of the text for a lost connection.
const LOST_PREFIX: &str = "the connection to the SSM service was lost: ";

/// Returns the hint to enable the setting that helps, unless it is enabled.
fn keep_alive_hint(context: Option<&ErrorContext<'_>>) -> &'static str {
    match context.map(|context| &context.target.settings.via) {
        Some(Via::Ssm(settings)) if settings.keep_alive => "",
        _ => {
            " To prevent the timeout while connections are open, set keep_alive = true (check your organisation's policy first)."
        }
    }
}

/// Reports the reasons that the agent gives only as text. Only those with a remedy are recognised
/// (observed in `channel_closed`).
fn recognise_reason(cause: EndCause, reason: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let words = reason;
    let message = if words.contains("Handshake timed out") {
        let bastion = match context.map(|context| &context.target.settings.via) {
            Some(Via::Ssm(settings)) => settings.bastion.to_string(),
            _ => "the bastion".to_owned(),
        };
        handshake_timeout(&bastion, "in time")
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
        .hint("Set host to the database's endpoint, not to an address of instance metadata or DNS.")
    } else if cause == EndCause::Agent {
        Message::new(cause.id(), BROKEN, "the SSM agent on the bastion ended the session")
            .hint(format!("{NEW_SESSION} Possible causes: the agent restarted, for example for an update; the instance stopped."))
    } else if cause == EndCause::AtStart {
        Message::new(cause.id(), BROKEN, "the SSM session ended").hint(format!("{NEW_SESSION} The session had just started, so it did not reach a time limit. For the reason, check the agent's log on the bastion: /var/log/amazon/ssm/amazon-ssm-agent.log"))
    } else {
        Message::new(cause.id(), BROKEN, "the SSM session ended").hint(format!(
            "{NEW_SESSION} The idle timeout and the maximum duration are set in {LIMITS}."
        ))
    };
    with_reason(message, words)
}

fn with_reason(message: Message, words: &str) -> Message {
    if words.is_empty() {
        message
    } else {
        message.detail(words)
    }
}
