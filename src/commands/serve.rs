//! `pgiam serve`: listen, and connect every client to its database.

use crate::postgres::prepare_all;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::announce::{ReadyLine, announce};
use super::background_log;
use super::connection_string::client_host;
use super::connection_test;
use super::login::on_demand::{ServerLogins, needs_aws};
use super::reload::{LoadedConfiguration, ReloadSources, ReloadTriggers, serving};
use crate::admin::{
    AdminOptions, AdminServer, ControlRequests, HttpOptions, ProcessKind, TargetStop,
};
use crate::admission::{KnownOwners, PassedSockets};
use crate::aws::AwsContext;
use crate::base::environment;
use crate::base::foreign_text::visible;
use crate::base::quote::shell;
use crate::cli::ServeArgs;
use crate::cli::terminal::Progress;
use crate::config::{ConfigError, ServeSettings, TargetConfig};
use crate::login::browser;
use crate::platform::{self, HangUp, StopSignals, service};
use crate::postgres::client::{authenticate, password_file};
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgTarget;
use crate::postgres::{PgServer, PgTargetAtPort};
use crate::serving::idle::IdleClock;
use crate::serving::ports::{self, ListenAt};
use crate::serving::runtimes::ConnectionRuntimes;
use crate::targets::served_target::AwsContexts;
use crate::tunnel::ssm::leftovers;
use pg_handshake::scram::ScramVerifier;

/// Longest time that lookups, credentials and `warm` tunnels may delay the ready lines.
const PREPARE_PATIENCE: Duration = Duration::from_secs(10);
/// Failures of a target that a login may end, as in `docs/errors.md`.
const LOGIN_ENDED: [&str; 3] = ["aws.expired", "aws.mfa", "aws.sso-session"];

/// Serves until a signal or `pgiam stop`.
///
/// # Errors
/// Invalid configuration, or no target can be served.
pub async fn serve(args: &ServeArgs, passed: PassedSockets) -> anyhow::Result<()> {
    super::raise_descriptors();
    if let Some(log) = &args.background_log {
        background_log::begin(log)?;
    }
    let configured = LoadedConfiguration::load(args)?;
    let aws_contexts = Arc::new(AwsContexts::new(configured.serve.browser_login));
    let (targets, failed) = configured.targets(&aws_contexts, None).await;
    let (targets, mut left_out) = at_least_one(targets, failed)?;
    let verifier = verifier(&configured.serve)?;
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    keep_leftovers(state_dir.as_deref());
    let mut ends = ShutdownSources::install()?;
    let hang_up = HangUp::install().context("cannot listen for signals")?;

    let os_user = platform::os_user();
    let proxy = Proxy::new(state_dir.as_deref(), os_user, &configured.serve, verifier)?;
    let proxy = Arc::new(proxy);
    let (admin, control, stops) = administer(
        &configured,
        (state_dir.as_deref(), args.background_log.as_deref()),
        &proxy,
        ends.asked.clone(),
    )?;
    let endings = aws_contexts.endings().clone();
    let at = listen_at(&configured.serve, state_dir.as_deref(), passed);
    let (mut server, unbound) = listen(&targets, at, &proxy, endings)?;
    left_out.extend(unbound);
    proxy.serving.observed.leave_out(left_out);
    let mut end = tokio::select! {
        () = prepare(&targets, &proxy) => None,
        end = ends.next() => Some(end),
    };
    let mut failed = None;
    if args.test && end.is_none() {
        tokio::select! {
            tested = connection_test::run(&targets) => failed = tested.err(),
            reason = ends.next() => end = Some(reason),
        }
        end = end.or_else(|| failed.as_ref().map(|_| "the connection test failed"));
    }
    warn_about_logins(&configured.serve);
    let logins = ServerLogins::start(
        contexts_of(&targets, &aws_contexts),
        without_login(&server, &aws_contexts),
        configured.serve.browser_login,
    );
    drop(targets); // From now on the served targets count.
    let host = client_host(server.addresses());
    let mut waiting = Vec::new();
    if failed.is_none() {
        let rows = server.served().rows();
        announce_rows(&rows, &host);
        waiting = rows;
        waiting.retain(|row| !is_ready(row));
        proxy.serving.observed.started();
        service::ready(&serving(&server));
    }

    let asked = ReloadSources {
        hang_up,
        stop: ends.asked.clone(),
        at_terminal: std::io::stdin().is_terminal(),
        control,
        stops,
    };
    let mut changes = ReloadTriggers::watch(args, configured, aws_contexts, asked);
    let mut idle = server.idle_clock();
    while end.is_none() {
        let recovered = proxy.serving.recovered.notified();
        say_ready(&mut waiting, &host);
        tokio::select! {
            reason = ends.next() => end = Some(reason),
            change = changes.next() => {
                changes.take_over(change, &mut server, &proxy).await;
                // New targets are logged when they are ready.
                let served = server.served().targets();
                waiting.retain(|row| served.iter().any(|served| Arc::ptr_eq(served, &row.served)));
            }
            () = recovered => service::status(&serving(&server)),
            () = logins.completed() => recheck(&server, &proxy),
            () = idle_for(&mut idle, args.exit_when_idle) => {
                end = close_if_idle(&mut server, &mut idle).await;
            }
        }
    }
    info!(signal = end.unwrap_or_default(), "stopping");
    service::stopping();
    let grace = Duration::from_secs(args.drain.drain_timeout);
    server
        .drain(grace, async { _ = ends.signals.next().await })
        .await;
    admin.stop().await;
    info!("stopped");
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}

