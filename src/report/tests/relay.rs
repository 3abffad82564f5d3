//! Reports about the relay on the bastion.

use super::*;
use crate::striping::RefusalKind;
use crate::tunnel::{RelayAbsence, RelayRefusal};

fn refused(kind: RefusalKind, words: &str) -> TunnelError {
    TunnelError::Relay(Box::new(RelayRefusal {
        bastion: "i-1".into(),
        endpoint: endpoint(),
        kind,
        words: words.into(),
    }))
}

#[test]
fn relays() {
    let one = target("bastion='i-1'\nrelay=5439");
    let listed = "orders.example:5432 is not in the list of this relay";
    let lost = TunnelError::RelayLost {
        bastion: "i-1".to_owned(),
        reason: "it is not running any more".into(),
    };
    let neither = TunnelError::NeitherRelayNorHost {
        relay: RelayAbsence::NothingListens {
            bastion: "i-1".into(),
            port: 5439,
        },
        host: Box::new(denied("StartSession", "i-1")),
    };
    let errors = [
        ("not allowed", refused(RefusalKind::NotAllowed, listed)),
        (
            "an unknown name",
            refused(RefusalKind::UnknownName, "no such host"),
        ),
        (
            "a closed port",
            refused(RefusalKind::Refused, "connection refused"),
        ),
        (
            "no answer",
            refused(RefusalKind::Timeout, "no answer within 10 s"),
        ),
        (
            "a limit",
            refused(RefusalKind::Full, "1024 connections are open"),
        ),
        ("stopping", refused(RefusalKind::Stopping, "shutting down")),
        ("gone", lost),
        ("no relay and no session", neither),
    ];
    let texts = errors.map(|(title, error)| shown(title, &message(&error, &one)));
    snapshot("relays", &texts);
}
