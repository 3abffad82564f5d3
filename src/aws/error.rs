//! Credential errors, classified far enough to suggest a remedy.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::error::ErrorMetadata;

use aws_profile::{ChosenBy, Files, ResolveError};

use super::{ClockOffset, KeyState, MalformedValue, RunningProcess, WrongEra};
use crate::aws::assume_role::AssumeRoleError;
use crate::aws::call_error::CallError;
use crate::aws::response_limit::TooLong;
use crate::aws::sso::SsoError;
use crate::base::background::TaskStopped;
use crate::base::foreign_text::ForeignText;

/// A cause that several waiting connections can share.
pub type SharedCause = Arc<dyn Error + Send + Sync>;

/// Reason why there are no AWS credentials, or why AWS cannot be called at all. The cause is always
/// on the user's side: the configuration, an expired session, a refusal. Contains no secrets.
///
/// `profile` is the profile set by the user, or the one in effect if it is not `default`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialsError {
    /// No source on this machine provides credentials.
    #[error("no AWS credentials for {}", profile_phrase(.profile))]
    NotFound {
        /// See the type.
        profile: Option<String>,
        /// Descriptions of the places that were tried, in order.
        looked: Vec<&'static str>,
        /// Errors of the places.
        #[source]
        source: SharedCause,
    },
    /// The named profile is not defined in any AWS file.
    #[error("AWS profile {} does not exist", shown(.profile))]
    NoSuchProfile {
        /// Profile name, from the configuration or a variable.
        profile: String,
        /// Variable that sets the name; `None` for the configuration.
        variable: Option<&'static str>,
        /// Fault of a file, because of which the profile may not have been found.
        fault: Option<String>,
        /// Existing profiles, sorted.
        known: Vec<String>,
    },
    /// The settings of the identity are incomplete, contradictory or in a faulty file.
    #[error("{0}")]
    Unresolved(Arc<ResolveError>),
    /// A file of the AWS configuration cannot be used.
    #[error("invalid AWS configuration of {}: {reason}", profile_phrase(.profile))]
    Config {
        /// See the type.
        profile: Option<String>,
        /// Description of the problem.
        reason: ForeignText,
    },
    /// A file of the caches below `~/.aws` cannot be used.
    #[error("{0}")]
    CacheFile(ForeignText),
    /// The credentials have expired.
    #[error("the AWS credentials of {} have expired{}", profile_phrase(.profile), since(.at))]
    Expired {
        /// Time of expiry; `None` if AWS reports the expiry without a time.
        at: Option<SystemTime>,
        /// See the type.
        profile: Option<String>,
    },
    /// The IAM Identity Center (SSO) session has expired, or there is none on this machine.
    #[error("the SSO session of {} has expired or does not exist", profile_phrase(.profile))]
    SsoSession {
        /// See the type.
        profile: Option<String>,
        /// Name of the `[sso-session …]` section.
        session: Option<String>,
        /// End of the session, if there was one.
        ended_at: Option<SystemTime>,
        /// The reason.
        #[source]
        source: SharedCause,
    },
    /// A role needs a code of an MFA device.
    #[error("profile {profile} needs a code of the MFA device {serial} for role {role}")]
    MfaRequired {
        /// Profile that names the device.
        profile: String,
        /// Serial number or ARN of the device.
        serial: String,
        /// ARN of the role.
        role: String,
    },
    /// The login of `aws login` has ended, or there is none on this machine.
    #[error("the login (aws login) of profile {profile} has expired or does not exist: {reason}")]
    LoginSession {
        /// Profile with the `login_session`.
        profile: String,
        /// Error of the SDK.
        reason: ForeignText,
    },
    /// AWS refused the credentials of a role.
    #[error("AWS denied {} access to role {}: {code}: {message}", profile_phrase(.profile), .role.as_deref().unwrap_or("(unnamed)"))]
    AssumeRole {
        /// See the type.
        profile: Option<String>,
        /// ARN of the role, or "NAME in account ID" for IAM Identity Center.
        role: Option<String>,
        /// The identity that requested the role, in the same form, if AWS or the profiles give it.
        caller: Option<String>,
        /// AWS error code, such as `AccessDenied`.
        code: ForeignText,
        /// AWS error message. For `AccessDenied` it names both the caller and the role.
        message: ForeignText,
    },
    /// AWS does not accept the keys used to request the credentials of a role.
    #[error("AWS rejected the credentials of {}: {code}: {message}", profile_phrase(.profile))]
    Rejected {
        /// See the type.
        profile: Option<String>,
        /// AWS error code, such as `InvalidClientTokenId`.
        code: ForeignText,
        /// AWS error message.
        message: ForeignText,
        /// Offset of the local clock from AWS's, according to the answer.
        clock: Option<ClockOffset>,
    },
    /// The `credential_process` of the profile failed.
    #[error("the credential_process of {} failed: {reason}", profile_phrase(.profile))]
    Process {
        /// See the type.
        profile: Option<String>,
        /// Its exit status and standard error, or the problem with its output; shortened, and
        /// without values labelled as secrets.
        reason: ForeignText,
    },
    /// Loading the credentials timed out.
    #[error("loading the AWS credentials of {} timed out after {} s{}", profile_phrase(.profile), .after.as_secs(), waiting(.process))]
    Timeout {
        /// The deadline.
        after: Duration,
        /// See the type.
        profile: Option<String>,
        /// The `credential_process` that is still running. Its answer serves the next call.
        process: Option<RunningProcess>,
    },
    /// The file of `AWS_CA_BUNDLE` (or of `ca_bundle` in the profile) cannot be used.
    #[error("cannot use the CA bundle {}: {reason}", .path.display())]
    CaBundle {
        /// Path of the file.
        path: PathBuf,
        /// Problem with the file.
        reason: ForeignText,
    },
    /// A key, a session token or a region contains invalid characters. See [`MalformedValue`].
    #[error(transparent)]
    Malformed(Arc<MalformedValue>),
    /// The credentials, or the SSO session, have expired by the local clock only, and that clock is
    /// wrong.
    #[error("this machine's clock is {clock}, so the credentials of {} appear to be expired", profile_phrase(.profile))]
    Clock {
        /// See the type.
        profile: Option<String>,
        /// Offset of the local clock.
        clock: ClockOffset,
    },
    /// The local clock is set to a time for which nothing can be signed.
    #[error("{0}, so pgiam cannot sign AWS requests")]
    Era(#[from] WrongEra),
    /// A credential source returned an unexpected or too long answer.
    #[error("invalid answer to the request for the credentials of {}: {reason}", profile_phrase(.profile))]
    Answer {
        /// See the type.
        profile: Option<String>,
        /// Problem with the answer.
        reason: ForeignText,
    },
    /// The task that loads credentials ended without a result. A bug in pgiam.
    #[error("cannot load the AWS credentials: {0}")]
    Internal(TaskStopped),
    /// Any other error: AWS cannot be reached, returned an unknown error, …
    #[error("cannot load the AWS credentials of {}", profile_phrase(.profile))]
    Other {
        /// See the type.
        profile: Option<String>,
        /// Error of the SDK.
        #[source]
        source: SharedCause,
    },
}

