//! Flags that several commands share.

use std::path::PathBuf;

use clap::builder::{BoolishValueParser, PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::config::{Layer, WrittenBastion, expand_home};

/// The target of a command that is about one: by its name in the file, or described by flags.
#[derive(Clone, Debug, Default, Args)]
pub struct OneTarget {
    /// The target, by its name in the file; may be left out when the file has one only, or when
    /// flags describe it.
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// The flags about the database and the way to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// The flags about one database and the way to it.
#[derive(Clone, Debug, Default, Args)]
pub struct DatabaseArgs {
    /// The database's real endpoint, NAME or NAME:PORT.
    #[arg(long, env = "PGIAM_HOST", value_name = "HOST", help_heading = DATABASE)]
    pub host: Option<String>,
    /// Instead of --host: the identifier of the RDS instance, Aurora cluster or RDS Proxy, whose
    /// endpoint is looked up; NAME:reader for the readers of a cluster.
    #[arg(long, env = "PGIAM_DB", value_name = "NAME", help_heading = DATABASE)]
    pub db: Option<String>,
    /// Database role for clients that send only their operating-system user name.
    #[arg(long, env = "PGIAM_USER", value_name = "ROLE", help_heading = DATABASE)]
    pub user: Option<String>,
    /// Database for clients that choose neither role nor database, and for a role without a database
    /// of its name.
    #[arg(long, env = "PGIAM_DATABASE", value_name = "NAME", help_heading = DATABASE)]
    pub database: Option<String>,
    /// The way to the database: ssm or direct. Default: ssm.
    #[arg(long, env = "PGIAM_VIA", value_name = "WAY", help_heading = TUNNEL)]
    pub via: Option<String>,
    /// The flags of the tunnel.
    #[command(flatten)]
    pub ssm: SsmArgs,
    /// Seconds the bastion may take to connect to the database. Default: 10, and never more than
    /// the connect timeout.
    #[arg(long, env = "PGIAM_DIAL_TIMEOUT", value_name = "SECONDS", help_heading = TUNNEL)]
    pub dial_timeout: Option<u64>,
    /// Trust only the CA certificates in this PEM file for the database, instead of the built-in
    /// Amazon RDS and public roots.
    #[arg(long, env = "PGIAM_CA_FILE", value_name = "FILE", value_parser = path(), help_heading = DATABASE)]
    pub ca_file: Option<PathBuf>,
    /// The flags about logging in.
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

/// The flags about how connections log in.
#[derive(Clone, Debug, Default, Args)]
pub struct LoginArgs {
    /// Who proves who you are: iam (pgiam does, with a token) or passthrough (your client does, with
    /// a password of its own, as for roles without rds_iam and for replication). Default: iam.
    #[arg(long, env = "PGIAM_AUTH", value_name = "HOW", help_heading = LOGIN)]
    pub auth: Option<String>,
    /// Seconds that TLS and login at the database may take. Default: 30.
    #[arg(long, env = "PGIAM_LOGIN_TIMEOUT", value_name = "SECONDS", help_heading = LOGIN)]
    pub login_timeout: Option<u64>,
    /// Most connections to each target at a time. Default: no limit but --max-connections.
    #[arg(long, env = "PGIAM_CONNECTION_LIMIT", value_name = "N", help_heading = LOGIN)]
    pub connection_limit: Option<u64>,
    /// Startup parameters not to pass on, for servers that do not know them; separated by commas.
    #[arg(
        long,
        env = "PGIAM_IGNORE_STARTUP_PARAMETERS",
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = LOGIN
    )]
    pub ignore_startup_parameters: Option<Vec<String>>,
    /// The name server to ask what a host name of your own stands for. Default: the system's.
    #[arg(long, env = "PGIAM_DNS_SERVER", value_name = "ADDRESS", help_heading = LOGIN)]
    pub dns_server: Option<String>,
}

/// The flags of a tunnel, whatever it is for.
#[derive(Clone, Debug, Default, Args)]
pub struct SsmArgs {
    /// Managed node that carries the tunnel: i-…, mi-… or ecs:CLUSTER_TASK_RUNTIME; several
    /// separated by commas, or several times, to be tried in this order; tag:KEY=VALUE; or auto,
    /// which finds one. Default: auto.
    #[arg(long, env = "PGIAM_BASTION", value_name = "ID", help_heading = TUNNEL)]
    pub bastion: Option<Vec<String>>,
    /// Session document. Default: AWS-StartPortForwardingSessionToRemoteHost.
    #[arg(long, env = "PGIAM_DOCUMENT", value_name = "NAME", help_heading = TUNNEL)]
    pub document: Option<String>,
    /// Most Session Manager sessions at a time, 1 to 20; each carries about 0.7 MB/s. Default: 4.
    #[arg(long, env = "PGIAM_SESSIONS", value_name = "N", help_heading = TUNNEL)]
    pub sessions: Option<u64>,
    /// Seconds after which a session without connections is closed. Default: 300.
    #[arg(long, env = "PGIAM_IDLE_TIMEOUT", value_name = "SECONDS", help_heading = TUNNEL)]
    pub idle_timeout: Option<u64>,
    /// Open the first session at the start, not with the first connection.
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
    /// Keep open sessions from ending at the account's idle timeout. Ask whoever set it.
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
    /// AWS profile. Default: the AWS SDK's (AWS_PROFILE or "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME", help_heading = TUNNEL)]
    pub profile: Option<String>,
    /// AWS region, for hosts whose name does not say it.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION", help_heading = TUNNEL)]
    pub region: Option<String>,
    /// Seconds a client waits for tunnel and token before it is told why not. Default: 30.
    #[arg(long, env = "PGIAM_CONNECT_TIMEOUT", value_name = "SECONDS", help_heading = TUNNEL)]
    pub connect_timeout: Option<u64>,
}

/// The flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct ProgramArgs {
    /// Configuration file. Default: ./pgiam.toml, then the one in the user's configuration folder.
    #[arg(long, env = "PGIAM_CONFIG", value_name = "FILE", value_parser = path(), help_heading = PROGRAM)]
    pub config: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, env = "PGIAM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human, help_heading = PROGRAM)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter such as
    /// "info,pgiam::tunnel=debug". Default: info where pgiam keeps running, else error.
    #[arg(
        long,
        env = "PGIAM_LOG",
        value_name = "FILTER",
        value_parser = crate::cli::logging::filter,
        help_heading = PROGRAM
    )]
    pub log: Option<String>,
}

