//! Flags that several commands share.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::config::{
    AwsFlags, DatabaseFlags, DialFlags, LoginFlags, RouteFlags, TargetLayer, TunnelFlags,
};

/// Flags that select one target: its name in the file, or a description of the database.
#[derive(Clone, Debug, Default, Args)]
pub struct TargetArgs {
    /// Target name in the configuration file; optional if the file has only one target, or if flags
    /// describe the target.
    #[arg(value_name = "TARGET")]
    pub name: Option<String>,
    /// Flags for the database and the route to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Flags for one database and the route to it.
#[derive(Clone, Debug, Default, Args)]
pub struct DatabaseArgs {
    /// Flags for the database.
    #[command(flatten)]
    pub database: DatabaseFlags,
    /// Flag for the route.
    #[command(flatten)]
    pub route: RouteFlags,
    /// Flags for the tunnel.
    #[command(flatten)]
    pub tunnel: TunnelFlags,
    /// Flags for AWS.
    #[command(flatten)]
    pub aws: AwsFlags,
    /// Flag for the connection from the bastion to the database.
    #[command(flatten)]
    pub dial: DialFlags,
    /// Flags for the login.
    #[command(flatten)]
    pub login: LoginFlags,
}

impl DatabaseArgs {
    /// Returns the settings that override the file.
    #[must_use]
    pub fn layer(&self) -> TargetLayer {
        self.database
            .layer()
            .or(self.route.layer())
            .or(self.tunnel.layer())
            .or(self.aws.layer())
            .or(self.dial.layer())
            .or(self.login.layer())
    }
}

/// Flags common to all commands.
#[derive(Clone, Debug, Default, Args)]
pub struct ProgramArgs {
    /// Configuration file. Default: ./pgiam.toml, or that of a parent directory up to the root of the
    /// Git repository, else pgiam/config.toml in the user's configuration directory.
    #[arg(long, env = "PGIAM_CONFIG", value_name = "FILE", help_heading = PROGRAM)]
    pub config: Option<PathBuf>,
    /// Format of log lines.
    #[arg(long, env = "PGIAM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human, help_heading = PROGRAM)]
    pub log_format: LogFormat,
    /// Log filter: error, warn, info, debug, trace, or a tracing filter such as
    /// "info,pgiam::tunnel=debug". Default: info for serve, tunnel and relay; error for other commands.
    #[arg(
        long,
        env = "PGIAM_LOG",
        value_name = "FILTER",
        value_parser = crate::cli::logging::filter,
        conflicts_with_all = ["quiet", "verbose"],
        help_heading = PROGRAM
    )]
    pub log: Option<String>,
    /// Log only warnings and errors; -qq only errors.
    #[arg(long, short, action = ArgAction::Count, conflicts_with = "verbose", help_heading = PROGRAM)]
    pub quiet: u8,
    /// Log each step, and the end of each connection; -vv every message.
    #[arg(long, short, action = ArgAction::Count, help_heading = PROGRAM)]
    pub verbose: u8,
}

/// Filters of `-v` and `-vv`: only pgiam's own crates log more.
const VERBOSE: &str = "info,pgiam=debug,pg_handshake=debug,smux=debug,ssm_channel=debug";
const MORE_VERBOSE: &str = "debug,pgiam=trace,pg_handshake=trace,smux=trace,ssm_channel=trace";

impl ProgramArgs {
    /// Returns the log filter of a command whose filter is `default`.
    #[must_use]
    pub fn log_filter<'a>(&'a self, default: &'a str) -> &'a str {
        match (self.quiet, self.verbose) {
            (0, 0) => self.log.as_deref().unwrap_or(default),
            (0, 1) => VERBOSE,
            (0, _) => MORE_VERBOSE,
            (1, _) if default != "error" => "warn",
            (_, _) => "error",
        }
    }
}

/// Help heading of the flags common to all commands.
pub(super) const PROGRAM: &str = "Program";

/// Flag of commands that serve connections.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// Seconds that open connections may take to finish after the first SIGINT or SIGTERM; a second
    /// signal closes them at once.
    #[arg(
        long,
        env = "PGIAM_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5,
        help_heading = PROGRAM
    )]
    pub drain_timeout: u64,
}

impl Default for DrainArgs {
    fn default() -> Self {
        Self { drain_timeout: 5 }
    }
}

/// Flag of commands that print results.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flag for the state directory.
#[derive(Clone, Debug, Default, Args)]
pub struct StateArgs {
    /// State directory, with the TLS certificate for local clients.
    #[arg(long, env = "PGIAM_STATE_DIR", value_name = "DIR", help_heading = PROGRAM)]
    pub state_dir: Option<PathBuf>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Sentences for people.
    #[default]
    Human,
    /// One JSON object per event.
    Json,
    /// The same fields as key=value, one line per event.
    Logfmt,
}
