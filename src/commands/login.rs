//! `pgiam login`: logs in to AWS.

pub(super) mod choose;
mod events;
mod mfa;
pub(super) mod on_demand;
mod subject;

use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use aws_profile::{Files, LoginSession, ResolveError};

use self::events::ShownEvents;
use self::mfa::MfaCodes;
pub(super) use self::subject::Subject;
use crate::aws::{AwsContext, AwsOptions, CredentialsError, FOR_A_COMMAND};
use crate::base::local_time::local;
use crate::base::names::Region;
use crate::base::quote::{printable, shell};
use crate::cli::LoginArgs;
use crate::cli::terminal::{self, Progress};
use crate::commands::resolve_target::in_words;
use crate::login::plan::{self, CredentialOrigin, Login, LoginPlan, PlanError};
use crate::login::{self, ConsoleLogin, LoginOptions, SsoLogin, aws_files};
use crate::report::explain_credentials;

/// Logs in, and prints the identity.
///
/// # Errors
/// The profile or the session does not exist or needs no login, or the login failed.
pub async fn login(args: &LoginArgs) -> anyhow::Result<()> {
    let files = aws_files::read().await?;
    let options = LoginOptions {
        device_code: args.device_code,
        no_browser: args.no_browser,
        redirect_port: args.redirect_port,
    };
    if let Some(session) = &args.sso_session {
        let login = plan::of_session(&files, session)?;
        let again = format!("pgiam login --sso-session {}", shell(session));
        return log_in(
            &AwsContext::new(AwsOptions::default()),
            &login,
            (&options, &again),
        )
        .await;
    }
    let subject = Subject::new(args.name.as_deref(), &args.program, &files)?;
    let plan = match subject.plan(&files) {
        Err(PlanError::Profile(ResolveError::NoCredentials { profile })) => {
            bail!(nothing_configured(&profile, &files))
        }
        plan => plan?,
    };
    let aws = subject.context();
    match &plan.login {
        Login::Sso(login) => {
            let again = format!("pgiam login{}", subject.argument());
            log_in(&aws, login, (&options, &again)).await?;
        }
        Login::Console(session) => check_console(session).await?,
        Login::None(CredentialOrigin::Instance) if plan.roles.is_none() => {
            bail!(nothing_configured(&plan.profile.name, &files))
        }
        Login::None(origin) if !needs_code(&plan) => bail!(no_login(origin, &plan)),
        Login::None(_) => {}
    }
    if needs_code(&plan) {
        let mut codes = MfaCodes::new(args.mfa_code.as_ref());
        mfa::log_in(&aws, &plan, &mut codes).await?;
    }
    identify(&aws, &plan).await
}

/// Logs in to IAM Identity Center. `again` is the command line of this login.
pub(super) async fn log_in(
    aws: &AwsContext,
    login: &SsoLogin,
    (options, again): (&LoginOptions, &str),
) -> anyhow::Result<()> {
    let config = aws.sdk_config().await.map_err(|error| explained(&error))?;
    let logged_in = {
        let mut shown = ShownEvents::new(again);
        let mut tell = |event: login::LoginEvent<'_>| shown.show(&event);
        login::sso(&config, login, options, &mut tell).await?
    };
    let until = local(logged_in.until, SystemTime::now());
    let until = match logged_in.is_renewable {
        true => format!("until {until} at least"),
        false => format!("until {until}"),
    };
    let name = match &login.session {
        Some(session) => format!("SSO session {session}"),
        None => login.start_url.clone(),
    };
    write(format_args!("Logged in to {name} {until}"))
}

