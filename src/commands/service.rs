//! `pgiam service`: pgiam as a service of the account.

mod files;
mod install;
mod manager;
mod spec;
mod state;
mod tool;

use anyhow::Context;
use tokio::task::spawn_blocking;

use super::until_stopped_with_code;
use crate::cli::terminal;
use crate::cli::{ConfirmArgs, ServiceArgs, ServiceCommand};
use manager::Manager;

/// Runs an action; returns the exit code.
///
/// # Errors
/// No service manager, an invalid configuration, or a failed step.
pub async fn service(args: &ServiceArgs) -> anyhow::Result<u8> {
    let manager = Manager::here()?;
    match &args.command {
        ServiceCommand::Install(args) => {
            until_stopped_with_code(install::install(&manager, args)).await
        }
        ServiceCommand::Uninstall(args) => {
            until_stopped_with_code(install::uninstall(&manager, args)).await
        }
        ServiceCommand::Status(_) => until_stopped_with_code(state::status(&manager)).await,
        // Ctrl-C ends it like the tool that it shows.
        ServiceCommand::Logs(args) => state::logs(&manager, args).await,
    }
}

/// Answer to the question whether to change the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    Given,
    /// Nothing is to be changed.
    Refused,
    /// There is no terminal to ask at.
    Unknown,
}

/// Asks the question, unless a flag has answered it.
async fn consent(args: ConfirmArgs, question: &str) -> anyhow::Result<Consent> {
    if args.dry_run {
        return Ok(Consent::Refused);
    }
    if args.yes {
        return Ok(Consent::Given);
    }
    if !terminal::is_interactive() {
        return Ok(Consent::Unknown);
    }
    terminal::write(format!("{question} [Y/n] "))?;
    let answer = spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map(|read| (read, line))
    });
    let (read, line) = answer.await.context("cannot read the answer")??;
    Ok(match line.trim().to_lowercase().as_str() {
        "" if read > 0 => Consent::Given,
        "y" | "yes" => Consent::Given,
        _ => {
            terminal::write("Nothing was changed.\n")?;
            Consent::Refused
        }
    })
}
