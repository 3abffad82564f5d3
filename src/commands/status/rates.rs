//! Rates of connections and targets, computed from successive readings of the status.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::admin::document::ProcessDocument;

/// Seconds of traffic kept for each target.
pub(super) const SECONDS_KEPT: usize = 120;
/// Shortest time between two readings that rates are computed from. Scheduling delays would show as
/// traffic.
const SHORTEST: f64 = 0.2;

/// Bytes per second, to the database and from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ByteRate {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl ByteRate {
    /// Returns the sum of both directions.
    pub(super) fn total(self) -> f64 {
        self.up + self.down
    }
}

/// Computes rates from readings of the status.
#[derive(Debug, Default)]
pub(super) struct RateMeter(HashMap<u32, ProcessReading>);

/// The last reading of a process. Its own clock counts, which does not include the time of the
/// request.
#[derive(Debug, Default)]
struct ProcessReading {
    started: String,
    uptime: f64,
    connections: HashMap<u64, CounterReading>,
    targets: HashMap<String, TargetReading>,
}

#[derive(Clone, Copy, Debug, Default)]
struct CounterReading {
    bytes: (u64, u64),
    rate: Option<ByteRate>,
}

impl CounterReading {
    /// Returns the reading of counters that are now at `bytes`, `seconds` after this one.
    fn next(self, bytes: (u64, u64), seconds: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let rate = ByteRate {
            up: rate(bytes.0, self.bytes.0),
            down: rate(bytes.1, self.bytes.1),
        };
        let rate = Some(rate);
        Self { bytes, rate }
    }

    fn first(bytes: (u64, u64)) -> Self {
        Self { bytes, rate: None }
    }
}

#[derive(Debug, Default)]
struct TargetReading {
    counter: CounterReading,
    /// Bytes of each second, both directions, oldest first.
    history: VecDeque<f64>,
}

impl RateMeter {
    /// Takes a reading. A process that is missing in it is kept, because it may answer again.
    pub(super) fn read(&mut self, processes: &[ProcessDocument]) {
        for process in processes {
            let before = self.0.entry(process.pid).or_default();
            let seconds = process.uptime_seconds - before.uptime;
            if before.started != process.started || seconds < 0.0 {
                *before = ProcessReading::first(process);
            } else if seconds >= SHORTEST {
                before.next(process, seconds);
            }
        }
    }

    /// Drops all processes except these.
    pub(super) fn keep(&mut self, pids: &HashSet<u32>) {
        self.0.retain(|pid, _| pids.contains(pid));
    }

    /// Returns the rate of a connection; `None` before the second reading.
    pub(super) fn connection(&self, pid: u32, id: u64) -> Option<ByteRate> {
        self.0.get(&pid)?.connections.get(&id)?.rate
    }

    /// Returns the rate of a target; `None` before the second reading.
    pub(super) fn target(&self, pid: u32, name: &str) -> Option<ByteRate> {
        self.0.get(&pid)?.targets.get(name)?.counter.rate
    }

    /// Returns the bytes of each of the last `seconds` of a target, oldest first.
    pub(super) fn history(&self, pid: u32, name: &str, seconds: usize) -> Vec<f64> {
        let target = self.0.get(&pid).and_then(|it| it.targets.get(name));
        let history = target.map(|target| target.history.iter());
        let skipped = target.map_or(0, |it| it.history.len().saturating_sub(seconds));
        history
            .into_iter()
            .flatten()
            .skip(skipped)
            .copied()
            .collect()
    }
}

impl ProcessReading {
    fn first(process: &ProcessDocument) -> Self {
        let mut first = Self {
            started: process.started.clone(),
            uptime: process.uptime_seconds,
            ..Self::default()
        };
        for target in &process.targets {
            let counter = CounterReading::first((target.bytes_up, target.bytes_down));
            let history = VecDeque::new();
            let reading = TargetReading { counter, history };
            first.targets.insert(target.name.clone(), reading);
            for client in &target.connections {
                let counter = CounterReading::first((client.bytes_up, client.bytes_down));
                first.connections.insert(client.id, counter);
            }
        }
        first
    }

    fn next(&mut self, process: &ProcessDocument, seconds: f64) {
        let (mut connections, mut targets) = (HashMap::new(), HashMap::new());
        for target in &process.targets {
            let bytes = (target.bytes_up, target.bytes_down);
            let reading = match self.targets.remove(&target.name) {
                Some(before) => before.next(bytes, seconds),
                None => TargetReading {
                    counter: CounterReading::first(bytes),
                    history: VecDeque::new(),
                },
            };
            targets.insert(target.name.clone(), reading);
            for client in &target.connections {
                // A new connection has transferred everything since the last reading.
                let before = self.connections.remove(&client.id).unwrap_or_default();
                let reading = before.next((client.bytes_up, client.bytes_down), seconds);
                connections.insert(client.id, reading);
            }
        }
        self.uptime = process.uptime_seconds;
        (self.connections, self.targets) = (connections, targets);
    }
}

impl TargetReading {
    fn next(mut self, bytes: (u64, u64), seconds: f64) -> Self {
        self.counter = self.counter.next(bytes, seconds);
        let rate = self.counter.rate.unwrap_or_default().total();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number above 0"
        )]
        let times = seconds.round().clamp(1.0, 1e6) as usize;
        for _ in 0..times.min(SECONDS_KEPT) {
            self.history.push_back(rate);
        }
        let more = self.history.len().saturating_sub(SECONDS_KEPT);
        self.history.drain(..more);
        self
    }
}

