//! Logins that the first client of a running server starts, with `login = "browser"`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_profile::Request;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::plan::{Login, LoginPlan};
use super::{LoginEvent, LoginOptions, SsoLogin, aws_files, browser};
use crate::aws::AwsContext;
use crate::base::background;
use crate::base::local_time::local;

/// The step in which a client waits, as a noun.
pub const LOGIN_STEP: &str = "the login to AWS in the browser";
/// Pause after a login that failed or was not completed: a client that connects again and again
/// must not open one window after the other.
const PAUSE: Duration = Duration::from_secs(600);

/// The logins of a server. There is at most one at a time for each session.
#[derive(Debug, Default)]
pub struct BackgroundLogins {
    runs: Mutex<HashMap<String, LoginRun>>,
}

#[derive(Debug)]
enum LoginRun {
    Running {
        /// Ends when the sender is dropped.
        end: watch::Receiver<()>,
        /// Profiles whose clients wait for it.
        profiles: Vec<Option<String>>,
    },
    Failed(Instant),
}

impl BackgroundLogins {
    /// Waits until the context has credentials, if all it lacks is a login to IAM Identity Center.
    /// Opens the browser unless a login is running, or one has failed within 10 minutes. Returns at
    /// once if loaded credentials are valid, if a login is not the remedy, or if the user would not
    /// see the browser. Returns `true` after a login, completed or not.
    ///
    /// Cancel-safe: the login continues, and serves later clients.
    pub async fn wait(self: &Arc<Self>, aws: &Arc<AwsContext>) -> bool {
        let now = SystemTime::now();
        let is_valid = |ends_at: Option<SystemTime>| ends_at.is_none_or(|at| at > now);
        if aws.loaded_identity().is_some_and(|it| is_valid(it.ends_at)) {
            return false;
        }
        if browser::unseen_here().is_some() || !lacks_login(aws).await {
            return false;
        }
        let Some(login) = sso_login(aws.profile()).await else {
            return false;
        };
        let Some(mut running) = self.join(aws, login) else {
            return false;
        };
        // The sender sends nothing; it is dropped at the end.
        _ = running.changed().await;
        true
    }

    /// Returns `true` while clients of this context wait for a login.
    #[must_use]
    pub fn is_running(&self, aws: &AwsContext) -> bool {
        self.is_running_for(aws.profile())
    }

    fn is_running_for(&self, profile: Option<&str>) -> bool {
        self.lock().values().any(|run| match run {
            LoginRun::Running { profiles, .. } => {
                profiles.iter().any(|waiting| waiting.as_deref() == profile)
            }
            LoginRun::Failed(_) => false,
        })
    }

    /// Returns the end of the running login, after starting one if needed; `None` during the pause.
    fn join(
        self: &Arc<Self>,
        aws: &Arc<AwsContext>,
        login: SsoLogin,
    ) -> Option<watch::Receiver<()>> {
        let aws = Arc::clone(aws);
        let (name, profile) = (login.name().to_owned(), aws.profile().map(str::to_owned));
        self.join_run(name, profile, async move {
            // A login that cures nothing must not open a window for each client.
            log_in(&aws, &login).await && !lacks_login(&aws).await
        })
    }

    /// Joins the run of this name like [`BackgroundLogins::join`]. A new one executes `run`, which
    /// returns `true` on success.
    fn join_run(
        self: &Arc<Self>,
        name: String,
        profile: Option<String>,
        run: impl Future<Output = bool> + Send + 'static,
    ) -> Option<watch::Receiver<()>> {
        let mut runs = self.lock();
        match runs.get_mut(&name) {
            Some(LoginRun::Running { end, profiles }) => {
                if !profiles.contains(&profile) {
                    profiles.push(profile);
                }
                return Some(end.clone());
            }
            Some(LoginRun::Failed(at)) if at.elapsed() < PAUSE => return None,
            Some(LoginRun::Failed(_)) | None => {}
        }
        let (sender, end) = watch::channel(());
        let running = LoginRun::Running {
            end: end.clone(),
            profiles: vec![profile],
        };
        runs.insert(name.clone(), running);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let done = background::outcome(run).await;
            let mut runs = this.lock();
            match done.unwrap_or_default() {
                true => runs.remove(&name),
                false => runs.insert(name, LoginRun::Failed(Instant::now())),
            };
            drop(sender);
        });
        Some(end)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, LoginRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if a login is the remedy for missing credentials.
