//! Reports about AWS in general: credentials, tokens, partitions.

use super::hint::Hint;
use super::message::{CANNOT_CONNECT, CONFIGURATION, INTERNAL, Message, NOT_AUTHORIZED, THROTTLED};
use super::phrases::{
    BAD_ANSWER, SET_CLOCK, SLOW_CREDENTIALS, caller_identity, check_keys_hint, login_command,
    of_profile, renew_hint, sentence,
};

use aws_profile::{InvalidExpiration, ResolveError, SourceFault};

use crate::aws::is_about_the_network;
use crate::aws::token::TokenError;
use crate::aws::{
    CallTimeout, CallTimeoutKind, ClockOffset, CredentialsError, MalformedValue, in_words,
};
use crate::base::background::TaskStopped;
use crate::base::error_text::chain;
use crate::base::quote;

pub(super) fn credentials(error: &CredentialsError) -> Message {
    let message = |id, state, hint: Hint| Message::new(id, state, error.to_string()).hint(hint);
    let refused = |id, hint: Hint| message(id, NOT_AUTHORIZED, hint);
    match error {
        CredentialsError::NotFound { profile, looked, .. } => refused("aws.no-credentials", missing_credentials_hint(profile.as_deref()))
            .detail(format!("Looked at: {}.", looked.join(", "))),
        CredentialsError::NoSuchProfile { known, variable, fault, .. } => {
            no_such_profile(error.to_string(), *variable, fault.as_deref(), known)
        }
        CredentialsError::Config { .. } => message("aws.config", CONFIGURATION, CORRECT_FILE.into()),
        CredentialsError::CacheFile(_) => message(
            "aws.cache-file",
            CONFIGURATION,
            "Correct the permissions of the file and its directory, or free space on the disk; no restart is needed.".into(),
        ),
        CredentialsError::Unresolved(fault) => unresolved(fault),
        CredentialsError::Expired { profile, .. } => refused("aws.expired", renew_hint(profile.as_deref())),
        CredentialsError::SsoSession { profile, source, .. } => Message::new(
            "aws.sso-session",
            NOT_AUTHORIZED,
            format!("the SSO session{} has expired or does not exist", of_profile(profile.as_deref())),
        )
        .detail(sentence(&in_words(source)))
        .hint(Hint::from("Run:").run(login_command(profile.as_deref())).and("No restart is needed.")),
        CredentialsError::MfaRequired { profile, .. } => refused(
            "aws.mfa",
            Hint::from("Run:")
                .run(login_command(Some(profile)))
                .and("It asks for the code. No restart is needed."),
        ),
        CredentialsError::LoginSession { profile, reason } => Message::new(
            "aws.login-session",
            NOT_AUTHORIZED,
            format!("the login (aws login) of profile {profile} has expired or does not exist"),
        )
        .detail(sentence(reason))
        .hint(
            Hint::from("With the AWS CLI 2.32 or later, run:")
                .run(format!("aws login --profile {}", quote::shell(profile)))
                .and("No restart is needed."),
        ),
        CredentialsError::AssumeRole { role, caller, .. } => refused("aws.assume-role", assume_role_hint(role.as_deref(), caller.as_deref())),
        CredentialsError::Rejected { profile, code, message, clock } => {
            rejected(profile.as_deref(), *clock).detail(format!("{code}: {}", sentence(message)))
        }
        CredentialsError::Process { .. } => {
            refused("aws.credential-process", "Run the credential_process command of the profile by hand to see why it fails.".into())
        }
        CredentialsError::Timeout { process: Some(_), .. } => refused(
            "aws.credentials-timeout",
            "Finish the login that the program waits for (a browser window, a second factor), then connect again: the next connection uses its answer.".into(),
        ),
        CredentialsError::Timeout { process: None, .. } => {
            refused("aws.credentials-timeout", SLOW_CREDENTIALS.into())
        }
        CredentialsError::Malformed(malformed) => message("aws.malformed", CONFIGURATION, malformed_hint(malformed)),
        CredentialsError::Clock { .. } => refused("aws.clock", Hint::from(SET_CLOCK).and("No new login is needed.")),
        CredentialsError::Era(_) => refused("aws.clock", SET_CLOCK.into()),
        CredentialsError::Answer { .. } => message("aws.answer", CANNOT_CONNECT, BAD_ANSWER.into()),
        CredentialsError::Internal(stopped) => internal(stopped, error.to_string()),
        CredentialsError::CaBundle { .. } => message(
            "aws.ca-bundle",
            CONFIGURATION,
            "Set AWS_CA_BUNDLE (or ca_bundle of the profile) to a readable PEM file with CA certificates, or unset it.".into(),
        ),
        CredentialsError::Other { profile, source } => message(
            "aws.credentials",
            match is_about_the_network(source.as_ref()) {
                true => CANNOT_CONNECT,
                false => NOT_AUTHORIZED,
            },
            Hint::from("To test the credentials, run:").run(caller_identity(profile.as_deref())),
        )
        .detail(sentence(&in_words(source))),
    }
}

const CORRECT_FILE: &str = "Correct the file; no restart is needed.";

