//! JSON document of `pgiam status --json`, one [`ProcessDocument`] per running pgiam. `docs/metrics.md`
//! explains it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::{Deserialize, Serialize};

use super::AdminContext;
use crate::aws::{LoadedIdentity, profile_in_effect};
use crate::config::{Auth, Bastion, Via};
use crate::observe::{
    Connection, LastError, ListedTarget, LoginTimes, Observed, ReadyCounts, RecentError,
    TargetStatus,
};
use crate::tunnel::{RelayState, RelayStats, SessionStats};

/// A running pgiam.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessDocument {
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// `serve`, `run` or `tunnel`.
    pub kind: String,
    /// `starting`, `serving` or `draining`.
    pub state: String,
    /// Start time (RFC 3339).
    pub started: String,
    /// Time since the start.
    pub uptime_seconds: f64,
    /// Path of the configuration file.
    pub config: Option<PathBuf>,
    /// Address of the status page, health endpoints and metrics.
    pub http: Option<String>,
    /// Log file, if `pgiam up` started the process.
    pub log: Option<PathBuf>,
    /// Number of open connections.
    pub open_connections: usize,
    /// Maximum number of concurrent connections.
    pub max_connections: usize,
    /// Targets, sorted by name.
    pub targets: Vec<TargetDocument>,
    /// Reasons why configured targets are not served, one each.
    pub left_out: Vec<String>,
    /// Reason why a changed configuration is not used.
    pub change_unused: Option<String>,
    /// Recent errors of all targets, newest first.
    pub recent_errors: Vec<ErrorDocument>,
}

/// A target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetDocument {
    /// Name.
    pub name: String,
    /// Local TCP port.
    pub port: u16,
    /// Local addresses of the port; none for `pgiam tunnel`.
    pub addresses: Vec<String>,
    /// `true` if the database name selects the target at this port.
    pub by_name: bool,
    /// Local Unix socket.
    pub socket: Option<PathBuf>,
    /// `host` or `db`.
    pub configured_as: String,
    /// Settings, as the keys of `pgiam.toml`. None of them is a secret.
    pub settings: serde_json::Value,
    /// AWS profile in effect; none for the default one.
    pub profile: Option<String>,
    /// AWS region, if it is configured or part of the endpoint.
    pub region: Option<String>,
    /// Database that replaces the client's default one.
    pub database: Option<String>,
    /// Database endpoint, `HOST:PORT`.
    pub endpoint: String,
    /// `ssm` or `direct`.
    pub via: String,
    /// Bastion of the tunnel, as configured.
    pub bastion: Option<String>,
    /// `iam` or `passthrough`.
    pub auth: String,
    /// Role that replaces the client's default one.
    pub user: Option<String>,
    /// `ready`, `idle`, `looking`, `starting`, `interrupted`, `failing` or `stopped`.
    pub state: String,
    /// `true` if a new connection is expected to work.
    pub ready: bool,
    /// Identifier of the error that would prevent it, as in `docs/errors.md`.
    pub failing: Option<String>,
    /// Time since the owner stopped the target; none if it is served.
    pub stopped_seconds: Option<f64>,
    /// AWS identity of the last login.
    pub identity: Option<IdentityDocument>,
    /// `connection_limit`.
    pub connection_limit: Option<usize>,
    /// Maximum number of Session Manager sessions; none without a tunnel.
    pub max_sessions: Option<usize>,
    /// Round trip to the bastion's agent in the fastest session; none before the first one.
    pub round_trip_seconds: Option<f64>,
    /// Client bytes sent to the database, including those of connections that have ended.
    pub bytes_up: u64,
    /// Client bytes received from the database, including those of connections that have ended.
    pub bytes_down: u64,
    /// Logins at the database.
    pub logins: LoginsDocument,
    /// Connections to the database that are kept ready for later clients.
    pub kept_ready: KeptReadyDocument,
    /// Last failure.
    pub last_error: Option<FailureDocument>,
    /// Relay on the bastion; none if none is configured.
    pub relay: Option<RelayDocument>,
    /// Session Manager sessions.
    pub sessions: Vec<SessionDocument>,
    /// Connections, oldest first.
    pub connections: Vec<ConnectionDocument>,
}

