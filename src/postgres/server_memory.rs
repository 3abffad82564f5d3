//! Facts about a target's server from earlier logins, which save round trips on the next one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pg_handshake::Negotiation;
use tokio::time::Instant;

use crate::config::{Endpoint, EndpointKind};

/// First server version that accepts direct TLS, a ClientHello without an SSLRequest (PostgreSQL 17
/// release notes, "sslnegotiation").
const DIRECT_TLS_SINCE: u32 = 17;
/// Time before direct TLS is tried again on a server that refused it. A proxy in front of the
/// database reports the database's version and may not support that version's features. Long enough
/// to cost nothing, short enough to notice an upgrade.
const REFUSAL_STANDS: Duration = Duration::from_secs(60 * 60);
/// Maximum number of roles to remember, because clients choose the role. Starting over costs one
/// round trip per role.
const MOST_ROLES: usize = 256;
/// Time without retries for a role whose fresh token was rejected. Otherwise a pool that connects
/// ten times a second would send twenty requests a second to IAM, each with reloaded credentials.
/// Shorter than the time that a user needs to log in to AWS.
const NO_RETRY: Duration = Duration::from_secs(2);
/// Time for which a database named after a role is assumed missing, once the server has said so.
/// Each check costs one more login, so a pool that opens its connections at once makes one. A
/// database that is created meanwhile is found after this time.
const MISSING_STANDS: Duration = Duration::from_secs(10);

/// Parameters of the next login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginStrategy {
    pub(in crate::postgres) negotiation: Negotiation,
    /// True if the token is sent together with the StartupMessage.
    pub(in crate::postgres) early_token: bool,
}

/// Facts about the server that a target's name leads to. An alias may lead to another server
/// tomorrow; then the facts start empty, and logins still in progress update those of the old one.
#[derive(Default)]
pub struct ServerMemory(Mutex<CurrentServer>);

/// The server that the name leads to now.
#[derive(Default)]
struct CurrentServer {
    host: String,
    capabilities: Arc<ServerCapabilities>,
}

impl ServerMemory {
    /// Returns the facts about the server at `endpoint`.
    pub(in crate::postgres) fn of(&self, endpoint: &Endpoint) -> Arc<ServerCapabilities> {
        // A panic cannot interrupt an assignment.
        let mut server = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if server.host != endpoint.host {
            *server = CurrentServer {
                host: endpoint.host.clone(),
                capabilities: Arc::new(ServerCapabilities::new(endpoint.kind())),
            };
        }
        Arc::clone(&server.capabilities)
    }
}

/// Facts about one server.
pub struct ServerCapabilities {
    kind: EndpointKind,
    state: Mutex<LearnedFacts>,
}

#[derive(Default)]
struct LearnedFacts {
    direct: DirectTls,
    /// Roles that the server has asked for a clear-text password and accepted.
    clear_text: HashSet<String>,
    /// Time when a fresh token of a role was rejected.
    refused: HashMap<String, Instant>,
    /// Roles without a database of the same name, and the time when the server last said so.
    without_database: HashMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
enum DirectTls {
    #[default]
    Unknown,
    Taken,
    /// The last attempt failed, possibly for other reasons.
    Failed,
    /// It failed, and an SSLRequest succeeded.
    Refused {
        at: Instant,
    },
}

impl Default for ServerCapabilities {
    fn default() -> Self {
        Self::new(EndpointKind::Other)
    }
}

impl ServerCapabilities {
    fn new(kind: EndpointKind) -> Self {
        Self {
            kind,
            state: Mutex::default(),
        }
    }

    /// Returns the kind of the endpoint.
    pub(in crate::postgres) fn kind(&self) -> EndpointKind {
        self.kind
    }

    /// Returns the parameters for a login of `role` with the fewest round trips.
    pub(in crate::postgres) fn login_strategy(&self, role: &str) -> LoginStrategy {
        LoginStrategy {
            negotiation: self.negotiation(),
            early_token: self.state().clear_text.contains(role),
        }
    }

