//! What `pgiam status --json` prints, one [`Process`] per running pgiam. `docs/metrics.md` explains it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::config::{Auth, Bastion, Via};
use crate::observe::{Connection, LastError, Listed, Observed, View};
use crate::tunnel::SessionStats;

/// A running pgiam.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// `serve`, `run` or `tunnel`.
    pub kind: String,
    /// `starting`, `serving` or `draining`.
    pub state: String,
    /// When it started, as in RFC 3339.
    pub started: String,
    /// For how long it has run.
    pub uptime_seconds: f64,
    /// Its configuration file.
    pub config: Option<PathBuf>,
    /// Where its health endpoints and metrics are.
    pub http: Option<String>,
    /// Its connections.
    pub open_connections: usize,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Its targets, in the order of their names.
    pub targets: Vec<Target>,
    /// Why targets that are configured are not served, one reason each.
    pub left_out: Vec<String>,
    /// Why a changed configuration is not used.
    pub change_unused: Option<String>,
}

/// A target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// The local TCP port.
    pub port: u16,
    /// The local Unix socket.
    pub socket: Option<PathBuf>,
    /// The real endpoint, `HOST:PORT`.
    pub endpoint: String,
    /// `ssm` or `direct`.
    pub via: String,
    /// Who carries the tunnel, as configured.
    pub bastion: Option<String>,
    /// `iam` or `passthrough`.
    pub auth: String,
    /// The role that replaces the client's default one.
    pub user: Option<String>,
    /// `ready`, `idle`, `starting`, `interrupted` or `failing`.
    pub state: String,
    /// Whether a new connection could be made, as far as is known.
    pub ready: bool,
    /// Why it could not: the identifier, as in `docs/errors.md`.
    pub failing: Option<String>,
    /// `connection_limit`.
    pub connection_limit: Option<usize>,
    /// The last failure.
    pub last_error: Option<Failure>,
    /// Its Session Manager sessions.
    pub sessions: Vec<Session>,
    /// Its connections, oldest first.
    pub connections: Vec<Client>,
}

/// A failure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// Stable identifier of the cause, as in `docs/errors.md`.
    pub id: String,
    /// What the client was told, if anything.
    pub sqlstate: Option<String>,
    /// What happened.
    pub message: String,
    /// What the other side said.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// When it was, as in RFC 3339.
    pub at: String,
    /// How long ago that is.
    pub age_seconds: f64,
    /// How often the same came in a row.
    pub count: u64,
}

/// A Session Manager session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Its id at AWS; none while it is being started.
    pub id: Option<String>,
    /// The managed node; none while it is being started.
    pub bastion: Option<String>,
    /// `starting`, `up`, `interrupted` or `leaving`.
    pub state: String,
    /// Its streams: one per connection.
    pub streams: usize,
    /// Those that are moving bytes.
    pub busy: usize,
    /// Bytes towards the bastion.
    pub bytes_up: u64,
    /// Bytes from it.
    pub bytes_down: u64,
    /// Since its start began.
    pub age_seconds: f64,
    /// Lost connections that were replaced.
    pub resumes: u64,
    /// Messages that were sent again.
    pub retransmissions: u64,
    /// The smoothed round trip to the agent.
    pub round_trip_seconds: Option<f64>,
}

/// A client's connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Client {
    /// A number that no other connection of this process has.
    pub id: u64,
    /// `login` or `open`.
    pub state: String,
    /// What the client program calls itself (`application_name`).
    pub program: String,
    /// The database role.
    pub user: String,
    /// The database.
    pub database: String,
    /// Where it came from: an address, or `[local]` for the Unix socket.
    pub peer: String,
    /// Bytes to the database since the login.
    pub bytes_up: u64,
    /// Bytes from it.
    pub bytes_down: u64,
    /// Since it came.
    pub age_seconds: f64,
}

/// Milliseconds are enough.
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

impl Process {
    pub(super) fn of(context: &Context) -> Self {
        let observed = &*context.observed;
        let (began, since) = observed.began();
        let connections = observed.connections();
        let listed = observed.targets();
        let mut targets: Vec<Target> = listed
            .iter()
            .map(|listed| Target::of(observed, listed, &connections))
            .collect();
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
            open_connections: connections.len(),
            max_connections: observed.limit(),
            targets,
        }
    }
}

impl Target {
    fn of(observed: &Observed, listed: &Listed, all: &[std::sync::Arc<Connection>]) -> Self {
        let view: View = listed.watched.view();
        let target = &view.target;
        let (via, bastion) = match &target.via {
            Via::Direct => ("direct", None),
            Via::Ssm(settings) => ("ssm", Some(Bastion::to_string(&settings.bastion))),
        };
        let auth = match target.login.auth {
            Auth::Iam => "iam",
            Auth::Passthrough => "passthrough",
        };
        let own = all.iter().filter(|c| c.target == target.name);
        Self {
            name: target.name.clone(),
            port: listed.port,
            socket: listed.socket.clone(),
            endpoint: target.endpoint.to_string(),
            via: via.to_owned(),
            bastion,
            auth: auth.to_owned(),
            user: target.user.clone(),
            state: view.state().to_owned(),
            ready: view.is_ready(),
            failing: view.failed.map(str::to_owned),
            connection_limit: target.login.connection_limit,
            last_error: observed.last_error(&target.name).map(Failure::of),
            sessions: view.tunnel.sessions.into_iter().map(Session::of).collect(),
            connections: own.map(|connection| Client::of(connection)).collect(),
        }
    }
}

impl Failure {
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

impl Session {
    fn of(stats: SessionStats) -> Self {
        Self {
            id: stats.id,
            bastion: stats.bastion,
            state: stats.state.as_str().to_owned(),
            streams: stats.streams,
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

impl Client {
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
