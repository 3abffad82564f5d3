//! The account's Session Manager preferences, and the clock that ends sessions by them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::aws::session::Session;
use crate::harness::sync::lock;

/// What `channel_closed` says after too long without data, as users of the service report it.
pub const IDLE_REASON: &str = "Your session timed out due to inactivity and has been terminated.";
/// What `channel_closed` says at the end of the maximum duration. No report quotes the service's
/// own words, so these are modelled on [`IDLE_REASON`].
pub const MAXIMUM_REASON: &str =
    "Your session has reached its maximum duration and has been terminated.";

/// Limits of sessions. As at AWS, a change reaches only sessions started after it, except for
/// `close_sockets_after`, which is read when a WebSocket is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// A session ends after this long without stream messages in either direction.
    /// Acknowledgements and WebSocket pings do not count; the multiplexer's own keepalive does, being
    /// stream bytes like any other. 20 minutes by default; the service allows 1 to 60.
    pub idle: Option<Duration>,
    /// A session ends this long after its start; no limit by default.
    pub maximum: Option<Duration>,
    /// The gateway closes a client's WebSocket with 1000 "Bye" this long after it was opened; the
    /// session itself goes on. The service does so about hourly.
    pub close_sockets_after: Option<Duration>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(20 * 60)),
            maximum: None,
            close_sockets_after: None,
        }
    }
}

/// Controls of the limits; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Preferences(Arc<Mutex<SessionLimits>>);

impl Preferences {
    /// The limits as they are now.
    pub fn limits(&self) -> SessionLimits {
        *lock(&self.0)
    }

    /// Changes the limits.
    pub fn update(&self, change: impl FnOnce(&mut SessionLimits)) {
        change(&mut lock(&self.0));
    }
}

/// Ends `session` when one of its limits says so; returns when it has ended in whatever way.
pub(crate) async fn watch_limits(session: Arc<Session>, limits: SessionLimits) {
    let begun = Instant::now();
    loop {
        let idle = limits.idle.map(|idle| session.last_data() + idle);
        let maximum = limits.maximum.map(|maximum| begun + maximum);
        let Some(next) = idle.into_iter().chain(maximum).min() else {
            return;
        };
        let pause = next.saturating_duration_since(Instant::now());
        tokio::select! {
            _ = session.ended() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let now = Instant::now();
        if maximum.is_some_and(|at| at <= now) {
            return session.end(MAXIMUM_REASON);
        }
        // Data may have come while this task slept.
        if limits
            .idle
            .is_some_and(|idle| session.last_data() + idle <= now)
        {
            return session.end(IDLE_REASON);
        }
    }
}
