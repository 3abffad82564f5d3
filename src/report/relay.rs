//! Reports about the relay on the bastion.

use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{BROKEN, CANNOT_CONNECT, Message, REJECTED};
use super::phrases::sentence;
use super::tunnel::{dial_refused, dial_timeout, name_not_resolved};
use crate::striping::RefusalKind;
use crate::tunnel::{RelayAbsence, RelayRefusal};

/// Reports a refusal of the relay. A failed dial means the same as one of the agent.
pub(super) fn refused(refusal: &RelayRefusal, context: Option<&ErrorContext<'_>>) -> Message {
    let RelayRefusal {
        bastion,
        endpoint,
        kind,
        words,
    } = refusal;
    let reported = sentence(&format!("The relay reported: {words}"));
    match kind {
        RefusalKind::NotAllowed => not_allowed(refusal).detail(reported),
        RefusalKind::UnknownName => name_not_resolved(bastion, endpoint, words),
        RefusalKind::Refused => dial_refused(bastion, endpoint, context).detail(reported),
        RefusalKind::Timeout => {
            let what = format!("{bastion} did not connect to {endpoint} in time");
            dial_timeout(&what, context).detail(reported)
        }
        RefusalKind::Full => Message::new(
            "relay.full",
            CANNOT_CONNECT,
            format!("the relay on {bastion} has reached a limit"),
        )
        .detail(reported)
        .hint("Close unused connections, or try again later. The limits are in docs/relay.md."),
        _ => lost(bastion, words),
    }
}

fn not_allowed(refusal: &RelayRefusal) -> Message {
    let RelayRefusal {
        bastion, endpoint, ..
    } = refusal;
    Message::new(
        "relay.not-allowed",
        REJECTED,
        format!("the relay on {bastion} does not allow connections to {endpoint}"),
    )
    .hint(
        Hint::from("Add the database to the list of the relay, on the bastion:")
            .run(format!("pgiam relay --allow {endpoint}"))
            .and("To connect without the relay, set relay = false."),
    )
}

/// Reports the end of the relay, or of all sessions to it.
pub(super) fn lost(bastion: &str, reason: &str) -> Message {
    Message::new(
        "relay.lost",
        BROKEN,
        format!("the relay on {bastion} ended the connection"),
    )
    .detail(sentence(reason))
    .hint("Connect again. If the error persists, see the log of pgiam relay on the bastion.")
}

/// Reports that there is no relay, and that AWS refuses sessions to the database.
pub(super) fn neither(relay: &RelayAbsence, host: Message) -> Message {
    let without = match &host.detail {
        Some(detail) => format!("Without a relay: {}. {detail}", host.message),
        None => format!("Without a relay: {}.", host.message),
    };
    let hint = Hint::from(format!("To use the relay, {}.", relay.remedy()));
    let hint = match host.hint {
        Some(other) => hint.and("To connect without it:").and(other),
        None => hint,
    };
    Message::new(
        "relay.unusable",
        host.sqlstate,
        format!("no relay, and no session to the database: {relay}"),
    )
    .detail(without)
    .hint(hint)
}
