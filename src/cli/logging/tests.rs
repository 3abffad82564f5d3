//! Tests of the three formats with a fixed clock and width.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::subscriber::with_default;
use tracing::{Span, debug, error, field, info, info_span, warn};

use super::*;
use crate::base::foreign_text::is_invisible;

mod day;
mod folding;
mod sources;

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Without a terminal, colours or verbosity.
const IN_A_FILE: Look = Look {
    width: None,
    colours: false,
    unicode: true,
};

fn at_terminal(width: usize) -> Look {
    Look {
        width: Some(width),
        ..IN_A_FILE
    }
}

/// Returns a log that writes to a page, at 14:03:21 of a fixed day.
fn human(look: Look, verbose: bool) -> (HumanLog, Page) {
    let page = Page::default();
    let sink = page.clone();
    let options = HumanOptions {
        sink: Box::new(move |text| sink.clone().write_all(text.as_bytes()).unwrap()),
        look: Box::new(move || look),
        time: Box::new(|with_date| match with_date {
            true => "2026-11-30T14:03:21+01:00".to_owned(),
            false => "14:03:21".to_owned(),
        }),
        verbose,
    };
    (HumanLog::new(options), page)
}

/// Returns the log lines for people of `events`.
fn for_people(look: Look, verbose: bool, events: impl FnOnce()) -> String {
    let (log, page) = human(look, verbose);
    let layer = log.with_filter(filter_fn(is_fit_to_log));
    with_default(tracing_subscriber::registry().with(layer), events);
    page.text()
}

/// Returns the log lines for machines of `events`, at `--log trace`.
fn for_machines(form: MachineForm, events: impl FnOnce()) -> String {
    let page = Page::default();
    let writer = page.clone();
    let layer = machine(EnvFilter::new("trace"), form, move || writer.clone());
    with_default(tracing_subscriber::registry().with(layer), events);
    page.text()
}

/// Returns the log lines of each format.
fn in_each_format(events: impl Fn()) -> [String; 3] {
    [
        for_people(IN_A_FILE, true, &events),
        for_machines(MachineForm::Json, &events),
        for_machines(MachineForm::Logfmt, &events),
    ]
}

const HOSTILE: &str = "\u{1b}]0;owned\u{7}\r\n2026-01-01T00:00:00Z  INFO forged\0\u{7f}\u{9b}2J\u{202e}\u{2028} session_token=S3CR3T";

fn hostile_events() {
    let error = io::Error::other(HOSTILE);
    let dynamic: &(dyn std::error::Error + 'static) = &error;
    let span = info_span!(
        "conn",
        user = HOSTILE,
        program = field::Empty,
        late = field::Empty
    );
    span.record("late", HOSTILE);
    span.record("program", HOSTILE);
    span.in_scope(|| {
        info!("{HOSTILE}");
        warn!(reason = HOSTILE, "as a string");
        warn!(reason = %HOSTILE, "as Display");
        warn!(reason = ?HOSTILE, list = ?[HOSTILE], "as Debug");
        error!(error = dynamic, bytes = HOSTILE.as_bytes(), "as an error");
        debug!(target: "rustls::conn", "{HOSTILE}");
    });
}

#[test]
fn no_field_of_any_kind_breaks_a_line_or_names_a_secret() {
    for text in in_each_format(hostile_events) {
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(!text.contains(|c| is_invisible(c) && c != '\n'), "{text:?}");
        assert!(!text.contains("S3CR3T"), "{text}");
        let forged = text.lines().any(|line| line.starts_with("2026-01-01"));
        assert!(!forged, "{text}");
    }
    for line in for_machines(MachineForm::Json, hostile_events).lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["span"]["name"], "conn", "{line}");
    }
}

#[test]
fn no_field_forges_a_line_on_a_terminal() {
    let coloured = Look {
        colours: true,
        ..at_terminal(60)
    };
    let events = || {
        hostile_events();
        warn!(
            reason = HOSTILE,
            detail = HOSTILE,
            hint = HOSTILE,
            "connection failed"
        );
    };
    for look in [at_terminal(60), coloured] {
        let text = for_people(look, true, events);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert!(
            !plain.contains(|c| is_invisible(c) && c != '\n'),
            "{plain:?}"
        );
        assert!(!plain.contains("S3CR3T"), "{plain}");
        // Each event begins with its time, and further lines are indented.
        let events = plain.lines().filter(|line| line.starts_with("14:03:21 "));
        assert_eq!(events.count(), 7, "{plain}");
        let others = plain.lines().filter(|line| !line.starts_with("14:03:21 "));
        for line in others {
            assert!(line.starts_with("           "), "{line:?}");
        }
    }
}

/// The fields of the formats for machines, in the order of earlier versions.
#[test]
fn json_lines_look_as_they_did() {
    let text = for_machines(MachineForm::Json, || {
        let span = info_span!("conn", peer = %"127.0.0.1:1", program = field::Empty, user = field::Empty, database = field::Empty);
        span.record("program", "psql");
        span.record("user", "db_user");
        span.in_scope(|| info!(ms = 1.5, id = "a.b", open = true, "connection ready"));
    });
    let (time, rest) = text.split_once(",\"level\"").unwrap();
    assert!(
        time.starts_with("{\"timestamp\":\"20") && time.ends_with("Z\""),
        "{text}"
    );
    assert_eq!(
        rest,
        ":\"INFO\",\"message\":\"connection ready\",\"ms\":1.5,\"id\":\"a.b\",\"open\":true,\"target\":\"pgiam::cli::logging::tests\",\"span\":{\"peer\":\"127.0.0.1:1\",\"user\":\"db_user\",\"name\":\"conn\"},\"spans\":[{\"peer\":\"127.0.0.1:1\",\"user\":\"db_user\",\"name\":\"conn\"}]}\n"
    );
}

#[test]
fn logfmt_has_the_fields_of_json() {
    let text = for_machines(MachineForm::Logfmt, || {
        let span = info_span!("conn", peer = %"127.0.0.1:1", program = "psql", user = "db user");
        span.in_scope(|| {
            warn!(
                ms = 1.5,
                id = "a.b",
                reason = "it's \"x=y\"",
                "connection ended"
            )
        });
    });
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(
        time.starts_with("timestamp=20") && time.ends_with('Z'),
        "{text}"
    );
    assert_eq!(
        rest,
        "level=WARN message=\"connection ended\" target=pgiam::cli::logging::tests id=a.b ms=1.5 reason=\"it's \\\"x=y\\\"\" span.name=conn span.peer=127.0.0.1:1 span.user=\"db user\"\n"
    );
}

#[test]
fn only_crates_on_the_lists_log() {
    let texts = in_each_format(|| {
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
    for text in texts {
        assert!(!text.contains("no "), "{text}");
        assert_eq!(text.matches("yes ").count(), 3, "{text}");
    }
}

#[test]
fn long_values_are_cut() {
    let long = "x".repeat(1_000_000);
    let text = for_people(IN_A_FILE, false, || info!(reason = long, "{long}"));
    assert!(text.len() < 3 * safe::LONGEST_VALUE, "{}", text.len());
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

#[test]
fn debug_filters_show_more() {
    for (filter, expected) in [
        ("info", false),
        ("warn", false),
        ("off", false),
        ("debug", true),
        ("trace", true),
        ("info,pgiam::tunnel=debug", true),
    ] {
        assert_eq!(is_verbose(&EnvFilter::new(filter)), expected, "{filter}");
    }
}
