//! The service manager of this system.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::tool;
use crate::base::{environment, quote};
use crate::platform::service_manager::systemd::{SERVICE, SOCKET};
use crate::platform::service_manager::{
    CommandLine, InstallPlan, ServiceSpec, launchd, systemd, tasks,
};
use crate::platform::{self, peer};

/// The service manager of this system, and the places of its files.
#[derive(Debug)]
pub(super) enum Manager {
    /// systemd, with the directory of the user's units.
    Systemd { units: PathBuf },
    /// launchd, with the home directory and the user id.
    Launchd { home: PathBuf, uid: u32 },
    /// The Task Scheduler, with the state directory and the user's name.
    Tasks { dir: PathBuf, user: String },
}

const NO_HOME: &str = "this account has no home directory for a service";

impl Manager {
    /// Finds the manager.
    ///
    /// # Errors
    /// An account without a home directory, or `sudo`, which would install a service of root.
    pub(super) fn here() -> anyhow::Result<Self> {
        if let Some(user) = environment::sudo_user() {
            bail!(
                "pgiam service is about your own account, and sudo runs it as root\nhint: run it without sudo, as {user}"
            );
        }
        if cfg!(windows) {
            return Ok(Self::Tasks {
                dir: platform::state_dir().context(NO_HOME)?,
                user: platform::os_user().context("this account has no name")?,
            });
        }
        if cfg!(target_os = "macos") {
            return Ok(Self::Launchd {
                home: std::env::home_dir().context(NO_HOME)?,
                uid: peer::own_uid().context("this account has no user id")?,
            });
        }
        let config = platform::user_config_file();
        let config = config
            .as_deref()
            .and_then(Path::parent)
            .and_then(Path::parent);
        let units = config.context(NO_HOME)?.join("systemd").join("user");
        Ok(Self::Systemd { units })
    }

    /// Checks that the manager runs for this account.
    ///
    /// # Errors
    /// It does not; with the message of its tool, possible causes and the remedy.
    pub(super) async fn must_run(&self) -> anyhow::Result<()> {
        let Self::Systemd { .. } = self else {
            return Ok(());
        };
        let show = words("systemctl --user show --property=Version");
        let reason = match tool::run(&show).await {
            Ok(output) if output.is_success => return Ok(()),
            Ok(output) => output.message(),
            Err(error) => format!("{error:#}"),
        };
        Err(anyhow!(
            "systemd does not run for this account: {}\npossible causes: a container; WSL without systemd=true below [boot] in /etc/wsl.conf; a shell of su or sudo, instead of a login\nhint: start pgiam in the background without a service:\n  pgiam up",
            reason.lines().next().unwrap_or_default()
        ))
    }

