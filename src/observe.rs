//! Measurements of the running program, for `/metrics`, the health endpoints and `pgiam status`.
//!
//! Events are counted here as they happen: logins, errors, bytes, tokens. Gauges (targets, tunnels,
//! sessions) are computed at scrape time, so that they cost nothing in between.

mod errors;
mod live;
mod logins;
mod metrics;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::aws::LoadedIdentity;
use crate::base::names::TargetName;
use crate::config::{DatabaseRef, ResolvedTarget};
use crate::tunnel::{Readiness, TunnelStats};

pub use errors::{Failure, LastError, RecentError};
pub use live::{Connection, LiveConnection, NewConnection, Traffic};
pub use logins::LoginTimes;
pub use metrics::{Stage, TokenSource};

use errors::{LastErrors, RecentErrors};
use live::Live;
use logins::RecentLogins;
use metrics::Metrics;

/// Phase of the program's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all listeners are bound yet.
    Starting,
    /// Serving connections.
    Serving,
    /// Waiting for open connections to end; no new ones are accepted.
    Draining,
}

impl Phase {
    /// Returns the name, for display and for JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// A source for the state of a target.
pub trait StatusSource: Send + Sync {
    /// Returns the current state. Has no side effects.
    fn status(&self) -> TargetStatus;
}

/// Connections to a database that are kept ready for later clients, and their use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyCounts {
    /// Connections that are ready now.
    pub ready: usize,
    /// Logins that took one.
    pub hits: u64,
    /// Logins that found none, although the target is in use.
    pub misses: u64,
    /// Logins that took one that gave no answer, and were repeated.
    pub stale: u64,
}

/// State of a target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// The target.
    pub target: Arc<ResolvedTarget>,
    /// `host` or `db` of the target.
    pub configured_as: DatabaseRef,
    /// State of the connection path.
    pub readiness: Readiness,
    /// The error of the last connection attempt, if it would affect other connections as well.
    pub failed: Option<LastError>,
    /// Statistics of the tunnel.
    pub tunnel: TunnelStats,
    /// Connections that are kept ready for later clients.
    pub kept: ReadyCounts,
    /// `true` if the database's endpoint is known.
    pub found: bool,
    /// AWS identity of the last login; `None` before the first one.
    pub identity: Option<LoadedIdentity>,
    /// Time when the owner stopped the target; `None` if it is served.
    pub stopped: Option<SystemTime>,
}

impl TargetStatus {
    /// Returns the state as a word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.readiness, &self.failed) {
            _ if self.stopped.is_some() => "stopped",
            (Readiness::Interrupted, _) => "interrupted",
            (_, Some(_)) => "failing",
            (_, None) if !self.found => "looking",
            (Readiness::Starting, None) => "starting",
            (Readiness::Idle, None) => "idle",
            (Readiness::Up, None) => "ready",
        }
    }

    /// Returns the identifier of the error that would affect a new connection.
    #[must_use]
    pub fn failing(&self) -> Option<&'static str> {
        self.failed.as_ref().map(|last| last.failure.id)
    }

    /// Returns `true` if a new connection is expected to work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_reachable = self.readiness != Readiness::Interrupted && self.failed.is_none();
        self.found && is_reachable && self.stopped.is_none()
    }
}

/// A target and its listeners.
#[derive(Clone)]
pub struct ListedTarget {
    /// Local TCP port.
    pub port: u16,
    /// Local addresses of the port; empty for `pgiam tunnel`.
    pub addresses: Vec<IpAddr>,
    /// The database name selects the target at this port.
    pub by_name: bool,
    /// Local Unix socket.
    pub socket: Option<PathBuf>,
    /// Source of the target's state.
    pub source: Arc<dyn StatusSource>,
}

impl fmt::Debug for ListedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedTarget")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Parts of the configuration that are not served.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Reason for each target that is not served.
    pub targets: Vec<String>,
    /// Reason why a changed configuration is not used.
    pub change: Option<String>,
}

/// All measurements. Shared by the code that serves connections and the code that displays the
/// measurements.
#[derive(Debug)]
pub struct Observed {
    metrics: Metrics,
    live: Live,
    logins: RecentLogins,
    last_errors: LastErrors,
    recent_errors: RecentErrors,
    targets: RwLock<Vec<ListedTarget>>,
    left_out: RwLock<LeftOut>,
    phase: AtomicU8,
    /// Accept loops that have ended unexpectedly.
    dead_loops: Arc<AtomicUsize>,
    limit: usize,
    began: (SystemTime, Instant),
}

