//! parse → logging → run → exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use pgiam::cli::{Cli, Command, LogFormat};
use pgiam::{commands, environment, terminal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::from_command_line().into_command();
    let result = logging(&command).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        commands::tell_of_other_variables();
        let outcome = runtime.block_on(commands::dispatch(&command));
        // A name lookup may hang in its thread, and nobody needs its answer any more.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The only place that writes a failure to the terminal; nothing can be done when even
            // that fails.
            let said = pgiam::tunnel::chain(error.as_ref());
            _ = writeln!(
                std::io::stderr(),
                "pgiam: {}",
                terminal::clean(said.trim_end())
            );
            ExitCode::from(commands::exit_code(&command, &error))
        }
    }
}

fn logging(command: &Command) -> anyhow::Result<()> {
    let Some(args) = command.program() else {
        return Ok(());
    };
    let wanted = args.log.as_deref().unwrap_or(command.default_log());
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).with_context(|| {
        let setting = environment::name_of("log");
        format!(
            "{setting} \"{wanted}\" is no filter; write a level or \"info,pgiam::tunnel=debug\""
        )
    })?;
    let filter = filter.and(filter_fn(is_fit_to_log));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // It would report a full or closed standard error there, and panic when that fails.
        .log_internal_errors(false);
    let layer = match args.log_format {
        LogFormat::Human => layer
            .with_target(false)
            .with_ansi(terminal::stderr_has_colours())
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
