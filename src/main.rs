//! parse → logging → run → exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pgiam::base::crash;
use pgiam::base::quote;
use pgiam::cli::logging::{self, Log};
use pgiam::cli::terminal;
use pgiam::cli::{Cli, Command};
use pgiam::commands;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    crash::install();
    let command = Cli::from_command_line().into_command();
    let Some(result) = crash::guard(|| log(&command).and_then(|log| run(&command, log))) else {
        logging::settle();
        return ExitCode::from(commands::crash_code(&command));
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The only place that writes a failure to the terminal; nothing can be done when even
            // that fails.
            let said = pgiam::base::error_text::causes(error.as_ref());
            _ = terminal::tell(format_args!("pgiam: {}", quote::clean(said.trim_end())));
            ExitCode::from(commands::exit_code(&command, &error))
        }
    }
}

fn run(command: &Command, log: Option<Arc<Log>>) -> anyhow::Result<u8> {
    // Before the runtime: it changes the environment, which other threads might read.
    let passed = commands::passed_sockets(command)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if let Some(log) = log.clone() {
        runtime.spawn(async move { log.report_repeats().await });
    }
    commands::tell_of_other_variables();
    let outcome = runtime.block_on(commands::dispatch(command, passed));
    // A name lookup may hang in its thread; its answer is no longer needed.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(log) = log {
        log.finish();
    }
    outcome
}

fn log(command: &Command) -> anyhow::Result<Option<Arc<Log>>> {
    let Some(args) = command.program() else {
        return Ok(None);
    };
    let filter = args.log_filter(command.default_log());
    let log = logging::start(filter, args.log_format).map_err(anyhow::Error::from_boxed)?;
    Ok(Some(log))
}
