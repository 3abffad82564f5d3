//! Access to AWS with one identity: credentials, region, clients and trust roots.

pub mod alias;
pub mod api_error;
pub mod assume_role;
pub mod cache_files;
pub mod call_error;
pub(crate) mod calls;
mod clock;
mod credential_source;
pub mod discover;
mod endpoints;
mod error;
mod files;
pub(crate) mod http;
mod identity;
mod metadata;
pub(crate) mod pages;
mod process;
mod profile;
mod providers;
pub mod query;
mod response_limit;
mod sdk_text;
pub mod sso;
pub mod token;
mod trust;
mod validation;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region as SdkRegion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_profile::Origin;
use aws_types::sdk_config::SharedHttpClient;
use rustls::RootCertStore;
use tokio::sync::OnceCell;

pub use calls::{CallTimeout, CallTimeoutKind};
pub use clock::{ClockOffset, WrongEra};
pub(crate) use clock::{ClockWatch, difference, signable};
pub use credential_source::CredentialSource;
pub use endpoints::Endpoints;
pub(crate) use endpoints::set_for as endpoint_set_for;
pub use error::{CredentialsError, SharedCause};
pub(crate) use error::{is_about_the_network, refused_keys};
pub(crate) use files::{PLATFORM, home, parse as read_files};
pub use identity::{BESIDE_AN_ERROR, FOR_A_COMMAND, Identity, KeyState};
pub use process::RunningProcess;
pub(crate) use sdk_text::{bad_answer, in_words};
pub use validation::MalformedValue;
pub(crate) use validation::variable;

use assume_role::RoleAssumer;
use cache_files::CacheFiles;
use sso::{CacheUse, SsoPortal};

use crate::base::names::Region;
use crate::base::single_flight::{Clock, Expiring, Refreshing, system_clock};
use trust::TrustRoots;

/// Deadline for loading credentials. SSO and STS answer in a second; an external
/// `credential_process` may open a browser. A longer deadline would use up the 30 s in which a
/// client connection must be ready.
pub const CREDENTIALS_DEADLINE: Duration = Duration::from_secs(20);

/// Maximum number of managed nodes on a page (SSM API Reference, `DescribeInstanceInformation`);
/// the default is 10.
pub(crate) const NODES_A_PAGE: i32 = 50;

/// Settings that identify one AWS identity. `Default` behaves like the AWS tools without options.
#[derive(Clone)]
pub struct AwsOptions {
    /// Profile in the AWS files. A profile set here takes precedence over credentials in the
    /// environment.
    pub profile: Option<String>,
    /// Region for STS and default region for clients. The fallbacks are `AWS_REGION` and the
    /// profile's region.
    pub region: Option<Region>,
    /// Trust roots for HTTPS and WebSocket. The fallbacks are `AWS_CA_BUNDLE`, the profile's
    /// `ca_bundle` and the operating system's roots.
    pub ca_bundle: Option<PathBuf>,
    /// Overrides `AWS_CONFIG_FILE` and `~/.aws/config`.
    pub config_file: Option<PathBuf>,
    /// Overrides `AWS_SHARED_CREDENTIALS_FILE` and `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// Deadline for loading credentials.
    pub deadline: Duration,
    /// Wall clock, used to check whether credentials have expired.
    pub clock: Clock,
}

impl AwsOptions {
    /// Returns the profile set in the options or with a variable.
    fn named(&self) -> Option<String> {
        let variable = |name| validation::variable(name).ok().flatten();
        let of_environment = || variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
        let named = self.profile.clone().or_else(of_environment);
        named.filter(|name| !name.is_empty())
    }
}

impl Default for AwsOptions {
    fn default() -> Self {
        Self {
            profile: None,
            region: None,
            ca_bundle: None,
            config_file: None,
            credentials_file: None,
            deadline: CREDENTIALS_DEADLINE,
            clock: system_clock(),
        }
    }
}