    /// Returns how TLS begins.
    pub(in crate::postgres) fn negotiation(&self) -> Negotiation {
        let state = self.state().direct;
        let direct = match self.kind {
            // It reports the version of the database behind it, but does not support direct TLS
            // itself.
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

    /// Records the version of a server.
    pub(in crate::postgres) fn saw_version(&self, major: u32) {
        let mut state = self.state();
        if major >= DIRECT_TLS_SINCE && !state.direct.stands_refused() {
            state.direct = DirectTls::Taken;
        }
    }

    /// Records that direct TLS failed.
    pub(in crate::postgres) fn direct_failed(&self) {
        self.state().direct = DirectTls::Failed;
    }

    /// Records that no time was left to try the other negotiation, in case this one was the cause.
    pub(in crate::postgres) fn time_ran_out(&self, negotiation: Negotiation) {
        if negotiation == Negotiation::Direct {
            self.state().direct = DirectTls::Refused { at: Instant::now() };
        }
    }

    /// Records that TLS was established with this negotiation.
    pub(in crate::postgres) fn secured(&self, negotiation: Negotiation) {
        let mut state = self.state();
        if matches!(state.direct, DirectTls::Failed) {
            state.direct = match negotiation {
                Negotiation::Direct => DirectTls::Taken,
                Negotiation::SslRequest => DirectTls::Refused { at: Instant::now() },
            };
        }
    }

    /// Records that the server requested this role's clear-text password, and accepted it.
    pub(in crate::postgres) fn took_clear_text(&self, role: &str) {
        let mut state = self.state();
        state.refused.remove(role);
        if state.clear_text.len() >= MOST_ROLES {
            state.clear_text.clear();
        }
        state.clear_text.insert(role.to_owned());
    }

    /// Forgets the authentication method of this role, because it has changed, or may have.
    pub(in crate::postgres) fn forget(&self, role: &str) {
        self.state().clear_text.remove(role);
    }

    /// Records that the server rejected a fresh token of this role.
    pub(in crate::postgres) fn refused_fresh_token(&self, role: &str) {
        let mut state = self.state();
        if state.refused.len() >= MOST_ROLES {
            state.refused.clear();
        }
        state.refused.insert(role.to_owned(), Instant::now());
    }

    /// Returns whether a retry with another token of this role is useful.
    pub(in crate::postgres) fn is_worth_a_retry(&self, role: &str) -> bool {
        let state = self.state();
        let at = state.refused.get(role);
        at.is_none_or(|at| at.elapsed() >= NO_RETRY)
    }

    /// Records that the server has no database named after this role. Returns whether that is new.
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

    /// Records that a database named after this role exists, or may exist by now.
    pub(in crate::postgres) fn own_database_may_exist(&self, role: &str) {
        self.state().without_database.remove(role);
    }

    /// Returns whether the server has recently said that no database is named after this role.
    pub(in crate::postgres) fn lacks_own_database(&self, role: &str) -> bool {
        let state = self.state();
        let said = state.without_database.get(role);
        said.is_some_and(|at| at.elapsed() < MISSING_STANDS)
    }

    fn state(&self) -> MutexGuard<'_, LearnedFacts> {
        // Every change is one assignment, which a panic cannot interrupt.
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
        let capabilities = ServerCapabilities::new(EndpointKind::Cluster);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
        capabilities.saw_version(16);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
        capabilities.saw_version(17);
        assert_eq!(capabilities.negotiation(), Negotiation::Direct);
        capabilities.direct_failed();
        assert_eq!(
            capabilities.negotiation(),
            Negotiation::Direct,
            "it may be a blip"
        );
        capabilities.secured(Negotiation::SslRequest);
        capabilities.saw_version(17);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
        tokio::time::advance(REFUSAL_STANDS).await;
        capabilities.saw_version(18);
        assert_eq!(capabilities.negotiation(), Negotiation::Direct);
        capabilities.time_ran_out(Negotiation::SslRequest);
        assert_eq!(capabilities.negotiation(), Negotiation::Direct);
        capabilities.time_ran_out(Negotiation::Direct);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
        tokio::time::advance(REFUSAL_STANDS).await;
        capabilities.saw_version(18);
        // Another login succeeded meanwhile.
        capabilities.direct_failed();
        capabilities.secured(Negotiation::Direct);
        capabilities.secured(Negotiation::SslRequest);
        assert_eq!(capabilities.negotiation(), Negotiation::Direct);
    }

    #[tokio::test(start_paused = true)]
    async fn dsql_takes_direct_tls_from_the_first_login_and_again_after_a_refusal() {
        let capabilities = ServerCapabilities::new(EndpointKind::Dsql);
        assert_eq!(capabilities.negotiation(), Negotiation::Direct);
        capabilities.direct_failed();
        capabilities.secured(Negotiation::SslRequest);
        // The version that the server reports.
        capabilities.saw_version(16);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
        tokio::time::advance(REFUSAL_STANDS).await;
        assert_eq!(capabilities.negotiation(), Negotiation::Direct);
    }

    #[test]
    fn a_proxy_is_always_asked_first() {
        let capabilities = ServerCapabilities::new(EndpointKind::Proxy);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
        capabilities.saw_version(18);
        assert_eq!(capabilities.negotiation(), Negotiation::SslRequest);
    }

    #[test]
    fn nothing_is_known_of_the_server_that_an_alias_leads_to_today() {
        let memory = ServerMemory::default();
        let old = memory.of(&at(CLUSTER));
        old.saw_version(17);
        old.took_clear_text("app");
        let fastest = LoginStrategy {
            negotiation: Negotiation::Direct,
            early_token: true,
        };
        assert_eq!(memory.of(&at(CLUSTER)).login_strategy("app"), fastest);
        let other = at("orders.cluster-xyz.eu-west-1.rds.amazonaws.com");
        let nothing = LoginStrategy {
            negotiation: Negotiation::SslRequest,
            early_token: false,
        };
        assert_eq!(memory.of(&other).login_strategy("app"), nothing);
        // A login at the old server completes.
        old.took_clear_text("app");
        assert_eq!(memory.of(&other).login_strategy("app"), nothing);
    }

    #[test]
    fn the_token_goes_early_to_roles_that_were_asked_for_it() {
        let capabilities = ServerCapabilities::default();
        let early = |role| capabilities.login_strategy(role).early_token;
        assert!(!early("app"));
        capabilities.took_clear_text("app");
        assert!(early("app") && !early("other"));
        capabilities.forget("app");
        assert!(!early("app"));
        for n in 0..=MOST_ROLES {
            capabilities.took_clear_text(&n.to_string());
        }
        assert!(capabilities.state().clear_text.len() <= MOST_ROLES);
        assert!(early(&MOST_ROLES.to_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_whose_fresh_token_was_refused_is_not_tried_twice_for_a_while() {
        let capabilities = ServerCapabilities::default();
        assert!(capabilities.is_worth_a_retry("app"));
        capabilities.refused_fresh_token("app");
        assert!(!capabilities.is_worth_a_retry("app") && capabilities.is_worth_a_retry("other"));
        tokio::time::advance(NO_RETRY).await;
        assert!(capabilities.is_worth_a_retry("app"));
        capabilities.refused_fresh_token("app");
        capabilities.took_clear_text("app");
        assert!(capabilities.is_worth_a_retry("app"));
        for n in 0..=MOST_ROLES {
            capabilities.refused_fresh_token(&n.to_string());
        }
        assert!(capabilities.state().refused.len() <= MOST_ROLES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_database_is_looked_for_again_after_a_while() {
        let capabilities = ServerCapabilities::default();
        assert!(!capabilities.lacks_own_database("app"));
        assert!(capabilities.own_database_missing("app"), "news");
        assert!(
            capabilities.lacks_own_database("app") && !capabilities.lacks_own_database("other")
        );
        tokio::time::advance(MISSING_STANDS).await;
        assert!(!capabilities.lacks_own_database("app"));
        assert!(
            !capabilities.own_database_missing("app"),
            "logged once per role"
        );
        assert!(capabilities.lacks_own_database("app"));
        capabilities.own_database_may_exist("app");
        assert!(!capabilities.lacks_own_database("app"));
        assert!(capabilities.own_database_missing("app"), "news again");
        for n in 0..=MOST_ROLES {
            capabilities.own_database_missing(&n.to_string());
        }
        assert!(capabilities.state().without_database.len() <= MOST_ROLES);
    }
}
