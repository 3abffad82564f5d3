//! The step that a client waits for, for the report of one that leaves meanwhile.

use std::sync::{Mutex, PoisonError};

use pg_handshake::Stage;
use tokio::time::Instant;

use crate::failure::connection::SessionError;
use crate::postgres::client::startup::Local;
use crate::postgres::target::context::Rooms;

/// The first step where a database is configured by its identifier.
pub(in crate::postgres) const DISCOVERY: &str = "the lookup of the database at RDS";
/// The step before a tunnel is asked for.
pub(in crate::postgres) const LOOKUP: &str = "the DNS lookup of the host name";
/// The step after a refused token.
pub(in crate::postgres) const IDENTITY: &str = "sts:GetCallerIdentity";

/// The step that a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Tunnel and token, which know it themselves.
    Connecting,
    At(&'static str),
}

/// Since when a client waits, and for what.
#[derive(Debug)]
pub(in crate::postgres) struct Waiting {
    since: Instant,
    step: Mutex<Step>,
}

impl Default for Waiting {
    /// Starts with the lookup of the host name.
    fn default() -> Self {
        Self {
            since: Instant::now(),
            step: Mutex::new(Step::At(LOOKUP)),
        }
    }
}

impl Waiting {
    /// Waits for `step` from now on, a noun.
    pub(in crate::postgres) fn at(&self, step: &'static str) {
        self.enter(Step::At(step));
    }

    /// Waits for tunnel and token from now on.
    pub(in crate::postgres) fn connecting(&self) {
        self.enter(Step::Connecting);
    }

    /// Waits for the database from now on, at this stage of a login.
    pub(in crate::postgres) fn for_database(&self, stage: Stage) {
        self.at(match stage {
            Stage::TlsAnswer => "the database's answer to the TLS request",
            Stage::TlsHandshake => "the TLS handshake with the database",
            Stage::Authentication | Stage::PasswordWanted => {
                "the database's answer to the startup message"
            }
            Stage::PasswordSent => "the database's answer to the password",
            Stage::Starting | Stage::Ready | Stage::CancelSent => {
                "the database to become ready after the login"
            }
        });
    }

    fn enter(&self, step: Step) {
        // It is written whole.
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn step(&self, rooms: Option<&Rooms>) -> Option<&'static str> {
        let step = *self.step.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::At(step) => Some(step),
            Step::Connecting => rooms.and_then(Rooms::waits_for),
        }
    }

    /// Makes the error for a client that has left.
    pub(in crate::postgres) fn left(&self, rooms: Option<&Rooms>) -> SessionError {
        SessionError::ClientLeft {
            after: self.since.elapsed(),
            waiting: self.step(rooms),
        }
    }

    /// Does something for a client for as long as it is there.
    ///
    /// # Errors
    /// Those of `work`, and [`SessionError::ClientLeft`].
    pub(in crate::postgres) async fn while_there<T>(
        &self,
        (client, rooms): (&mut Local, Option<&Rooms>),
        work: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        tokio::select! {
            done = work => done,
            _ = client.gone() => Err(self.left(rooms)),
        }
    }
}
