//! Reports about AWS in general: credentials, tokens, partitions.

use super::message::{CANNOT_CONNECT, CONFIGURATION, INTERNAL, Message, NOT_AUTHORIZED, THROTTLED};
use super::phrases::{
    BAD_ANSWER, SET_CLOCK, SLOW_CREDENTIALS, check_keys_hint, of_profile, profile_option,
    renew_hint, sentence,
};

use crate::aws::is_about_the_network;
use crate::aws::token::TokenError;
use crate::aws::{
    CallTimeout, CallTimeoutKind, ClockOffset, CredentialsError, MalformedValue, in_words,
};
use crate::base::background::TaskStopped;
use crate::base::error_text::chain;

pub(super) fn credentials(error: &CredentialsError) -> Message {
    let message = |id, state, hint: String| Message::new(id, state, error.to_string()).hint(hint);
    let refused = |id, hint: String| message(id, NOT_AUTHORIZED, hint);
    match error {
        CredentialsError::NotFound { profile, looked, .. } => refused("aws.no-credentials", missing_credentials_hint(profile.as_deref()))
            .detail(format!("Looked at: {}.", looked.join(", "))),
        CredentialsError::NoSuchProfile { known, .. } => message(
            "aws.no-profile",
            CONFIGURATION,
            format!("Set profile or AWS_PROFILE to an existing profile, or create one with aws configure sso. Existing profiles: {}.", profile_list(known)),
        ),
        CredentialsError::Config { .. } => message("aws.config", CONFIGURATION, "Correct the file; no restart is needed.".to_owned()),
        CredentialsError::Expired { profile, .. } => refused("aws.expired", renew_hint(profile.as_deref())),
        CredentialsError::SsoSession { profile, source, .. } => Message::new(
            "aws.sso-session",
            NOT_AUTHORIZED,
            format!("the SSO session{} has expired or does not exist", of_profile(profile.as_deref())),
        )
        .detail(sentence(&in_words(source)))
        .hint(format!("Run: aws sso login{} (no restart is needed)", profile_option(profile.as_deref()))),
        CredentialsError::AssumeRole { role, caller, .. } => refused("aws.assume-role", assume_role_hint(role.as_deref(), caller.as_deref())),
        CredentialsError::Rejected { profile, code, message, clock } => {
            rejected(profile.as_deref(), *clock).detail(format!("{code}: {}", sentence(message)))
        }
        CredentialsError::Process { .. } => {
            refused("aws.credential-process", "Run the credential_process command of the profile by hand to see why it fails.".to_owned())
        }
        CredentialsError::Timeout { .. } => {
            refused("aws.credentials-timeout", SLOW_CREDENTIALS.to_owned())
        }
        CredentialsError::Malformed(malformed) => message("aws.malformed", CONFIGURATION, malformed_hint(malformed)),
        CredentialsError::Clock { .. } => refused("aws.clock", format!("{SET_CLOCK} No new login is needed.")),
        CredentialsError::Era(_) => refused("aws.clock", SET_CLOCK.to_owned()),
        CredentialsError::Answer { .. } => message("aws.answer", CANNOT_CONNECT, BAD_ANSWER.to_owned()),
        CredentialsError::Internal(stopped) => internal(stopped, error.to_string()),
        CredentialsError::CaBundle { .. } => message(
            "aws.ca-bundle",
            CONFIGURATION,
            "Set AWS_CA_BUNDLE (or ca_bundle of the profile) to a readable PEM file with CA certificates, or unset it.".to_owned(),
        ),
        CredentialsError::Other { profile, source } => message(
            "aws.credentials",
            match is_about_the_network(source.as_ref()) {
                true => CANNOT_CONNECT,
                false => NOT_AUTHORIZED,
            },
            format!("To test the credentials, run: aws sts get-caller-identity{}", profile_option(profile.as_deref())),
        )
        .detail(sentence(&in_words(source))),
    }
}

/// Returns the remedy for a value with an invalid character.
fn malformed_hint(malformed: &MalformedValue) -> String {
    let restart = match malformed.source_of.as_str() {
        "the environment" => "Correct the value and restart pgiam.",
        _ => "Correct the value; no restart is needed.",
    };
    match malformed.fault.contains("line break") {
        true => format!("{restart} Possible cause: a file with Windows line endings (CRLF)."),
        false => restart.to_owned(),
    }
}

