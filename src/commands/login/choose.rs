//! Lets the user choose a role of IAM Identity Center, and writes a profile for it.

use anyhow::bail;
use aws_profile::{ChosenBy, Files, ResolveError};

use super::{Subject, explained, log_in};
use crate::aws::cache_files::CacheFiles;
use crate::aws::sso::{SsoAccount, SsoPortal};
use crate::aws::{AwsContext, AwsOptions};
use crate::base::quote::{printable, shell};
use crate::base::single_flight::system_clock;
use crate::cli::terminal::{self, Progress};
use crate::commands::prompt;
use crate::login::new_profile::NewProfile;
use crate::login::plan::{CredentialOrigin, Login, PlanError, of_session};
use crate::login::{self, LoginOptions, SessionState, SsoLogin, aws_files, browser};

/// Lets the user choose a role if no profile is in effect, the machine has no credentials either, and
/// this is a terminal. Returns the new profile.
///
/// # Errors
/// As for [`profile`].
pub(in crate::commands) async fn without_profile(
    region: Option<&str>,
) -> anyhow::Result<Option<String>> {
    if !terminal::is_interactive() {
        return Ok(None);
    }
    let files = aws_files::read().await?;
    let has_none = match Subject::of_profile(None).plan(&files) {
        Ok(plan) => {
            let is_unnamed = plan.profile.chosen_by == ChosenBy::Default;
            is_unnamed && plan.login == Login::None(CredentialOrigin::Instance)
        }
        Err(PlanError::Profile(ResolveError::NoCredentials { .. })) => true,
        Err(_) => false,
    };
    if !has_none || files.session_names().is_empty() {
        return Ok(None);
    }
    let found = {
        let _progress = Progress::start("looking for AWS credentials");
        AwsContext::new(AwsOptions::default()).credentials().await
    };
    match found {
        Ok(_) => Ok(None),
        Err(_) => profile(&files, region).await,
    }
}

/// Lets the user choose a session, an account and a role, and adds a profile to the AWS config file.
/// Logs in before if needed. Returns the profile; `None` if there is no session, or the user cancels.
///
/// # Errors
/// The login failed, or the profile cannot be written.
async fn profile(files: &Files, region: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some(login) = session(files).await? else {
        return Ok(None);
    };
    let aws = AwsContext::new(AwsOptions::default());
    if login::session_state(&login).await != SessionState::Usable {
        let again = format!("pgiam login --sso-session {}", shell(login.name()));
        let options = LoginOptions {
            device_code: browser::unseen_here().is_some(),
            ..LoginOptions::default()
        };
        log_in(&aws, &login, (&options, &again)).await?;
    }
    let config = aws.sdk_config().await.map_err(|error| explained(&error))?;
    let portal = SsoPortal::new(config, CacheFiles::of_environment(), system_clock());
    let Some(account) = account(&portal, &login).await? else {
        return Ok(None);
    };
    let roles = {
        let _progress = Progress::start(format!("listing the roles in account {}", account.id));
        portal.roles(&login.key(), &account.id).await?
    };
    if roles.is_empty() {
        bail!("you have no role in account {}", account.id);
    }
    let Some(role) = select("Role", roles.clone()).await? else {
        return Ok(None);
    };
    let profile = NewProfile {
        session: login.name().to_owned(),
        account_id: account.id,
        role_name: roles.into_iter().nth(role).unwrap_or_default(),
        region: region.unwrap_or(&login.region).to_owned(),
    };
    let (is_new, name) = (profile.add().await?, profile.name());
    let what = match is_new {
        true => format!("Added profile {name} to the AWS config file."),
        false => format!("Using profile {name} of the AWS config file."),
    };
    terminal::tell(format!(
        "{what} To use it with other commands:\n  export AWS_PROFILE={}",
        shell(&name)
    ))?;
    Ok(Some(name))
}

/// Returns the session to use: the only one, or the one that the user chooses.
async fn session(files: &Files) -> anyhow::Result<Option<SsoLogin>> {
    let names: Vec<String> = files
        .session_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    terminal::tell("No AWS profile is in effect. Choose a role of IAM Identity Center:")?;
    let chosen = select("SSO session", names.clone()).await?;
    let name = chosen.and_then(|at| names.into_iter().nth(at));
    Ok(match name {
        Some(name) => Some(of_session(files, &name)?),
        None => None,
    })
}

async fn account(portal: &SsoPortal, login: &SsoLogin) -> anyhow::Result<Option<SsoAccount>> {
    let mut accounts = {
        let _progress = Progress::start("listing your accounts");
        portal.accounts(&login.key()).await?
    };
    if accounts.is_empty() {
        bail!("{} gives you no account", login.name());
    }
    accounts.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let lines = accounts.iter().map(|account| {
        let SsoAccount { id, name, email } = account;
        printable(format!("{name}  {id}  {email}").trim())
    });
    let chosen = select("Account", lines.collect()).await?;
    Ok(chosen.and_then(|at| accounts.into_iter().nth(at)))
}

/// Lets the user select an item; the only one is selected at once. `None` if the user cancels.
async fn select(prompt: &'static str, items: Vec<String>) -> anyhow::Result<Option<usize>> {
    if let [only] = items.as_slice() {
        terminal::tell(format!("{prompt}: {}", printable(only)))?;
        return Ok(Some(0));
    }
    prompt::select(prompt.to_owned(), items).await
}
