//! The last error of each target.

use std::collections::HashMap;
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