/// Reports a bug in this program or in one of its libraries.
pub(super) fn internal(_stopped: &TaskStopped, message: String) -> Message {
    Message::new(crate::base::crash::ID, INTERNAL, message).hint(
        "Report this bug with the log line that has the same identifier. pgiam tries again after a pause.",
    )
}

/// Reports an AWS call that timed out. `throttled` is the identifier to use for throttling.
pub(super) fn call_timeout(timeout: &CallTimeout, throttled: &'static str) -> Message {
    let message = timeout.to_string();
    match timeout.kind {
        CallTimeoutKind::Credentials => {
            Message::new("aws.credentials-timeout", NOT_AUTHORIZED, message).hint(SLOW_CREDENTIALS)
        }
        CallTimeoutKind::Throttled => Message::new(throttled, THROTTLED, message)
            .hint("Try again in a few seconds. The limit applies to all programs in the account and region together."),
        CallTimeoutKind::Silent => Message::new("aws.no-answer", CANNOT_CONNECT, message).hint(
            "Possible causes: a firewall, VPN or VPC endpoint that drops packets; a slow service. Behind a proxy, set HTTPS_PROXY.",
        ),
    }
}

/// Returns the requirements for assuming a role.
fn assume_role_hint(role: Option<&str>, caller: Option<&str>) -> String {
    let role = role.unwrap_or("the role");
    // IAM Identity Center assigns its roles itself.
    if !role.starts_with("arn:") && role.contains(" in account ") {
        return format!(
            "Check sso_role_name and sso_account_id of the profile. Your user must be assigned to {role} in IAM Identity Center."
        );
    }
    let caller = caller.unwrap_or("your identity");
    format!(
        "Add {caller} as a principal to the trust policy of {role}, and allow {caller} to call sts:AssumeRole on {role}."
    )
}

/// Reports that AWS rejects credentials as expired.
pub(super) fn expired(profile: Option<&str>) -> Message {
    Message::new(
        "aws.expired",
        NOT_AUTHORIZED,
        format!("the AWS credentials{} have expired", of_profile(profile)),
    )
    .hint(renew_hint(profile))
}

/// Reports that AWS rejects signatures made with these keys.
pub(super) fn rejected(profile: Option<&str>, clock: Option<ClockOffset>) -> Message {
    match clock.filter(|clock| clock.is_wrong()) {
        Some(clock) => Message::new(
            "aws.clock",
            NOT_AUTHORIZED,
            format!("AWS rejected the signature: this machine's clock is {clock}"),
        )
        .hint(SET_CLOCK),
        None => Message::new(
            "aws.rejected",
            NOT_AUTHORIZED,
            format!("AWS rejected the credentials{}", of_profile(profile)),
        )
        .hint(check_keys_hint(profile)),
    }
}

/// Returns the remedy for missing credentials. Files are reloaded for every attempt; the
/// environment of a running program does not change.
fn missing_credentials_hint(profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!(
            "Run: aws sso login --profile {profile} (for access keys: aws configure --profile {profile}). No restart is needed."
        ),
        None => "Run: aws configure sso (then set profile to the name of the new profile; for access keys: aws configure). No restart is needed. Or start pgiam with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.".to_owned(),
    }
}

fn profile_list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        const MOST: usize = 20;
        let shown = names.iter().take(MOST).map(|name| {
            let end = name.floor_char_boundary(64);
            format!(
                "{}{}",
                &name[..end],
                if end < name.len() { "…" } else { "" }
            )
        });
        let more = names.len().saturating_sub(MOST);
        let more = (more > 0).then(|| format!("and {more} more"));
        shown.chain(more).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn token(error: &TokenError) -> Message {
    match error {
        TokenError::Credentials(error) => credentials(error),
        TokenError::BadRequest { .. } => {
            Message::new("token.request", CONFIGURATION, error.to_string())
                .hint("Correct host and region of the target.")
        }
        TokenError::Signing(_) | TokenError::Internal(_) => {
            Message::new("token.internal", INTERNAL, error.to_string())
                .detail(sentence(&chain(error)))
                .hint("Report this bug with the detail.")
        }
    }
}
