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
use aws_types::sdk_config::SharedHttpClient;

use super::error::is_about_the_network;
use super::files::TokenFile;
use super::profile::{Plan, Process, Role};
use super::valid::{self, Malformed};
use super::{AwsOptions, CredentialsError, process, source};

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
pub(super) struct Ways<'a> {
    pub(super) options: &'a AwsOptions,
    pub(super) plan: &'a Plan,
    /// Client for services on this machine only.
    pub(super) local_http: SharedHttpClient,
    /// Configuration for STS calls, when pgiam itself assumes the roles.
    pub(super) sts: Option<SdkConfig>,
}

/// Builds the providers for [`places`]. They read the AWS files on first use and cache them: a
/// changed file needs a new chain.
pub(super) fn build(conf: &ProviderConfig, ways: Ways<'_>) -> CredentialsProviderChain {
    let Ways {
        options,
        plan,
        local_http,
        sts,
    } = ways;
    let known = |place, inner: Provider| Known {
        place,
        source: source::words(place, plan),
        malformed: malformed(place, plan),
        token_file: token_file(place, plan),
        asked: Asked::by(plan),
        incomplete: (place == Place::Profile)
            .then(|| CredentialsError::incomplete(plan))
            .flatten(),
        inner,
    };
    let from_profile = known(Place::Profile, of_profile(options, conf, plan, sts));
    let chain = if options.profile.is_some() {
        CredentialsProviderChain::first_try("Profile", from_profile)
    } else {
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(conf);
        let web_identity = known(Place::WebIdentity, Box::new(web_identity.build()));
        let environment = Box::new(EnvironmentVariableCredentialsProvider::new());
        let environment = known(Place::Environment, environment);
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
        .or_else("EcsContainer", known(Place::Container, Box::new(container)))
        .or_else(
            "Ec2InstanceMetadata",
            known(Place::Instance, Box::new(instance.build())),
        )
}

type Provider = Box<dyn ProvideCredentials>;

/// Returns a known problem of the credentials at a place, before they are used.
fn malformed(place: Place, plan: &Plan) -> Option<Malformed> {
    match place {
        Place::Environment => valid::environment().err(),
        Place::Profile => plan.malformed.clone(),
        Place::WebIdentity | Place::Container | Place::Instance => None,
    }
}

/// Returns the token file that the SDK reads for the credentials at a place.
fn token_file(place: Place, plan: &Plan) -> Result<Option<TokenFile>, Malformed> {
    match place {
        Place::Profile => Ok(plan.token_file.clone()),
        Place::WebIdentity => TokenFile::of_environment("AWS_WEB_IDENTITY_TOKEN_FILE"),
        Place::Container => TokenFile::of_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        Place::Environment | Place::Instance => Ok(None),
    }
}

fn of_profile(
    options: &AwsOptions,
    conf: &ProviderConfig,
    plan: &Plan,
    sts: Option<SdkConfig>,
) -> Provider {
    if let Some(process) = &plan.process {
        return Box::new(OfProcess {
            process: process.clone(),
            profile: plan.profile.clone(),
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
struct OfProcess {
    process: Process,
    profile: Option<String>,
    sts: Option<SdkConfig>,
}

impl OfProcess {
    async fn load(&self) -> provider::Result {
        let Process {
            command,
            account,
            roles,
        } = &self.process;
        let printed = process::credentials(command, account.as_deref()).await;
        let mut credentials = printed.map_err(|reason| {
            SdkError::provider_error(CredentialsError::of_process(self.profile.clone(), &reason))
        })?;
        for Role {
            arn,
            session_name,
            external_id,
        } in roles
        {
            valid::credentials(&credentials, "the credential_process")
                .map_err(Malformed::of_provider)?;
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

impl ProvideCredentials for OfProcess {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

/// Place where credentials were found. Credentials carry it as a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Environment,
    Profile,
    WebIdentity,
    Container,
    Instance,
}

impl Place {
    /// Adds the name of the queried service to an error where the SDK omits it.
    fn explained(self, error: SdkError, asked: Asked) -> SdkError {
        let is_answered = !is_about_the_network(&error);
        let asked = match (self, &error) {
            (_, SdkError::CredentialsNotLoaded(_)) => return error,
            (Self::Container, _) => {
                "the container's credentials endpoint (AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI)"
            }
            _ if is_answered => return error,
            (Self::WebIdentity, _) => "STS (sts:AssumeRoleWithWebIdentity)",
            (Self::Profile, _) => match asked {
                Asked::Sso => "IAM Identity Center (sso:GetRoleCredentials)",
                Asked::Role => "STS (sts:AssumeRole)",
                Asked::SsoAndRole => "IAM Identity Center or STS",
                Asked::Nothing => return error,
            },
            (Self::Environment | Self::Instance, _) => return error,
        };
        SdkError::provider_error(OfAsked {
            asked,
            source: Arc::new(error),
        })
    }
}

/// Services that the SDK queries for a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Sso,
    Role,
    SsoAndRole,
}

impl Asked {
    fn by(plan: &Plan) -> Self {
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
struct OfAsked {
    asked: &'static str,
    #[source]
    source: Arc<SdkError>,
}

/// Provider that records the place of its credentials and checks that they can be used for signing.
#[derive(Debug)]
struct Known {
    place: Place,
    /// Description of the place.
    source: String,
    malformed: Option<Malformed>,
    token_file: Result<Option<TokenFile>, Malformed>,
    asked: Asked,
    /// Reason why the place cannot provide the configured credentials.
    incomplete: Option<CredentialsError>,
    inner: Provider,
}

impl ProvideCredentials for Known {
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
            if let Some(file) = self.token_file.clone().map_err(Malformed::of_provider)? {
                file.probe().await.map_err(Malformed::of_provider)?;
            }
            let loaded = self.inner.provide_credentials().await;
            let mut credentials =
                loaded.map_err(|error| self.place.explained(error, self.asked))?;
            valid::credentials(&credentials, &self.source).map_err(Malformed::of_provider)?;
            credentials.set_property(self.place);
            Ok(credentials)
        })
    }
}
