//! The speed step: round-trip time and throughput.

use std::time::{Duration, Instant};

use super::query::{QueryClient, RowRate, SqlQueryError};
use super::{CheckRun, ConnectionProgress, StepOutcome};
use crate::config::Via;
use crate::postgres::target::PgContext;
use crate::tunnel::RelayState;

/// Number of measured round trips, and the time limit for all.
const ROUND_TRIPS: usize = 15;
const ROUND_TRIPS_TIME: Duration = Duration::from_secs(2);
/// Timeout for one query.
const PATIENCE: Duration = Duration::from_secs(10);
/// Number of rows of 1,000 characters in the first query: enough to get past the start of the
/// transfer.
const FIRST_ROWS: usize = 128;
const MOST_ROWS: usize = 4096;
/// Intended duration of the main measurement.
const MEASURED: Duration = Duration::from_millis(2500);

impl CheckRun {
    /// Runs the speed step: the median of some round trips, and the rate of a result of some
    /// megabytes.
    pub(super) async fn measure(&mut self, context: &PgContext) -> StepOutcome {
        let ConnectionProgress::In(questions) = &mut self.progress else {
            return StepOutcome::skipped("not logged in");
        };
        let measured = match measure(questions).await {
            Ok(measured) => measured,
            Err(error) => {
                let refused = matches!(error, SqlQueryError::Server(_));
                if !refused {
                    self.progress = ConnectionProgress::Begun;
                }
                return StepOutcome::warning(format!("measurement failed: {error}"));
            }
        };
        let sessions = match &context.target.settings.via {
            Via::Ssm(settings) => Some(settings.sessions),
            Via::Direct => None,
        };
        let relay = context.transport.stats().relay;
        let relay = relay.filter(|relay| matches!(relay.state, RelayState::InUse { .. }));
        say(&measured, sessions, relay.map(|relay| relay.sessions))
    }
}

struct SpeedResult {
    round_trip: Duration,
    flow: RowRate,
}

async fn measure(questions: &mut QueryClient) -> Result<SpeedResult, SqlQueryError> {
    let mut times = Vec::new();
    let began = Instant::now();
    while times.len() < ROUND_TRIPS && (times.is_empty() || began.elapsed() < ROUND_TRIPS_TIME) {
        let asked = Instant::now();
        questions.rows("select 1", PATIENCE).await?;
        times.push(asked.elapsed());
    }
    let first = questions.flow(&rows(FIRST_ROWS), PATIENCE).await?;
    let flow = questions.flow(&rows(enough(first)), PATIENCE).await?;
    Ok(SpeedResult {
        round_trip: median(&mut times),
        flow,
    })
}

fn rows(count: usize) -> String {
    // No part of the connection compresses, so the data need not be random.
    format!("select repeat('x', 1000) from generate_series(1, {count})")
}

/// Returns the number of rows that take about the target duration, by the rate of the `first` ones.
fn enough(first: RowRate) -> usize {
    let rate = rate(first);
    let bytes = rate * MEASURED.as_secs_f64();
    let rows = (bytes / 1000.0).clamp(FIRST_ROWS as f64, MOST_ROWS as f64);
    rows as usize
}

/// Returns bytes per second.
fn rate(flow: RowRate) -> f64 {
    flow.bytes as f64 / flow.took.as_secs_f64().max(1e-6)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Reports the speed. `relay`: the maximum number of sessions that one connection uses.
fn say(measured: &SpeedResult, sessions: Option<usize>, relay: Option<usize>) -> StepOutcome {
    let millis = measured.round_trip.as_secs_f64() * 1000.0;
    let megabytes = rate(measured.flow) / 1e6;
    let said = format!("{millis:.1} ms round trip, {megabytes:.2} MB/s download");
    let outcome = StepOutcome::ok(said);
    let outcome = match sessions {
        Some(_) if relay.is_some() => outcome.detail(format!(
            "One session transfers about 0.7 MB/s; through the relay a connection uses up to {}. They are opened while a transfer lasts, so a long one is faster than this one.",
            relay.unwrap_or_default()
        )),
        Some(1) => outcome.detail(
            "One session transfers about 0.7 MB/s, and this target may use only one (sessions = 1).",
        ),
        Some(sessions) => outcome.detail(format!(
            "One session transfers about 0.7 MB/s; several connections use up to {sessions} sessions."
        )),
        None => outcome,
    };
    outcome
        .fact("round_trip_ms", tenths(millis))
        .fact("megabytes_per_second", tenths(megabytes * 10.0) / 10.0)
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(bytes: usize, millis: u64) -> RowRate {
        RowRate {
            bytes,
            took: Duration::from_millis(millis),
        }
    }

    #[test]
    fn the_measurement_is_bounded() {
        // 0.7 MB/s for 2.5 s.
        assert_eq!(enough(flow(128_000, 183)), 1748);
        assert_eq!(enough(flow(128_000, 0)), MOST_ROWS);
        assert_eq!(enough(flow(128_000, 60_000)), FIRST_ROWS);
        assert_eq!(enough(RowRate::default()), FIRST_ROWS);
    }

    #[test]
    fn speed_is_said_in_usual_units() {
        let measured = SpeedResult {
            round_trip: median(&mut [9, 2, 3].map(Duration::from_millis)),
            flow: flow(2_000_000, 2857),
        };
        let outcome = say(&measured, Some(4), None);
        assert_eq!(outcome.said, "3.0 ms round trip, 0.70 MB/s download");
        assert_eq!(outcome.facts["round_trip_ms"], 3.0);
        assert_eq!(outcome.facts["megabytes_per_second"], 0.7);
        assert_eq!(say(&measured, None, None).detail, None);
    }
}
