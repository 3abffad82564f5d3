//! Reports of panics: bugs in pgiam or in a library.
//!
//! A report is one line with the version and the location. The payload is foreign text; it is
//! shortened and redacted as such. `RUST_BACKTRACE` adds a backtrace.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::quote::clean;
use crate::base::redacted::redact;

/// Identifier of a panic, in the log and in the errors that result from it.
pub(crate) const ID: &str = "internal.panic";
/// Maximum characters of a payload that are shown.
const LONGEST: usize = 200;
/// Panics within this time of a reported one are counted and reported with the next one.
const QUIET: Duration = Duration::from_secs(1);

/// Time of the last reported panic, and the number of panics since.
static LAST: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));

/// Installs the panic hook. Panics of a command go to standard error; panics of background tasks go
/// to the log, once logging is set up.
pub fn install() {
    std::panic::set_hook(Box::new(report));
}

/// Runs a command. Returns `None` if it panicked; the hook has reported that.
pub fn guard<T>(command: impl FnOnce() -> T) -> Option<T> {
    // Nothing of the command is used afterwards.
    catch_unwind(AssertUnwindSafe(command)).ok()
}

fn report(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map_or_else(|| "an unknown location".to_owned(), place);
    let said = line(payload(panic.payload()), &place);
    // The command itself runs on the main thread, and this line is its only output.
    let is_command = std::thread::current().name() == Some("main");
    if is_command || !tracing::dispatcher::has_been_set() {
        // Nothing can be done if even that fails.
        _ = writeln!(std::io::stderr(), "pgiam {said}");
    } else {
        match due(Instant::now()) {
            Some(0) => tracing::error!(id = ID, "pgiam {said}"),
            Some(more) => tracing::error!(id = ID, more, "pgiam {said}"),
            None => return,
        }
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        _ = writeln!(std::io::stderr(), "{backtrace}");
    }
}

/// Returns the number of panics omitted since the last report; `None` if this one is to be omitted.
fn due(now: Instant) -> Option<u64> {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (at, more) = &mut *last;
    if at.is_some_and(|at| now.saturating_duration_since(at) < QUIET) {
        *more += 1;
        return None;
    }
    *at = Some(now);
    Some(std::mem::take(more))
}

/// Returns file and line, without the directories above the crate.
fn place(at: &std::panic::Location<'_>) -> String {
    let file = at.file().replace('\\', "/");
    let of_library = file.split_once("/registry/src/").map(|(_, rest)| rest);
    let of_library = of_library.and_then(|rest| rest.split_once('/'));
    let file = of_library.map_or(file.as_str(), |(_, rest)| rest);
    format!("{file}:{}", at.line())
}

fn payload(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

fn line(payload: &str, place: &str) -> String {
    let said = clean(&redact(payload));
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = match said.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &said[..end]),
        None => said,
    };
    format!(
        "{} internal error: {said} at {place}; please report it",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_without_secrets_and_commands_for_the_terminal() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            line("called `Option::unwrap()`\non a `None` value", "src/x.rs:7"),
            format!(
                "{version} internal error: called `Option::unwrap()` on a `None` value at src/x.rs:7; please report it"
            )
        );
        let said = line("\x1b[2Jbad aws_session_token=FwoGZXIvYXdzEBYaD\r\nx", "y");
        assert!(
            !said.contains("FwoGZX") && !said.contains('\x1b') && !said.contains('\n'),
            "{said:?}"
        );
        assert!(line(&"é".repeat(10_000), "y").chars().count() < LONGEST + 100);
    }

    #[test]
    fn a_panicking_command_has_no_outcome() {
        assert_eq!(guard(|| 7), Some(7));
        assert_eq!(guard::<()>(|| panic!("on purpose")), None);
    }

    #[test]
    fn a_flood_of_panics_is_one_line_a_second() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        // Other tests of this process panic on purpose, and do not use the log.
        *LAST.lock().unwrap() = (None, 0);
        let told: Vec<Option<u64>> = (0..2500).map(|n| due(at(n))).collect();
        let told: Vec<u64> = told.into_iter().flatten().collect();
        assert_eq!(told, [0, 999, 999]);
    }
}
