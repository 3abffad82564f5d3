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
    for file in code_files_of(plan).iter().chain(roles) {
        done.keys += usize::from(cache.remove(CacheDir::Cli, file).await?);
    }
    Ok(done)
}

/// Returns the names of the files with keys that a profile obtained with MFA codes.
fn code_files_of(plan: &LoginPlan) -> Vec<String> {
    let chain = plan.roles.iter().flat_map(|chain| &chain.roles);
    let with_code = chain.filter(|role| role.mfa_serial.is_some());
    let of_device = plan
        .mfa
        .as_ref()
        .map(|device| session_token_file(device.keys.access_key_id.as_str(), &device.serial));
    let of_roles = with_code.map(aws_profile::Role::cache_file);
    of_roles.chain(of_device).collect()
}

/// Returns the names of the files with keys that any profile obtained with MFA codes.
#[must_use]
pub fn code_files(files: &Files, variables: Variables<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for profile in files.profile_names() {
        let request = Request {
            profile: Some(profile),
            ..Request::default()
        };
        if let Ok(plan) = LoginPlan::of_profile(&request, variables, files) {
            names.extend(code_files_of(&plan));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Logs out of all sessions. Registrations stay, as with the AWS CLI. `codes` are the names of the
/// files with keys that were obtained with MFA codes, see [`code_files`].
///
/// # Errors
/// [`LoginError::Cache`].
pub async fn of_all(config: &SdkConfig, codes: &[String]) -> Result<LoggedOut, LoginError> {
    let cache = CacheFiles::of_environment();
    let portal = SsoPortal::new(config.clone(), cache.clone(), system_clock());
    let mut done = LoggedOut {
        keys: remove_sso_roles(&cache).await?,
        ..LoggedOut::default()
    };
    for file in codes {
        done.keys += usize::from(cache.remove(CacheDir::Cli, file).await?);
    }
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

#[cfg(test)]
mod tests {
    use aws_profile::FileInput;

    use super::*;

    #[test]
    fn keys_of_codes_are_found_by_their_profiles() {
        let config = "\
[profile keys]
aws_access_key_id = AKIDEXAMPLE
aws_secret_access_key = secret
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile admin]
role_arn = arn:aws:iam::111122223333:role/Admin
source_profile = keys
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile same]
role_arn = arn:aws:iam::111122223333:role/Admin
source_profile = keys
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile free]
role_arn = arn:aws:iam::111122223333:role/Free
source_profile = keys
[profile broken]
source_profile = nowhere
role_arn = arn:aws:iam::111122223333:role/Broken
";
        let files = Files::parse(
            ("config", FileInput::Contents(config.as_bytes())),
            ("credentials", FileInput::Missing),
        );
        let names = code_files(&files, &|_| None);
        assert_eq!(names.len(), 2, "{names:?}");
        let session = session_token_file("AKIDEXAMPLE", "arn:aws:iam::111122223333:mfa/me");
        assert!(names.contains(&session));
    }
}
