//! Logins that the first client of a running server starts, with `login = "browser"`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_profile::Request;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::plan::{Login, LoginPlan};
use super::{LoginEvent, LoginOptions, SsoLogin, aws_files};
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
    /// Ends when the sender is dropped.
    Running(watch::Receiver<()>),
    Failed(Instant),
}

impl BackgroundLogins {
    /// Waits until the context has credentials, if all it lacks is a login to IAM Identity Center.
    /// Opens the browser unless a login is running, or one has failed within 10 minutes. Returns at
    /// once if the credentials are valid, or if a login is not the remedy.
    ///
    /// Cancel-safe: the login continues, and serves later clients.
    pub async fn wait(self: &Arc<Self>, aws: &Arc<AwsContext>) {
        let Err(error) = aws.credentials().await else {
            return;
        };
        if !super::is_remedy(&error) {
            return;
        }
        let Some(login) = sso_login(aws.profile()).await else {
            return;
        };
        if let Some(mut running) = self.join(aws, login) {
            // The sender sends nothing; it is dropped at the end.
            _ = running.changed().await;
        }
    }

    /// Returns `true` while a login is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let runs = self.lock();
        runs.values().any(|run| matches!(run, LoginRun::Running(_)))
    }

    /// Returns the end of the running login, after starting one if needed; `None` during the pause.
    fn join(
        self: &Arc<Self>,
        aws: &Arc<AwsContext>,
        login: SsoLogin,
    ) -> Option<watch::Receiver<()>> {
        let mut runs = self.lock();
        match runs.get(login.name()) {
            Some(LoginRun::Running(end)) => return Some(end.clone()),
            Some(LoginRun::Failed(at)) if at.elapsed() < PAUSE => return None,
            Some(LoginRun::Failed(_)) | None => {}
        }
        let (sender, end) = watch::channel(());
        let name = login.name().to_owned();
        runs.insert(name.clone(), LoginRun::Running(end.clone()));
        let (this, aws) = (Arc::clone(self), Arc::clone(aws));
        tokio::spawn(async move {
            let done = background::outcome(log_in(&aws, &login)).await;
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

/// Logs in with the browser. Returns `true` if the login succeeded.
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
    let mut tell = |event: LoginEvent<'_>| match event {
        LoginEvent::NoBrowser(reason) => {
            warn!(session, %reason, "cannot open the browser; log in with: pgiam login");
        }
        LoginEvent::DeviceCode { code, .. } => info!(session, code, "compare the code on the page"),
        LoginEvent::Page { .. } => {}
    };
    match super::sso(&config, login, &LoginOptions::default(), &mut tell).await {
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