/// Prints the ready lines of all targets.
fn announce_rows(rows: &[PgTargetAtPort], host: &str) {
    let ready = rows.iter().map(|row| ready_line(row, host));
    announce(&ready.collect::<Vec<_>>());
}

/// Closes the ports if no client is connected, and returns the reason for the end; otherwise the
/// server stays, and the time without clients starts again.
async fn close_if_idle(server: &mut PgServer, idle: &mut IdleClock) -> Option<&'static str> {
    if server.close_if_idle().await {
        return Some("no clients");
    }
    idle.restart();
    None
}

/// Keeps the list of sessions to end in the directory for files of running processes.
fn keep_leftovers(state_dir: Option<&Path>) {
    if let Some(dir) = platform::socket::run_dir(state_dir) {
        leftovers::keep_in(&dir);
    }
}

/// Returns the places to listen at.
fn listen_at(serve: &ServeSettings, state_dir: Option<&Path>, passed: PassedSockets) -> ListenAt {
    ListenAt {
        serve: serve.clone(),
        default_socket_dir: platform::socket::default_dir(state_dir),
        passed,
    }
}

/// Waits until no client has been connected for so many seconds; forever without a number.
/// Cancel-safe.
async fn idle_for(clock: &mut IdleClock, seconds: Option<u64>) {
    match seconds {
        Some(seconds) => clock.idle_for(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

/// Warns if clients cannot open the browser although the configuration says so.
fn warn_about_logins(serve: &ServeSettings) {
    if !serve.browser_login {
        return;
    }
    if let Some(reason) = browser::unseen_here() {
        warn!(%reason, "login = \"browser\" has no effect; log in with: pgiam login");
        return;
    }
    match KnownOwners::with(serve.peer_check) {
        KnownOwners::All => {}
        KnownOwners::OfUnixSockets => warn!(
            "login = \"browser\" has an effect for clients of the Unix socket only, because this system does not report the owners of TCP connections"
        ),
        KnownOwners::None if serve.peer_check => warn!(
            "login = \"browser\" has no effect, because this system does not report the owners of connections; log in with: pgiam login"
        ),
        KnownOwners::None => warn!(
            "login = \"browser\" has no effect, because peer_check = false; log in with: pgiam login"
        ),
    }
}

/// Checks the targets after a login, so that they are ready before the next client.
fn recheck(server: &PgServer, proxy: &Arc<Proxy>) {
    let (served, proxy) = (server.served().targets(), Arc::clone(proxy));
    tokio::spawn(async move { prepare_all(&served, &proxy).await });
}

/// Returns the contexts of the targets.
fn contexts_of(targets: &[Arc<PgTarget>], aws_contexts: &AwsContexts) -> Vec<Arc<AwsContext>> {
    let configs = targets.iter().map(|target| &target.config);
    let context = |config: &TargetConfig| {
        aws_contexts.of(config.settings.profile.as_deref(), config.region.as_ref())
    };
    configs
        .filter(|config| needs_aws(config))
        .map(context)
        .collect()
}

/// Returns a function that returns the contexts of the targets that lack a login.
fn without_login(
    server: &PgServer,
    aws_contexts: &Arc<AwsContexts>,
) -> impl Fn() -> Vec<Arc<AwsContext>> + Send + 'static {
    let (served, aws_contexts) = (server.served(), Arc::clone(aws_contexts));
    move || {
        let mut targets = served.targets();
        let reason = |target: &Arc<PgTarget>| target.not_ready().map(|reason| reason.id());
        targets.retain(|target| reason(target).is_some_and(|id| LOGIN_ENDED.contains(&id)));
        contexts_of(&targets, &aws_contexts)
    }
}

/// Prints the ready lines of waiting targets that have become ready.
fn say_ready(waiting: &mut Vec<PgTargetAtPort>, host: &str) {
    let ready: Vec<ReadyLine> = waiting
        .extract_if(.., |row| is_ready(row))
        .map(|row| ready_line(&row, host))
        .collect();
    if !ready.is_empty() {
        announce(&ready);
    }
}

/// Sources of the program's end.
struct ShutdownSources {
    signals: StopSignals,
    /// `pgiam stop`.
    asked: CancellationToken,
}

impl ShutdownSources {
    /// Starts listening for signals.
    fn install() -> anyhow::Result<Self> {
        Ok(Self {
            signals: StopSignals::install().context("cannot listen for signals")?,
            asked: CancellationToken::new(),
        })
    }

    /// Waits for the end and returns its cause. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            signal = self.signals.next() => signal,
            () = self.asked.cancelled() => "pgiam stop",
        }
    }
}

