//! Implementation of each command. Only this module and `main.rs` use `anyhow`.

mod announce;
mod background_log;
pub mod check;
mod child;
mod chosen;
pub mod complete;
mod connection_string;
mod connection_test;
pub mod down;
pub mod explain;
mod first_login;
mod guide;
pub mod init;
pub mod list;
pub mod login;
pub mod logout;
mod prompt;
pub mod psql;
pub mod relay;
mod reload;
pub mod resolve_target;
pub mod run;
mod seen_names;
pub mod serve;
pub mod service;
pub mod setup;
mod start_errors;
pub mod status;
pub mod token;
pub mod tunnel;
mod unknown_word;
pub mod up;
pub mod url;

use std::sync::Once;

use anyhow::Context;
use connection_test::TestFailed;
use tracing::{debug, info, warn};

use crate::admission::{PassedError, PassedSockets};
use crate::base::environment;
use crate::cli::exit;
use crate::cli::terminal;
use crate::cli::{Cli, Command, ProgramArgs};
use crate::config::{ConfigError, ConfigFile, TargetConfig};
use crate::platform::descriptors::LimitChange;
use crate::platform::{self, StopSignals, descriptors};
use crate::postgres::client::password_file::LocalPasswordError;
use crate::serving::ports::BindError;

/// Number of SIGINT, on every system.
const SIGINT: u8 = 2;

/// Runs a command; returns its exit code.
///
/// # Errors
/// Any error of the command; [`exit_code`] maps it to an exit code.
pub async fn dispatch(command: &Command, passed: PassedSockets) -> anyhow::Result<u8> {
    let done = Box::pin(run_command(command, passed)).await;
    done.map_err(|error| unknown_word::with_line(error, command))
}

async fn run_command(command: &Command, passed: PassedSockets) -> anyhow::Result<u8> {
    match command {
        Command::Serve(args) if guide::applies(args) => Box::pin(guide::guide(args)).await,
        Command::Serve(args) => match serve::serve(args, passed).await {
            Ok(()) => Ok(0),
            Err(error) => {
                let error = start_errors::with_owner_of_port(error, &args.state).await;
                Err(unknown_word::explained(error))
            }
        },
        Command::Run(args) => run::run(args).await,
        Command::Psql(args) => Box::pin(psql::psql(args)).await,
        Command::Login(args) => until_stopped(login::login(args)).await,
        Command::Logout(args) => until_stopped(logout::logout(args)).await,
        Command::Check(args) => check::check(args).await,
        Command::List(args) => until_stopped(list::list(args)).await,
        Command::Init(args) => until_stopped(init::init(args)).await,
        Command::Url(args) => until_stopped(url::url(args)).await,
        Command::Token(args) => until_stopped(token::token(args)).await,
        Command::Setup(args) => until_stopped(setup::setup(args)).await,
        Command::Tunnel(args) => tunnel::tunnel(args).await.map(|()| 0),
        Command::Relay(args) => relay::relay(args).await.map(|()| 0),
        Command::Status(args) => status::status(args).await,
        Command::Wait(args) => status::wait(args).await,
        Command::Stop(args) => status::stop(args).await,
        Command::Explain(args) => explain::explain(args),
        Command::Service(args) => service::service(args).await,
        Command::Up(args) => up::up(args).await,
        Command::Down(args) => down::down(args).await,
        Command::Complete(args) => {
            complete::offer(args).await;
            Ok(0)
        }
        Command::Completions(args) => complete::completions(args).map(|()| 0),
        Command::Man(args) => complete::man(args).map(|()| 0),
    }
}

/// Returns the sockets that the service manager passed to `pgiam serve`; none for other commands.
/// Call it once, before other threads run.
///
/// # Errors
/// A passed descriptor is no socket for clients.
pub fn passed_sockets(command: &Command) -> anyhow::Result<PassedSockets> {
    match command {
        Command::Serve(_) => Ok(PassedSockets::from_environment()?),
        _ => Ok(PassedSockets::default()),
    }
}

