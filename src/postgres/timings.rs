//! Durations of the stages of one connection.

use tokio::time::Instant;

/// Milliseconds spent in each stage of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StageTimings {
    pub(crate) startup_ms: f64,
    pub(crate) token_ms: f64,
    pub(crate) tunnel_ms: f64,
    pub(crate) tls_ms: f64,
    pub(crate) login_ms: f64,
}

pub(crate) fn millis(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}
