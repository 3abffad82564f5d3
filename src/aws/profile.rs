//! Profile in effect: its existence, and its source of credentials.

use std::borrow::Cow;
use std::path::PathBuf;

use aws_config::profile::{Profile, ProfileFileLoadError, ProfileSet};
use aws_types::os_shim_internal::{Env, Fs};

use super::files::{AwsFiles, TokenFile};
use super::{AwsOptions, CredentialsError};
use crate::aws::validation;
use crate::aws::validation::{MalformedValue, RetrySettings};
use crate::base::names::Region;

/// Maximum number of profiles in a chain of `source_profile`. The SDK reports a loop; this limit
/// only stops following it here.
const LONGEST_CHAIN: usize = 16;

/// Settings of the profile in effect, from the AWS files.
#[derive(Debug, Default, Clone)]
pub(super) struct ProfileSettings {
    /// Profile name for messages: the one set by the user, or the one in effect unless it is
    /// `default`.
    pub(super) profile: Option<String>,
    pub(super) region: Option<Region>,
    pub(super) ca_bundle: Option<PathBuf>,
    pub(super) is_sso: bool,
    /// The profile assumes a role.
    pub(super) assumes: bool,
    pub(super) sso_session: Option<String>,
    /// Display name of the last role in the chain.
    pub(super) role: Option<String>,
    /// The role before that one, which requests it.
    pub(super) caller: Option<String>,
    /// The places that will be tried, see [`CredentialsError::NotFound`].
    pub(super) looked: Vec<&'static str>,
    /// The program that prints its credentials, if any.
    pub(super) process: Option<CredentialProcess>,
    /// The problem with its keys, or with those that it takes from the environment.
    pub(super) malformed: Option<MalformedValue>,
    pub(super) retries: RetrySettings,
    /// Token file that the SDK reads for it.
    pub(super) token_file: Option<TokenFile>,
    pub(super) files: AwsFiles,
    /// Reason why it cannot provide credentials although it names a source. The search ends there:
    /// the next place has another identity.
    pub(super) incomplete: Option<String>,
}

impl ProfileSettings {
    /// Returns the name of the profile in effect.
    pub(super) fn name(&self) -> &str {
        self.profile.as_deref().unwrap_or("default")
    }
}

/// A `credential_process`, and the roles for its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CredentialProcess {
    pub(super) command: String,
    /// `aws_account_id` of the profile.
    pub(super) account: Option<String>,
    /// Roles to assume, in this order.
    pub(super) roles: Vec<AssumedRole>,
}

/// A role that a profile assumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AssumedRole {
    pub(super) arn: String,
    pub(super) session_name: Option<String>,
    pub(super) external_id: Option<String>,
}

/// Reads the AWS files.
///
/// # Errors
/// [`CredentialsError::Config`] when they cannot be parsed, [`CredentialsError::NoSuchProfile`]
/// when no file defines the profile set by the user or by `AWS_PROFILE`. (The SDK would continue
/// with the credentials of the machine: another identity than the requested one.)
pub(super) async fn read(options: &AwsOptions) -> Result<ProfileSettings, CredentialsError> {
    validation::names()?;
    let refused = |reason: String| CredentialsError::Config {
        profile: options.named(),
        reason: reason.into(),
    };
    let files = AwsFiles::read(options).await.map_err(refused)?;
    let set = parse(&files, options.profile.clone()).await;
    let set = match set {
        Ok(set) => set,
        Err(error) => return Err(refused(in_words(&error, &files).await)),
    };
    let selected = set.selected_profile().to_owned();
    let must_exist = options.profile.is_some() || selected != "default";
    if must_exist && set.get_profile(&selected).is_none() {
        let mut known: Vec<String> = set.profiles().map(str::to_owned).collect();
        known.sort();
        return Err(CredentialsError::NoSuchProfile {
            profile: selected,
            known,
        });
    }
    let mut plan = follow(&set, &selected);
    plan.files = files;
    plan.profile = must_exist.then(|| selected.clone());
    if let Some(profile) = set.get_profile(&selected) {
        plan.region = value(profile, "region").map(Region::from);
        plan.ca_bundle = value(profile, "ca_bundle").map(PathBuf::from);
        plan.retries = RetrySettings {
            max_attempts: value(profile, "max_attempts"),
            retry_mode: value(profile, "retry_mode"),
        };
        plan.incomplete = incomplete(&set, profile);
        if let Some(url) = profile.get("endpoint_url") {
            let source_of = format!("profile {selected}");
            validation::endpoint(url, "endpoint_url", &source_of)?;
        }
    }
    if let Some((base, roles)) = base(&set, &selected) {
        plan.malformed = malformed(base, selected != base.name());
        plan.token_file = token_file(base);
        plan.process = process(base, roles, selected != base.name());
    }
    plan.looked = super::chain::places(options.profile.is_some());
    Ok(plan)
}

