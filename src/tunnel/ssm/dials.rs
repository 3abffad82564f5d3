//! Which stream a ConnectToPortError is about.
//!
//! The flag names no stream. The agent dials inside its accept loop, one stream after the other in
//! the order of their SYNs, sends the flag when a dial fails and then that stream's FIN. So the flag
//! is about the oldest stream whose dial may still be going on, and any sign of life of a stream
//! settles all before it.

use std::collections::VecDeque;

use smux::StreamId;

/// The dials that may still be going on, oldest first.
#[derive(Debug, Default)]
pub(super) struct Dials {
    pending: VecDeque<StreamId>,
    /// Flags taken for streams that we have given up and that may have been about a later one.
    unclaimed: usize,
}

impl Dials {
    /// A stream was opened.
    pub(super) fn begin(&mut self, id: StreamId) {
        self.pending.push_back(id);
    }

    /// A stream was given up before its SYN left: the agent never hears of it.
    pub(super) fn forget(&mut self, id: StreamId) {
        self.pending.retain(|pending| *pending != id);
    }

    /// The stream received bytes.
    pub(super) fn succeeded(&mut self, id: StreamId) {
        self.settle(id);
    }

    /// The agent closed the stream. True when that was a refused dial whose flag went to a stream
    /// we had given up.
    pub(super) fn finished(&mut self, id: StreamId) -> bool {
        let dialling = self.pending.contains(&id);
        let refused = dialling && self.unclaimed > 0;
        if refused {
            self.unclaimed -= 1;
        }
        self.settle(id);
        refused
    }

    /// A ConnectToPortError came. The stream it is about, if that is not one we have given up
    /// (`is_open` tells).
    pub(super) fn refused(&mut self, is_open: impl Fn(StreamId) -> bool) -> Option<StreamId> {
        let id = self.pending.pop_front()?;
        if is_open(id) {
            return Some(id);
        }
        // Without a later stream it cannot have been about one.
        self.unclaimed += usize::from(!self.pending.is_empty());
        None
    }

    fn settle(&mut self, id: StreamId) {
        self.pending.retain(|pending| *pending > id);
        if self.pending.is_empty() {
            self.unclaimed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(mux: &mut smux::Session, count: usize) -> Vec<StreamId> {
        (0..count).map(|_| mux.open().unwrap()).collect()
    }

    fn dialling(count: usize) -> (Dials, Vec<StreamId>) {
        let ids = ids(&mut smux::Session::new(smux::Role::Client), count);
        let mut dials = Dials::default();
        ids.iter().for_each(|id| dials.begin(*id));
        (dials, ids)
    }

    #[test]
    fn the_oldest_that_may_still_dial_is_refused() {
        let (mut dials, ids) = dialling(4);
        dials.succeeded(ids[1]); // So the dial of the first is over as well.
        assert_eq!(dials.refused(|_| true), Some(ids[2]));
        assert!(!dials.finished(ids[2]));
        assert_eq!(dials.refused(|_| true), Some(ids[3]));
        assert_eq!(dials.refused(|_| true), None);
    }

    #[test]
    fn a_stream_given_up_takes_its_own_refusal() {
        let (mut dials, ids) = dialling(2);
        let open = |id| id == ids[1];
        assert_eq!(dials.refused(open), None, "the first was given up");
        dials.succeeded(ids[1]);
        assert!(!dials.finished(ids[1]));
    }

    #[test]
    fn a_refusal_taken_by_a_given_up_stream_finds_its_owner_by_the_fin() {
        let (mut dials, ids) = dialling(2);
        // The first was given up, its dial worked; the flag is about the second.
        assert_eq!(dials.refused(|id| id == ids[1]), None);
        assert!(dials.finished(ids[1]));
    }

    #[test]
    fn a_stream_the_agent_never_heard_of_takes_none() {
        let (mut dials, ids) = dialling(2);
        dials.forget(ids[0]);
        assert_eq!(dials.refused(|id| id == ids[1]), Some(ids[1]));
    }
}
