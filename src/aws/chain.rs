//! Credential chain: the order in which credentials are looked up.
//!
//! The SDK's own chain differs from the AWS CLI in ways that cause problems here, so the same
//! providers are combined differently. The SDK's chain takes `AWS_ACCESS_KEY_ID` from the
//! environment even when a profile is named explicitly, so a forgotten variable selects the
//! identity for the database login. It asks the instance metadata service four times, so a laptop
//! without credentials waits for seconds, and once more for the region, which the host name of the
//! database contains anyway. And it does so through `HTTP_PROXY`, where a refusal looks like
//! invalid credentials.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::{self, credentials::ImdsCredentialsProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_profile::{Origin, Process, Setting, split_posix, split_windows};
use aws_types::sdk_config::SharedHttpClient;

use super::error::is_about_the_network;
use super::files::TokenFile;
use super::process::ProcessCaller;
use super::profile::{AssumedRole, CredentialProcess, ProfileSettings};
use super::{AwsOptions, CredentialsError};
use crate::aws::credential_source;
use crate::aws::validation;
use crate::aws::validation::MalformedValue;

/// Timeout and attempts for the metadata service. On an EC2 instance it is one hop away and answers
/// in milliseconds; elsewhere its address does not respond. The AWS CLI also waits one second,
/// once.
const IMDS_TIMEOUT: Duration = Duration::from_secs(1);
const IMDS_ATTEMPTS: u32 = 1;

const ENVIRONMENT: &str = "the environment (AWS_ACCESS_KEY_ID)";
const PROFILE: &str = "the profile in ~/.aws/config and ~/.aws/credentials";
const WEB_IDENTITY: &str = "a web identity token (AWS_WEB_IDENTITY_TOKEN_FILE)";
const CONTAINER: &str = "the container (AWS_CONTAINER_CREDENTIALS_*)";
const INSTANCE: &str = "the EC2 instance metadata";

/// Returns the places that [`build`] looks in, in order. As in the AWS CLI, a profile named
/// explicitly takes precedence over the environment.
pub(super) fn places(profile_named: bool) -> Vec<&'static str> {
    if profile_named {
        vec![PROFILE, CONTAINER, INSTANCE]
    } else {
        vec![ENVIRONMENT, PROFILE, WEB_IDENTITY, CONTAINER, INSTANCE]
    }
}

/// Inputs of the providers besides the SDK's own configuration.
pub(super) struct ProviderInputs<'a> {
    pub(super) options: &'a AwsOptions,
    pub(super) plan: &'a ProfileSettings,
    /// Caller of the profile's program.
    pub(super) caller: Arc<ProcessCaller>,
    /// Client for services on this machine only.
    pub(super) local_http: SharedHttpClient,
    /// Configuration for STS calls, when pgiam itself assumes the roles.
    pub(super) sts: Option<SdkConfig>,
}

/// Builds the providers for [`places`]. They read the AWS files on first use and cache them: a
/// changed file needs a new chain.
pub(super) fn build(conf: &ProviderConfig, ways: ProviderInputs<'_>) -> CredentialsProviderChain {
    let ProviderInputs {
        options,
        plan,
        caller,
        local_http,
        sts,
    } = ways;
    let known = |place, inner: Provider| CheckedProvider {
        place,
        source: credential_source::words(place, plan),
        malformed: malformed(place, plan),
        token_file: token_file(place, plan),
        asked: QueriedService::by(plan),
        incomplete: (place == CredentialPlace::Profile)
            .then(|| CredentialsError::incomplete(plan))
            .flatten(),
        inner,
    };
    let from_profile = known(
        CredentialPlace::Profile,
        of_profile(options, conf, plan, (caller, sts)),
    );
    let chain = if options.profile.is_some() {
        CredentialsProviderChain::first_try("Profile", from_profile)
    } else {
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(conf);
        let web_identity = known(CredentialPlace::WebIdentity, Box::new(web_identity.build()));
        let environment = Box::new(EnvironmentVariableCredentialsProvider::new());
        let environment = known(CredentialPlace::Environment, environment);
        CredentialsProviderChain::first_try("Environment", environment)
            .or_else("Profile", from_profile)
            .or_else("WebIdentityToken", web_identity)
    };
    let local = conf.clone().with_http_client(local_http);
    let metadata = imds::Client::builder()
        .configure(&local)
        .connect_timeout(IMDS_TIMEOUT)
        .read_timeout(IMDS_TIMEOUT)
        .max_attempts(IMDS_ATTEMPTS)
        .build();
    let instance = ImdsCredentialsProvider::builder()
        .configure(&local)
        .imds_client(metadata);
    let container = EcsCredentialsProvider::builder().configure(&local).build();
    chain
        .or_else(
            "EcsContainer",
            known(CredentialPlace::Container, Box::new(container)),
        )
        .or_else(
            "Ec2InstanceMetadata",
            known(CredentialPlace::Instance, Box::new(instance.build())),
        )
}

