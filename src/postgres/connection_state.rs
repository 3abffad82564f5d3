//! State of one client's connection after its startup.

use std::sync::Arc;

use tokio::time::Instant;

use super::shared::Proxy;
use super::timings::StageTimings;
use super::waiting::ClientWait;
use crate::admission::Arrival;
use crate::config::{Auth, ResolvedTarget};
use crate::observe::{LiveConnection, NewConnection, Stage};
use crate::postgres::route::RoutedStartup;
use crate::report::TokenEvidence;
use crate::serving::state::ConnectionStop;

/// A connection that has completed its startup.
pub(in crate::postgres) struct ClientConnection {
    pub(in crate::postgres) arrival: Arrival,
    /// Ends the connection; its target is known after routing.
    pub(in crate::postgres) stop: ConnectionStop,
    /// The client belongs to pgiam's user.
    pub(in crate::postgres) is_owners: bool,
    pub(in crate::postgres) proxy: Arc<Proxy>,
    pub(in crate::postgres) accepted: Instant,
    pub(in crate::postgres) timings: StageTimings,
    /// The step that the client waits for.
    pub(in crate::postgres) waiting: Arc<ClientWait>,
    /// The client has authenticated at pgiam.
    pub(in crate::postgres) client_asked: bool,
    /// Facts about the last token.
    pub(in crate::postgres) evidence: Option<TokenEvidence>,
    /// The target's default database, and the error that prevented its use in place of the named
    /// one.
    pub(in crate::postgres) no_default: Option<String>,
}

impl ClientConnection {
    /// Adds the connection to the list of open connections.
    pub(in crate::postgres) fn admit(&self, routed: &RoutedStartup) -> LiveConnection {
        let program = routed.startup.get("application_name");
        self.proxy.serving.observed.admit(NewConnection {
            target: &routed.target.name,
            user: &routed.user,
            database: routed.shown_database(),
            program: program.unwrap_or_default(),
            peer: &self.arrival.to_string(),
            since: self.accepted,
        })
    }

    /// Counts a successful login.
    pub(in crate::postgres) fn count_login(&self, target: &ResolvedTarget, total_ms: f64) {
        let StageTimings {
            startup_ms,
            token_ms,
            tunnel_ms,
            tls_ms,
            login_ms,
        } = self.timings;
        let stages = [
            (Stage::Startup, startup_ms),
            (Stage::Token, token_ms),
            (Stage::Tunnel, tunnel_ms),
            (Stage::Tls, tls_ms),
            (Stage::Login, login_ms),
            (Stage::Total, total_ms),
        ];
        // A login with the client's own password uses no token.
        let with_token = target.settings.login.auth == Auth::Iam;
        let wanted = stages
            .into_iter()
            .filter(|(stage, _)| with_token || *stage != Stage::Token);
        let seconds: Vec<_> = wanted.map(|(stage, ms)| (stage, ms / 1000.0)).collect();
        self.proxy
            .serving
            .observed
            .logged_in(&target.name, &seconds);
    }
}