/// Prints the identity, as AWS reports it.
async fn identify(aws: &AwsContext, plan: &LoginPlan) -> anyhow::Result<()> {
    let profile = &plan.profile.name;
    let credentials = {
        let _progress = Progress::start(format!("getting the credentials of profile {profile}"));
        aws.credentials().await
    };
    let credentials = credentials.map_err(|error| explained(&error))?;
    let region = match (aws.region().await, &plan.login) {
        (Ok(Some(region)), _) => Some(region),
        (_, Login::Sso(login)) => Some(Region::from(login.region.as_str())),
        _ => None,
    };
    let identity = match &region {
        Some(region) => aws.identity(region, FOR_A_COMMAND).await,
        None => crate::aws::Identity::default(),
    };
    let mut line = format!("Profile {profile}: ");
    match (identity.arn, identity.account) {
        (Some(arn), _) => line.push_str(&arn),
        (None, Some(account)) => line.push_str(&format!("account {account}")),
        (None, None) => line.push_str("credentials loaded; AWS did not report the identity"),
    }
    if let Some(ends) = credentials.expiry() {
        line.push_str(&format!(", keys until {}", local(ends, SystemTime::now())));
    }
    write(format_args!("{line}"))
}

/// Returns `true` if a part of the login is a code of an MFA device.
fn needs_code(plan: &LoginPlan) -> bool {
    let mut roles = plan.roles.iter().flat_map(|chain| &chain.roles);
    plan.mfa.is_some() || roles.any(|role| role.mfa_serial.is_some())
}

/// Checks the login of `aws login`, without the roles that are assumed with it.
async fn check_console(session: &LoginSession) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let profile = &session.profile;
    let state = match ConsoleLogin::of(session).await? {
        None => "is not logged in".to_owned(),
        Some(found) if !found.may_be_usable(now) => {
            format!("has no login since {}", local(found.until, now))
        }
        Some(_) => {
            let aws = AwsContext::new(AwsOptions {
                profile: Some(profile.to_string()),
                ..AwsOptions::default()
            });
            match aws.credentials().await {
                Ok(_) => return Ok(()),
                Err(CredentialsError::LoginSession { reason, .. }) => {
                    format!("has no usable login: {reason}")
                }
                Err(error) => return Err(explained(&error)),
            }
        }
    };
    bail!(
        "profile {profile} {state}\nOnly the AWS CLI can log it in:\n  aws login --profile {}",
        shell(profile)
    )
}

/// Explains that the profile in effect has no login, and names those that exist.
fn nothing_configured(profile: &str, files: &Files) -> String {
    let mut names = files.profile_names();
    names.retain(|name| *name != profile);
    match names.is_empty() {
        true => format!(
            "no login is configured for profile {profile}; create one:\n  aws configure sso"
        ),
        false => format!(
            "no login is configured for profile {profile}; name another profile: {}\n  pgiam login PROFILE",
            printable(&names.join(", "))
        ),
    }
}

/// Explains that there is nothing to log in to, and names the alternative.
fn no_login(origin: &CredentialOrigin, plan: &LoginPlan) -> String {
    let profile = &plan.profile.name;
    let check = format!("pgiam list --profile {}", shell(profile));
    match origin {
        CredentialOrigin::Environment => "the credentials are in environment variables, which take precedence; unset AWS_ACCESS_KEY_ID, or name a profile:\n  pgiam login PROFILE".to_owned(),
        CredentialOrigin::Keys => format!(
            "profile {profile} has access keys, which need no login; test them:\n  {check}"
        ),
        CredentialOrigin::WebIdentity => format!(
            "profile {profile} uses a web identity token from a file, which needs no login; test it:\n  {check}"
        ),
        CredentialOrigin::Process(program) => format!(
            "profile {profile} gets its credentials from {program} (credential_process); log in with that program, then test it:\n  {check}"
        ),
        CredentialOrigin::Container => "the credentials come from the container, which needs no login; to log in, name a profile:\n  pgiam login PROFILE".to_owned(),
        CredentialOrigin::Instance => format!(
            "profile {profile} assumes a role with the credentials of the instance, which needs no login; test it:\n  {check}"
        ),
    }
}

pub(super) fn explained(error: &CredentialsError) -> anyhow::Error {
    anyhow!(in_words(&explain_credentials(error)))
}

fn write(text: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    terminal::write_text(text).context("cannot write to standard output")
}
