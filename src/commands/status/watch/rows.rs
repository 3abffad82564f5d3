//! Rows of the screen, computed from the status documents.

use std::cmp::Ordering;

use super::columns::Column;
use super::details::{connection_details, error_details, in_use, milliseconds, target_details};
use crate::admin::document::{
    ConnectionDocument, FailureDocument, ProcessDocument, TargetDocument,
};
use crate::commands::status::rates::{ByteRate, RateMeter, SECONDS_KEPT};
use crate::commands::status::show::{age, bytes, human, via};

/// Look of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warning,
    Dim,
}

/// A row of a table, with a key that stays the same when rows move.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) cells: Vec<(String, Tone)>,
    /// Lines below the row while it is selected.
    pub(super) more: Vec<(String, Tone)>,
    /// Bytes of each second, which the growing column shows as bars.
    pub(super) history: Vec<f64>,
    /// The target that keys such as `c` and `s` act on.
    pub(super) target: Option<TargetRef>,
    /// Identifier of the error that `e` explains.
    pub(super) error: Option<String>,
    /// Text of the details.
    pub(super) details: Vec<String>,
}

/// A target of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetRef {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// Rows and columns of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// Number of rows without the filter.
    pub(super) all: usize,
}

impl Rows {
    /// Keeps the rows that contain every word of the filter, in any case.
    fn filtered(mut self, filter: &str) -> Self {
        self.all = self.rows.len();
        let filter = filter.to_lowercase();
        let words: Vec<&str> = filter.split_whitespace().collect();
        let has = |row: &Row, word: &str| {
            let cells = row.cells.iter().map(|(text, _)| text);
            let mut texts = cells.chain(&row.details);
            texts.any(|text| text.to_lowercase().contains(word))
        };
        self.rows
            .retain(|row| words.iter().all(|word| has(row, word)));
        self
    }
}

/// Columns from which numbers are written with spaces, and headings in full.
pub(super) const SPACIOUS: usize = 100;

/// Everything that the tables are computed from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readings<'a> {
    pub(super) processes: &'a [ProcessDocument],
    pub(super) meter: &'a RateMeter,
    pub(super) filter: &'a str,
    /// Columns of the terminal.
    pub(super) width: usize,
}

