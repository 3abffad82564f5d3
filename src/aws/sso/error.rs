//! Failures of IAM Identity Center.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_profile::{NotRefreshable, SsoCacheKey, format_date};
use thiserror::Error;

use super::seconds;
use crate::aws::cache_files::CacheFileError;
use crate::aws::call_error::CallError;
use crate::aws::validation::MalformedValue;
use crate::base::background::TaskStopped;
use crate::base::foreign_text::ForeignText;

/// Name of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsoName {
    /// `sso_session`, if the profile has one.
    pub session: Option<String>,
    /// `sso_start_url`.
    pub start_url: String,
}

impl From<&SsoCacheKey<'_>> for SsoName {
    fn from(key: &SsoCacheKey<'_>) -> Self {
        Self {
            session: key.session.map(str::to_owned),
            start_url: key.start_url.to_owned(),
        }
    }
}

impl fmt::Display for SsoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.session.as_deref().unwrap_or(&self.start_url);
        f.write_str(&ForeignText::new(name))
    }
}

/// Reason why there are no keys of IAM Identity Center.
#[derive(Clone, Debug, Error)]
pub enum SsoError {
    /// There is no token on this machine.
    #[error("there is no SSO session {login} on this machine")]
    NotLoggedIn {
        /// The login.
        login: SsoName,
    },
    /// The token has expired and could not be refreshed.
    #[error("the SSO session {login} ended at {}: {reason}", shown(*.at))]
    Expired {
        /// The login.
        login: SsoName,
        /// End of the access token.
        at: SystemTime,
        /// Reason why it was not refreshed.
        reason: NotRefreshed,
    },
    /// The portal does not accept the token, although it has not expired.
    #[error("AWS ended the SSO session {login} before {}", shown(*.expires_at))]
    Rejected {
        /// The login.
        login: SsoName,
        /// End of the access token according to its file.
        expires_at: SystemTime,
    },
    /// The login does not give access to the role.
    #[error("the SSO session has no access to role {role_name} in account {account_id}: {source}")]
    NotAssigned {
        /// `sso_account_id`.
        account_id: String,
        /// `sso_role_name`.
        role_name: String,
        /// Answer of the portal.
        source: CallError,
    },
    /// A cache file cannot be read, or a new token could not be written.
    #[error(transparent)]
    Cache(#[from] CacheFileError),
    /// A value for a request is invalid.
    #[error(transparent)]
    Malformed(Arc<MalformedValue>),
    /// Any other failure of a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The task that refreshes the token ended without a result. A bug in pgiam.
    #[error(transparent)]
    Internal(#[from] TaskStopped),
}

impl From<MalformedValue> for SsoError {
    fn from(malformed: MalformedValue) -> Self {
        Self::Malformed(Arc::new(malformed))
    }
}

impl SsoError {
    /// Returns `true` if a new login is the remedy.
    #[must_use]
    pub fn needs_login(&self) -> bool {
        matches!(
            self,
            Self::NotLoggedIn { .. } | Self::Expired { .. } | Self::Rejected { .. }
        )
    }

    /// Returns the end of the token, if there is one and it is no longer accepted.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        match self {
            Self::Expired { at, .. } => Some(*at),
            Self::Rejected { expires_at, .. } => Some(*expires_at),
            _ => None,
        }
    }
}

/// Reason why an expired token was not refreshed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRefreshed {
    /// The profile has no `sso_session`; the AWS CLI refreshes only tokens of sessions.
    WithoutSession,
    /// The file has not what a refresh takes.
    Token(NotRefreshable),
    /// The token service refused.
    Refused(CallError),
}

impl fmt::Display for NotRefreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithoutSession => f.write_str("profiles without sso_session are not refreshed"),
            Self::Token(NotRefreshable::NoRefreshToken) => f.write_str("it has no refresh token"),
            Self::Token(NotRefreshable::NoRegistration) => {
                f.write_str("its file has no valid client registration")
            }
            Self::Token(NotRefreshable::RegistrationExpired(at)) => {
                write!(f, "its client registration ended at {}", format_date(*at))
            }
            Self::Refused(error) => write!(f, "{error}"),
        }
    }
}

fn shown(time: SystemTime) -> String {
    format_date(seconds(time))
}
