//! What earlier logins have shown about a target's server, to spend fewer round trips on the next.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pg_handshake::Negotiation;
use tokio::time::Instant;

use crate::config::{Endpoint, EndpointKind};

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
/// For how long a role whose fresh token was refused is not tried with another one: a pool that
/// connects ten times a second must not become twenty questions a second to IAM, each with
/// credentials loaded anew. No longer than people need to log in at AWS and come back.
const NO_RETRY: Duration = Duration::from_secs(2);
/// For how long the database called like a role is taken not to exist, after the server has said so.
/// Each look costs one more login, so a pool that opens its connections at once makes one; and a
/// database that is created meanwhile is found this soon.
const MISSING_STANDS: Duration = Duration::from_secs(10);

/// How the next login begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Way {
    pub(in crate::postgres) negotiation: Negotiation,
    /// The token goes out together with the StartupMessage.
    pub(in crate::postgres) early_token: bool,
}

/// What is known of the server that a target's name leads to. An alias may lead to another one
/// tomorrow, of which nothing is known, and what logins find out that are still under way is about
/// the old one.
#[derive(Default)]
pub(in crate::postgres) struct Memory(Mutex<(String, Arc<Known>)>);

impl Memory {
    /// What is known of the server at `endpoint`.
    pub(in crate::postgres) fn of(&self, endpoint: &Endpoint) -> Arc<Known> {
        // A panic cannot leave half of an assignment.
        let mut server = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if server.0 != endpoint.host {
            *server = (endpoint.host.clone(), Arc::new(Known::new(endpoint.kind())));
        }
        Arc::clone(&server.1)
    }
}

/// What is known of one server.
pub(in crate::postgres) struct Known {
    kind: EndpointKind,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    direct: DirectTls,
    /// The roles whom the server has asked for a clear-text password, and let in with it.
    clear_text: HashSet<String>,
    /// When a fresh token of a role was refused.
    refused: HashMap<String, Instant>,
    /// The roles that have no database called like them, and when the server last said so.
    without_database: HashMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
enum DirectTls {
    #[default]
    Unknown,
    Taken,
    /// It did not work the last time, which may have had other reasons.
    Failed,
    /// It did not work, and an SSLRequest did.
    Refused {
        at: Instant,
    },
}

impl Default for Known {
    fn default() -> Self {
        Self::new(EndpointKind::Other)
    }
}

impl Known {
    fn new(kind: EndpointKind) -> Self {
        Self {
            kind,
            state: Mutex::default(),
        }
    }

    /// The way to log in `role` that takes the fewest round trips.
    pub(in crate::postgres) fn way(&self, role: &str) -> Way {
        Way {
            negotiation: self.negotiation(),
            early_token: self.state().clear_text.contains(role),
        }
    }

    /// How TLS begins.
    pub(in crate::postgres) fn negotiation(&self) -> Negotiation {
        let state = self.state().direct;
        let direct = match self.kind {
            // It tells the version of the database behind it, and knows less itself.
            EndpointKind::Proxy => false,
            // Aurora DSQL User Guide: sslnegotiation=direct is supported and recommended.
            EndpointKind::Dsql => !state.stands_refused(),
            _ => matches!(state, DirectTls::Taken | DirectTls::Failed),
        };
        match direct {
            true => Negotiation::Direct,
            false => Negotiation::SslRequest,
        }
    }

    /// A server of this version answered.
    pub(in crate::postgres) fn saw_version(&self, major: u32) {
        let mut state = self.state();
        if major >= DIRECT_TLS_SINCE && !state.direct.stands_refused() {
            state.direct = DirectTls::Taken;
        }
    }

    /// Direct TLS did not work.
    pub(in crate::postgres) fn direct_failed(&self) {
        self.state().direct = DirectTls::Failed;
    }

    /// There was no time left to begin in another way, if this one was the reason.
    pub(in crate::postgres) fn time_ran_out(&self, negotiation: Negotiation) {
        if negotiation == Negotiation::Direct {
            self.state().direct = DirectTls::Refused { at: Instant::now() };
        }
    }

    /// TLS stands, and began like this.
    pub(in crate::postgres) fn secured(&self, negotiation: Negotiation) {
        let mut state = self.state();
        if matches!(state.direct, DirectTls::Failed) {
            state.direct = match negotiation {
                Negotiation::Direct => DirectTls::Taken,
                Negotiation::SslRequest => DirectTls::Refused { at: Instant::now() },
            };
        }
    }

    /// The server has asked for this role's clear-text password, and taken it.
    pub(in crate::postgres) fn took_clear_text(&self, role: &str) {
        let mut state = self.state();
        state.refused.remove(role);
        if state.clear_text.len() >= MOST_ROLES {
            state.clear_text.clear();
        }
        state.clear_text.insert(role.to_owned());
    }

    /// The server wants something else from this role now, or may.
    pub(in crate::postgres) fn forget(&self, role: &str) {
        self.state().clear_text.remove(role);
    }

    /// The server has refused a token of this role that was just made.
    pub(in crate::postgres) fn refused_fresh_token(&self, role: &str) {
        let mut state = self.state();
        if state.refused.len() >= MOST_ROLES {
            state.refused.clear();
        }
        state.refused.insert(role.to_owned(), Instant::now());
    }

    /// Whether another token may do better than one of this role that was refused.
    pub(in crate::postgres) fn is_worth_a_retry(&self, role: &str) -> bool {
        let state = self.state();
        let at = state.refused.get(role);
        at.is_none_or(|at| at.elapsed() >= NO_RETRY)
    }