impl Readings<'_> {
    fn several(self) -> bool {
        self.processes.len() > 1
    }

    /// Returns whether numbers are written without spaces, and headings are short.
    fn is_compact(self) -> bool {
        self.width < SPACIOUS
    }

    /// Returns the number of bars that a longer name does not displace.
    fn least_bars(self) -> usize {
        (self.width.saturating_sub(40) / 5).clamp(4, 20)
    }

    /// Returns a number with its unit, without the space in a narrow terminal.
    fn number(self, text: String) -> String {
        if self.is_compact() {
            text.replace(' ', "")
        } else {
            text
        }
    }

    fn rate(self, rate: Option<f64>) -> (String, Tone) {
        match rate {
            None => ("-".to_owned(), Tone::Dim),
            Some(rate) => {
                let tone = if rate < 0.5 { Tone::Dim } else { Tone::Plain };
                let text = human(rate);
                // The heading has the unit.
                let text = text
                    .strip_suffix('B')
                    .filter(|_| self.is_compact())
                    .unwrap_or(&text);
                (self.number(text.trim_end().to_owned()), tone)
            }
        }
    }

    /// Returns the targets with their processes.
    fn targets(&self) -> impl Iterator<Item = (&ProcessDocument, &TargetDocument)> {
        let processes = self.processes.iter();
        processes.flat_map(|process| process.targets.iter().map(move |target| (process, target)))
    }

    /// Returns the table of the targets.
    pub(super) fn target_rows(self) -> Rows {
        let mut columns = vec![Column::text("TARGET", 8)];
        columns.extend(self.several().then(|| Column::number("PID")));
        let long = !self.is_compact();
        columns.extend([
            Column::text("STATE", 8),
            Column::number("RTT").leaves(3),
            Column::number(if long { "LOGIN p50/p99" } else { "LOGIN" }).leaves(1),
            Column::number("CONNS"),
            Column::number(if long { "SESSIONS" } else { "SESS" }).leaves(4),
            Column::number(if long { "UP/s" } else { "↑B/s" }),
            Column::number(if long { "DOWN/s" } else { "↓B/s" }),
            Column::rest(if long { "TRAFFIC" } else { "LOAD" }, self.least_bars()).leaves(2),
            Column::optional("VIA"),
            Column::optional("ENDPOINT"),
        ]);
        let rows = self
            .targets()
            .map(|(process, target)| self.target_row(process, target));
        let rows = rows.collect();
        Rows {
            columns,
            rows,
            all: 0,
        }
        .filtered(self.filter)
    }

    fn target_row(self, process: &ProcessDocument, target: &TargetDocument) -> Row {
        let pid = process.pid;
        let state = match &*target.state {
            "ready" => Tone::Good,
            "idle" => Tone::Plain,
            "starting" | "looking" | "stopped" => Tone::Warning,
            _ => Tone::Bad,
        };
        let trip = target.round_trip_seconds;
        let trip = trip.map(|seconds| self.number(milliseconds(seconds)));
        let (open, limit) = (target.connections.len(), target.connection_limit);
        let full = limit.is_some_and(|limit| open >= limit);
        let sessions = match target.max_sessions {
            Some(most) => (format!("{}/{most}", in_use(&target.sessions)), Tone::Plain),
            None => ("-".to_owned(), Tone::Dim),
        };
        let rate = self.meter.target(pid, &target.name);
        let mut cells = vec![(target.name.clone(), Tone::Plain)];
        cells.extend(self.several().then(|| (pid.to_string(), Tone::Dim)));
        cells.extend([
            (target.state.clone(), state),
            or_dash(trip),
            or_dash(login_times(target).map(|times| self.number(times))),
            (
                of(open, limit),
                if full { Tone::Warning } else { Tone::Plain },
            ),
            sessions,
            self.rate(rate.map(|rate| rate.up)),
            self.rate(rate.map(|rate| rate.down)),
            // Its bars are drawn when the width of the column is known.
            (String::new(), Tone::Good),
            (via(target), Tone::Dim),
            (target.endpoint.clone(), Tone::Dim),
        ]);
        let last = target.last_error.as_ref().map(|error| error.id.clone());
        Row {
            key: format!("{pid} {}", target.name),
            cells,
            more: Vec::new(),
            history: self.meter.history(pid, &target.name, SECONDS_KEPT),
            target: Some(TargetRef {
                pid,
                name: target.name.clone(),
            }),
            error: target.failing.clone().or(last),
            details: target_details(process, target),
        }
    }

    /// Returns the table of the connections, by rate.
    pub(super) fn connection_rows(self) -> Rows {
        let mut columns = vec![
            Column::text("PROGRAM", 7),
            Column::text("USER", 4),
            Column::text("DATABASE", 8),
            Column::text("TARGET", 6),
        ];
        columns.extend(self.several().then(|| Column::number("PID")));
        let long = !self.is_compact();
        columns.extend([
            Column::number(if long { "UP/s" } else { "↑B/s" }),
            Column::number(if long { "DOWN/s" } else { "↓B/s" }),
            Column::number("TOTAL").leaves(1),
            Column::number("AGE").leaves(2),
            Column::optional("FROM"),
        ]);
        let mut all: Vec<_> = self
            .targets()
            .flat_map(|(process, target)| {
                let connections = target.connections.iter();
                connections.map(move |client| {
                    let rate = self.meter.connection(process.pid, client.id);
                    (process, target, client, rate)
                })
            })
            .collect();
        all.sort_by(|a, b| by_rate((a.2, a.3), (b.2, b.3)));
        let rows = all.into_iter().map(|(process, target, client, rate)| {
            self.connection_row((process, target), client, rate)
        });
        let rows = rows.collect();
        Rows {
            columns,
            rows,
            all: 0,
        }
        .filtered(self.filter)
    }

    fn connection_row(
        self,
        (process, target): (&ProcessDocument, &TargetDocument),
        client: &ConnectionDocument,
        rate: Option<ByteRate>,
    ) -> Row {
        let named = |name: &str| match name {
            "" => ("-".to_owned(), Tone::Dim),
            name => (name.to_owned(), Tone::Plain),
        };
        let is_open = client.state == "open";
        let mut cells = vec![
            named(&client.program),
            named(&client.user),
            named(&client.database),
            named(&target.name),
        ];
        cells.extend(self.several().then(|| (process.pid.to_string(), Tone::Dim)));
        cells.extend([
            self.rate(rate.map(|rate| rate.up)),
            self.rate(rate.map(|rate| rate.down)),
            match is_open {
                true => (
                    self.number(bytes(client.bytes_up + client.bytes_down)),
                    Tone::Plain,
                ),
                // There is nothing to count yet.
                false => (client.state.clone(), Tone::Warning),
            },
            (age(client.age_seconds), Tone::Plain),
            (client.peer.clone(), Tone::Dim),
        ]);
        Row {
            key: format!("{} {}", process.pid, client.id),
            cells,
            more: Vec::new(),
            history: Vec::new(),
            target: Some(TargetRef {
                pid: process.pid,
                name: target.name.clone(),
            }),
            error: None,
            details: connection_details(process, target, client),
        }
    }

    /// Returns the table of the errors, newest first.
    pub(super) fn error_rows(self) -> Rows {
        let columns = vec![
            Column::number("AGO"),
            Column::number("×"),
            Column::text("TARGET", 6),
            Column::text("ERROR", 12),
            Column::rest("MESSAGE", 8),
        ];
        let notices = self.processes.iter().flat_map(|process| {
            let left_out = process.left_out.iter();
            let left_out = left_out.map(|reason| ("not served", reason));
            let unused = process.change_unused.iter();
            let unused = unused.map(|reason| ("not reloaded", reason));
            left_out
                .chain(unused)
                .enumerate()
                .map(move |(nth, (what, reason))| notice(process, nth, (what, reason)))
        });
        let mut errors: Vec<_> = self
            .processes
            .iter()
            .flat_map(|process| {
                process
                    .recent_errors
                    .iter()
                    .map(move |error| (process, error))
            })
            .collect();
        errors.sort_by(|(_, a), (_, b)| a.failure.age_seconds.total_cmp(&b.failure.age_seconds));
        let errors = errors.into_iter().map(|(process, error)| {
            let target = error.target.as_deref();
            error_row(process, target, &error.failure)
        });
        let rows = notices.chain(errors).collect();
        Rows {
            columns,
            rows,
            all: 0,
        }
        .filtered(self.filter)
    }
}