/// Returns the profile in effect: the configured one, else that of a variable. `None`: the default
/// one.
#[must_use]
pub fn profile_in_effect(configured: Option<&str>) -> Option<String> {
    let options = AwsOptions {
        profile: configured.map(str::to_owned),
        ..AwsOptions::default()
    };
    options.named()
}

/// One AWS identity: the state for a (profile, region) pair, loaded on first use and shared by all
/// connections.
///
/// One task at a time loads the credentials, and they are renewed before they expire. After a
/// failure all files are read again, so the next connection sees `pgiam login` or an edited
/// `~/.aws/credentials` without a restart.
pub struct AwsContext {
    inner: Arc<ContextState>,
    /// Configuration for clients; dropped together with the credentials.
    config: Mutex<Option<SdkConfig>>,
}

/// The part that the SDK's clients also hold, as their credentials provider.
struct ContextState {
    options: AwsOptions,
    credentials: Refreshing<Credentials, CredentialsError>,
    trust: OnceCell<TrustRoots>,
    watch: Arc<ClockWatch>,
    process: Arc<process::ProcessCaller>,
    asked: identity::IdentityCache,
    /// AWS or a database rejected the last credentials, so keys in caches are not used.
    rejected: AtomicBool,
    /// State of the AWS files when the credentials were loaded.
    stamps: Mutex<Option<[files::FileStamp; 2]>>,
}

/// Identity of loaded credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedIdentity {
    /// Source of the credentials.
    pub source: CredentialSource,
    /// Expiry; `None` for keys without one.
    pub ends_at: Option<SystemTime>,
}

impl AwsContext {
    /// Creates a context without reading files or sending requests.
    pub fn new(options: AwsOptions) -> Self {
        let credentials = Refreshing::new(options.clock.clone());
        let inner = ContextState {
            credentials,
            trust: OnceCell::new(),
            watch: ClockWatch::new(options.clock.clone()),
            process: Arc::default(),
            asked: identity::IdentityCache::default(),
            rejected: AtomicBool::new(false),
            stamps: Mutex::new(None),
            options,
        };
        Self {
            inner: Arc::new(inner),
            config: Mutex::new(None),
        }
    }

    /// Returns the profile set in the options.
    pub fn profile(&self) -> Option<&str> {
        self.inner.options.profile.as_deref()
    }

