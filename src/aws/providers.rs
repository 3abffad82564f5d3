//! Loads the credentials of a source.
//!
//! `aws-profile` decides for one source, as the AWS CLI does. The SDK's own chain is not used: it
//! reads the files by other rules, continues with the identity of a container or an instance when a
//! profile cannot be used, asks the metadata service four times, and does so through `HTTP_PROXY`,
//! where a refusal looks like invalid credentials.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::{self, credentials::ImdsCredentialsProvider};
use aws_config::login::LoginCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use aws_credential_types::provider::{self, ProvideCredentials};
use aws_profile::{
    CacheDir, Keys, LoginSession, Process, ProfileKeys, RoleChain, Source, Sso, WebIdentity,
};
use aws_types::sdk_config::SharedHttpClient;

use super::assume_role::{ChainStart, RoleAssumer};
use super::cache_files::CacheFiles;
use super::error::{LoadContext, classify, of_role, of_sso};
use super::files::TokenFile;
use super::process::ProcessCaller;
use super::profile::MetadataSettings;
use super::sso::{CacheUse, SsoPortal};
use super::{ClockOffset, CredentialsError, files};
use crate::aws::credential_source;
use crate::aws::validation::{self, MalformedValue};
use crate::base::redacted::Redacted;

/// Timeout and attempts for the metadata service. On an EC2 instance it is one hop away and answers
/// in milliseconds; elsewhere its address does not respond. The AWS CLI also waits one second,
/// once.
const IMDS_TIMEOUT: Duration = Duration::from_secs(1);
const IMDS_ATTEMPTS: u32 = 1;
/// Endpoints of the metadata service ("Access instance metadata", EC2 User Guide).
const IMDS_IPV4: &str = "http://169.254.169.254";
const IMDS_IPV6: &str = "http://[fd00:ec2::254]";

const ENVIRONMENT: &str = "the environment (AWS_ACCESS_KEY_ID)";
const WEB_IDENTITY: &str = "a web identity token (AWS_WEB_IDENTITY_TOKEN_FILE)";
const PROFILE: &str = "the profile in ~/.aws/config and ~/.aws/credentials";
const CONTAINER: &str = "the container (AWS_CONTAINER_CREDENTIALS_*)";
const INSTANCE: &str = "the EC2 instance metadata";

/// Returns the places that have no credentials, in the order in which they were examined. As in the
/// AWS CLI, a profile set in the options takes precedence over the environment.
pub(super) fn places(profile_named: bool) -> Vec<&'static str> {
    if profile_named {
        vec![PROFILE, CONTAINER, INSTANCE]
    } else {
        vec![ENVIRONMENT, PROFILE, WEB_IDENTITY, CONTAINER, INSTANCE]
    }
}

/// Means to load credentials.
pub(super) struct CredentialsLoader<'a> {
    /// Configuration of the SDK's providers.
    pub(super) providers: ProviderConfig,
    /// Client for services on this machine only.
    pub(super) local_http: SharedHttpClient,
    /// Configuration without credentials, for STS.
    pub(super) services: SdkConfig,
    /// IAM Identity Center.
    pub(super) portal: SsoPortal,
    /// The caches of the AWS CLI.
    pub(super) cache_files: CacheFiles,
    /// STS with the cache of roles.
    pub(super) assumer: RoleAssumer,
    /// Use of the keys of IAM Identity Center in the cache.
    pub(super) caches: CacheUse,
    /// `mfa_serial` of the profile in effect.
    pub(super) mfa_serial: Option<&'a str>,
    /// Caller of the profile's program.
    pub(super) process: &'a ProcessCaller,
    /// Settings about the metadata service.
    pub(super) metadata: &'a MetadataSettings,
    /// Profile name for messages.
    pub(super) profile: Option<String>,
    /// Places without credentials, see [`places`].
    pub(super) looked: Vec<&'static str>,
    /// Clock offset, once an answer of AWS is known.
    pub(super) clock: &'a (dyn Fn() -> Option<ClockOffset> + Send + Sync),
}

