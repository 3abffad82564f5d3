//! Profile in effect: its settings, and the source of its credentials.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

#[expect(
    deprecated,
    reason = "the crate they have moved to is not among our dependencies"
)]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_profile::{Files, Identity, Profile, Request, ResolveError, Selection, Source};
use tracing::warn;

use super::{AwsOptions, CredentialsError, files};
use crate::aws::validation;
use crate::aws::validation::{MalformedValue, RetrySettings};

/// Settings of a profile that the SDK's clients read besides those of services. It ignores the
/// others, or pgiam passes them by name.
const SDK_SETTINGS: [&str; 8] = [
    "account_id_endpoint_mode",
    "auth_scheme_preference",
    "endpoint_url",
    "ignore_configured_endpoint_urls",
    "sdk_ua_app_id",
    "sigv4a_signing_region_set",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
];
/// Settings of a profile about the metadata service, see [`MetadataSettings`].
const METADATA_ENDPOINT: &str = "ec2_metadata_service_endpoint";
const METADATA_ENDPOINT_MODE: &str = "ec2_metadata_service_endpoint_mode";

/// Settings of the profile in effect, from the AWS files and the environment.
#[derive(Debug, Clone)]
pub(super) struct ProfileSettings {
    /// Profile name for messages: the one set by the user, or the one in effect unless it is
    /// `default`.
    pub(super) profile: Option<String>,
    pub(super) selection: Selection,
    /// Source of the credentials, or the reason why there is none. A profile that was requested and
    /// cannot be used never leads to another identity.
    pub(super) source: Result<Source, ResolveError>,
    pub(super) ca_bundle: Option<PathBuf>,
    pub(super) retries: RetrySettings,
    pub(super) metadata: MetadataSettings,
    /// MFA device of the profile. The AWS CLI uses it only with a role.
    pub(super) mfa_serial: Option<String>,
    /// Normalised profile for the SDK.
    sdk_profile: String,
}

/// Settings of a profile about the metadata service; variables take precedence.
#[derive(Debug, Clone, Default)]
pub(super) struct MetadataSettings {
    pub(super) endpoint: Option<String>,
    pub(super) endpoint_mode: Option<String>,
}

/// Name of the only profile in the SDK's files.
pub(super) const SDK_PROFILE: &str = "default";

impl ProfileSettings {
    /// Returns the name of the profile in effect.
    pub(super) fn name(&self) -> &str {
        &self.selection.profile.name
    }

    /// Returns the error for an unusable source of credentials.
    pub(super) fn unresolved(
        &self,
        error: &ResolveError,
        looked: Vec<&'static str>,
    ) -> CredentialsError {
        match error {
            ResolveError::NoCredentials { .. } => CredentialsError::NotFound {
                profile: self.profile.clone(),
                looked,
                source: Arc::new(error.clone()),
            },
            error => CredentialsError::Unresolved(Arc::new(error.clone())),
        }
    }

    /// Returns the SDK's profile files. The SDK's parser is stricter than that of the AWS CLI, and
    /// knows other names; it gets one profile, [`SDK_PROFILE`], with the settings of its clients.
    #[expect(
        deprecated,
        reason = "the crate it has moved to is not among our dependencies"
    )]
    pub(super) fn for_sdk(&self) -> ProfileFiles {
        ProfileFiles::builder()
            .with_contents(ProfileFileKind::Config, &self.sdk_profile)
            .build()
    }
}