async fn lacks_login(aws: &AwsContext) -> bool {
    let loaded = aws.credentials().await;
    loaded.is_err_and(|error| super::is_remedy(&error))
}

/// Logs in with the browser. Returns `true` if the login succeeded. Ends if the browser fails to
/// open, because the clients would wait for a page that the user does not see.
async fn log_in(aws: &AwsContext, login: &SsoLogin) -> bool {
    let session = login.name();
    info!(session, "opening the browser for a login to AWS");
    let config = match aws.sdk_config().await {
        Ok(config) => config,
        Err(error) => {
            warn!(session, %error, "the login to AWS failed");
            return false;
        }
    };
    let unseen = CancellationToken::new();
    let mut tell = |event: LoginEvent<'_>| match event {
        LoginEvent::NoBrowser(reason) => {
            warn!(session, %reason, "cannot open the browser; log in with: pgiam login");
            unseen.cancel();
        }
        LoginEvent::DeviceCode { code, .. } => info!(session, code, "compare the code on the page"),
        LoginEvent::Page { .. } => {}
    };
    let options = LoginOptions::default();
    let logged_in = tokio::select! {
        logged_in = super::sso(&config, login, &options, &mut tell) => logged_in,
        () = unseen.cancelled() => return false,
    };
    match logged_in {
        Ok(logged_in) => {
            let until = local(logged_in.until, SystemTime::now());
            info!(session, until, "logged in to AWS");
            true
        }
        Err(error) => {
            let pause = PAUSE.as_secs() / 60;
            warn!(session, %error, "the login to AWS failed; clients open no browser for {pause} minutes");
            false
        }
    }
}

/// Returns the login of a profile, if it is one to IAM Identity Center.
pub(super) async fn sso_login(profile: Option<&str>) -> Option<SsoLogin> {
    let files = aws_files::read().await.ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let request = Request {
        profile,
        now: now.map_or(0, |now| now.as_secs().cast_signed()),
        ..Request::default()
    };
    let plan = LoginPlan::of_profile(&request, &aws_files::variable, &files).ok()?;
    match plan.login {
        Login::Sso(login) => Some(login),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    type Ending = oneshot::Sender<bool>;

    /// Joins the login to `session`; its end is the first value if it is new.
    fn join(
        logins: &Arc<BackgroundLogins>,
        session: &str,
        profile: &str,
    ) -> (Ending, Option<watch::Receiver<()>>) {
        let (ending, ended) = oneshot::channel();
        let run = async move { ended.await.unwrap_or_default() };
        let joined = logins.join_run(session.to_owned(), Some(profile.to_owned()), run);
        (ending, joined)
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_cures_nothing_is_followed_by_a_pause() {
        let logins: Arc<BackgroundLogins> = Arc::default();
        for (is_cured, joins_again) in [(true, true), (false, false)] {
            let (ending, first) = join(&logins, "corp", "dev");
            ending.send(is_cured).unwrap();
            assert!(first.unwrap().changed().await.is_err());
            let (ending, again) = join(&logins, "corp", "dev");
            assert_eq!(again.is_some(), joins_again, "cured: {is_cured}");
            if let Some(mut again) = again {
                ending.send(true).unwrap();
                assert!(again.changed().await.is_err());
            }
        }
        tokio::time::advance(PAUSE).await;
        assert!(join(&logins, "corp", "dev").1.is_some());
    }

    #[tokio::test]
    async fn only_the_profiles_of_a_session_wait_for_its_login() {
        let logins: Arc<BackgroundLogins> = Arc::default();
        let (ending, end) = join(&logins, "corp", "dev");
        let (_, joined) = join(&logins, "corp", "admin");
        assert!(joined.is_some());
        for (profile, expected) in [("dev", true), ("admin", true), ("other", false)] {
            assert_eq!(logins.is_running_for(Some(profile)), expected, "{profile}");
        }
        ending.send(true).unwrap();
        assert!(end.unwrap().changed().await.is_err());
        assert!(!logins.is_running_for(Some("dev")));
    }
}
