//! The set of streams that are over.

use std::collections::BTreeMap;

/// Set of numbers, stored as ranges: streams are opened in order, so the ranges are few.
#[derive(Debug, Default)]
pub(crate) struct FinishedIds {
    /// First and last number of each range.
    ranges: BTreeMap<u32, u32>,
}

impl FinishedIds {
    /// Returns true if the set contains `id`.
    pub(crate) fn contains(&self, id: u32) -> bool {
        let range = self.ranges.range(..=id).next_back();
        range.is_some_and(|(_, last)| id <= *last)
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, id: u32) {
        if self.contains(id) {
            return;
        }
        let (mut first, mut last) = (id, id);
        let before = self.ranges.range(..id).next_back();
        if let Some((&start, &end)) = before
            && end.checked_add(1) == Some(id)
        {
            self.ranges.remove(&start);
            first = start;
        }
        if let Some(next) = id.checked_add(1)
            && let Some(end) = self.ranges.remove(&next)
        {
            last = end;
        }
        self.ranges.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_range() {
        let mut set = FinishedIds::default();
        for id in [5, 1, 3, 2, u32::MAX, 4, u32::MAX - 1, 3, 0] {
            set.insert(id);
            assert!(set.contains(id));
        }
        let ranges: Vec<_> = set.ranges.iter().map(|(a, b)| (*a, *b)).collect();
        assert_eq!(ranges, [(0, 5), (u32::MAX - 1, u32::MAX)]);
        assert!(!set.contains(6));
        assert!(!set.contains(u32::MAX - 2));
    }
}
