//! Flags that several commands share.

use std::path::PathBuf;

use clap::builder::{BoolishValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::config::{TargetLayer, WrittenBastion, expand_home};

/// Flags that select one target: its name in the file, or a description of the database.
#[derive(Clone, Debug, Default, Args)]
pub struct OneTarget {
    /// Target name in the configuration file; optional if the file has only one target, or if flags
    /// describe the target.
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Flags for the database and the route to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Flags for one database and the route to it.
#[derive(Clone, Debug, Default, Args)]
pub struct DatabaseArgs {
    /// Database endpoint, or a CNAME for it: NAME or NAME:PORT.
    #[arg(long, env = "PGIAM_HOST", value_name = "HOST", help_heading = DATABASE)]
    pub host: Option<String>,
    /// Identifier of an RDS instance, Aurora cluster or RDS Proxy, instead of --host; pgiam looks
    /// up its endpoint. NAME:reader selects the reader endpoint of a cluster.
    #[arg(long, env = "PGIAM_DB", value_name = "NAME", help_heading = DATABASE)]
    pub db: Option<String>,
    /// Database role for clients that send only their operating-system user name.
    #[arg(long, env = "PGIAM_USER", value_name = "ROLE", help_heading = DATABASE)]
    pub user: Option<String>,
    /// Database for clients that name neither role nor database, and for roles without a database
    /// of the same name.
    #[arg(long, env = "PGIAM_DATABASE", value_name = "NAME", help_heading = DATABASE)]
    pub database: Option<String>,
    /// Route to the database: ssm or direct. Default: ssm.
    #[arg(long, env = "PGIAM_VIA", value_name = "WAY", help_heading = TUNNEL)]
    pub via: Option<String>,
    /// Flags for the tunnel.
    #[command(flatten)]
    pub ssm: SsmArgs,
    /// Seconds the bastion may take to connect to the database. Default: 10; never longer than the
    /// connect timeout.
    #[arg(long, env = "PGIAM_DIAL_TIMEOUT", value_name = "SECONDS", help_heading = TUNNEL)]
    pub dial_timeout: Option<u64>,
    /// Trust only the CA certificates in this PEM file for the database, instead of the built-in
    /// Amazon RDS and public roots.
    #[arg(long, env = "PGIAM_CA_FILE", value_name = "FILE", value_parser = path(), help_heading = DATABASE)]
    pub ca_file: Option<PathBuf>,
    /// Flags for the login.
    #[command(flatten)]
    pub login: LoginArgs,
}

/// A path as it was typed, with `~/` for the home directory.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| expand_home(&path))
}

const DATABASE: &str = "Database";
const TUNNEL: &str = "Tunnel and AWS";
const LOGIN: &str = "Login";

/// Flags for the login of connections.
#[derive(Clone, Debug, Default, Args)]
pub struct LoginArgs {
    /// Login method: iam (pgiam logs in with a token) or passthrough (the client logs in with its
    /// own password, for roles without rds_iam and for replication). Default: iam.
    #[arg(long, env = "PGIAM_AUTH", value_name = "HOW", help_heading = LOGIN)]
    pub auth: Option<String>,
    /// Seconds that TLS and login at the database may take. Default: 30.
    #[arg(long, env = "PGIAM_LOGIN_TIMEOUT", value_name = "SECONDS", help_heading = LOGIN)]
    pub login_timeout: Option<u64>,
    /// Maximum concurrent connections per target. Default: no limit other than --max-connections.
    #[arg(long, env = "PGIAM_CONNECTION_LIMIT", value_name = "N", help_heading = LOGIN)]
    pub connection_limit: Option<u64>,
    /// Startup parameters that pgiam does not forward, for servers that reject them;
    /// comma-separated.
    #[arg(
        long,
        env = "PGIAM_IGNORE_STARTUP_PARAMETERS",
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = LOGIN
    )]
    pub ignore_startup_parameters: Option<Vec<String>>,
    /// DNS server that resolves a CNAME given as `host`. Default: the system's.
    #[arg(long, env = "PGIAM_DNS_SERVER", value_name = "ADDRESS", help_heading = LOGIN)]
    pub dns_server: Option<String>,
}

