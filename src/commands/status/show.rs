//! The tables of `pgiam status`.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::rates::{ByteRate, RateMeter};
use super::short;
use crate::admin::document::{
    ConnectionDocument, FailureDocument, IdentityDocument, ProcessDocument, SessionDocument,
    TargetDocument,
};
use crate::admin::page_url;
use crate::base::count::counted;
use crate::base::local_time;
use crate::base::quote::{clean, printable};
use crate::cli::terminal::{self, BAD, DIM, GOOD, HEADING, Table, WARNING, styled};
use crate::cli::wrap;
use crate::report::reload_command;

/// Returns the output width: the terminal's, unlimited in a pipe.
pub(super) fn width() -> usize {
    terminal::stdout_width().unwrap_or(usize::MAX)
}

/// Returns the tables of all processes.
pub(super) fn all(
    processes: &[ProcessDocument],
    width: usize,
    rates: Option<&RateMeter>,
) -> String {
    let each = processes.iter().map(|process| one(process, width, rates));
    each.collect::<Vec<_>>().join("\n")
}

fn one(process: &ProcessDocument, width: usize, rates: Option<&RateMeter>) -> String {
    let mut text = head(process, width);
    text.push('\n');
    let mut targets = Table::new(&[
        "TARGET",
        "PORT",
        "STATE",
        "CONNS",
        "VIA",
        "ENDPOINT",
        "LAST ERROR",
    ]);
    let mut sessions = Table::new(&[
        "SESSION", "BASTION", "STATE", "STREAMS", "UP", "DOWN", "AGE", "RESUMES", "RTT",
    ]);
    let mut columns = vec!["PROGRAM", "USER", "DATABASE", "TARGET", "UP", "DOWN"];
    columns.extend(rates.map(|_| "RATE"));
    columns.push("AGE");
    let mut clients = Table::new(&columns);
    for target in &process.targets {
        targets.row(target_row(target));
        target
            .sessions
            .iter()
            .for_each(|s| sessions.row(session_row(s)));
        for client in &target.connections {
            let rate = rates.map(|rates| {
                rates
                    .connection(process.pid, client.id)
                    .map(ByteRate::total)
            });
            clients.row(client_row(client, target, rate));
        }
    }
    for line in identities(process) {
        for line in wrapped(&line, width) {
            _ = writeln!(text, "{line}");
        }
    }
    // Names and IDs that are copied stay whole.
    let clients = match clients.is_empty() {
        true => String::new(),
        false => clients.fitted(width).to_string(),
    };
    for table in [
        targets.within(Some(width)),
        sessions.within(Some(width)),
        clients,
    ] {
        if !table.is_empty() {
            // Writing to a String cannot fail.
            _ = writeln!(text, "{table}");
        }
    }
    for target in process.targets.iter().filter(|target| !target.ready) {
        match (&target.last_error, target.stopped_seconds) {
            (_, Some(since)) => text.push_str(&stopped(process.pid, target, since, width)),
            (Some(error), None) => text.push_str(&trouble(target, error, width)),
            (None, None) => {}
        }
    }
    for remark in process.targets.iter().filter_map(without_relay) {
        for line in wrapped(&remark, width) {
            _ = writeln!(text, "{}", styled(DIM, line));
        }
    }
    let left_out = process
        .left_out
        .iter()
        .map(|reason| format!("not served: {reason}"));
    let unused = process.change_unused.iter();
    let unused = unused.map(|reason| format!("configuration not reloaded: {reason}"));
    for trouble in left_out.chain(unused) {
        for line in wrapped(&trouble, width) {
            _ = writeln!(text, "{}", styled(BAD, line));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Returns the lines above the tables.
fn head(process: &ProcessDocument, width: usize) -> String {
    let ProcessDocument {
        pid,
        version,
        kind,
        state,
        open_connections,
        max_connections,
        ..
    } = process;
    let up = age(process.uptime_seconds);
    let state = match state.as_str() {
        "serving" => styled(GOOD, state),
        _ => styled(WARNING, state),
    };
    let name = styled(HEADING, format!("pgiam {kind}"));
    let mut lines = vec![format!(
        "{name}  pid {pid}  version {version}  {state} for {up}"
    )];
    if let Some(config) = &process.config {
        lines.push(format!("configuration {}", short(config)));
    }
    if let Some(log) = &process.log {
        lines.push(format!("log {}", short(log)));
    }
    if let Some(address) = process.http.as_ref().and_then(|http| http.parse().ok()) {
        let url = page_url(address);
        lines.push(format!("status page, health and metrics {url}"));
    }
    lines.push(format!(
        "{open_connections} of {}",
        counted(*max_connections, "connection")
    ));
    let mut text = String::new();
    for line in lines {
        text.push_str(&console::truncate_str(&line, width, "…"));
        text.push('\n');
    }
    text
}

/// Returns a line for each AWS identity, with the targets that use it.
fn identities(process: &ProcessDocument) -> Vec<String> {
    let mut all: Vec<(&IdentityDocument, Vec<&str>)> = Vec::new();
    for target in &process.targets {
        let Some(identity) = &target.identity else {
            continue;
        };
        let same = |(known, _): &&mut (&IdentityDocument, _)| {
            known.source == identity.source && known.reason == identity.reason
        };
        match all.iter_mut().find(same) {
            Some((_, targets)) => targets.push(&target.name),
            None => all.push((identity, vec![&target.name])),
        }
    }
    let one = all.len() == 1;
    let line = |(identity, targets): (&IdentityDocument, Vec<&str>)| {
        let IdentityDocument { source, reason, .. } = identity;
        let left = match identity.expires_in_seconds {
            None => String::new(),
            Some(0.0) => ", expired".to_owned(),
            Some(left) => format!(", {} left", age(left)),
        };
        let of = match one {
            true => String::new(),
            false => format!(" for {}", targets.join(", ")),
        };
        format!("AWS identity{of}: {source}{left} ({reason})")
    };
    all.into_iter().map(line).collect()
}

fn target_row(target: &TargetDocument) -> [String; 7] {
    let state = match target.state.as_str() {
        "ready" => styled(GOOD, "ready"),
        "idle" => "idle".to_owned(),
        "starting" | "stopped" => styled(WARNING, &target.state),
        other => styled(BAD, other),
    };
    let open = target.connections.len();
    let limit = target.connection_limit;
    let limit = limit.map(|limit| format!("/{limit}")).unwrap_or_default();
    let last = target.last_error.as_ref();
    let last = last.filter(|_| target.stopped_seconds.is_none());
    let last = last.map(|e| format!("{} {}", e.id, age(e.age_seconds)));
    let last = last.or_else(|| target.failing.clone());
    [
        target.name.clone(),
        target.port.to_string(),
        state,
        format!("{open}{limit}"),
        via(target),
        target.endpoint.clone(),
        last.unwrap_or_default(),
    ]
}

/// Returns the route to the database.
pub(super) fn via(target: &TargetDocument) -> String {
    let bastion = target.bastion.as_ref().unwrap_or(&target.via);
    match &target.relay {
        Some(relay) if relay.state == "in use" => format!("{bastion} (relay)"),
        _ => bastion.clone(),
    }
}

/// Returns the remark about a relay that is not used.
fn without_relay(target: &TargetDocument) -> Option<String> {
    let relay = target.relay.as_ref()?;
    let (reason, hint) = (relay.reason.as_ref()?, relay.hint.as_ref()?);
    let name = &target.name;
    Some(format!(
        "target \"{name}\" uses no relay: {reason}. To use one, {hint}"
    ))
}

fn session_row(session: &SessionDocument) -> [String; 9] {
    let state = match session.state.as_str() {
        "up" => styled(GOOD, "up"),
        "interrupted" => styled(BAD, "interrupted"),
        other => styled(WARNING, other),
    };
    let trip = session.round_trip_seconds;
    let trip = trip.map(|seconds| format!("{:.0} ms", seconds * 1000.0));
    let none = || "-".to_owned();
    [
        session.id.clone().unwrap_or_else(none),
        session.bastion.clone().unwrap_or_else(none),
        state,
        match session.to_relay {
            true => "relay".to_owned(),
            false => streams(session),
        },
        bytes(session.bytes_up),
        bytes(session.bytes_down),
        age(session.age_seconds),
        session.resumes.to_string(),
        trip.unwrap_or_else(none),
    ]
}

/// Returns the number of streams, and of those that are kept ready.
fn streams(session: &SessionDocument) -> String {
    match session.ready {
        0 => session.streams.to_string(),
        ready => format!("{} + {ready} ready", session.streams),
    }
}

fn client_row(
    client: &ConnectionDocument,
    target: &TargetDocument,
    rate: Option<Option<f64>>,
) -> Vec<String> {
    let none = || styled(DIM, "-");
    let rate = rate.map(|rate| rate.filter(|_| client.state == "open"));
    let named = |name: &str| {
        if name.is_empty() {
            none()
        } else {
            printable(name)
        }
    };
    let moved = |count| match client.state.as_str() {
        "open" => bytes(count),
        // There is nothing to count yet.
        _ => styled(WARNING, "login"),
    };
    let mut row = vec![
        named(&client.program),
        named(&client.user),
        named(&client.database),
        target.name.clone(),
        moved(client.bytes_up),
        moved(client.bytes_down),
    ];
    row.extend(rate.map(|rate| rate.map_or_else(none, per_second)));
    row.push(age(client.age_seconds));
    row
}

/// Returns the remark about a target that the owner has stopped. Its last error is of earlier.
fn stopped(pid: u32, target: &TargetDocument, since: f64, width: usize) -> String {
    let at = Duration::try_from_secs_f64(since).unwrap_or_default();
    let at = SystemTime::now().checked_sub(at).map(local_time::clock);
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    let name = &target.name;
    let text = format!(
        "target \"{name}\" was stopped on request{at}. To serve it again, run:\n  {}",
        reload_command(pid)
    );
    wrapped(&text, width).join("\n") + "\n\n"
}

/// Returns the error of a target, with its remedy.
fn trouble(target: &TargetDocument, error: &FailureDocument, width: usize) -> String {
    let name = &target.name;
    let said = match error.message.contains(name.as_str()) {
        true => error.message.clone(),
        false => format!("target \"{name}\": {}", error.message),
    };
    let mut lines = wrapped(&said, width);
    let detail = error
        .detail
        .iter()
        .map(|detail| format!("detail: {detail}"));
    let hint = error.hint.iter().map(|hint| format!("hint: {hint}"));
    for more in detail.chain(hint) {
        lines.extend(
            wrapped(&more, indented(width))
                .into_iter()
                .map(|l| format!("  {l}")),
        );
    }
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    text + "\n"
}

/// Returns the width below an indent of two columns.
fn indented(width: usize) -> usize {
    match width {
        usize::MAX => width,
        width => width.saturating_sub(2),
    }
}

/// Wraps a text into lines of at most `width` columns; in a pipe it stays in one line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    match width {
        usize::MAX => clean(text).lines().map(str::to_owned).collect(),
        width => wrap::paragraphs(&clean(text), width),
    }
}

/// Formats a duration as one number.
pub(super) fn age(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.0}s"),
        s if s < 3600.0 => format!("{:.0}m", (s / 60.0).floor()),
        s if s < 48.0 * 3600.0 => format!("{:.0}h", (s / 3600.0).floor()),
        s => format!("{:.0}d", (s / 86_400.0).floor()),
    }
}

/// Formats a byte count with a decimal unit, three digits.
pub(super) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    human(count as f64)
}

pub(super) fn per_second(bytes: f64) -> String {
    format!("{}/s", human(bytes))
}

pub(super) fn human(mut bytes: f64) -> String {
    for unit in ["B", "kB", "MB", "GB"] {
        let whole = unit == "B" || bytes >= 99.95;
        if bytes < 999.5 {
            return match whole {
                true => format!("{bytes:.0} {unit}"),
                false => format!("{bytes:.1} {unit}"),
            };
        }
        bytes /= 1000.0;
    }
    format!("{bytes:.1} TB")
}

#[cfg(test)]
mod tests;