/// An AWS identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityDocument {
    /// Source of the credentials, such as `profile dev (SSO session corp)`.
    pub source: String,
    /// Reason for this source: the variable, or the file and the line.
    pub reason: String,
    /// Expiry of the credentials (RFC 3339); none for keys without one.
    pub expires_at: Option<String>,
    /// Time until the expiry; 0 if they have expired.
    pub expires_in_seconds: Option<f64>,
}

/// Logins of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginsDocument {
    /// Logins since the start.
    pub count: u64,
    /// Logins that the percentiles are computed from: of the last 15 minutes, at most 512.
    pub recent: usize,
    /// Median duration of these logins.
    pub p50_seconds: Option<f64>,
    /// 99th percentile of their duration.
    pub p99_seconds: Option<f64>,
}

/// Connections to a database that are kept ready for later clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptReadyDocument {
    /// Connections that are ready now.
    pub count: usize,
    /// Their maximum number, `ready` of the target.
    pub limit: usize,
    /// Logins that took one.
    pub hits: u64,
    /// Logins that found none, although the target was in use.
    pub misses: u64,
    /// Logins that took one that gave no answer, and were repeated.
    pub stale: u64,
}

/// A recent error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDocument {
    /// The target; none if the connection ended before its target was known.
    pub target: Option<String>,
    /// The error. Its count is that of this error of this target.
    #[serde(flatten)]
    pub failure: FailureDocument,
}

/// A failure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureDocument {
    /// Stable identifier of the cause, as in `docs/errors.md`.
    pub id: String,
    /// SQLSTATE sent to the client, if any.
    pub sqlstate: Option<String>,
    /// Description of the failure.
    pub message: String,
    /// Message of the other side.
    pub detail: Option<String>,
    /// Remedy.
    pub hint: Option<String>,
    /// Time of the failure (RFC 3339).
    pub at: String,
    /// Time since the failure.
    pub age_seconds: f64,
    /// Number of consecutive failures of the same kind.
    pub count: u64,
}

/// The relay of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayDocument {
    /// Its port on the bastion.
    pub port: u16,
    /// `untried`, `trying`, `in use`, `absent` or `failed`.
    pub state: String,
    /// Bastion of a relay in use.
    pub bastion: Option<String>,
    /// Number of sessions that the connections are spread over.
    pub carriers: usize,
    /// Reason why it is not used.
    pub reason: Option<String>,
    /// Remedy.
    pub hint: Option<String>,
}

impl RelayDocument {
    fn of(stats: &RelayStats) -> Self {
        let document = Self {
            port: stats.port,
            state: stats.state.as_str().to_owned(),
            ..Self::default()
        };
        match &stats.state {
            RelayState::InUse { bastion, carriers } => Self {
                bastion: Some(bastion.to_string()),
                carriers: *carriers,
                ..document
            },
            RelayState::Absent(absence) => Self {
                reason: Some(absence.to_string()),
                hint: Some(absence.remedy().to_owned()),
                ..document
            },
            RelayState::Untried | RelayState::Trying | RelayState::Failed => document,
        }
    }
}

/// A Session Manager session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionDocument {
    /// AWS session id; none while the session is starting.
    pub id: Option<String>,
    /// Managed node; none while the session is starting.
    pub bastion: Option<String>,
    /// `starting`, `up`, `interrupted` or `leaving`.
    pub state: String,
    /// `true` if it leads to the relay; its one stream then carries parts of all connections.
    pub to_relay: bool,
    /// Number of streams: one per connection.
    pub streams: usize,
    /// Number of further streams that are kept ready for later connections.
    pub ready: usize,
    /// Number of streams that are transferring data.
    pub busy: usize,
    /// Bytes sent to the bastion.
    pub bytes_up: u64,
    /// Bytes received from the bastion.
    pub bytes_down: u64,
    /// Time since the session began to start.
    pub age_seconds: f64,
    /// Number of lost connections that were replaced.
    pub resumes: u64,
    /// Number of messages sent again.
    pub retransmissions: u64,
    /// Smoothed round-trip time to the agent.
    pub round_trip_seconds: Option<f64>,
}

