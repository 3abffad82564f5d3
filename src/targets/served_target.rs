//! The targets behind a port: set up at once, or after the lookup of the database.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::aws::discover;
use crate::aws::discover::{DiscoverError, NotLocated};
use crate::aws::{AwsContext, AwsOptions};
use crate::base::background::TaskStopped;
use crate::base::error_text::chain;
use crate::base::names::{Region, TargetName};
use crate::base::single_flight::{Expiring, Refreshing, system_clock};
use crate::config::{ConfigError, ResolvedTarget, TargetConfig};
use crate::failure::connection::ConnectionError;
use crate::failure::route::KnownTarget;
use crate::failure::setup::SetupError;
use crate::login::background::{BackgroundLogins, LOGIN_STEP};
use crate::report;
use crate::targets::context::{ProtocolState, TargetContext};
use crate::targets::last_failure::NotReady;
use crate::tunnel::Readiness;

/// Time for which a failed lookup answers later clients. A pool that retries at once must not cause
/// a stream of AWS calls.
const FAILURE_STANDS: Duration = Duration::from_secs(3);

/// The AWS identities of the program; targets with the same profile and region share one.
#[derive(Default)]
pub struct AwsContexts {
    all: Mutex<Vec<ProfileAws>>,
    /// Tunnels of removed targets that are shutting down.
    endings: TaskTracker,
    /// Logins that clients may start; `None` with `login = "off"`.
    logins: Option<Arc<BackgroundLogins>>,
}

struct ProfileAws {
    profile: Option<String>,
    region: Option<Region>,
    aws: Arc<AwsContext>,
}

impl AwsContexts {
    /// Creates an empty set. With `browser_login`, clients of this user may open the browser for a
    /// login.
    #[must_use]
    pub fn new(browser_login: bool) -> Self {
        Self {
            logins: browser_login.then(Arc::default),
            ..Self::default()
        }
    }

    /// Returns the identity for a profile and a region; `None` means the default from the AWS
    /// settings.
    pub fn of(&self, profile: Option<&str>, region: Option<&Region>) -> Arc<AwsContext> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |entry: &&ProfileAws| {
            entry.profile.as_deref() == profile && entry.region.as_ref() == region
        };
        if let Some(entry) = all.iter().find(same) {
            return Arc::clone(&entry.aws);
        }
        let (profile, region) = (profile.map(str::to_owned), region.cloned());
        let aws = Arc::new(AwsContext::new(AwsOptions {
            profile: profile.clone(),
            region: region.clone(),
            ..AwsOptions::default()
        }));
        all.push(ProfileAws {
            profile,
            region,
            aws: Arc::clone(&aws),
        });
        aws
    }

    /// Sets up a target. Sends no request to AWS.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn context<P: ProtocolState>(
        &self,
        target: ResolvedTarget,
    ) -> Result<Arc<TargetContext<P>>, SetupError> {
        let aws = self.of(target.settings.profile.as_deref(), target.region.as_ref());
        let context = TargetContext::new(target, aws, self.endings.clone())?;
        Ok(Arc::new(context.with_logins(self.logins.clone())))
    }

    /// Returns the tunnels that are shutting down while the program continues.
    #[must_use]
    pub fn endings(&self) -> &TaskTracker {
        &self.endings
    }
}

/// One target that is served.
pub struct ServedTarget<P> {
    /// The configured target.
    pub config: TargetConfig,
    /// Cancelled when the connections must end because the target is stopped.
    pub(crate) stop: CancellationToken,
    lookup: Arc<DatabaseLookup<P>>,
}

/// Lookup of a target's database, and the setup that follows.
struct DatabaseLookup<P> {
    config: TargetConfig,
    aws_contexts: Arc<AwsContexts>,
    context: OnceLock<Arc<TargetContext<P>>>,
    /// The lookup in progress, in its own task.
    running: Refreshing<Arc<TargetContext<P>>, LookupError>,
    failure: Mutex<Option<LookupFailure>>,
}