    /// Returns the name of the kind of service.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Systemd { .. } => "user unit of systemd",
            Self::Launchd { .. } => "launchd agent",
            Self::Tasks { .. } => "task at logon",
        }
    }

    /// Returns the installation.
    pub(super) fn plan(&self, spec: &ServiceSpec) -> InstallPlan {
        match self {
            Self::Systemd { units } => systemd::plan(spec, units),
            Self::Launchd { home, uid } => launchd::plan(spec, home, *uid),
            Self::Tasks { dir, user } => tasks::plan(spec, dir, user),
        }
    }

    /// Returns every file that an installation may have written.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Systemd { units } => vec![units.join(SERVICE), units.join(SOCKET)],
            Self::Launchd { home, .. } => vec![launchd::agent(home)],
            Self::Tasks { dir, .. } => vec![tasks::description(dir)],
        }
    }

    /// Returns the commands that stop a service with these files, and end its start at login.
    pub(super) fn stopping(&self, files: &[PathBuf]) -> Vec<CommandLine> {
        match self {
            Self::Systemd { .. } => {
                let names = files.iter().filter_map(|file| file.file_name()?.to_str());
                // First the socket, which would start the service again.
                let mut names: Vec<&str> = names.collect();
                names.sort_by_key(|name| *name != SOCKET);
                let stop = |name: &&str| words(&format!("systemctl --user disable --now {name}"));
                names.iter().map(stop).collect()
            }
            Self::Launchd { uid, .. } => {
                vec![words(&format!(
                    "launchctl bootout {}",
                    launchd::target(*uid)
                ))]
            }
            Self::Tasks { .. } => vec![
                words("schtasks /End /TN pgiam"),
                words("schtasks /Delete /TN pgiam /F"),
            ],
        }
    }

    /// Returns the commands after the files have been removed.
    pub(super) fn after_removal(&self) -> Vec<CommandLine> {
        match self {
            Self::Systemd { .. } => vec![words("systemctl --user daemon-reload")],
            Self::Launchd { .. } | Self::Tasks { .. } => Vec::new(),
        }
    }

    /// Returns the command that prints the log.
    pub(super) fn logs(&self, lines: u64, follow: bool) -> CommandLine {
        let mut command = match self {
            Self::Systemd { .. } => words(&format!("journalctl --user-unit {SERVICE} -n {lines}")),
            Self::Launchd { .. } => words(&format!("tail -n {lines}")),
            Self::Tasks { .. } => words("powershell -NoProfile -Command"),
        };
        match self {
            Self::Systemd { .. } if follow => command.push("-f".to_owned()),
            Self::Systemd { .. } => command.push("--no-pager".to_owned()),
            Self::Launchd { home, .. } => {
                command.extend(follow.then(|| "-F".to_owned()));
                command.push(launchd::log(home).display().to_string());
            }
            Self::Tasks { dir, .. } => {
                let wait = if follow { " -Wait" } else { "" };
                let path = quote::powershell(&tasks::log(dir).display().to_string());
                command.push(format!(
                    "Get-Content -Encoding UTF8 -Tail {lines}{wait} -LiteralPath {path}"
                ));
            }
        }
        command
    }
}

fn words(line: &str) -> CommandLine {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Properties of a systemd unit.
#[derive(Clone, Debug, Default)]
pub(super) struct UnitState(BTreeMap<String, String>);

impl UnitState {
    /// Asks systemd for the properties of a unit.
    ///
    /// # Errors
    /// systemctl fails.
    pub(super) async fn of(unit: &str) -> anyhow::Result<Self> {
        let mut command = words(
            "systemctl --user show --property=LoadState,ActiveState,SubState,UnitFileState,MainPID,StatusText,Result,ExecMainStatus,FragmentPath,NRestarts",
        );
        command.push(unit.to_owned());
        let output = tool::run(&command).await?;
        if !output.is_success {
            bail!("{} failed: {}", tool::shown(&command), output.message());
        }
        Ok(Self::parse(&output.stdout))
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// Returns a property; empty if systemd does not have it.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Returns true if the unit runs, or listens.
    pub(super) fn is_active(&self) -> bool {
        ["active", "reloading"].contains(&self.get("ActiveState"))
    }

    /// Returns the process of a service.
    pub(super) fn pid(&self) -> Option<u32> {
        self.get("MainPID").parse().ok().filter(|pid| *pid != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_each_manager() {
        let all = [
            Manager::Systemd { units: "/u".into() },
            Manager::Launchd {
                home: "/Users/me".into(),
                uid: 501,
            },
            Manager::Tasks {
                dir: r"C:\Users\o'neil\pgiam".into(),
                user: "me".to_owned(),
            },
        ];
        let shown: Vec<String> = all
            .iter()
            .flat_map(|manager| [manager.logs(20, false), manager.logs(20, true)])
            .map(|command| tool::shown(&command))
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn properties_of_a_unit() {
        let state = UnitState::parse(
            "ActiveState=active\nMainPID=4711\nStatusText=serving 1 target; a=b\n",
        );
        assert!(state.is_active());
        assert_eq!(state.pid(), Some(4711));
        assert_eq!(state.get("StatusText"), "serving 1 target; a=b");
        assert_eq!(state.get("Result"), "");
        assert_eq!(UnitState::parse("MainPID=0").pid(), None);
    }
}
