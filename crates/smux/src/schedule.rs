//! The order in which streams send.

use std::collections::VecDeque;

use crate::frame::StreamId;

/// Round robin in two classes: streams that were idle until now come first, once; after that visit
/// they queue with the others.
///
/// This is the rule of RFC 8290 (FQ-CoDel, section 4.2) without the byte deficit: one visit is at
/// most one packet. A query on a quiet connection thus never waits behind a bulk load, and no
/// stream can stay in the first class by continually sending a little.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    fresh: VecDeque<StreamId>,
    backlog: VecDeque<StreamId>,
}

/// A stream taken out of the schedule for one visit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScheduledStream {
    pub(crate) id: StreamId,
    fresh: bool,
}

impl Schedule {
    /// Adds a stream that was in neither class.
    pub(crate) fn add(&mut self, id: StreamId) {
        self.fresh.push_back(id);
    }

    /// Takes the next stream. Give it back with [`Schedule::served`] or [`Schedule::skipped`];
    /// otherwise it is out of the schedule.
    pub(crate) fn next(&mut self) -> Option<ScheduledStream> {
        if let Some(id) = self.fresh.pop_front() {
            return Some(ScheduledStream { id, fresh: true });
        }
        let id = self.backlog.pop_front()?;
        Some(ScheduledStream { id, fresh: false })
    }

    /// Ends a stream's visit. Returns false when the stream leaves the schedule: it has nothing
    /// more to send and this was not its first visit.
    pub(crate) fn served(&mut self, turn: ScheduledStream, more: bool) -> bool {
        // A fresh stream waits out one round even when empty, so that it cannot come back as fresh
        // before the others had their visit.
        let keep = more || (turn.fresh && !self.backlog.is_empty());
        if keep {
            self.backlog.push_back(turn.id);
        }
        keep
    }

    /// Puts back a stream for which nothing fitted; it keeps its place.
    pub(crate) fn skipped(&mut self, turn: ScheduledStream) {
        if turn.fresh {
            self.fresh.push_front(turn.id);
        } else {
            self.backlog.push_front(turn.id);
        }
    }

    /// Iterates over all streams in the schedule, next first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = StreamId> {
        self.fresh.iter().chain(&self.backlog).copied()
    }
}