/// Heading of the flags of every command.
pub(super) const PROGRAM: &str = "Program";

/// The flags of commands that serve connections.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// Seconds that open connections get after the first SIGINT or SIGTERM; a second one ends them
    /// at once.
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

/// The flag of commands that have something to tell.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Write JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// The folder of what is made once.
#[derive(Clone, Debug, Default, Args)]
pub struct StateArgs {
    /// Folder for what is made once: the certificate shown to local TLS clients.
    #[arg(long, env = "PGIAM_STATE_DIR", value_name = "DIR", value_parser = path(), help_heading = PROGRAM)]
    pub state_dir: Option<PathBuf>,
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

/// One `--bastion`, or several.
fn written(all: &[String]) -> WrittenBastion {
    match all {
        [one] => WrittenBastion::Text(one.clone()),
        all => WrittenBastion::List(all.to_vec()),
    }
}

impl SsmArgs {
    pub(super) fn layer(&self) -> Layer {
        Layer {
            bastion: self.bastion.as_deref().map(written),
            document: self.document.clone(),
            sessions: self.sessions,
            idle_timeout: self.idle_timeout,
            warm: self.warm,
            keep_alive: self.keep_alive,
            profile: self.profile.clone(),
            region: self.region.clone(),
            connect_timeout: self.connect_timeout,
            ..Layer::default()
        }
    }
}

impl DatabaseArgs {
    /// The settings that override the file.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer {
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
