//! The lines above the tables: processes and AWS identities.

use super::columns::{cut, text_width};
use super::model::Model;
use super::rows::Tone;
use crate::admin::document::{IdentityDocument, ProcessDocument};
use crate::base::count::counted;
use crate::commands::status::short;
use crate::commands::status::show::{age, per_second};

/// A line of the header: texts with their looks.
pub(super) type HeaderLine = Vec<(String, Tone)>;

/// Time before the expiry of an identity from which the screen warns: long enough for a login in
/// the browser.
const NEAR: f64 = 10.0 * 60.0;

/// Returns the lines for a terminal of `width` columns, at most `most`.
pub(super) fn lines(model: &Model, (width, most): (usize, usize)) -> Vec<HeaderLine> {
    let mut processes: Vec<HeaderLine> = model
        .processes
        .iter()
        .map(|process| process_line(model, process, width))
        .collect();
    let known = |pid: u32| model.processes.iter().any(|process| process.pid == pid);
    let unknown = model.silent.iter().filter(|(pid, _)| !known(*pid));
    processes
        .extend(unknown.map(|(pid, reason)| vec![(format!("process {pid}: {reason}"), Tone::Bad)]));
    if processes.is_empty() {
        let text = "pgiam is not running; this screen waits for it to start".to_owned();
        processes.push(vec![(text, Tone::Warning)]);
    }
    if !model.ended.is_empty() {
        let ended: Vec<&str> = model.ended.iter().map(|(text, _)| &**text).collect();
        let text = format!("ended: {}", ended.join(", "));
        processes.push(vec![(text, Tone::Warning)]);
    }
    let identities = identity_lines(model);
    // Half of the lines for each, and more if the other needs fewer.
    let room = most.saturating_sub(identities.len()).max(most.div_ceil(2));
    let mut lines = fewer(processes, room, "processes");
    let room = most.saturating_sub(lines.len());
    lines.extend(fewer(identities, room, "AWS identities"));
    if let [process] = &*model.processes
        && lines.len() < most
        && let Some(line) = places(process)
    {
        lines.insert(1, vec![(cut(&line, width), Tone::Dim)]);
    }
    for line in &mut lines {
        shorten(line, width);
    }
    lines
}

/// Returns at most `most` lines; the last one says how many are missing.
fn fewer(mut lines: Vec<HeaderLine>, most: usize, what: &str) -> Vec<HeaderLine> {
    if lines.len() > most {
        let shown = most.saturating_sub(1);
        let text = format!("+{} more {what}", lines.len() - shown);
        lines.truncate(shown);
        if most > 0 {
            lines.push(vec![(text, Tone::Dim)]);
        }
    }
    lines
}

/// Cuts a line to the width of the terminal.
fn shorten(line: &mut HeaderLine, width: usize) {
    let mut left = width;
    for (text, _) in line.iter_mut() {
        *text = cut(text, left);
        left -= text_width(text).min(left);
    }
    line.retain(|(text, _)| !text.is_empty());
}

/// Returns the line of a process. A narrow terminal shows the first parts.
fn process_line(model: &Model, process: &ProcessDocument, width: usize) -> HeaderLine {
    let pid = process.pid;
    let silent = model.silent.iter().find(|(other, _)| *other == pid);
    let up = age(process.uptime_seconds);
    let state = match (silent, &*process.state) {
        (Some((_, reason)), _) => (reason.clone(), Tone::Bad),
        (None, "serving") => (format!("serving for {up}"), Tone::Good),
        (None, state) => (format!("{state} for {up}"), Tone::Warning),
    };
    let full = process.open_connections >= process.max_connections;
    let connections = format!(
        "{} of {}",
        process.open_connections,
        counted(process.max_connections, "connection")
    );
    let targets = process.targets.iter();
    let rates = targets.filter_map(|target| model.meter.target(pid, &target.name));
    // The sum of nothing is -0.
    let rate = rates.fold(0.0, |sum, rate| sum + rate.total());
    let parts = [
        (format!("pgiam {} {pid}", process.kind), Tone::Plain),
        state,
        (connections, if full { Tone::Bad } else { Tone::Plain }),
        (per_second(rate), Tone::Plain),
        (format!("version {}", process.version), Tone::Dim),
    ];
    let mut line = HeaderLine::new();
    let mut used = 0;
    for (text, tone) in parts {
        let gap = if line.is_empty() { "" } else { "   " };
        used += text_width(&text) + gap.len();
        if used > width && !line.is_empty() {
            break;
        }
        line.push((format!("{gap}{text}"), tone));
    }
    line
}

/// Returns the file and the address of a process.
fn places(process: &ProcessDocument) -> Option<String> {
    let config = process.config.as_ref();
    let config = config.map(|config| format!("configuration {}", short(config)));
    let page = process.http.as_ref().map(|http| format!("http://{http}/"));
    let places: Vec<String> = page.into_iter().chain(config).collect();
    (!places.is_empty()).then(|| places.join("   "))
}

/// Returns a line for each AWS identity, with the targets that use it; the next to expire first.
fn identity_lines(model: &Model) -> Vec<HeaderLine> {
    let end = |identity: &IdentityDocument| identity.expires_in_seconds.unwrap_or(f64::MAX);
    let mut all: Vec<(&IdentityDocument, Vec<&str>, bool)> = Vec::new();
    for target in model.processes.iter().flat_map(|process| &process.targets) {
        let Some(identity) = &target.identity else {
            continue;
        };
        let fails = target
            .failing
            .as_ref()
            .is_some_and(|id| id.starts_with("aws."));
        match all
            .iter_mut()
            .find(|(known, ..)| known.source == identity.source)
        {
            Some((known, targets, failing)) => {
                if end(identity) < end(known) {
                    *known = identity;
                }
                targets.push(&target.name);
                *failing |= fails;
            }
            None => all.push((identity, vec![&target.name], fails)),
        }
    }
    all.sort_by(|(a, ..), (b, ..)| end(a).total_cmp(&end(b)));
    let one = all.len() == 1;
    let line = |(identity, targets, fails): (&IdentityDocument, Vec<&str>, bool)| {
        let (end, tone) = match identity.expires_in_seconds {
            _ if fails => ("cannot be used; l logs in".to_owned(), Tone::Bad),
            None => (String::new(), Tone::Plain),
            Some(0.0) => ("expired; l logs in".to_owned(), Tone::Warning),
            Some(left) if left < NEAR => (format!("{} left; l logs in", age(left)), Tone::Warning),
            Some(left) => (format!("{} left", age(left)), Tone::Plain),
        };
        let mut line = vec![(format!("AWS: {}", identity.source), Tone::Plain)];
        if !end.is_empty() {
            line.push((format!(", {end}"), tone));
        }
        if !one {
            line.push((format!(" ({})", targets.join(", ")), Tone::Dim));
        }
        line
    };
    all.into_iter().map(line).collect()
}
