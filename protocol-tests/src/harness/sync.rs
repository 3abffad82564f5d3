//! Small helpers for shared state and for tasks that must not outlive the sandbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Locks a mutex even if a panicking task held it: the sandbox only keeps data that stays valid
/// between two statements, and a second panic would hide the first.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All background work of a sandbox. Every task ends when the last handle is dropped or
/// [`Tasks::shutdown`] is called, whichever comes first.
#[derive(Clone)]
pub(crate) struct Tasks {
    stop: Arc<watch::Sender<bool>>,
    alive: Arc<watch::Sender<usize>>,
}

/// Counts one task for as long as it exists, also when it panics.
struct Alive(Arc<watch::Sender<usize>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            stop: Arc::new(watch::Sender::new(false)),
            alive: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Runs `work` until it ends or the sandbox does.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.alive.send_modify(|n| *n += 1);
        let alive = Alive(self.alive.clone());
        tokio::spawn(async move {
            let _alive = alive;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = work => {}
            }
        });
    }

    /// Asks every task to stop; does not wait.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops every task and returns when the last one has dropped what it held.
    pub(crate) async fn shutdown(&self) {
        self.stop();
        // Only fails when the sender is gone, and this value holds it.
        let _ = self.alive.subscribe().wait_for(|n| *n == 0).await;
    }
}
