//! Flags of the commands around `pgiam serve`: setup, checks, lookups and control.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::args::{DatabaseArgs, DrainArgs, OutputArgs, ProgramArgs, StateArgs, TargetArgs};

/// Flags of `pgiam run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Target name in the configuration file; optional if the file has only one target, or if flags
    /// describe the target.
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Command to run, with its arguments.
    #[arg(value_name = "CMD", last = true, required = true)]
    pub command: Vec<OsString>,
    /// Seconds to wait for the tunnel and a first login before starting the command.
    #[arg(long, value_name = "SECONDS", default_value_t = Self::READY_TIMEOUT)]
    pub ready_timeout: u64,
    /// Set PGHOST to the directory of a Unix socket, for psql and other libpq clients. DATABASE_URL
    /// still names the TCP port, because URL parsers disagree on Unix sockets.
    #[arg(long)]
    pub socket: bool,
    /// Flags for the database and the route to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flag for the drain timeout.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

impl RunArgs {
    /// Default of `--ready-timeout`, in seconds.
    pub const READY_TIMEOUT: u64 = 30;
}

/// Flags of `pgiam psql`.
#[derive(Clone, Debug, Default, Args)]
pub struct PsqlArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Arguments of psql.
    #[arg(value_name = "ARGS", last = true)]
    pub args: Vec<OsString>,
    /// Program to run instead of psql, with the same environment, such as pgcli.
    #[arg(long, env = "PGIAM_PSQL", value_name = "PROGRAM")]
    pub psql: Option<OsString>,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam check`.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Skip the speed measurement.
    #[arg(long)]
    pub no_speed: bool,
    /// Flag for the output format.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam list`.
#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// AWS profile. Default: that of the AWS SDK (AWS_PROFILE, else "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region. Default: the profile's.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Flag for the output format.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam init`.
#[derive(Clone, Debug, Default, Args)]
pub struct InitArgs {
    /// File to write, or "-" for standard output. Default: ./pgiam.toml
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Database role to write to the file.
    #[arg(long, env = "PGIAM_USER", value_name = "ROLE")]
    pub user: Option<String>,
    /// Include only these databases, by identifier; comma-separated or repeated. Default: all
    /// databases found.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub db: Vec<String>,
    /// Overwrite an existing file.
    #[arg(long)]
    pub force: bool,
    /// AWS profile. Default: that of the AWS SDK (AWS_PROFILE, else "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region. Default: the profile's.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam url`.
#[derive(Clone, Debug, Default, Args)]
pub struct UrlArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Connection format.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = UrlFormat::Uri)]
    pub format: UrlFormat,
    /// Local port. Default: that of the running pgiam, else the target's.
    #[arg(long, short, env = "PGIAM_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flag for the output format.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Connection format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UrlFormat {
    /// `postgresql://user@localhost:5433/app`; also named url
    #[default]
    #[value(alias = "url")]
    Uri,
    /// `jdbc:postgresql://localhost:5433/app?user=…`
    Jdbc,
    /// `Host=localhost;Port=5433;…`, for .NET
    Dotnet,
    /// `host=localhost port=5433 …`, for libpq and Go
    Dsn,
    /// `Driver={PostgreSQL Unicode};Server=localhost;…`
    Odbc,
    /// `export PGHOST=localhost …`, for a shell
    Env,
    /// `PGHOST=localhost …`, for a .env file
    Dotenv,
    /// Section of pg_service.conf
    Service,
    /// Line of .pgpass, for clients that insist on a password
    Pgpass,
    /// `postgresql://user@host.docker.internal:5433/app`, for a container
    Docker,
}

/// Flags of `pgiam token`.
#[derive(Clone, Debug, Default, Args)]
pub struct TokenArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print the token even if standard output is a terminal, where it stays on the screen.
    #[arg(long)]
    pub show: bool,
    /// Flag for the output format.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam setup`.
#[derive(Clone, Debug, Args)]
pub struct SetupArgs {
    /// Item to print.
    #[command(subcommand)]
    pub command: SetupCommand,
}

/// Subcommands of `pgiam setup`.
#[derive(Clone, Debug, Subcommand)]
pub enum SetupCommand {
    /// Print the minimal IAM policies for a target: login, tunnel and lookups.
    Policy(SetupPolicyArgs),
    /// Print the SQL that lets a role log in with IAM.
    Sql(SetupSqlArgs),
    /// Print a CloudFormation or Terraform template for a bastion without inbound access.
    Bastion(SetupBastionArgs),
}

/// Flags of `pgiam setup policy`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupPolicyArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam setup sql`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupSqlArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam setup bastion`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupBastionArgs {
    /// Flags that select the target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print Terraform instead of CloudFormation.
    #[arg(long)]
    pub terraform: bool,
    /// Include VPC endpoints for ssm, ssmmessages and ec2messages, for private subnets without a
    /// NAT gateway.
    #[arg(long)]
    pub endpoints: bool,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Show a screen with all targets, connections and errors, refreshed every second (`?` shows the
    /// keys). In a pipe, print the status every second.
    #[arg(long, short)]
    pub watch: bool,
    /// Flag for the output format.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam wait`.
#[derive(Clone, Debug, Default, Args)]
pub struct WaitArgs {
    /// Targets to wait for. Default: all targets of the running pgiam.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Seconds to wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam stop`.
#[derive(Clone, Debug, Default, Args)]
pub struct StopArgs {
    /// Stop the processes that serve only these targets, run and tunnel included. Default: every
    /// pgiam serve of this user.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Also stop run and tunnel.
    #[arg(long, conflicts_with_all = ["pid", "targets"])]
    pub all: bool,
    /// Seconds to wait for the processes to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Stop only the process with this ID: serve, run or tunnel.
    #[arg(long, value_name = "PID", conflicts_with = "targets")]
    pub pid: Option<u32>,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam explain`.
#[derive(Clone, Debug, Default, Args)]
pub struct ExplainArgs {
    /// Identifier, SQLSTATE, or a pasted error. Default: list all errors.
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub words: Vec<String>,
    /// Flag for the output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `pgiam completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to generate completions for.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Arguments of the hidden command that completion scripts call.
#[derive(Clone, Debug, Default, Args)]
pub struct CompleteArgs {
    /// Shell of the script.
    #[arg(value_name = "SHELL")]
    pub shell: String,
    /// `COMP_WORDBREAKS` of bash.
    #[arg(value_name = "BREAKS", allow_hyphen_values = true)]
    pub breaks: Option<String>,
    /// The line up to the cursor: one text for bash, words for other shells.
    #[arg(value_name = "WORD", last = true)]
    pub words: Vec<OsString>,
}

/// Flags of `pgiam man`.
#[derive(Clone, Debug, Default, Args)]
pub struct ManArgs {
    /// Write one page per command to this directory, instead of the first page to standard output.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