/// The last lookup, which failed.
struct LookupFailure {
    at: Instant,
    error: LookupError,
}

/// Reason why a lookup failed, shared by all waiting connections.
#[derive(Clone, Debug, Error)]
enum LookupError {
    #[error(transparent)]
    Discovery(Arc<DiscoverError>),
    #[error(transparent)]
    Config(ConfigError),
    #[error(transparent)]
    Setup(Arc<SetupError>),
    #[error(transparent)]
    TaskStopped(#[from] TaskStopped),
}

impl From<NotLocated> for LookupError {
    fn from(error: NotLocated) -> Self {
        match error {
            NotLocated::Discover(error) => Self::Discovery(Arc::new(error)),
            NotLocated::Config(error) => Self::Config(error),
        }
    }
}

impl From<LookupError> for ConnectionError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Discovery(error) => Self::Discovery(error),
            LookupError::Config(error) => Self::Config(error),
            LookupError::Setup(error) => Self::Setup(error),
            LookupError::TaskStopped(stopped) => Self::Internal(stopped),
        }
    }
}

impl<P: ProtocolState> ServedTarget<P> {
    /// Creates a target; one that needs no lookup is set up at once. Sends no request to AWS.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn new(config: TargetConfig, aws_contexts: Arc<AwsContexts>) -> Result<Self, SetupError> {
        match config.resolved() {
            Some(target) => Self::located(config, target, aws_contexts),
            None => {
                TargetContext::<P>::check(&config)?; // Checks the settings that are known already.
                Ok(Self::with(config, aws_contexts, OnceLock::new()))
            }
        }
    }

    /// Creates a target whose lookup is done already. On reload it counts as the target in
    /// `config`.
    ///
    /// # Errors
    /// The same as for [`ServedTarget::new`].
    pub fn located(
        config: TargetConfig,
        target: ResolvedTarget,
        aws_contexts: Arc<AwsContexts>,
    ) -> Result<Self, SetupError> {
        let context = OnceLock::from(aws_contexts.context(target)?);
        Ok(Self::with(config, aws_contexts, context))
    }

    fn with(
        config: TargetConfig,
        aws_contexts: Arc<AwsContexts>,
        context: OnceLock<Arc<TargetContext<P>>>,
    ) -> Self {
        let lookup = DatabaseLookup {
            config: config.clone(),
            aws_contexts,
            context,
            running: Refreshing::new(system_clock()),
            failure: Mutex::default(),
        };
        Self {
            config,
            stop: CancellationToken::new(),
            lookup: Arc::new(lookup),
        }
    }

    /// Returns the set-up target, if its lookup is done.
    #[must_use]
    pub fn ready(&self) -> Option<&Arc<TargetContext<P>>> {
        self.lookup.context.get()
    }

    /// Returns the set-up target. If its database has to be looked up first, all callers share one
    /// lookup, which continues when they leave. Takes at most the connect timeout of the target.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ConnectionError::Discovery`], [`ConnectionError::Setup`], [`ConnectionError::Config`],
    /// [`ConnectionError::LookupTimeout`].
    pub async fn context(&self) -> Result<Arc<TargetContext<P>>, ConnectionError> {
        self.context_until(Instant::now() + self.config.settings.connect_timeout)
            .await
    }

    /// Returns the set-up target like [`ServedTarget::context`]. A lookup needs credentials, so it
    /// begins after the login in the browser that a client of pgiam's own user waits for.
    ///
    /// # Errors
    /// As for [`ServedTarget::context`], and [`ConnectionError::ConnectTimeout`] during the login.
    pub(crate) async fn context_after_login(
        &self,
        is_owners: bool,
    ) -> Result<Arc<TargetContext<P>>, ConnectionError> {
        let after = self.config.settings.connect_timeout;
        let until = Instant::now() + after;
        let logins = self.lookup.aws_contexts.logins.as_ref();
        if let Some(logins) = logins.filter(|_| is_owners && self.ready().is_none()) {
            let aws = self.lookup.aws();
            match timeout_at(until, logins.wait(&aws)).await {
                // The failure was that of the credentials.
                Ok(true) => *self.lookup.failure() = None,
                Err(_) if logins.is_running(&aws) => {
                    return Err(ConnectionError::ConnectTimeout {
                        after,
                        readiness: Readiness::Idle,
                        waiting: Some(LOGIN_STEP),
                    });
                }
                Ok(false) | Err(_) => {}
            }
        }
        self.context_until(until).await
    }

    async fn context_until(
        &self,
        until: Instant,
    ) -> Result<Arc<TargetContext<P>>, ConnectionError> {
        if let Some(context) = self.ready() {
            return Ok(Arc::clone(context));
        }
        if let Some(error) = self.lookup.standing_failure() {
            return Err(error.into());
        }
        let found = self.lookup.running.get(|| {
            let lookup = Arc::clone(&self.lookup);
            async move { lookup.run().await }
        });
        match timeout_at(until, found).await {
            Ok(Ok((lease, _))) => Ok(lease.value),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ConnectionError::LookupTimeout(
                self.config.settings.connect_timeout,
            )),
        }
    }

    /// Returns a target for messages, while its endpoint is unknown.
    pub(crate) fn provisional(&self) -> ResolvedTarget {
        self.config.unresolved()
    }

    /// Returns why the target cannot be reached now, as far as is known.
    #[must_use]
    pub fn not_ready(&self) -> Option<NotReady> {
        match self.ready() {
            Some(context) => context.last_failure.get(),
            None => self.lookup_failure(),
        }
    }

    /// Returns why the last lookup failed.
    pub(crate) fn lookup_failure(&self) -> Option<NotReady> {
        let (error, at) = {
            let failure = self.lookup.failure();
            let failure = failure.as_ref()?;
            (failure.error.clone(), failure.at)
        };
        let target = self.provisional();
        let about = report::ErrorContext::target(&target);
        Some(NotReady::of(&error.into(), &about, at))
    }

    /// Returns the reason to tell a readiness probe that the target is not ready.
    pub(crate) fn not_now(&self) -> Option<ConnectionError> {
        match (self.ready(), self.lookup_failure()) {
            (Some(context), _) => context.not_now(),
            (None, Some(failure)) => Some(ConnectionError::FailedBefore(failure.id())),
            (None, None) => Some(ConnectionError::NoTunnelYet(Readiness::Starting)),
        }
    }
}

