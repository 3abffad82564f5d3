//! Log filter and log formats.
//!
//! Two rules apply to every value of `--log`. First, only the crates of this program and those listed
//! here may log, because other crates handle our secrets. Second, no field of an event contains a
//! control character, a secret that it names as such, or more than `LONGEST_VALUE` bytes.

mod event;
mod fold;
mod human;
mod line;
mod logfmt;
mod output;
mod safe;
mod sentences;
mod stable_fields;
#[cfg(test)]
mod tests;
mod words;

use std::error::Error;
#[cfg(test)]
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::{self as lines, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::base::foreign_text::visible;
use crate::base::local_time;
use crate::cli::LogFormat;
use crate::cli::terminal;
use human::{HumanLog, HumanOptions};
use line::Look;
use output::LogWriters;
pub use output::settle;
use safe::{MachineForm, SafeLines};
use stable_fields::StableFields;

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

/// Running log. Write its last lines with [`Log::finish`].
pub struct Log(Option<HumanLog>);

impl Log {
    /// Reports repeated events once a minute; never returns. Spawn it on the runtime.
    pub async fn report_repeats(&self) {
        match &self.0 {
            Some(human) => human.report_repeats().await,
            None => std::future::pending().await,
        }
    }

    /// Reports the repeated events since the last report, and waits until the log is written or its
    /// reader has stopped.
    pub fn finish(&self) {
        if let Some(human) = &self.0 {
            human.finish();
        }
        settle();
    }
}

/// True once [`only_errors`] was called.
static ONLY_ERRORS: AtomicBool = AtomicBool::new(false);

/// Leaves out all human log lines below the level error from now on, for a client program that uses
/// the terminal.
pub fn only_errors() {
    ONLY_ERRORS.store(true, Ordering::Relaxed);
}

fn is_only_errors() -> bool {
    ONLY_ERRORS.load(Ordering::Relaxed)
}

/// Starts logging to standard error.
///
/// # Errors
/// Fails if [`filter`] would reject the filter, or if a logger is already installed.
pub fn start(wanted: &str, format: LogFormat) -> Result<Arc<Log>, Box<dyn Error + Send + Sync>> {
    let filter = EnvFilter::try_new(wanted)?;
    let mut log = Log(None);
    let layer = match format {
        LogFormat::Human => {
            let human = HumanLog::new(at_standard_error(is_verbose(&filter)));
            log.0 = Some(human.clone());
            human
                .with_filter(filter.and(filter_fn(is_fit_to_log)))
                .boxed()
        }
        LogFormat::Json => machine(filter, MachineForm::Json, LogWriters),
        LogFormat::Logfmt => machine(filter, MachineForm::Logfmt, LogWriters),
    };
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(Arc::new(log))
}

/// Returns true if a filter lets events of level debug through.
fn is_verbose(filter: &EnvFilter) -> bool {
    filter.max_level_hint() >= Some(LevelFilter::DEBUG)
}

/// Writes to standard error, in the form that it can show.
fn at_standard_error(verbose: bool) -> HumanOptions {
    let (colours, unicode) = (terminal::stderr_has_colours(), terminal::has_unicode());
    HumanOptions {
        sink: Box::new(|text| output::stderr().push(text)),
        look: Box::new(move || Look {
            width: terminal::stderr_width(),
            colours,
            unicode,
        }),
        time: Box::new(|with_date| match with_date {
            true => local_time::stamp(SystemTime::now()),
            false => local_time::clock(SystemTime::now()),
        }),
        verbose,
    }
}

/// Returns the layer that writes a format for machines to `writer`.
fn machine<W>(
    filter: EnvFilter,
    form: MachineForm,
    writer: W,
) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Writing internal errors to a full or closed standard error would panic.
    lines::layer()
        .log_internal_errors(false)
        .with_writer(SafeLines { writer, form })
        .json()
        .flatten_event(true)
        .fmt_fields(StableFields)
        .with_filter(filter.and(filter_fn(is_fit_to_log)))
        .boxed()
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