fn no_such_profile(
    message: String,
    variable: Option<&str>,
    fault: Option<&str>,
    known: &[String],
) -> Message {
    let message = Message::new("aws.no-profile", CONFIGURATION, message);
    let known = profile_list(known);
    let existing = format!("Existing profiles: {known}.");
    let (detail, hint) = match (fault, variable) {
        (Some(fault), _) => (
            Some(format!(
                "It may be in a faulty part of the file. {}",
                sentence(fault)
            )),
            Hint::from(format!("{CORRECT_FILE} {existing}")),
        ),
        (None, Some(variable)) => (
            Some(format!("{variable} names it.")),
            Hint::from(format!(
                "Set {variable} to an existing profile or unset it, and restart pgiam. {existing} Or create the profile:"
            ))
            .run("aws configure sso"),
        ),
        (None, None) => (
            None,
            Hint::from(format!(
                "Set profile or AWS_PROFILE to an existing profile. {existing} Or create one:"
            ))
            .run("aws configure sso"),
        ),
    };
    match detail {
        Some(detail) => message.detail(detail).hint(hint),
        None => message.hint(hint),
    }
}

/// Reports settings that lead to no identity.
fn unresolved(error: &ResolveError) -> Message {
    const CORRECT_PROFILE: &str = "Correct the profile; no restart is needed.";
    let text = error.to_string();
    let config = |hint: Hint| Message::new("aws.config", CONFIGURATION, text.clone()).hint(hint);
    match error {
        ResolveError::EnvironmentExpiration(InvalidExpiration::Past) => Message::new(
            "aws.expired",
            NOT_AUTHORIZED,
            text,
        )
        .hint(
            "Restart pgiam with new keys in its environment, or without AWS_CREDENTIAL_EXPIRATION.",
        ),
        ResolveError::EnvironmentExpiration(InvalidExpiration::NotADate) => config("Set AWS_CREDENTIAL_EXPIRATION to a time such as 2030-01-31T12:00:00Z or unset it, and restart pgiam.".into()),
        ResolveError::PartialEnvironment { missing } => config(Hint::from(format!(
            "Set {missing} or unset AWS_ACCESS_KEY_ID, and restart pgiam."
        ))),
        ResolveError::WebIdentityWithoutRole { .. } => {
            config("Set role_arn in the profile, or restart pgiam with AWS_ROLE_ARN.".into())
        }
        ResolveError::CredentialFileVariable => config("Write its keys to ~/.aws/credentials, unset AWS_CREDENTIAL_FILE and restart pgiam.".into()),
        ResolveError::Role {
            fault: SourceFault::EmptyCredentialSource("Environment"),
            ..
        } => config("Restart pgiam with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or correct the profile.".into()),
        ResolveError::FaultyProfile { .. }
        | ResolveError::FaultyFile(_)
        | ResolveError::NestedValue { .. } => config(CORRECT_FILE.into()),
        ResolveError::PartialKeys { missing, .. } => config(Hint::from(format!(
            "Add {missing} to the same file; no restart is needed."
        ))),
        ResolveError::Incomplete { .. } => config("Complete the settings of the profile, or remove them to use the credentials of the container or the instance; no restart is needed.".into()),
        ResolveError::ProfileNotFound { .. }
        | ResolveError::NoCredentials { .. }
        | ResolveError::Role { .. }
        | ResolveError::Sso { .. }
        | ResolveError::Process { .. } => config(CORRECT_PROFILE.into()),
    }
}

/// Returns the remedy for a value with an invalid character.
fn malformed_hint(malformed: &MalformedValue) -> Hint {
    let restart = match malformed.source_of.as_str() {
        "the environment" => "Correct the value and restart pgiam.",
        _ => "Correct the value; no restart is needed.",
    };
    match malformed.fault.contains("line break") {
        true => Hint::from(restart).and("Possible cause: a file with Windows line endings (CRLF)."),
        false => restart.into(),
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
fn assume_role_hint(role: Option<&str>, caller: Option<&str>) -> Hint {
    let role = role.unwrap_or("the role");
    // IAM Identity Center assigns its roles itself.
    if !role.starts_with("arn:") && role.contains(" in account ") {
        return format!(
            "Check sso_role_name and sso_account_id of the profile. Your user must be assigned to {role} in IAM Identity Center."
        )
        .into();
    }
    let caller = caller.unwrap_or("your identity");
    format!(
        "Add {caller} as a principal to the trust policy of {role}, and allow {caller} to call sts:AssumeRole on {role}."
    )
    .into()
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
fn missing_credentials_hint(profile: Option<&str>) -> Hint {
    let Some(name) = profile.map(quote::shell) else {
        return "For IAM Identity Center, run: `aws configure sso` Then set profile to the name of the new profile. For access keys, run: `aws configure` No restart is needed. Or start pgiam with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.".into();
    };
    Hint::from("For IAM Identity Center, run:")
        .run(format!("aws configure sso --profile {name}"))
        .run(format!("pgiam login {name}"))
        .and("For access keys, run:")
        .run(format!("aws configure --profile {name}"))
        .and("No restart is needed.")
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
