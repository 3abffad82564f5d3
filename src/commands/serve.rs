//! `pgiam serve`: listen, and connect every client to its database.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::{Admin, AdminOptions, Controls, Kind};
use crate::cli::ServeArgs;
use crate::config::{ConfigError, File, Serve, Target};
use crate::local_password;
use crate::platform::{self, StopSignals};
use crate::scram::Verifier;
use crate::server::{self, ListenAt, Listener, Server};
use crate::session::{self, Proxy};

/// Serves until a signal ends it.
///
/// # Errors
/// When the configuration cannot be meant, or a port cannot be had.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let (file, looked_at) = File::load(args.program.config.as_deref())?;
    let config = file.path.clone();
    let serve = Serve::from_layer(args.serve_layer().over(file.serve.clone()))?;
    let plans = file.plans(&args.targets, &args.layer(), &looked_at)?;
    let mut targets = Vec::new();
    for plan in plans {
        targets.extend(plan?.target());
    }
    let verifier = verifier(&serve)?;
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    let mut signals = StopSignals::install().context("cannot listen for signals")?;

    let proxy = Arc::new(Proxy::new(
        &state_dir,
        platform::os_user(),
        &serve,
        verifier,
    )?);
    let observed = Arc::clone(&proxy.observed);
    let stop = CancellationToken::new();
    let controls = Controls {
        stop: stop.clone(),
        reload: None,
    };
    let options = AdminOptions {
        kind: Kind::Serve,
        config,
        http: serve.http,
        control_dir: platform::socket::default_dir(&state_dir),
    };
    let admin = Admin::start(options, Arc::clone(&observed), controls)?;
    let rooms = session::rooms(targets)?;
    let at = ListenAt {
        serve: &serve,
        default_socket_dir: platform::socket::default_dir(&state_dir),
    };
    let listeners = server::bind(rooms, &at)?;
    observed.show(listeners.iter().flat_map(Listener::listed).collect());
    let ready: Vec<String> = listeners.iter().flat_map(ready_lines).collect();
    let server = Server::start(proxy, listeners);
    announce(&ready)?;
    observed.started();
    platform::service::ready(&format!("serving {} targets", ready.len()));

    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = stop.cancelled() => "pgiam stop",
    };
    info!(signal, "stopping");
    platform::service::stopping();
    let grace = Duration::from_secs(args.drain.drain_timeout);
    server
        .drain(grace, async { _ = signals.next().await })
        .await;
    admin.stop().await;
    info!("stopped");
    Ok(())
}

/// The folder of what is made once.
pub(crate) fn state_dir(given: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    given
        .cloned()
        .or_else(platform::state_dir)
        .context("this account has no home directory; name a folder with --state-dir")
}

/// What clients must know, if anything; they must, where other machines' can come.
fn verifier(serve: &Serve) -> anyhow::Result<Option<Verifier>> {
    let variable = std::env::var(local_password::VARIABLE).ok();
    let password = local_password::load(serve.password_file.as_deref(), variable)?;
    match (password, serve.exposed_address()) {
        (Some(password), _) => Ok(Some(Verifier::new(password.secret())?)),
        (None, Some(address)) => Err(ConfigError::NoPassword { address }.into()),
        (None, None) => Ok(None),
    }
}

/// One line per target: what to paste, and where it leads.
fn ready_lines(listener: &Listener) -> Vec<String> {
    let shared = listener.by_name();
    listener
        .targets()
        .map(|target| ready_line(target, listener.port(), shared))
        .collect()
}

fn ready_line(target: &Target, port: u16, shared: bool) -> String {
    let database = if shared {
        format!(" -d {}", target.name)
    } else {
        String::new()
    };
    let user = target
        .user
        .as_deref()
        .map(|user| format!(" as {user}"))
        .unwrap_or_default();
    format!(
        "ready  {}  psql -h localhost -p {port}{database}  → {}{user} via {}",
        target.name, target.endpoint, target.via
    )
}

/// Writes lines to standard output, at once.
pub(super) fn announce(lines: &[String]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    stdout.flush().context("cannot write to standard output")
}