/// A client's connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionDocument {
    /// Unique number of the connection in this process.
    pub id: u64,
    /// `login` or `open`.
    pub state: String,
    /// Name of the client program (`application_name`).
    pub program: String,
    /// Database role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Origin: an address, or `[local]` for the Unix socket.
    pub peer: String,
    /// Bytes sent to the database since the login.
    pub bytes_up: u64,
    /// Bytes received from the database since the login.
    pub bytes_down: u64,
    /// Time since the connection arrived.
    pub age_seconds: f64,
}

/// Returns seconds, rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let secs = i64::try_from(since.as_secs()).unwrap_or_default();
    let written = DateTime::from_secs(secs).fmt(Format::DateTime);
    written.unwrap_or_default()
}

impl ProcessDocument {
    pub(super) fn of(context: &AdminContext) -> Self {
        let observed = &*context.observed;
        let (began, since) = observed.began();
        let connections = observed.connections();
        let listed = observed.targets();
        let mut recent_errors = observed.recent_errors();
        let mut targets = Vec::new();
        for listed in &listed {
            let status = listed.source.status();
            add_standing(&mut recent_errors, &status);
            targets.push(TargetDocument::of(observed, listed, status, &connections));
        }
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        let left_out = observed.left_out();
        Self {
            left_out: left_out.targets,
            change_unused: left_out.change,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: context.kind.as_str().to_owned(),
            state: observed.phase().as_str().to_owned(),
            started: rfc3339(began),
            uptime_seconds: seconds(since.elapsed()),
            config: context.config.clone(),
            http: context.http.map(|address| address.to_string()),
            log: context.log.clone(),
            open_connections: connections.len(),
            max_connections: observed.limit(),
            targets,
            recent_errors: recent_errors.into_iter().map(ErrorDocument::of).collect(),
        }
    }
}

/// Adds the reason why a target is not ready, if no client has met it: pgiam's own attempts are not
/// counted as errors.
fn add_standing(recent: &mut Vec<RecentError>, status: &TargetStatus) {
    let Some(last) = &status.failed else { return };
    let name = &status.target.name;
    let is_known = |known: &RecentError| {
        known.target.as_ref() == Some(name) && known.last.failure.id == last.failure.id
    };
    if recent.iter().any(is_known) {
        return;
    }
    let place = recent.partition_point(|known| known.last.at > last.at);
    let (target, last) = (Some(name.clone()), last.clone());
    recent.insert(place, RecentError { target, last });
}

impl TargetDocument {
    fn of(
        observed: &Observed,
        listed: &ListedTarget,
        status: TargetStatus,
        all: &[std::sync::Arc<Connection>],
    ) -> Self {
        let target = &status.target;
        let (via, bastion, max_sessions) = match &target.settings.via {
            Via::Direct => ("direct", None, None),
            Via::Ssm(settings) => {
                let bastion = Bastion::to_string(&settings.bastion);
                let relay = status.tunnel.relay.as_ref();
                let relay = relay.filter(|it| matches!(it.state, RelayState::InUse { .. }));
                let most = relay.map_or(settings.sessions, |relay| relay.sessions);
                ("ssm", Some(bastion), Some(most))
            }
        };
        let trips = status.tunnel.sessions.iter().filter_map(|s| s.round_trip);
        let (bytes_up, bytes_down) = observed.transferred(&target.name);
        let auth = match target.settings.login.auth {
            Auth::Iam => "iam",
            Auth::Passthrough => "passthrough",
        };
        let own = all.iter().filter(|c| c.target == target.name);
        Self {
            name: target.name.to_string(),
            port: listed.port,
            addresses: listed.addresses.iter().map(ToString::to_string).collect(),
            by_name: listed.by_name,
            socket: listed.socket.clone(),
            configured_as: status.configured_as.written(),
            settings: settings(&status),
            profile: profile_in_effect(target.settings.profile.as_deref()),
            region: target.region.as_ref().map(ToString::to_string),
            database: target.settings.database.clone(),
            endpoint: target.endpoint.to_string(),
            via: via.to_owned(),
            bastion,
            auth: auth.to_owned(),
            user: target.settings.user.clone(),
            state: status.state().to_owned(),
            ready: status.is_ready(),
            failing: status.failing().map(str::to_owned),
            stopped_seconds: status
                .stopped
                .map(|at| seconds(at.elapsed().unwrap_or_default())),
            identity: status.identity.map(IdentityDocument::of),
            connection_limit: target.settings.login.connection_limit,
            max_sessions,
            round_trip_seconds: trips.min().map(|trip| trip.as_secs_f64()),
            bytes_up,
            bytes_down,
            logins: LoginsDocument::of(observed.login_times(&target.name)),
            kept_ready: KeptReadyDocument::of(status.kept, target.settings.login.ready),
            last_error: observed.last_error(&target.name).map(FailureDocument::of),
            relay: status.tunnel.relay.as_ref().map(RelayDocument::of),
            sessions: status
                .tunnel
                .sessions
                .into_iter()
                .map(SessionDocument::of)
                .collect(),
            connections: own
                .map(|connection| ConnectionDocument::of(connection))
                .collect(),
        }
    }
}

