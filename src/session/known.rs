//! What earlier logins have shown about a target's server, to spend fewer round trips on the next.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pg_handshake::Negotiation;
use tokio::time::Instant;

use crate::config::EndpointKind;

/// The first version whose server takes a ClientHello without an SSLRequest before it (PostgreSQL 17
/// release notes, "sslnegotiation").
const DIRECT_TLS_SINCE: u32 = 17;
/// How long a server that refused direct TLS is not asked again: a proxy before the database reports
/// the database's version and may not know what that version knows. Long enough to cost nothing,
/// short enough to notice an upgrade.
const REFUSAL_STANDS: Duration = Duration::from_secs(60 * 60);
/// Clients choose the role, so the memory for roles has an end. Starting over costs one round trip
/// per role.
const MOST_ROLES: usize = 256;

/// How the next login begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) negotiation: Negotiation,
    /// The token goes out together with the StartupMessage.
    pub(super) early_token: bool,
}

/// What is known of one target's server.
pub(super) struct Known {
    state: Mutex<State>,
}

struct State {
    direct: DirectTls,
    /// The roles whom the server has asked for a clear-text password, and let in with it.
    clear_text: HashSet<String>,
}

#[derive(Clone, Copy, Debug)]
enum DirectTls {
    Unknown,
    Taken,
    Refused { at: Instant },
}

impl Known {
    /// What is known before the first login.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                direct: DirectTls::Unknown,
                clear_text: HashSet::new(),
            }),
        }
    }

    /// The way to log in `role` at an endpoint of this `kind` that takes the fewest round trips.
    pub(super) fn way(&self, role: &str, kind: EndpointKind) -> Way {
        let early_token = self.state().clear_text.contains(role);
        Way {
            negotiation: self.negotiation(kind),
            early_token,
        }
    }

    /// How TLS begins at an endpoint of this `kind`.
    pub(super) fn negotiation(&self, kind: EndpointKind) -> Negotiation {
        match (self.state().direct, kind) {
            // Aurora DSQL User Guide: sslnegotiation=direct is supported and recommended.
            (DirectTls::Taken, _) | (DirectTls::Unknown, EndpointKind::Dsql) => Negotiation::Direct,
            (DirectTls::Unknown | DirectTls::Refused { .. }, _) => Negotiation::SslRequest,
        }
    }

    /// A server of this version answered.
    pub(super) fn saw_version(&self, major: u32) {
        let mut state = self.state();
        let may_ask = match state.direct {
            DirectTls::Unknown => true,
            DirectTls::Refused { at } => at.elapsed() >= REFUSAL_STANDS,
            DirectTls::Taken => false,
        };
        if may_ask && major >= DIRECT_TLS_SINCE {
            state.direct = DirectTls::Taken;
        }
    }

    /// Direct TLS did not work.
    pub(super) fn direct_refused(&self) {
        self.state().direct = DirectTls::Refused { at: Instant::now() };
    }

    /// The server has asked for this role's clear-text password, and taken it.
    pub(super) fn took_clear_text(&self, role: &str) {
        let mut state = self.state();
        if state.clear_text.len() >= MOST_ROLES {
            state.clear_text.clear();
        }
        state.clear_text.insert(role.to_owned());
    }

    /// The server wants something else from this role now, or may.
    pub(super) fn forget(&self, role: &str) {
        self.state().clear_text.remove(role);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment; a panic cannot leave half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn direct_tls_where_the_version_has_it_unless_it_was_refused() {
        let known = Known::new();
        assert_eq!(
            known.negotiation(EndpointKind::Cluster),
            Negotiation::SslRequest
        );
        known.saw_version(16);
        assert_eq!(
            known.negotiation(EndpointKind::Cluster),
            Negotiation::SslRequest
        );
        known.saw_version(17);
        assert_eq!(
            known.negotiation(EndpointKind::Cluster),
            Negotiation::Direct
        );
        known.direct_refused();
        known.saw_version(17);
        assert_eq!(
            known.negotiation(EndpointKind::Cluster),
            Negotiation::SslRequest
        );
        tokio::time::advance(REFUSAL_STANDS).await;
        known.saw_version(18);
        assert_eq!(
            known.negotiation(EndpointKind::Cluster),
            Negotiation::Direct
        );
        let dsql = Known::new();
        assert_eq!(dsql.negotiation(EndpointKind::Dsql), Negotiation::Direct);
        dsql.direct_refused();
        assert_eq!(
            dsql.negotiation(EndpointKind::Dsql),
            Negotiation::SslRequest
        );
    }

    #[test]
    fn the_token_goes_early_to_roles_that_were_asked_for_it() {
        let known = Known::new();
        let early = |role| known.way(role, EndpointKind::Instance).early_token;
        assert!(!early("app"));
        known.took_clear_text("app");
        assert!(early("app") && !early("other"));
        known.forget("app");
        assert!(!early("app"));
        for n in 0..=MOST_ROLES {
            known.took_clear_text(&n.to_string());
        }
        assert!(known.state().clear_text.len() <= MOST_ROLES);
        assert!(early(&MOST_ROLES.to_string()));
    }
}
