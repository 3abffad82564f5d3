//! Offers a login at the terminal when the session of a profile has ended.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::mfa::{self, MfaCodes};
use super::{Subject, log_in, needs_code};
use crate::aws::{AwsContext, AwsOptions, CredentialsError};
use crate::base::error_text;
use crate::base::local_time::local;
use crate::base::quote::printable;
use crate::cli::terminal::{self, Progress};
use crate::config::{Auth, TargetConfig, Via};
use crate::login::plan::{CredentialOrigin, Login};
use crate::login::{self, LoginOptions, SessionState, SsoLogin, aws_files, browser, note};

/// Logs in like [`offer`], for the profile of a target. A target that needs no AWS offers nothing.
///
/// # Errors
/// The login failed.
pub(in crate::commands) async fn offer_for_target(config: &TargetConfig) -> anyhow::Result<()> {
    match needs_aws(config) {
        true => offer_for(config.settings.profile.as_deref()).await,
        false => Ok(()),
    }
}

/// Returns `true` if connections to the target need AWS credentials.
pub(in crate::commands) fn needs_aws(config: &TargetConfig) -> bool {
    let is_iam = config.settings.login.auth == Auth::Iam;
    is_iam || config.settings.via != Via::Direct || config.rds_identifier().is_some()
}

/// Logs in like [`offer`], for a command that has no context yet.
///
/// # Errors
/// The login failed.
pub(in crate::commands) async fn offer_for(profile: Option<&str>) -> anyhow::Result<()> {
    offer(&AwsContext::new(AwsOptions {
        profile: profile.map(str::to_owned),
        ..AwsOptions::default()
    }))
    .await
    .map(|_| ())
}

/// Logs in if the session of the context's profile has ended, or if its role needs an MFA code, this
/// is a terminal, and the user agrees; returns `true` then. Costs no request while the session is
/// valid. Waits for a `credential_process`, at a terminal or not. Other faults are left to the
/// command.
///
/// # Errors
/// The login failed.
pub(in crate::commands) async fn offer(aws: &AwsContext) -> anyhow::Result<bool> {
    let subject = Subject::of_profile(aws.profile());
    let Ok(files) = aws_files::read().await else {
        return Ok(false);
    };
    let Ok(plan) = subject.plan(&files) else {
        return Ok(false);
    };
    if let Login::None(CredentialOrigin::Process(_)) = plan.login {
        wait_for_program(aws).await?;
    }
    if !terminal::is_interactive() {
        return Ok(false);
    }
    let mut logged_in = false;
    if let Login::Sso(login) = &plan.login {
        logged_in = offer_session(aws, &subject, login).await?;
    }
    if needs_code(&plan) {
        let loaded = aws.credentials().await;
        if matches!(loaded, Err(CredentialsError::MfaRequired { .. })) {
            mfa::log_in(aws, &plan, &mut MfaCodes::default()).await?;
            logged_in = true;
        }
    }
    Ok(logged_in)
}

/// Waits until the program of a profile has printed its credentials, or has failed. It may wait for
/// a person, longer than a connection waits for credentials.
async fn wait_for_program(aws: &AwsContext) -> anyhow::Result<()> {
    let loading = async {
        let _progress = Progress::start("getting AWS credentials");
        aws.credentials().await
    };
    let mut loaded = loading.await;
    while let Err(CredentialsError::Timeout {
        process: Some(running),
        ..
    }) = loaded
    {
        terminal::tell(format!("Waiting for {running}. Ctrl-C to stop."))?;
        loaded = aws.credentials().await;
    }
    Ok(())
}

async fn offer_session(
    aws: &AwsContext,
    subject: &Subject,
    login: &SsoLogin,
) -> anyhow::Result<bool> {
    let question = match login::session_state(login).await {
        SessionState::Usable => return Ok(false),
        SessionState::Ended(at) => format!(
            "The SSO session of {} ended at {}.",
            printable(&subject.name()),
            local(at, SystemTime::now())
        ),
        SessionState::Missing => format!(
            "There is no login to the SSO session of {}.",
            printable(&subject.name())
        ),
    };
    if !has_ended(aws).await {
        return Ok(false);
    }
    terminal::tell(format!(
        "{question}\nPress Enter to log in, Ctrl-C to stop."
    ))?;
    if !entered().await? {
        return Ok(false);
    }
    let options = LoginOptions {
        device_code: browser::unseen_here().is_some(),
        ..LoginOptions::default()
    };
    let again = format!("pgiam login{}", subject.argument());
    log_in(aws, login, (&options, &again)).await?;
    Ok(true)
}

/// The logins that a running server offers. Dropping it ends them.
pub(in crate::commands) struct ServerLogins {
    /// Yields `true` after a login; `None` when it has ended.
    asking: Option<AbortOnDropHandle<bool>>,
    _notes: Option<AbortOnDropHandle<()>>,
}

impl ServerLogins {
    /// Offers the logins of these contexts at the terminal, one after the other. With `notes`, shows
    /// a desktop notification before a session ends.
    pub(in crate::commands) fn start(contexts: Vec<Arc<AwsContext>>, notes: bool) -> Self {
        let watching = note::watch(contexts.clone());
        Self {
            asking: Some(AbortOnDropHandle::new(tokio::spawn(offer_each(contexts)))),
            _notes: notes.then(|| AbortOnDropHandle::new(tokio::spawn(watching))),
        }
    }

    /// Waits for a login at the terminal. Cancel-safe.
    pub(in crate::commands) async fn completed(&mut self) {
        if let Some(asking) = &mut self.asking {
            let logged_in = asking.await.unwrap_or_default();
            self.asking = None;
            if logged_in {
                return;
            }
        }
        std::future::pending().await
    }
}

/// Returns `true` after a login, `false` if none was offered or completed.
async fn offer_each(contexts: Vec<Arc<AwsContext>>) -> bool {
    let mut profiles = Vec::new();
    let mut logged_in = false;
    for aws in contexts {
        let profile = aws.profile().map(str::to_owned);
        if profiles.contains(&profile) {
            continue;
        }
        profiles.push(profile);
        match offer(&aws).await {
            Ok(done) => logged_in |= done,
            Err(error) => {
                let reason = error_text::causes(error.as_ref());
                warn!(reason = reason.trim_end(), "the login failed");
            }
        }
    }
    logged_in
}

/// Returns `true` if there are no credentials for lack of a login. They are still there if the
/// session can be renewed, or if the keys of the role are valid.
async fn has_ended(aws: &AwsContext) -> bool {
    let _progress = Progress::start("renewing the SSO session");
    let loaded = aws.credentials().await;
    loaded.is_err_and(|error| login::is_remedy(&error))
}

/// Waits for Enter. Returns `false` at the end of the input.
async fn entered() -> io::Result<bool> {
    let read = || {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)
    };
    let read = spawn_blocking(read).await.map_err(io::Error::other)??;
    Ok(read > 0)
}
