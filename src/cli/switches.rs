//! Switches with values: `--warm`, `--warm=false` and `--warm false` are all accepted, and so are
//! `--json=no` and `--json yes`. So are `--relay`, `--relay=5439` and `--relay 5439`.
//!
//! For clap, a switch has no value, or has one after `=`: otherwise clap would use the name of a target
//! as the value. So this module joins an argument that [`parse_switch`] accepts to the switch before it,
//! and one that [`is_relay`] accepts to `--relay`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use crate::config::{is_relay, parse_switch};

enum SwitchKind {
    /// `--json`, without a value.
    Bare,
    /// `--warm[=BOOL]`.
    WithValue,
    /// `--relay[=PORT]`: clap reads the value.
    Relay,
}

fn switch_kind(arg: &Arg) -> Option<SwitchKind> {
    match arg.get_action() {
        ArgAction::SetTrue => Some(SwitchKind::Bare),
        ArgAction::Set if arg.get_id() == "relay" && arg.is_require_equals_set() => {
            Some(SwitchKind::Relay)
        }
        ArgAction::Set if arg.is_require_equals_set() => Some(SwitchKind::WithValue),
        _ => None,
    }
}

/// Rewrites `words` for clap.
pub(super) fn join_values(definition: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut words = words.into_iter();
    let mut out: Vec<OsString> = words.next().into_iter().collect();
    let mut words = words.peekable();
    let mut command = definition;
    while let Some(below) = words.peek().and_then(|word| command.find_subcommand(word)) {
        command = below;
        out.extend(words.next());
    }
    while let Some(word) = words.next() {
        if word == "--" {
            out.push(word);
            break;
        }
        let Some((flag, kind, value)) = split_switch(command, &word) else {
            out.push(word);
            continue;
        };
        if let SwitchKind::Relay = kind {
            let next = words.next_if(|next| value.is_none() && next.to_str().is_some_and(is_relay));
            out.push(joined_to(word, next));
            continue;
        }
        let value = match value {
            Some(value) => parse_switch(&value),
            None => {
                let next = words.peek().and_then(|next| next.to_str());
                let next = next.and_then(parse_switch);
                if next.is_some() {
                    words.next();
                }
                Some(next.unwrap_or(true))
            }
        };
        match (kind, value) {
            // Not a value: clap reports the error.
            (_, None) => out.push(word),
            (SwitchKind::Bare, Some(false)) => {}
            (SwitchKind::Bare, Some(true)) => out.push(flag.into()),
            (SwitchKind::WithValue | SwitchKind::Relay, Some(value)) => {
                out.push(format!("{flag}={value}").into());
            }
        }
    }
    out.extend(words);
    out
}

/// Returns `FLAG=VALUE`.
fn joined_to(mut flag: OsString, value: Option<OsString>) -> OsString {
    if let Some(value) = value {
        flag.push("=");
        flag.push(value);
    }
    flag
}

/// Splits an argument into the switch, its kind, and the value after `=`. `None` if it is no switch.
fn split_switch(
    command: &Command,
    word: &OsString,
) -> Option<(String, SwitchKind, Option<String>)> {
    let text = word.to_str()?;
    let (flag, value) = match text.split_once('=') {
        Some((flag, value)) => (flag, Some(value.to_owned())),
        None => (text, None),
    };
    let is_typed = |arg: &&Arg| match flag.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => {
            let short = flag.strip_prefix('-').map(|short| short.chars());
            short.is_some_and(|mut short| {
                arg.get_short().is_some()
                    && short.next() == arg.get_short()
                    && short.next().is_none()
            })
        }
    };
    let arg = command.get_arguments().find(is_typed)?;
    Some((flag.to_owned(), switch_kind(arg)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn joined(words: &str) -> String {
        let words = words.split_whitespace().map(OsString::from).collect();
        let words = join_values(&Cli::definition(), words);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn a_value_is_joined_to_its_switch() {
        for (typed, expected) in [
            ("pgiam --warm", "pgiam --warm=true"),
            (
                "pgiam serve --warm orders",
                "pgiam serve --warm=true orders",
            ),
            (
                "pgiam serve --warm off orders",
                "pgiam serve --warm=false orders",
            ),
            (
                "pgiam serve --warm=0 --keep-alive YES",
                "pgiam serve --warm=false --keep-alive=true",
            ),
            ("pgiam check --json", "pgiam check --json"),
            (
                "pgiam check --json=true orders",
                "pgiam check --json orders",
            ),
            ("pgiam check --json no orders", "pgiam check orders"),
            ("pgiam status -w 1", "pgiam status -w"),
            ("pgiam status -w=off", "pgiam status"),
            (
                "pgiam setup bastion --terraform=on x",
                "pgiam setup bastion --terraform x",
            ),
            ("pgiam serve --relay orders", "pgiam serve --relay orders"),
            (
                "pgiam serve --relay 5439 orders",
                "pgiam serve --relay=5439 orders",
            ),
            (
                "pgiam serve --relay=auto off",
                "pgiam serve --relay=auto off",
            ),
            (
                "pgiam setup policy --relay off",
                "pgiam setup policy --relay=off",
            ),
            // Arguments that are neither switches nor their values are unchanged.
            ("pgiam serve --warm=perhaps", "pgiam serve --warm=perhaps"),
            ("pgiam check --json=perhaps", "pgiam check --json=perhaps"),
            (
                "pgiam serve --user on --port 1",
                "pgiam serve --user on --port 1",
            ),
            (
                "pgiam run orders -- psql --json false",
                "pgiam run orders -- psql --json false",
            ),
            (
                "pgiam run orders --socket -- x",
                "pgiam run orders --socket -- x",
            ),
            ("pgiam", "pgiam"),
            ("pgiam serve -- --warm false", "pgiam serve -- --warm false"),
        ] {
            assert_eq!(joined(typed), expected, "{typed}");
        }
    }
}
