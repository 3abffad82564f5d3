//! parse → logging → run → exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use pgiam::cli::{Cli, Command, LogFormat, ProgramArgs, ServeArgs, TunnelArgs};
use pgiam::config::{ConfigError, File, Serve};
use pgiam::forward::{self, Bound, Forwarder};
use pgiam::local_password;
use pgiam::platform::{self, StopSignals};
use pgiam::scram::Verifier;
use pgiam::server::{self, ListenAt, Listener, Server};
use pgiam::session::{self, Proxy};
use tracing::info;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    let result = logging(command.program()).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let outcome = runtime.block_on(async {
            match &command {
                Command::Serve(args) => serve(args).await,
                Command::Tunnel(args) => tunnel(args).await,
            }
        });
        // A name lookup may hang in its thread, and nobody needs its answer any more.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The only place that writes a failure to the terminal; nothing can be done when even
            // that fails.
            let said = pgiam::tunnel::chain(error.as_ref());
            _ = writeln!(std::io::stderr(), "pgiam: {}", said.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn logging(args: &ProgramArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log).with_context(|| {
        format!(
            "--log \"{}\" is no filter; write a level or \"info,pgiam::tunnel=debug\"",
            args.log
        )
    })?;
    let filter = filter.and(filter_fn(is_fit_to_log));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match args.log_format {
        LogFormat::Human => layer
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(layer).init();
    Ok(())
}

/// Whatever the filter asks for: libraries that handle our secrets do not get to log requests,
/// which carry session tokens and signatures, and none gets to log single bytes.
fn is_fit_to_log(event: &tracing::Metadata<'_>) -> bool {
    const CARRIERS: [&str; 5] = ["aws_", "hyper", "h2", "tungstenite", "tokio_tungstenite"];
    let target = event.target();
    let most = if target.starts_with("pgiam") {
        tracing::Level::TRACE
    } else if CARRIERS.iter().any(|carrier| target.starts_with(carrier)) {
        tracing::Level::INFO
    } else {
        tracing::Level::DEBUG
    };
    *event.level() <= most
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let (file, looked_at) = File::load(args.program.config.as_deref())?;
    let serve = Serve::from_layer(args.listen.layer().over(file.serve.clone()))?;
    let targets = file.targets(&args.targets, &args.layer(), &looked_at)?;
    let verifier = verifier(&serve)?;
    let state_dir = args
        .state_dir
        .clone()
        .or_else(platform::state_dir)
        .context("this account has no home directory; name a folder with --state-dir")?;
    let mut signals = StopSignals::install().context("cannot listen for signals")?;

    let proxy = Arc::new(Proxy::new(
        &state_dir,
        platform::os_user(),
        &serve,
        verifier,
    )?);
    let rooms = session::rooms(targets)?;
    let at = ListenAt {
        serve: &serve,
        default_socket_dir: platform::socket::default_dir(&state_dir),
    };
    let listeners = server::bind(rooms, &at)?;
    let ready: Vec<String> = listeners.iter().flat_map(ready_lines).collect();
    let server = Server::start(proxy, listeners);
    announce(&ready)?;

    let signal = signals.next().await;
    info!(signal, "stopping");
    server
        .drain(grace(&args.program), async { _ = signals.next().await })
        .await;
    info!("stopped");
    Ok(())
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

async fn tunnel(args: &TunnelArgs) -> anyhow::Result<()> {
    let (file, _) = File::load(args.program.config.as_deref())?;
    let target = file.forward(args.to.clone(), args.target.as_deref(), &args.layer())?;
    let mut signals = StopSignals::install().context("cannot listen for signals")?;

    let bound = forward::bind(&args.listen())?;
    let ready: Vec<String> = bound
        .iter()
        .map(Bound::address)
        .map(|listen| {
            format!(
                "ready  tunnel  {listen}  → {} via {}",
                target.endpoint, target.via
            )
        })
        .collect();
    let transport = forward::transport(&target);
    let forwarder = Forwarder::start(target, transport, bound);
    announce(&ready)?;

    let signal = signals.next().await;
    info!(signal, "stopping");
    forwarder
        .drain(grace(&args.program), async { _ = signals.next().await })
        .await;
    info!("stopped");
    Ok(())
}

fn grace(args: &ProgramArgs) -> Duration {
    Duration::from_secs(args.drain_timeout)
}

/// One line per target: what to paste, and where it leads.
fn ready_lines(listener: &Listener) -> Vec<String> {
    let shared = listener.by_name();
    listener
        .targets()
        .map(|target| {
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
                "ready  {}  psql -h localhost -p {}{database}  → {}{user} via {}",
                target.name,
                listener.port(),
                target.endpoint,
                target.via
            )
        })
        .collect()
}

fn announce(lines: &[String]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    stdout.flush().context("cannot write to standard output")
}
