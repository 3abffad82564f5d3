//! IAM Identity Center: the keys of a role for the token of a login.
//!
//! Tokens and keys are those of the AWS CLI: pgiam reads `~/.aws/sso/cache` and `~/.aws/cli/cache`,
//! and writes a token that it refreshed. The rules are those of AWS CLI 2.36 (observed) and of
//! botocore's `tokens.py` and `credentials.py`.

mod error;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_profile::{
    CLI_MARGIN, CacheDir, CachedCredentials, SecretText, Sso, SsoCacheKey, SsoToken,
};
use aws_sdk_sso::Client;
use aws_sdk_sso::types::RoleCredentials;
use aws_types::region::Region as SdkRegion;
use tokio::time::Instant;

pub use self::error::{NotRefreshed, SsoError, SsoName};
use super::cache_files::{CacheFiles, sdk_credentials};
use super::call_error::{CallError, call};
use super::{pages, validation};
use crate::base::single_flight::Clock;

/// Deadline for one call to the portal or the token service.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline for a list, which may have several pages.
const LIST_DEADLINE: Duration = Duration::from_secs(30);

const GET_ROLE_CREDENTIALS: &str = "sso:GetRoleCredentials";
const LIST_ACCOUNTS: &str = "sso:ListAccounts";
const LIST_ROLES: &str = "sso:ListAccountRoles";

/// Name of this source in [`Credentials::provider_name`](Credentials).
const PROVIDER: &str = "Sso";

/// Use of keys that are in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// Valid keys are used.
    Read,
    /// Keys are requested anew, because AWS rejected the cached ones.
    Skip,
}

/// An account that a login gives access to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsoAccount {
    /// Account id.
    pub id: String,
    /// Name; may be empty.
    pub name: String,
    /// Address of the account; may be empty.
    pub email: String,
}

/// IAM Identity Center for one user of this machine.
#[derive(Clone, Debug)]
pub struct SsoPortal {
    config: SdkConfig,
    files: CacheFiles,
    clock: ShownClock,
}

/// A clock with a `Debug` form.
#[derive(Clone)]
struct ShownClock(Clock);

impl fmt::Debug for ShownClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl SsoPortal {
    /// Creates the portal. `config` needs no credentials; each call uses the region of its session.
    #[must_use]
    pub fn new(config: SdkConfig, files: CacheFiles, clock: Clock) -> Self {
        Self {
            config,
            files,
            clock: ShownClock(clock),
        }
    }

    /// Returns the keys of a role: those of the AWS CLI's cache while at least 15 minutes remain,
    /// else new ones for the token. They are not written to the cache. Cancel-safe.
    ///
    /// # Errors
    /// [`SsoError`].
    pub async fn credentials(&self, sso: &Sso, caches: CacheUse) -> Result<Credentials, SsoError> {
        let key = SsoCacheKey::from(sso);
        let (account_id, role_name) = (sso.account_id.as_str(), sso.role_name.as_str());
        if caches == CacheUse::Read
            && let Some(cached) = self.cached(&key, account_id, role_name).await
        {
            return Ok(cached);
        }
        let token = self.token(&key).await?;
        let client = self.client(key.region)?;
        let asked = client
            .get_role_credentials()
            .access_token(token.access_token.expose())
            .account_id(account_id)
            .role_name(role_name);
        let until = Instant::now() + CALL_DEADLINE;
        let answer = call(GET_ROLE_CREDENTIALS, until, asked.send()).await;
        let answer = answer.map_err(|error| match error.code() {
            Some("ForbiddenException" | "ResourceNotFoundException") => SsoError::NotAssigned {
                account_id: account_id.to_owned(),
                role_name: role_name.to_owned(),
                source: error,
            },
            _ => refused(error, &key, &token),
        })?;
        let keys = answer.role_credentials;
        let keys = keys.and_then(|keys| of_answer(keys, account_id));
        let keys = keys.ok_or(CallError::Answer {
            action: GET_ROLE_CREDENTIALS,
            reason: "a key is missing".into(),
        })?;
        checked(keys, &format!("profile {}", sso.profile))
    }

    /// Returns the keys in the AWS CLI's cache, if they can be used. They stay valid when the token
    /// has expired.
    async fn cached(
        &self,
        key: &SsoCacheKey<'_>,
        account_id: &str,
        role_name: &str,
    ) -> Option<Credentials> {
        let name = key.role_file(account_id, role_name);
        let read = self
            .files
            .read(CacheDir::Cli, &name, CachedCredentials::parse)
            .await;
        // New keys replace a file that cannot be read.
        let cached = read.inspect_err(|error| tracing::debug!(%error, "ignored a cache file"));
        let cached = cached.ok()??;
        let cached = cached.is_usable(self.now(), CLI_MARGIN).then_some(cached)?;
        let cached = CachedCredentials {
            account_id: cached.account_id.or_else(|| Some(account_id.to_owned())),
            ..cached
        };
        checked(
            sdk_credentials(&cached, PROVIDER),
            "the cache of the AWS CLI",
        )
        .ok()
    }