    /// Returns credentials that have not expired. Cancel-safe; never takes longer than the
    /// deadline.
    ///
    /// # Errors
    /// See [`CredentialsError`]. After an error the next call reads the files again.
    pub async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let loaded = ContextState::credentials(&self.inner).await;
        if loaded.is_err() {
            self.forget_config();
        }
        loaded
    }

    /// Returns the region from the options, the environment or the profile, in this order.
    ///
    /// # Errors
    /// [`CredentialsError::Config`], [`CredentialsError::NoSuchProfile`].
    pub async fn region(&self) -> Result<Option<Region>, CredentialsError> {
        let plan = profile::read(&self.inner.options).await?;
        let region = self.inner.region(&plan)?;
        Ok(region.map(|region| Region::from(region.as_ref())))
    }

    /// Returns an SSM client for `region`. The client gets its credentials from this context for
    /// every request, so it stays usable when the credentials change.
    ///
    /// The SDK resolves endpoints. It honours `AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL`, and the
    /// `endpoint_url` of the profile and its `services` section. It also honours
    /// `AWS_USE_FIPS_ENDPOINT` and `AWS_USE_DUALSTACK_ENDPOINT` with their keys in the profile.
    ///
    /// # Errors
    /// As for [`AwsContext::sdk_config`].
    pub async fn ssm(&self, region: &Region) -> Result<aws_sdk_ssm::Client, CredentialsError> {
        Ok(aws_sdk_ssm::Client::new(&self.config_in(region).await?))
    }

    /// Returns a KMS client for `region`, otherwise like [`AwsContext::ssm`].
    ///
    /// # Errors
    /// As for [`AwsContext::sdk_config`].
    pub async fn kms(&self, region: &Region) -> Result<aws_sdk_kms::Client, CredentialsError> {
        Ok(aws_sdk_kms::Client::new(&self.config_in(region).await?))
    }

    /// Returns an RDS client for `region`, otherwise like [`AwsContext::ssm`].
    ///
    /// # Errors
    /// As for [`AwsContext::sdk_config`].
    pub async fn rds(&self, region: &Region) -> Result<aws_sdk_rds::Client, CredentialsError> {
        Ok(aws_sdk_rds::Client::new(&self.config_in(region).await?))
    }

    async fn config_in(&self, region: &Region) -> Result<SdkConfig, CredentialsError> {
        let config = self.sdk_config().await?;
        // No region is known; another check reports that.
        let region = match region.is_empty() {
            true => SdkRegion::new(""),
            false => SdkRegion::new(validation::region(
                region.as_str().to_owned(),
                "region",
                "the configuration",
            )?),
        };
        Ok(config.into_builder().region(region).build())
    }

    /// Returns the configuration that AWS clients are created from.
    ///
    /// # Errors
    /// [`CredentialsError::Config`], [`CredentialsError::NoSuchProfile`],
    /// [`CredentialsError::CaBundle`].
    pub async fn sdk_config(&self) -> Result<SdkConfig, CredentialsError> {
        if let Some(config) = self.config().clone() {
            return Ok(config);
        }
        // Two callers may load it at the same time, which only costs a few file reads.
        let config = self.load_config().await?;
        *self.config() = Some(config.clone());
        Ok(config)
    }

    /// Returns the Session Manager endpoints set in the environment or the profile. URLs that do
    /// not parse are left to the SDK.
    ///
    /// # Errors
    /// As for [`AwsContext::sdk_config`].
    pub async fn endpoints(&self) -> Result<Endpoints, CredentialsError> {
        Ok(Endpoints::of(&self.sdk_config().await?))
    }

    /// Returns the trust roots for AWS, for connections that do not go through the SDK.
    ///
    /// # Errors
    /// As for [`AwsContext::sdk_config`].
    pub async fn roots(&self) -> Result<Arc<RootCertStore>, CredentialsError> {
        if let Some(trust) = self.inner.trust.get() {
            return Ok(trust.roots.clone());
        }
        let plan = profile::read(&self.inner.options).await?;
        Ok(self.inner.trust(&plan).await?.roots.clone())
    }

    /// Returns the offset between the clock of AWS and the local one, according to the last answer.
    /// Answers to calls of clients created here, to requests of the credential chain and to the
    /// opening of a data channel count. `None` before the first answer, and again when the last one
    /// is too old.
    #[must_use]
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.watch.offset()
    }

    /// Returns the identity of the last loaded credentials; `None` before the first ones and after
    /// [`AwsContext::invalidate`]. Loads nothing.
    #[must_use]
    pub fn loaded_identity(&self) -> Option<LoadedIdentity> {
        let credentials = self.inner.credentials.kept()?.value;
        let source = CredentialSource::of(&credentials)?;
        Some(LoadedIdentity {
            source: source.clone(),
            ends_at: credentials.expiry(),
        })
    }

    /// Returns `true` if loading credentials would run a `credential_process` that has failed. It may
    /// open a window, so this is left to a client.
    #[must_use]
    pub fn would_repeat_program(&self) -> bool {
        self.inner.process.would_repeat()
    }

    /// Returns `true` while credentials are being loaded, for this caller or another one.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.inner.credentials.is_running()
    }

    /// Returns the recorder for answers that do not come through the SDK.
    pub(crate) fn clock_watch(&self) -> Arc<ClockWatch> {
        self.inner.watch.clone()
    }

    /// Discards credentials and configuration after AWS or the database rejected them. The next
    /// call reads everything again; existing clients get the new credentials too.
    pub fn invalidate(&self) {
        self.inner.rejected.store(true, Ordering::Relaxed);
        self.inner.credentials.forget();
        self.forget_config();
    }

    fn config(&self) -> std::sync::MutexGuard<'_, Option<SdkConfig>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_config(&self) {
        *self.config() = None;
    }

    async fn load_config(&self) -> Result<SdkConfig, CredentialsError> {
        let inner = &self.inner;
        let plan = profile::read(&inner.options).await?;
        let trust = inner.trust(&plan).await?;
        let loader = inner.loader(&plan, trust)?;
        let loader = loader.credentials_provider(FromContext(inner.clone()));
        let config = loader.load().await;
        endpoints::check(&config)?;
        Ok(config)
    }
}

