//! State that the connections of all ports share, in every protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::admission::Guard;
use crate::base::event_limit::{EventDecision, EventLimiter};
use crate::base::names::TargetName;
use crate::config::ServeSettings;
use crate::failure::connection::ConnectionError;
use crate::failure::route::RouteError;
use crate::observe::Observed;
use crate::targets::connection_limit::ConnectionLimit;

/// Maximum number of log lines about connections with an unknown target, within [`LINES_WINDOW`].
/// Any process that reaches the port can cause them.
const MOST_LINES: u32 = 64;
const LINES_WINDOW: Duration = Duration::from_secs(1);

/// State that the connections of all ports share.
pub struct ServingState {
    /// Decides which clients are served.
    pub(crate) guard: Arc<Guard>,
    /// Time limit for the startup of a client.
    pub(crate) startup_timeout: Duration,
    pub(crate) connection_limit: ConnectionLimit,
    /// Limits the log lines about connections with an unknown target.
    log_limit: EventLimiter,
    /// True once new clients are refused.
    draining: AtomicBool,
    /// Notified when an unreachable target can be reached again.
    pub recovered: Notify,
    /// The metrics.
    pub observed: Arc<Observed>,
    /// Cancelled when the remaining connections must end.
    pub stop: CancellationToken,
}

/// Signals that end a connection: the end of the program, or that of its target.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionStop {
    /// Cancelled when the program ends its connections.
    pub(crate) program: CancellationToken,
    /// Cancelled when the stopped target ends its connections.
    pub(crate) target: CancellationToken,
}

impl ConnectionStop {
    /// Waits until the connection must end. Cancel-safe.
    pub(crate) async fn requested(&self) {
        tokio::select! {
            () = self.program.cancelled() => {}
            () = self.target.cancelled() => {}
        }
    }

    /// Returns whether only the target is stopped.
    pub(crate) fn is_of_target(&self) -> bool {
        self.target.is_cancelled() && !self.program.is_cancelled()
    }

    /// Returns the error for a client of `target` that has not logged in yet.
    pub(crate) fn error(&self, target: &TargetName) -> ConnectionError {
        match self.is_of_target() {
            true => RouteError::Stopped {
                target: target.clone(),
            }
            .into(),
            false => ConnectionError::ShuttingDown,
        }
    }
}

impl ServingState {
    /// Creates the state for these settings.
    #[must_use]
    pub fn new(serve: &ServeSettings) -> Self {
        Self {
            guard: Arc::new(Guard::of_clients(serve.peer_check)),
            startup_timeout: serve.startup_timeout,
            connection_limit: ConnectionLimit::new(Some(serve.max_connections)),
            log_limit: EventLimiter::new(MOST_LINES, LINES_WINDOW),
            draining: AtomicBool::new(false),
            recovered: Notify::new(),
            observed: Arc::new(Observed::new(serve.max_connections)),
            stop: CancellationToken::new(),
        }
    }

    /// Refuses new clients from now on, because the program is stopping. Cancel requests are still
    /// served.
    pub fn refuse_new_clients(&self) {
        self.draining.store(true, Ordering::Release);
        self.observed.drains();
    }

    /// Returns whether new clients are refused.
    #[must_use]
    pub fn refuses_new_clients(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns whether one more line about a connection with an unknown target may be logged.
    pub(crate) fn may_log(&self) -> bool {
        match self.log_limit.next() {
            EventDecision::Through { held: 0 } => true,
            EventDecision::Through { held } => {
                warn!(
                    lines = held,
                    "suppressed lines about connections that ended before they chose a target"
                );
                true
            }
            EventDecision::First => {
                warn!(
                    "more than {MOST_LINES} connections within a second ended before they chose a target; suppressing further lines"
                );
                false
            }
            EventDecision::Held => false,
        }
    }
}
