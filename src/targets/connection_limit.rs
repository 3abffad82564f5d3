//! Limits on the number of connections at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts connections, and refuses those above a limit. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit {
    open: Arc<AtomicUsize>,
    limit: Option<usize>,
}

/// Permit of one connection; dropping it releases the permit.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<AtomicUsize>);

impl ConnectionLimit {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            open: Arc::default(),
            limit,
        }
    }

    /// Acquires a permit, or returns the limit that is reached.
    pub(crate) fn acquire(&self) -> Result<ConnectionPermit, usize> {
        let limit = self.limit.unwrap_or(usize::MAX);
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < limit).then_some(open + 1)
            })
            .map(|_| ConnectionPermit(Arc::clone(&self.open)))
            .map_err(|_| limit)
    }

    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_and_permits_come_back() {
        let limit = ConnectionLimit::new(Some(2));
        let first = limit.acquire().unwrap();
        let _second = limit.acquire().unwrap();
        assert_eq!(limit.acquire().unwrap_err(), 2);
        assert_eq!(limit.open(), 2);
        drop(first);
        assert!(limit.acquire().is_ok());
        let endless = ConnectionLimit::new(None);
        let all: Vec<_> = (0..1000).map(|_| endless.acquire().unwrap()).collect();
        assert_eq!(endless.open(), all.len());
    }
}
