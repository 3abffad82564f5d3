//! Cancel keys → target of the CancelRequest.
//!
//! A CancelRequest arrives on its own connection and contains only the key that the server issued
//! at login (PostgreSQL docs, "Canceling Requests in Progress"). Keys pass through unchanged, so
//! the key itself identifies the database. Two servers may issue the same key, and poolers give one
//! key to several connections; such a key belongs to all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pg_handshake::CancelKey;

/// Keys of the open connections, each with the target of every connection that has it, as a `T`.
/// Cheap to clone.
pub struct CancelKeys<T> {
    live: KeyOwners<T>,
}

type KeyOwners<T> = Arc<Mutex<HashMap<CancelKey, Vec<Arc<T>>>>>;

impl<T> Clone for CancelKeys<T> {
    fn clone(&self) -> Self {
        let live = Arc::clone(&self.live);
        Self { live }
    }
}

impl<T> Default for CancelKeys<T> {
    fn default() -> Self {
        let live = Arc::default();
        Self { live }
    }
}

/// Registration of one connection's key. Dropping it removes the key, unless another connection has
/// the same.
pub struct KeyRegistration<T> {
    keys: CancelKeys<T>,
    key: CancelKey,
    target: Arc<T>,
}

impl<T> CancelKeys<T> {
    /// Registers `key` until the returned value is dropped.
    #[must_use]
    pub fn register(&self, key: CancelKey, target: Arc<T>) -> KeyRegistration<T> {
        let mut live = self.lock();
        let targets = live.entry(key.clone()).or_default();
        targets.push(Arc::clone(&target));
        KeyRegistration {
            keys: self.clone(),
            key,
            target,
        }
    }

    /// Returns the targets whose servers issued `key` to connections that are still open, each
    /// once. Several targets share a key only by accident, and then the intended one is unknown.
    #[must_use]
    pub fn find(&self, key: &CancelKey) -> Vec<Arc<T>> {
        let mut found: Vec<Arc<T>> = Vec::new();
        for target in self.lock().get(key).into_iter().flatten() {
            if !found.iter().any(|known| Arc::ptr_eq(known, target)) {
                found.push(Arc::clone(target));
            }
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CancelKey, Vec<Arc<T>>>> {
        // No operation under this lock can be interrupted half-way by a panic.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for KeyRegistration<T> {
    fn drop(&mut self) {
        let mut live = self.keys.lock();
        let Some(targets) = live.get_mut(&self.key) else {
            return;
        };
        let one = targets
            .iter()
            .position(|target| Arc::ptr_eq(target, &self.target));
        if let Some(one) = one {
            targets.remove(one);
        }
        if targets.is_empty() {
            live.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_targets() -> (Arc<String>, Arc<String>) {
        (Arc::new("a".to_owned()), Arc::new("b".to_owned()))
    }

    fn key(pid: u32) -> CancelKey {
        CancelKey::new(pid, bytes::Bytes::from_static(b"same")).unwrap()
    }

    fn names(keys: &CancelKeys<String>, pid: u32) -> Vec<String> {
        let found = keys.find(&key(pid));
        found.iter().map(|target| target.to_string()).collect()
    }

    #[test]
    fn a_key_lives_as_long_as_the_last_connection_that_has_it() {
        let (keys, (a, b)) = (CancelKeys::default(), two_targets());
        let first = keys.register(key(7), Arc::clone(&a));
        let second = keys.register(key(7), Arc::clone(&a));
        let third = keys.register(key(7), b);
        let other = keys.register(key(8), a);
        assert_eq!(names(&keys, 7), ["a", "b"], "each once");
        drop(first);
        assert_eq!(names(&keys, 7), ["a", "b"]);
        drop(second);
        assert_eq!(names(&keys, 7), ["b"]);
        drop(third);
        assert_eq!(names(&keys, 7), [""; 0]);
        assert_eq!(names(&keys, 8), ["a"]);
        drop(other);
        assert!(keys.lock().is_empty());
    }
}
