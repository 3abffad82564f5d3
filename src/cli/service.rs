//! Flags of the commands for servers in the background: `pgiam service` and `pgiam down`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::args::{ProgramArgs, StateArgs};

/// Flags of `pgiam service`.
#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct ServiceArgs {
    /// Action.
    #[command(subcommand)]
    pub command: ServiceCommand,
}

/// Actions of `pgiam service`.
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Install pgiam as a service of your account, and start it.
    #[command(after_help = super::examples::SERVICE_INSTALL)]
    Install(Box<ServiceInstallArgs>),
    /// Stop the service and remove its files.
    Uninstall(Box<ServiceUninstallArgs>),
    /// Show whether the service is installed and running.
    Status(Box<ServiceStatusArgs>),
    /// Show the log of the service.
    Logs(Box<ServiceLogsArgs>),
}

/// Flags of commands that change the system.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ConfirmArgs {
    /// Show the files and commands, and change nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    pub yes: bool,
}

/// Flags of `pgiam service install`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServiceInstallArgs {
    /// Let systemd listen, and start pgiam when the first client connects. pgiam ends after 30
    /// minutes without clients, or after --exit-when-idle.
    #[arg(long)]
    pub on_demand: bool,
    /// Flags for the confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
    /// Targets and flags of pgiam serve for the service.
    #[arg(value_name = "SERVE ARGS", last = true)]
    pub serve: Vec<OsString>,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam service uninstall`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServiceUninstallArgs {
    /// Flags for the confirmation.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam service status`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServiceStatusArgs {
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam service logs`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServiceLogsArgs {
    /// Keep printing new lines.
    #[arg(long, short)]
    pub follow: bool,
    /// Number of lines.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    pub lines: u64,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam down`.
#[derive(Clone, Debug, Default, Args)]
pub struct DownArgs {
    /// Stop only the processes that serve only these targets. Default: all that pgiam up started.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Seconds to wait for the processes to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

impl ServiceCommand {
    /// Returns the common flags.
    #[must_use]
    pub fn program(&self) -> &ProgramArgs {
        match self {
            Self::Install(args) => &args.program,
            Self::Uninstall(args) => &args.program,
            Self::Status(args) => &args.program,
            Self::Logs(args) => &args.program,
        }
    }
}
