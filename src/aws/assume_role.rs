//! Roles that STS gives for other keys, and temporary keys for a code of an MFA device.
//!
//! Keys that took a code are kept in the AWS CLI's cache, under its names, so that a code for one of
//! the two programs is enough. Other keys are never read from the disk: they cost one request. The
//! rules are those of AWS CLI 2.36 (observed) and of botocore's `credentials.py`, except that keys
//! with a code are used until a minute before their end, not 15 minutes.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_profile::{
    AssumedRole, CacheDir, CachedCredentials, PERSON_MARGIN, Role, RoleChain, SecretText,
    session_token_file,
};
use aws_sdk_sts::Client;
use aws_sdk_sts::types::Credentials as StsCredentials;
use thiserror::Error;
use tokio::time::Instant;

use super::cache_files::{CacheFileError, CacheFiles, sdk_credentials};
use super::call_error::{CallError, call};
use super::sso::seconds;
use super::validation;
use super::validation::MalformedValue;
use crate::base::redacted::Redacted;
use crate::base::single_flight::Clock;

/// Deadline for one call to STS.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

const ASSUME_ROLE: &str = "sts:AssumeRole";
const GET_SESSION_TOKEN: &str = "sts:GetSessionToken";

/// Reason why a role was not assumed.
#[derive(Clone, Debug, Error)]
pub enum AssumeRoleError {
    /// A code of an MFA device is missing.
    #[error("profile {profile} needs a code of the MFA device {serial}")]
    MfaRequired {
        /// Profile that names the device.
        profile: String,
        /// `mfa_serial`: serial number or ARN.
        serial: String,
        /// Role for which it is needed.
        role_arn: String,
    },
    /// A call failed.
    #[error("cannot assume role {role_arn} of profile {profile}: {source}")]
    Role {
        /// Profile that names the role.
        profile: String,
        /// `role_arn`.
        role_arn: String,
        /// The failure.
        source: CallError,
    },
    /// A call for temporary keys failed.
    #[error("cannot get temporary keys for the MFA device {serial}: {source}")]
    SessionToken {
        /// `mfa_serial`.
        serial: String,
        /// The failure.
        source: CallError,
    },
    /// Keys that took a code cannot be written.
    #[error(transparent)]
    Cache(#[from] CacheFileError),
    /// A key contains characters that cannot be sent.
    #[error(transparent)]
    Malformed(Arc<MalformedValue>),
}

impl From<MalformedValue> for AssumeRoleError {
    fn from(malformed: MalformedValue) -> Self {
        Self::Malformed(Arc::new(malformed))
    }
}

/// A code of an MFA device, which AWS accepts once.
pub struct MfaCode(Redacted<String>);

impl MfaCode {
    /// Wraps a code.
    #[must_use]
    pub fn new(code: impl Into<String>) -> Self {
        Self(Redacted::new(code.into()))
    }
}

/// The part of a chain that is left: keys, and the roles to assume with them.
#[derive(Debug)]
pub struct ChainStart<'a> {
    keys: Credentials,
    roles: &'a [Role],
}

impl<'a> ChainStart<'a> {
    /// Begins with the keys of the chain's base.
    #[must_use]
    pub fn of_base(keys: Credentials, chain: &'a RoleChain) -> Self {
        Self {
            keys,
            roles: &chain.roles,
        }
    }
}

/// STS, with the cache of the AWS CLI.
pub struct RoleAssumer {
    config: SdkConfig,
    files: CacheFiles,
    clock: Clock,
}

impl RoleAssumer {
    /// Creates it. `config` has the region and needs no credentials.
    #[must_use]
    pub fn new(config: SdkConfig, files: CacheFiles, clock: Clock) -> Self {
        Self {
            config,
            files,
            clock,
        }
    }

