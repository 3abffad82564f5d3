//! Which stream a ConnectToPortError is about.
//!
//! The flag names no stream. The agent dials inside its accept loop, one stream after the other in
//! the order of their SYNs, sends the flag when a dial fails and then that stream's FIN. So the flag
//! is about the oldest stream whose dial may still be going on, and any sign of life of a stream
//! settles all before it.

use std::collections::VecDeque;

use smux::StreamId;
use tokio::time::Instant;

/// The dials that may still be going on, oldest first.
#[derive(Debug, Default)]
pub(super) struct Dials {
    pending: VecDeque<StreamId>,
    /// When the agent came to the first of them, as far as we know.
    since: Option<Instant>,
    /// Flags taken for streams that we have given up and that may have been about a later one.
    unclaimed: usize,
}

impl Dials {
    /// A stream was opened.
    pub(super) fn begin(&mut self, id: StreamId, now: Instant) {
        self.pending.push_back(id);
        self.since.get_or_insert(now);
    }

    /// The stream whose dial the agent is at.
    pub(super) fn first(&self) -> Option<StreamId> {
        self.pending.front().copied()
    }

    /// Whether nothing has shown yet what became of this stream's dial.
    pub(super) fn is_pending(&self, id: StreamId) -> bool {
        self.pending.contains(&id)
    }

    /// Since when the agent has been at the dial that all later ones wait for.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.since
    }

    /// The path was interrupted: what the agent did meanwhile could not reach us.
    pub(super) fn interrupted(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }

    fn next_is_dialled(&mut self, now: Instant) {
        self.since = self.pending.front().map(|_| now);
    }

    /// A stream was given up before its SYN left: the agent never hears of it.
    pub(super) fn forget(&mut self, id: StreamId, now: Instant) {
        let was_first = self.pending.front() == Some(&id);
        self.pending.retain(|pending| *pending != id);
        if was_first {
            self.next_is_dialled(now);
        }
    }

    /// The stream received bytes.
    pub(super) fn succeeded(&mut self, id: StreamId, now: Instant) {
        self.settle(id, now);
    }

    /// The agent closed the stream. True when that was a refused dial whose flag went to a stream
    /// we had given up.
    pub(super) fn finished(&mut self, id: StreamId, now: Instant) -> bool {
        let dialling = self.pending.contains(&id);
        let refused = dialling && self.unclaimed > 0;
        if refused {
            self.unclaimed -= 1;
        }
        self.settle(id, now);
        refused
    }

    /// A ConnectToPortError came. The stream it is about, if that is not one we have given up
    /// (`is_open` tells).
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
        // Without a later stream it cannot have been about one.
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

    fn ids(mux: &mut smux::Session, count: usize) -> Vec<StreamId> {
        (0..count).map(|_| mux.open().unwrap()).collect()
    }

    fn dialling(count: usize) -> (Dials, Vec<StreamId>) {
        let ids = ids(&mut smux::Session::new(smux::Role::Client), count);
        let mut dials = Dials::default();
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
        // The first was given up, its dial worked; the flag is about the second.
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
