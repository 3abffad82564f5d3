//! The targets behind a port: set up already, or as soon as the database of one has been looked up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pg_handshake::Startup;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::rooms::{Rooms, SetupError};
use super::{Proxy, SessionError};
use crate::aws::{AwsContext, AwsOptions};
use crate::config::{Plan, Target};
use crate::discover::{self, DiscoverError};
use crate::report;
use crate::route::{self, RouteError};

/// How long a failed lookup answers those that come after it: a pool that tries again at once must
/// not become a stream of calls to AWS.
const FAILURE_STANDS: Duration = Duration::from_secs(3);

/// The AWS identities of the program: targets with the same profile and region share one.
#[derive(Default)]
pub struct Contexts(Mutex<Vec<Context>>);

struct Context {
    profile: Option<String>,
    region: Option<String>,
    aws: Arc<AwsContext>,
}

impl Contexts {
    /// The one for a profile and a region, either of which AWS's own settings give where it is `None`.
    pub fn of(&self, profile: Option<&str>, region: Option<&str>) -> Arc<AwsContext> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |context: &&Context| {
            context.profile.as_deref() == profile && context.region.as_deref() == region
        };
        if let Some(context) = known.iter().find(same) {
            return Arc::clone(&context.aws);
        }
        let (profile, region) = (profile.map(str::to_owned), region.map(str::to_owned));
        let aws = Arc::new(AwsContext::new(AwsOptions {
            profile: profile.clone(),
            region: region.clone(),
            ..AwsOptions::default()
        }));
        known.push(Context {
            profile,
            region,
            aws: Arc::clone(&aws),
        });
        aws
    }

    /// What a target needs. Nothing is asked of AWS here.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn rooms(&self, target: Target) -> Result<Arc<Rooms>, SetupError> {
        let aws = self.of(target.profile.as_deref(), target.region.as_deref());
        Rooms::new(target, aws).map(Arc::new)
    }
}

/// One target as it is served.
pub struct Slot {
    /// As configured.
    pub plan: Plan,
    contexts: Arc<Contexts>,
    rooms: OnceCell<Arc<Rooms>>,
    failure: Mutex<Option<Failure>>,
}

/// The last lookup, which found nothing.
struct Failure {
    at: Instant,
    error: Arc<DiscoverError>,
}

impl Slot {
    /// A target that needs no lookup is set up at once. Nothing is asked of AWS here.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn new(plan: Plan, contexts: Arc<Contexts>) -> Result<Self, SetupError> {
        let rooms = match plan.target() {
            Some(target) => OnceCell::new_with(Some(contexts.rooms(target)?)),
            None => {
                Rooms::check(&plan)?; // What can be known already.
                OnceCell::new()
            }
        };
        Ok(Self {
            plan,
            contexts,
            rooms,
            failure: Mutex::default(),
        })
    }

    /// A target for which somebody has looked up what there is to look up. It counts as what `plan`
    /// says, when the configuration is read anew.
    ///
    /// # Errors
    /// As for [`Slot::new`].
    pub fn settled(
        plan: Plan,
        target: Target,
        contexts: Arc<Contexts>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            plan,
            rooms: OnceCell::new_with(Some(contexts.rooms(target)?)),
            contexts,
            failure: Mutex::default(),
        })
    }

    /// What the target needs, if that is known by now.
    #[must_use]
    pub fn ready(&self) -> Option<&Arc<Rooms>> {
        self.rooms.get()
    }

    /// What the target needs. Where the database has to be looked up first, all who want it share one
    /// lookup. Takes no longer than the connect timeout of the target. Cancel-safe.
    ///
    /// # Errors
    /// [`SessionError::Discovery`], [`SessionError::Setup`], [`SessionError::ConnectTimeout`].
    pub async fn rooms(&self) -> Result<Arc<Rooms>, SessionError> {
        let rooms = self.rooms.get_or_try_init(|| async {
            let target = self.look_up().await?;
            Ok::<_, SessionError>(self.contexts.rooms(target)?)
        });
        match timeout(self.plan.connect_timeout, rooms).await {
            Ok(rooms) => rooms.cloned(),
            Err(_) => Err(SessionError::LookupTimeout(self.plan.connect_timeout)),
        }
    }

    async fn look_up(&self) -> Result<Target, SessionError> {
        let Some(db) = self.plan.lookup() else {
            // Set up when it was made.
            return Err(SessionError::ShuttingDown);
        };
        if let Some(error) = self.standing_failure() {
            return Err(SessionError::Discovery(error));
        }
        let plan = &self.plan;
        let aws = self
            .contexts
            .of(plan.profile.as_deref(), plan.region.as_deref());
        let found = match discover::region(&aws, plan.region.as_deref()).await {
            Ok(region) => discover::find(&aws, &region, db).await,
            Err(error) => Err(error),
        };
        let located = found.and_then(|found| {
            found
                .endpoint
                .clone()
                .ok_or_else(|| DiscoverError::Unusable {
                    wanted: db.clone(),
                    reason: "has no endpoint yet".to_owned(),
                })
        });
        match located {
            Ok(endpoint) => {
                info!(target = %plan.name, %endpoint, "found {db}");
                *self.failure() = None;
                Ok(plan.at(endpoint)?)
            }
            Err(error) => {
                let error = Arc::new(error);
                warn!(target = %plan.name, reason = %error, "cannot find {db}");
                *self.failure() = Some(Failure {
                    at: Instant::now(),
                    error: Arc::clone(&error),
                });
                Err(SessionError::Discovery(error))
            }
        }
    }

    fn standing_failure(&self) -> Option<Arc<DiscoverError>> {
        let failure = self.failure();
        let failure = failure.as_ref()?;
        (failure.at.elapsed() < FAILURE_STANDS).then(|| Arc::clone(&failure.error))
    }

    /// Why the last lookup found nothing; `None` before the first and after one that did.
    #[must_use]
    pub fn last_failure(&self) -> Option<Arc<DiscoverError>> {
        let failure = self.failure();
        failure.as_ref().map(|failure| Arc::clone(&failure.error))
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        // It is written whole.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target for messages about it, as long as nobody knows where it is.
    pub(super) fn provisional(&self) -> Target {
        self.plan.anywhere()
    }

    /// The identifier of the reason why the last lookup found nothing.
    pub(super) fn failed_lookup(&self) -> Option<&'static str> {
        let error = SessionError::Discovery(self.last_failure()?);
        Some(report::before_login(&error, None).id)
    }

    /// Why the last attempt to look it up failed, as far as it concerns who only asks.
    pub(super) fn not_now(&self) -> Option<SessionError> {
        match (self.ready(), self.failed_lookup()) {
            (Some(rooms), _) => rooms.not_now(),
            (None, Some(id)) => Some(SessionError::FailedBefore(id)),
            (None, None) => Some(SessionError::NoTunnelYet(
                crate::tunnel::Readiness::Starting,
            )),
        }
    }
}

