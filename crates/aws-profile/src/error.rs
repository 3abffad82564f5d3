//! Reasons why a request has no identity.

use thiserror::Error;

use crate::identity::ChosenBy;
use crate::problem::Problem;
use crate::quote::Quoted;
use crate::setting::{Location, Origin};
use crate::words::UnbalancedQuote;

/// A refusal. The search never continues with another identity after one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// No file defines the profile that was asked for.
    #[error("profile {} does not exist (named by {chosen_by})", Quoted(profile))]
    ProfileNotFound {
        /// Name.
        profile: String,
        /// The place that names it.
        chosen_by: ChosenBy,
        /// A fault of a whole file, or of a line that hides the name of a section: the profile may
        /// be there.
        problem: Option<Problem>,
    },
    /// A section of the profile has a fault, or a whole file that may define it.
    #[error("profile {} is unusable: {problem}", Quoted(profile))]
    FaultyProfile {
        /// Name.
        profile: String,
        /// The fault.
        problem: Problem,
    },
    /// Faulty lines outside of all sections may hold credentials.
    #[error("{0}")]
    FaultyFile(Problem),
    /// The key is followed by a nested block instead of a text.
    #[error(
        "{key} of profile {} has its value on another line ({location})",
        Quoted(profile)
    )]
    NestedValue {
        /// Profile, or SSO session.
        profile: String,
        /// Key.
        key: String,
        /// Line of the key.
        location: Location,
    },
    /// `AWS_ACCESS_KEY_ID` is set without its secret.
    #[error("AWS_ACCESS_KEY_ID is set, but {missing} is not")]
    PartialEnvironment {
        /// Variable that is not set.
        missing: &'static str,
    },
    /// `AWS_CREDENTIAL_EXPIRATION` is in the past or not a date.
    #[error("AWS_CREDENTIAL_EXPIRATION {0}")]
    EnvironmentExpiration(InvalidExpiration),
    /// The file has an access key without its secret. The pair must be in one file.
    #[error(
        "profile {} has aws_access_key_id, but no {missing} in the same file ({location})",
        Quoted(profile)
    )]
    PartialKeys {
        /// Profile.
        profile: String,
        /// Key that is missing.
        missing: &'static str,
        /// Line of the access key.
        location: Location,
    },
    /// The role of a profile cannot be assumed.
    #[error("the role of profile {} ({location}): {fault}", Quoted(profile))]
    Role {
        /// Profile with the role.
        profile: String,
        /// Line of `role_arn`, or of the setting that is wrong.
        location: Location,
        /// The fault.
        fault: SourceFault,
    },
    /// A web identity token is configured without a role.
    #[error(
        "a web identity token file is set ({token_file}) without a role; set role_arn or AWS_ROLE_ARN"
    )]
    WebIdentityWithoutRole {
        /// The place that names the token file.
        token_file: Origin,
    },
    /// The settings for IAM Identity Center are incomplete or contradict each other.
    #[error(
        "profile {} uses IAM Identity Center ({location}), but {fault}",
        Quoted(profile)
    )]
    Sso {
        /// Profile.
        profile: String,
        /// Line of the account or role, or of the setting that is wrong.
        location: Location,
        /// The fault.
        fault: SsoFault,
    },
    /// The command of `credential_process` cannot be split.
    #[error(
        "credential_process of profile {} ({location}): {fault}",
        Quoted(profile)
    )]
    Process {
        /// Profile.
        profile: String,
        /// Line of the command.
        location: Location,
        /// The fault.
        fault: ProcessFault,
    },
    /// The profile has a setting for credentials, but no source. The AWS CLI would continue with
    /// the container or the instance, another identity than that of the profile.
    #[error(
        "profile {} has {key} ({location}), but no complete source of credentials",
        Quoted(profile)
    )]
    Incomplete {
        /// Profile.
        profile: String,
        /// Setting that shows the intention.
        key: &'static str,
        /// Its line.
        location: Location,
    },
    /// `AWS_CREDENTIAL_FILE` names a file in a format that is not supported.
    #[error("AWS_CREDENTIAL_FILE is not supported; put its keys in the AWS credentials file")]
    CredentialFileVariable,
    /// No source is configured, and the metadata service is disabled.
    #[error(
        "profile {} has no credentials, and AWS_EC2_METADATA_DISABLED is true",
        Quoted(profile)
    )]
    NoCredentials {
        /// Profile in effect.
        profile: String,
    },
}

/// Fault of an expiration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidExpiration {
    /// It is in the past.
    #[error("is in the past")]
    Past,
    /// It is no date with an offset.
    #[error("is not a date with a time zone")]
    NotADate,
}

/// Fault of the source that a role is assumed from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceFault {
    /// Neither `source_profile` nor `credential_source` is set.
    #[error("source_profile or credential_source is missing")]
    Missing,
    /// Both are set.
    #[error("source_profile and credential_source cannot be used together")]
    Both,
    /// `source_profile` names a profile that does not exist.
    #[error("source_profile {} does not exist", Quoted(.0))]
    NotFound(String),
    /// The profile is already in the chain.
    #[error("source_profile {} leads back to itself", Quoted(.0))]
    Loop(String),
    /// The profile is its own source without keys.
    #[error("the profile is its own source_profile and has no keys")]
    OwnSourceWithoutKeys,
    /// `source_profile` names a profile without credentials.
    #[error("source_profile {} has no credentials", Quoted(.0))]
    WithoutCredentials(String),
    /// `credential_source` has an unknown value. Upper and lower case differ.
    #[error(
        "credential_source {} is not Environment, EcsContainer or Ec2InstanceMetadata",
        Quoted(.0)
    )]
    UnknownCredentialSource(String),
    /// The source that `credential_source` names has no credentials.
    #[error("credential_source {0} has no credentials")]
    EmptyCredentialSource(&'static str),
}

/// Fault of a profile for IAM Identity Center.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SsoFault {
    /// Required keys are missing from the profile and its session.
    #[error("it has no {}", .0.join(" and no "))]
    Missing(Vec<&'static str>),
    /// The config file does not define the session.
    #[error("the sso-session {} does not exist", Quoted(.0))]
    SessionNotFound(String),
    /// The section of the session has a fault.
    #[error("its sso-session is unusable: {0}")]
    FaultySession(Problem),
    /// Profile and session have different values.
    #[error("its {key} differs from that of its sso-session ({session})")]
    Conflict {
        /// Key.
        key: String,
        /// Line in the session.
        session: Location,
    },
}

/// Fault of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProcessFault {
    /// A quote is open.
    #[error(transparent)]
    Quote(#[from] UnbalancedQuote),
    /// There is no program.
    #[error("the command is empty")]
    Empty,
}
