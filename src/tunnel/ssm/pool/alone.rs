//! Sessions with one stream each: two carriers of a bundle in one session would halve the rate of
//! both.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Outcome, SessionPool};
use crate::base::background;
use crate::base::names::NodeId;
use crate::tunnel::TunnelError;
use crate::tunnel::ssm::placement::Availability;
use crate::tunnel::ssm::session::SsmSession;
use crate::tunnel::ssm::state::{Repeatability, StreamSlot};
use crate::tunnel::ssm::stream::SsmStream;

impl SessionPool {
    /// Returns a stream in a session that has no other one, through `on` if that is given; starts a
    /// session if none is free. `None`: there are `most` sessions already, or are about to be.
    ///
    /// A cancelled call loses a start that is under way: call it in a task that outlives clients.
    ///
    /// # Errors
    /// The reason why no session could be started.
    pub(in crate::tunnel::ssm) async fn open_alone(
        self: &Arc<Self>,
        on: Option<&NodeId>,
        most: usize,
    ) -> Result<Option<(SsmSession, SsmStream)>, TunnelError> {
        loop {
            if let Some(found) = self.take_free(on)? {
                return Ok(Some(found));
            }
            if !self.may_start_alone(most)? {
                return Ok(None);
            }
            let started = background::outcome(Box::pin(self.starter.start(on))).await;
            let started = started.unwrap_or_else(|stopped| Err(TunnelError::Internal(stopped)));
            self.started_alone(&started);
            started?;
        }
    }

    /// Opens a stream in a session without any.
    fn take_free(
        &self,
        on: Option<&NodeId>,
    ) -> Result<Option<(SsmSession, SsmStream)>, TunnelError> {
        let mut sessions = self.lock();
        if sessions.closed {
            return Err(TunnelError::ShuttingDown);
        }
        let standings = sessions.standings(self.settings.dial_timeout, None);
        let is_free = |standing: &Availability| matches!(standing, Availability::Up(load) if load.streams == 0 && !load.troubled);
        let free = sessions.all.iter().zip(&standings);
        let free = free.filter(|(session, standing)| {
            is_free(standing) && on.is_none_or(|on| session.bastion() == on)
        });
        for (session, _) in free {
            let slot = StreamSlot::new(self.endpoint.clone(), Repeatability::Repeatable, None);
            if let Ok(stream) = session.open(slot) {
                return Ok(Some((session.clone(), stream)));
            }
        }
        Ok(None)
    }

    /// Returns true, and counts a start, if there may be a further session.
    fn may_start_alone(&self, most: usize) -> Result<bool, TunnelError> {
        let mut sessions = self.lock();
        let standings = sessions.standings(self.settings.dial_timeout, None);
        let counts =
            |s: &&Availability| matches!(s, Availability::Up(_) | Availability::Interrupted);
        if standings.iter().filter(counts).count() + sessions.starting_alone >= most {
            return Ok(false);
        }
        if let Some(error) = sessions.may_not_start(false, Instant::now()) {
            return Err(error);
        }
        if sessions.starting_alone == 0 {
            sessions.starting_since = Some(Instant::now());
        }
        sessions.starting_alone += 1;
        Ok(true)
    }

    fn started_alone(self: &Arc<Self>, outcome: &Outcome) {
        let mut sessions = self.lock();
        sessions.starting_alone -= 1;
        self.settle(&mut sessions, outcome);
    }

    /// Returns the number of sessions that are open or being started.
    pub(in crate::tunnel::ssm) fn open_sessions(&self) -> usize {
        let mut sessions = self.lock();
        let standings = sessions.standings(self.settings.dial_timeout, None);
        standings.len() + usize::from(sessions.starting().is_some()) + sessions.starting_alone
    }
}
