//! Corrected command lines for words that are no command, flags of other commands, and a missing
//! `--`.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::base::quote::shell;
use crate::base::suggest::nearest;
use crate::platform::program;

/// Words of other tools, and the command that does the same here.
const SYNONYMS: &[(&str, &str)] = &[
    ("auth", "login"),
    ("autocomplete", "completions"),
    ("client", "psql"),
    ("completion", "completions"),
    ("config", "init"),
    ("configure", "init"),
    ("connect", "psql"),
    ("console", "psql"),
    ("daemon", "serve"),
    ("databases", "list"),
    ("debug", "check"),
    ("describe", "status"),
    ("diagnose", "check"),
    ("doctor", "check"),
    ("down", "stop"),
    ("dsn", "url"),
    ("env", "url"),
    ("error", "explain"),
    ("errors", "explain"),
    ("exec", "run"),
    ("exit", "stop"),
    ("forward", "tunnel"),
    ("generate", "init"),
    ("iam", "setup"),
    ("info", "status"),
    ("instances", "list"),
    ("kill", "stop"),
    ("listen", "serve"),
    ("log", "service logs"),
    ("logs", "service logs"),
    ("ls", "list"),
    ("manual", "man"),
    ("new", "init"),
    ("open", "psql"),
    ("password", "token"),
    ("ping", "check"),
    ("policy", "setup"),
    ("port-forward", "tunnel"),
    ("profile", "list"),
    ("profiles", "list"),
    ("proxy", "serve"),
    ("ps", "status"),
    ("quit", "stop"),
    ("ready", "wait"),
    ("session", "tunnel"),
    ("shell", "psql"),
    ("signin", "login"),
    ("signout", "logout"),
    ("sql", "psql"),
    ("ssh", "tunnel"),
    ("ssm", "tunnel"),
    ("sso", "login"),
    ("start", "serve"),
    ("test", "check"),
    ("up", "serve"),
    ("uri", "url"),
    ("verify", "check"),
    ("version", "--version"),
    ("why", "explain"),
];

/// Programs of PostgreSQL that stand where `pgiam run` expects a target.
const CLIENTS: &[&str] = &[
    "createdb",
    "pg_dump",
    "pg_dumpall",
    "pg_isready",
    "pg_restore",
    "pgbench",
    "pgcli",
    "psql",
    "reindexdb",
    "vacuumdb",
];

/// Returns the command that a word probably stands for.
pub(super) fn command_like(definition: &Command, word: &str) -> Option<String> {
    let lower = word.to_lowercase();
    let commands: Vec<&str> = definition
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(Command::get_name)
        .collect();
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == lower);
    let found = match synonym.map(|(_, own)| *own) {
        // In versions without it, `run` starts a client.
        Some("psql") if !commands.contains(&"psql") => Some("run"),
        Some(own) => Some(own),
        None => nearest(&lower, commands.iter().copied()),
    };
    found.filter(|found| *found != lower).map(str::to_owned)
}

/// Returns the command line with the command that `word` stands for; `None` if the word follows a
/// command, or is like none.
pub(super) fn with_command(definition: &Command, words: &[OsString], word: &str) -> Option<String> {
    let at = words.iter().position(|given| given == word)?;
    let is_command = |given: &OsString| definition.find_subcommand(given).is_some();
    if at == 0 || words[1..at].iter().any(is_command) {
        return None;
    }
    let command = command_like(definition, word)?;
    let mut words: Vec<String> = texts(words)?;
    // Flags follow the command.
    words.remove(at);
    words.splice(1..1, command.split(' ').map(str::to_owned));
    if words[1] == "run" && !words.iter().any(|word| word == "--") {
        // `exec TARGET CMD` of other tools, or `connect TARGET`.
        match words.len() {
            ..=3 => words.extend(["--", "psql"].map(str::to_owned)),
            _ => words.insert(3, "--".to_owned()),
        }
    }
    Some(line(&words))
}

fn texts(words: &[OsString]) -> Option<Vec<String>> {
    words
        .iter()
        .map(|word| word.to_str().map(str::to_owned))
        .collect()
}

/// Returns a line that can be copied to a shell.
fn line(words: &[String]) -> String {
    let own = words.iter().skip(1).map(|word| shell(word));
    let all: Vec<String> = std::iter::once("pgiam".to_owned()).chain(own).collect();
    all.join(" ")
}

/// A better answer to an invalid command line than the parser's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Correction {
    /// The fault, and the corrected line.
    Line(String, String),
    /// Remarks for the parser's message.
    Tips(Vec<String>),
}

