//! Explains a word that is neither a command nor a target: because `serve` may be omitted, the
//! first word of any command line can be a target.

use crate::base::suggest::did_you_mean;
use crate::cli::Cli;
use crate::config::ConfigError;
use crate::report::{FoundErrors, find_errors};

/// Adds the command line that was meant to the error about an unknown target.
pub(super) fn explained(error: anyhow::Error) -> anyhow::Error {
    let Some(ConfigError::UnknownTarget { asked, known, .. }) = error.downcast_ref() else {
        return error;
    };
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
