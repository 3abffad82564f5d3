//! [`SsmSession`]: the pool's handle to one running session.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::driver::SessionPhase;
use super::placement::Availability;
use super::state::{SharedSession, StreamSlot};
use super::stream::{NotOpened, SsmStream};
use crate::base::names::NodeId;
use crate::base::names::SessionId;
use crate::tunnel::{SessionState, SessionStats, SpareMark, TunnelError, TunnelTotals};

/// Interval of checks of a dial when the round trip is unknown.
const PATH_UNKNOWN: Duration = Duration::from_secs(1);

/// A session with a driver. Cheap to clone.
#[derive(Clone)]
pub(super) struct SsmSession {
    shared: Arc<SharedSession>,
    phase: watch::Receiver<SessionPhase>,
    bastion: NodeId,
    /// Its id at AWS.
    id: SessionId,
    /// Time at which its start began. The agent resolves the database's name once, after that.
    began: Instant,
}

impl SsmSession {
    pub(super) fn new(
        shared: Arc<SharedSession>,
        phase: watch::Receiver<SessionPhase>,
        bastion: NodeId,
        id: SessionId,
        began: Instant,
    ) -> Self {
        Self {
            shared,
            phase,
            bastion,
            id,
            began,
        }
    }

    pub(super) fn bastion(&self) -> &NodeId {
        &self.bastion
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Waits for the handshake, which has the channel's deadline.
    pub(super) async fn established(&mut self) -> Result<(), TunnelError> {
        let phase = self
            .phase
            .wait_for(|phase| !matches!(phase, SessionPhase::Starting))
            .await;
        match phase.as_deref() {
            Ok(SessionPhase::Ended(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(TunnelError::Protocol {
                reason: "the session's driver task ended unexpectedly".into(),
            }),
        }
    }

    /// Returns the session's availability, for placement.
    pub(super) fn standing(&self, dial_timeout: Duration) -> Availability {
        // Without a driver the phase can no longer change.
        if self.phase.has_changed().is_err() {
            return Availability::Ended;
        }
        let phase = self.phase.borrow().clone();
        let state = self.shared.lock();
        match phase {
            SessionPhase::Ended(_) => Availability::Ended,
            _ if state.end.is_some() => Availability::Ended,
            _ if state.retired || state.closing => Availability::Leaving,
            SessionPhase::Up if state.interrupted.is_none() => {
                Availability::Up(state.load(dial_timeout))
            }
            // The duration is unknown: it does not keep others from starting.
            _ if state
                .interrupted
                .is_some_and(|at| at.elapsed() > dial_timeout) =>
            {
                Availability::Leaving
            }
            SessionPhase::Up | SessionPhase::Starting | SessionPhase::Resuming => {
                Availability::Interrupted
            }
        }
    }

    /// Returns true if its connection to the service is lost but not given up, for however long.
    pub(super) fn is_interrupted(&self) -> bool {
        let driven = self.phase.has_changed().is_ok();
        let ended = matches!(*self.phase.borrow(), SessionPhase::Ended(_));
        let state = self.shared.lock();
        driven && !ended && state.end.is_none() && state.interrupted.is_some()
    }

    /// Returns true if a panic has ended it.
    pub(super) fn panicked(&self) -> bool {
        matches!(self.shared.lock().end, Some(TunnelError::Internal(_)))
    }

    /// Returns its totals so far.
    pub(super) fn totals(&self) -> TunnelTotals {
        self.shared.lock().totals()
    }

    /// Returns its state and totals, for status and metrics.
    pub(super) fn stats(&self, dial_timeout: Duration) -> SessionStats {
        let state = match self.standing(dial_timeout) {
            _ if self.is_interrupted() => SessionState::Interrupted,
            Availability::Up(_) => SessionState::Up,
            Availability::Interrupted => SessionState::Interrupted,
            Availability::Leaving | Availability::Ended => SessionState::Leaving,
        };
        let shared = self.shared.lock();
        let load = shared.load(dial_timeout);
        SessionStats {
            id: Some(self.id.to_string()),
            bastion: Some(self.bastion.to_string()),
            state,
            to_relay: false,
            streams: load.streams,
            spares: shared.streams.len() - load.streams,
            busy: load.busy,
            totals: shared.totals(),
            age: self.began.elapsed(),
            round_trip: shared.channel.stats().srtt,
        }
    }

    pub(super) fn open(&self, slot: StreamSlot) -> Result<SsmStream, NotOpened> {
        SsmStream::open(&self.shared, &self.bastion, slot)
    }

    /// Returns true if a connection moves more bytes than a login does.
    pub(super) fn has_bulk(&self) -> bool {
        self.shared.lock().has_bulk()
    }

    /// Returns true if this stream for a later connection is in the session.
    pub(super) fn has_spare(&self, mark: &SpareMark) -> bool {
        self.shared.lock().has_spare(mark)
    }

    /// Returns true if the agent has proved that it accepts the streams' data, and the round trip
    /// to it.
    pub(super) fn is_proven(&self) -> (bool, Duration) {
        let state = self.shared.lock();
        let round_trip = state.channel.stats().srtt;
        (state.proven, round_trip.unwrap_or_default())
    }

    /// Returns true if it failed early: it ended, or its agent fell silent, before it received any
    /// data.
    pub(super) fn failed_early(&self) -> bool {
        self.shared.lock().early_failure().is_some()
    }

    /// Returns the error of an early failure, on the first call only.
    pub(super) fn count_early_failure(&self) -> Option<TunnelError> {
        self.shared.lock().count_early_failure()
    }

    /// Returns the time since which its agent has owed an answer in silence, if that is too long.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.shared.lock().silent_since
    }

    /// Retires the session unless the agent was heard after `since`.
    pub(super) fn retire_if_unheard(&self, since: Instant) {
        let mut state = self.shared.lock();
        if state.heard <= since && !state.retired {
            state.retired = true;
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Returns true if the agent's last dial was refused.
    pub(super) fn refused_last(&self) -> bool {
        self.shared.lock().refused_last
    }

    /// Retires the session: it accepts no new streams and ends with its last one.
    pub(super) fn retire(&self) {
        self.shared.lock().retired = true;
        self.shared.wake.notify_one();
    }

    /// Retires a session with an agent that has been at the same dial for `dial_timeout`, as far as
    /// is visible, and notifies the waiting streams. Otherwise returns the time at which that would
    /// happen; [`StuckDial::No`]: it is at no dial.
    pub(super) fn strand_if_stuck(&self, dial_timeout: Duration) -> StuckDial {
        let mut state = self.shared.lock();
        let Some(since) = state.dials.waiting_since() else {
            return StuckDial::No;
        };
        let (now, limit) = (Instant::now(), since + dial_timeout);
        if now < limit {
            return StuckDial::NotBefore(limit);
        }
        // Without a sign of life since then the path may be stuck, not the agent; the path has a
        // deadline of its own.
        if state.interrupted.is_some() || state.heard <= since {
            return StuckDial::NotBefore(now + PATH_UNKNOWN);
        }
        // The outcome of the dial may be in the data that waits for missing messages.
        match state.long_gap() {
            Some(gap) => state.delay(gap),
            None => state.strand(),
        }
        drop(state);
        self.shared.wake.notify_one();
        StuckDial::Yes
    }

    /// Returns the time since which no connection has used it.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.shared.lock().idle_since()
    }

    /// Ends the session in order.
    pub(super) fn close(&self) {
        self.shared.close();
    }

    /// Ends the session unless a connection uses it meanwhile. Streams for later connections are
    /// closed first.
    pub(super) fn close_if_idle(&self) {
        let mut state = self.shared.lock();
        if !state.is_in_use() {
            state.retired = true;
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

/// State of an agent's dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StuckDial {
    /// It is at no dial.
    No,
    /// Not yet.
    NotBefore(Instant),
    /// It is stuck: the session is retired.
    Yes,
}
