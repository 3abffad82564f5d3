//! Logins of `aws login`. Only AWS's own tools can start one, because its client ID is theirs; the
//! SDK renews it.

use std::time::{Duration, SystemTime};

use aws_profile::{CacheDir, LoginSession, LoginToken};

use super::LoginError;
use crate::aws::cache_files::CacheFiles;

/// A login of `aws login` on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleLogin {
    /// End of its present keys.
    pub until: SystemTime,
    /// The SDK can renew the keys while the session at AWS lasts.
    pub is_renewable: bool,
}

impl ConsoleLogin {
    /// Returns the login of a profile; `None` if there is none.
    ///
    /// # Errors
    /// [`LoginError::Cache`] for an unreadable file.
    pub async fn of(session: &LoginSession) -> Result<Option<Self>, LoginError> {
        let files = CacheFiles::of_environment();
        let file = session.cache_file();
        let token = files
            .read(CacheDir::Login, &file, LoginToken::parse)
            .await?;
        Ok(token.map(|token| Self {
            until: SystemTime::UNIX_EPOCH
                + Duration::from_secs(token.expires_at.try_into().unwrap_or_default()),
            is_renewable: token.is_refreshable,
        }))
    }

    /// Returns `true` unless the login has certainly ended.
    #[must_use]
    pub fn may_be_usable(&self, now: SystemTime) -> bool {
        self.is_renewable || self.until > now
    }
}
