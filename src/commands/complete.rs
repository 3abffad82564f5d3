//! `pgiam completions` and `pgiam man`: shell completions and manual pages from the command line's
//! definition.

use std::fs;

use anyhow::Context;

use crate::cli::terminal;
use crate::cli::{Cli, CompletionsArgs, ManArgs};

/// Prints the completions of a shell.
///
/// # Errors
/// Standard output cannot be written to.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::completions();
    clap_complete::generate(args.shell, &mut command, "pgiam", &mut script);
    terminal::write(String::from_utf8_lossy(&script)).context("cannot write to standard output")
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