/// Returns the correction of an invalid command line.
pub(super) fn correct(
    definition: &Command,
    words: &[OsString],
    error: &clap::Error,
) -> Option<Correction> {
    let words = texts(words)?;
    let (command, path) = command_of(definition, &words);
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let invalid = invalid(ContextKind::InvalidArg)?;
            let dashes = missing_dashes(command, &words, path, Some(invalid));
            dashes.or_else(|| other_flag(definition, command, &words, path, invalid))
        }
        ErrorKind::MissingRequiredArgument => missing_dashes(command, &words, path, None),
        ErrorKind::InvalidSubcommand => {
            let word = invalid(ContextKind::InvalidSubcommand)?;
            subcommand(definition, command, &words, word)
        }
        _ => None,
    }
}

/// Returns the command of a line, and the index of its first argument.
fn command_of<'a>(definition: &'a Command, words: &[String]) -> (&'a Command, usize) {
    let (mut command, mut at) = (definition, 1);
    while let Some(below) = words.get(at).and_then(|word| command.find_subcommand(word)) {
        (command, at) = (below, at + 1);
    }
    (command, at)
}

/// Corrects a line whose command takes words of another program after `--`, and has no `--`.
fn missing_dashes(
    command: &Command,
    words: &[String],
    first: usize,
    invalid: Option<&str>,
) -> Option<Correction> {
    let name = command.get_name();
    let takes_words = matches!(name, "run" | "psql");
    if !takes_words || words.iter().any(|word| word == "--") {
        return None;
    }
    let mut words = words.to_vec();
    let target = own_words(command, &words, first);
    if name == "psql" {
        let invalid = invalid?;
        let at = words[first..]
            .iter()
            .position(|word| word.starts_with(invalid))?
            + first;
        if replaced_flag(command, invalid).is_some() {
            return None;
        }
        words.insert(at, "--".to_owned());
        let fault = format!("'--' is missing before the arguments of psql: {invalid}");
        return Some(Correction::Line(fault, line(&words)));
    }
    let (one, two) = (target.first().copied(), target.get(1).copied());
    let is_client = |at: usize| CLIENTS.contains(&words[at].as_str()) || words[at].contains('/');
    let is_program = |at: usize| program::is_program(OsStr::new(&words[at]));
    // Flags that describe the database leave no place for a target, except for its own name.
    let described = described(&words);
    let is_target = |at: usize| match &described {
        Some(database) => *database == words[at],
        None => two.map_or(!is_program(at), |two| is_program(two) || !is_program(at)),
    };
    let at = match (one, two) {
        (Some(one), _) if is_client(one) || !is_target(one) => one,
        (Some(_), Some(two)) => two,
        // A target alone, or with arguments of psql.
        (Some(one), None) => {
            let rest = words.split_off(one + 1);
            words.extend(["--", "psql"].map(str::to_owned));
            words.extend(rest);
            let fault = "the command to run is missing".to_owned();
            return Some(Correction::Line(fault, line(&words)));
        }
        (None, _) => return None,
    };
    let fault = format!("'--' is missing before the command {}", shell(&words[at]));
    words.insert(at, "--".to_owned());
    Some(Correction::Line(fault, line(&words)))
}

/// Returns the database that flags describe.
fn described(words: &[String]) -> Option<String> {
    let value = |flag: &str| {
        let joined = format!("{flag}=");
        let mut pairs = words
            .iter()
            .zip(words.iter().skip(1).map(Some).chain([None]));
        pairs.find_map(|(word, next)| match word.strip_prefix(&joined) {
            Some(value) => Some(value.to_owned()),
            None => next.filter(|_| word == flag).cloned(),
        })
    };
    value("--db").or_else(|| value("--host"))
}

/// Returns the indices of the words that are neither flags of the command nor their values, up to
/// the first flag that the command does not have.
fn own_words(command: &Command, words: &[String], first: usize) -> Vec<usize> {
    let mut all = Vec::new();
    let mut at = first;
    while let Some(word) = words.get(at) {
        if !word.starts_with('-') || word == "-" {
            all.push(at);
        } else {
            let flag = word.split('=').next().unwrap_or_default();
            let Some(arg) = flag_of(command, flag) else {
                break;
            };
            let takes = arg.get_action().takes_values() && !arg.is_require_equals_set();
            if takes && !word.contains('=') {
                at += 1;
            }
        }
        at += 1;
    }
    all
}

