//! Cancel keys → where to send the CancelRequest.
//!
//! A CancelRequest arrives on a connection of its own and carries nothing but the key the server
//! gave at login (PostgreSQL docs, "Canceling Requests in Progress"). Keys pass through unchanged,
//! so the key itself tells which database it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pg_handshake::CancelKey;

use crate::config::Target;

/// The keys of the live connections. Cheap to clone.
#[derive(Clone, Default)]
pub struct CancelKeys {
    live: Arc<Mutex<HashMap<CancelKey, Arc<Target>>>>,
}

/// Keeps one key registered; dropping it forgets the key.
pub struct Registration {
    keys: CancelKeys,
    key: CancelKey,
}

impl CancelKeys {
    /// Registers `key` for as long as the answer lives.
    #[must_use]
    pub fn register(&self, key: CancelKey, target: Arc<Target>) -> Registration {
        self.lock().insert(key.clone(), target);
        Registration {
            keys: self.clone(),
            key,
        }
    }

    /// The target whose server gave out `key`, if that connection is still open.
    #[must_use]
    pub fn find(&self, key: &CancelKey) -> Option<Arc<Target>> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CancelKey, Arc<Target>>> {
        // A map insert or remove cannot be half done by a panic.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}