impl<P: ProtocolState> DatabaseLookup<P> {
    async fn run(self: Arc<Self>) -> Result<Expiring<Arc<TargetContext<P>>>, LookupError> {
        let found = self.look_up().await;
        let found = found.and_then(|target| {
            let context = self.aws_contexts.context(target);
            context.map_err(|error| LookupError::Setup(Arc::new(error)))
        });
        match found {
            Ok(context) => {
                *self.failure() = None;
                let context = Arc::clone(self.context.get_or_init(|| context));
                Ok(Expiring {
                    value: context,
                    made_at: SystemTime::now(),
                    until: None,
                })
            }
            Err(error) => {
                let reason = chain(&error);
                let reason = &*reason;
                // The waiting callers report it at a higher level.
                debug!(target = %self.config.name, reason, "cannot find {}", self.config.database_ref);
                *self.failure() = Some(LookupFailure {
                    at: Instant::now(),
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }

    /// Looks up the database.
    async fn look_up(&self) -> Result<ResolvedTarget, LookupError> {
        let config = &self.config;
        let Some(db) = config.rds_identifier() else {
            return Err(TaskStopped.into()); // It was set up when it was made.
        };
        let (target, _) = discover::locate(&self.aws(), config, db).await?;
        info!(target = %config.name, endpoint = %target.endpoint, "found {db}");
        Ok(target)
    }

    /// Returns the identity for the lookup.
    fn aws(&self) -> Arc<AwsContext> {
        let (profile, region) = (&self.config.settings.profile, &self.config.region);
        self.aws_contexts.of(profile.as_deref(), region.as_ref())
    }

    fn standing_failure(&self) -> Option<LookupError> {
        let failure = self.failure();
        let failure = failure.as_ref()?;
        (failure.at.elapsed() < FAILURE_STANDS).then(|| failure.error.clone())
    }

    fn failure(&self) -> MutexGuard<'_, Option<LookupFailure>> {
        // Every write is one assignment.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The targets behind a listener.
pub struct PortTargets<P> {
    /// The targets.
    pub targets: Arc<[Arc<ServedTarget<P>>]>,
    /// True if the database name selects the target even when there is only one.
    pub by_name: bool,
    /// Names of the targets that are stopped.
    pub(crate) stopped: Arc<[TargetName]>,
}

impl<P> Clone for PortTargets<P> {
    fn clone(&self) -> Self {
        Self {
            targets: Arc::clone(&self.targets),
            by_name: self.by_name,
            stopped: Arc::clone(&self.stopped),
        }
    }
}

impl<P: ProtocolState> PortTargets<P> {
    /// Returns whether the database name selects the target.
    #[must_use]
    pub fn picks_by_name(&self) -> bool {
        self.by_name || self.targets.len() > 1
    }

    /// Returns the target of this name. A name that no target has may be invalid UTF-8.
    pub(crate) fn named(&self, name: &[u8]) -> Option<&Arc<ServedTarget<P>>> {
        let mut all = self.targets.iter();
        all.find(|served| served.config.name.as_bytes() == name)
    }

    /// Returns the stopped target of this name, or the only target of the port, if that is stopped.
    pub(crate) fn stopped(&self, name: &[u8]) -> Option<&TargetName> {
        if !self.picks_by_name() {
            return self.stopped.first();
        }
        self.stopped
            .iter()
            .find(|stopped| stopped.as_bytes() == name)
    }

    /// Returns these targets without one, which a client may still name; `None` if it is not among
    /// them. The name selects the target as before.
    pub(crate) fn without(&self, target: &Arc<ServedTarget<P>>) -> Option<Self> {
        let is_it = |other: &&Arc<ServedTarget<P>>| Arc::ptr_eq(other, target);
        self.targets.iter().find(is_it)?;
        let others = self.targets.iter().filter(|other| !is_it(other));
        let stopped = self.stopped.iter().chain([&target.config.name]);
        Some(Self {
            targets: others.cloned().collect(),
            by_name: self.picks_by_name(),
            stopped: stopped.cloned().collect(),
        })
    }

    /// Returns the targets, for a client that requested another one.
    pub(crate) fn known(&self) -> Vec<KnownTarget> {
        let known = self.targets.iter().map(|served| KnownTarget {
            name: served.config.name.to_string(),
            endpoint: match served.ready() {
                Some(context) => context.target.endpoint.to_string(),
                None => served.config.database_ref.to_string(),
            },
        });
        known.collect()
    }

    /// Returns why the requested target is not ready. Without one: a reason if no target is ready.
    pub(crate) fn not_now(&self, asked: Option<&ServedTarget<P>>) -> Option<ConnectionError> {
        match asked {
            Some(served) => served.not_now(),
            None if self.targets.is_empty() => Some(ConnectionError::NoTunnelYet(Readiness::Idle)),
            None => {
                let all: Option<Vec<_>> =
                    self.targets.iter().map(|served| served.not_now()).collect();
                all?.into_iter().next()
            }
        }
    }

    /// Returns whether it contains a target of this name, served or stopped.
    pub(crate) fn has(&self, name: &str) -> bool {
        let mut served = self.targets.iter();
        served.any(|served| served.config.name == name)
            || self.stopped.iter().any(|stopped| stopped == name)
    }
}
