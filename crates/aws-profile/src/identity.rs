//! The result: the selected profile and the source of its credentials.

use std::fmt;
use std::sync::Arc;

use crate::problem::Problem;
use crate::setting::{Location, Secret, Setting};

/// The identity that the AWS CLI v2 would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The profile and the region.
    pub selection: Selection,
    /// Source of the credentials.
    pub source: Source,
}

/// The profile and the region that the AWS CLI v2 would take, whatever the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Profile in effect, which also has the settings that do not concern credentials.
    pub profile: SelectedProfile,
    /// Region for services and for STS. The AWS CLI takes it from the request, `AWS_REGION`,
    /// `AWS_DEFAULT_REGION` or the selected profile, never from a source profile.
    pub region: Option<Setting>,
    /// Fault of the default profile, if nothing named it. Its settings are not used, and
    /// [`resolve`](crate::resolve) fails if it needs them.
    pub unused_profile_problem: Option<Problem>,
}

/// The profile in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedProfile {
    /// Name.
    pub name: Arc<str>,
    /// Reason for the choice.
    pub chosen_by: ChosenBy,
    /// Lines of its headers, the one of the config file first. Empty if no file has the default
    /// profile.
    pub locations: Vec<Location>,
}

/// Reason why a profile is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// The request names it (`--profile`). Credentials in the environment do not count then.
    Request,
    /// A variable names it: `AWS_PROFILE`, or else `AWS_DEFAULT_PROFILE`.
    Variable(&'static str),
    /// Nothing names a profile, and `default` applies if it exists.
    Default,
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("the request"),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Source of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Keys in environment variables.
    Environment(Keys),
    /// Keys in one of the files.
    StaticKeys(ProfileKeys),
    /// Roles that are assumed with the credentials of another source.
    AssumeRole(RoleChain),
    /// A role that is assumed with a token from a file (`AssumeRoleWithWebIdentity`).
    WebIdentity(WebIdentity),
    /// A role of IAM Identity Center.
    Sso(Sso),
    /// A login of `aws login`.
    LoginSession(LoginSession),
    /// A program that prints credentials.
    Process(Process),
    /// The endpoint of a container.
    Container(Container),
    /// The metadata service of an EC2 instance.
    Instance,
}

/// An access key with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Access key ID.
    pub access_key_id: Setting,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// Session token. An empty one is sent.
    pub session_token: Option<Secret>,
    /// Account of the key, if set.
    pub account_id: Option<Setting>,
    /// End of the keys in seconds since 1970 (`AWS_CREDENTIAL_EXPIRATION`), if set.
    pub expires_at: Option<i64>,
}

/// Keys of a profile, all from one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileKeys {
    /// Profile that has them.
    pub profile: Arc<str>,
    /// The keys.
    pub keys: Keys,
}

/// A chain of roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleChain {
    /// First credentials.
    pub base: Box<Source>,
    /// The roles, in the order in which they are assumed; at least one.
    pub roles: Vec<Role>,
}

/// A role of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Profile that names the role.
    pub profile: Arc<str>,
    /// `role_arn`, which may be empty.
    pub role_arn: Setting,
    /// `external_id`.
    pub external_id: Option<Setting>,
    /// `role_session_name`. Without it the caller invents one.
    pub session_name: Option<Setting>,
    /// `duration_seconds`. The AWS CLI ignores a value that is no integer.
    pub duration_seconds: Option<i64>,
    /// `mfa_serial`: AssumeRole needs a code of this device.
    pub mfa_serial: Option<Setting>,
}

/// A role for a web identity. Each setting is from a variable, else from the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebIdentity {
    /// Path of the file with the token. `~` is not expanded.
    pub token_file: Setting,
    /// Role.
    pub role_arn: Setting,
    /// Name of the role session.
    pub session_name: Option<Setting>,
}

/// A role of IAM Identity Center.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sso {
    /// Profile that names account and role.
    pub profile: Arc<str>,
    /// `sso_session`. Without it, the token cache goes by the start URL.
    pub session: Option<Setting>,
    /// `sso_start_url`.
    pub start_url: Setting,
    /// `sso_region`.
    pub region: Setting,
    /// `sso_account_id`.
    pub account_id: Setting,
    /// `sso_role_name`.
    pub role_name: Setting,
    /// `sso_registration_scopes`, a list with commas.
    pub registration_scopes: Option<Setting>,
}

/// A login of `aws login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSession {
    /// Profile that names it.
    pub profile: Arc<str>,
    /// `login_session`: ARN of the console identity, which names the cache file.
    pub session: Setting,
}

/// A `credential_process`. `Debug` shows the program without its arguments, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Process {
    /// Profile that names it.
    pub profile: Arc<str>,
    /// Value of the key.
    pub command: Secret,
    /// Program and arguments; at least one word. There is no shell.
    pub words: Vec<String>,
    /// `aws_account_id` of the profile, for an output without `AccountId`.
    pub account_id: Option<Setting>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("profile", &self.profile)
            .field("command", &self.command)
            .field("program", &self.words.first())
            .field("account_id", &self.account_id)
            .finish_non_exhaustive()
    }
}

/// The endpoint of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Address.
    pub uri: ContainerUri,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`: its contents are the `Authorization` header.
    pub token_file: Option<Setting>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`, used without a token file.
    pub token: Option<Secret>,
}

/// Address of a container's credentials. An empty one counts as set, and fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerUri {
    /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, below `http://169.254.170.2`.
    Relative(String),
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`. With `http` the AWS CLI accepts only loopback,
    /// 169.254.170.2, 169.254.170.23 and fd00:ec2::23.
    Full(String),
}
