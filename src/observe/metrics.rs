//! Metrics. `docs/metrics.md` lists them.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::live::Traffic;
use super::{Observed, ReadyCounts, TargetStatus};
use crate::base::names::TargetName;
use crate::tunnel::{RelayState, SessionState, TunnelTotals};

/// Bucket limits of the stages' histograms in seconds: from a cached token to the longest wait of a
/// client.
const SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// A stage of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Until the client's startup packet.
    Startup,
    /// Getting a token.
    Token,
    /// Opening a stream to the database.
    Tunnel,
    /// TLS with the database.
    Tls,
    /// Login at the database.
    Login,
    /// All stages.
    Total,
}

impl EncodeLabelValue for Stage {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let name = match self {
            Self::Startup => "startup",
            Self::Token => "token",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Total => "total",
        };
        name.encode(encoder)
    }
}

/// Source of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// Created for an earlier connection.
    Cache,
    /// Newly created.
    Fresh,
    /// No token was available.
    Failed,
}

impl EncodeLabelValue for TokenSource {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let name = match self {
            Self::Cache => "cache",
            Self::Fresh => "fresh",
            Self::Failed => "failed",
        };
        name.encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTarget {
    target: String,
}

/// Labels: a target, and one more with a small set of values.
macro_rules! labels {
    ($name:ident, $label:ident: $type:ty) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            target: String,
            $label: $type,
        }
        impl $name {
            fn new(target: &str, $label: $type) -> Self {
                let target = target.to_string();
                Self { target, $label }
            }
        }
    };
}
labels!(ByStage, stage: Stage);
labels!(BySource, source: TokenSource);
labels!(ById, id: &'static str);
labels!(ByDirection, direction: &'static str);
labels!(ByState, state: &'static str);
labels!(ByResult, result: &'static str);

const UP: &str = "up";
const DOWN: &str = "down";

type Histograms = Family<ByStage, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// Counters of events.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    logins: Family<ByTarget, Counter>,
    stages: Histograms,
    transferred: Family<ByDirection, Counter>,
    tokens: Family<BySource, Counter>,
    errors: Family<ById, Counter>,
}

impl Metrics {
    pub(super) fn new(began: SystemTime) -> Self {
        let mut registry = Registry::with_prefix("pgiam");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the running program", version);
        let start = Seconds::default();
        let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        start.set(since.as_secs_f64());
        let help = "Start time of the program since 1970-01-01 UTC";
        registry.register_with_unit("start_time", help, Unit::Seconds, start);

        let logins = Family::default();
        let help = "Connections that completed their login at the database";
        registry.register("logins", help, logins.clone());
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let stages = Family::new_with_constructor(histogram);
        let help = "Duration of successful logins, by stage; token and tunnel run concurrently";
        registry.register_with_unit("login_duration", help, Unit::Seconds, stages.clone());
        let transferred = Family::default();
        let help = "Bytes of client connections after the login; up is towards the database";
        registry.register_with_unit("transferred", help, Unit::Bytes, transferred.clone());
        let tokens = Family::default();
        let help = "Requested login tokens, by source";
        registry.register("token_fetches", help, tokens.clone());
        let errors = Family::default();
        let help = "Connections that failed or were lost, by the identifier in docs/errors.md";
        registry.register("errors", help, errors.clone());
        Self {
            registry,
            logins,
            stages,
            transferred,
            tokens,
            errors,
        }
    }

    /// Creates the counters of a target.
    pub(super) fn begin(&self, target: &TargetName) {
        drop(self.traffic(target));
        let target = target.to_string();
        drop(self.logins.get_or_create(&ByTarget { target }));
    }

    pub(super) fn traffic(&self, target: &TargetName) -> Traffic {
        let [up, down] = [UP, DOWN].map(|direction| {
            let labels = ByDirection::new(target, direction);
            self.transferred.get_or_create_owned(&labels)
        });
        Traffic::new(up, down)
    }

    pub(super) fn logged_in(&self, target: &TargetName, stages: &[(Stage, f64)]) {
        for (stage, seconds) in stages {
            let labels = ByStage::new(target, *stage);
            self.stages.get_or_create(&labels).observe(*seconds);
        }
        let target = target.to_string();
        self.logins.get_or_create(&ByTarget { target }).inc();
    }

    /// Returns the number of logins of a target.
    pub(super) fn logins(&self, target: &TargetName) -> u64 {
        let target = target.to_string();
        self.logins.get(&ByTarget { target }).map_or(0, |n| n.get())
    }

    /// Returns the client bytes of a target, up and down.
    pub(super) fn transferred(&self, target: &TargetName) -> (u64, u64) {
        let of = |direction| {
            let labels = ByDirection::new(target, direction);
            self.transferred.get(&labels).map_or(0, |n| n.get())
        };
        (of(UP), of(DOWN))
    }

    pub(super) fn token(&self, target: &TargetName, source: TokenSource) {
        let labels = BySource::new(target, source);
        self.tokens.get_or_create(&labels).inc();
    }

    pub(super) fn failed(&self, target: Option<&TargetName>, id: &'static str) {
        let target = target.map(TargetName::as_str).unwrap_or_default();
        self.errors.get_or_create(&ById::new(target, id)).inc();
    }

    /// Returns all metrics, including the current gauges.
    pub(super) fn exposition(&self, observed: &Observed) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        let mut moment = Registry::with_prefix("pgiam");
        let targets = observed.targets();
        let statuses: Vec<TargetStatus> = targets.iter().map(|t| t.source.status()).collect();
        connections(&mut moment, observed, &statuses);
        kept_ready(&mut moment, &statuses);
        tunnels(&mut moment, &statuses);
        encode_registry(&mut text, &moment)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Registers the gauges of the connections.
fn connections(registry: &mut Registry, observed: &Observed, statuses: &[TargetStatus]) {
    let open: Family<ByState, Gauge> = Family::default();
    let ready: Family<ByTarget, Gauge> = Family::default();
    for status in statuses {
        let name = &status.target.name;
        for state in ["login", "open"] {
            drop(open.get_or_create(&ByState::new(name, state)));
        }
        let target = name.to_string();
        let value = i64::from(status.is_ready());
        ready.get_or_create(&ByTarget { target }).set(value);
    }
    for connection in observed.connections() {
        let state = if connection.is_open() {
            "open"
        } else {
            "login"
        };
        let labels = ByState::new(&connection.target, state);
        open.get_or_create(&labels).inc();
    }
    let help = "Open connections, by state";
    registry.register("connections", help, open);
    let limit: Gauge = Gauge::default();
    limit.set(i64::try_from(observed.limit()).unwrap_or(i64::MAX));
    let help = "Maximum number of concurrent connections (max_connections)";
    registry.register("connections_limit", help, limit);
    let help = "Whether the target is reachable, as last observed";
    registry.register("target_ready", help, ready);
}

/// Registers the metrics of the connections that are kept ready.
fn kept_ready(registry: &mut Registry, statuses: &[TargetStatus]) {
    let ready: Family<ByTarget, Gauge> = Family::default();
    let logins: Family<ByResult, Counter> = Family::default();
    for status in statuses {
        let name = &status.target.name;
        let target = name.to_string();
        let gauge = ready.get_or_create(&ByTarget { target });
        gauge.set(i64::try_from(status.kept.ready).unwrap_or(i64::MAX));
        let ReadyCounts {
            hits,
            misses,
            stale,
            ..
        } = status.kept;
        for (result, count) in [("hit", hits), ("miss", misses), ("stale", stale)] {
            let labels = ByResult::new(name, result);
            logins.get_or_create(&labels).inc_by(count);
        }
    }
    let help = "Connections to the database that are kept ready for later clients";
    registry.register("ready_connections", help, ready);
    let help = "Logins that took a ready connection (hit), found none (miss), or got no answer in one (stale)";
    registry.register("ready_connection_logins", help, logins);
}

/// Registers the current metrics of the tunnels.
fn tunnels(registry: &mut Registry, statuses: &[TargetStatus]) {
    let sessions: Family<ByState, Gauge> = Family::default();
    let streams: Family<ByTarget, Gauge> = Family::default();
    let relays: Family<ByTarget, Gauge> = Family::default();
    let trip: Family<ByTarget, Seconds> = Family::default();
    let bytes: Family<ByDirection, Counter> = Family::default();
    let counters: [Family<ByTarget, Counter>; 5] = std::array::from_fn(|_| Family::default());
    for status in statuses {
        let name = &status.target.name;
        let by_target = ByTarget {
            target: name.to_string(),
        };
        for state in SessionState::ALL {
            let all = status.tunnel.sessions.iter();
            let count = all.filter(|session| session.state == state).count();
            let labels = ByState::new(name, state.as_str());
            let gauge = sessions.get_or_create(&labels);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let count: usize = status.tunnel.sessions.iter().map(|s| s.streams).sum();
        let gauge = streams.get_or_create(&by_target);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        let trips = status.tunnel.sessions.iter().filter_map(|s| s.round_trip);
        if let Some(shortest) = trips.min() {
            trip.get_or_create(&by_target).set(shortest.as_secs_f64());
        }
        if let Some(relay) = &status.tunnel.relay {
            let carriers = match relay.state {
                RelayState::InUse { carriers, .. } => carriers,
                _ => 0,
            };
            let gauge = relays.get_or_create(&by_target);
            gauge.set(i64::try_from(carriers).unwrap_or(i64::MAX));
        }
        let TunnelTotals {
            up,
            down,
            resumes,
            retransmissions,
        } = status.tunnel.totals;
        for (direction, count) in [(UP, up), (DOWN, down)] {
            let labels = ByDirection::new(name, direction);
            bytes.get_or_create(&labels).inc_by(count);
        }
        let tunnel = &status.tunnel;
        let counts = [
            tunnel.started,
            tunnel.failed,
            tunnel.ended,
            resumes,
            retransmissions,
        ];
        for (counter, count) in counters.iter().zip(counts) {
            counter.get_or_create(&by_target).inc_by(count);
        }
    }
    registry.register(
        "tunnel_sessions",
        "Session Manager sessions, by state",
        sessions,
    );
    registry.register(
        "tunnel_streams",
        "Open mux streams in all sessions of the target",
        streams,
    );
    let help = "Sessions to the relay that connections are spread over; 0 if it is not used";
    registry.register("tunnel_relay_sessions", help, relays);
    let help = "Smoothed round trip to the bastion's agent; the shortest of all sessions";
    registry.register_with_unit("tunnel_round_trip", help, Unit::Seconds, trip);
    let help = "Bytes in all sessions, including TLS and logins";
    registry.register_with_unit("tunnel_transferred", help, Unit::Bytes, bytes);
    let [started, failed, ended, resumes, retransmissions] = counters;
    registry.register(
        "tunnel_sessions_started",
        "Sessions that were established",
        started,
    );
    registry.register(
        "tunnel_sessions_failed",
        "Session starts that failed",
        failed,
    );
    registry.register(
        "tunnel_sessions_ended",
        "Established sessions that have ended",
        ended,
    );
    let help = "Connections to Session Manager that were lost and resumed";
    registry.register("tunnel_resumes", help, resumes);
    let help = "Messages resent because no acknowledgement arrived in time";
    registry.register("tunnel_retransmissions", help, retransmissions);
}