/// Logs ignored environment variables with pgiam's prefix: those of an orchestrator, and possible
/// misspellings.
pub fn tell_of_other_variables() {
    let others = environment::unknown_variables(&Cli::variables());
    if !others.of_services.is_empty() {
        let variables = others.of_services.join(", ");
        info!(
            variables,
            "ignored variables that an orchestrator sets for a service named pgiam"
        );
    }
    let mut strangers = Vec::new();
    for (name, like) in others.unknown {
        match like {
            Some(like) => {
                warn!("ignored the unknown variable {name}; did you mean {like}?")
            }
            None => strangers.push(name),
        }
    }
    if !strangers.is_empty() {
        let variables = strangers.join(", ");
        info!(variables, "ignored unknown variables");
    }
}

/// Returns the exit code for an error.
#[must_use]
pub fn exit_code(command: &Command, error: &anyhow::Error) -> u8 {
    match command {
        Command::Run(_) | Command::Psql(_) => exit::RUN_FAILED,
        _ if error.is::<ConfigError>() => exit::USAGE,
        _ if matches!(error.downcast_ref(), Some(LocalPasswordError::Variable(_))) => exit::USAGE,
        _ if matches!(
            error.downcast_ref(),
            Some(BindError::Same { .. } | BindError::Passed { .. })
        ) =>
        {
            exit::USAGE
        }
        _ if error.is::<PassedError>() => exit::USAGE,
        _ if error.is::<TestFailed>() => exit::TEST_FAILED,
        _ => exit::FAILED,
    }
}

/// Runs a command until it ends, or until a signal stops it. Its end also ends a running
/// `credential_process`, which a signal alone would leave behind.
async fn until_stopped(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<u8> {
    until_stopped_with_code(async { command.await.map(|()| 0) }).await
}

/// Runs a command like [`until_stopped`]; returns its exit code.
async fn until_stopped_with_code(
    command: impl Future<Output = anyhow::Result<u8>>,
) -> anyhow::Result<u8> {
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    tokio::select! {
        ended = command => ended,
        signal = signals.next() => Err(anyhow::anyhow!("stopped by {signal}")),
    }
}

/// Raises this process's limit of file descriptors to the maximum. Call it before a command that
/// serves connections opens anything.
fn raise_descriptors() -> LimitChange {
    match descriptors::raise() {
        Ok(raised) => {
            if raised.from != raised.to {
                debug!(
                    from = raised.from,
                    to = raised.to,
                    "raised the limit of file descriptors"
                );
            }
            raised
        }
        Err(error) => {
            warn!(%error, "cannot raise the limit of file descriptors");
            let limit = descriptors::limit();
            LimitChange {
                from: limit,
                to: limit,
            }
        }
    }
}

/// Returns the exit code after a panic.
#[must_use]
pub fn crash_code(command: &Command) -> u8 {
    match command {
        Command::Run(_) | Command::Psql(_) => exit::RUN_FAILED,
        _ => exit::FAILED,
    }
}

/// Returns the target's default login role for its clients: the configured one, else libpq's
/// default.
pub(crate) fn role(config: &TargetConfig) -> anyhow::Result<String> {
    let role = config.settings.user.clone().or_else(platform::os_user);
    role.with_context(|| {
        format!(
            "target \"{}\" has no user, and this account has no name; set --user",
            config.name
        )
    })
}

/// Loads the configuration file for a command that does not log, and says at a terminal if the file
/// is not in the current directory. Always says that a file is ignored. Says both once.
pub(crate) fn load_file(program: &ProgramArgs) -> Result<ConfigFile, ConfigError> {
    let file = ConfigFile::load(program.config.as_deref())?;
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        // A closed standard error is no reason to stop.
        if let Some(reason) = &file.ignored {
            _ = terminal::tell(format!("pgiam: ignored a configuration file: {reason}"));
        }
        if let (Some(path), true, Some(_)) = (&file.path, file.is_above, terminal::stderr_width()) {
            let line = format!("configuration: {}", status::short(path));
            _ = terminal::tell(terminal::styled(terminal::DIM, line));
        }
    });
    Ok(file)
}

/// Reports that the user has cancelled a prompt; returns the exit code of SIGINT.
fn cancelled() -> anyhow::Result<u8> {
    terminal::tell("pgiam: cancelled")?;
    Ok(exit::SIGNALLED + SIGINT)
}