impl fmt::Debug for AwsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsContext")
            .field("profile", &self.inner.options.profile)
            .field("region", &self.inner.options.region)
            .finish_non_exhaustive()
    }
}

impl ContextState {
    async fn credentials(self: &Arc<Self>) -> Result<Credentials, CredentialsError> {
        // The SDK's signer panics for a time out of range.
        signable((self.options.clock)())?;
        self.forget_if_changed().await;
        let this = self.clone();
        let kept = self
            .credentials
            .get(|| async move { this.load().await })
            .await;
        let (lease, _) = kept?;
        Ok(lease.value)
    }

    /// Discards credentials that were loaded from AWS files which have changed since.
    async fn forget_if_changed(&self) {
        if self.credentials.kept().is_none() {
            return;
        }
        let Some(now) = files::stamps(&self.options).await else {
            return;
        };
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps.as_ref().is_some_and(|loaded| *loaded != now) {
            *stamps = None;
            tracing::info!("the AWS files have changed; loading the credentials again");
            self.credentials.forget();
        }
    }

    async fn load(&self) -> Result<Expiring<Credentials>, CredentialsError> {
        let stamps = files::stamps(&self.options).await;
        *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        let deadline = self.options.deadline;
        let resolved = tokio::time::timeout(deadline, self.resolve()).await;
        let credentials = resolved.unwrap_or_else(|_| {
            Err(CredentialsError::Timeout {
                after: deadline,
                profile: self.options.named(),
                process: self.process.running(),
            })
        })?;
        tracing::debug!(ends = ?credentials.expiry(), "loaded AWS credentials");
        Ok(Expiring {
            made_at: (self.options.clock)(),
            until: credentials.expiry(),
            value: credentials,
        })
    }

    async fn resolve(&self) -> Result<Credentials, CredentialsError> {
        let plan = profile::read(&self.options).await?;
        let source = match &plan.source {
            Ok(source) => source,
            Err(error) => return Err(plan.unresolved(error, self.looked())),
        };
        let trust = self.trust(&plan).await?;
        let services = self.loader(&plan, trust)?.no_credentials().load().await;
        endpoints::check(&services)?;
        let providers = ProviderConfig::without_region()
            .with_http_client(self.client(&trust.http))
            .with_behavior_version(Some(BehaviorVersion::latest()))
            .with_region(self.region(&plan)?);
        let cache_files = CacheFiles::of_environment();
        let clock = self.options.clock.clone();
        let portal = SsoPortal::new(services.clone(), cache_files.clone(), clock.clone());
        let loader = providers::CredentialsLoader {
            providers,
            portal,
            assumer: RoleAssumer::new(services.clone(), cache_files.clone(), clock),
            cache_files,
            caches: match self.rejected.load(Ordering::Relaxed) {
                true => CacheUse::Skip,
                false => CacheUse::Read,
            },
            mfa_serial: plan.mfa_serial.as_deref(),
            process: &self.process,
            local_http: metadata::checked(self.client(&trust.local_http)),
            services,
            metadata: &plan.metadata,
            profile: plan.profile.clone(),
            looked: self.looked(),
            clock: &|| self.watch.offset(),
        };
        let loaded = loader.load(source).await;
        let loaded = loaded.and_then(|credentials| match credentials.expiry() {
            Some(at) if at <= (self.options.clock)() => Err(CredentialsError::Expired {
                at: Some(at),
                profile: plan.profile.clone(),
            }),
            _ => {
                self.rejected.store(false, Ordering::Relaxed);
                Ok(credential_source::noted(
                    credentials,
                    source,
                    &plan.selection,
                ))
            }
        });
        match loaded {
            Err(
                ended @ (CredentialsError::Expired { at: Some(_), .. }
                | CredentialsError::SsoSession { .. }),
            ) => Err(self.unless_the_clock_is_wrong(ended, &plan, trust).await),
            loaded => loaded,
        }
    }

