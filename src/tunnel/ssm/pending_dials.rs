//! Attributes a ConnectToPortError to a stream.
//!
//! The flag names no stream. The agent dials inside its accept loop, one stream after the other in
//! the order of their SYNs, sends the flag when a dial fails and then that stream's FIN. So the
//! flag belongs to the oldest stream with an unsettled dial, and any sign of life of a stream
//! settles all before it.

use std::collections::VecDeque;

use smux::StreamId;
use tokio::time::Instant;

/// The unsettled dials, oldest first.
#[derive(Debug, Default)]
pub(super) struct PendingDials {
    pending: VecDeque<StreamId>,
    /// Time at which the agent began the first of them, as far as known.
    since: Option<Instant>,
    /// Flags attributed to abandoned streams that may have belonged to a later one.
    unclaimed: usize,
}

impl PendingDials {
    /// Records a stream that was opened.
    pub(super) fn begin(&mut self, id: StreamId, now: Instant) {
        self.pending.push_back(id);
        self.since.get_or_insert(now);
    }

    /// Returns the stream that the agent is dialling for.
    pub(super) fn first(&self) -> Option<StreamId> {
        self.pending.front().copied()
    }

    /// Returns true if the result of this stream's dial is unknown so far.
    pub(super) fn is_pending(&self, id: StreamId) -> bool {
        self.pending.contains(&id)
    }

    /// Returns the time since which the agent has been at the dial that all later ones wait for.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.since
    }

    /// Restarts the time after an interruption of the path, during which no result could arrive.
    pub(super) fn interrupted(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }

    fn next_is_dialled(&mut self, now: Instant) {
        self.since = self.pending.front().map(|_| now);
    }

    /// Removes a stream abandoned before its SYN left: the agent never learns of it.
    pub(super) fn forget(&mut self, id: StreamId, now: Instant) {
        let was_first = self.pending.front() == Some(&id);
        self.pending.retain(|pending| *pending != id);
        if was_first {
            self.next_is_dialled(now);
        }
    }

    /// Records that the stream received bytes.
    pub(super) fn succeeded(&mut self, id: StreamId, now: Instant) {
        self.settle(id, now);
    }

    /// Records that the agent closed the stream. Returns true if this was a refused dial with a
    /// flag that was attributed to an abandoned stream.
    pub(super) fn finished(&mut self, id: StreamId, now: Instant) -> bool {
        let dialling = self.pending.contains(&id);
        let refused = dialling && self.unclaimed > 0;
        if refused {
            self.unclaimed -= 1;
        }
        self.settle(id, now);
        refused
    }

    /// Handles a ConnectToPortError. Returns its stream, unless that is an abandoned one (`is_open`
    /// tells).
    pub(super) fn refused(
        &mut self,
        is_open: impl Fn(StreamId) -> bool,
        now: Instant,
    ) -> Option<StreamId> {
        let id = self.pending.pop_front()?;
        self.next_is_dialled(now);
        if is_open(id) {
            return Some(id);
        }
        // Without a later stream it cannot have belonged to one.
        self.unclaimed += usize::from(!self.pending.is_empty());
        None
    }

    fn settle(&mut self, id: StreamId, now: Instant) {
        let first = self.pending.front().copied();
        if first.is_none_or(|first| first > id) {
            return;
        }
        self.pending.retain(|pending| *pending > id);
        self.next_is_dialled(now);
        if self.pending.is_empty() {
            self.unclaimed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn ids(mux: &mut smux::Mux, count: usize) -> Vec<StreamId> {
        (0..count).map(|_| mux.open().unwrap()).collect()
    }

    fn dialling(count: usize) -> (PendingDials, Vec<StreamId>) {
        let ids = ids(&mut smux::Mux::new(smux::MuxRole::Client), count);
        let mut dials = PendingDials::default();
        ids.iter().for_each(|id| dials.begin(*id, now()));
        (dials, ids)
    }

    #[test]
    fn the_oldest_that_may_still_dial_is_refused() {
        let (mut dials, ids) = dialling(4);
        dials.succeeded(ids[1], now()); // So the dial of the first is over as well.
        assert_eq!(dials.refused(|_| true, now()), Some(ids[2]));
        assert!(!dials.finished(ids[2], now()));
        assert_eq!(dials.refused(|_| true, now()), Some(ids[3]));
        assert_eq!(dials.refused(|_| true, now()), None);
    }

    #[test]
    fn a_stream_given_up_takes_its_own_refusal() {
        let (mut dials, ids) = dialling(2);
        let open = |id| id == ids[1];
        assert_eq!(dials.refused(open, now()), None, "the first was given up");
        dials.succeeded(ids[1], now());
        assert!(!dials.finished(ids[1], now()));
    }

    #[test]
    fn a_refusal_taken_by_a_given_up_stream_finds_its_owner_by_the_fin() {
        let (mut dials, ids) = dialling(2);
        // The first was abandoned, its dial worked; the flag belongs to the second.
        assert_eq!(dials.refused(|id| id == ids[1], now()), None);
        assert!(dials.finished(ids[1], now()));
    }

    #[test]
    fn a_stream_the_agent_never_heard_of_takes_none() {
        let (mut dials, ids) = dialling(2);
        dials.forget(ids[0], now());
        assert_eq!(dials.refused(|id| id == ids[1], now()), Some(ids[1]));
    }

    #[test]
    fn the_wait_is_that_of_the_first_dial() {
        let (mut dials, ids) = dialling(3);
        let at = |seconds| now() + std::time::Duration::from_secs(seconds);
        let began = dials.waiting_since();
        let (second, third) = (at(5), at(9));
        dials.succeeded(ids[0], second);
        assert_ne!(dials.waiting_since(), began);
        assert_eq!(dials.waiting_since(), Some(second), "the second one's turn");
        dials.forget(ids[2], third);
        assert_eq!(dials.waiting_since(), Some(second), "it was not its turn");
        assert!(!dials.finished(ids[1], third));
        assert_eq!(dials.waiting_since(), None);
    }
}