/// Starts the status page, the health, metrics and control endpoints; returns the receivers of
/// requests to reload and to stop a target.
fn administer(
    configured: &LoadedConfiguration,
    (state_dir, log): (Option<&Path>, Option<&Path>),
    proxy: &Proxy,
    stop: CancellationToken,
) -> anyhow::Result<(AdminServer, mpsc::Receiver<()>, mpsc::Receiver<TargetStop>)> {
    let (reload, asked) = mpsc::channel(1);
    let (stop_target, stops) = mpsc::channel(1);
    let serve = &configured.serve;
    let http = serve.http.map(|address| HttpOptions {
        address,
        peer_check: serve.peer_check,
        has_password: proxy.has_password(),
    });
    let options = AdminOptions {
        kind: ProcessKind::Serve,
        config: configured.file.clone(),
        http,
        control_dir: platform::socket::run_dir(state_dir),
        log: log.map(Path::to_owned),
    };
    let controls = ControlRequests {
        stop,
        reload: Some(reload),
        stop_target: Some(stop_target),
    };
    let admin = AdminServer::start(options, Arc::clone(&proxy.serving.observed), controls)?;
    Ok((admin, asked, stops))
}

/// Listens for the targets; returns the errors of those that failed.
fn listen(
    targets: &[Arc<PgTarget>],
    at: ListenAt,
    proxy: &Arc<Proxy>,
    endings: TaskTracker,
) -> anyhow::Result<(PgServer, Vec<String>)> {
    let (listeners, failed) = ports::bind(targets, &at)?;
    let failed = failed.into_iter().map(anyhow::Error::from).collect();
    let (listeners, left_out) = at_least_one(listeners, failed)?;
    let runtimes =
        ConnectionRuntimes::start().context("cannot start the threads of connections")?;
    let server = PgServer::start(Arc::clone(proxy), at, listeners, endings, runtimes);
    Ok((server, left_out))
}

