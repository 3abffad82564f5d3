//! `pgiam run TARGET -- CMD`: a tunnel for one command.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pg_handshake::ServerError;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_string::{ConnectionString, MISLEADING};
use super::login::on_demand;
use super::serve::state_dir;
use crate::admin::{AdminOptions, AdminServer, ControlRequests, ProcessKind};
use crate::base::quote::shell;
use crate::cli::RunArgs;
use crate::cli::exit;
use crate::cli::terminal::Progress;
use crate::commands::first_login::{self, FirstLogin};
use crate::commands::resolve_target;
use crate::config::{ServeLayer, ServeSettings, SocketDir};
use crate::platform::descriptors::{ForChildren, LimitChange};
use crate::platform::{self, ForwardedSignals};
use crate::postgres::PgServer;
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgTarget;
use crate::serving::ports::{self, ListenAt};
use crate::targets::served_target::AwsContexts;
use crate::tunnel::ssm::leftovers;

/// POSIX has no other number for it.
const SIGTERM: u8 = 15;

/// Runs a command with a tunnel of its own; returns its exit code.
///
/// # Errors
/// Any error that prevents the command from starting.
pub async fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let mut config = super::config(args.target.as_deref(), &args.database, &args.program)?;
    config.settings.local_port = 0; // The configured one may be in use by another pgiam.
    let mut signals = CommandSignals {
        received: ForwardedSignals::install().context("cannot listen for signals")?,
        asked: CancellationToken::new(),
        told: false,
    };
    tokio::select! {
        offered = on_demand::offer_for_target(&config) => offered?,
        signal = signals.next() => return Ok(exit::SIGNALLED.saturating_add(signal)),
    }
    let descriptors = super::raise_descriptors();
    let aws_contexts = Arc::new(AwsContexts::default());
    let served = tokio::select! {
        served = resolve_target::served_target(config, &aws_contexts) => served?,
        signal = signals.next() => return Ok(exit::SIGNALLED.saturating_add(signal)),
    };
    let endings = aws_contexts.endings().clone();
    let tunnel = RunningServer::open(args, served, endings, signals.asked.clone())?;
    let ready = tokio::select! {
        ready = tunnel.ready(args) => ready.map(|()| None),
        signal = signals.next() => Ok(Some(exit::SIGNALLED.saturating_add(signal))),
    };
    let outcome = match ready {
        Ok(None) => tunnel.command(args, &mut signals, descriptors).await,
        Ok(Some(code)) => Ok(code),
        Err(error) => Err(error),
    };
    let grace = Duration::from_secs(args.drain.drain_timeout);
    let hurry = async { _ = signals.next().await };
    tunnel.server.drain(grace, hurry).await;
    tunnel.admin.stop().await;
    outcome
}

/// Signals and requests forwarded to the command.
struct CommandSignals {
    received: ForwardedSignals,
    /// `pgiam stop`, forwarded as SIGTERM.
    asked: CancellationToken,
    told: bool,
}

impl CommandSignals {
    /// Waits for the next signal; returns its number. Cancel-safe.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            signal = self.received.next() => signal,
            () = self.asked.cancelled(), if !self.told => {
                self.told = true;
                SIGTERM
            }
        }
    }
}

/// The running server, and the values that the command needs.
struct RunningServer {
    server: PgServer,
    admin: AdminServer,
    served: Arc<PgTarget>,
    port: u16,
    user: Option<String>,
    /// Directory of the Unix socket, if the command uses one; removed at the end.
    folder: Option<TempDir>,
}

impl RunningServer {
    /// Listens on a free port.
    fn open(
        args: &RunArgs,
        served: PgTarget,
        endings: TaskTracker,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let folder = args.socket.then(private_folder).transpose()?;
        let socket_dir = match &folder {
            Some(folder) => SocketDir::At(folder.path().to_owned()),
            None => SocketDir::None,
        };
        let serve = ServeSettings::from_layer(ServeLayer {
            socket_dir: Some(socket_dir),
            ..ServeLayer::default()
        })?;
        let state_dir = state_dir(args.state.state_dir.as_ref())?;
        if let Some(dir) = platform::socket::run_dir(state_dir.as_deref()) {
            leftovers::keep_in(&dir);
        }
        let proxy = Proxy::new(state_dir.as_deref(), platform::os_user(), &serve, None)?;
        let options = AdminOptions {
            kind: ProcessKind::Run,
            config: None,
            http: None,
            control_dir: platform::socket::default_dir(state_dir.as_deref()),
        };
        let controls = ControlRequests {
            stop,
            ..ControlRequests::default()
        };
        let admin = AdminServer::start(options, Arc::clone(&proxy.serving.observed), controls)?;
        let served = Arc::new(served);
        let at = ListenAt {
            serve,
            default_socket_dir: None,
        };
        let (listeners, failed) = ports::bind(&[Arc::clone(&served)], &at)?;
        if let Some(failed) = failed.into_iter().next() {
            return Err(failed.into());
        }
        let port = listeners.first().map(ports::Listener::port);
        let user = served
            .config
            .settings
            .user
            .clone()
            .or_else(|| std::env::var("PGUSER").ok())
            .or_else(platform::os_user);
        proxy.serving.observed.started();
        Ok(Self {
            server: PgServer::start(Arc::new(proxy), at, listeners, endings),
            admin,
            port: port.ok_or_else(|| anyhow!("no port to listen on"))?,
            served,
            user,
            folder,
        })
    }

