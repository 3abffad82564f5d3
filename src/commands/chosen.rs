//! The target of a command that looks for it in the configuration and in the running pgiam.

use std::collections::BTreeMap;
use std::path::Path;

use super::prompt;
use super::serve::state_dir;
use crate::admin::running::RunningTarget;
use crate::base::quote::printable;
use crate::base::suggest::nearest;
use crate::cli::terminal;
use crate::cli::{DatabaseArgs, ProgramArgs, StateArgs, TargetArgs};
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
        let all = RunningTarget::all(state_dir).await;
        match only(&all, name) {
            Some(only) => Ok(Self::Running(Box::new(only.clone()))),
            None => Err(with_running(error, &all)),
        }
    }

    /// Returns the configuration of the target, for a command that has connections of its own.
    fn into_config(self, flags: TargetLayer) -> Result<TargetConfig, ConfigError> {
        let running = match self {
            Self::Configured(chosen) => return Ok(chosen.config),
            Self::Running(running) => running,
        };
        // A closed standard error is no reason to stop.
        if terminal::stderr_width().is_some() {
            let line = format!("configuration: that of process {}", running.process.pid);
            _ = terminal::tell(terminal::styled(terminal::DIM, line));
        }
        let unknown = ConfigError::Missing {
            target: running.target.name.as_str().into(),
            key: "host",
            hint: "the running pgiam is of another version; restart it, or name the database with --db or --host",
        };
        running.config(flags).unwrap_or(Err(unknown))
    }
}

/// Returns the configuration of the command's single target: of the file or the flags, else of the
/// running pgiam.
///
/// # Errors
/// [`ConfigError`].
pub(super) async fn config(
    name: Option<&str>,
    database: &DatabaseArgs,
    program: &ProgramArgs,
    state: &StateArgs,
) -> anyhow::Result<TargetConfig> {
    let state_dir = state_dir(state.state_dir.as_ref())?;
    let flags = database.layer();
    let found = ChosenTarget::find(name, &flags, program, state_dir.as_deref()).await?;
    Ok(found.into_config(flags)?)
}

/// Returns the running target of this name, or the only one. Several processes may serve one
/// database; the lowest port is the first that was taken.
fn only<'a>(all: &'a [RunningTarget], name: Option<&str>) -> Option<&'a RunningTarget> {
    let is_named = |running: &&RunningTarget| name.is_none_or(|name| running.target.name == name);
    let mut named: Vec<&RunningTarget> = all.iter().filter(is_named).collect();
    named.sort_by_key(|running| running.target.port);
    let first = *named.first()?;
    let is_same = |other: &&RunningTarget| other.is_same(first);
    named.iter().all(is_same).then_some(first)
}

/// Adds the running targets to the error about a target that is not configured.
fn with_running(error: ConfigError, all: &[RunningTarget]) -> ConfigError {
    let names: BTreeMap<&str, u32> = all
        .iter()
        .map(|running| (running.target.name.as_str(), running.process.pid))
        .collect();
    if names.is_empty() {
        return error;
    }
    let listed: Vec<String> = names
        .iter()
        .map(|(name, pid)| format!("{} (process {pid})", printable(name)))
        .collect();
    match error {
        ConfigError::NoTarget { .. } => ConfigError::WhichTarget {
            known: listed.join(", "),
        },
        ConfigError::UnknownTarget {
            asked,
            suggestion,
            known,
        } => ConfigError::UnknownTarget {
            suggestion: match nearest(&asked, names.keys().copied()) {
                Some(name) => format!(
                    "did you mean \"{}\", which process {} serves? ",
                    printable(name),
                    names[name]
                ),
                None => suggestion,
            },
            known: format!("{known}; running: {}", listed.join(", ")),
            asked,
        },
        other => other,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn running(name: &str, pid: u32, port: u16) -> RunningTarget {
        let mut running = RunningTarget {
            process: Default::default(),
            target: Default::default(),
        };
        running.process.pid = pid;
        running.target.name = name.to_owned();
        running.target.configured_as = name.to_owned();
        running.target.port = port;
        running.target.settings = serde_json::json!({"db": name, "user": "db_user", "port": port});
        running
    }

    #[test]
    fn a_running_target_is_named_or_the_only_one() {
        let all = [running("orders", 2, 5434), running("stock", 3, 5435)];
        let port = |all: &[RunningTarget], name| only(all, name).map(|found| found.target.port);
        assert_eq!(port(&all, Some("orders")), Some(5434));
        assert_eq!(port(&all, Some("other")), None);
        assert_eq!(port(&all, None), None);
        assert_eq!(port(&all[..1], None), Some(5434));
        let mut twice = [running("orders", 2, 5434), running("orders", 1, 5433)];
        assert_eq!(port(&twice, Some("orders")), Some(5433));
        twice[0].target.profile = Some("prod".to_owned());
        assert_eq!(port(&twice, Some("orders")), None, "two databases");
    }

    #[test]
    fn errors_name_the_running_targets() {
        let all = [running("orders", 17, 5433), running("stock", 18, 5434)];
        let unknown =
            |asked: &str| ConfigFile::default().target(Some(asked), &TargetLayer::default());
        let said = with_running(unknown("ordres").unwrap_err(), &all).to_string();
        assert!(
            said.contains("did you mean \"orders\", which process 17 serves?"),
            "{said}"
        );
        let none = ConfigFile::default().target(None, &TargetLayer::default());
        let said = with_running(none.unwrap_err(), &all).to_string();
        assert!(
            said.ends_with("orders (process 17), stock (process 18)"),
            "{said}"
        );
        let said = with_running(unknown("ordres").unwrap_err(), &[]).to_string();
        assert!(!said.contains("process"), "{said}");
    }

    #[test]
    fn the_settings_of_a_running_target_are_a_configuration() {
        let found = running("orders", 17, 5433);
        let flags = TargetLayer {
            user: Some("other".to_owned()),
            ..TargetLayer::default()
        };
        let config = found.config(flags).unwrap().unwrap();
        assert_eq!(&*config.name, "orders");
        assert_eq!(config.settings.user.as_deref(), Some("other"));
        assert!(found.is_of(&config));
        let mut strange = found;
        strange.target.settings = serde_json::json!({"db": "orders", "future_key": 1});
        let chosen = ChosenTarget::Running(Box::new(strange));
        let said = chosen
            .into_config(TargetLayer::default())
            .unwrap_err()
            .to_string();
        assert!(said.contains("another version"), "{said}");
    }
}
