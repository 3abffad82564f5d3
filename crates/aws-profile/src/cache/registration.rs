//! Registrations of this machine as a client of IAM Identity Center.

use super::SecretText;
use super::json::{self, CacheFault, Object, UnknownKeys};
use crate::date::format_date;

/// Remaining time in seconds that a registration needs to be used for a login.
const MARGIN: i64 = 15 * 60;
const AUTHORIZATION_CODE: &str = "authorization_code";

/// A registration of a client: a file of `sso/cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// `clientId`.
    pub client_id: String,
    /// `clientSecret`.
    pub client_secret: SecretText,
    /// End of the registration in seconds since 1970.
    pub expires_at: i64,
    /// Scopes that it was requested with.
    pub scopes: Option<Vec<String>>,
    /// Grants; registrations for device codes have none.
    pub grant_types: Option<Vec<String>>,
    /// Other keys of the file.
    pub unknown: UnknownKeys,
}

/// Login that a registration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantKind {
    /// Authorization code with PKCE.
    AuthorizationCode,
    /// Device code.
    DeviceCode,
}

impl GrantKind {
    /// Returns `grantTypes` of a registration of this kind.
    #[must_use]
    pub fn grant_types(self) -> Option<Vec<String>> {
        let grants = [AUTHORIZATION_CODE, "refresh_token"].map(str::to_owned);
        (self == Self::AuthorizationCode).then(|| grants.into())
    }
}

impl Registration {
    /// Parses a file.
    ///
    /// # Errors
    /// [`CacheFault`] if `clientId`, `clientSecret` or a readable `expiresAt` is missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheFault> {
        let mut file = Object::parse(bytes)?;
        Ok(Self {
            client_id: file.text("clientId")?,
            client_secret: file.secret("clientSecret")?,
            expires_at: file.date("expiresAt")?,
            scopes: file.texts("scopes"),
            grant_types: file.texts("grantTypes"),
            unknown: file.rest(),
        })
    }

    /// Writes the file as the AWS CLI does, and the unknown keys at the end.
    #[must_use]
    pub fn to_json(&self) -> SecretText {
        json::file(
            [
                ("clientId", Some(json::text(&self.client_id))),
                (
                    "clientSecret",
                    Some(json::text(self.client_secret.expose())),
                ),
                ("expiresAt", Some(json::text(&format_date(self.expires_at)))),
                ("scopes", self.scopes.as_deref().map(json::list)),
                ("grantTypes", self.grant_types.as_deref().map(json::list)),
            ],
            &self.unknown,
        )
    }

    /// Returns the login that it is for.
    #[must_use]
    pub fn kind(&self) -> GrantKind {
        let mut grants = self.grant_types.iter().flatten();
        match grants.any(|grant| grant == AUTHORIZATION_CODE) {
            true => GrantKind::AuthorizationCode,
            false => GrantKind::DeviceCode,
        }
    }

    /// Returns `true` if a login of this kind at this time can use it: more than 15 minutes remain.
    #[must_use]
    pub fn is_usable(&self, kind: GrantKind, now: i64) -> bool {
        self.kind() == kind && self.expires_at.saturating_sub(now) > MARGIN
    }
}
