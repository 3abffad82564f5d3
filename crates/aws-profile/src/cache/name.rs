//! Names of the cache files: hashes of what the contents depend on.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::json;
use super::json::{COMPACT, SPACED, Separators};
use crate::identity::{LoginSession, Role, Sso};
use crate::python;

/// Settings of IAM Identity Center that name its cache files.
///
/// A token and the keys of a role go by the name of the session, so that they survive another start
/// URL under the same name. A writer of a token for another start URL should remove them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsoCacheKey<'a> {
    /// `sso_session`. Without it, the caches go by the start URL.
    pub session: Option<&'a str>,
    /// `sso_start_url`, exactly as written.
    pub start_url: &'a str,
    /// `sso_region`.
    pub region: &'a str,
    /// `sso_registration_scopes`, a list with commas.
    pub registration_scopes: Option<&'a str>,
}

impl<'a> SsoCacheKey<'a> {
    /// Returns the name of the file with the token, in `sso/cache`.
    #[must_use]
    pub fn token_file(&self) -> String {
        sha1(self.session.unwrap_or(self.start_url))
    }

    /// Returns the name of the file with the registration of the client, in `sso/cache`. Both kinds
    /// of registrations share it.
    #[must_use]
    pub fn registration_file(&self) -> String {
        let null = || "null".to_owned();
        let scopes = self.scopes();
        sha1(&json::object(
            [
                ("region", json::text(self.region)),
                ("scopes", scopes.map_or_else(null, |list| json::list(&list))),
                ("session_name", self.session.map_or_else(null, json::text)),
                ("startUrl", json::text(self.start_url)),
                ("tool", json::text("botocore")),
            ],
            &SPACED,
        ))
    }

    /// Returns the name of the file with the keys of a role, in `cli/cache`. The empty session
    /// counts as none here.
    #[must_use]
    pub fn role_file(&self, account_id: &str, role_name: &str) -> String {
        let login = match self.session.filter(|name| !name.is_empty()) {
            Some(name) => ("sessionName", json::text(name)),
            None => ("startUrl", json::text(self.start_url)),
        };
        sha1(&json::object(
            [
                ("accountId", json::text(account_id)),
                ("roleName", json::text(role_name)),
                login,
            ],
            &COMPACT,
        ))
    }

    /// Returns the configured scopes. The AWS CLI reads them from sessions only; the list may be
    /// empty.
    #[must_use]
    pub fn scopes(&self) -> Option<Vec<&'a str>> {
        self.session?;
        let scopes = self.registration_scopes?.split(',').map(python::strip);
        Some(scopes.filter(|scope| !scope.is_empty()).collect())
    }
}

impl<'a> From<&'a Sso> for SsoCacheKey<'a> {
    fn from(sso: &'a Sso) -> Self {
        Self {
            session: sso.session.as_ref().map(|session| session.as_str()),
            start_url: sso.start_url.as_str(),
            region: sso.region.as_str(),
            registration_scopes: sso.registration_scopes.as_ref().map(|list| list.as_str()),
        }
    }
}

impl Role {
    /// Returns the name of the file with the keys of the role, in `cli/cache`. The source of the
    /// role is not part of it: two profiles with the same role and different sources share a file.
    #[must_use]
    pub fn cache_file(&self) -> String {
        let text = |setting: &Option<crate::Setting>| {
            setting.as_ref().map(|setting| json::text(setting.as_str()))
        };
        let session_name = self.session_name.clone();
        let session_name = session_name.filter(|name| !name.as_str().is_empty());
        hashed(
            [
                (
                    "DurationSeconds",
                    self.duration_seconds.map(|seconds| seconds.to_string()),
                ),
                ("ExternalId", text(&self.external_id)),
                ("RoleArn", Some(json::text(self.role_arn.as_str()))),
                ("RoleSessionName", text(&session_name)),
                ("SerialNumber", text(&self.mfa_serial)),
            ],
            &SPACED,
        )
    }
}

impl LoginSession {
    /// Returns the name of the file with the login, in `login/cache`.
    #[must_use]
    pub fn cache_file(&self) -> String {
        let digest = Sha256::digest(python::strip(self.session.as_str()));
        hex(&digest) + ".json"
    }
}

/// Returns the name of the file with the keys of `GetSessionToken`, in `cli/cache`. The AWS CLI does
/// not keep such keys, and all its names have other members.
#[must_use]
pub fn session_token_file(access_key_id: &str, mfa_serial: &str) -> String {
    hashed(
        [
            ("AccessKeyId", Some(json::text(access_key_id))),
            ("Action", Some(json::text("GetSessionToken"))),
            ("SerialNumber", Some(json::text(mfa_serial))),
            ("tool", Some(json::text("pgiam"))),
        ],
        &SPACED,
    )
}

/// Returns the name for an object of the members that have a value.
fn hashed<const N: usize>(members: [(&str, Option<String>); N], separators: &Separators) -> String {
    let members = members.into_iter();
    let members = members.filter_map(|(key, value)| Some((key, value?)));
    sha1(&json::object(members, separators))
}

fn sha1(text: &str) -> String {
    hex(&Sha1::digest(text)) + ".json"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