fn profile_phrase(profile: &Option<String>) -> String {
    match profile {
        Some(profile) => format!("profile {profile}"),
        None => "the default profile".to_owned(),
    }
}

fn waiting(process: &Option<RunningProcess>) -> String {
    match process {
        Some(running) => format!(" while waiting for {running}"),
        None => String::new(),
    }
}

fn since(at: &Option<SystemTime>) -> String {
    let Some(at) = at else { return String::new() };
    match DateTime::from(*at).fmt(Format::DateTime) {
        Ok(text) => format!(" (at {text})"),
        Err(_) => String::new(),
    }
}

impl CredentialsError {
    /// Returns the error for settings that lead to no identity.
    pub(super) fn unresolved(error: &ResolveError, files: &Files) -> Self {
        match error {
            ResolveError::ProfileNotFound {
                profile,
                chosen_by,
                problem,
            } => Self::NoSuchProfile {
                profile: profile.clone(),
                variable: match chosen_by {
                    ChosenBy::Variable(name) => Some(name),
                    ChosenBy::Request | ChosenBy::Default => None,
                },
                fault: problem.as_ref().map(ToString::to_string),
                known: files
                    .profile_names()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            },
            error => Self::Unresolved(Arc::new(error.clone())),
        }
    }

    /// Creates the error for a failed `credential_process`.
    pub(super) fn of_process(profile: Option<String>, reason: &str) -> Self {
        Self::Process {
            profile,
            reason: ForeignText::folded(reason),
        }
    }

    /// Finds the credentials error behind the error of an SDK call that could not be signed.
    pub(crate) fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| (**error).source())
            .find_map(|error| error.downcast_ref())
    }
}

/// Quotes a name that is not recognisable as one.
fn shown(name: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    match name.is_empty() || !name.chars().all(is_plain) {
        true => format!("{name:?}"),
        false => name.to_owned(),
    }
}

impl From<TaskStopped> for CredentialsError {
    fn from(stopped: TaskStopped) -> Self {
        Self::Internal(stopped)
    }
}

