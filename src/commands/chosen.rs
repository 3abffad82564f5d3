//! The target of a command that looks for it in the configuration and in the running pgiam.

use std::path::Path;

use super::prompt;
use crate::admin::running::RunningTarget;
use crate::base::quote::printable;
use crate::cli::terminal;
use crate::cli::{ProgramArgs, TargetArgs};
use crate::config::{ConfigError, ConfigFile, TargetConfig, TargetLayer};

/// The target of a command.
pub(super) enum ChosenTarget {
    /// A target of the configuration or of flags.
    Configured(Box<ConfiguredTarget>),
    /// A target that only a running pgiam knows.
    Running(Box<RunningTarget>),
}

/// A target of the configuration or of flags.
pub(super) struct ConfiguredTarget {
    pub(super) config: TargetConfig,
    /// The whole file.
    pub(super) file: ConfigFile,
}

impl ChosenTarget {
    /// Returns the target with this name, or the one that the flags describe, or the only one: of
    /// the configuration, else of the running pgiam.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) async fn find(
        name: Option<&str>,
        flags: &TargetLayer,
        program: &ProgramArgs,
        state_dir: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let file = super::load_file(program)?;
        let error = match file.clone().target(name, flags) {
            Ok(config) => {
                return Ok(Self::Configured(Box::new(ConfiguredTarget {
                    config,
                    file,
                })));
            }
            Err(error) => error,
        };
        let is_unknown = matches!(
            error,
            ConfigError::UnknownTarget { .. } | ConfigError::NoTarget { .. }
        );
        if !is_unknown {
            return Err(error);
        }
        let mut all = RunningTarget::all(state_dir).await;
        all.retain(|running| name.is_none_or(|name| running.target.name == name));
        match <[RunningTarget; 1]>::try_from(all) {
            Ok([only]) => Ok(Self::Running(Box::new(only))),
            Err(_) => Err(error),
        }
    }
}

/// Returns the name of the target: the given one, or the one that the user selects at a terminal if
/// there are several. `Err(None)`: the user has cancelled.
pub(super) async fn name(
    target: &TargetArgs,
    program: &ProgramArgs,
    state_dir: Option<&Path>,
) -> anyhow::Result<Selection> {
    let flags = target.database.layer();
    let is_described = flags.host.is_some() || flags.db.is_some();
    if target.name.is_some() || is_described || !terminal::is_interactive() {
        return Ok(Selection::Name(target.name.clone()));
    }
    let file = super::load_file(program)?;
    let mut rows: Vec<(String, String)> = Vec::new();
    for name in file.targets.keys() {
        let target = file.clone().target(Some(name), &flags);
        let place = target.map(|config| config.database_ref.to_string());
        rows.push((name.clone(), place.unwrap_or_default()));
    }
    for RunningTarget { target, .. } in RunningTarget::all(state_dir).await {
        if rows.iter().all(|(name, _)| *name != target.name) {
            rows.push((target.name, target.endpoint));
        }
    }
    if rows.len() < 2 {
        return Ok(Selection::Name(None));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or_default();
    let line = |(name, place): &(String, String)| printable(&format!("{name:width$}  {place}"));
    let items = rows.iter().map(line).collect();
    let selected = prompt::select("Target".to_owned(), items).await?;
    Ok(match selected.and_then(|at| rows.into_iter().nth(at)) {
        Some((name, _)) => Selection::Name(Some(name)),
        None => Selection::Cancelled,
    })
}

/// Result of [`name`].
pub(super) enum Selection {
    /// The name; `None`: there is one target at most.
    Name(Option<String>),
    /// The user has cancelled.
    Cancelled,
}
