//! Explains a word that is neither a command nor a target: because `serve` may be omitted, the
//! first word of any command line can be a target.

use super::{background_log, complete};
use crate::base::quote::{shell, shown};
use crate::base::suggest::did_you_mean;
use crate::cli::{Cli, Command, SetupCommand};
use crate::config::ConfigError;
use crate::report::{FoundErrors, find_errors};

/// Adds the command line that was meant to the error about an unknown target.
pub(super) fn explained(error: anyhow::Error) -> anyhow::Error {
    let Some(ConfigError::UnknownTarget { asked, known, .. }) = error.downcast_ref() else {
        return error;
    };
    if matches!(asked.as_str(), "log" | "logs") {
        return of_log(asked, known);
    }
    let line = match find_errors(std::slice::from_ref(asked)) {
        FoundErrors::Entries(entries) if asked.contains('.') && entries.len() == 1 => {
            Some(format!("pgiam explain {}", entries[0].id))
        }
        _ => Cli::meant_line(asked),
    };
    let Some(line) = line else { return error };
    let known = known.clone();
    // A target may be as similar.
    let target = did_you_mean(asked, known.split(", ").filter(|name| *name != "(none)"));
    let question = match target.is_empty() {
        true => "did you mean this command?".to_owned(),
        false => format!("{target}or this command?"),
    };
    ConfigError::UnknownTarget {
        asked: asked.clone(),
        suggestion: format!("{question}\n  {line}\n"),
        known,
    }
    .into()
}

/// Names the places of the log.
fn of_log(asked: &str, known: &str) -> anyhow::Error {
    let file = complete::state_dir().map(|dir| background_log::path(&dir, &[]));
    let file = file.filter(|path| path.exists());
    let file = match file {
        Some(path) => shown(&path).to_string(),
        None => "shown by pgiam status".to_owned(),
    };
    let suggestion = format!(
        "show the log of the service:\n  pgiam service logs\nThe log of pgiam up is a file:\n  {file}\n"
    );
    ConfigError::UnknownTarget {
        asked: asked.to_owned(),
        suggestion,
        known: known.to_owned(),
    }
    .into()
}

/// Replaces the command line in the error about a missing target by one of this command.
pub(super) fn with_line(error: anyhow::Error, command: &Command) -> anyhow::Error {
    let line = line_of(command);
    match error.downcast_ref() {
        Some(ConfigError::NoTarget { searched, .. }) => {
            let searched = searched.clone();
            ConfigError::NoTarget { line, searched }.into()
        }
        // A file in place of a target.
        Some(ConfigError::UnknownTarget { asked, known, .. }) if asked.ends_with(".toml") => {
            let command = line.split(" --").next().unwrap_or_default();
            let suggestion = format!(
                "did you mean this command?\n  {command} --config {}\n",
                shell(asked)
            );
            let (asked, known) = (asked.clone(), known.clone());
            ConfigError::UnknownTarget {
                asked,
                suggestion,
                known,
            }
            .into()
        }
        _ => error,
    }
}

/// Returns the command line that names a database.
fn line_of(command: &Command) -> &'static str {
    match command {
        Command::Run(_) => "pgiam run --db NAME --user ROLE -- CMD",
        Command::Psql(_) => "pgiam psql --db NAME --user ROLE",
        Command::Check(_) => "pgiam check --db NAME --user ROLE",
        Command::Url(_) => "pgiam url --db NAME --user ROLE",
        Command::Token(_) => "pgiam token --db NAME --user ROLE",
        Command::Up(_) => "pgiam up --db NAME --user ROLE",
        Command::Service(_) => "pgiam service install -- --db NAME --user ROLE",
        Command::Setup(args) => match args.command {
            SetupCommand::Policy(_) => "pgiam setup policy --db NAME --user ROLE",
            SetupCommand::Sql(_) => "pgiam setup sql --db NAME --user ROLE",
            SetupCommand::Bastion(_) => "pgiam setup bastion --db NAME",
        },
        _ => "pgiam serve --db NAME --user ROLE",
    }
}