    /// Waits for a first login, so that the command starts only with a working connection.
    async fn ready(&self, args: &RunArgs) -> anyhow::Result<()> {
        let name = &self.served.config.name;
        let _progress = Progress::start(format!("connecting to {name}"));
        let user = self.user.as_deref().unwrap_or_default();
        let patience = Duration::from_secs(args.ready_timeout);
        let database = self.asked_database();
        let first = timeout(
            patience,
            first_login::login(self.port, user, database.as_deref()),
        );
        match first.await {
            Ok(Ok(FirstLogin::Ready | FirstLogin::Asked)) => Ok(()),
            Ok(Ok(FirstLogin::Refused(error))) => Err(anyhow!(in_words(&error))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(anyhow!(
                "{name} was not ready within {} s\nhint: raise --ready-timeout, or find the cause:\n  pgiam check {name}",
                patience.as_secs(),
            )),
        }
    }

    /// Runs the command to its end.
    async fn command(
        &self,
        args: &RunArgs,
        signals: &mut CommandSignals,
        descriptors: LimitChange,
    ) -> anyhow::Result<u8> {
        let (program, rest) = args
            .command
            .split_first()
            .ok_or_else(|| anyhow!("no command to run"))?;
        let mut command = Command::new(program);
        command.args(rest);
        for name in MISLEADING {
            command.env_remove(name);
        }
        let variables = self.variables();
        let inherited = [
            ("PGUSER", "--user", std::env::var("PGUSER").ok()),
            ("PGDATABASE", "--database", std::env::var("PGDATABASE").ok()),
        ];
        for replaced in replaced(&variables, inherited) {
            crate::cli::terminal::tell(replaced)?;
        }
        command.envs(variables);
        let spawned = {
            let _original = ForChildren::begin(descriptors);
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
                _ = crate::cli::terminal::tell(format_args!("pgiam: cannot run {name}: {error}"));
                return Ok(code);
            }
        };
        Ok(code(follow(child, signals).await?))
    }

    /// Returns the environment variables for the command.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let address = ConnectionString {
            host: "localhost".to_owned(),
            port: self.port,
            user: self.user.clone(),
            database: self.database(),
        };
        let mut variables = address.variables();
        // Only libpq and its wrappers accept a directory as a host. The URL names the TCP port,
        // which is open for the same user, too.
        if let Some(folder) = &self.folder {
            variables.push(("PGHOST", folder.path().display().to_string()));
        }
        variables
    }

    /// Returns the target's database, from its configuration or from RDS.
    fn database(&self) -> Option<String> {
        let found = self.served.ready();
        let found = found.and_then(|context| context.target.settings.database.clone());
        self.served.config.settings.database.clone().or(found)
    }

    /// Returns the database of the first login: the target's, else `PGDATABASE` of the environment.
    fn asked_database(&self) -> Option<String> {
        let inherited = std::env::var("PGDATABASE").ok();
        self.database().or(inherited)
    }
}

/// Returns a notice about a role or database in the caller's environment that the target replaces.
fn replaced(
    variables: &[(&'static str, String)],
    inherited: [(&str, &str, Option<String>); 2],
) -> Vec<String> {
    let replaced = inherited.into_iter().filter_map(|(name, flag, before)| {
        let (_, value) = variables.iter().find(|(given, _)| *given == name)?;
        let before = before.filter(|before| !before.is_empty() && before != value)?;
        Some(format!(
            "pgiam: the target sets {name}=\"{value}\" for the command; your environment has \"{before}\"\nhint: to keep the value of your environment:\n  pgiam run {flag} {} …",
            shell(&before)
        ))
    });
    replaced.collect()
}

/// Creates a private directory, which is removed with its contents.
fn private_folder() -> anyhow::Result<TempDir> {
    let base = platform::socket::runtime_dir().unwrap_or_else(std::env::temp_dir);
    platform::private_temp_dir(&base, "pgiam-")
        .or_else(|_| platform::private_temp_dir(&std::env::temp_dir(), "pgiam-"))
        .with_context(|| format!("cannot create a directory in {}", base.display()))
}

/// Waits for the end of the command, and forwards signals to it meanwhile.
async fn follow(mut child: Child, signals: &mut CommandSignals) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => {
                if let Some(pid) = child.id() {
                    ForwardedSignals::forward(signal, pid);
                }
            }
        }
    }
}

/// Returns the exit code that a shell would return.
fn code(status: ExitStatus) -> u8 {
    if let Some(code) = status.code() {
        // Windows has codes that do not fit; those are still failures.
        return u8::try_from(code).unwrap_or(exit::FAILED);
    }
    platform::signal_of(status).map_or(exit::FAILED, |signal| {
        exit::SIGNALLED.saturating_add(signal)
    })
}

/// Formats a server error as clients show it.
fn in_words(error: &ServerError) -> String {
    let mut words = error.message().into_owned();
    for (heading, text) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(text) = text {
            words.push_str(&format!("\n{heading}: {text}"));
        }
    }
    words
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
}