    /// The server has no database called like this role. Returns whether that is news.
    pub(in crate::postgres) fn own_database_missing(&self, role: &str) -> bool {
        let mut state = self.state();
        if state.without_database.len() >= MOST_ROLES {
            state.without_database.clear();
        }
        let before = state
            .without_database
            .insert(role.to_owned(), Instant::now());
        before.is_none()
    }

    /// The server has a database called like this role, or may have by now.
    pub(in crate::postgres) fn own_database_may_exist(&self, role: &str) {
        self.state().without_database.remove(role);
    }

    /// Whether the server has said a moment ago that no database is called like this role.
    pub(in crate::postgres) fn lacks_own_database(&self, role: &str) -> bool {
        let state = self.state();
        let said = state.without_database.get(role);
        said.is_some_and(|at| at.elapsed() < MISSING_STANDS)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment; a panic cannot leave half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectTls {
    fn stands_refused(self) -> bool {
        matches!(self, Self::Refused { at } if at.elapsed() < REFUSAL_STANDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> Endpoint {
        format!("{host}:5432").parse().unwrap()
    }

    const CLUSTER: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

    #[tokio::test(start_paused = true)]
    async fn direct_tls_where_the_version_has_it_unless_it_was_refused() {
        let known = Known::new(EndpointKind::Cluster);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
        known.saw_version(16);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
        known.saw_version(17);
        assert_eq!(known.negotiation(), Negotiation::Direct);
        known.direct_failed();
        assert_eq!(known.negotiation(), Negotiation::Direct, "it may be a blip");
        known.secured(Negotiation::SslRequest);
        known.saw_version(17);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
        tokio::time::advance(REFUSAL_STANDS).await;
        known.saw_version(18);
        assert_eq!(known.negotiation(), Negotiation::Direct);
        known.time_ran_out(Negotiation::SslRequest);
        assert_eq!(known.negotiation(), Negotiation::Direct);
        known.time_ran_out(Negotiation::Direct);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
        tokio::time::advance(REFUSAL_STANDS).await;
        known.saw_version(18);
        // Somebody else's worked meanwhile.
        known.direct_failed();
        known.secured(Negotiation::Direct);
        known.secured(Negotiation::SslRequest);
        assert_eq!(known.negotiation(), Negotiation::Direct);
    }

    #[tokio::test(start_paused = true)]
    async fn dsql_takes_direct_tls_from_the_first_login_and_again_after_a_refusal() {
        let known = Known::new(EndpointKind::Dsql);
        assert_eq!(known.negotiation(), Negotiation::Direct);
        known.direct_failed();
        known.secured(Negotiation::SslRequest);
        // The version that it tells.
        known.saw_version(16);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
        tokio::time::advance(REFUSAL_STANDS).await;
        assert_eq!(known.negotiation(), Negotiation::Direct);
    }

    #[test]
    fn a_proxy_is_always_asked_first() {
        let known = Known::new(EndpointKind::Proxy);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
        known.saw_version(18);
        assert_eq!(known.negotiation(), Negotiation::SslRequest);
    }

    #[test]
    fn nothing_is_known_of_the_server_that_an_alias_leads_to_today() {
        let memory = Memory::default();
        let old = memory.of(&at(CLUSTER));
        old.saw_version(17);
        old.took_clear_text("app");
        let fastest = Way {
            negotiation: Negotiation::Direct,
            early_token: true,
        };
        assert_eq!(memory.of(&at(CLUSTER)).way("app"), fastest);
        let other = at("orders.cluster-xyz.eu-west-1.rds.amazonaws.com");
        let nothing = Way {
            negotiation: Negotiation::SslRequest,
            early_token: false,
        };
        assert_eq!(memory.of(&other).way("app"), nothing);
        // A login at the old one comes to its end.
        old.took_clear_text("app");
        assert_eq!(memory.of(&other).way("app"), nothing);
    }

    #[test]
    fn the_token_goes_early_to_roles_that_were_asked_for_it() {
        let known = Known::default();
        let early = |role| known.way(role).early_token;
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

    #[tokio::test(start_paused = true)]
    async fn a_role_whose_fresh_token_was_refused_is_not_tried_twice_for_a_while() {
        let known = Known::default();
        assert!(known.is_worth_a_retry("app"));
        known.refused_fresh_token("app");
        assert!(!known.is_worth_a_retry("app") && known.is_worth_a_retry("other"));
        tokio::time::advance(NO_RETRY).await;
        assert!(known.is_worth_a_retry("app"));
        known.refused_fresh_token("app");
        known.took_clear_text("app");
        assert!(known.is_worth_a_retry("app"));
        for n in 0..=MOST_ROLES {
            known.refused_fresh_token(&n.to_string());
        }
        assert!(known.state().refused.len() <= MOST_ROLES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_database_is_looked_for_again_after_a_while() {
        let known = Known::default();
        assert!(!known.lacks_own_database("app"));
        assert!(known.own_database_missing("app"), "news");
        assert!(known.lacks_own_database("app") && !known.lacks_own_database("other"));
        tokio::time::advance(MISSING_STANDS).await;
        assert!(!known.lacks_own_database("app"));
        assert!(!known.own_database_missing("app"), "logged once per role");
        assert!(known.lacks_own_database("app"));
        known.own_database_may_exist("app");
        assert!(!known.lacks_own_database("app"));
        assert!(known.own_database_missing("app"), "news again");
        for n in 0..=MOST_ROLES {
            known.own_database_missing(&n.to_string());
        }
        assert!(known.state().without_database.len() <= MOST_ROLES);
    }
}
