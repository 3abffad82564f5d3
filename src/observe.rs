//! What is measured while the program runs, for `/metrics`, the health endpoints and `pgiam status`.
//!
//! Counts that belong to a moment are kept here: logins, errors, bytes, tokens. What stands (targets,
//! tunnels, sessions) is asked when somebody looks, so that it costs nothing in between.

mod errors;
mod live;
mod metrics;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::config::Target;
use crate::tunnel::{Readiness, TunnelStats};

pub use errors::{Failure, LastError};
pub use live::{Connection, LiveConnection, Newcomer, Traffic};
pub use metrics::{Stage, TokenSource};

use errors::LastErrors;
use live::Live;
use metrics::Metrics;

/// Where the program is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not listen everywhere yet.
    Starting,
    /// It serves.
    Serving,
    /// It waits for the open connections, and takes no new ones.
    Draining,
}

impl Phase {
    /// Its name, for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// Something that can tell how a target stands.
pub trait Watched: Send + Sync {
    /// How it stands at this moment. Starts nothing.
    fn view(&self) -> View;
}

/// How a target stands.
#[derive(Clone, Debug)]
pub struct View {
    /// The target.
    pub target: Arc<Target>,
    /// The way to it.
    pub readiness: Readiness,
    /// Why the last connection could not be made, if that was a moment ago and would have met others
    /// like it: the identifier.
    pub failed: Option<&'static str>,
    /// What its tunnel has done.
    pub tunnel: TunnelStats,
    /// It is known where its database is.
    pub found: bool,
}

impl View {
    /// How it stands, in a word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.readiness, self.failed) {
            (Readiness::Interrupted, _) => "interrupted",
            (_, Some(_)) => "failing",
            (_, None) if !self.found => "looking",
            (Readiness::Starting, None) => "starting",
            (Readiness::Idle, None) => "idle",
            (Readiness::Up, None) => "ready",
        }
    }

    /// Whether a new connection could be made, as far as is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.found && self.readiness != Readiness::Interrupted && self.failed.is_none()
    }
}

/// A target, and where it is listened for.
#[derive(Clone)]
pub struct Listed {
    /// The local TCP port.
    pub port: u16,
    /// The local Unix socket.
    pub socket: Option<PathBuf>,
    /// The target.
    pub watched: Arc<dyn Watched>,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// What is configured and not served.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Why a target is not, for each of them.
    pub targets: Vec<String>,
    /// Why a changed configuration is not used.
    pub change: Option<String>,
}

/// All that is measured, in one place. Shared by everything that serves connections, and read by
/// everything that shows them.
#[derive(Debug)]
pub struct Observed {
    metrics: Metrics,
    live: Live,
    last_errors: LastErrors,
    targets: RwLock<Vec<Listed>>,
    left_out: RwLock<LeftOut>,
    phase: AtomicU8,
    /// Accept loops that have ended without being asked to.
    dead_loops: Arc<AtomicUsize>,
    limit: usize,
    began: (SystemTime, Instant),
}

impl Observed {
    /// For a program that serves at most `limit` connections at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let began = (SystemTime::now(), Instant::now());
        Self {
            metrics: Metrics::new(began.0),
            live: Live::default(),
            last_errors: LastErrors::default(),
            targets: RwLock::default(),
            left_out: RwLock::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            dead_loops: Arc::default(),
            limit,
            began,
        }
    }

    /// From now on these are the targets; said again whenever they change.
    pub fn show(&self, targets: Vec<Listed>) {
        for listed in &targets {
            // A series that begins with its first event has no rate before the second.
            self.metrics.begin(&listed.watched.view().target.name);
        }
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// From now on these targets are configured and not served, for these reasons.
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

    /// The configuration has changed, and is not used for this reason.
    pub fn change_unused(&self, reason: String) {
        let mut left_out = self
            .left_out
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        left_out.change = Some(reason);
    }

    /// What is configured and not served.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        let left_out = self.left_out.read().unwrap_or_else(PoisonError::into_inner);
        left_out.clone()
    }

    /// The targets, in the order in which they were shown.
    #[must_use]
    pub fn targets(&self) -> Vec<Listed> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.clone()
    }

    /// Every listener is bound, and what had to be looked up at first has been.
    pub fn started(&self) {
        let (starting, serving) = (Phase::Starting as u8, Phase::Serving as u8);
        // A program that drains already stays so.
        _ = self
            .phase
            .compare_exchange(starting, serving, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From now on no new connections are taken.
    pub fn drains(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// Where the program is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Serving as u8 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// To be kept by an accept loop while it runs.
    #[must_use]
    pub fn accepting(&self) -> Accepting {
        Accepting {
            dead: Arc::clone(&self.dead_loops),
        }
    }

    /// How many accept loops have ended without being asked to.
    #[must_use]
    pub fn dead_loops(&self) -> usize {
        self.dead_loops.load(Ordering::Acquire)
    }

    /// Most connections at a time.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// When the program began, and how long ago that was by its own clock.
    #[must_use]
    pub fn began(&self) -> (SystemTime, Instant) {
        self.began
    }

    /// A connection has said where it wants to go. It counts as open until the result is dropped.
    #[must_use]
    pub fn admit(self: &Arc<Self>, newcomer: Newcomer<'_>) -> LiveConnection {
        let traffic = self.metrics.traffic(newcomer.target);
        let connection = self.live.add(newcomer, traffic);
        LiveConnection::new(Arc::clone(self), connection)
    }

    /// The connections that there are, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.live.all()
    }

    /// How many connections there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.live.count()
    }

    fn forget(&self, id: u64) {
        self.live.remove(id);
    }

    /// A login has worked, and took so many seconds in each of its stages.
    pub fn logged_in(&self, target: &str, stages: &[(Stage, f64)]) {
        self.metrics.logged_in(target, stages);
    }

    /// A token was wanted.
    pub fn token(&self, target: &str, source: TokenSource) {
        self.metrics.token(target, source);
    }

    /// A connection failed or ended for a reason that has a name. Without a target it was one that
    /// never came to say where it wanted to go.
    pub fn failed(&self, target: Option<&str>, failure: Failure) {
        if failure.expected {
            return;
        }
        self.metrics.failed(target.unwrap_or_default(), failure.id);
        if let Some(target) = target
            && failure.notable
        {
            self.last_errors.note(target, failure);
        }
    }

    /// The last error of a target.
    #[must_use]
    pub fn last_error(&self, target: &str) -> Option<LastError> {
        self.last_errors.of(target)
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn exposition(&self) -> Result<String, fmt::Error> {
        self.metrics.exposition(self)
    }
}

/// Tells when an accept loop ends that was not asked to.
#[derive(Debug)]
pub struct Accepting {
    dead: Arc<AtomicUsize>,
}

impl Accepting {
    /// Runs `accept`, which is to end by being asked to: it answers `None` then.
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