/// Returns the settings from which another process can create the target.
fn settings(status: &TargetStatus) -> serde_json::Value {
    let mut layer = status.target.settings.layer();
    status.configured_as.write(&mut layer);
    layer.region = status.target.region.clone();
    serde_json::to_value(layer).unwrap_or_default()
}

impl IdentityDocument {
    fn of(loaded: LoadedIdentity) -> Self {
        let LoadedIdentity { source, ends_at } = loaded;
        let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            reason: source.reason().to_owned(),
            source: source.to_string(),
            expires_at: ends_at.map(rfc3339),
            expires_in_seconds: ends_at.map(|end| seconds(left(end))),
        }
    }
}

impl LoginsDocument {
    fn of(times: LoginTimes) -> Self {
        Self {
            count: times.count,
            recent: times.recent,
            p50_seconds: times.p50.map(seconds),
            p99_seconds: times.p99.map(seconds),
        }
    }
}

impl KeptReadyDocument {
    fn of(counts: ReadyCounts, limit: usize) -> Self {
        Self {
            count: counts.ready,
            limit,
            hits: counts.hits,
            misses: counts.misses,
            stale: counts.stale,
        }
    }
}

impl ErrorDocument {
    fn of(recent: RecentError) -> Self {
        Self {
            target: recent.target.map(|target| target.to_string()),
            failure: FailureDocument::of(recent.last),
        }
    }
}

impl FailureDocument {
    fn of(last: LastError) -> Self {
        let age = last.at.elapsed();
        let at = SystemTime::now().checked_sub(age);
        let LastError { failure, count, .. } = last;
        Self {
            id: failure.id.to_owned(),
            sqlstate: Some(failure.sqlstate).filter(|state| !state.is_empty()),
            message: failure.message,
            detail: failure.detail,
            hint: failure.hint,
            at: at.map(rfc3339).unwrap_or_default(),
            age_seconds: seconds(age),
            count,
        }
    }
}

impl SessionDocument {
    fn of(stats: SessionStats) -> Self {
        Self {
            id: stats.id,
            bastion: stats.bastion,
            state: stats.state.as_str().to_owned(),
            to_relay: stats.to_relay,
            streams: stats.streams,
            ready: stats.spares,
            busy: stats.busy,
            bytes_up: stats.totals.up,
            bytes_down: stats.totals.down,
            age_seconds: seconds(stats.age),
            resumes: stats.totals.resumes,
            retransmissions: stats.totals.retransmissions,
            round_trip_seconds: stats.round_trip.map(|trip| trip.as_secs_f64()),
        }
    }
}

impl ConnectionDocument {
    fn of(connection: &Connection) -> Self {
        let state = if connection.is_open() {
            "open"
        } else {
            "login"
        };
        Self {
            id: connection.id,
            state: state.to_owned(),
            program: connection.program.clone(),
            user: connection.user.clone(),
            database: connection.database(),
            peer: connection.peer.clone(),
            bytes_up: connection.bytes_up(),
            bytes_down: connection.bytes_down(),
            age_seconds: seconds(connection.since.elapsed()),
        }
    }
}