pub(super) fn flag_of<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let long = flag.strip_prefix("--");
    let short = flag
        .strip_prefix('-')
        .and_then(|short| short.chars().next());
    command.get_arguments().find(|arg| match long {
        Some(long) => arg.get_long() == Some(long),
        None => short.is_some() && arg.get_short() == short,
    })
}

/// Returns the flag of pgiam for a flag of psql.
fn replaced_flag(command: &Command, flag: &str) -> Option<&'static str> {
    let own = match flag {
        "-U" | "--username" => "--user",
        "-d" | "--dbname" => "--database",
        "-p" => "--port",
        _ => return None,
    };
    flag_of(command, own).map(|_| own)
}

/// Names the flag that was meant, or the command that has it.
fn other_flag(
    definition: &Command,
    command: &Command,
    words: &[String],
    first: usize,
    invalid: &str,
) -> Option<Correction> {
    if let Some(own) = replaced_flag(command, invalid) {
        let mut words = words.to_vec();
        let at = words[first..]
            .iter()
            .position(|word| word.starts_with(invalid))?
            + first;
        // `-Uapp` and `--username=app` hold the value.
        let value = words[at][invalid.len()..]
            .trim_start_matches('=')
            .to_owned();
        words[at] = own.to_owned();
        if !value.is_empty() {
            words.insert(at + 1, value);
        }
        let fault = format!("{invalid} is a flag of psql; pgiam has {own}");
        return Some(Correction::Line(fault, line(&words)));
    }
    if matches!(invalid, "-W" | "-w" | "--password" | "--no-password") {
        return Some(Correction::Tips(vec![format!(
            "{invalid} is a flag of psql; pgiam logs in with a token and asks for no password"
        )]));
    }
    if let Some(word) = words.get(1)
        && definition.get_name() == command.get_name()
        && !word.starts_with('-')
    {
        let given: Vec<OsString> = words.iter().map(OsString::from).collect();
        let line = with_command(definition, &given, word)?;
        return Some(Correction::Line(
            format!("there is no command {}", shell(word)),
            line,
        ));
    }
    let owners = owners(definition, "pgiam", invalid);
    let shown: Vec<String> = owners.iter().map(|owner| format!("'{owner}'")).collect();
    (!owners.is_empty()).then(|| {
        let tip = format!("'{invalid}' is a flag of {}", shown.join(", "));
        Correction::Tips(vec![tip])
    })
}

/// Returns the commands that have a flag.
fn owners(command: &Command, line: &str, flag: &str) -> Vec<String> {
    let mut all = Vec::new();
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        let line = format!("{line} {}", below.get_name());
        if flag.starts_with("--") && flag_of(below, flag).is_some() {
            all.push(line.clone());
        }
        all.extend(owners(below, &line, flag));
    }
    all
}

