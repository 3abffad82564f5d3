//! STS: `GetCallerIdentity`, and credentials for roles and for sessions with MFA.

use std::time::Duration;

use http::StatusCode;

use super::ApiError;
use super::query::{Call, Form, STS, unknown};
use super::xml::Xml;
use crate::aws::cloud::Cloud;
use crate::aws::iam::User;
use crate::aws::sigv4::format_iso_date;

mod assume_role;
mod session_token;
mod web_identity;

/// The one action that is not signed.
pub(super) const UNSIGNED: &str = "AssumeRoleWithWebIdentity";

/// Shortest life of credentials.
const MIN_SECONDS: usize = 900;

pub(super) fn answer(call: &Call<'_>, action: &str) -> Result<Xml, ApiError> {
    match action {
        "GetCallerIdentity" => Ok(identity(call)),
        "AssumeRole" => assume_role::answer(call),
        "GetSessionToken" => session_token::answer(call),
        _ => Err(unknown(&STS, action)),
    }
}

/// Answers [`UNSIGNED`].
pub(super) fn answer_unsigned(cloud: &Cloud, form: &Form) -> Result<Xml, ApiError> {
    web_identity::answer(cloud, form)
}

fn identity(call: &Call<'_>) -> Xml {
    let user = call.user;
    let mut xml = Xml::default();
    xml.text("Arn", &user.arn)
        .text("UserId", user_id(user))
        .text("Account", user.account());
    xml
}

/// Unique ids of users start with AIDA, of roles with AROA, and a session's name follows its role's
/// id; any stable text does here.
fn user_id(user: &User) -> String {
    if !user.is_role_session() {
        let tail: String = user.access_key_id.chars().skip(4).collect();
        return format!("AIDA{tail}");
    }
    let mut parts = user.arn.rsplit('/');
    let session = parts.next().unwrap_or_default();
    role_id(parts.next().unwrap_or_default(), session)
}

/// Id of a session of the role with this name.
fn role_id(role: &str, session: &str) -> String {
    let digest = crate::aws::sigv4::sha256_hex(role.as_bytes()).to_uppercase();
    format!("AROA{}:{session}", &digest[..17])
}

/// The element that all actions with credentials share.
fn credentials(xml: &mut Xml, user: &User) {
    xml.nest("Credentials", |xml| {
        xml.text("AccessKeyId", &user.access_key_id)
            .text("SecretAccessKey", &user.secret_access_key)
            .maybe("SessionToken", user.session_token.as_ref())
            .maybe("Expiration", user.expires.map(format_iso_date));
    });
}

/// The element that names the session of a role.
fn assumed_role(xml: &mut Xml, user: &User) {
    xml.nest("AssumedRoleUser", |xml| {
        xml.text("AssumedRoleId", user_id(user))
            .text("Arn", &user.arn);
    });
}

/// `DurationSeconds` within the bounds of the action.
fn duration(form: &Form, default: usize, max: usize) -> Result<Duration, ApiError> {
    let seconds = form.number("DurationSeconds")?.unwrap_or(default);
    let fault = match seconds {
        0..MIN_SECONDS => format!("greater than or equal to {MIN_SECONDS}"),
        _ if seconds > max => format!("less than or equal to {max}"),
        _ => return Ok(Duration::from_secs(seconds as u64)),
    };
    Err(invalid(format!(
        "1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy \
         constraint: Member must have value {fault}"
    )))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("ValidationError", message)
}

fn denied(message: impl Into<String>) -> ApiError {
    ApiError {
        status: StatusCode::FORBIDDEN,
        ..ApiError::new("AccessDenied", message)
    }
}

/// A parameter that the action needs, in the words of the service for one that is missing.
fn need<'a>(form: &'a Form, name: &str) -> Result<&'a str, ApiError> {
    form.get(name).ok_or_else(|| {
        let mut letters = name.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        let member: String = first.into_iter().chain(letters).collect();
        invalid(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: \
             Member must not be null"
        ))
    })
}

/// Name of a session: 2 to 64 of the characters that the API reference lists.
fn session_name(form: &Form) -> Result<&str, ApiError> {
    let name = need(form, "RoleSessionName")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    if (2..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(invalid(format!(
        "1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
    )))
}
