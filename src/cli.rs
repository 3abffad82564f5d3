//! What was typed: flags and `PGIAM_*` variables. `config.rs` says what it means.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Layer;

/// Local PostgreSQL proxy: log in to private RDS and Aurora databases with your AWS identity.
#[derive(Debug, Parser)]
#[command(name = "pgiam", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`, for when the word is left out.
    #[command(flatten)]
    pub serve: ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  pgiam serve                          every target of ./pgiam.toml or ~/.config/pgiam/config.toml
  pgiam serve orders                   one of them
  pgiam serve --host db.abc.eu-central-1.rds.amazonaws.com --bastion i-0123456789abcdef0 --user db_user
Then, without a password:
  psql -h localhost -p 5433";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Listen on local ports and connect every client to its database.
    #[command(after_help = EXAMPLES)]
    Serve(ServeArgs),
}

/// The flags of `pgiam serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Targets to serve, by their names in the file; all of them when left out.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Configuration file. Default: ./pgiam.toml, then the one in the user's configuration folder.
    #[arg(long, env = "PGIAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The database's real endpoint, NAME or NAME:PORT.
    #[arg(long, env = "PGIAM_HOST", value_name = "HOST")]
    pub host: Option<String>,
    /// Database role for clients that send only their operating-system user name.
    #[arg(long, env = "PGIAM_USER", value_name = "ROLE")]
    pub user: Option<String>,
    /// Database for clients that name none.
    #[arg(long, env = "PGIAM_DATABASE", value_name = "NAME")]
    pub database: Option<String>,
    /// Local port. Default: 5433; 0 lets the system choose.
    #[arg(long, short, env = "PGIAM_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// Managed node that carries the tunnel, i-… or mi-….
    #[arg(long, env = "PGIAM_BASTION", value_name = "ID")]
    pub bastion: Option<String>,
    /// The way to the database: ssm or direct. Default: ssm.
    #[arg(long, env = "PGIAM_VIA", value_name = "WAY")]
    pub via: Option<String>,
    /// AWS profile. Default: the AWS SDK's (AWS_PROFILE or "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region, for hosts whose name does not say it.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Trust only the CA certificates in this PEM file for the database, instead of the built-in
    /// Amazon RDS and public roots.
    #[arg(long, env = "PGIAM_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Seconds a client waits for tunnel and token before it is told why not. Default: 30.
    #[arg(long, env = "PGIAM_CONNECT_TIMEOUT", value_name = "SECONDS")]
    pub connect_timeout: Option<u64>,
    /// Seconds that open connections get after the first SIGINT or SIGTERM; a second one ends them
    /// at once.
    #[arg(
        long,
        env = "PGIAM_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5
    )]
    pub drain_timeout: u64,
    /// Folder for what is made once: the certificate shown to local TLS clients.
    #[arg(long, env = "PGIAM_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, env = "PGIAM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter such as
    /// "info,pgiam::tunnel=debug".
    #[arg(
        long,
        env = "PGIAM_LOG",
        value_name = "FILTER",
        default_value = "info,aws_config=error"
    )]
    pub log: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Human,
    /// One JSON object per event.
    Json,
}

impl ServeArgs {
    /// The settings that override the file.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer {
            host: self.host.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            port: self.port,
            bastion: self.bastion.clone(),
            via: self.via.clone(),
            profile: self.profile.clone(),
            region: self.region.clone(),
            ca_file: self.ca_file.clone(),
            connect_timeout: self.connect_timeout,
        }
    }
}

impl Cli {
    /// The flags of `serve`, whether or not the word was typed.
    #[must_use]
    pub fn serve_args(self) -> ServeArgs {
        match self.command {
            Some(Command::Serve(args)) => args,
            None => self.serve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        for line in [
            vec!["pgiam", "--port", "6000"],
            vec!["pgiam", "serve", "--port", "6000"],
        ] {
            assert_eq!(Cli::parse_from(line).serve_args().port, Some(6000));
        }
        assert_eq!(
            Cli::parse_from(["pgiam", "serve", "orders"])
                .serve_args()
                .targets,
            ["orders"]
        );
    }
}