type Provider = Box<dyn ProvideCredentials>;

/// Returns a known problem of the credentials at a place, before they are used.
fn malformed(place: CredentialPlace, plan: &ProfileSettings) -> Option<MalformedValue> {
    match place {
        CredentialPlace::Environment => validation::environment().err(),
        CredentialPlace::Profile => plan.malformed.clone(),
        CredentialPlace::WebIdentity | CredentialPlace::Container | CredentialPlace::Instance => {
            None
        }
    }
}

/// Returns the token file that the SDK reads for the credentials at a place.
fn token_file(
    place: CredentialPlace,
    plan: &ProfileSettings,
) -> Result<Option<TokenFile>, MalformedValue> {
    match place {
        CredentialPlace::Profile => Ok(plan.token_file.clone()),
        CredentialPlace::WebIdentity => TokenFile::of_environment("AWS_WEB_IDENTITY_TOKEN_FILE"),
        CredentialPlace::Container => {
            TokenFile::of_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        }
        CredentialPlace::Environment | CredentialPlace::Instance => Ok(None),
    }
}

fn of_profile(
    options: &AwsOptions,
    conf: &ProviderConfig,
    plan: &ProfileSettings,
    (caller, sts): (Arc<ProcessCaller>, Option<SdkConfig>),
) -> Provider {
    if let Some(process) = &plan.process {
        return Box::new(ProcessProvider {
            process: process.clone(),
            profile: plan.profile.clone(),
            caller,
            sts,
        });
    }
    let mut provider = ProfileFileCredentialsProvider::builder()
        .configure(conf)
        .profile_files(plan.files.for_sdk());
    if let Some(name) = &options.profile {
        provider = provider.profile_name(name);
    }
    Box::new(provider.build())
}

/// Profile with a `credential_process`, and the roles assumed with its credentials.
#[derive(Debug)]
struct ProcessProvider {
    process: CredentialProcess,
    profile: Option<String>,
    caller: Arc<ProcessCaller>,
    sts: Option<SdkConfig>,
}

impl ProcessProvider {
    /// Splits the command as the AWS CLI does.
    fn program(&self) -> Result<Process, CredentialsError> {
        let CredentialProcess {
            command, account, ..
        } = &self.process;
        let words = match cfg!(windows) {
            true => split_windows(command),
            false => split_posix(command),
        };
        let profile = self.profile.as_deref().unwrap_or("default");
        let setting = |value: &str| Setting {
            value: value.into(),
            origin: Origin::Request,
        };
        Ok(Process {
            profile: profile.into(),
            command: setting(command).into(),
            words: words.map_err(|error| CredentialsError::Config {
                profile: self.profile.clone(),
                reason: format!("credential_process: {error}").into(),
            })?,
            account_id: account.as_deref().map(setting),
        })
    }

