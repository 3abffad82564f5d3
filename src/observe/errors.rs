//! The last error of each target, and the recent errors of all targets.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::base::names::TargetName;

/// Reason why a connection failed or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// SQLSTATE sent to the client; empty if none could be sent.
    pub sqlstate: String,
    /// Description of the failure.
    pub message: String,
    /// Message of the other side.
    pub detail: Option<String>,
    /// Remedy.
    pub hint: Option<String>,
    /// `true` for a failure that needs attention, as opposed to clients that disconnect or only
    /// probe.
    pub notable: bool,
    /// `true` for a normal step of a client's connection attempts; it is not counted.
    pub expected: bool,
}

/// The last failure of a target.
#[derive(Clone, Debug)]
pub struct LastError {
    /// The failure.
    pub failure: Failure,
    /// Time of the failure.
    pub at: Instant,
    /// Number of consecutive failures with the same identifier.
    pub count: u64,
}

/// A recent error.
#[derive(Clone, Debug)]
pub struct RecentError {
    /// The target; `None`: the connection ended before its target was known.
    pub target: Option<TargetName>,
    /// The failure, and the number of times that it occurred.
    pub last: LastError,
}

/// Maximum number of recent errors: several screens of them, and a few hundred bytes each.
const MOST_RECENT: usize = 50;

/// The recent errors of all targets, newest first. The same error of a target is one entry, with a
/// count. Errors without a target are equal if their identifiers are: other texts contain words of
/// clients that have not proved anything yet, and must not displace the errors of targets.
#[derive(Debug, Default)]
pub(super) struct RecentErrors(Mutex<VecDeque<RecentError>>);

impl RecentErrors {
    pub(super) fn note(&self, target: Option<&TargetName>, failure: &Failure) {
        let mut all = self.lock();
        let same = |known: &RecentError| {
            let before = &known.last.failure;
            known.target.as_ref() == target
                && before.id == failure.id
                && (target.is_none() || before.message == failure.message)
        };
        let again = all.iter().position(same).and_then(|at| all.remove(at));
        let count = again.map_or(0, |known| known.last.count) + 1;
        let (failure, at) = (failure.clone(), Instant::now());
        all.truncate(MOST_RECENT - 1);
        all.push_front(RecentError {
            target: target.cloned(),
            last: LastError { failure, at, count },
        });
    }

    pub(super) fn all(&self) -> Vec<RecentError> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecentError>> {
        // A panic cannot leave half of an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last error of each target.
#[derive(Debug, Default)]
pub(super) struct LastErrors(Mutex<HashMap<TargetName, LastError>>);

impl LastErrors {
    pub(super) fn note(&self, target: &TargetName, failure: Failure) {
        let mut all = self.lock();
        let before = all.get(target);
        let again = before.filter(|last| last.failure.id == failure.id);
        let count = again.map_or(0, |last| last.count) + 1;
        let at = Instant::now();
        let last = LastError { failure, at, count };
        all.insert(target.to_owned(), last);
    }

    pub(super) fn of(&self, target: &TargetName) -> Option<LastError> {
        self.lock().get(target).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetName, LastError>> {
        // Entries are replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
