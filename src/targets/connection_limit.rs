//! Limits on the number of connections at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts connections, and refuses those above a limit. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    open: Arc<AtomicUsize>,
    limit: Option<usize>,
}

/// Place of one connection; dropping it releases the place.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            open: Arc::default(),
            limit,
        }
    }

    /// Takes a place, or returns the limit that is reached.
    pub(crate) fn take(&self) -> Result<Place, usize> {
        let limit = self.limit.unwrap_or(usize::MAX);
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < limit).then_some(open + 1)
            })
            .map(|_| Place(Arc::clone(&self.open)))
            .map_err(|_| limit)
    }

    /// Returns the number of places in use.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_and_places_come_back() {
        let places = Places::new(Some(2));
        let first = places.take().unwrap();
        let _second = places.take().unwrap();
        assert_eq!(places.take().unwrap_err(), 2);
        assert_eq!(places.open(), 2);
        drop(first);
        assert!(places.take().is_ok());
        let endless = Places::new(None);
        let all: Vec<_> = (0..1000).map(|_| endless.take().unwrap()).collect();
        assert_eq!(endless.open(), all.len());
    }
}