/// Flags for a tunnel, of `serve` and `tunnel` alike.
#[derive(Clone, Debug, Default, Args)]
pub struct SsmArgs {
    /// Managed node that carries the tunnel: i-…, mi-… or ecs:CLUSTER_TASK_RUNTIME (several,
    /// comma-separated or repeated, are tried in order); tag:KEY=VALUE; or auto, which finds one.
    /// Default: auto.
    #[arg(long, env = "PGIAM_BASTION", value_name = "ID", help_heading = TUNNEL)]
    pub bastion: Option<Vec<String>>,
    /// Session Manager document. Default: AWS-StartPortForwardingSessionToRemoteHost.
    #[arg(long, env = "PGIAM_DOCUMENT", value_name = "NAME", help_heading = TUNNEL)]
    pub document: Option<String>,
    /// Maximum concurrent Session Manager sessions, 1 to 20; each carries about 0.7 MB/s. Default:
    /// 4.
    #[arg(long, env = "PGIAM_SESSIONS", value_name = "N", help_heading = TUNNEL)]
    pub sessions: Option<u64>,
    /// Seconds until a session without connections is closed. Default: 300.
    #[arg(long, env = "PGIAM_IDLE_TIMEOUT", value_name = "SECONDS", help_heading = TUNNEL)]
    pub idle_timeout: Option<u64>,
    /// Open the first session at startup instead of with the first connection.
    #[arg(
        long,
        env = "PGIAM_WARM",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        help_heading = TUNNEL
    )]
    pub warm: Option<bool>,
    /// Keep idle sessions open past the account's idle timeout (check your organisation's policy
    /// first).
    #[arg(
        long,
        env = "PGIAM_KEEP_ALIVE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        help_heading = TUNNEL
    )]
    pub keep_alive: Option<bool>,
    /// AWS profile. Default: that of the AWS SDK (AWS_PROFILE, else "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME", help_heading = TUNNEL)]
    pub profile: Option<String>,
    /// AWS region, if the host name does not contain it.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION", help_heading = TUNNEL)]
    pub region: Option<String>,
    /// Seconds a client waits for tunnel and token before pgiam reports an error. Default: 30.
    #[arg(long, env = "PGIAM_CONNECT_TIMEOUT", value_name = "SECONDS", help_heading = TUNNEL)]
    pub connect_timeout: Option<u64>,
}

/// Flags common to all commands.
#[derive(Clone, Debug, Default, Args)]
pub struct ProgramArgs {
    /// Configuration file. Default: ./pgiam.toml, else pgiam/config.toml in the user's
    /// configuration directory.
    #[arg(long, env = "PGIAM_CONFIG", value_name = "FILE", value_parser = path(), help_heading = PROGRAM)]
    pub config: Option<PathBuf>,
    /// Format of log lines.
    #[arg(long, env = "PGIAM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human, help_heading = PROGRAM)]
    pub log_format: LogFormat,
    /// Log filter: error, warn, info, debug, trace, or a tracing filter such as
    /// "info,pgiam::tunnel=debug". Default: info for serve and tunnel, error for other commands.
    #[arg(
        long,
        env = "PGIAM_LOG",
        value_name = "FILTER",
        value_parser = crate::cli::logging::filter,
        help_heading = PROGRAM
    )]
    pub log: Option<String>,
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
    #[arg(long, env = "PGIAM_STATE_DIR", value_name = "DIR", value_parser = path(), help_heading = PROGRAM)]
    pub state_dir: Option<PathBuf>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Human,
    /// One JSON object per event.
    Json,
}

/// Converts one or several `--bastion` values.
fn written(all: &[String]) -> WrittenBastion {
    match all {
        [one] => WrittenBastion::Text(one.clone()),
        all => WrittenBastion::List(all.to_vec()),
    }
}

impl SsmArgs {
    pub(super) fn layer(&self) -> TargetLayer {
        TargetLayer {
            bastion: self.bastion.as_deref().map(written),
            document: self.document.clone(),
            sessions: self.sessions,
            idle_timeout: self.idle_timeout,
            warm: self.warm,
            keep_alive: self.keep_alive,
            profile: self.profile.clone(),
            region: self.region.clone(),
            connect_timeout: self.connect_timeout,
            ..TargetLayer::default()
        }
    }
}

impl DatabaseArgs {
    /// Returns the settings that override the file.
    #[must_use]
    pub fn layer(&self) -> TargetLayer {
        TargetLayer {
            host: self.host.clone(),
            db: self.db.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            via: self.via.clone(),
            dial_timeout: self.dial_timeout,
            ca_file: self.ca_file.clone(),
            auth: self.login.auth.clone(),
            login_timeout: self.login.login_timeout,
            connection_limit: self.login.connection_limit,
            ignore_startup_parameters: self.login.ignore_startup_parameters.clone(),
            dns_server: self.login.dns_server.clone(),
            ..self.ssm.layer()
        }
    }
}
