//! `pgiam psql [TARGET] [-- ARGS]`: psql in a target, through the running pgiam or a tunnel of its
//! own.

use std::ffi::OsString;

use super::child::{self, ChildCommand, ChildSignals};
use super::chosen::{self, ChosenTarget, Selection};
use super::login::on_demand;
use super::serve::state_dir;
use super::url::address_at;
use crate::admin::running::RunningTarget;
use crate::base::quote::shell;
use crate::cli::exit;
use crate::cli::terminal::{self, DIM, styled};
use crate::cli::{PsqlArgs, RunArgs};
use crate::config::{Auth, TargetConfig, Via};
use crate::platform::program;

/// Default program.
const PSQL: &str = "psql";

/// Runs psql; returns its exit code.
///
/// # Errors
/// Any error that prevents psql from starting.
pub async fn psql(args: &PsqlArgs) -> anyhow::Result<u8> {
    let args = &with_target(args)?;
    let wanted = args.psql.clone().unwrap_or_else(|| PSQL.into());
    if !program::is_program(&wanted) {
        let target = args.target.name.as_deref();
        terminal::tell(missing(&wanted.to_string_lossy(), target))?;
        return Ok(exit::NOT_FOUND);
    }
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    let mut signals = ChildSignals::install()?;
    let name = match chosen::name(&args.target, &args.program, state_dir.as_deref()).await? {
        Selection::Name(name) => name,
        Selection::Cancelled => return super::cancelled(),
    };
    let flags = args.target.database.layer();
    let found = ChosenTarget::find(name.as_deref(), &flags, &args.program, state_dir.as_deref());
    let words: Vec<OsString> = [wanted].into_iter().chain(args.args.clone()).collect();
    let route = match found.await? {
        ChosenTarget::Running(running) => {
            let TargetRoute { user, database, .. } = TargetRoute::of_running(&running);
            TargetRoute {
                user: flags.user.clone().or(user),
                database: flags.database.clone().or(database),
                running: *running,
            }
        }
        ChosenTarget::Configured(chosen) => {
            let config = &chosen.config;
            let running = RunningTarget::find(config, state_dir.as_deref()).await;
            match running.filter(|running| is_same_route(running, config)) {
                Some(running) => {
                    tokio::select! {
                        offered = on_demand::offer_for_target(config) => offered?,
                        signal = signals.next() => return Ok(exit::SIGNALLED.saturating_add(signal)),
                    }
                    TargetRoute {
                        user: config.settings.user.clone(),
                        database: config.settings.database.clone(),
                        running,
                    }
                }
                None => return own_tunnel(args, name, words).await,
            }
        }
    };
    route.run(&words, &mut signals).await
}

/// Selects a target by `-d NAME`, as several targets at one port are selected: if the file has several
/// and one of this name.
fn with_target(args: &PsqlArgs) -> anyhow::Result<PsqlArgs> {
    let mut args = args.clone();
    let flags = args.target.database.layer();
    let is_open = args.target.name.is_none() && flags.host.is_none() && flags.db.is_none();
    if let (true, Some(named)) = (is_open, flags.database) {
        let targets = super::load_file(&args.program)?.targets;
        if targets.len() > 1 && targets.contains_key(&named) {
            args.target.name = Some(named);
            args.target.database.database.database = None;
        }
    }
    Ok(args)
}

/// Runs psql as `pgiam run` does.
async fn own_tunnel(
    args: &PsqlArgs,
    name: Option<String>,
    words: Vec<OsString>,
) -> anyhow::Result<u8> {
    say("psql through a tunnel of its own")?;
    let run = RunArgs {
        target: name,
        command: words,
        ready_timeout: RunArgs::READY_TIMEOUT,
        socket: false,
        database: args.target.database.clone(),
        state: args.state.clone(),
        program: args.program.clone(),
        ..RunArgs::default()
    };
    Box::pin(super::run::run(&run)).await
}

/// Writes a dim line for a user at a terminal.
fn say(line: &str) -> std::io::Result<()> {
    match terminal::stderr_width() {
        Some(_) => terminal::tell(styled(DIM, line)),
        None => Ok(()),
    }
}

/// Route through a running pgiam.
struct TargetRoute {
    running: RunningTarget,
    user: Option<String>,
    database: Option<String>,
}

impl TargetRoute {
    fn of_running(running: &RunningTarget) -> Self {
        Self {
            user: running.target.user.clone(),
            database: running.target.database.clone(),
            running: running.clone(),
        }
    }

