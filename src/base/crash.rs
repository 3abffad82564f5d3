//! What is said of a panic: a fault of this program, or of a library that it uses.
//!
//! One line with the version and the place, because that is what a report needs. The payload is text
//! that others have written; it is shortened, and redacted as such. `RUST_BACKTRACE` brings a backtrace.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::quote::clean;
use crate::base::redacted::redact;

/// The identifier of a panic, in the log and in errors that come of it.
pub(crate) const ID: &str = "internal.panic";
/// Characters of a payload that are shown.
const LONGEST: usize = 200;
/// Panics within this time of a reported one are counted, and told of with the next.
const QUIET: Duration = Duration::from_secs(1);

/// The last reported panic, and how many there have been since.
static LAST: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));

/// Reports panics from now on: those of a command on standard error, those of tasks beside it in the
/// log, which is there when logging is set up.
pub fn install() {
    std::panic::set_hook(Box::new(report));
}

/// Runs a command. `None`: it panicked, and the hook has said so.
pub fn guard<T>(command: impl FnOnce() -> T) -> Option<T> {
    // Nothing of the command is used afterwards.
    catch_unwind(AssertUnwindSafe(command)).ok()
}

fn report(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map_or_else(|| "an unknown place".to_owned(), place);
    let said = line(payload(panic.payload()), &place);
    // The command itself runs on the main thread, and has no outcome but this line.
    let is_command = std::thread::current().name() == Some("main");
    if is_command || !tracing::dispatcher::has_been_set() {
        // Nothing can be done when even that fails.
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

/// How many panics were left out since the last report; `None` when this one is to be left out.
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

/// The file and the line, without the directories above the crate.
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