/// Bars from the lowest to the highest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Rate that a full bar stands for at least, so that a few bytes do not look like a load.
const LEAST_FULL: f64 = 10_000.0;

/// Draws rates in at most `width` bars, the newest at the right, relative to the highest.
pub(super) fn sparkline(rates: &[f64], width: usize) -> String {
    let shown = &rates[rates.len().saturating_sub(width)..];
    let highest = shown.iter().copied().fold(LEAST_FULL, f64::max);
    let bar = |rate: &f64| {
        #[expect(clippy::cast_precision_loss, reason = "8 is exact")]
        let level = (rate / highest * BARS.len() as f64).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number, or none"
        )]
        let level = (level as usize).clamp(1, BARS.len());
        BARS.get(level - 1).copied().unwrap_or(' ')
    };
    let bars: String = shown.iter().map(bar).collect();
    let blank = width.saturating_sub(shown.len());
    format!("{}{bars}", " ".repeat(blank))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::document::{ConnectionDocument, TargetDocument};

    /// A process that has run for `uptime` seconds, with a target and its connection.
    fn at(uptime: f64, target: (u64, u64), client: (u64, u64)) -> ProcessDocument {
        ProcessDocument {
            pid: 7,
            started: "2026-11-30T12:00:00Z".to_owned(),
            uptime_seconds: uptime,
            targets: vec![TargetDocument {
                name: "orders".to_owned(),
                bytes_up: target.0,
                bytes_down: target.1,
                connections: vec![ConnectionDocument {
                    id: 1,
                    bytes_up: client.0,
                    bytes_down: client.1,
                    ..ConnectionDocument::default()
                }],
                ..TargetDocument::default()
            }],
            ..ProcessDocument::default()
        }
    }

    fn rate(up: f64, down: f64) -> Option<ByteRate> {
        Some(ByteRate { up, down })
    }

    #[test]
    fn rates_are_differences_by_the_clock_of_the_process() {
        let mut meter = RateMeter::default();
        meter.read(&[at(10.0, (1_000, 5_000), (100, 500))]);
        assert_eq!(
            (meter.target(7, "orders"), meter.connection(7, 1)),
            (None, None)
        );
        meter.read(&[at(12.0, (3_000, 5_000), (100, 900))]);
        assert_eq!(meter.target(7, "orders"), rate(1_000.0, 0.0));
        assert_eq!(meter.connection(7, 1), rate(0.0, 200.0));
        // Two seconds have passed.
        assert_eq!(meter.history(7, "orders", 9), [1_000.0, 1_000.0]);
        // Too early: the rates stay, and no byte is lost.
        meter.read(&[at(12.1, (3_500, 5_000), (100, 900))]);
        assert_eq!(meter.target(7, "orders"), rate(1_000.0, 0.0));
        meter.read(&[at(13.0, (4_000, 5_000), (100, 900))]);
        assert_eq!(meter.history(7, "orders", 2), [1_000.0, 1_000.0]);
        assert_eq!(meter.connection(7, 1), rate(0.0, 0.0));
    }

    #[test]
    fn a_new_connection_has_a_rate_and_a_new_process_has_none() {
        let mut meter = RateMeter::default();
        let mut first = at(10.0, (0, 0), (0, 0));
        first.targets[0].connections.clear();
        meter.read(&[first]);
        meter.read(&[at(11.0, (50, 0), (50, 0))]);
        assert_eq!(meter.connection(7, 1), rate(50.0, 0.0));
        // The same process id, another process.
        let mut other = at(30.0, (0, 0), (0, 0));
        other.started = "2026-11-30T12:09:00Z".to_owned();
        meter.read(&[other]);
        assert_eq!(meter.target(7, "orders"), None);
        assert_eq!(meter.history(7, "orders", 9), [0.0; 0]);
        meter.read(&[]);
        assert!(meter.0.contains_key(&7), "it may answer again");
        meter.keep(&HashSet::new());
        assert!(meter.0.is_empty());
    }

    #[test]
    fn the_history_is_bounded_and_a_pause_is_filled() {
        let mut meter = RateMeter::default();
        meter.read(&[at(0.0, (0, 0), (0, 0))]);
        meter.read(&[at(1.0, (0, 0), (0, 0))]);
        meter.read(&[at(4.0, (300, 0), (0, 0))]);
        assert_eq!(meter.history(7, "orders", 9), [0.0, 100.0, 100.0, 100.0]);
        meter.read(&[at(1e9, (300, 0), (0, 0))]);
        assert_eq!(meter.history(7, "orders", 999).len(), SECONDS_KEPT);
    }

    #[test]
    fn bars_are_relative_to_the_highest() {
        assert_eq!(sparkline(&[], 4), "    ");
        assert_eq!(sparkline(&[0.0, 80_000.0, 40_000.0], 4), " ▁█▄");
        assert_eq!(sparkline(&[9.0, 100.0], 2), "▁▁", "hardly anything");
        assert_eq!(
            sparkline(&[1e6, 1e3, 0.0], 2),
            "▁▁",
            "by the ones that are shown"
        );
        assert_eq!(sparkline(&[f64::NAN], 1), "▁");
    }
}