/// Returns the successes and the error texts, which are logged; fails with the first error if
/// nothing succeeded.
fn at_least_one<T>(
    works: Vec<T>,
    failed: Vec<anyhow::Error>,
) -> anyhow::Result<(Vec<T>, Vec<String>)> {
    let mut failed = failed.into_iter();
    if works.is_empty()
        && let Some(first) = failed.next()
    {
        return Err(first);
    }
    Ok((
        works,
        failed.map(|error| log_ignored_target(&error)).collect(),
    ))
}

/// Logs that a target is left out while the others are served. Returns the reason.
pub(super) fn log_ignored_target(error: &anyhow::Error) -> String {
    let reason = crate::base::error_text::causes(error.as_ref());
    let reason = reason.trim_end();
    error!(reason, "ignored an invalid target; serving the others");
    reason.to_owned()
}

/// Looks up databases named by their identifiers, loads credentials, and opens the tunnels of
/// `warm` targets, with a time limit. The work continues in the background after that.
async fn prepare(targets: &[Arc<PgTarget>], proxy: &Arc<Proxy>) {
    let (own, proxy) = (targets.to_vec(), Arc::clone(proxy));
    let _progress = Progress::start("looking up databases and credentials");
    let mut preparing = tokio::spawn(async move { prepare_all(&own, &proxy).await });
    if timeout(PREPARE_PATIENCE, &mut preparing).await.is_err() {
        let seconds = PREPARE_PATIENCE.as_secs();
        warn!(
            seconds,
            "AWS lookups are slow; clients wait until the lookups are complete"
        );
    }
}

/// Returns true if a login would work, as far as is known.
fn is_ready(row: &PgTargetAtPort) -> bool {
    row.served.ready().is_some() && row.served.not_ready().is_none()
}

/// Returns the state directory: the configured one, or the account's own; `None` for an account
/// without a home directory.
///
/// # Errors
/// The configured one cannot be a directory.
pub(crate) fn state_dir(given: Option<&PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    let Some(dir) = given else {
        return Ok(platform::state_dir());
    };
    match std::fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(error).with_context(|| format!("cannot use {}", dir.display()))
        }
        _ => Ok(Some(dir.clone())),
    }
}

/// Returns the password check for clients, if configured; required if other machines can connect.
fn verifier(serve: &ServeSettings) -> anyhow::Result<Option<ScramVerifier>> {
    let variable = environment::read_secret(password_file::VARIABLE);
    let password = password_file::load(serve.password_file.as_deref(), variable)?;
    match (password, serve.exposed_address()) {
        (Some(password), _) => {
            let salt = authenticate::random()?;
            Ok(Some(ScramVerifier::new(password.secret().expose(), salt)))
        }
        (None, Some(address)) => Err(ConfigError::NoPassword { address }.into()),
        (None, None) => Ok(None),
    }
}

/// Returns the connection string to paste, and its destination.
pub(super) fn ready_line(row: &PgTargetAtPort, host: &str) -> ReadyLine {
    let PgTargetAtPort { served, port, .. } = row;
    let config = &served.config;
    let database = if row.by_name {
        format!(" -d {}", shell(&config.name))
    } else {
        String::new()
    };
    let user = config
        .settings
        .user
        .as_deref()
        .map(|user| format!(" as {user}"))
        .unwrap_or_default();
    let place = match served.ready() {
        Some(context) => context.target.endpoint.to_string(),
        None => config.database_ref.to_string(),
    };
    let reason = match (served.ready(), served.not_ready()) {
        (_, Some(reason)) => Some(format!("{reason}; retrying")),
        (Some(_), None) => None,
        (None, None) => Some("still looking up the database".to_owned()),
    };
    ReadyLine {
        name: visible(&config.name).into_owned(),
        command: visible(&format!("psql -h {host} -p {port}{database}")).into_owned(),
        place: visible(&format!("{place}{user} via {}", config.settings.via)).into_owned(),
        reason: reason.map(|reason| visible(&reason).into_owned()),
    }
}