/// Parses the contents. Reads no files.
async fn parse(
    files: &AwsFiles,
    profile: Option<String>,
) -> Result<ProfileSet, ProfileFileLoadError> {
    let profile = profile.map(Cow::Owned);
    aws_config::profile::load(&Fs::real(), &Env::real(), &files.for_sdk(), profile).await
}

/// Formats a parser error with the path of the file, which the parser omits.
async fn in_words(error: &ProfileFileLoadError, files: &AwsFiles) -> String {
    let words = super::error::in_one_line(error);
    for (path, file) in files.each() {
        if parse(&file, None).await.is_err() {
            let named = format!("error parsing {} on line", path.display());
            return words.replace("error parsing on line", &named);
        }
    }
    words
}

fn follow(set: &ProfileSet, selected: &str) -> ProfileSettings {
    let mut plan = ProfileSettings::default();
    let mut name = selected.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let Some(profile) = set.get_profile(&name) else {
            break;
        };
        let sso = (profile.get("sso_role_name"), profile.get("sso_account_id"));
        let of_sso = match sso {
            (Some(role), Some(account)) => Some(format!("{role} in account {account}")),
            _ => None,
        };
        let role = value(profile, "role_arn").or(of_sso);
        if plan.role.is_none() {
            plan.role = role;
        } else if plan.caller.is_none() {
            plan.caller = role;
        }
        plan.sso_session = plan.sso_session.or_else(|| value(profile, "sso_session"));
        plan.assumes |= profile.get("role_arn").is_some();
        plan.is_sso |= plan.sso_session.is_some() || profile.get("sso_start_url").is_some();
        match value(profile, "source_profile") {
            Some(source) if source != name => name = source,
            _ => break,
        }
    }
    plan
}

/// Returns the profile that provides the first credentials, and the roles assumed with them, as the
/// SDK finds them (aws-config, `profile/credentials/repr.rs`). `None` for a profile that the SDK
/// refuses.
fn base<'a>(set: &'a ProfileSet, selected: &str) -> Option<(&'a Profile, Vec<AssumedRole>)> {
    let (mut seen, mut roles) = (Vec::new(), Vec::new());
    let mut profile = set.get_profile(selected)?;
    while seen.len() < LONGEST_CHAIN && !seen.contains(&profile.name()) {
        seen.push(profile.name());
        let is_source = seen.len() > 1;
        let Some(role) = role(profile).filter(|_| !(is_source && has_keys(profile))) else {
            roles.reverse();
            return Some((profile, roles));
        };
        roles.push(role);
        match profile.get("source_profile") {
            Some(source) if source != profile.name() => profile = set.get_profile(source)?,
            _ => {
                roles.reverse();
                return Some((profile, roles));
            }
        }
    }
    None
}

/// Returns the reason why a profile that names a source of credentials cannot provide any. `None`
/// for a profile without settings for credentials, which leaves the choice to the next place.
fn incomplete(set: &ProfileSet, selected: &Profile) -> Option<String> {
    let mut seen = vec![selected.name()];
    let mut profile = selected;
    loop {
        let name = profile.name();
        let lacks = |key: &str| Some(format!("profile {name} has no {key}"));
        let has = |key: &str| profile.get(key).is_some_and(|value| !value.is_empty());
        let is_source = seen.len() > 1;
        let others = has("role_arn") || has_another_way(profile);
        match (has("aws_access_key_id"), has("aws_secret_access_key")) {
            (true, false) if !others => return lacks("aws_secret_access_key"),
            (false, true) if !others && !has("credential_process") => {
                return lacks("aws_access_key_id");
            }
            _ => {}
        }
        if !has("role_arn") || (is_source && has_keys(profile)) {
            let says = has_keys(profile) || has("credential_process") || has_another_way(profile);
            return (is_source && !says).then(|| {
                format!("profile {name}, the source_profile of another profile, has no credentials")
            });
        }
        if has("credential_source") || has("web_identity_token_file") {
            return None;
        }
        let Some(source) = profile
            .get("source_profile")
            .filter(|name| !name.is_empty())
        else {
            return lacks("source_profile or credential_source for its role_arn");
        };
        if source == name {
            return (!has_keys(profile))
                .then(|| format!("profile {name} is its own source_profile and has no keys"));
        }
        let Some(next) = set.get_profile(source) else {
            return Some(format!(
                "the source_profile {source} of profile {name} does not exist"
            ));
        };
        if seen.contains(&source) {
            return None; // The SDK reports it.
        }
        seen.push(source);
        profile = next;
    }
}

