//! How a target stands, and what is counted of a connection, for those who look.

use std::sync::Arc;

use crate::config::{Auth, Target};
use crate::observe::{LiveConnection, Newcomer, Stage, View, Watched};
use crate::postgres::connection::Session;
use crate::postgres::route::Routed;
use crate::postgres::target::context::Rooms;
use crate::postgres::target::slot::Slot;
use crate::postgres::timings::Timings;
use crate::tunnel::{Readiness, TunnelStats};

impl Watched for Rooms {
    fn view(&self) -> View {
        View {
            target: Arc::clone(&self.target),
            readiness: self.transport.readiness(),
            failed: self.last_failure.get().map(|failure| failure.id),
            tunnel: self.transport.stats(),
            found: true,
        }
    }
}

impl Watched for Slot {
    fn view(&self) -> View {
        match self.ready() {
            Some(rooms) => rooms.view(),
            None => View {
                target: Arc::new(self.provisional()),
                readiness: Readiness::Starting,
                failed: self.lookup_failure().map(|failure| failure.id),
                tunnel: TunnelStats::default(),
                found: false,
            },
        }
    }
}

impl Session {
    /// Puts the connection into the list of those that there are.
    pub(in crate::postgres) fn admit(&self, routed: &Routed) -> LiveConnection {
        let program = routed.startup.get("application_name");
        self.proxy.observed.admit(Newcomer {
            target: &routed.target.name,
            user: &routed.user,
            database: routed.shown_database(),
            program: program.unwrap_or_default(),
            peer: &self.arrival.to_string(),
            since: self.accepted,
        })
    }

    /// The login has worked.
    pub(in crate::postgres) fn count_login(&self, target: &Target, total_ms: f64) {
        let Timings {
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
        // A login with the client's own password wants no token.
        let with_token = target.login.auth == Auth::Iam;
        let wanted = stages
            .into_iter()
            .filter(|(stage, _)| with_token || *stage != Stage::Token);
        let seconds: Vec<_> = wanted.map(|(stage, ms)| (stage, ms / 1000.0)).collect();
        self.proxy.observed.logged_in(&target.name, &seconds);
    }
}