    /// Returns the part of a chain that is left behind its last role with cached keys; `None` if it
    /// has to begin with its base. Only roles with MFA have cached keys. Skip this after AWS
    /// rejected them. Cancel-safe.
    pub async fn cached<'a>(&self, chain: &'a RoleChain) -> Option<ChainStart<'a>> {
        for (at, role) in chain.roles.iter().enumerate().rev() {
            if role.mfa_serial.is_none() {
                continue;
            }
            if let Some(keys) = self.cached_keys(&role.cache_file()).await {
                let roles = chain.roles.get(at + 1..).unwrap_or_default();
                return Some(ChainStart { keys, roles });
            }
        }
        None
    }

    /// Assumes the rest of a chain, role by role. `code` is for the first of them with MFA, whose
    /// keys are then written to the cache; a chain with more devices takes one call per code, each
    /// beginning with [`RoleAssumer::cached`].
    ///
    /// Cancel-safe; a code is lost then.
    ///
    /// # Errors
    /// [`AssumeRoleError`].
    pub async fn assume(
        &self,
        start: ChainStart<'_>,
        code: Option<MfaCode>,
    ) -> Result<Credentials, AssumeRoleError> {
        let (mut keys, mut code) = (start.keys, code);
        for role in start.roles {
            keys = match &role.mfa_serial {
                None => self.assume_one(role, &keys, None).await?.0,
                Some(serial) => {
                    let needed = || AssumeRoleError::MfaRequired {
                        profile: role.profile.to_string(),
                        serial: serial.as_str().to_owned(),
                        role_arn: role.role_arn.as_str().to_owned(),
                    };
                    let code = code.take().ok_or_else(needed)?;
                    // Begun before the code is spent.
                    let name = role.cache_file();
                    let pending = self.files.begin_write(CacheDir::Cli, &name).await?;
                    let (keys, cached) = self.assume_one(role, &keys, Some(code)).await?;
                    pending.commit(cached.to_json()).await?;
                    keys
                }
            };
        }
        Ok(keys)
    }

    /// Returns the cached keys of [`RoleAssumer::session_token`], if they can be used. Cancel-safe.
    pub async fn cached_session(&self, access_key_id: &str, serial: &str) -> Option<Credentials> {
        self.cached_keys(&session_token_file(access_key_id, serial))
            .await
    }

    /// Requests temporary keys for long-term keys and a code, and writes them to the cache. The AWS
    /// CLI ignores `mfa_serial` in a profile without a role; other tools request such keys.
    /// Cancel-safe; the code is lost then.
    ///
    /// # Errors
    /// [`AssumeRoleError`].
    pub async fn session_token(
        &self,
        keys: &Credentials,
        serial: &str,
        code: MfaCode,
    ) -> Result<Credentials, AssumeRoleError> {
        let failed = |source| AssumeRoleError::SessionToken {
            serial: serial.to_owned(),
            source,
        };
        let name = session_token_file(keys.access_key_id(), serial);
        let pending = self.files.begin_write(CacheDir::Cli, &name).await?;
        let client = self.client(keys, "the profile")?;
        let asked = client
            .get_session_token()
            .serial_number(serial)
            .token_code(code.0.expose());
        let until = Instant::now() + CALL_DEADLINE;
        let answer = call(GET_SESSION_TOKEN, until, asked.send()).await;
        let cached = cached(
            GET_SESSION_TOKEN,
            answer.map_err(failed)?.credentials.as_ref(),
        );
        let mut cached = cached.map_err(failed)?;
        cached.account_id = keys.account_id().map(|id| id.as_str().to_owned());
        let keys = checked(&cached, GET_SESSION_TOKEN)?;
        pending.commit(cached.to_json()).await?;
        Ok(keys)
    }

    async fn cached_keys(&self, name: &str) -> Option<Credentials> {
        let read = self
            .files
            .read(CacheDir::Cli, name, CachedCredentials::parse)
            .await;
        // A new code replaces a file that cannot be read.
        let read = read.inspect_err(|error| tracing::debug!(%error, "ignored a cache file"));
        let cached = read.ok()??;
        let is_usable = cached.is_usable(self.now(), PERSON_MARGIN);
        let keys = is_usable.then(|| checked(&cached, "the cache of the AWS CLI"))?;
        keys.inspect_err(|error| tracing::debug!(%error, "ignored a cache file"))
            .ok()
    }

    async fn assume_one(
        &self,
        role: &Role,
        keys: &Credentials,
        code: Option<MfaCode>,
    ) -> Result<(Credentials, CachedCredentials), AssumeRoleError> {
        let failed = |source| AssumeRoleError::Role {
            profile: role.profile.to_string(),
            role_arn: role.role_arn.as_str().to_owned(),
            source,
        };
        let text = |setting: &Option<aws_profile::Setting>| {
            setting.as_ref().map(|setting| setting.as_str().to_owned())
        };
        let client = self.client(keys, &format!("the source of profile {}", role.profile))?;
        let serial = text(&role.mfa_serial).filter(|_| code.is_some());
        let asked = client
            .assume_role()
            .role_arn(role.role_arn.as_str())
            .role_session_name(self.session_name(role))
            .set_external_id(text(&role.external_id))
            .set_duration_seconds(role.duration_seconds.map(in_range))
            .set_serial_number(serial)
            .set_token_code(code.map(|code| code.0.expose().clone()));
        let until = Instant::now() + CALL_DEADLINE;
        let answer = call(ASSUME_ROLE, until, asked.send())
            .await
            .map_err(failed)?;
        let mut cached = cached(ASSUME_ROLE, answer.credentials.as_ref()).map_err(failed)?;
        cached.assumed_role = answer.assumed_role_user.map(|user| AssumedRole {
            id: user.assumed_role_id,
            arn: user.arn,
        });
        let arn = cached.assumed_role.as_ref().map(|role| role.arn.as_str());
        cached.account_id = arn.and_then(account_of).map(str::to_owned);
        Ok((checked(&cached, ASSUME_ROLE)?, cached))
    }

    /// Returns `role_session_name`, which the trail of the account shows. Without it, or if it is
    /// empty, `pgiam-session-SECONDS` as the AWS CLI's `botocore-session-SECONDS`.
    fn session_name(&self, role: &Role) -> String {
        let given = role.session_name.as_ref().map(|name| name.as_str());
        match given.filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => format!("pgiam-session-{}", self.now()),
        }
    }

    fn client(&self, keys: &Credentials, source_of: &str) -> Result<Client, MalformedValue> {
        validation::credentials(keys, source_of)?;
        let provider = SharedCredentialsProvider::new(keys.clone());
        let config = self.config.to_builder().credentials_provider(provider);
        Ok(Client::new(&config.build()))
    }

    fn now(&self) -> i64 {
        seconds((self.clock)())
    }
}

/// Returns the account of an ARN.
fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// Returns a duration in the range of the request; STS refuses what is out of its own.
fn in_range(seconds: i64) -> i32 {
    i32::try_from(seconds).unwrap_or(if seconds < 0 { i32::MIN } else { i32::MAX })
}

fn cached(
    action: &'static str,
    keys: Option<&StsCredentials>,
) -> Result<CachedCredentials, CallError> {
    let keys = keys.ok_or(CallError::Answer {
        action,
        reason: "a key is missing".into(),
    })?;
    Ok(CachedCredentials {
        provider_type: None,
        access_key_id: keys.access_key_id.clone(),
        secret_access_key: SecretText::new(&*keys.secret_access_key),
        session_token: SecretText::new(&*keys.session_token),
        expires_at: keys.expiration.secs(),
        account_id: None,
        assumed_role: None,
    })
}

fn checked(
    cached: &CachedCredentials,
    source_of: &'static str,
) -> Result<Credentials, MalformedValue> {
    let keys = sdk_credentials(cached, "AssumeRole");
    validation::credentials(&keys, source_of)?;
    Ok(keys)
}

#[cfg(test)]
mod tests;
