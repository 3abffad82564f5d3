//! Turns an event into words.

use std::borrow::Cow;

use tracing::Level;

use super::OURS;
use super::event::Fields;
use super::is_of;
use super::line::Line;
use super::sentences::{
    FOR_SEARCHES, Mark, PLACED, WITH_COMMAND_ERROR, fill, in_words, milliseconds, sentence,
};

/// Fields of a login's stages, which `-v` shows.
const STAGES: [(&str, &str); 5] = [
    ("startup_ms", "startup"),
    ("token_ms", "token"),
    ("tunnel_ms", "tunnel"),
    ("tls_ms", "TLS"),
    ("login_ms", "login"),
];

/// Columns of a client's program name; PostgreSQL keeps 63 bytes.
const LONGEST_PROGRAM: usize = 63;

/// Event with its connection.
pub(super) struct Event<'a> {
    pub(super) level: Level,
    /// Module that logged the event.
    pub(super) module: &'a str,
    pub(super) fields: Fields,
    /// Fields of the connection's span, if the event belongs to one.
    pub(super) connection: Option<&'a Fields>,
}

impl Event<'_> {
    /// Returns the event in words; `None` for the end in order of a connection, unless `verbose`.
    pub(super) fn line(&self, verbose: bool) -> Option<Line> {
        let message = self.fields.text("message").unwrap_or_default();
        match message {
            "connection ready" => Some(self.ready("total_ms", verbose)),
            "connection open" => Some(self.ready("tunnel_ms", verbose)),
            "connection ended" => self.ended(verbose),
            "connection failed" => {
                let mut line = self.blank();
                line.client = self.client();
                if self.level <= Level::WARN {
                    line.mark = Mark::Bad;
                } else {
                    line.mark = Mark::Warning;
                }
                line.text = self.reason(&line, "failed");
                Some(line)
            }
            message => Some(self.other(message, verbose)),
        }
    }

    /// Returns the line with everything except the client and the text.
    fn blank(&self) -> Line {
        let text = |name: &str| self.fields.text(name).map(str::to_owned);
        let mark = match self.level {
            Level::ERROR => Mark::Bad,
            Level::WARN => Mark::Warning,
            _ => Mark::Note,
        };
        Line {
            mark,
            is_detail: self.level > Level::INFO,
            target: self.target().map(str::to_owned),
            client: None,
            text: String::new(),
            duration: None,
            id: text("id"),
            detail: text("detail"),
            hint: text("hint"),
        }
    }

    fn target(&self) -> Option<&str> {
        let of_connection = self.connection.and_then(|fields| fields.text("target"));
        let of_event = || {
            let name = self.fields.text("target");
            // Events about a target outside of connections.
            name.or_else(|| {
                let has_other_name = self.fields.text("why").is_some();
                self.fields.text("name").filter(|_| !has_other_name)
            })
        };
        of_connection.or_else(of_event)
    }

    /// Describes the client of a connection: `psql as db_user to app`.
    fn client(&self) -> Option<String> {
        let fields = self.connection?;
        let program = fields.text("program");
        let program = program.map(|name| console::truncate_str(name, LONGEST_PROGRAM, "…"));
        let program = program.as_deref();
        let peer = || format!("client {}", fields.text("peer").unwrap_or("?"));
        let Some(user) = fields.text("user") else {
            return Some(program.map_or_else(peer, str::to_owned));
        };
        let database = fields.text("database").map(|name| format!(" to {name}"));
        let database = database.unwrap_or_default();
        Some(format!(
            "{} as {user}{database}",
            program.unwrap_or("client")
        ))
    }

    fn ready(&self, total: &str, verbose: bool) -> Line {
        let mut line = self.blank();
        line.mark = Mark::Good;
        line.client = self.client();
        line.duration = self.duration(total);
        if verbose {
            let stages = STAGES.iter().filter_map(|(name, label)| {
                let value = self.fields.get(name)?.number?;
                Some(format!("{label} {}", milliseconds(value)))
            });
            let mut stages: Vec<String> = stages.collect();
            stages.extend(self.fields.text("tls").map(str::to_owned));
            line.text = format!("ready ({})", stages.join(", "));
        }
        line
    }

    fn duration(&self, name: &str) -> Option<String> {
        let value = self.fields.get(name)?;
        Some(in_words(name, value))
    }

    fn ended(&self, verbose: bool) -> Option<Line> {
        let mut line = self.blank();
        line.client = self.client();
        let moved = fill(
            "after {seconds}, {sent} sent, {received} received",
            &self.fields,
        );
        let moved = moved.map(|(text, _)| text);
        if line.id.is_none() && self.level > Level::WARN {
            let by = self.fields.text("by").unwrap_or("client");
            let reason = self
                .fields
                .text("reason")
                .map(|reason| format!(": {reason}"));
            let parts = ["ended by the".to_owned(), by.to_owned()];
            let parts = parts.into_iter().chain(moved).collect::<Vec<_>>().join(" ");
            line.text = format!("{parts}{}", reason.unwrap_or_default());
            line.is_detail = true;
            return verbose.then_some(line);
        }
        line.mark = match self.level <= Level::WARN {
            true => Mark::Bad,
            false => Mark::Warning,
        };
        let lost = match self.fields.text("by") {
            Some("shutdown") => "ended, because pgiam is stopping",
            Some("server") => "connection lost",
            _ => "ended",
        };
        let moved = moved.map(|moved| format!(" {moved}")).unwrap_or_default();
        line.text = self.reason(&line, &format!("{lost}{moved}"));
        Some(line)
    }

    /// Returns the reason without the target, which has its own column; `otherwise` without one.
    fn reason(&self, line: &Line, otherwise: &str) -> String {
        let Some(reason) = self.fields.text("reason") else {
            return otherwise.to_owned();
        };
        let reason = without_target(reason, line.target.as_deref());
        match otherwise {
            "failed" => reason,
            text => format!("{text}: {reason}"),
        }
    }

    fn other(&self, message: &str, verbose: bool) -> Line {
        let mut line = self.blank();
        line.client = self.client();
        if self.level > Level::INFO {
            line.text = self.with_pairs(message);
            return line;
        }
        let known = sentence(message);
        let filled = known.and_then(|known| fill(known.form, &self.fields));
        if let Some(mark) = known.and_then(|known| known.mark) {
            line.mark = mark;
        }
        let (mut text, used) = filled.unwrap_or_else(|| (message.to_owned(), Vec::new()));
        if used.contains(&"id") {
            line.id = None;
        }
        let cause = ["reason", "error", "problem"];
        let cause = cause.iter().filter(|name| !used.contains(name));
        let cause = cause.filter_map(|name| self.fields.text(name)).next();
        if let Some(cause) = cause {
            let (cause, hint) = self.cause(message, cause);
            text = format!("{text}: {cause}");
            line.hint = line.hint.or(hint);
        }
        let is_target = |name: &str| name == "name" && self.target().is_some();
        let others = self.fields.iter().filter(|(name, _)| {
            let is_placed = PLACED.contains(name) || used.contains(name) || is_target(name);
            !is_placed && (verbose || !FOR_SEARCHES.contains(name))
        });
        let others = others.map(|(name, value)| {
            let label = name.trim_end_matches("_ms").trim_end_matches("_s");
            format!("{} {}", label.replace('_', " "), in_words(name, value))
        });
        let others: Vec<String> = others.collect();
        if !others.is_empty() {
            text = format!("{text} ({})", others.join(", "));
        }
        line.text = without_target(&text, line.target.as_deref());
        line
    }

    /// Splits the error of a command into its message and its hint.
    fn cause(&self, message: &str, cause: &str) -> (String, Option<String>) {
        if !WITH_COMMAND_ERROR.contains(&message) {
            return (cause.to_owned(), None);
        }
        // Escaped line breaks: the fields are safe already.
        let (said, hint) = match cause.split_once("\\nhint: ") {
            Some((said, hint)) => (said, Some(hint)),
            None => (cause, None),
        };
        let folded = |text: &str| {
            let parts = text.split("\\n").map(str::trim);
            parts.collect::<Vec<_>>().join(" ")
        };
        (folded(said), hint.map(folded))
    }

    /// Returns the message of a debug event with all fields as `name=value`.
    fn with_pairs(&self, message: &str) -> String {
        let module = match is_of(self.module, &OURS) {
            true => Cow::Borrowed(message),
            false => Cow::Owned(format!("{}: {message}", self.module)),
        };
        let pairs = self.fields.iter().filter(|(name, _)| *name != "message");
        let pairs = pairs.filter(|(name, _)| !matches!(*name, "id" | "hint" | "detail"));
        let pairs = pairs.map(|(name, value)| format!(" {name}={}", value.text));
        format!("{module}{}", pairs.collect::<String>())
    }

    /// Returns the kind of an event, for counting repeats: the same message, target, client and
    /// identifier; without an identifier also the same text, except for numbers.
    pub(super) fn kind(&self, line: &Line) -> String {
        let message = self.fields.text("message").unwrap_or_default();
        let parts = [
            Some(message),
            line.target.as_deref(),
            line.client.as_deref(),
            line.id.as_deref(),
        ];
        let mut kind = parts.map(Option::unwrap_or_default).join("\n");
        if line.id.is_none() && !message.starts_with("connection ") {
            kind.push('\n');
            kind.extend(line.text.chars().map(|c| match c {
                c if c.is_ascii_digit() => '0',
                c => c,
            }));
        }
        kind
    }
}

/// Returns the text without the name of the target, which has its own column.
fn without_target(text: &str, target: Option<&str>) -> String {
    match target {
        Some(target) => text.replace(&format!("target \"{target}\": "), ""),
        None => text.to_owned(),
    }
}

/// Returns the line that reports repeats.
pub(super) fn repeats(mut line: Line, count: u64, within: std::time::Duration) -> Line {
    let within = match within.as_secs() {
        59..=61 => "minute".to_owned(),
        _ => super::sentences::seconds(within.as_secs_f64().max(1.0)),
    };
    let text = std::mem::take(&mut line.text);
    let what = match text.is_empty() {
        true => String::new(),
        false => format!(": {text}"),
    };
    line.text = format!("{count} more in the last {within}{what}");
    line.duration = None;
    line.detail = None;
    line.hint = None;
    line
}