    async fn load(&self) -> provider::Result {
        let program = self.program().map_err(SdkError::provider_error)?;
        let printed = self.caller.credentials(&program).await;
        let mut credentials = printed.map_err(|reason| {
            SdkError::provider_error(CredentialsError::of_process(self.profile.clone(), &reason))
        })?;
        for AssumedRole {
            arn,
            session_name,
            external_id,
        } in &self.process.roles
        {
            validation::credentials(&credentials, "the credential_process")
                .map_err(MalformedValue::of_provider)?;
            let mut role = AssumeRoleProvider::builder(arn);
            if let Some(config) = &self.sts {
                role = role.configure(config);
            }
            if let Some(name) = session_name {
                role = role.session_name(name);
            }
            if let Some(id) = external_id {
                role = role.external_id(id);
            }
            let role = role.build_from_provider(credentials).await;
            credentials = role.provide_credentials().await?;
        }
        Ok(credentials)
    }
}

impl ProvideCredentials for ProcessProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

/// Place where credentials were found. Credentials carry it as a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialPlace {
    Environment,
    Profile,
    WebIdentity,
    Container,
    Instance,
}

impl CredentialPlace {
    /// Adds the name of the queried service to an error where the SDK omits it.
    fn explained(self, error: SdkError, asked: QueriedService) -> SdkError {
        let is_answered = !is_about_the_network(&error);
        let asked = match (self, &error) {
            (_, SdkError::CredentialsNotLoaded(_)) => return error,
            (Self::Container, _) => {
                "the container's credentials endpoint (AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI)"
            }
            _ if is_answered => return error,
            (Self::WebIdentity, _) => "STS (sts:AssumeRoleWithWebIdentity)",
            (Self::Profile, _) => match asked {
                QueriedService::Sso => "IAM Identity Center (sso:GetRoleCredentials)",
                QueriedService::Role => "STS (sts:AssumeRole)",
                QueriedService::SsoAndRole => "IAM Identity Center or STS",
                QueriedService::Nothing => return error,
            },
            (Self::Environment | Self::Instance, _) => return error,
        };
        SdkError::provider_error(QueriedServiceError {
            asked,
            source: Arc::new(error),
        })
    }
}

/// Services that the SDK queries for a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueriedService {
    Nothing,
    Sso,
    Role,
    SsoAndRole,
}

impl QueriedService {
    fn by(plan: &ProfileSettings) -> Self {
        match (plan.is_sso, plan.assumes) {
            (true, true) => Self::SsoAndRole,
            (true, false) => Self::Sso,
            (false, true) => Self::Role,
            (false, false) => Self::Nothing,
        }
    }
}

/// A failure with the name of the queried service.
#[derive(Debug, thiserror::Error)]
#[error("{asked}")]
struct QueriedServiceError {
    asked: &'static str,
    #[source]
    source: Arc<SdkError>,
}

/// Provider that records the place of its credentials and checks that they can be used for signing.
#[derive(Debug)]
struct CheckedProvider {
    place: CredentialPlace,
    /// Description of the place.
    source: String,
    malformed: Option<MalformedValue>,
    token_file: Result<Option<TokenFile>, MalformedValue>,
    asked: QueriedService,
    /// Reason why the place cannot provide the configured credentials.
    incomplete: Option<CredentialsError>,
    inner: Provider,
}

impl ProvideCredentials for CheckedProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            if let Some(malformed) = self.malformed.clone() {
                return Err(malformed.of_provider());
            }
            if let Some(incomplete) = self.incomplete.clone() {
                return Err(SdkError::provider_error(incomplete));
            }
            if let Some(file) = self
                .token_file
                .clone()
                .map_err(MalformedValue::of_provider)?
            {
                file.probe().await.map_err(MalformedValue::of_provider)?;
            }
            let loaded = self.inner.provide_credentials().await;
            let mut credentials =
                loaded.map_err(|error| self.place.explained(error, self.asked))?;
            validation::credentials(&credentials, &self.source)
                .map_err(MalformedValue::of_provider)?;
            credentials.set_property(self.place);
            Ok(credentials)
        })
    }
}