impl CredentialsLoader<'_> {
    /// Loads credentials and checks that requests can be signed with them.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub(super) async fn load(&self, source: &Source) -> Result<Credentials, CredentialsError> {
        let credentials = match source {
            Source::AssumeRole(chain) => self.assume(chain).await,
            other => self.first(other).await,
        }?;
        validation::credentials(&credentials, &credential_source::description(source))?;
        Ok(credentials)
    }

    /// Loads the credentials of a source that needs no others.
    async fn first(&self, source: &Source) -> Result<Credentials, CredentialsError> {
        match source {
            Source::Environment(keys) => static_keys(keys, "environment"),
            Source::StaticKeys(keys) => self.profile_keys(keys).await,
            Source::WebIdentity(web) => self.web_identity(web).await,
            Source::Sso(sso) => self.sso(sso).await,
            Source::LoginSession(login) => self.login(login).await,
            Source::Process(process) => self.process(process).await,
            Source::Container(_) => self.container().await,
            Source::Instance => self.instance().await,
            // The crate puts no chain below another one.
            Source::AssumeRole(_) => {
                Err(self.error(SdkError::not_loaded("a role"), &self.context()))
            }
        }
    }

    /// Assumes the roles of a chain. Keys that took a code of an MFA device are in a cache, and need
    /// no base. They are used even if AWS or a database rejected them: a permission may be missing,
    /// and new ones take a person.
    async fn assume(&self, chain: &RoleChain) -> Result<Credentials, CredentialsError> {
        let start = match self.assumer.cached(chain).await {
            Some(start) => start,
            None => {
                let base = self.first(&chain.base).await?;
                validation::credentials(&base, &credential_source::description(&chain.base))?;
                ChainStart::of_base(base, chain)
            }
        };
        let context = LoadContext {
            caller: credential_source::caller(chain),
            ..self.context()
        };
        let assumed = self.assumer.assume(start, None).await;
        assumed.map_err(|error| of_role(error, &context, (self.clock)()))
    }

    /// Returns the keys of a profile, or the temporary ones that took a code of its MFA device.
    async fn profile_keys(&self, keys: &ProfileKeys) -> Result<Credentials, CredentialsError> {
        let credentials = static_keys(&keys.keys, "profile")?;
        if let Some(serial) = self.mfa_serial
            && let Some(cached) = self
                .assumer
                .cached_session(credentials.access_key_id(), serial)
                .await
        {
            return Ok(cached);
        }
        Ok(credentials)
    }

    async fn web_identity(&self, web: &WebIdentity) -> Result<Credentials, CredentialsError> {
        let unusable = |reason: String| CredentialsError::Config {
            profile: self.profile.clone(),
            reason: format!(
                "cannot read the web identity token {}: {reason}",
                web.token_file
            )
            .into(),
        };
        let token = files::read(Path::new(web.token_file.as_str())).await;
        let token = Redacted::new(token.map_err(unusable)?);
        let token = std::str::from_utf8(token.expose());
        let token = token.map_err(|_| unusable("it is not UTF-8 text".to_owned()))?;
        let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0, |now| now.as_secs());
        let session = match &web.session_name {
            Some(name) => name.as_str().to_owned(),
            None => format!("pgiam-{seconds}"),
        };
        let config = aws_sdk_sts::config::Builder::from(&self.services)
            .allow_no_auth()
            .build();
        let call = aws_sdk_sts::Client::from_conf(config)
            .assume_role_with_web_identity()
            .role_arn(web.role_arn.as_str())
            .role_session_name(session)
            .web_identity_token(token)
            .send();
        let context = LoadContext {
            role: Some(web.role_arn.as_str().to_owned()),
            service: Some("STS (sts:AssumeRoleWithWebIdentity)"),
            ..self.context()
        };
        let answer = call.await;
        let answer =
            answer.map_err(|error| self.error(SdkError::provider_error(error), &context))?;
        let credentials = answer.credentials.ok_or_else(|| {
            let reason = "it contains no credentials".into();
            let profile = self.profile.clone();
            CredentialsError::Answer { profile, reason }
        })?;
        Ok(Credentials::new(
            credentials.access_key_id,
            credentials.secret_access_key,
            Some(credentials.session_token),
            credentials.expiration.try_into().ok(),
            "WebIdentity",
        ))
    }

    async fn sso(&self, sso: &Sso) -> Result<Credentials, CredentialsError> {
        let context = LoadContext {
            role: credential_source::role(&Source::Sso(sso.clone())),
            ..self.context()
        };
        let loaded = self.portal.credentials(sso, self.caches).await;
        loaded.map_err(|error| of_sso(error, &context, (self.clock)()))
    }

    /// Loads the credentials of `aws login`. The SDK renews them, for which it uses a refresh token
    /// once; so there is one renewal at a time, and a failure counts only if no other program wrote
    /// the file meanwhile.
    async fn login(&self, login: &LoginSession) -> Result<Credentials, CredentialsError> {
        static RENEWAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        check_login_cache()?;
        let path = self.cache_files.path(CacheDir::Login, &login.cache_file());
        let _one = RENEWAL.lock().await;
        let before = files::FileStamp::read(&path).await;
        let mut loaded = self.login_once(login).await;
        if loaded.is_err() && before != files::FileStamp::read(&path).await {
            loaded = self.login_once(login).await;
        }
        loaded.map_err(|error| match has_ended(&error) {
            true => CredentialsError::LoginSession {
                profile: login.profile.to_string(),
                reason: super::in_words(&error),
            },
            false => {
                let context = LoadContext {
                    service: Some("AWS Sign-In (signin:CreateOAuth2Token)"),
                    ..self.context()
                };
                self.error(error, &context)
            }
        })
    }

    async fn login_once(&self, login: &LoginSession) -> provider::Result {
        let provider = LoginCredentialsProvider::builder(login.session.as_str());
        let provider = provider.configure(&self.providers).build();
        provider.provide_credentials().await
    }

    async fn process(&self, process: &Process) -> Result<Credentials, CredentialsError> {
        let printed = self.process.credentials(process).await;
        printed.map_err(|reason| CredentialsError::of_process(self.profile.clone(), &reason))
    }

    async fn container(&self) -> Result<Credentials, CredentialsError> {
        if let Some(file) = TokenFile::of_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")? {
            file.probe().await?;
        }
        let context = LoadContext {
            service: Some(
                "the container's credentials endpoint (AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI)",
            ),
            ..self.context()
        };
        let config = self.providers.clone();
        let config = config.with_http_client(self.local_http.clone());
        let provider = EcsCredentialsProvider::builder().configure(&config).build();
        let loaded = provider.provide_credentials().await;
        loaded.map_err(|error| self.error(error, &context))
    }

    async fn instance(&self) -> Result<Credentials, CredentialsError> {
        let config = self.providers.clone();
        let config = config.with_http_client(self.local_http.clone());
        let client = imds::Client::builder()
            .configure(&config)
            .connect_timeout(IMDS_TIMEOUT)
            .read_timeout(IMDS_TIMEOUT)
            .max_attempts(IMDS_ATTEMPTS)
            .endpoint(self.metadata_endpoint()?)
            .map_err(|_| malformed_endpoint("is not a URL"))?
            .build();
        let provider = ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(client)
            .build();
        let loaded = provider.provide_credentials().await;
        loaded.map_err(|error| self.error(error, &self.context()))
    }

    /// Returns the endpoint of the metadata service. The SDK would look for it in the AWS files.
    fn metadata_endpoint(&self) -> Result<String, MalformedValue> {
        let set = |name, of_profile: &Option<String>| {
            let variable = validation::variable(name)?.filter(|value| !value.is_empty());
            Ok::<_, MalformedValue>(variable.or_else(|| of_profile.clone()))
        };
        let endpoint = set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.metadata.endpoint)?;
        if let Some(url) = endpoint {
            validation::endpoint(&url, METADATA_ENDPOINT, "the environment or the profile")?;
            return Ok(url);
        }
        let mode = set(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
            &self.metadata.endpoint_mode,
        )?;
        match mode.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("ipv4") => Ok(IMDS_IPV4.to_owned()),
            Some("ipv6") => Ok(IMDS_IPV6.to_owned()),
            Some(_) => Err(MalformedValue::new(
                "the endpoint mode of the EC2 instance metadata service",
                "the environment or the profile",
                "is not IPv4 or IPv6",
            )),
        }
    }

    fn context(&self) -> LoadContext {
        LoadContext {
            profile: self.profile.clone(),
            looked: self.looked.clone(),
            ..LoadContext::default()
        }
    }

    fn error(&self, error: SdkError, context: &LoadContext) -> CredentialsError {
        classify(error, context, (self.clock)())
    }
}

