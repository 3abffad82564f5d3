//! `pgiam run TARGET -- CMD`: a tunnel for one command.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pg_handshake::ServerError;
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::{self, ChildCommand, ChildSignals};
use super::chosen;
use super::connection_string::ConnectionString;
use super::login::on_demand;
use super::serve::state_dir;
use crate::admin::{AdminOptions, AdminServer, ControlRequests, ProcessKind};
use crate::admission::PassedSockets;
use crate::cli::RunArgs;
use crate::cli::exit;
use crate::cli::terminal::Progress;
use crate::commands::first_login::{self, FirstLogin};
use crate::commands::resolve_target;
use crate::config::{ServeLayer, ServeSettings, SocketDir};
use crate::platform;
use crate::platform::descriptors::LimitChange;
use crate::postgres::PgServer;
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgTarget;
use crate::serving::ports::{self, ListenAt};
use crate::serving::runtimes::ConnectionRuntimes;
use crate::targets::served_target::AwsContexts;
use crate::tunnel::ssm::leftovers;

/// Runs a command with a tunnel of its own; returns its exit code.
///
/// # Errors
/// Any error that prevents the command from starting.
pub async fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let name = args.target.as_deref();
    let config = chosen::config(name, &args.database, &args.program, &args.state);
    let mut config = config.await?;
    config.settings.local_port = 0; // The configured one may be in use by another pgiam.
    let mut signals = ChildSignals::install()?;
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
            control_dir: platform::socket::run_dir(state_dir.as_deref()),
            log: None,
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
            passed: PassedSockets::default(),
        };
        let (listeners, failed) = ports::bind(&[Arc::clone(&served)], &at)?;
        if let Some(failed) = failed.into_iter().next() {
            return Err(failed.into());
        }
        let port = listeners.first().map(ports::Listener::port);
        let user = child::role_of_client(served.config.settings.user.clone());
        let runtimes =
            ConnectionRuntimes::start().context("cannot start the threads of connections")?;
        proxy.serving.observed.started();
        Ok(Self {
            server: PgServer::start(Arc::new(proxy), at, listeners, endings, runtimes),
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
        signals: &mut ChildSignals,
        descriptors: LimitChange,
    ) -> anyhow::Result<u8> {
        let command = ChildCommand {
            words: &args.command,
            variables: self.variables(),
            started_by: "run",
        };
        command.run(signals, Some(descriptors)).await
    }

    /// Returns the environment variables for the command.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let address = ConnectionString {
            host: "localhost".to_owned(),
            port: self.port,
            user: self.user.clone(),
            database: self.database(),
        };
        // The TCP port is open for the same user, too.
        child::variables(&address, self.folder.as_ref().map(TempDir::path))
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

/// Creates a private directory, which is removed with its contents.
fn private_folder() -> anyhow::Result<TempDir> {
    let base = platform::socket::runtime_dir().unwrap_or_else(std::env::temp_dir);
    platform::private_temp_dir(&base, "pgiam-")
        .or_else(|_| platform::private_temp_dir(&std::env::temp_dir(), "pgiam-"))
        .with_context(|| format!("cannot create a directory in {}", base.display()))
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
