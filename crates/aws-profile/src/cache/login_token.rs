//! Logins of `aws login`.

use super::json::{CacheFault, Object};

/// The part of a login of `aws login` that tells until when it lasts: a file of `login/cache`. The
/// SDK reads and refreshes the file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginToken {
    /// Account, if the file has it.
    pub account_id: Option<String>,
    /// End of the present keys in seconds since 1970.
    pub expires_at: i64,
    /// The file has what a refresh takes. The service decides until when it can be refreshed.
    pub is_refreshable: bool,
}

impl LoginToken {
    /// Parses a file.
    ///
    /// # Errors
    /// [`CacheFault`] if `accessToken` or its readable `expiresAt` is missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheFault> {
        let mut file = Object::parse(bytes)?;
        let mut access = file.object("accessToken")?;
        let mut has = |key| file.text(key).is_ok();
        Ok(Self {
            account_id: access.text("accountId").ok(),
            expires_at: access.date("expiresAt")?,
            is_refreshable: ["refreshToken", "dpopKey", "clientId"]
                .into_iter()
                .all(&mut has),
        })
    }
}
