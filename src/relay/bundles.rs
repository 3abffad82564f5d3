//! The bundles of a relay, by their ids.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use stripe::{BundleId, Hello};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::striping::{OpenedStreams, Refusal, RefusalKind, StripedBundle};

/// Maximum number of bundles. Each client of a relay has one for each of its targets.
const MOST: usize = 256;

/// A bundle, and the streams that its client opens if it is new.
pub(super) struct Found {
    pub(super) bundle: StripedBundle,
    pub(super) opened: Option<OpenedStreams>,
}

/// All bundles of a relay.
#[derive(Default)]
pub(super) struct Bundles {
    all: Mutex<Vec<(BundleId, StripedBundle)>>,
}

impl Bundles {
    fn lock(&self) -> MutexGuard<'_, Vec<(BundleId, StripedBundle)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bundle of a hello, or creates it for the first carrier of a client. Another one
    /// of an unknown id belongs to a bundle that this process has not, or has no more.
    ///
    /// # Errors
    /// The refusal for the client.
    pub(super) fn of(&self, hello: &Hello, tasks: &TaskTracker) -> Result<Found, Refusal> {
        let mut all = self.lock();
        // All ids are compared, each in constant time: an id is a secret.
        let mut found = None;
        for (id, bundle) in all.iter() {
            if verify_slices_are_equal(id.as_bytes(), hello.bundle.as_bytes()).is_ok() {
                found = Some(bundle.clone());
            }
        }
        if let Some(bundle) = found {
            let opened = None;
            return Ok(Found { bundle, opened });
        }
        if (hello.index, hello.generation) != (0, 1) {
            let words = "the relay does not know this connection any more: it was restarted, or no session came for 60 s";
            return Err(Refusal::new(RefusalKind::UnknownBundle, words));
        }
        if all.len() >= MOST {
            let words = format!("the relay serves {MOST} clients already, its maximum");
            return Err(Refusal::new(RefusalKind::Full, words));
        }
        let (bundle, opened) = StripedBundle::relay(tasks, &CancellationToken::new());
        all.push((hello.bundle, bundle.clone()));
        let opened = Some(opened);
        Ok(Found { bundle, opened })
    }

    /// Forgets a bundle.
    pub(super) fn remove(&self, id: &BundleId) {
        self.lock().retain(|(known, _)| known != id);
    }

    /// Returns the number of bundles.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}
