//! Folding of repeated events.
//!
//! The first events of a kind are shown. Repeats within a minute are counted, and the count is
//! reported once a minute while they last. A pure machine: the caller passes the time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two reports about the same kind of event.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of kinds to remember. Events of further kinds are all shown.
const MOST_KINDS: usize = 512;

/// Count of repeats that were not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoldedRepeats<S> {
    /// Text about the kind, as passed with its last repeat.
    pub(super) summary: S,
    pub(super) count: u64,
    /// Time since the last report.
    pub(super) within: Duration,
}

struct Kind<S> {
    since: Instant,
    shown: u32,
    held: u64,
    summary: Option<S>,
}

/// Kinds of events within the last minute.
pub(super) struct Folding<S> {
    kinds: HashMap<String, Kind<S>>,
    /// Time before which no minute ends.
    quiet_until: Option<Instant>,
}

impl<S> Default for Folding<S> {
    fn default() -> Self {
        Self {
            kinds: HashMap::new(),
            quiet_until: None,
        }
    }
}

impl<S> Folding<S> {
    /// Returns true if an event of this kind is to be shown: the first `allowance` ones within a
    /// minute. Call [`Self::due`] before, with the same time.
    pub(super) fn admit(
        &mut self,
        key: String,
        allowance: u32,
        now: Instant,
        summary: impl FnOnce() -> S,
    ) -> bool {
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&key) {
            return true;
        }
        self.quiet_until.get_or_insert(now + WINDOW);
        let kind = self.kinds.entry(key).or_insert(Kind {
            since: now,
            shown: 0,
            held: 0,
            summary: None,
        });
        if kind.shown < allowance {
            kind.shown += 1;
            return true;
        }
        kind.held += 1;
        kind.summary = Some(summary());
        false
    }

    /// Returns the repeats to report. A kind without repeats in its minute is forgotten, so that its
    /// next event is shown.
    pub(super) fn due(&mut self, now: Instant) -> Vec<FoldedRepeats<S>> {
        let mut due = Vec::new();
        if self.quiet_until.is_none_or(|until| now < until) {
            return due;
        }
        self.kinds.retain(|_, kind| {
            let within = now.saturating_duration_since(kind.since);
            if within < WINDOW {
                return true;
            }
            let Some(summary) = kind.summary.take() else {
                return false;
            };
            due.push(FoldedRepeats {
                summary,
                count: std::mem::take(&mut kind.held),
                within,
            });
            kind.since = now;
            true
        });
        let ends = self.kinds.values().map(|kind| kind.since + WINDOW);
        self.quiet_until = ends.min();
        due
    }

    /// Returns all repeats that were not reported, and forgets all kinds.
    pub(super) fn finish(&mut self, now: Instant) -> Vec<FoldedRepeats<S>> {
        let kinds = self.kinds.drain().map(|(_, kind)| kind);
        let held = kinds.filter_map(|kind| {
            Some(FoldedRepeats {
                summary: kind.summary?,
                count: kind.held,
                within: now.saturating_duration_since(kind.since),
            })
        });
        held.collect()
    }

    /// Returns the time of the next report; `None` if there is nothing to report.
    pub(super) fn next(&self) -> Option<Instant> {
        let held = self.kinds.values().filter(|kind| kind.held > 0);
        held.map(|kind| kind.since + WINDOW).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admit(folding: &mut Folding<&'static str>, key: &'static str, now: Instant) -> bool {
        folding.admit(key.to_owned(), 1, now, || key)
    }

    #[test]
    fn repeats_are_counted_and_reported_once_a_minute() {
        let (start, mut folding) = (Instant::now(), Folding::default());
        assert!(admit(&mut folding, "a", start));
        assert_eq!(folding.next(), None);
        for second in 1..=12 {
            assert!(!admit(&mut folding, "a", start + second * SECOND));
        }
        assert!(
            admit(&mut folding, "b", start + 13 * SECOND),
            "another kind"
        );
        assert_eq!(folding.next(), Some(start + WINDOW));
        assert_eq!(folding.due(start + 59 * SECOND), []);
        let report = |count, within| FoldedRepeats {
            summary: "a",
            count,
            within,
        };
        assert_eq!(folding.due(start + WINDOW), [report(12, WINDOW)]);
        assert_eq!(folding.next(), None);
        assert!(
            !admit(&mut folding, "a", start + WINDOW + SECOND),
            "they go on"
        );
        assert_eq!(folding.due(start + 2 * WINDOW), [report(1, WINDOW)]);
        assert_eq!(folding.due(start + 3 * WINDOW), [], "none in this minute");
        assert!(admit(&mut folding, "a", start + 3 * WINDOW), "shown again");
    }

    #[test]
    fn the_end_reports_what_was_held() {
        let (start, mut folding) = (Instant::now(), Folding::default());
        assert!(admit(&mut folding, "a", start));
        assert!(!admit(&mut folding, "a", start));
        let ended = folding.finish(start + 20 * SECOND);
        assert_eq!((ended[0].count, ended[0].within), (1, 20 * SECOND));
        assert_eq!(folding.finish(start + 21 * SECOND), []);
        assert!(admit(&mut folding, "a", start + 22 * SECOND));
    }

    #[test]
    fn an_allowance_shows_more_of_a_kind() {
        let (start, mut folding) = (Instant::now(), Folding::default());
        let shown = (0..9).filter(|_| folding.admit("a".to_owned(), 5, start, || "a"));
        assert_eq!(shown.count(), 5);
        assert_eq!(folding.due(start + WINDOW)[0].count, 4);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_lost_by_that() {
        let (start, mut folding) = (Instant::now(), Folding::default());
        for kind in 0..10 * MOST_KINDS {
            assert!(folding.admit(kind.to_string(), 1, start, || ()));
        }
        assert_eq!(folding.kinds.len(), MOST_KINDS);
        assert!(folding.admit("new".to_owned(), 1, start, || ()));
        assert!(folding.admit("new".to_owned(), 1, start, || ()));
    }
}
