//! Log filter and log formats.
//!
//! Two rules apply to every value of `--log`. First, only the crates of this program and those listed
//! here may log, because other crates handle our secrets. Second, no field of an event contains a
//! control character, a secret that it names as such, or more than `LONGEST_VALUE` bytes.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError, filter_fn};
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{self as lines, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::base::foreign_text::{visible, visible_json};
use crate::base::redacted::redact;
use crate::cli::LogFormat;
use crate::cli::terminal;

/// Crates of this program.
const OURS: [&str; 4] = ["pgiam", "pg_handshake", "smux", "ssm_channel"];
/// Libraries that may log, up to `debug`. They see no credentials, tokens or requests to AWS: TLS
/// records are encrypted, names are public. All others (the AWS SDK, HTTP, WebSocket) log nothing: at
/// `info` and above the SDK quotes the output of a credential_process.
const HARMLESS: [&str; 7] = [
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "mio",
    "rustls",
    "tokio",
    "tokio_rustls",
];
/// Names of the log levels.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// Maximum length of one value in a human-readable line, in bytes.
const LONGEST_VALUE: usize = 8 * 1024;

/// Checks the value of `--log`.
///
/// # Errors
/// A text with the fault and the valid values.
pub fn filter(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected error, warn, info, debug, trace, or a filter such as \"info,pgiam::tunnel=debug\"";
    // The filter would treat an unknown level as the name of a crate, and log nothing.
    let unknown = text.split(',').map(str::trim).find(|part| {
        let is_level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        let is_number = matches!(part.as_bytes(), [b'0'..=b'5']);
        !is_level && !is_number && !part.contains(['=', '[']) && !may_log(part)
    });
    if let Some(unknown) = unknown {
        return Err(format!(
            "\"{}\" is not a log level; {EXPECTED}",
            visible(unknown)
        ));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(EXPECTED.to_owned()),
    }
}

/// Starts logging to standard error.
///
/// # Errors
/// Fails if [`filter`] would reject the filter, or if a logger is already installed.
pub fn start(wanted: &str, format: LogFormat) -> Result<(), Box<dyn Error + Send + Sync>> {
    let layer = layer(wanted, format, io::stderr, terminal::stderr_has_colours())?;
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(())
}

/// Returns the layer that writes one format to `writer`.
fn layer<W>(
    wanted: &str,
    format: LogFormat,
    writer: W,
    colours: bool,
) -> Result<Box<dyn Layer<Registry> + Send + Sync>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Writing internal errors to a full or closed standard error would panic.
    let filter = EnvFilter::try_new(wanted)?.and(filter_fn(is_fit_to_log));
    Ok(match format {
        LogFormat::Human => lines::layer()
            .log_internal_errors(false)
            .with_writer(writer)
            .with_target(false)
            .with_ansi(colours)
            .fmt_fields(SafeFields)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => lines::layer()
            .log_internal_errors(false)
            .with_writer(SafeJson(writer))
            .json()
            .flatten_event(true)
            .with_filter(filter)
            .boxed(),
    })
}

/// Returns true if a crate is on one of the lists. `target` is the target of its events.
fn may_log(target: &str) -> bool {
    is_of(target, &OURS) || is_of(target, &HARMLESS)
}

fn is_of(target: &str, crates: &[&str]) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    crates.contains(&name)
}

/// Returns true if a library may log at this level, for every filter: libraries that may handle our
/// secrets do not log, and none logs single bytes.
fn is_fit_to_log(event: &Metadata<'_>) -> bool {
    let target = event.target();
    is_of(target, &OURS) || (is_of(target, &HARMLESS) && *event.level() <= Level::DEBUG)
}

/// Escapes and shortens one value for a log line.
fn safe(value: &str) -> Cow<'_, str> {
    let end = value.floor_char_boundary(LONGEST_VALUE);
    let redacted = redact(&value[..end]);
    let mut shown = visible(&redacted).into_owned();
    if end < value.len() {
        shown.push_str(&format!("… ({} more bytes)", value.len() - end));
    }
    if shown == value {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(shown)
    }
}

/// Fields in the format `message name=value` of tracing-subscriber, with safe values.
struct SafeFields;

impl<'writer> FormatFields<'writer> for SafeFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = SafeVisitor {
            writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct SafeVisitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl SafeVisitor<'_> {
    fn write(&mut self, field: &Field, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        match (name, self.writer.has_ansi_escapes()) {
            ("message", _) => {}
            (name, true) => write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
            (name, false) => write!(self.writer, "{name}=")?,
        }
        self.writer.write_str(&safe(value))
    }
}

impl Visit for SafeVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // The metadata of the `log` crate is already in the line.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field, &format!("{value:?}"));
        }
    }
}

/// Writes JSON lines without terminal control characters and without named secrets.
struct SafeJson<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for SafeJson<W> {
    type Writer = SafeJsonLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SafeJsonLine(self.0.make_writer())
    }
}

