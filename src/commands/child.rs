//! A client program as a child of this one: its environment, its signals, its exit code.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context, anyhow};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::connection_string::{ConnectionString, MISLEADING};
use crate::base::quote::shell;
use crate::cli::exit;
use crate::cli::terminal;
use crate::platform::descriptors::{ForChildren, LimitChange};
use crate::platform::program::to_start;
use crate::platform::{self, ForwardedSignals};

/// POSIX has no other number for it.
const SIGTERM: u8 = 15;

/// Signals and requests forwarded to the program.
pub(super) struct ChildSignals {
    received: ForwardedSignals,
    /// `pgiam stop`, forwarded as SIGTERM.
    pub(super) asked: CancellationToken,
    told: bool,
}

impl ChildSignals {
    /// Starts listening: from here on none of these signals kills this process.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub(super) fn install() -> anyhow::Result<Self> {
        Ok(Self {
            received: ForwardedSignals::install().context("cannot listen for signals")?,
            asked: CancellationToken::new(),
            told: false,
        })
    }

    /// Waits for the next signal; returns its number. Cancel-safe.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            signal = self.received.next() => signal,
            () = self.asked.cancelled(), if !self.told => {
                self.told = true;
                SIGTERM
            }
        }
    }
}

/// A client program to run.
pub(super) struct ChildCommand<'a> {
    /// The program, and its arguments.
    pub(super) words: &'a [OsString],
    /// Environment variables that lead to the database.
    pub(super) variables: Vec<(&'static str, String)>,
    /// The command of pgiam, for a notice.
    pub(super) started_by: &'static str,
}

impl ChildCommand<'_> {
    /// Runs the program to its end, and returns its exit code.
    ///
    /// # Errors
    /// There is no program, or this process cannot wait for it.
    pub(super) async fn run(
        self,
        signals: &mut ChildSignals,
        descriptors: Option<LimitChange>,
    ) -> anyhow::Result<u8> {
        let (program, rest) = self
            .words
            .split_first()
            .ok_or_else(|| anyhow!("no command to run"))?;
        let mut command = Command::new(to_start(program));
        command.args(rest);
        for name in MISLEADING {
            command.env_remove(name);
        }
        let inherited = [
            ("PGUSER", "--user", std::env::var("PGUSER").ok()),
            ("PGDATABASE", "--database", std::env::var("PGDATABASE").ok()),
        ];
        for replaced in replaced(self.started_by, &self.variables, inherited) {
            terminal::tell(replaced)?;
        }
        command.envs(self.variables);
        let spawned = {
            let _original = descriptors.map(ForChildren::begin);
            command.spawn()
        };
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let name = Path::new(program).display();
                let code = match error.kind() {
                    io::ErrorKind::NotFound => exit::NOT_FOUND,
                    _ => exit::CANNOT_RUN,
                };
                // The exit code reports it even if standard error is closed.
                _ = terminal::tell(format_args!("pgiam: cannot run {name}: {error}"));
                return Ok(code);
            }
        };
        Ok(code(follow(child, signals).await?))
    }
}

/// Returns the role of a client: the target's, else that of the environment, else libpq's default.
pub(super) fn role_of_client(configured: Option<String>) -> Option<String> {
    configured
        .or_else(|| std::env::var("PGUSER").ok())
        .or_else(platform::os_user)
}

/// Returns the environment variables of a client. Only libpq and its wrappers accept the directory of
/// a Unix socket as a host; the URL names the TCP port.
pub(super) fn variables(
    address: &ConnectionString,
    socket_dir: Option<&Path>,
) -> Vec<(&'static str, String)> {
    let mut variables = address.variables();
    variables.extend(socket_dir.map(|dir| ("PGHOST", dir.display().to_string())));
    variables
}

/// Returns a notice about a role or database in the caller's environment that the target replaces.
fn replaced(
    started_by: &str,
    variables: &[(&'static str, String)],
    inherited: [(&str, &str, Option<String>); 2],
) -> Vec<String> {
    let replaced = inherited.into_iter().filter_map(|(name, flag, before)| {
        let (_, value) = variables.iter().find(|(given, _)| *given == name)?;
        let before = before.filter(|before| !before.is_empty() && before != value)?;
        Some(format!(
            "pgiam: the target sets {name}=\"{value}\" for the command; your environment has \"{before}\"\nhint: to keep the value of your environment:\n  pgiam {started_by} {flag} {} …",
            shell(&before)
        ))
    });
    replaced.collect()
}

/// Waits for the end of the program, and forwards signals to it meanwhile.
async fn follow(mut child: Child, signals: &mut ChildSignals) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => {
                ForwardedSignals::forward(signal, &mut child);
            }
        }
    }
}

/// Returns the exit code that a shell would return.
fn code(status: ExitStatus) -> u8 {
    if let Some(signal) = platform::signal_of(status) {
        return exit::SIGNALLED.saturating_add(signal);
    }
    // Windows has codes that do not fit; those are still failures.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or(exit::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_role_or_database_is_named() {
        let ours = [
            ("PGUSER", "db_user".to_owned()),
            ("PGDATABASE", "app".to_owned()),
        ];
        let said = |user: &str, database: &str| {
            let inherited = [
                ("PGUSER", "--user", user),
                ("PGDATABASE", "--database", database),
            ];
            replaced(
                "run",
                &ours,
                inherited.map(|(name, flag, value)| (name, flag, Some(value.to_owned()))),
            )
        };
        assert_eq!(said("db_user", ""), [""; 0]);
        assert_eq!(
            said("db_user", "reports"),
            [
                "pgiam: the target sets PGDATABASE=\"app\" for the command; your environment has \"reports\"\nhint: to keep the value of your environment:\n  pgiam run --database reports …"
            ]
        );
        assert_eq!(said("reports", "reports").len(), 2);
    }

    #[test]
    fn a_socket_is_for_libpq_and_not_for_urls() {
        let address = ConnectionString {
            host: "localhost".to_owned(),
            port: 5433,
            user: None,
            database: None,
        };
        let last = |name: &str, socket: Option<&Path>| {
            let all = variables(&address, socket);
            let found = all.into_iter().rfind(|(given, _)| *given == name);
            found.map(|(_, value)| value)
        };
        let dir = Some(Path::new("/run/pgiam"));
        assert_eq!(last("PGHOST", dir).as_deref(), Some("/run/pgiam"));
        assert_eq!(last("PGHOST", None).as_deref(), Some("localhost"));
        let url = last("DATABASE_URL", dir).unwrap();
        assert_eq!(url, "postgresql://localhost:5433/");
    }
}