/// Circumstances of an error.
#[derive(Debug, Clone, Default)]
pub(super) struct LoadContext {
    /// Profile name for messages.
    pub(super) profile: Option<String>,
    /// Places without credentials, see [`CredentialsError::NotFound`].
    pub(super) looked: Vec<&'static str>,
    /// The requested role.
    pub(super) role: Option<String>,
    /// The role that requests it.
    pub(super) caller: Option<String>,
    /// The service that is called, if the SDK omits it.
    pub(super) service: Option<&'static str>,
}

/// An error with the name of the service.
#[derive(Debug, thiserror::Error)]
#[error("{service}")]
struct ServiceError {
    service: &'static str,
    #[source]
    source: Arc<SdkError>,
}

/// Classifies an error of the SDK's providers. `clock` is the offset of AWS's clock.
pub(super) fn classify(
    error: SdkError,
    context: &LoadContext,
    clock: Option<ClockOffset>,
) -> CredentialsError {
    let profile = context.profile.clone();
    match error {
        SdkError::CredentialsNotLoaded(_) => CredentialsError::NotFound {
            profile,
            looked: context.looked.clone(),
            source: Arc::new(error),
        },
        SdkError::ProviderTimedOut(details) => CredentialsError::Timeout {
            after: details.timeout_duration(),
            profile,
            process: None,
        },
        SdkError::InvalidConfiguration(_) => CredentialsError::Config {
            profile,
            reason: super::in_words(&error),
        },
        error => classify_failure(explained(error, context), context, clock),
    }
}

/// Adds the name of the called service to an error without an answer of a service.
fn explained(error: SdkError, context: &LoadContext) -> SdkError {
    match context.service {
        Some(service) if !chain(&error).any(|cause| service_answer(cause).is_some()) => {
            SdkError::provider_error(ServiceError {
                service,
                source: Arc::new(error),
            })
        }
        _ => error,
    }
}

fn classify_failure(
    error: SdkError,
    context: &LoadContext,
    clock: Option<ClockOffset>,
) -> CredentialsError {
    let profile = context.profile.clone();
    if let Some(known) = CredentialsError::behind(&error) {
        return known.clone();
    }
    if let Some(too_long) = chain(&error).find_map(|cause| cause.downcast_ref::<TooLong>()) {
        let reason = too_long.to_string().into();
        return CredentialsError::Answer { profile, reason };
    }
    // The metadata service is the last place. Where there is none, something else may answer at its
    // address: a company's web filter, or the host of a container.
    if chain(&error).any(|cause| cause.is::<ImdsError>()) {
        return CredentialsError::NotFound {
            profile,
            looked: context.looked.clone(),
            source: Arc::new(error),
        };
    }
    let answer = chain(&error).find_map(service_answer);
    let refused = answer.and_then(|(code, message)| refusal(&code, &message, context, clock));
    if let Some(refused) = refused {
        return refused;
    }
    if !chain(&error).any(|cause| service_answer(cause).is_some()) && is_nonsense(&error) {
        let reason = "unexpected body".into();
        return CredentialsError::Answer { profile, reason };
    }
    // Throttled, a service fault, a disabled region: not about the role.
    CredentialsError::Other {
        profile,
        source: Arc::new(error),
    }
}

/// Classifies the error that a service returned; `None` if it is neither about the keys nor about
/// the role.
fn refusal(
    code: &str,
    message: &str,
    context: &LoadContext,
    clock: Option<ClockOffset>,
) -> Option<CredentialsError> {
    let profile = context.profile.clone();
    match refused_keys(code) {
        Some(KeyState::Expired) => Some(CredentialsError::Expired { at: None, profile }),
        Some(KeyState::Rejected { .. }) => Some(CredentialsError::Rejected {
            profile,
            code: code.into(),
            message: message.into(),
            clock,
        }),
        Some(KeyState::Accepted) | None => {
            refuses_role(code).then(|| CredentialsError::AssumeRole {
                profile,
                role: after(message, "on resource: ").or_else(|| context.role.clone()),
                caller: after(message, "User: ").or_else(|| context.caller.clone()),
                code: code.into(),
                message: message.into(),
            })
        }
    }
}

/// Classifies an error of a call to STS or IAM Identity Center.
pub(super) fn of_call(
    error: &CallError,
    context: &LoadContext,
    clock: Option<ClockOffset>,
) -> CredentialsError {
    let profile = context.profile.clone();
    let refused = match error {
        CallError::Refused { code, message, .. } => refusal(code, message, context, clock),
        CallError::Answer { .. } => Some(CredentialsError::Answer {
            profile: profile.clone(),
            reason: error.to_string().into(),
        }),
        CallError::Late(_) | CallError::Unreachable { .. } => None,
    };
    refused.unwrap_or_else(|| CredentialsError::Other {
        profile,
        source: Arc::new(error.clone()),
    })
}