/// What a listener leads to.
#[derive(Clone)]
pub struct Entry {
    /// The targets behind it.
    pub slots: Arc<[Arc<Slot>]>,
    /// The database name picks the target, even if there is only one.
    pub by_name: bool,
}

impl Entry {
    /// Whether the database name picks the target.
    #[must_use]
    pub fn picks_by_name(&self) -> bool {
        self.by_name || self.slots.len() > 1
    }

    /// What the client asks for, if that is there.
    pub(super) fn named(&self, startup: &Startup) -> Option<&Arc<Slot>> {
        if !self.picks_by_name() {
            return self.slots.first();
        }
        let (name, _) = route::split_name(startup.get("database").unwrap_or_default());
        let mut all = self.slots.iter();
        all.find(|slot| slot.plan.name.as_bytes() == name)
    }

    /// The same, or the reason that a client is to hear.
    pub(super) fn chosen(&self, startup: &Startup) -> Result<&Arc<Slot>, RouteError> {
        self.named(startup).ok_or_else(|| {
            let known = self.slots.iter().map(|slot| {
                let place = match slot.ready() {
                    Some(rooms) => rooms.target.endpoint.to_string(),
                    None => slot.plan.wanted.to_string(),
                };
                (slot.plan.name.clone(), place)
            });
            route::unknown(known.collect(), startup)
        })
    }

    /// Why a connection to this target could not be made now, or to none of all; as far as is known.
    pub(super) fn not_now(&self, asked: Option<&Arc<Slot>>) -> Option<SessionError> {
        match asked {
            Some(slot) => slot.not_now(),
            None => {
                let all: Option<Vec<_>> = self.slots.iter().map(|slot| slot.not_now()).collect();
                all?.into_iter().next()
            }
        }
    }

    /// Whether a target of this name is behind it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.plan.name == name)
    }
}

/// Looks up what has to be, all at the same time.
pub async fn look_up_all(slots: &[Arc<Slot>], proxy: &Proxy) {
    let all = slots.iter().map(|slot| async {
        if let Err(error) = slot.rooms().await {
            let target = slot.provisional();
            report::before_login(&error, Some(&report::About::target(&target))).log();
        }
    });
    let all = futures_util::future::join_all(all);
    _ = proxy.stop.run_until_cancelled(all).await;
}