/// Reads the AWS files.
///
/// # Errors
/// [`CredentialsError::Config`] when a file cannot be found, [`CredentialsError::NoSuchProfile`]
/// when no file defines the requested profile, [`CredentialsError::Unresolved`] when it has a
/// fault, [`CredentialsError::Malformed`] for a variable that is no text.
pub(super) async fn read(options: &AwsOptions) -> Result<ProfileSettings, CredentialsError> {
    validation::names()?;
    let files = files::parse(options).await;
    let files = files.map_err(|reason| CredentialsError::Config {
        profile: options.named(),
        reason: reason.into(),
    })?;
    let unreadable = RefCell::new(None);
    let variables = |name: &str| {
        validation::variable(name).unwrap_or_else(|fault| {
            unreadable.borrow_mut().get_or_insert(fault);
            None
        })
    };
    let now = (options.clock)().duration_since(std::time::UNIX_EPOCH);
    let request = Request {
        profile: options.profile.as_deref(),
        region: None,
        platform: files::PLATFORM,
        now: now.map_or(0, |now| now.as_secs().cast_signed()),
    };
    let resolved = match aws_profile::resolve(&request, &variables, &files) {
        Ok(Identity { selection, source }) => Ok((selection, Ok(source))),
        Err(error) => aws_profile::select(&request, &variables, &files)
            .map(|selection| (selection, Err(error))),
    };
    if let Some(fault) = unreadable.into_inner() {
        return Err(fault.into());
    }
    let (selection, source) =
        resolved.map_err(|error| CredentialsError::unresolved(&error, &files))?;
    if let Some(problem) = &selection.unused_profile_problem {
        warn!(%problem, "the default AWS profile is unusable; its settings have no effect");
    }
    settings(selection, source, &files)
}

fn settings(
    selection: Selection,
    source: Result<Source, ResolveError>,
    files: &Files,
) -> Result<ProfileSettings, CredentialsError> {
    let name = &selection.profile.name;
    let refused = |error: &ResolveError| CredentialsError::unresolved(error, files);
    let profile = match &selection.unused_profile_problem {
        Some(_) => None,
        None => files.profile(name).ok().flatten(),
    };
    let value = |key: &str| match &profile {
        Some(profile) => value(profile, key).map_err(|error| refused(&error)),
        None => Ok(None),
    };
    let is_named = selection.profile.chosen_by != aws_profile::ChosenBy::Default;
    let shown = is_named.then(|| name.to_string());
    let sdk_profile = match &profile {
        Some(profile) => sdk_profile(profile, files)?,
        None => String::new(),
    };
    Ok(ProfileSettings {
        profile: shown,
        ca_bundle: value("ca_bundle")?.map(PathBuf::from),
        retries: RetrySettings {
            max_attempts: value("max_attempts")?,
            retry_mode: value("retry_mode")?,
        },
        metadata: MetadataSettings {
            endpoint: value(METADATA_ENDPOINT)?,
            endpoint_mode: value(METADATA_ENDPOINT_MODE)?,
        },
        mfa_serial: value("mfa_serial")?,
        source,
        selection,
        sdk_profile,
    })
}

/// Returns the value of a key, `None` for an empty one.
fn value(profile: &Profile<'_>, key: &str) -> Result<Option<String>, ResolveError> {
    let setting = profile.setting(key)?;
    let value = setting.map(|setting| setting.as_str().to_owned());
    Ok(value.filter(|value| !value.is_empty()))
}

/// Writes the settings of the SDK's clients, and of the services that the profile names, as one
/// profile in the SDK's format.
fn sdk_profile(profile: &Profile<'_>, files: &Files) -> Result<String, CredentialsError> {
    let source_of = format!("profile {}", profile.name());
    let mut text = format!("[{SDK_PROFILE}]\n");
    for key in SDK_SETTINGS {
        let Ok(Some(setting)) = profile.setting(key) else {
            continue;
        };
        if key == "endpoint_url" {
            validation::endpoint(setting.as_str(), key, &source_of)?;
        }
        push(&mut text, "", key, setting.as_str());
    }
    let Ok(Some(services)) = profile.setting("services") else {
        return Ok(text);
    };
    let Some(settings) = files.services(services.as_str()).ok().flatten() else {
        let fault = "names a services section that does not exist or has a fault";
        return Err(MalformedValue::new("services", &source_of, fault).into());
    };
    text.push_str("services = services\n[services services]\n");
    for (service, key, value) in settings.settings() {
        if key != "endpoint_url" {
            continue;
        }
        validation::endpoint(value, &format!("{key} of {service}"), &source_of)?;
        text.push_str(&format!("{service} =\n"));
        push(&mut text, "  ", key, value);
    }
    Ok(text)
}

/// Adds a setting. The SDK's parser takes ` #` and ` ;` for comments; no setting for its clients has
/// such a value.
fn push(text: &mut String, indentation: &str, key: &str, value: &str) {
    if !value.is_empty() && !value.chars().any(char::is_whitespace) {
        text.push_str(&format!("{indentation}{key} = {value}\n"));
    }
}
