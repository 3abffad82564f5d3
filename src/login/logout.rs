//! Logs out: ends sessions at AWS, and removes tokens and short-lived keys from the caches.

use aws_config::SdkConfig;
use aws_profile::{
    CacheDir, CachedCredentials, Files, Request, Source, SsoAccess, Variables, session_token_file,
};
use tracing::debug;

use super::plan::{Login, LoginPlan};
use super::{LoginError, SsoLogin};
use crate::aws::cache_files::CacheFiles;
use crate::aws::sso::SsoPortal;
use crate::base::redacted::remember;
use crate::base::single_flight::system_clock;

/// Counts of what a logout has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoggedOut {
    /// Logins: tokens of IAM Identity Center and of `aws login`.
    pub logins: usize,
    /// Keys of roles, and keys that were obtained with an MFA code.
    pub keys: usize,
}

/// Logs out of the login of one profile. `roles` are the names of the key files of the session, see
/// [`role_files`].
///
/// # Errors
/// [`LoginError::Cache`].
pub async fn of_plan(
    config: &SdkConfig,
    plan: &LoginPlan,
    roles: &[String],
) -> Result<LoggedOut, LoginError> {
    let cache = CacheFiles::of_environment();
    let portal = SsoPortal::new(config.clone(), cache.clone(), system_clock());
    let mut done = LoggedOut::default();
    match &plan.login {
        Login::Sso(login) => {
            let file = login.key().token_file();
            let token = cache.read(CacheDir::Sso, &file, SsoAccess::parse).await;
            if let Ok(Some(token)) = token {
                end_session(&portal, token, Some(&login.region)).await;
            }
            done.logins += usize::from(cache.remove(CacheDir::Sso, &file).await?);
        }
        Login::Console(login) => {
            let removed = cache.remove(CacheDir::Login, &login.cache_file()).await?;
            done.logins += usize::from(removed);
        }
        Login::None(_) => {}
    }
    let chain = plan.roles.iter().flat_map(|chain| &chain.roles);
    let with_code = chain.filter(|role| role.mfa_serial.is_some());
    let of_device = plan
        .mfa
        .as_ref()
        .map(|device| session_token_file(device.keys.access_key_id.as_str(), &device.serial));
    let files = with_code.map(aws_profile::Role::cache_file);
    for file in files.chain(of_device).chain(roles.iter().cloned()) {
        done.keys += usize::from(cache.remove(CacheDir::Cli, &file).await?);
    }
    Ok(done)
}

/// Logs out of all sessions. Registrations stay, as with the AWS CLI.
///
/// # Errors
/// [`LoginError::Cache`].
pub async fn of_all(config: &SdkConfig) -> Result<LoggedOut, LoginError> {
    let cache = CacheFiles::of_environment();
    let portal = SsoPortal::new(config.clone(), cache.clone(), system_clock());
    let mut done = LoggedOut {
        keys: remove_sso_roles(&cache).await?,
        ..LoggedOut::default()
    };
    for file in cache.list(CacheDir::Sso).await? {
        // Registrations have no token.
        let token = cache.read(CacheDir::Sso, &file, SsoAccess::parse).await;
        if let Ok(Some(token)) = token {
            end_session(&portal, token, None).await;
            done.logins += usize::from(cache.remove(CacheDir::Sso, &file).await?);
        }
    }
    for file in cache.list(CacheDir::Login).await? {
        done.logins += usize::from(cache.remove(CacheDir::Login, &file).await?);
    }
    Ok(done)
}

/// Removes the keys of all roles of IAM Identity Center. Returns their number.
pub(super) async fn remove_sso_roles(cache: &CacheFiles) -> Result<usize, LoginError> {
    let mut removed = 0;
    for file in cache.list(CacheDir::Cli).await? {
        let keys = cache
            .read(CacheDir::Cli, &file, CachedCredentials::parse)
            .await;
        if matches!(keys, Ok(Some(keys)) if keys.is_sso()) {
            removed += usize::from(cache.remove(CacheDir::Cli, &file).await?);
        }
    }
    Ok(removed)
}

/// Returns the names of the key files of all profiles that use the same login.
#[must_use]
pub fn role_files(files: &Files, variables: Variables<'_>, login: &SsoLogin) -> Vec<String> {
    let mut names = Vec::new();
    for profile in files.profile_names() {
        let request = Request {
            profile: Some(profile),
            ..Request::default()
        };
        let Ok(identity) = aws_profile::resolve(&request, variables, files) else {
            continue;
        };
        let source = match identity.source {
            Source::AssumeRole(chain) => *chain.base,
            source => source,
        };
        if let Source::Sso(sso) = source {
            let key = aws_profile::SsoCacheKey::from(&sso);
            if key.session == login.session.as_deref() && key.start_url == login.start_url {
                names.push(key.role_file(sso.account_id.as_str(), sso.role_name.as_str()));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Ends a session at the portal. An error is only logged: the token may have expired.
async fn end_session(portal: &SsoPortal, token: SsoAccess, region: Option<&str>) {
    remember(token.access_token.expose());
    let Some(region) = token.region.or_else(|| region.map(str::to_owned)) else {
        return;
    };
    let ended = portal.end_session(&region, &token.access_token).await;
    if let Err(error) = ended {
        debug!(%error, "the portal did not end the session");
    }
}
