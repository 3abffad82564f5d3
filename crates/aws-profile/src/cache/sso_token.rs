//! Tokens of IAM Identity Center.

use super::json::{self, CacheFault, Object, UnknownKeys};
use super::{SecretText, SsoCacheKey};
use crate::date::format_date;

/// Remaining time in seconds below which the AWS CLI refreshes a token.
pub const REFRESH_WINDOW: i64 = 15 * 60;

/// A token of IAM Identity Center: a file of `sso/cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsoToken {
    /// `sso_start_url`, as configured.
    pub start_url: Option<String>,
    /// `sso_region`.
    pub region: Option<String>,
    /// The token for the portal.
    pub access_token: SecretText,
    /// End of the access token in seconds since 1970.
    pub expires_at: i64,
    /// Client that the token was issued to.
    pub client_id: Option<String>,
    /// Secret of the client.
    pub client_secret: Option<SecretText>,
    /// End of the registration in seconds since 1970; `None` if it is missing or cannot be read.
    pub registration_expires_at: Option<i64>,
    /// Token for the next access token.
    pub refresh_token: Option<SecretText>,
    /// Other keys of the file.
    pub unknown: UnknownKeys,
}

/// State of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It can be used.
    Fresh,
    /// It can be used, and less than [`REFRESH_WINDOW`] remains.
    Ageing,
    /// It has expired and must not be sent.
    Expired,
}

/// Arguments of `CreateToken` with the grant type `refresh_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshGrant<'a> {
    /// `clientId`.
    pub client_id: &'a str,
    /// `clientSecret`.
    pub client_secret: &'a SecretText,
    /// `refreshToken`.
    pub refresh_token: &'a SecretText,
}

/// Reason why a token cannot be refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRefreshable {
    /// The file has no refresh token.
    NoRefreshToken,
    /// The file has no client, or no readable end of its registration.
    NoRegistration,
    /// The registration of the client has ended, at this time in seconds since 1970.
    RegistrationExpired(i64),
}

/// Answer to a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccess {
    /// `accessToken`.
    pub access_token: SecretText,
    /// End of the access token in seconds since 1970.
    pub expires_at: i64,
    /// `refreshToken`.
    pub refresh_token: Option<SecretText>,
}

impl SsoToken {
    /// Parses a file.
    ///
    /// # Errors
    /// [`CacheFault`] if `accessToken` or a readable `expiresAt` is missing; other keys are
    /// optional.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheFault> {
        let mut file = Object::parse(bytes)?;
        Ok(Self {
            access_token: file.secret("accessToken")?,
            expires_at: file.date("expiresAt")?,
            start_url: file.text("startUrl").ok(),
            region: file.text("region").ok(),
            client_id: file.text("clientId").ok(),
            client_secret: file.secret("clientSecret").ok(),
            registration_expires_at: file.date("registrationExpiresAt").ok(),
            refresh_token: file.secret("refreshToken").ok(),
            unknown: file.rest(),
        })
    }

    /// Writes the file as the AWS CLI does, and the unknown keys at the end.
    #[must_use]
    pub fn to_json(&self) -> SecretText {
        let text = |text: &Option<String>| text.as_deref().map(json::text);
        let secret = |text: &SecretText| json::text(text.expose());
        let date = |at: i64| json::text(&format_date(at));
        json::file(
            [
                ("startUrl", text(&self.start_url)),
                ("region", text(&self.region)),
                ("accessToken", Some(secret(&self.access_token))),
                ("expiresAt", Some(date(self.expires_at))),
                ("clientId", text(&self.client_id)),
                ("clientSecret", self.client_secret.as_ref().map(secret)),
                (
                    "registrationExpiresAt",
                    self.registration_expires_at.map(date),
                ),
                ("refreshToken", self.refresh_token.as_ref().map(secret)),
            ],
            &self.unknown,
        )
    }

    /// Returns the state at a time in seconds since 1970.
    #[must_use]
    pub fn freshness(&self, now: i64) -> Freshness {
        match self.expires_at.saturating_sub(now) {
            ..=0 => Freshness::Expired,
            left if left < REFRESH_WINDOW => Freshness::Ageing,
            _ => Freshness::Fresh,
        }
    }

    /// Returns the arguments for a refresh. The AWS CLI refreshes only tokens of profiles with an
    /// `sso_session`.
    ///
    /// # Errors
    /// [`NotRefreshable`].
    pub fn refresh_grant(&self, now: i64) -> Result<RefreshGrant<'_>, NotRefreshable> {
        let refresh_token = self.refresh_token.as_ref();
        let refresh_token = refresh_token.ok_or(NotRefreshable::NoRefreshToken)?;
        let (Some(client_id), Some(client_secret), Some(ends)) = (
            self.client_id.as_deref(),
            self.client_secret.as_ref(),
            self.registration_expires_at,
        ) else {
            return Err(NotRefreshable::NoRegistration);
        };
        if ends <= now {
            return Err(NotRefreshable::RegistrationExpired(ends));
        }
        Ok(RefreshGrant {
            client_id,
            client_secret,
            refresh_token,
        })
    }

    /// Returns the token after a refresh. If the answer has no refresh token, the old one is
    /// dropped, as by the AWS CLI.
    #[must_use]
    pub fn refreshed(&self, new: NewAccess, key: &SsoCacheKey<'_>) -> Self {
        Self {
            start_url: Some(key.start_url.to_owned()),
            region: Some(key.region.to_owned()),
            access_token: new.access_token,
            expires_at: new.expires_at,
            refresh_token: new.refresh_token,
            ..self.clone()
        }
    }
}

/// The part of a token that a logout needs. A file of `sso/cache` is one if it has an `accessToken`;
/// registrations have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsoAccess {
    /// The token for the portal.
    pub access_token: SecretText,
    /// `sso_region`, if the file has it.
    pub region: Option<String>,
    /// `sso_start_url`, if the file has it.
    pub start_url: Option<String>,
}

impl SsoAccess {
    /// Parses a file.
    ///
    /// # Errors
    /// [`CacheFault`] if `accessToken` is missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheFault> {
        let mut file = Object::parse(bytes)?;
        Ok(Self {
            access_token: file.secret("accessToken")?,
            region: file.text("region").ok(),
            start_url: file.text("startUrl").ok(),
        })
    }
}