/// Names the subcommand that was meant.
fn subcommand(
    definition: &Command,
    command: &Command,
    words: &[String],
    word: &str,
) -> Option<Correction> {
    if words.get(1).is_some_and(|first| first == "help") {
        let meant = command_like(definition, word)?;
        let meant = meant.trim_start_matches('-').to_owned();
        let line = format!("pgiam help {meant}");
        let line = if meant == "version" {
            "pgiam --version".to_owned()
        } else {
            line
        };
        return Some(Correction::Line(
            format!("there is no command {}", shell(word)),
            line,
        ));
    }
    let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let names = names.into_iter().filter(|name| *name != "help");
    let meant = match word {
        "iam" | "permissions" | "role" => Some("policy"),
        "grant" | "user" | "database" => Some("sql"),
        "terraform" | "cloudformation" | "instance" | "ec2" => Some("bastion"),
        word => nearest(word, names.clone()),
    };
    let Some(meant) = meant else {
        let names: Vec<&str> = names.collect();
        let tip = format!("subcommands: {}", names.join(", "));
        return Some(Correction::Tips(vec![tip]));
    };
    let mut words = words.to_vec();
    let at = words.iter().position(|given| given == word)?;
    words[at] = meant.to_owned();
    let fault = format!("there is no subcommand {}", shell(word));
    Some(Correction::Line(fault, line(&words)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn corrected(given: &str) -> String {
        let words = aws_profile::split_posix(given).unwrap();
        let error = Cli::definition().try_get_matches_from(&words).unwrap_err();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        match correct(&Cli::definition(), &words, &error) {
            Some(Correction::Line(_, line)) => line,
            Some(Correction::Tips(tips)) => tips.join("\n"),
            None => error.to_string(),
        }
    }

    #[test]
    fn missing_dashes_are_added() {
        for (given, expected) in [
            (
                "pgiam run orders psql -c 'select 1'",
                "pgiam run orders -- psql -c 'select 1'",
            ),
            ("pgiam run psql", "pgiam run -- psql"),
            (
                "pgiam run psql -c 'select 1'",
                "pgiam run -- psql -c 'select 1'",
            ),
            ("pgiam run orders", "pgiam run orders -- psql"),
            ("pgiam run orders -c x", "pgiam run orders -- psql -c x"),
            (
                "pgiam run --db orders --user app ./manage.py migrate --fake",
                "pgiam run --db orders --user app -- ./manage.py migrate --fake",
            ),
            (
                "pgiam run --db orders --user db_user env",
                "pgiam run --db orders --user db_user -- env",
            ),
            (
                "pgiam run --host=db.example npm test",
                "pgiam run --host=db.example -- npm test",
            ),
            ("pgiam run env", "pgiam run -- env"),
            ("pgiam run orders env", "pgiam run orders -- env"),
            ("pgiam run test sh -c x", "pgiam run test -- sh -c x"),
            (
                "pgiam run --db=orders orders pg_dump -Fc",
                "pgiam run --db=orders orders -- pg_dump -Fc",
            ),
        ] {
            assert_eq!(corrected(given), expected, "{given}");
        }
    }

    #[test]
    fn flags_of_other_commands_and_of_psql_are_known() {
        for (given, expected) in [
            (
                "pgiam check --watch",
                "'--watch' is a flag of 'pgiam status'",
            ),
            (
                "pgiam list --terraform",
                "'--terraform' is a flag of 'pgiam setup bastion'",
            ),
            ("pgiam serve -U app orders", "pgiam serve --user app orders"),
            (
                "pgiam check orders -dapp",
                "pgiam check orders --database app",
            ),
            ("pgiam check -W orders", "asks for no password"),
            ("pgiam chek orders --json", "pgiam check orders --json"),
        ] {
            let corrected = corrected(given);
            assert!(corrected.contains(expected), "{given} → {corrected}");
        }
    }

    #[test]
    fn subcommands_are_named() {
        assert_eq!(
            corrected("pgiam setup polcy orders"),
            "pgiam setup policy orders"
        );
        assert_eq!(corrected("pgiam setup iam"), "pgiam setup policy");
        assert_eq!(
            corrected("pgiam setup zzz"),
            "subcommands: policy, sql, bastion"
        );
        assert_eq!(corrected("pgiam help chek"), "pgiam help check");
        assert_eq!(corrected("pgiam help doctor"), "pgiam help check");
    }

    #[test]
    fn commands_are_found_by_spelling_and_meaning() {
        let definition = Cli::definition();
        let like = |word| command_like(&definition, word).unwrap_or_default();
        for (word, expected) in [
            ("chek", "check"),
            ("lsit", "list"),
            ("stauts", "status"),
            ("ls", "list"),
            ("doctor", "check"),
            ("proxy", "serve"),
            ("start", "serve"),
            ("version", "--version"),
            ("exec", "run"),
            ("config", "init"),
            ("profiles", "list"),
            ("zzz", ""),
        ] {
            assert_eq!(like(word), expected, "{word}");
        }
        // Each synonym leads to a command, and is none itself.
        for (word, own) in SYNONYMS {
            let is_known = |name: &str| definition.find_subcommand(name).is_some();
            assert!(
                own.split(' ').take(1).all(is_known) || matches!(*own, "psql" | "--version"),
                "{own}"
            );
            assert!(
                !is_known(word) || matches!(*word, "up" | "down" | "logs"),
                "{word}"
            );
        }
        assert!(SYNONYMS.is_sorted());
    }

    #[test]
    fn corrected_lines_can_be_copied() {
        let words = |line: &str| -> Vec<OsString> {
            let words = aws_profile::split_posix(line).unwrap();
            words.iter().map(OsString::from).collect()
        };
        let definition = Cli::definition();
        let with = |line: &str, word: &str| with_command(&definition, &words(line), word);
        assert_eq!(
            with("pgiam chek 'a b'", "chek").unwrap(),
            "pgiam check 'a b'"
        );
        assert_eq!(
            with("pgiam --warm sreve x", "sreve").unwrap(),
            "pgiam serve --warm x"
        );
        assert_eq!(
            with("pgiam exec orders pg_dump", "exec").unwrap(),
            "pgiam run orders -- pg_dump"
        );
        assert_eq!(with("pgiam serve chek", "chek"), None);
        assert_eq!(with("pgiam zzz", "zzz"), None);
    }
}