/// Returns `true` if a login of `aws login` has ended or does not exist. The SDK's types are private.
fn has_ended(error: &SdkError) -> bool {
    const WORDS: [&str; 4] = [
        "Login token is expired",
        "Your session has expired",
        "change in your password",
        "failed to read `",
    ];
    let text = super::in_words(error);
    WORDS.iter().any(|words| text.contains(words))
}

/// Refuses a cache directory that the SDK and the AWS CLI would find in different places.
fn check_login_cache() -> Result<(), MalformedValue> {
    const NAME: &str = "AWS_LOGIN_CACHE_DIRECTORY";
    match validation::variable(NAME)? {
        Some(path) if path.contains(['$', '%', '~']) => Err(MalformedValue::new(
            NAME,
            validation::ENVIRONMENT,
            "contains $, % or ~; write the path in full",
        )),
        _ => Ok(()),
    }
}

const METADATA_ENDPOINT: &str = "the endpoint of the EC2 instance metadata service";

fn malformed_endpoint(fault: &'static str) -> MalformedValue {
    MalformedValue::new(METADATA_ENDPOINT, "the environment or the profile", fault)
}

/// Returns keys as credentials; an empty session token counts as none.
///
/// # Errors
/// [`CredentialsError::Malformed`] for a value that cannot be sent in a header.
fn static_keys(keys: &Keys, provider: &'static str) -> Result<Credentials, CredentialsError> {
    validation::keys(keys)?;
    let until = keys.expires_at.and_then(|at| u64::try_from(at).ok());
    let mut credentials = Credentials::builder()
        .access_key_id(keys.access_key_id.as_str())
        .secret_access_key(keys.secret_access_key.expose())
        .provider_name(provider);
    let token = keys.session_token.as_ref().map(|token| token.expose());
    let token = token.filter(|token| !token.is_empty());
    credentials.set_session_token(token.map(str::to_owned));
    credentials.set_expiry(until.map(|at| UNIX_EPOCH + Duration::from_secs(at)));
    let account = keys.account_id.as_ref().map(|id| id.as_str().to_owned());
    credentials.set_account_id(account.map(Into::into));
    Ok(credentials.build())
}
