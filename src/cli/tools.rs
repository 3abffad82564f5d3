//! The flags of the commands around serving: what people type to set up, look and ask.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::args::{DatabaseArgs, DrainArgs, OneTarget, OutputArgs, ProgramArgs, StateArgs, path};

/// The flags of `pgiam run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// The target, by its name in the file; may be left out when the file has one only, or when
    /// flags describe it.
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// The command and its arguments.
    #[arg(value_name = "CMD", last = true, required = true)]
    pub command: Vec<OsString>,
    /// Seconds to wait for the tunnel and a first login before the command is started.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub ready_timeout: u64,
    /// Set PGHOST to the directory of a Unix socket, for psql and other clients that use libpq.
    /// DATABASE_URL names the TCP port, because URL parsers disagree on Unix sockets.
    #[arg(long)]
    pub socket: bool,
    /// The flags about the database and the way to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The folder of what is made once.
    #[command(flatten)]
    pub state: StateArgs,
    /// How long open connections get at the end.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam check`.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// What to check.
    #[command(flatten)]
    pub what: OneTarget,
    /// Leave out the measurement of speed.
    #[arg(long)]
    pub no_speed: bool,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam list`.
#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// AWS profile. Default: the AWS SDK's (AWS_PROFILE or "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region. Default: the profile's.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam init`.
#[derive(Clone, Debug, Default, Args)]
pub struct InitArgs {
    /// Where to write. Default: ./pgiam.toml; "-" is standard output.
    #[arg(value_name = "FILE", value_parser = path())]
    pub file: Option<PathBuf>,
    /// Database role to write into it.
    #[arg(long, env = "PGIAM_USER", value_name = "ROLE")]
    pub user: Option<String>,
    /// Only these databases, by their identifiers; several times, or separated by commas. Default:
    /// all that are found.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub db: Vec<String>,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
    /// AWS profile. Default: the AWS SDK's (AWS_PROFILE or "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region. Default: the profile's.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam url`.
#[derive(Clone, Debug, Default, Args)]
pub struct UrlArgs {
    /// The target.
    #[command(flatten)]
    pub what: OneTarget,
    /// In which form.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = UrlForm::Uri)]
    pub format: UrlForm,
    /// Local port. Default: the target's.
    #[arg(long, short, env = "PGIAM_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// How a connection is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UrlForm {
    /// `postgresql://user@localhost:5433/app`
    #[default]
    Uri,
    /// `jdbc:postgresql://localhost:5433/app?user=…`
    Jdbc,
    /// `Host=localhost;Port=5433;…`, for .NET.
    Dotnet,
    /// `host=localhost port=5433 …`, for libpq and Go.
    Dsn,
    /// `export PGHOST=localhost …`, for a shell.
    Env,
}

/// The flags of `pgiam token`.
#[derive(Clone, Debug, Default, Args)]
pub struct TokenArgs {
    /// The target.
    #[command(flatten)]
    pub what: OneTarget,
    /// Print the token although standard output is a terminal, where it stays on the screen.
    #[arg(long)]
    pub show: bool,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam setup`.
#[derive(Clone, Debug, Args)]
pub struct SetupArgs {
    /// What to print.
    #[command(subcommand)]
    pub what: SetupCommand,
}

/// What `pgiam setup` prints.
#[derive(Clone, Debug, Subcommand)]
pub enum SetupCommand {
    /// The least IAM policies for a target: to log in, to open the tunnel, and to look things up.
    Policy(SetupPolicyArgs),
    /// The SQL that lets a role log in with IAM.
    Sql(SetupSqlArgs),
    /// A CloudFormation template, or Terraform, for a bastion that nobody can reach from outside.
    Bastion(SetupBastionArgs),
}

/// The flags of `pgiam setup policy`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupPolicyArgs {
    /// The target.
    #[command(flatten)]
    pub what: OneTarget,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam setup sql`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupSqlArgs {
    /// The target.
    #[command(flatten)]
    pub what: OneTarget,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam setup bastion`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupBastionArgs {
    /// The target.
    #[command(flatten)]
    pub what: OneTarget,
    /// Print Terraform instead of CloudFormation.
    #[arg(long)]
    pub terraform: bool,
    /// With VPC endpoints for ssm, ssmmessages and ec2messages, for private subnets without a NAT
    /// gateway.
    #[arg(long)]
    pub endpoints: bool,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Show it anew every second, until Ctrl-C.
    #[arg(long, short)]
    pub watch: bool,
    /// How to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the running pgiam is.
    #[command(flatten)]
    pub state: StateArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam wait`.
#[derive(Clone, Debug, Default, Args)]
pub struct WaitArgs {
    /// Targets to wait for; all of the running pgiam when left out.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Seconds to wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Where the running pgiam is.
    #[command(flatten)]
    pub state: StateArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam stop`.
#[derive(Clone, Debug, Default, Args)]
pub struct StopArgs {
    /// Only those for these targets, jobs of run and tunnel among them; every server of this user
    /// when left out.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Jobs of run and tunnel, too.
    #[arg(long, conflicts_with_all = ["pid", "targets"])]
    pub all: bool,
    /// Seconds to wait until it has ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Only the one with this process id, whatever it does.
    #[arg(long, value_name = "PID", conflicts_with = "targets")]
    pub pid: Option<u32>,
    /// Where the running pgiam is.
    #[command(flatten)]
    pub state: StateArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of `pgiam completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// The flags of `pgiam man`.
#[derive(Clone, Debug, Default, Args)]
pub struct ManArgs {
    /// Write one page per command into this folder, instead of the first to standard output.
    #[arg(value_name = "DIR", value_parser = path())]
    pub dir: Option<PathBuf>,
}
