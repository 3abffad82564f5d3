//! The step that a client waits for, for the report of a client that leaves during it.

use std::sync::{Mutex, PoisonError};

use pg_handshake::UpstreamStage;
use tokio::time::Instant;

use crate::failure::connection::ConnectionError;
use crate::postgres::client::startup::LocalClient;
use crate::postgres::target::PgContext;

/// First step for a database that is configured by its identifier.
pub(in crate::postgres) const DISCOVERY: &str = "the lookup of the database at RDS";
/// Step before the tunnel.
pub(in crate::postgres) const LOOKUP: &str = "the DNS lookup of the host name";
/// Step after a rejected token.
pub(in crate::postgres) const IDENTITY: &str = "sts:GetCallerIdentity";

/// Current step of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitStep {
    /// Tunnel and token, which track their own steps.
    Connecting,
    At(&'static str),
}

/// Start of a client's wait, and its current step.
#[derive(Debug)]
pub(in crate::postgres) struct ClientWait {
    since: Instant,
    step: Mutex<WaitStep>,
}

impl Default for ClientWait {
    /// Starts at the lookup of the host name.
    fn default() -> Self {
        Self {
            since: Instant::now(),
            step: Mutex::new(WaitStep::At(LOOKUP)),
        }
    }
}

impl ClientWait {
    /// Sets the current step, a noun.
    pub(in crate::postgres) fn at(&self, step: &'static str) {
        self.enter(WaitStep::At(step));
    }

    /// Sets the step to tunnel and token.
    pub(in crate::postgres) fn connecting(&self) {
        self.enter(WaitStep::Connecting);
    }

    /// Sets the step to this stage of the login.
    pub(in crate::postgres) fn for_database(&self, stage: UpstreamStage) {
        self.at(match stage {
            UpstreamStage::TlsAnswer => "the database's answer to the TLS request",
            UpstreamStage::TlsHandshake => "the TLS handshake with the database",
            UpstreamStage::Authentication | UpstreamStage::PasswordWanted => {
                "the database's answer to the startup message"
            }
            UpstreamStage::PasswordSent => "the database's answer to the password",
            UpstreamStage::Starting | UpstreamStage::Ready | UpstreamStage::CancelSent => {
                "the database to become ready after the login"
            }
        });
    }

    fn enter(&self, step: WaitStep) {
        // Every write is one assignment.
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn step(&self, context: Option<&PgContext>) -> Option<&'static str> {
        let step = *self.step.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            WaitStep::At(step) => Some(step),
            WaitStep::Connecting => context.and_then(PgContext::waits_for),
        }
    }

    /// Creates the error for a client that has left.
    pub(in crate::postgres) fn left(&self, context: Option<&PgContext>) -> ConnectionError {
        ConnectionError::ClientLeft {
            after: self.since.elapsed(),
            waiting: self.step(context),
        }
    }

    /// Runs `work` until it completes or the client leaves.
    ///
    /// # Errors
    /// Those of `work`, and [`ConnectionError::ClientLeft`].
    pub(in crate::postgres) async fn while_there<T>(
        &self,
        client: &mut LocalClient,
        context: Option<&PgContext>,
        work: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        tokio::select! {
            done = work => done,
            _ = client.gone() => Err(self.left(context)),
        }
    }
}
