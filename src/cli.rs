//! The command line: flags and `PGIAM_*` variables. `config.rs` interprets the values.

mod args;
mod correction;
mod examples;
pub mod exit;
mod help;
pub mod logging;
mod login;
mod psql_flags;
mod relay;
mod serve;
mod service;
mod switches;
pub mod terminal;
#[cfg(test)]
mod tests;
mod tools;
mod usage_error;
mod variables;
pub mod wrap;

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{BoolishValueParser, PathBufValueParser, TypedValueParser};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use args::{
    DatabaseArgs, DrainArgs, LogFormat, OutputArgs, ProgramArgs, StateArgs, TargetArgs,
};
pub(crate) use help::clause;
pub use login::{LoginArgs, LogoutArgs};
pub use relay::RelayArgs;
pub use serve::{ServeArgs, TunnelArgs};
pub use service::{
    ConfirmArgs, DownArgs, ServiceArgs, ServiceCommand, ServiceInstallArgs, ServiceLogsArgs,
    ServiceStatusArgs, ServiceUninstallArgs,
};
pub use tools::{
    CheckArgs, CompleteArgs, CompletionsArgs, ExplainArgs, InitArgs, ListArgs, ManArgs, PsqlArgs,
    RunArgs, SetupArgs, SetupBastionArgs, SetupCommand, SetupPolicyArgs, SetupSqlArgs, StatusArgs,
    StopArgs, TokenArgs, UrlArgs, UrlFormat, WaitArgs,
};

use crate::base::environment;
use crate::config::expand_home;
use crate::postgres::client::password_file;

/// Local PostgreSQL proxy: log in to private RDS and Aurora databases with your AWS identity.
#[derive(Debug, Parser)]
#[command(name = "pgiam", version, max_term_width = 100, after_help = examples::PGIAM)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// Command; `serve` by default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`, for a command line without a command.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Commands of pgiam.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Listen on local ports and connect clients to their databases (the default).
    #[command(after_help = examples::SERVE)]
    Serve(Box<ServeArgs>),
    /// Run a command with a tunnel of its own, and stop when the command ends.
    #[command(after_help = examples::RUN)]
    Run(Box<RunArgs>),
    /// Open psql in a target.
    #[command(after_help = examples::PSQL)]
    Psql(Box<PsqlArgs>),
    /// Log in to AWS: IAM Identity Center in the browser, or an MFA code.
    #[command(after_help = examples::LOGIN)]
    Login(Box<LoginArgs>),
    /// Log out of AWS.
    #[command(after_help = examples::LOGOUT)]
    Logout(Box<LogoutArgs>),
    /// Test every step of a connection, and report what is wrong.
    #[command(after_help = examples::CHECK)]
    Check(Box<CheckArgs>),
    /// List the databases and bastions that your credentials can see.
    #[command(after_help = examples::LIST)]
    List(Box<ListArgs>),
    /// Write a configuration file with the databases found in AWS.
    #[command(after_help = examples::INIT)]
    Init(Box<InitArgs>),
    /// Print connection settings for a client: a URL, a DSN, variables.
    #[command(after_help = examples::URL)]
    Url(Box<UrlArgs>),
    /// Print a login token for other programs.
    #[command(after_help = examples::TOKEN)]
    Token(Box<TokenArgs>),
    /// Print IAM policies, SQL or a bastion template for an administrator.
    #[command(after_help = examples::SETUP)]
    Setup(Box<SetupArgs>),
    /// Forward plain TCP to any host and port behind the bastion: MySQL, Redis, HTTP.
    #[command(after_help = examples::TUNNEL)]
    Tunnel(Box<TunnelArgs>),
    /// On a bastion: let one connection use several sessions.
    #[command(after_help = examples::RELAY, mut_arg("config", |arg| arg.hide(true)))]
    Relay(Box<RelayArgs>),
    /// Show the running pgiam: targets, connections, last errors.
    #[command(after_help = examples::STATUS)]
    Status(Box<StatusArgs>),
    /// Wait until the running pgiam is ready.
    #[command(after_help = examples::WAIT)]
    Wait(Box<WaitArgs>),
    /// Stop the running pgiam gracefully.
    #[command(after_help = examples::STOP)]
    Stop(Box<StopArgs>),
    /// Explain an error: its causes and the remedy.
    #[command(after_help = examples::EXPLAIN)]
    Explain(ExplainArgs),
    /// Run pgiam as a service of your account: install, uninstall, status, logs.
    #[command(after_help = examples::SERVICE)]
    Service(Box<ServiceArgs>),
    /// Start pgiam serve in the background.
    #[command(after_help = examples::UP)]
    Up(Box<ServeArgs>),
    /// Stop what pgiam up started.
    #[command(after_help = examples::DOWN)]
    Down(Box<DownArgs>),
    /// Print shell completions.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Offer words to a shell.
    #[command(name = "__complete", hide = true)]
    Complete(CompleteArgs),
    /// Print the manual page.
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
}

impl Cli {
    /// Returns the command line as users see it: without a command the flags are those of `serve`,
    /// and `pgiam --help` does not repeat them.
    #[must_use]
    pub fn definition() -> clap::Command {
        with_value_forms(Self::command()).mut_args(|arg| match arg.get_id().as_str() {
            "help" | "version" => arg,
            _ => arg.hide(true),
        })
    }

    /// Returns the command line for the words that a shell offers: the root has the flags of
    /// `serve` and its targets.
    #[must_use]
    pub fn completed() -> clap::Command {
        with_value_forms(Self::command())
    }