    fn looked(&self) -> Vec<&'static str> {
        providers::places(self.options.profile.is_some())
    }

    /// Checks the clock of AWS when credentials have expired by the local clock alone, so that the
    /// user is not asked to log in again because of a wrong local clock.
    async fn unless_the_clock_is_wrong(
        &self,
        ended: CredentialsError,
        plan: &profile::ProfileSettings,
        trust: &TrustRoots,
    ) -> CredentialsError {
        if self.watch.offset().is_none()
            && let Ok(Some(region)) = self.region(plan)
            && let Ok(loader) = self.loader(plan, trust)
        {
            let config = loader.no_credentials().load().await;
            query::ask_the_time(&config, &region.as_ref().into()).await;
        }
        match self.watch.offset().filter(|clock| clock.is_wrong()) {
            Some(clock) => CredentialsError::Clock {
                profile: plan.profile.clone(),
                clock,
            },
            None => ended,
        }
    }

    /// Wraps a client: its answers are watched for the time and limited in size.
    fn client(&self, client: &SharedHttpClient) -> SharedHttpClient {
        response_limit::bounded(self.watch.watching(client.clone()))
    }

    /// Returns the SDK settings common to all configurations, without credentials.
    fn loader(
        &self,
        plan: &profile::ProfileSettings,
        trust: &TrustRoots,
    ) -> Result<ConfigLoader, CredentialsError> {
        validation::variables_of_sdk()?;
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.client(&trust.http))
            .region(RegionProviderChain::first_try(self.region(plan)?))
            .retry_config(validation::retries(&plan.retries, plan.name())?)
            // The cache is in this module, where it can be invalidated.
            .identity_cache(IdentityCache::no_cache())
            .profile_files(plan.for_sdk())
            .profile_name(profile::SDK_PROFILE);
        Ok(loader)
    }

    async fn trust(
        &self,
        plan: &profile::ProfileSettings,
    ) -> Result<&TrustRoots, CredentialsError> {
        let from_environment = || {
            let path = std::env::var_os("AWS_CA_BUNDLE")?;
            (!path.is_empty()).then(|| PathBuf::from(path))
        };
        let bundle = self.options.ca_bundle.clone();
        let bundle = bundle
            .or_else(from_environment)
            .or_else(|| plan.ca_bundle.clone());
        // A failure is not cached: the file may be fixed meanwhile.
        self.trust
            .get_or_try_init(|| trust::load(bundle.as_deref()))
            .await
    }

    fn region(
        &self,
        plan: &profile::ProfileSettings,
    ) -> Result<Option<SdkRegion>, CredentialsError> {
        if let Some(region) = &self.options.region {
            let region = validation::region(region.to_string(), "region", "the configuration")?;
            return Ok(Some(SdkRegion::new(region)));
        }
        let Some(region) = &plan.selection.region else {
            return Ok(None);
        };
        // As in the AWS CLI, an empty variable hides the profile's region.
        if region.as_str().trim().is_empty() {
            return Ok(None);
        }
        let source_of = match &region.origin {
            Origin::Variable(_) => validation::ENVIRONMENT.to_owned(),
            origin => origin.to_string(),
        };
        let what = match &region.origin {
            Origin::Variable(name) => name,
            _ => "region",
        };
        let region = validation::region(region.as_str().to_owned(), what, &source_of)?;
        Ok(Some(SdkRegion::new(region)))
    }
}

/// Credentials provider that gives the context's credentials to the SDK's clients.
struct FromContext(Arc<ContextState>);

impl ProvideCredentials for FromContext {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            ContextState::credentials(&self.0)
                .await
                .map_err(SdkError::provider_error)
        })
    }
}

impl fmt::Debug for FromContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromContext")
    }
}
