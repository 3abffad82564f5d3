//! The hidden command that the completion scripts call: offers words for the end of a line.
//!
//! It prints what the shell has to do in the first line (`values`, `files`, `directories` or
//! `command`), and then one word for each line, followed by a tab and its description. It never
//! fails and never asks the network: a shell has no place for an error.

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};

use super::bash_line::BashLine;
use super::kinds::{ValueKind, kind_of};
use super::sources::{self, Candidate, Given};
use crate::base::quote::printable;
use crate::cli::terminal;
use crate::cli::{Cli, CompleteArgs, clause};

/// Deadline for files on a slow file server and for running processes. Whatever is not known by
/// then is not offered.
const DEADLINE: Duration = Duration::from_millis(500);

/// Maximum columns of a description: shells show it beside the word.
const NOTE: usize = 60;

/// Argument that the value of a flag or a positional argument belongs to, and values for it.
#[derive(Debug, Default)]
struct Wanted {
    kind: Option<ValueKind>,
    /// The beginning of the value, without a flag before it.
    typed: String,
    values: Vec<Candidate>,
}

type SharedWanted = Arc<Mutex<Wanted>>;

/// Prints what a shell can offer.
pub async fn offer(args: &CompleteArgs) {
    let bash = (args.shell == "bash").then(|| {
        let line = args.words.first().map(|line| line.to_string_lossy());
        let breaks = args.breaks.as_deref().unwrap_or_default();
        BashLine::parse(&line.unwrap_or_default(), breaks)
    });
    let words: Vec<OsString> = match &bash {
        Some(line) => line.words.iter().map(OsString::from).collect(),
        None => args.words.clone(),
    };
    let mut out = String::new();
    match offered(words, bash.is_none()).await {
        Offer::Command(before) => out = format!("command {before}").trim_end().to_owned() + "\n",
        Offer::Files => out.push_str("files\n"),
        Offer::Directories => out.push_str("directories\n"),
        Offer::Values(values) => {
            out.push_str("values\n");
            for Candidate { value, help } in values {
                match &bash {
                    Some(line) => {
                        let insertion = line.insertion(&value);
                        out.extend(insertion.map(|word| word + "\n"));
                    }
                    None => out.push_str(&format!("{value}\t{help}\n")),
                }
            }
        }
    }
    // A shell that has gone needs no answer.
    _ = terminal::write(out);
}