/// Orders connections by their rate, then by their bytes, then by their age.
fn by_rate(
    (a, rate_a): (&ConnectionDocument, Option<ByteRate>),
    (b, rate_b): (&ConnectionDocument, Option<ByteRate>),
) -> Ordering {
    let total = |rate: Option<ByteRate>| rate.unwrap_or_default().total();
    let moved = |client: &ConnectionDocument| client.bytes_up + client.bytes_down;
    let rates = total(rate_b).total_cmp(&total(rate_a));
    rates.then(moved(b).cmp(&moved(a))).then(a.id.cmp(&b.id))
}

fn or_dash(text: Option<String>) -> (String, Tone) {
    match text {
        Some(text) => (text, Tone::Plain),
        None => ("-".to_owned(), Tone::Dim),
    }
}

fn of(count: usize, limit: Option<usize>) -> String {
    match limit {
        Some(limit) => format!("{count}/{limit}"),
        None => count.to_string(),
    }
}

fn login_times(target: &TargetDocument) -> Option<String> {
    let (p50, p99) = (target.logins.p50_seconds?, target.logins.p99_seconds?);
    Some(match p99 < 0.9995 {
        true => format!("{:.0}/{:.0} ms", p50 * 1000.0, p99 * 1000.0),
        false => format!("{p50:.1}/{p99:.1} s"),
    })
}

/// Returns the message without the name of the target, which has a column of its own.
fn message(target: Option<&str>, failure: &FailureDocument) -> String {
    let prefix = target.map(|name| format!("target \"{name}\": "));
    let message = prefix.and_then(|prefix| failure.message.strip_prefix(&prefix));
    message.unwrap_or(&failure.message).to_owned()
}

fn error_row(process: &ProcessDocument, target: Option<&str>, failure: &FailureDocument) -> Row {
    let message = message(target, failure);
    let hint = failure.hint.iter().flat_map(|hint| hint.lines());
    let hint = hint.map(|line| (line.to_owned(), Tone::Plain));
    let detail = failure.detail.clone().map(|detail| (detail, Tone::Dim));
    // The remedy first: the last lines may be cut.
    let message_line = [(message.clone(), Tone::Bad)];
    let more = message_line.into_iter().chain(hint).chain(detail).collect();
    let pid = process.pid;
    Row {
        key: format!("{pid} {target:?} {} {}", failure.id, failure.message),
        cells: vec![
            (age(failure.age_seconds), Tone::Plain),
            (failure.count.to_string(), Tone::Plain),
            or_dash(target.map(str::to_owned)),
            (failure.id.clone(), Tone::Bad),
            (message, Tone::Plain),
        ],
        more,
        history: Vec::new(),
        target: target.map(|name| TargetRef {
            pid,
            name: name.to_owned(),
        }),
        error: Some(failure.id.clone()),
        details: error_details(process, failure),
    }
}

/// Returns the row of a part of the configuration that is not used.
fn notice(process: &ProcessDocument, nth: usize, (what, reason): (&str, &str)) -> Row {
    let dash = || ("-".to_owned(), Tone::Dim);
    let first = reason.lines().next().unwrap_or_default();
    Row {
        key: format!("{} {what} {nth} {reason}", process.pid),
        cells: vec![
            dash(),
            dash(),
            dash(),
            (what.to_owned(), Tone::Bad),
            (first.to_owned(), Tone::Plain),
        ],
        more: vec![(reason.to_owned(), Tone::Bad)],
        history: Vec::new(),
        target: None,
        error: None,
        details: vec![format!("{what}:"), reason.to_owned()],
    }
}
