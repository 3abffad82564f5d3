//! `pgiam completions` and `pgiam man`: shell completions and manual pages from the command line's
//! definition.
//!
//! The scripts for bash, zsh and fish ask this program at each TAB, because targets, profiles and
//! databases are not known before. Those for other shells contain the commands and flags.

mod bash_line;
mod kinds;
mod offer;
mod sources;

use std::fs;

use anyhow::Context;
use clap_complete::Shell;

use crate::cli::terminal;
use crate::cli::{Cli, CompletionsArgs, ManArgs};

pub use offer::offer;
pub(crate) use sources::state_dir;

/// Prints the completions of a shell.
///
/// # Errors
/// Standard output cannot be written to.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let script = match args.shell {
        Shell::Bash => include_str!("complete/pgiam.bash").to_owned(),
        Shell::Zsh => include_str!("complete/pgiam.zsh").to_owned(),
        Shell::Fish => include_str!("complete/pgiam.fish").to_owned(),
        shell => {
            let mut script = Vec::new();
            let mut command = Cli::completions();
            clap_complete::generate(shell, &mut command, "pgiam", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    };
    terminal::write(script).context("cannot write to standard output")
}

/// Prints the manual page, or writes one for each command into a folder.
///
/// # Errors
/// The folder or standard output cannot be written to.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut command = Cli::definition().disable_help_subcommand(true);
    command.build();
    match &args.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            terminal::write(String::from_utf8_lossy(&page))
                .context("cannot write to standard output")
        }
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            clap_mangen::generate_to(command, dir)
                .with_context(|| format!("cannot write to {}", dir.display()))
        }
    }
}
