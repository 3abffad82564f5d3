//! Keys, logins and programs of a profile.

use crate::error::{ProcessFault, ResolveError};
use crate::files::{Layer, Profile};
use crate::identity::{Keys, LoginSession, Process, ProfileKeys};
use crate::resolve::Platform;
use crate::words::{split_posix, split_windows};

pub(super) const ACCESS_KEY_ID: &str = "aws_access_key_id";
pub(super) const SECRET_ACCESS_KEY: &str = "aws_secret_access_key";
/// The older name takes precedence, also when its value is empty.
const TOKENS: [&str; 2] = ["aws_security_token", "aws_session_token"];

/// Settings that show that a profile is meant to have credentials of its own.
const CREDENTIAL_SETTINGS: [&str; 14] = [
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    "aws_session_token",
    "aws_security_token",
    "role_arn",
    "source_profile",
    "credential_source",
    "web_identity_token_file",
    "sso_session",
    "sso_start_url",
    "sso_account_id",
    "sso_role_name",
    "login_session",
    "credential_process",
];

/// Returns the keys of one of the files, `None` without a key ID. The files are not merged.
pub(super) fn keys(
    profile: &Profile<'_>,
    layer: Option<Layer<'_>>,
) -> Result<Option<ProfileKeys>, ResolveError> {
    let Some(layer) = layer else {
        return Ok(None);
    };
    let value = |key: &str| {
        let found = layer.get(key);
        found
            .map(|found| found.setting(&profile.name, key))
            .transpose()
    };
    let Some(access_key_id) = layer.get(ACCESS_KEY_ID) else {
        return Ok(None);
    };
    let secret = value(SECRET_ACCESS_KEY)?.ok_or_else(|| ResolveError::PartialKeys {
        profile: profile.name().to_owned(),
        missing: SECRET_ACCESS_KEY,
        location: access_key_id.location(),
    })?;
    let token = match TOKENS.into_iter().find(|key| layer.contains(key)) {
        Some(key) => value(key)?,
        None => None,
    };
    Ok(Some(ProfileKeys {
        profile: profile.name.clone(),
        keys: Keys {
            access_key_id: access_key_id.setting(&profile.name, ACCESS_KEY_ID)?,
            secret_access_key: secret.into(),
            session_token: token.map(Into::into),
            account_id: value("aws_account_id")?,
            expires_at: None,
        },
    }))
}

/// Returns `true` if the profile has one half of a key pair in any file.
pub(super) fn has_key(profile: &Profile<'_>) -> bool {
    profile.contains(ACCESS_KEY_ID) || profile.contains(SECRET_ACCESS_KEY)
}

pub(super) fn login_session(profile: &Profile<'_>) -> Result<Option<LoginSession>, ResolveError> {
    let session = profile.setting("login_session")?;
    Ok(session.map(|session| LoginSession {
        profile: profile.name.clone(),
        session,
    }))
}

pub(super) fn process(
    profile: &Profile<'_>,
    platform: Platform,
) -> Result<Option<Process>, ResolveError> {
    const KEY: &str = "credential_process";
    let Some(found) = profile.get(KEY) else {
        return Ok(None);
    };
    let command = found.setting(&profile.name, KEY)?;
    let words = match platform {
        Platform::Posix => split_posix(command.as_str()),
        Platform::Windows => split_windows(command.as_str()),
    };
    let words = match words {
        Ok(words) if words.is_empty() => Err(ProcessFault::Empty),
        words => words.map_err(ProcessFault::from),
    };
    let words = words.map_err(|fault| ResolveError::Process {
        profile: profile.name().to_owned(),
        location: found.location(),
        fault,
    })?;
    Ok(Some(Process {
        profile: profile.name.clone(),
        command: command.into(),
        words,
        account_id: profile.setting("aws_account_id")?,
    }))
}

/// Returns an error if a profile without a source has a setting for credentials.
pub(super) fn has_no_credential_settings(profile: &Profile<'_>) -> Result<(), ResolveError> {
    for key in CREDENTIAL_SETTINGS {
        if let Some(found) = profile.get(key) {
            return Err(ResolveError::Incomplete {
                profile: profile.name().to_owned(),
                key,
                location: found.location(),
            });
        }
    }
    Ok(())
}
