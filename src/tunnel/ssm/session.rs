//! [`Session`]: the handle to one running session, as the pool keeps it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::driver::Phase;
use super::placement::Standing;
use super::state::Shared;
use super::stream::{NotOpened, SsmStream};
use crate::config::Endpoint;
use crate::tunnel::TunnelError;

/// A session with a driver. Cheap to clone.
#[derive(Clone)]
pub(super) struct Session {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    bastion: Arc<str>,
    /// When its start began. The agent resolves the database's name once, after that.
    began: Instant,
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        bastion: Arc<str>,
        began: Instant,
    ) -> Self {
        Self {
            shared,
            phase,
            bastion,
            began,
        }
    }

    pub(super) fn bastion(&self) -> &Arc<str> {
        &self.bastion
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Waits for the handshake, whose deadline is the channel's own.
    pub(super) async fn established(&mut self) -> Result<(), TunnelError> {
        let phase = self
            .phase
            .wait_for(|phase| !matches!(phase, Phase::Starting))
            .await;
        match phase.as_deref() {
            Ok(Phase::Ended(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(TunnelError::Protocol {
                reason: "the session's driver ended without a reason".to_owned(),
            }),
        }
    }

    /// How it stands, for the choice of a place.
    pub(super) fn standing(&self, dial_timeout: Duration) -> Standing {
        // Without a driver there is nobody to change the phase.
        if self.phase.has_changed().is_err() {
            return Standing::Ended;
        }
        let phase = self.phase.borrow().clone();
        let state = self.shared.lock();
        match phase {
            Phase::Ended(_) => Standing::Ended,
            _ if state.end.is_some() => Standing::Ended,
            _ if state.retired || state.closing => Standing::Leaving,
            Phase::Up => Standing::Up(state.load(dial_timeout)),
            Phase::Starting | Phase::Resuming => Standing::Interrupted,
        }
    }

    pub(super) fn open(&self, endpoint: &Endpoint) -> Result<SsmStream, NotOpened> {
        SsmStream::open(&self.shared, &self.bastion, endpoint)
    }

    /// No new streams; the session ends with its last one.
    pub(super) fn retire(&self) {
        self.shared.lock().retired = true;
        self.shared.wake.notify_one();
    }

    /// Retires a session whose agent has been at the same dial for `dial_timeout` and tells the
    /// streams that wait behind it. Otherwise says when that would be; `None`: it is at no dial.
    pub(super) fn strand_if_stuck(&self, dial_timeout: Duration) -> Stuck {
        let mut state = self.shared.lock();
        let Some(since) = state.dials.waiting_since() else {
            return Stuck::No;
        };
        let limit = since + dial_timeout;
        if Instant::now() < limit {
            return Stuck::NotBefore(limit);
        }
        state.strand();
        drop(state);
        self.shared.wake.notify_one();
        Stuck::Yes
    }

    /// Since when it has had no stream.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.shared.lock().idle_since()
    }

    /// Ends the session in order.
    pub(super) fn close(&self) {
        self.shared.close();
    }

    /// Ends the session unless it has got a stream meanwhile.
    pub(super) fn close_if_idle(&self) {
        let mut state = self.shared.lock();
        if state.streams.is_empty() {
            state.closing = true;
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

/// Whether an agent is stuck in a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// It is at no dial.
    No,
    /// Not yet.
    NotBefore(Instant),
    /// Yes: the session is retired.
    Yes,
}