/// Classifies an error of IAM Identity Center.
pub(super) fn of_sso(
    error: SsoError,
    context: &LoadContext,
    clock: Option<ClockOffset>,
) -> CredentialsError {
    let profile = context.profile.clone();
    match error {
        SsoError::NotLoggedIn { ref login }
        | SsoError::Expired { ref login, .. }
        | SsoError::Rejected { ref login, .. } => CredentialsError::SsoSession {
            profile,
            session: login.session.clone(),
            ended_at: error.expires_at(),
            source: Arc::new(error),
        },
        SsoError::NotAssigned { source, .. } => {
            let (code, message) = match source {
                CallError::Refused { code, message, .. } => (code, message),
                other => ("ForbiddenException".into(), other.to_string().into()),
            };
            CredentialsError::AssumeRole {
                profile,
                role: context.role.clone(),
                caller: None,
                code,
                message,
            }
        }
        SsoError::Cache(error) => CredentialsError::CacheFile(error.to_string().into()),
        SsoError::Malformed(malformed) => CredentialsError::Malformed(malformed),
        SsoError::Call(error) => of_call(&error, context, clock),
        SsoError::Internal(stopped) => CredentialsError::Internal(stopped),
    }
}

/// Classifies an error of a chain of roles. The role in `context` is that of the chain.
pub(super) fn of_role(
    error: AssumeRoleError,
    context: &LoadContext,
    clock: Option<ClockOffset>,
) -> CredentialsError {
    match error {
        AssumeRoleError::MfaRequired {
            profile,
            serial,
            role_arn,
        } => CredentialsError::MfaRequired {
            profile,
            serial,
            role: role_arn,
        },
        AssumeRoleError::Role {
            role_arn, source, ..
        } => {
            let role = Some(role_arn);
            let context = LoadContext {
                role,
                ..context.clone()
            };
            of_call(&source, &context, clock)
        }
        AssumeRoleError::SessionToken { source, .. } => of_call(&source, context, clock),
        AssumeRoleError::Cache(error) => CredentialsError::CacheFile(error.to_string().into()),
        AssumeRoleError::Malformed(malformed) => CredentialsError::Malformed(malformed),
    }
}

