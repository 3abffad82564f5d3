//! Exit after `--help`, or after an invalid command line.

use std::ffi::OsString;
use std::io;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::base::foreign_text::{ForeignText, visible};
use crate::cli::correction::{self, Correction};
use crate::cli::exit;
use crate::cli::help;
use crate::cli::terminal;
use crate::cli::terminal::{BAD, styled};

/// Writes the help or the message of clap and returns the exit code. Failing to write the help is
/// an error.
pub(super) fn print_and_code(error: clap::Error, definition: &Command, words: &[OsString]) -> i32 {
    match error.kind() {
        ErrorKind::DisplayHelp => {
            let help = help::text(definition, words, terminal::help_width());
            return exit_code(&error, terminal::write(help));
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let help = help::text(definition, words, terminal::help_width());
            _ = terminal::tell(help.trim_end());
            return error.exit_code();
        }
        _ => {}
    }
    if error.use_stderr() {
        let correction = correction::correct(definition, words, &error);
        let mut error = with_safe_context(error);
        match correction {
            Some(Correction::Line(fault, line)) => {
                _ = terminal::tell(corrected(&fault, &line));
                return error.exit_code();
            }
            Some(Correction::Tips(tips)) => {
                let tips = tips
                    .into_iter()
                    .map(|tip| visible(&tip).into_owned().into());
                error.insert(
                    ContextKind::Suggested,
                    ContextValue::StyledStrs(tips.collect()),
                );
            }
            None => {}
        }
        // An error of this write cannot be reported anywhere.
        _ = terminal::tell(error.render().ansi().to_string().trim_end());
        return error.exit_code();
    }
    exit_code(&error, terminal::write(error.render().ansi()))
}

/// Returns the message with a corrected line, which stands on a line of its own.
fn corrected(fault: &str, line: &str) -> String {
    format!(
        "{} {}\nhint: run\n  {}",
        styled(BAD, "error:"),
        visible(fault),
        visible(line)
    )
}

fn exit_code(error: &clap::Error, written: io::Result<()>) -> i32 {
    match written {
        Ok(()) => error.exit_code(),
        Err(failed) => {
            _ = terminal::tell(format!("pgiam: cannot write to standard output: {failed}"));
            i32::from(exit::FAILED)
        }
    }
}

/// Escapes and shortens the arguments and variables in an error, so that they cannot control a
/// terminal, forge a line, or fill the screen.
fn with_safe_context(mut error: clap::Error) -> clap::Error {
    let escaped = |text: &str| ForeignText::new(text).into_string();
    let given: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| {
            let value = match (kind, value) {
                // clap's own text, of several lines.
                (ContextKind::Usage, _) => return None,
                (_, ContextValue::String(text)) => ContextValue::String(escaped(text)),
                (_, ContextValue::Strings(all)) => {
                    ContextValue::Strings(all.iter().map(|text| escaped(text)).collect())
                }
                (_, ContextValue::StyledStr(text)) => {
                    ContextValue::StyledStr(escaped(&text.to_string()).into())
                }
                (_, ContextValue::StyledStrs(all)) => ContextValue::StyledStrs(
                    all.iter()
                        .map(|text| escaped(&text.to_string()).into())
                        .collect(),
                ),
                _ => return None,
            };
            Some((kind, value))
        })
        .collect();
    for (kind, value) in given {
        error.insert(kind, value);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::foreign_text::is_invisible;
    use crate::cli::Cli;

    fn said(words: &[&str]) -> String {
        let words = [&["pgiam"], words].concat();
        let error = Cli::definition().try_get_matches_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        with_safe_context(error).render().to_string()
    }

    #[test]
    fn words_and_values_cannot_command_a_terminal() {
        const HOSTILE: &str = "\u{1b}]0;owned\u{7}\nERROR forged \u{202e}";
        for words in [
            &[&format!("--port={HOSTILE}")[..]][..],
            &[&format!("--log={HOSTILE}")],
            &[&format!("--log-format={HOSTILE}")],
            &[&format!("--http-address={HOSTILE}")],
            &[&format!("--warm={HOSTILE}")],
            &[&format!("--{HOSTILE}")],
            &["setup", HOSTILE],
            &["check", "orders", "--json", HOSTILE],
            &["tunnel", HOSTILE],
        ] {
            let text = said(words);
            let lines = text.lines();
            for line in lines {
                assert!(!line.contains(is_invisible), "{line:?}");
                assert!(!line.starts_with("ERROR"), "{text}");
            }
        }
        let text = said(&["serve", "--port=pg"]);
        assert!(text.contains("'pg' for '--port <PORT>'"), "{text}");
        let text = said(&["serve", &format!("--port={}", "9".repeat(100_000))]);
        assert!(text.len() < 2000, "{}", text.len());
    }

    #[test]
    fn help_that_is_lost_is_a_failure() {
        let words = ["pgiam", "--help"];
        let help = Cli::definition().try_get_matches_from(words).unwrap_err();
        assert_eq!(exit_code(&help, Ok(())), 0);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(exit_code(&help, Err(full)), 1);
    }
}
