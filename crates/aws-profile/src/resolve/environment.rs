//! Sources in environment variables.

use crate::date::parse_date;
use crate::error::{InvalidExpiration, ResolveError};
use crate::files::Profile;
use crate::identity::{Container, ContainerUri, Keys, WebIdentity};
use crate::resolve::Variables;
use crate::setting::{Origin, Setting};

const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
/// The older name takes precedence.
const TOKENS: [&str; 2] = ["AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"];

pub(super) fn setting(variables: Variables<'_>, name: &'static str) -> Option<Setting> {
    variables(name).map(|value| Setting {
        value: value.into(),
        origin: Origin::Variable(name),
    })
}

fn not_empty(variables: Variables<'_>, name: &'static str) -> Option<Setting> {
    setting(variables, name).filter(|setting| !setting.value.is_empty())
}

/// Returns the keys, `None` without a key ID. Blanks count as a value.
pub(super) fn keys(variables: Variables<'_>, now: i64) -> Result<Option<Keys>, ResolveError> {
    let Some(access_key_id) = not_empty(variables, ACCESS_KEY_ID) else {
        return Ok(None);
    };
    let missing = SECRET_ACCESS_KEY;
    let secret = not_empty(variables, SECRET_ACCESS_KEY);
    let secret = secret.ok_or(ResolveError::PartialEnvironment { missing })?;
    let token = TOKENS
        .into_iter()
        .find_map(|name| not_empty(variables, name));
    Ok(Some(Keys {
        access_key_id,
        secret_access_key: secret.into(),
        session_token: token.map(Into::into),
        account_id: not_empty(variables, "AWS_ACCOUNT_ID"),
        expires_at: expiration(variables, now).map_err(ResolveError::EnvironmentExpiration)?,
    }))
}

fn expiration(variables: Variables<'_>, now: i64) -> Result<Option<i64>, InvalidExpiration> {
    let Some(text) = not_empty(variables, "AWS_CREDENTIAL_EXPIRATION") else {
        return Ok(None);
    };
    let end = parse_date(&text.value).ok_or(InvalidExpiration::NotADate)?;
    match end < now {
        true => Err(InvalidExpiration::Past),
        false => Ok(Some(end)),
    }
}

/// Returns the web identity of the variables and the profile. Each setting is from its variable if
/// that is set, else from the profile. An empty token file means none.
pub(super) fn web_identity(
    profile: Option<&Profile<'_>>,
    variables: Option<Variables<'_>>,
) -> Result<Option<WebIdentity>, ResolveError> {
    let value = |variable, key| {
        let variable = variables.and_then(|variables| setting(variables, variable));
        match (variable, profile) {
            (Some(variable), _) => Ok(Some(variable)),
            (None, Some(profile)) => profile.setting(key),
            (None, None) => Ok(None),
        }
    };
    let is_set = |setting: &Setting| !setting.value.is_empty();
    let token_file = value("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file")?;
    let Some(token_file) = token_file.filter(is_set) else {
        return Ok(None);
    };
    let role_arn = value("AWS_ROLE_ARN", "role_arn")?.filter(is_set);
    let Some(role_arn) = role_arn else {
        let token_file = token_file.origin;
        return Err(ResolveError::WebIdentityWithoutRole { token_file });
    };
    let session_name = value("AWS_ROLE_SESSION_NAME", "role_session_name")?;
    Ok(Some(WebIdentity {
        token_file,
        role_arn,
        session_name,
    }))
}

/// Returns the endpoint of the container. A variable that is set but empty counts.
pub(super) fn container(variables: Variables<'_>) -> Option<Container> {
    let relative = variables("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(ContainerUri::Relative);
    let full = || variables("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(ContainerUri::Full);
    let uri = relative.or_else(full)?;
    Some(Container {
        uri,
        token_file: setting(variables, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        token: setting(variables, "AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Into::into),
    })
}

/// Returns `true` if the metadata service is switched off: only by `true`, in any case.
pub(super) fn is_metadata_disabled(variables: Variables<'_>) -> bool {
    variables("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}
