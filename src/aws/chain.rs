//! The order in which credentials are looked for.
//!
//! The SDK's own chain differs from the AWS CLI in ways that hurt here, so the same providers are
//! put together anew: it takes `AWS_ACCESS_KEY_ID` from the environment even when a profile was named
//! explicitly, so that a forgotten variable decides who logs in to the database; it asks the instance
//! metadata service four times, so that a laptop without credentials waits for seconds, and asks it
//! again for the region, which the host name of the database tells anyway; and it does so through
//! `HTTP_PROXY`, whose refusal then looks like broken credentials.

use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::{self, credentials::ImdsCredentialsProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::{ProvideCredentials, future};

use super::trust::Trust;
use super::{AwsOptions, profile};

/// The metadata service of an EC2 instance is one hop away and answers in milliseconds; elsewhere
/// the address leads nowhere. The AWS CLI also waits one second, once.
const IMDS_TIMEOUT: Duration = Duration::from_secs(1);
const IMDS_ATTEMPTS: u32 = 1;

const ENVIRONMENT: &str = "the environment (AWS_ACCESS_KEY_ID)";
const PROFILE: &str = "the profile in ~/.aws/config and ~/.aws/credentials";
const WEB_IDENTITY: &str = "a web identity token (AWS_WEB_IDENTITY_TOKEN_FILE)";
const CONTAINER: &str = "the container (AWS_CONTAINER_CREDENTIALS_*)";
const INSTANCE: &str = "the EC2 instance metadata";

/// The places [`build`] asks, in order. Like the AWS CLI: a profile named explicitly comes before
/// anything in the environment.
pub(super) fn places(profile_named: bool) -> Vec<&'static str> {
    if profile_named {
        vec![PROFILE, CONTAINER, INSTANCE]
    } else {
        vec![ENVIRONMENT, PROFILE, WEB_IDENTITY, CONTAINER, INSTANCE]
    }
}

/// The providers of [`places`]. They read the AWS files when first asked, and remember them: a new
/// chain is needed to see a changed file.
pub(super) fn build(
    options: &AwsOptions,
    conf: &ProviderConfig,
    trust: &Trust,
) -> CredentialsProviderChain {
    let mut from_profile = ProfileFileCredentialsProvider::builder()
        .configure(conf)
        .profile_files(profile::files(options));
    if let Some(name) = &options.profile {
        from_profile = from_profile.profile_name(name);
    }
    let from_profile = from_profile.build();
    let chain = if options.profile.is_some() {
        CredentialsProviderChain::first_try("Profile", Known(Place::Profile, from_profile))
    } else {
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(conf);
        let environment = EnvironmentVariableCredentialsProvider::new();
        let web_identity = Known(Place::WebIdentity, web_identity.build());
        CredentialsProviderChain::first_try("Environment", Known(Place::Environment, environment))
            .or_else("Profile", Known(Place::Profile, from_profile))
            .or_else("WebIdentityToken", web_identity)
    };
    let local = conf.clone().with_http_client(trust.local_http.clone());
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
        .or_else("EcsContainer", Known(Place::Container, container))
        .or_else(
            "Ec2InstanceMetadata",
            Known(Place::Instance, instance.build()),
        )
}

/// Where credentials were found. They carry it as a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Environment,
    Profile,
    WebIdentity,
    Container,
    Instance,
}

/// A provider whose credentials say where they are from.
#[derive(Debug)]
struct Known<P>(Place, P);

impl<P: ProvideCredentials> ProvideCredentials for Known<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let mut credentials = self.1.provide_credentials().await?;
            credentials.set_property(self.0);
            Ok(credentials)
        })
    }
}