    async fn run(self, words: &[OsString], signals: &mut ChildSignals) -> anyhow::Result<u8> {
        let RunningTarget { process, target } = &self.running;
        let (pid, port) = (process.pid, target.port);
        say(&format!(
            "psql through the running pgiam (process {pid}, port {port})"
        ))?;
        let user = child::role_of_client(self.user);
        let address = address_at(&self.running, user, self.database.as_deref());
        // A Unix socket requires no local password.
        let socket_dir = self.running.socket_dir();
        let command = ChildCommand {
            words,
            variables: child::variables(&address, socket_dir.as_deref()),
            started_by: "psql",
        };
        command.run(signals, None).await
    }
}

/// Returns `true` if connections through the running target take the configured route. A flag may
/// select another one.
fn is_same_route(running: &RunningTarget, config: &TargetConfig) -> bool {
    let auth = match config.settings.login.auth {
        Auth::Iam => "iam",
        Auth::Passthrough => "passthrough",
    };
    let (via, bastion) = match &config.settings.via {
        Via::Direct => ("direct", None),
        Via::Ssm(settings) => ("ssm", Some(settings.bastion.to_string())),
    };
    let target = &running.target;
    target.auth == auth && target.via == via && target.bastion == bastion
}

/// Returns the message about a program that is missing.
fn missing(program: &str, target: Option<&str>) -> String {
    let target = target.map(|target| format!(" {}", shell(target)));
    let target = target.unwrap_or_default();
    let install = match program {
        PSQL => install(&program::distribution()),
        _ => None,
    };
    let install = match install {
        Some(command) if cfg!(windows) => {
            format!("install it, and add its bin directory to PATH:\n  {command}\n")
        }
        Some(command) => format!("install it:\n  {command}\n"),
        None => "install it, or name its path with --psql\n".to_owned(),
    };
    format!(
        "pgiam: {program} is not installed, or not in PATH\nhint: {install}Other clients connect with:\n  pgiam url{target}"
    )
}

/// Returns the command that installs psql on this system; `distribution`: its identifiers, the most
/// specific first (os-release(5), ID and `ID_LIKE`).
fn install(distribution: &[String]) -> Option<&'static str> {
    if cfg!(target_os = "macos") {
        return Some("brew install libpq && brew link --force libpq");
    }
    if cfg!(windows) {
        return Some("winget install PostgreSQL.PostgreSQL.17");
    }
    let command = |id: &String| {
        Some(match id.as_str() {
            "debian" | "ubuntu" => "sudo apt install postgresql-client",
            "alpine" => "sudo apk add postgresql-client",
            "amzn" => "sudo dnf install postgresql15",
            "fedora" | "rhel" | "centos" => "sudo dnf install postgresql",
            "arch" => "sudo pacman -S postgresql",
            "suse" | "opensuse" => "sudo zypper install postgresql",
            "nixos" => "nix-shell -p postgresql",
            _ => return None,
        })
    };
    distribution.iter().find_map(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, TargetLayer};

    #[test]
    fn another_route_needs_a_tunnel_of_its_own() {
        let config = |more: &str| {
            let text = format!("[targets.orders]\ndb = 'orders'\n{more}");
            let file: ConfigFile = toml::from_str(&text).unwrap();
            file.target(None, &TargetLayer::default()).unwrap()
        };
        let mut running = RunningTarget {
            process: Default::default(),
            target: Default::default(),
        };
        running.target.via = "ssm".to_owned();
        running.target.bastion = Some("i-0123456789abcdef0".to_owned());
        running.target.auth = "iam".to_owned();
        let bastion = "bastion = 'i-0123456789abcdef0'";
        for (more, same) in [
            (bastion, true),
            ("", false),
            ("bastion = 'i-0123456789abcdef1'", false),
            ("via = 'direct'", false),
            (&format!("{bastion}\nauth = 'passthrough'"), false),
        ] {
            assert_eq!(is_same_route(&running, &config(more)), same, "{more}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_decides_how_psql_is_installed() {
        for (ids, command) in [
            (&["ubuntu", "debian"][..], Some("apt install")),
            (&["linuxmint", "ubuntu"], Some("apt install")),
            (
                &["rocky", "rhel", "centos", "fedora"],
                Some("dnf install postgresql"),
            ),
            (&["amzn", "fedora"], Some("postgresql15")),
            (&["opensuse-leap", "suse"], Some("zypper")),
            (&["plan9"], None),
            (&[], None),
        ] {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let found = install(&ids);
            match command {
                Some(command) => assert!(found.unwrap().contains(command), "{ids:?}"),
                None => assert_eq!(found, None, "{ids:?}"),
            }
        }
    }

    #[test]
    fn a_missing_program_has_a_remedy() {
        let said = missing("pgcli", Some("my orders"));
        assert_eq!(
            said,
            "pgiam: pgcli is not installed, or not in PATH\nhint: install it, or name its path with --psql\nOther clients connect with:\n  pgiam url 'my orders'"
        );
        assert!(missing(PSQL, None).ends_with("\n  pgiam url"));
    }
}