    /// Returns the command line for static completion scripts: the root has the flags of `serve` and
    /// no positional argument. A script offers the commands in its place; zsh would count a target's
    /// name and the command as two arguments, and complete the wrong one.
    #[must_use]
    pub fn completions() -> clap::Command {
        let definition = Self::definition();
        let flags = definition
            .get_arguments()
            .filter(|arg| !arg.is_positional());
        clap::Command::new("pgiam")
            .version(env!("CARGO_PKG_VERSION"))
            .args(flags.cloned())
            .subcommands(
                definition
                    .get_subcommands()
                    .filter(|command| !command.is_hide_set())
                    .cloned(),
            )
    }

    /// Parses the command line and the `PGIAM_*` variables. Ends the process where clap does: after
    /// `--help`, and with exit code 2 if an argument or a variable is invalid.
    #[must_use]
    pub fn from_command_line() -> Self {
        match Self::parsed(std::env::args_os()) {
            Ok(mut cli) => {
                cli.serve.is_bare = std::env::args_os().count() == 1;
                cli
            }
            Err(error) => {
                let words: Vec<OsString> = std::env::args_os().collect();
                let code = usage_error::print_and_code(error, &Self::definition(), &words);
                std::process::exit(code)
            }
        }
    }

    /// Parses the words of a command line, and the `PGIAM_*` variables.
    ///
    /// # Errors
    /// The error of clap.
    pub fn of_words(words: &[String]) -> Result<Command, clap::Error> {
        let words = words.iter().map(OsString::from);
        Self::parsed(words).map(Self::into_command)
    }

    fn parsed(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments = variables::parse(&Self::definition(), words, environment::read)?;
        environment::note_taken(arguments.variables);
        Self::from_arg_matches(&arguments.matches)
    }

    /// Parses a command line of `pgiam serve`, from the name of the program on, and the variables.
    /// Ends the process like [`Self::from_command_line`].
    #[must_use]
    pub fn serve_args(words: Vec<std::ffi::OsString>) -> ServeArgs {
        let definition = Self::definition();
        let parsed = variables::parse(&definition, words.iter().cloned(), environment::read);
        match parsed.and_then(|arguments| Self::from_arg_matches(&arguments.matches)) {
            Ok(cli) => match cli.into_command() {
                Command::Serve(args) => *args,
                _ => ServeArgs::default(),
            },
            Err(error) => {
                std::process::exit(usage_error::print_and_code(error, &definition, &words))
            }
        }
    }

    /// Returns the names of all `PGIAM_*` variables that are settings.
    #[must_use]
    pub fn variables() -> Vec<String> {
        let mut all = variables::names(&Self::definition());
        all.push(password_file::VARIABLE.to_owned());
        all
    }

    /// Returns the command line that was meant if `word`, which is no target, is like a command.
    #[must_use]
    pub fn meant_line(word: &str) -> Option<String> {
        let words: Vec<OsString> = std::env::args_os().collect();
        correction::with_command(&Self::definition(), &words, word)
    }

    /// Returns the command; `serve` by default.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
            .unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// Gives flags the notations of their type: numbers with errors for users (clap's own are "invalid
/// digit found in string"), paths with `~/`, and switches that stand alone or have a value.
fn with_value_forms(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let kind = arg.get_value_parser().type_id();
            let is_switch =
                kind == TypeId::of::<bool>() && matches!(arg.get_action(), ArgAction::Set);
            if kind == TypeId::of::<u16>() {
                arg.value_parser(|text: &str| number::<u16>(text, u16::MAX.into()))
            } else if kind == TypeId::of::<u64>() {
                arg.value_parser(|text: &str| number::<u64>(text, u64::MAX))
            } else if kind == TypeId::of::<PathBuf>() {
                arg.value_parser(PathBufValueParser::new().map(|path| expand_home(&path)))
            } else if is_switch {
                arg.value_parser(BoolishValueParser::new())
                    .value_name("BOOL")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
            } else {
                arg
            }
        })
        .mut_subcommands(with_value_forms)
}

/// Parses a number up to `limit`.
fn number<T: FromStr>(text: &str, limit: u64) -> Result<T, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().map_err(|_| match is_number {
        true => format!("expected at most {limit}"),
        false => "expected a whole number".to_owned(),
    })
}

impl Command {
    /// Returns the common flags, for every command that does more than print.
    #[must_use]
    pub fn program(&self) -> Option<&ProgramArgs> {
        Some(match self {
            Self::Serve(args) => &args.program,
            Self::Run(args) => &args.program,
            Self::Psql(args) => &args.program,
            Self::Login(args) => &args.program,
            Self::Logout(args) => &args.program,
            Self::Check(args) => &args.program,
            Self::List(args) => &args.program,
            Self::Init(args) => &args.program,
            Self::Url(args) => &args.program,
            Self::Token(args) => &args.program,
            Self::Setup(args) => match &args.command {
                SetupCommand::Policy(args) => &args.program,
                SetupCommand::Sql(args) => &args.program,
                SetupCommand::Bastion(args) => &args.program,
            },
            Self::Tunnel(args) => &args.program,
            Self::Relay(args) => &args.program,
            Self::Status(args) => &args.program,
            Self::Wait(args) => &args.program,
            Self::Stop(args) => &args.program,
            Self::Service(args) => args.command.program(),
            Self::Up(args) => &args.program,
            Self::Down(args) => &args.program,
            Self::Explain(_) | Self::Complete(_) | Self::Completions(_) | Self::Man(_) => {
                return None;
            }
        })
    }

    /// Returns the default log filter: `info` for commands that keep running; the others report
    /// results on their own.
    #[must_use]
    pub fn default_log(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Tunnel(_) | Self::Relay(_) => "info",
            _ => "error",
        }
    }
}