/// What a shell has to offer.
#[derive(Debug)]
enum Offer {
    /// These words.
    Values(Vec<Candidate>),
    /// Files.
    Files,
    /// Directories.
    Directories,
    /// What it offers for the words after `--`, behind this command if one is named.
    Command(&'static str),
}

/// Finds the words for the end of a line. `unfiltered`: the shell itself compares them with the
/// beginning of the word.
async fn offered(mut words: Vec<OsString>, unfiltered: bool) -> Offer {
    // Assignments before the command.
    while words.len() > 1 && words[0].to_string_lossy().contains('=') {
        words.remove(0);
    }
    if let Some(command) = behind_dashes(&words) {
        return Offer::Command(command);
    }
    let given = Given::new(&words);
    let last = words.len().saturating_sub(1);
    let typed = words.last().map(|word| word.to_string_lossy().into_owned());
    let typed = typed.unwrap_or_default();
    if let Some(word) = words.last_mut()
        && unfiltered
    {
        *word = stem(&typed).into();
    }
    let wanted = SharedWanted::default();
    let mut command = completed_definition(&wanted);
    let found = complete(&mut command, words.clone(), last, None).unwrap_or_default();
    let kind = wanted.lock().ok().and_then(|wanted| wanted.kind);
    let mut found = match kind {
        Some(ValueKind::File) => return Offer::Files,
        Some(ValueKind::Directory) => return Offer::Directories,
        // The first word is a command, rather than a target of `serve`.
        Some(ValueKind::Target) if last == 1 && typed.is_empty() => found,
        None => found,
        Some(kind) => {
            let values = tokio::time::timeout(DEADLINE, sources::values(kind, &given)).await;
            let mut values = values.unwrap_or_default();
            if kind == ValueKind::Target {
                values.retain(|target| !words[..last].iter().any(|word| *word == *target.value));
            }
            if kind == ValueKind::Target && values.is_empty() && typed.is_empty() {
                let databases = described(&words, &given).await;
                if !databases.is_empty() {
                    return Offer::Values(databases);
                }
            }
            if let Ok(mut wanted) = wanted.lock() {
                wanted.values = values;
            }
            complete(&mut command, words.clone(), last, None).unwrap_or_default()
        }
    };
    let is_flag = |candidate: &CompletionCandidate| {
        let value = candidate.get_value().to_string_lossy();
        value.starts_with('-')
    };
    // Flags are offered when one is begun, or if there is nothing else.
    if !typed.starts_with('-') && !found.iter().all(is_flag) {
        found.retain(|candidate| !is_flag(candidate));
    } else if typed.starts_with("--") || typed.is_empty() {
        found.retain(|candidate| candidate.get_value().to_string_lossy().len() > 2);
    }
    let mut values: Vec<Candidate> = found.iter().filter_map(candidate).collect();
    // psql takes its flags without it, and a single target is completed at once.
    let takes_words = |word: &OsString| word == "run" || (word == "psql" && values.is_empty());
    if typed.is_empty() && last > 1 && words[1..last].iter().any(takes_words) {
        values.push(Candidate {
            value: "--".to_owned(),
            help: "before the words of the other program".to_owned(),
        });
    }
    Offer::Values(values)
}

/// Returns the databases that pgiam has seen, as flags, for a command that has no target to offer.
async fn described(words: &[OsString], given: &Given) -> Vec<Candidate> {
    let definition = Cli::completed();
    let command = words
        .get(1)
        .and_then(|word| definition.find_subcommand(word));
    let is_db = |arg: &clap::Arg| arg.get_long() == Some("db");
    if !command.is_some_and(|command| command.get_arguments().any(is_db)) {
        return Vec::new();
    }
    let found = sources::values(ValueKind::Database, given);
    let found = tokio::time::timeout(DEADLINE, found).await;
    let flag = |one: Candidate| Candidate {
        value: format!("--db={}", one.value),
        help: one.help,
    };
    found.unwrap_or_default().into_iter().map(flag).collect()
}

/// Returns the command whose arguments stand after `--`, or an empty text if the command itself
/// does.
fn behind_dashes(words: &[OsString]) -> Option<&'static str> {
    let before_last = words.len().checked_sub(1)?;
    let at = words[..before_last].iter().position(|word| word == "--")?;
    let is = |name: &str| words[1..at].iter().any(|word| word == name);
    match (is("run"), is("psql")) {
        (true, _) => Some(""),
        (false, true) => Some("psql"),
        _ => None,
    }
}

/// Returns the part of a word that decides about the kind of candidates: the shell compares the
/// rest with rules of its own, such as ignored case.
fn stem(typed: &str) -> String {
    let list = typed.rfind(',').map_or("", |comma| &typed[..=comma]);
    match typed.split_once('=') {
        Some((flag, _)) if flag.starts_with("--") && list.is_empty() => format!("{flag}="),
        _ if !list.is_empty() => list.to_owned(),
        _ if typed.starts_with("--") => "--".to_owned(),
        _ if typed.starts_with('-') => typed.to_owned(),
        _ => String::new(),
    }
}

/// Returns the command line, with completers for all values that pgiam knows.
fn completed_definition(wanted: &SharedWanted) -> clap::Command {
    with_completers(Cli::completed(), wanted)
}

fn with_completers(command: clap::Command, wanted: &SharedWanted) -> clap::Command {
    command
        .mut_args(|arg| match kind_of(&arg) {
            None => arg,
            Some(kind) => arg.add(completer(kind, wanted.clone())),
        })
        .mut_subcommands(|command| with_completers(command, wanted))
}

fn completer(kind: ValueKind, wanted: SharedWanted) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let typed = typed.to_string_lossy();
        // A flag where a positional argument may stand.
        if typed.starts_with('-') {
            return Vec::new();
        }
        let Ok(mut wanted) = wanted.lock() else {
            return Vec::new();
        };
        (wanted.kind, wanted.typed) = (Some(kind), typed.clone().into_owned());
        let values = wanted.values.iter();
        let values = values.filter(|candidate| candidate.value.starts_with(&*typed));
        let candidate = |candidate: &Candidate| {
            let help = (!candidate.help.is_empty()).then(|| candidate.help.clone().into());
            CompletionCandidate::new(&candidate.value).help(help)
        };
        values.map(candidate).collect()
    })
}

/// Returns a candidate that the scripts can read: one line, without a tab.
fn candidate(found: &CompletionCandidate) -> Option<Candidate> {
    let value = found.get_value().to_str()?;
    let help = found.get_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let first = help.lines().next().unwrap_or_default();
    let first = clause(first.trim_end_matches('.'), NOTE);
    let is_plain = !value.contains(char::is_control) && !value.is_empty();
    is_plain.then(|| Candidate {
        value: value.to_owned(),
        help: printable(&first),
    })
}
