//! Targets that cannot be reached: found out before the first client where that is possible, and
//! tried again in the background until it is over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::base::jitter::jitter;
use crate::config::{Auth, Via};
use crate::failure::connection::SessionError;
use crate::postgres::database::login_steps::{Outcome, Trial};
use crate::postgres::shared::Proxy;
use crate::postgres::target::context::Rooms;
use crate::postgres::target::last_failure::Reached;
use crate::postgres::target::slot::Slot;
use crate::report::{self, About, Explanation};

/// After how long a target that cannot be reached is tried again: first, and at most. It doubles.
/// Health checks usually pause for less than the first; the last notices `aws sso login` within a
/// minute where no client comes.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// After how long a database that was not found is looked for again: first, and at most. It doubles.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// What a login in the background calls itself (`application_name`).
const APPLICATION: &str = "pgiam";

impl Slot {
    /// Looks the database up until it is found, so that nobody has to come for it: what waits for
    /// readiness sends nobody. Ends when the target is no longer served.
    async fn keep_looking(slot: Weak<Self>, proxy: Arc<Proxy>) {
        let (mut pause, longest) = LOOK_AGAIN;
        let mut failed = false;
        loop {
            let Some(slot) = slot.upgrade() else { return };
            match slot.rooms().await {
                // The first look is also `prepare`'s, which goes on from there.
                Ok(_) if !failed => return,
                Ok(rooms) => {
                    rooms.check_and_note(&proxy).await;
                    proxy.recovered.notify_waiters();
                    return;
                }
                Err(_) => failed = true,
            }
            drop(slot);
            sleep(jitter(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Finds out what can be known before the first client: where the database is, whether there are
    /// AWS credentials, and with `warm` whether the tunnel can be opened. What fails is logged,
    /// shown, and tried again in the background. Takes as long as the timeouts of the target allow.
    pub(in crate::postgres) async fn prepare(&self, proxy: &Arc<Proxy>) {
        let name = &self.plan.name;
        match self.rooms().await {
            Ok(rooms) => rooms.check_and_note(proxy).await,
            Err(error) => {
                let target = self.provisional();
                warn_of(name, &error, &About::target(&target));
            }
        }
        // Whoever has stopped waiting for it.
        proxy.recovered.notify_waiters();
    }

    /// Logs in once, as a client that leaves everything to the target.
    ///
    /// # Errors
    /// Why that is not possible, in the words that a client would get.
    pub async fn test(&self) -> Result<(), Explanation> {
        let rooms = self.rooms().await.map_err(|error| {
            let target = self.provisional();
            report::explain(&error, Some(&About::target(&target)))
        })?;
        match rooms.log_in_once().await {
            Ok(()) => {
                rooms.last_failure.forget();
                Ok(())
            }
            Err((error, trial)) => {
                let about = rooms.about(trial.as_ref());
                rooms.last_failure.note(&error, &about);
                Err(report::explain(&error, Some(&about)))
            }
        }
    }
}

impl Rooms {
    /// Whether anything here needs AWS credentials.
    fn needs_credentials(&self) -> bool {
        self.target.login.auth == Auth::Iam || matches!(self.target.via, Via::Ssm(_))
    }

    /// Looks at what a connection needs and what costs nobody anything; with `warm` also at the
    /// tunnel, which is to be opened ahead.
    async fn look(&self) -> Result<(), SessionError> {
        if self.needs_credentials() {
            self.aws.credentials().await?;
        }
        if matches!(&self.target.via, Via::Ssm(settings) if settings.warm) {
            self.prepare().await?;
        }
        Ok(())
    }

    /// The same; what fails is logged, shown, and tried again in the background.
    pub(in crate::postgres) async fn check_and_note(self: &Arc<Self>, proxy: &Arc<Proxy>) {
        if let Err(error) = self.look().await {
            let about = self.about(None);
            warn_of(&self.target.name, &error, &about);
            self.last_failure.note(&error, &about);
            self.recover(proxy);
        }
    }

    /// One login, as a client that leaves everything to the target.
    async fn log_in_once(self: &Arc<Self>) -> Result<(), (SessionError, Option<Trial>)> {
        let endpoint = self.real_endpoint().await.map_err(|error| (error, None))?;
        let trial = Trial::new(Arc::clone(self), endpoint, APPLICATION);
        let mut trial = trial.map_err(|error| (error, None))?;
        let login = async {
            let dialled = trial.dial().await?;
            let secured = trial.secure(dialled).await?;
            trial.login(secured).await
        };
        match login.await {
            Ok(Outcome::In(session)) => {
                session.leave().await;
                Ok(())
            }
            Ok(Outcome::Asked(_)) => Ok(()),
            Err(error) => Err((error, Some(trial))),
        }
    }

    /// Tries what failed again. What failed at the credentials is over when there are some; no
    /// session is opened to find that out.
    async fn try_again(self: &Arc<Self>) {
        if let Err(error) = self.look().await {
            return self.last_failure.note(&error, &self.about(None));
        }
        if self.last_failure.reached() == Some(Reached::Credentials) {
            self.last_failure.forget();
            return;
        }
        match self.log_in_once().await {
            Ok(()) => {
                self.last_failure.forget();
            }
            Err((error, trial)) => self.last_failure.note(&error, &self.about(trial.as_ref())),
        }
    }

    /// Has the target tried again until it can be reached, if it cannot be: by one task, whoever
    /// asks.
    pub(in crate::postgres) fn recover(self: &Arc<Self>, proxy: &Arc<Proxy>) {
        if self.last_failure.get().is_none() || self.recovering.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let (rooms, proxy) = (Arc::downgrade(self), Arc::clone(proxy));
        tokio::spawn(async move {
            let stop = proxy.stop.clone();
            stop.run_until_cancelled(recovering(rooms, &proxy)).await;
        });
    }
}

/// Ends when the target can be reached, or is no longer served.
async fn recovering(rooms: Weak<Rooms>, proxy: &Arc<Proxy>) {
    let (mut pause, longest) = TRY_AGAIN;
    loop {
        sleep(jitter(pause)).await;
        pause = (pause * 2).min(longest);
        let Some(rooms) = rooms.upgrade() else { return };
        // A client may have been faster.
        if rooms.last_failure.get().is_some() {
            rooms.try_again().await;
        }
        if rooms.last_failure.get().is_some() {
            continue;
        }
        info!(name = rooms.target.name, "the target can be reached again");
        proxy.recovered.notify_waiters();
        rooms.recovering.0.store(false, Ordering::Release);
        // Whoever failed in between found a task at work.
        rooms.recover(proxy);
        return;
    }
}

fn warn_of(target: &str, error: &SessionError, about: &About<'_>) {
    let failure = report::before_login(error, Some(about)).failure();
    let (id, reason) = (failure.id, &failure.message);
    let (detail, hint) = (failure.detail.as_deref(), failure.hint.as_deref());
    warn!(
        name = target,
        id, reason, detail, hint, "the target is not ready; pgiam tries again"
    );
}

/// Finds out what can be known of targets before their first clients, of all at the same time, see
/// `Slot::prepare`; what is not found is looked for further in the background.
pub async fn prepare_all(slots: &[Arc<Slot>], proxy: &Arc<Proxy>) {
    for slot in slots.iter().filter(|slot| slot.ready().is_none()) {
        let (slot, stop) = (Arc::downgrade(slot), proxy.stop.clone());
        let looking = Slot::keep_looking(slot, Arc::clone(proxy));
        tokio::spawn(async move { stop.run_until_cancelled(looking).await });
    }
    let all = slots.iter().map(|slot| slot.prepare(proxy));
    let all = futures_util::future::join_all(all);
    _ = proxy.stop.run_until_cancelled(all).await;
}