    /// Returns the accounts that a login gives access to. Cancel-safe.
    ///
    /// # Errors
    /// [`SsoError`].
    pub async fn accounts(&self, key: &SsoCacheKey<'_>) -> Result<Vec<SsoAccount>, SsoError> {
        let token = self.token(key).await?;
        let asked = self.client(key.region)?.list_accounts();
        let asked = asked.access_token(token.access_token.expose());
        let mut found = asked.into_paginator().send();
        let rows = |page: aws_sdk_sso::operation::list_accounts::ListAccountsOutput| {
            let accounts = page.account_list.unwrap_or_default().into_iter();
            accounts.filter_map(|account| {
                Some(SsoAccount {
                    id: account.account_id?,
                    name: account.account_name.unwrap_or_default(),
                    email: account.email_address.unwrap_or_default(),
                })
            })
        };
        let all = pages::all(|cx| found.poll_next(cx), rows);
        let until = Instant::now() + LIST_DEADLINE;
        let all = call(LIST_ACCOUNTS, until, all).await;
        listed(LIST_ACCOUNTS, all, key, &token)
    }

    /// Returns the names of the roles that a login can take in an account. Cancel-safe.
    ///
    /// # Errors
    /// [`SsoError`].
    pub async fn roles(
        &self,
        key: &SsoCacheKey<'_>,
        account_id: &str,
    ) -> Result<Vec<String>, SsoError> {
        let token = self.token(key).await?;
        let asked = self.client(key.region)?.list_account_roles();
        let asked = asked
            .access_token(token.access_token.expose())
            .account_id(account_id);
        let mut found = asked.into_paginator().send();
        let rows = |page: aws_sdk_sso::operation::list_account_roles::ListAccountRolesOutput| {
            let roles = page.role_list.unwrap_or_default().into_iter();
            roles.filter_map(|role| role.role_name)
        };
        let all = pages::all(|cx| found.poll_next(cx), rows);
        let until = Instant::now() + LIST_DEADLINE;
        let all = call(LIST_ROLES, until, all).await;
        listed(LIST_ROLES, all, key, &token)
    }

    /// Ends the session of a token at the portal. The caller removes the files.
    ///
    /// # Errors
    /// [`SsoError`].
    pub async fn end_session(&self, region: &str, token: &SecretText) -> Result<(), SsoError> {
        let asked = self.client(region)?.logout().access_token(token.expose());
        let until = Instant::now() + CALL_DEADLINE;
        call("sso:Logout", until, asked.send()).await?;
        Ok(())
    }

    fn client(&self, region: &str) -> Result<Client, SsoError> {
        Ok(Client::new(&self.config_in(region)?))
    }

    fn config_in(&self, region: &str) -> Result<SdkConfig, SsoError> {
        let region = validation::region(region.to_owned(), "sso_region", "the AWS configuration")?;
        let config = self.config.to_builder();
        Ok(config.region(SdkRegion::new(region)).build())
    }

    /// Returns the time in seconds since 1970.
    fn now(&self) -> i64 {
        seconds((self.clock.0)())
    }
}

/// Returns a time in seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Returns the time of seconds since 1970.
pub(super) fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Converts an answer of the portal, whose times are in milliseconds.
fn of_answer(keys: RoleCredentials, account_id: &str) -> Option<Credentials> {
    let expires_at = time(keys.expiration / 1000);
    let builder = Credentials::builder()
        .access_key_id(keys.access_key_id?)
        .secret_access_key(keys.secret_access_key?)
        .session_token(keys.session_token?)
        .expiry(expires_at)
        .account_id(account_id)
        .provider_name(PROVIDER);
    Some(builder.build())
}

fn checked(keys: Credentials, source_of: &str) -> Result<Credentials, SsoError> {
    validation::credentials(&keys, source_of)?;
    Ok(keys)
}

/// Converts the failure of a call that sends the token.
fn refused(error: CallError, key: &SsoCacheKey<'_>, token: &SsoToken) -> SsoError {
    const UNAUTHORIZED: u16 = 401;
    match error {
        CallError::Refused { status, .. } if status == UNAUTHORIZED => SsoError::Rejected {
            login: key.into(),
            expires_at: time(token.expires_at),
        },
        error => error.into(),
    }
}

fn listed<T>(
    action: &'static str,
    all: Result<Result<Vec<T>, pages::PageLimitExceeded>, CallError>,
    key: &SsoCacheKey<'_>,
    token: &SsoToken,
) -> Result<Vec<T>, SsoError> {
    let all = all.map_err(|error| refused(error, key, token))?;
    all.map_err(|endless| {
        let reason = endless.to_string().into();
        CallError::Answer { action, reason }.into()
    })
}
