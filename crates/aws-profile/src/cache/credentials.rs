//! Keys of roles.

use super::SecretText;
use super::json::{self, CacheFault, Object, SPACED, UnknownKeys};
use crate::date::format_date;

/// Remaining time in seconds that the AWS CLI wants for keys from the cache.
pub const CLI_MARGIN: i64 = 15 * 60;
/// Remaining time in seconds that keys from the cache need if new ones take a code of a person.
pub const PERSON_MARGIN: i64 = 60;

/// Keys of a role: a file of `cli/cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedCredentials {
    /// `ProviderType`: `sso` for keys of IAM Identity Center, none for `AssumeRole`.
    pub provider_type: Option<String>,
    /// `AccessKeyId`.
    pub access_key_id: String,
    /// `SecretAccessKey`.
    pub secret_access_key: SecretText,
    /// `SessionToken`.
    pub session_token: SecretText,
    /// End of the keys in seconds since 1970.
    pub expires_at: i64,
    /// `AccountId`.
    pub account_id: Option<String>,
    /// The role of an `AssumeRole` answer. Reading does not need it, and does not fill it in.
    pub assumed_role: Option<AssumedRole>,
}

/// `AssumedRoleUser` of an `AssumeRole` answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumedRole {
    /// `AssumedRoleId`.
    pub id: String,
    /// `Arn`.
    pub arn: String,
}

impl CachedCredentials {
    /// Parses a file.
    ///
    /// # Errors
    /// [`CacheFault`] if `Credentials` is missing, or one of its keys, or its end cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheFault> {
        let mut file = Object::parse(bytes)?;
        let mut keys = file.object("Credentials")?;
        Ok(Self {
            provider_type: file.text("ProviderType").ok(),
            access_key_id: keys.text("AccessKeyId")?,
            secret_access_key: keys.secret("SecretAccessKey")?,
            session_token: keys.secret("SessionToken")?,
            expires_at: keys.date("Expiration")?,
            account_id: keys.text("AccountId").ok(),
            assumed_role: None,
        })
    }

    /// Writes the file as the AWS CLI does, without `ResponseMetadata`, which no reader uses.
    #[must_use]
    pub fn to_json(&self) -> SecretText {
        let expiration = format_date(self.expires_at);
        // The AWS CLI writes keys of IAM Identity Center with "Z", and others with "+00:00".
        let expiration = match self.is_sso() {
            true => expiration,
            false => expiration.trim_end_matches('Z').to_owned() + "+00:00",
        };
        let mut keys = vec![
            ("AccessKeyId", json::text(&self.access_key_id)),
            (
                "SecretAccessKey",
                json::text(self.secret_access_key.expose()),
            ),
            ("SessionToken", json::text(self.session_token.expose())),
            ("Expiration", json::text(&expiration)),
        ];
        keys.extend(
            self.account_id
                .as_deref()
                .map(|id| ("AccountId", json::text(id))),
        );
        let role = self.assumed_role.as_ref().map(|role| {
            let role = [
                ("AssumedRoleId", json::text(&role.id)),
                ("Arn", json::text(&role.arn)),
            ];
            json::object(role, &SPACED)
        });
        json::file(
            [
                (
                    "ProviderType",
                    self.provider_type.as_deref().map(json::text),
                ),
                ("Credentials", Some(json::object(keys, &SPACED))),
                ("AssumedRoleUser", role),
            ],
            &UnknownKeys::default(),
        )
    }

    /// Returns `true` if at least `margin` seconds remain.
    #[must_use]
    pub fn is_usable(&self, now: i64, margin: i64) -> bool {
        self.expires_at.saturating_sub(now) >= margin
    }

    /// Returns `true` for keys of IAM Identity Center, which a logout removes.
    #[must_use]
    pub fn is_sso(&self) -> bool {
        self.provider_type.as_deref() == Some("sso")
    }
}
