//! Unreachable targets: detected before the first client if possible, and retried in the background
//! until they recover.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::base::jitter::jitter;
use crate::base::names::TargetName;
use crate::failure::connection::ConnectionError;
use crate::postgres::database::login_steps::{LoginCheck, LoginOutcome};
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgContext;
use crate::postgres::target::PgTarget;
use crate::report::{self, ErrorContext, Explanation};

/// First and longest pause before an unreachable target is retried; it doubles. Health checks
/// usually pause for less than the first value. The longest notices `pgiam login` within a minute
/// when no client connects.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// First and longest pause before the next lookup of a database that was not found; it doubles.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// `application_name` of a login in the background.
const APPLICATION: &str = "pgiam";

impl PgTarget {
    /// Looks up the database until it is found. Clients cannot be relied on to trigger the lookup:
    /// a load balancer that waits for readiness sends none. Ends when the target is removed.
    async fn keep_looking(served: Weak<Self>, proxy: Arc<Proxy>) {
        let (mut pause, longest) = LOOK_AGAIN;
        let mut failed = false;
        loop {
            let Some(served) = served.upgrade() else {
                return;
            };
            match served.context().await {
                // `prepare` shares the first lookup, and continues from its result.
                Ok(_) if !failed => return,
                Ok(context) => {
                    context.check_and_note(&proxy).await;
                    proxy.serving.recovered.notify_waiters();
                    return;
                }
                Err(_) => failed = true,
            }
            drop(served);
            sleep(jitter(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Checks a target before its first client: the database lookup, the AWS credentials, and with
    /// `warm` the tunnel. Failures are logged, displayed, and retried in the background. Takes at
    /// most as long as the timeouts of the target.
    pub(in crate::postgres) async fn prepare(&self, proxy: &Arc<Proxy>) {
        let name = &self.config.name;
        match self.context().await {
            Ok(context) => context.check_and_note(proxy).await,
            Err(error) => {
                let target = self.provisional();
                warn_of(name, &error, &ErrorContext::target(&target));
            }
        }
        // Clients that have stopped waiting for the target.
        proxy.serving.recovered.notify_waiters();
    }

    /// Logs in once, as a client that names neither user nor database.
    ///
    /// # Errors
    /// The reason, in the same text that a client would get.
    pub async fn test(&self) -> Result<(), Explanation> {
        let context = self.context().await.map_err(|error| {
            let target = self.provisional();
            report::explain(&error, Some(&ErrorContext::target(&target)))
        })?;
        match context.log_in_once().await {
            Ok(()) => {
                context.last_failure.forget();
                Ok(())
            }
            Err(LoginFailure { error, login_check }) => {
                let about = context.about(login_check.as_ref());
                context.last_failure.note(&error, &about);
                Err(report::explain(&error, Some(&about)))
            }
        }
    }
}

/// A login without a client that failed.
struct LoginFailure {
    error: ConnectionError,
    /// Progress of the login; `None` if it failed before the first step.
    login_check: Option<LoginCheck>,
}

impl From<ConnectionError> for LoginFailure {
    fn from(error: ConnectionError) -> Self {
        let login_check = None;
        Self { error, login_check }
    }
}

impl PgContext {
    /// Checks the target; failures are logged, displayed, and retried in the background.
    pub(in crate::postgres) async fn check_and_note(self: &Arc<Self>, proxy: &Arc<Proxy>) {
        if let Err(error) = self.check_prerequisites().await {
            let about = self.about(None);
            warn_of(&self.target.name, &error, &about);
            self.last_failure.note(&error, &about);
            self.recover(proxy);
        } else if self.last_failure.credentials_missing() {
            // A login has ended the failure.
            self.last_failure.forget();
        }
    }

    /// Logs in once, as a client that names neither user nor database.
    async fn log_in_once(self: &Arc<Self>) -> Result<(), LoginFailure> {
        let endpoint = self.endpoint().await?;
        let mut login_check = LoginCheck::new(Arc::clone(self), endpoint, APPLICATION)?;
        let login = async {
            let dialled = login_check.dial().await?;
            let secured = login_check.secure(dialled).await?;
            login_check.login(secured).await
        };
        match login.await {
            Ok(LoginOutcome::In(session)) => {
                session.leave().await;
                Ok(())
            }
            Ok(LoginOutcome::Asked(_)) => Ok(()),
            Err(error) => Err(LoginFailure {
                error,
                login_check: Some(login_check),
            }),
        }
    }

    /// Retries after a failure. If credentials were missing, it is over as soon as there are some;
    /// no session is opened to find out.
    /// A `credential_process` that has failed is not run again without a client: it may open a
    /// window.
    async fn try_again(self: &Arc<Self>) {
        if self.last_failure.credentials_missing() && self.aws.would_repeat_program() {
            return;
        }
        if let Err(error) = self.check_prerequisites().await {
            return self.last_failure.note(&error, &self.about(None));
        }
        if self.last_failure.credentials_missing() {
            self.last_failure.forget();
            return;
        }
        match self.log_in_once().await {
            Ok(()) => {
                self.last_failure.forget();
            }
            Err(LoginFailure { error, login_check }) => self
                .last_failure
                .note(&error, &self.about(login_check.as_ref())),
        }
    }

    /// Starts the background task that retries an unreachable target. At most one task runs per
    /// target.
    pub(in crate::postgres) fn recover(self: &Arc<Self>, proxy: &Arc<Proxy>) {
        if self.last_failure.get().is_none() || self.recovering.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let (context, proxy) = (Arc::downgrade(self), Arc::clone(proxy));
        tokio::spawn(async move {
            let stop = proxy.serving.stop.clone();
            stop.run_until_cancelled(recovering(context, &proxy)).await;
        });
    }
}

/// Retries until the target can be reached, or is removed.
async fn recovering(context: Weak<PgContext>, proxy: &Arc<Proxy>) {
    let (mut pause, longest) = TRY_AGAIN;
    loop {
        sleep(jitter(pause)).await;
        pause = (pause * 2).min(longest);
        let Some(context) = context.upgrade() else {
            return;
        };
        // A client may have succeeded meanwhile.
        if context.last_failure.get().is_some() {
            context.try_again().await;
        }
        if context.last_failure.get().is_some() {
            continue;
        }
        info!(
            name = context.target.name.as_str(),
            "the target is ready again"
        );
        proxy.serving.recovered.notify_waiters();
        context.recovering.0.store(false, Ordering::Release);
        // A failure before this point started no new task, because this one was still running.
        context.recover(proxy);
        return;
    }
}

fn warn_of(target: &TargetName, error: &ConnectionError, about: &ErrorContext<'_>) {
    let failure = report::before_login(error, Some(about)).failure();
    let (id, reason) = (failure.id, &failure.message);
    let (detail, hint) = (failure.detail.as_deref(), failure.hint.as_deref());
    warn!(
        name = target.as_str(),
        id, reason, detail, hint, "the target is not ready; retrying"
    );
}

/// Checks all targets at the same time before their first clients, see `PgTarget::prepare`. Lookups
/// that fail continue in the background.
pub async fn prepare_all(targets: &[Arc<PgTarget>], proxy: &Arc<Proxy>) {
    for served in targets.iter().filter(|served| served.ready().is_none()) {
        let (served, stop) = (Arc::downgrade(served), proxy.serving.stop.clone());
        let looking = PgTarget::keep_looking(served, Arc::clone(proxy));
        tokio::spawn(async move { stop.run_until_cancelled(looking).await });
    }
    let all = targets.iter().map(|served| served.prepare(proxy));
    let all = futures_util::future::join_all(all);
    _ = proxy.serving.stop.run_until_cancelled(all).await;
}