/// Returns the role of a profile. A profile with a web identity token is the start of the chain.
fn role(profile: &Profile) -> Option<AssumedRole> {
    if profile.get("web_identity_token_file").is_some() {
        return None;
    }
    Some(AssumedRole {
        arn: profile.get("role_arn")?.to_owned(),
        session_name: profile.get("role_session_name").map(str::to_owned),
        external_id: profile.get("external_id").map(str::to_owned),
    })
}

fn has_keys(profile: &Profile) -> bool {
    let keys = ["aws_access_key_id", "aws_secret_access_key"];
    keys.iter().all(|key| profile.get(key).is_some())
}

/// Returns `true` if a profile gets its credentials from another source than keys and programs.
/// Such a source takes precedence.
fn has_another_way(profile: &Profile) -> bool {
    [
        "credential_source",
        "web_identity_token_file",
        "sso_account_id",
        "sso_region",
        "sso_role_name",
        "sso_start_url",
        "sso_session",
        "login_session",
    ]
    .iter()
    .any(|key| profile.get(key).is_some())
}

/// Returns the program that prints the credentials of this profile, if they come from one.
fn process(base: &Profile, roles: Vec<AssumedRole>, is_source: bool) -> Option<CredentialProcess> {
    let command = base.get("credential_process")?;
    // In a profile named as the source of another one, keys take precedence.
    if has_another_way(base) || (is_source && has_keys(base)) {
        return None;
    }
    Some(CredentialProcess {
        command: command.to_owned(),
        account: value(base, "aws_account_id"),
        roles,
    })
}

/// Returns the problem with the keys of a profile, if they are used. `is_source` says that another
/// profile names it as its source.
fn malformed(base: &Profile, is_source: bool) -> Option<MalformedValue> {
    if let Some(source) = base.get("credential_source") {
        return match source.eq_ignore_ascii_case("environment") {
            true => validation::environment().err(),
            false => None,
        };
    }
    let others = has_another_way(base) || base.get("credential_process").is_some();
    match (is_source && has_keys(base)) || !others {
        true => validation::static_keys(base).err(),
        false => None,
    }
}

/// Returns the file with the token that the credentials of this profile are requested with.
fn token_file(base: &Profile) -> Option<TokenFile> {
    let sso = base
        .get("sso_session")
        .or_else(|| base.get("sso_start_url"));
    let web_identity = || {
        const KEY: &str = "web_identity_token_file";
        Some(TokenFile::of_profile(base, KEY, base.get(KEY)?))
    };
    sso.map(|key| TokenFile::of_sso(base, key))
        .or_else(web_identity)
}

fn value(profile: &Profile, key: &str) -> Option<String> {
    profile
        .get(key)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn set(config: &str) -> Result<ProfileSet, ProfileFileLoadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, config).unwrap();
        let options = AwsOptions {
            config_file: Some(path),
            credentials_file: Some("/dev/null".into()),
            ..AwsOptions::default()
        };
        let files = AwsFiles::read(&options).await.unwrap();
        parse(&files, Some("a".to_owned())).await
    }

    #[tokio::test]
    async fn a_profile_that_promises_credentials_must_give_them() {
        const KEYS: &str = "aws_access_key_id = AKIA\naws_secret_access_key = s\n";
        let role = |more: &str| format!("[profile a]\nrole_arn = arn:aws:iam::1:role/a\n{more}\n");
        for (config, expected) in [
            ("[profile a]\nregion = eu-central-1\n".to_owned(), None),
            (format!("[profile a]\n{KEYS}"), None),
            (role("source_profile = b") + "[profile b]\n" + KEYS, None),
            (role("credential_source = Environment"), None),
            (role("web_identity_token_file = /x"), None),
            (role("source_profile = a\n") + KEYS, None),
            (
                role("source_profile = zzz"),
                Some("the source_profile zzz of profile a does not exist"),
            ),
            (
                role("source_profile = a"),
                Some("profile a is its own source_profile and has no keys"),
            ),
            (
                role(""),
                Some("profile a has no source_profile or credential_source for its role_arn"),
            ),
            (
                role("source_profile = b") + "[profile b]\nregion = x\n",
                Some("profile b, the source_profile of another profile, has no credentials"),
            ),
            (
                "[profile a]\naws_access_key_id = AKIA\n".to_owned(),
                Some("profile a has no aws_secret_access_key"),
            ),
            (
                "[profile a]\naws_secret_access_key = s\n".to_owned(),
                Some("profile a has no aws_access_key_id"),
            ),
        ] {
            let set = set(&config).await.unwrap();
            let said = incomplete(&set, set.get_profile("a").unwrap());
            assert_eq!(said.as_deref(), expected, "{config}");
        }
    }
}