/// Returns `true` if a service was not reached or did not answer. The SDK's types for that are
/// private.
pub(crate) fn is_about_the_network(error: &(dyn Error + 'static)) -> bool {
    const WORDS: [&str; 4] = [
        "timeout occurred after",
        "dispatch failure",
        "error trying to connect",
        "dns error",
    ];
    let is_call = |cause: &(dyn Error + 'static)| {
        let call = cause.downcast_ref::<CallError>();
        matches!(
            call,
            Some(CallError::Late(_) | CallError::Unreachable { .. })
        )
    };
    chain(error).any(|cause| {
        let text = cause.to_string();
        is_call(cause) || WORDS.iter().any(|words| text.contains(words))
    })
}

/// Returns `true` if a response body is not a valid document of the service. The parsers' types are
/// private.
fn is_nonsense(error: &SdkError) -> bool {
    const WORDS: [&str; 5] = [
        "Error at offset ",
        "Error parsing XML",
        "Smithy does not support",
        "expected literal",
        "expected (",
    ];
    chain(error).any(|cause| {
        let text = cause.to_string();
        WORDS.iter().any(|words| text.starts_with(words))
    })
}

/// Returns the state of the signing keys according to an AWS error code; `None` if the code is not
/// about keys. `AuthFailure` is EC2's code for several cases that other services distinguish.
pub(crate) fn refused_keys(code: &str) -> Option<KeyState> {
    match code {
        "ExpiredToken" | "ExpiredTokenException" => Some(KeyState::Expired),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "AuthFailure"
        | "SignatureDoesNotMatch"
        | "RequestExpired"
        | "IncompleteSignature" => Some(KeyState::Rejected {
            code: code.to_owned(),
        }),
        _ => None,
    }
}

/// Returns `true` if STS (`AccessDenied`) or IAM Identity Center (`ForbiddenException`) refuses the
/// role to this identity.
fn refuses_role(code: &str) -> bool {
    code.starts_with("AccessDenied") || code == "ForbiddenException"
}

/// Returns the ARN that follows `words`.
fn after(message: &str, words: &str) -> Option<String> {
    let (_, rest) = message.split_once(words)?;
    let arn = rest.split_whitespace().next()?;
    arn.starts_with("arn:").then(|| arn.to_owned())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// Returns code and message if this error of the chain is the answer of an AWS service.
///
/// Errors modelled by the service have types of crates that pgiam does not depend on; they print as
/// `NameException: message`. All others carry [`ErrorMetadata`].
fn service_answer(cause: &(dyn Error + 'static)) -> Option<(String, String)> {
    if let Some(meta) = cause.downcast_ref::<ErrorMetadata>() {
        let message = meta.message().unwrap_or_default();
        return Some((meta.code()?.to_owned(), message.to_owned()));
    }
    let text = cause.to_string();
    let (code, message) = text.split_once(": ").unwrap_or((&text, ""));
    let is_code = code.ends_with("Exception") && code.chars().all(|c| c.is_ascii_alphanumeric());
    is_code.then(|| (code.to_owned(), message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> LoadContext {
        LoadContext {
            profile: Some("dev".to_owned()),
            ..LoadContext::default()
        }
    }

    #[test]
    fn messages_name_the_profile() {
        let expired = CredentialsError::Expired {
            at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            profile: Some("dev".to_owned()),
        };
        assert_eq!(
            expired.to_string(),
            "the AWS credentials of profile dev have expired (at 2023-11-14T22:13:20Z)"
        );
        let timeout = CredentialsError::Timeout {
            after: Duration::from_secs(20),
            profile: None,
            process: None,
        };
        assert_eq!(
            timeout.to_string(),
            "loading the AWS credentials of the default profile timed out after 20 s"
        );
    }

    #[test]
    fn expired_source_credentials_are_told_from_a_refusal() {
        for (code, expired) in [("ExpiredToken", true), ("AccessDenied", false)] {
            let meta = ErrorMetadata::builder().code(code).message("why").build();
            let error = classify(
                SdkError::provider_error(SdkError::provider_error(meta)),
                &context(),
                None,
            );
            assert_eq!(
                matches!(error, CredentialsError::Expired { .. }),
                expired,
                "{error:?}"
            );
            assert_eq!(
                matches!(error, CredentialsError::AssumeRole { .. }),
                !expired,
                "{error:?}"
            );
        }
    }

    #[test]
    fn modelled_exceptions_are_known_by_their_name() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Says(&'static str);
        let says = |text| SdkError::provider_error(Says(text));
        let error = classify(says("ExpiredTokenException: x"), &context(), None);
        assert!(
            matches!(error, CredentialsError::Expired { at: None, .. }),
            "{error:?}"
        );
        let error = classify(says("no exception: here"), &context(), None);
        assert!(matches!(error, CredentialsError::Other { .. }), "{error:?}");
    }

    #[test]
    fn only_a_refusal_of_the_role_is_one() {
        let of = |code: &str, message: &str| {
            let meta = ErrorMetadata::builder().code(code).message(message).build();
            let context = LoadContext {
                role: Some("arn:aws:iam::1:role/app".to_owned()),
                caller: Some("arn:aws:iam::1:role/hop".to_owned()),
                ..context()
            };
            let clock = Some(ClockOffset { seconds: 420 });
            classify(SdkError::provider_error(meta), &context, clock)
        };
        for code in [
            "AccessDenied",
            "AccessDeniedException",
            "ForbiddenException",
        ] {
            let CredentialsError::AssumeRole { role, caller, .. } = of(code, "No access") else {
                panic!("{code}");
            };
            assert_eq!(role.as_deref(), Some("arn:aws:iam::1:role/app"), "{code}");
            assert_eq!(caller.as_deref(), Some("arn:aws:iam::1:role/hop"), "{code}");
        }
        // The answer of AWS takes precedence over the profiles, which may contain a chain of
        // several roles.
        let words = "User: arn:aws:iam::2:user/me is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:role/hop";
        let CredentialsError::AssumeRole { role, caller, .. } = of("AccessDenied", words) else {
            panic!();
        };
        assert_eq!(role.as_deref(), Some("arn:aws:iam::2:role/hop"));
        assert_eq!(caller.as_deref(), Some("arn:aws:iam::2:user/me"));
        for code in ["InvalidClientTokenId", "SignatureDoesNotMatch"] {
            let error = of(code, "");
            assert!(
                matches!(&error, CredentialsError::Rejected { clock: Some(clock), .. } if clock.is_wrong()),
                "{error:?}"
            );
        }
        for code in [
            "Throttling",
            "ServiceUnavailable",
            "RegionDisabledException",
        ] {
            let error = of(code, "");
            assert!(matches!(error, CredentialsError::Other { .. }), "{error:?}");
        }
    }
}