impl Observed {
    /// Creates the measurements of a program that serves at most `limit` concurrent connections.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let began = (SystemTime::now(), Instant::now());
        Self {
            metrics: Metrics::new(began.0),
            live: Live::default(),
            logins: RecentLogins::default(),
            last_errors: LastErrors::default(),
            recent_errors: RecentErrors::default(),
            targets: RwLock::default(),
            left_out: RwLock::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            dead_loops: Arc::default(),
            limit,
            began,
        }
    }

    /// Sets the targets; called again whenever they change.
    pub fn show(&self, targets: Vec<ListedTarget>) {
        for listed in &targets {
            // A series that begins with its first event has no rate before the second.
            self.metrics.begin(&listed.source.status().target.name);
        }
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// Sets the configured targets that are not served, with the reasons.
    pub fn leave_out(&self, targets: Vec<String>) {
        let left_out = LeftOut {
            targets,
            change: None,
        };
        *self
            .left_out
            .write()
            .unwrap_or_else(PoisonError::into_inner) = left_out;
    }

    /// Sets the reason why a changed configuration is not used.
    pub fn change_unused(&self, reason: String) {
        let mut left_out = self
            .left_out
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        left_out.change = Some(reason);
    }

    /// Returns the parts of the configuration that are not served.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        let left_out = self.left_out.read().unwrap_or_else(PoisonError::into_inner);
        left_out.clone()
    }

    /// Returns the targets, in the order in which they were set.
    #[must_use]
    pub fn targets(&self) -> Vec<ListedTarget> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.clone()
    }

    /// Enters the phase [`Phase::Serving`]: every listener is bound, and the initial lookups are
    /// done.
    pub fn started(&self) {
        let (starting, serving) = (Phase::Starting as u8, Phase::Serving as u8);
        // A draining program stays in that phase.
        _ = self
            .phase
            .compare_exchange(starting, serving, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Enters the phase [`Phase::Draining`]: no new connections are accepted.
    pub fn drains(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Serving as u8 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Returns a guard that an accept loop keeps while it runs.
    #[must_use]
    pub fn accepting(&self) -> Accepting {
        Accepting {
            dead: Arc::clone(&self.dead_loops),
        }
    }

    /// Returns the number of accept loops that have ended unexpectedly.
    #[must_use]
    pub fn dead_loops(&self) -> usize {
        self.dead_loops.load(Ordering::Acquire)
    }

    /// Returns the maximum number of concurrent connections.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the start time of the program, by the wall clock and by the monotonic clock.
    #[must_use]
    pub fn began(&self) -> (SystemTime, Instant) {
        self.began
    }

    /// Adds a connection after its startup packet. It counts as open until the result is dropped.
    #[must_use]
    pub fn admit(self: &Arc<Self>, connection: NewConnection<'_>) -> LiveConnection {
        let traffic = self.metrics.traffic(connection.target);
        let connection = self.live.add(connection, traffic);
        LiveConnection::new(Arc::clone(self), connection)
    }

    /// Returns the current connections, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.live.all()
    }

    /// Returns the number of current connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.live.count()
    }

    fn forget(&self, id: u64) {
        self.live.remove(id);
    }

    /// Records a successful login and the seconds that it took in each of its stages.
    pub fn logged_in(&self, target: &TargetName, stages: &[(Stage, f64)]) {
        self.metrics.logged_in(target, stages);
        let mut totals = stages.iter().filter(|(stage, _)| *stage == Stage::Total);
        if let Some((_, seconds)) = totals.next() {
            self.logins.note(target, *seconds);
        }
    }

    /// Returns age and duration in seconds of each recent login of a target, oldest first.
    #[must_use]
    pub fn recent_logins(&self, target: &TargetName) -> Vec<(Duration, f64)> {
        self.logins.list(target)
    }

    /// Returns the duration of the logins of a target.
    #[must_use]
    pub fn login_times(&self, target: &TargetName) -> LoginTimes {
        LoginTimes {
            count: self.metrics.logins(target),
            ..self.logins.of(target)
        }
    }

    /// Returns the client bytes of a target: sent to the database, and received from it. Includes
    /// connections that have ended.
    #[must_use]
    pub fn transferred(&self, target: &TargetName) -> (u64, u64) {
        self.metrics.transferred(target)
    }

    /// Records a request for a token.
    pub fn token(&self, target: &TargetName, source: TokenSource) {
        self.metrics.token(target, source);
    }

    /// Records a connection that failed or ended with an identified reason. Without a target, it
    /// ended before its startup packet.
    pub fn failed(&self, target: Option<&TargetName>, failure: Failure) {
        if failure.expected {
            return;
        }
        self.metrics.failed(target, failure.id);
        if !failure.notable {
            return;
        }
        self.recent_errors.note(target, &failure);
        if let Some(target) = target {
            self.last_errors.note(target, failure);
        }
    }

    /// Returns the recent errors of all targets, newest first.
    #[must_use]
    pub fn recent_errors(&self) -> Vec<RecentError> {
        self.recent_errors.all()
    }

    /// Returns the last error of a target.
    #[must_use]
    pub fn last_error(&self, target: &TargetName) -> Option<LastError> {
        self.last_errors.of(target)
    }

    /// Returns all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice: the text is written to memory.
    pub fn exposition(&self) -> Result<String, fmt::Error> {
        self.metrics.exposition(self)
    }
}

/// Guard that counts an accept loop which ends unexpectedly.
#[derive(Debug)]
pub struct Accepting {
    dead: Arc<AtomicUsize>,
}

impl Accepting {
    /// Runs `accept`, which returns `None` when it ends on request.
    pub async fn watch<T>(self, accept: impl Future<Output = Option<T>>) {
        /// Counts unless it is defused: a panic drops it, too.
        struct Alarm(Option<Arc<AtomicUsize>>);
        impl Drop for Alarm {
            fn drop(&mut self) {
                if let Some(dead) = &self.0 {
                    dead.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        let mut alarm = Alarm(Some(self.dead));
        if accept.await.is_none() {
            alarm.0 = None;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