/// Accepts whole lines: the layer writes each event at once.
struct SafeJsonLine<W>(W);

impl<W: Write> Write for SafeJsonLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let redacted = redact(&text);
        self.0.write_all(visible_json(&redacted).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{debug, error, info, info_span, warn};

    use super::*;
    use crate::base::foreign_text::is_invisible;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the log lines of `events` at `--log trace`.
    fn logged(format: LogFormat, colours: bool, events: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let layer = layer("trace", format, move || writer.clone(), colours).unwrap();
        with_default(tracing_subscriber::registry().with(layer), events);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    const HOSTILE: &str = "\u{1b}]0;owned\u{7}\r\n2026-01-01T00:00:00Z  INFO forged\0\u{7f}\u{9b}2J\u{202e}\u{2028} session_token=S3CR3T";

    #[test]
    fn no_field_of_any_kind_breaks_a_line_or_names_a_secret() {
        let events = || {
            let error = io::Error::other(HOSTILE);
            let dynamic: &(dyn std::error::Error + 'static) = &error;
            let span = info_span!("conn", user = HOSTILE, late = tracing::field::Empty);
            span.record("late", HOSTILE);
            span.in_scope(|| {
                info!("{HOSTILE}");
                warn!(reason = HOSTILE, "as a string");
                warn!(reason = %HOSTILE, "as Display");
                warn!(reason = ?HOSTILE, list = ?[HOSTILE], "as Debug");
                error!(error = dynamic, bytes = HOSTILE.as_bytes(), "as an error");
                debug!(target: "rustls::conn", "{HOSTILE}");
            });
        };
        for format in [LogFormat::Human, LogFormat::Json] {
            let text = logged(format, false, events);
            assert_eq!(text.lines().count(), 6, "{text}");
            assert!(!text.contains(|c| is_invisible(c) && c != '\n'), "{text:?}");
            assert!(!text.contains("S3CR3T"), "{text}");
            let forged = text.lines().any(|line| line.starts_with("2026-01-01"));
            assert!(!forged, "{text}");
            if format == LogFormat::Json {
                for line in text.lines() {
                    let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert_eq!(parsed["span"]["name"], "conn", "{line}");
                }
            }
        }
        let coloured = logged(LogFormat::Human, true, events);
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        assert!(
            !plain.contains(|c| is_invisible(c) && c != '\n'),
            "{plain:?}"
        );
        assert_eq!(plain.lines().count(), 6, "{plain}");
    }

    #[test]
    fn lines_look_as_they_did() {
        let text = logged(LogFormat::Human, false, || {
            let span = info_span!("conn", peer = %"127.0.0.1:1", user = tracing::field::Empty);
            span.record("user", "db_user");
            span.in_scope(|| info!(ms = 1.5, id = "a.b", open = true, "connection ready"));
        });
        assert!(
            text.ends_with(
                "  INFO conn{peer=127.0.0.1:1 user=\"db_user\"}: connection ready ms=1.5 id=\"a.b\" open=true\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn only_crates_on_the_lists_log() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let text = logged(format, false, || {
                error!(target: "aws_config::profile::credentials", "no 1");
                error!(target: "aws_smithy_runtime::client", "no 2");
                error!(target: "hyper_util::client", "no 3");
                error!(target: "tungstenite::protocol", "no 4");
                error!(target: "a_library_that_comes_later", "no 5");
                tracing::trace!(target: "rustls::record", "no 6");
                error!(target: "pgiamx", "no 7");
                debug!(target: "rustls::client", "yes 1");
                tracing::trace!(target: "ssm_channel::channel", "yes 2");
                tracing::trace!(target: "pgiam", "yes 3");
            });
            assert!(!text.contains("no "), "{text}");
            assert_eq!(text.matches("yes ").count(), 3, "{text}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        let long = "x".repeat(1_000_000);
        let text = logged(LogFormat::Human, false, || info!(reason = long, "{long}"));
        assert!(text.len() < 3 * LONGEST_VALUE, "{}", text.len());
        assert!(text.contains("more bytes)"));
    }

    #[test]
    fn words_that_are_no_level_are_refused() {
        for right in [
            "info",
            "WARN",
            "off",
            "3",
            "info,pgiam::tunnel=debug",
            "pgiam",
            "rustls=debug,error",
            "pgiam[conn]=trace",
        ] {
            assert_eq!(filter(right).as_deref(), Ok(right));
        }
        for wrong in [
            "",
            "nonsense",
            "verbose,info",
            "info,pgiam=loud",
            "\u{1b}[2J",
            "6",
        ] {
            let said = filter(wrong).unwrap_err();
            assert!(said.contains("info,pgiam::tunnel=debug"), "{said}");
            assert!(!said.contains('\u{1b}'), "{said}");
        }
    }
}
