//! The last error of each target.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Why a connection failed or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// What the client was told, empty where it could be told nothing.
    pub sqlstate: String,
    /// What happened.
    pub message: String,
    /// What the other side said.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Somebody should look at it, as opposed to clients that leave and those that only ask.
    pub notable: bool,
    /// It is part of how clients find their way, and is not counted.
    pub expected: bool,
}

/// The last failure of a target.
#[derive(Clone, Debug)]
pub struct LastError {
    /// What it was.
    pub failure: Failure,
    /// When.
    pub at: Instant,
    /// How often the same came in a row.
    pub count: u64,
}

/// The last error of each target.
#[derive(Debug, Default)]
pub(super) struct LastErrors(Mutex<HashMap<String, LastError>>);

impl LastErrors {
    pub(super) fn note(&self, target: &str, failure: Failure) {
        let mut all = self.lock();
        let before = all.get(target);
        let again = before.filter(|last| last.failure.id == failure.id);
        let count = again.map_or(0, |last| last.count) + 1;
        let at = Instant::now();
        let last = LastError { failure, at, count };
        all.insert(target.to_owned(), last);
    }

    pub(super) fn of(&self, target: &str) -> Option<LastError> {
        self.lock().get(target).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, LastError>> {
        // Entries are replaced whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
