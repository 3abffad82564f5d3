//! Flags of `pgiam login` and `pgiam logout`.

use std::convert::Infallible;

use clap::Args;

use super::args::ProgramArgs;
use crate::base::redacted::Redacted;

/// Flags of `pgiam login`.
#[derive(Clone, Debug, Default, Args)]
pub struct LoginArgs {
    /// AWS profile, or target in the configuration file, which stands for its profile. Default:
    /// PGIAM_PROFILE, else that of the AWS CLI (AWS_PROFILE, else "default").
    #[arg(value_name = "PROFILE")]
    pub name: Option<String>,
    /// Log in to this sso-session of the AWS config file, without a profile.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub sso_session: Option<String>,
    /// Show a code to enter on any device, for machines without a browser.
    #[arg(long, conflicts_with = "redirect_port")]
    pub device_code: bool,
    /// Print the address of the login page instead of opening it.
    #[arg(long)]
    pub no_browser: bool,
    /// Port on 127.0.0.1 that the login page leads back to, for a forwarded port. Default: a free
    /// one.
    #[arg(long, value_name = "PORT")]
    pub redirect_port: Option<u16>,
    /// Code of the MFA device, or "-" to read it from standard input. Other users of this machine
    /// can see a code among the arguments, but not in PGIAM_MFA_CODE. A code works only once.
    /// Default: ask at the terminal.
    #[arg(
        long,
        env = "PGIAM_MFA_CODE",
        hide_env_values = true,
        value_name = "CODE",
        value_parser = |text: &str| Ok::<_, Infallible>(Redacted::new(text.to_owned()))
    )]
    pub mfa_code: Option<Redacted<String>>,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags of `pgiam logout`.
#[derive(Clone, Debug, Default, Args)]
pub struct LogoutArgs {
    /// AWS profile, or target in the configuration file, which stands for its profile. Default:
    /// PGIAM_PROFILE, else that of the AWS CLI (AWS_PROFILE, else "default").
    #[arg(value_name = "PROFILE")]
    pub name: Option<String>,
    /// Log out of every session, as aws sso logout and aws logout --all do.
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}
