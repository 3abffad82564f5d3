//! Offers a login at the terminal when the session of a profile has ended.

use std::collections::HashMap;
use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
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

/// Pause of a server between two looks at its targets.
const LOOK: Duration = Duration::from_secs(2);
/// Pause of a server before it offers a profile a login again that was refused or failed.
const REFUSED: Duration = Duration::from_secs(60);
/// Pause of a server after an offer that was not needed: the target has yet to recover.
const NOT_NEEDED: Duration = Duration::from_secs(10);

/// Result of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum OfferOutcome {
    /// A login is not the remedy, or this is no terminal.
    NotNeeded,
    /// The input ended.
    Refused,
    /// There is a new login, of this program or another one.
    LoggedIn,
}

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
/// is a terminal, and the user agrees. Costs no request while the session is valid. Waits for a `credential_process`, at a terminal or not. Other faults are left to the
/// command.
///
/// # Errors
/// The login failed.
pub(in crate::commands) async fn offer(aws: &AwsContext) -> anyhow::Result<OfferOutcome> {
    let subject = Subject::of_profile(aws.profile());
    let Ok(files) = aws_files::read().await else {
        return Ok(OfferOutcome::NotNeeded);
    };
    let Ok(plan) = subject.plan(&files) else {
        return Ok(OfferOutcome::NotNeeded);
    };
    if let Login::None(CredentialOrigin::Process(_)) = plan.login {
        wait_for_program(aws).await?;
    }
    if !terminal::is_interactive() {
        return Ok(OfferOutcome::NotNeeded);
    }
    let mut outcome = OfferOutcome::NotNeeded;
    if let Login::Sso(login) = &plan.login {
        let again = format!("pgiam login{}", subject.argument());
        outcome = offer_session(aws, (&plan.profile.name, &again), login).await?;
    }
    if needs_code(&plan) && outcome != OfferOutcome::Refused {
        let loaded = aws.credentials().await;
        if matches!(loaded, Err(CredentialsError::MfaRequired { .. })) {
            mfa::log_in(aws, &plan, &mut MfaCodes::default()).await?;
            outcome = OfferOutcome::LoggedIn;
        }
    }
    Ok(outcome)
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

/// Offers the login to a session. `again` is the command line of this login.
async fn offer_session(
    aws: &AwsContext,
    (profile, again): (&str, &str),
    login: &SsoLogin,
) -> anyhow::Result<OfferOutcome> {
    let Some(question) = question(
        profile,
        login::session_state(login).await,
        SystemTime::now(),
    ) else {
        return Ok(OfferOutcome::NotNeeded);
    };
    if !has_ended(aws).await {
        return Ok(OfferOutcome::NotNeeded);
    }
    terminal::tell(question)?;
    if !entered().await? {
        return Ok(OfferOutcome::Refused);
    }
    // Another program may have logged in while the question was open.
    if !has_ended(aws).await {
        terminal::tell(format!(
            "Another login has renewed the SSO session of {}.",
            name_of(profile)
        ))?;
        return Ok(OfferOutcome::LoggedIn);
    }
    let options = LoginOptions {
        device_code: browser::unseen_here().is_some(),
        ..LoginOptions::default()
    };
    log_in(aws, login, (&options, again)).await?;
    Ok(OfferOutcome::LoggedIn)
}

/// Returns the question for a session; `None` if its token is valid.
fn question(profile: &str, state: SessionState, now: SystemTime) -> Option<String> {
    let name = name_of(profile);
    let ended = match state {
        SessionState::Usable => return None,
        SessionState::Ended(at) => {
            format!("The SSO session of {name} ended at {}.", local(at, now))
        }
        SessionState::Missing => format!("There is no login to the SSO session of {name}."),
    };
    Some(format!("{ended}\nPress Enter to log in, Ctrl-C to stop."))
}

fn name_of(profile: &str) -> String {
    match profile {
        "default" => "the default profile".to_owned(),
        profile => format!("profile {}", printable(profile)),
    }
}

/// The logins that a running server offers. Dropping it ends them.
pub(in crate::commands) struct ServerLogins {
    logged_in: Arc<Notify>,
    _asking: Option<AbortOnDropHandle<()>>,
    _notes: Option<AbortOnDropHandle<()>>,
}

impl ServerLogins {
    /// Offers the logins of these contexts at the terminal, one after the other, and later those of
    /// the contexts that `failing` returns: the targets that lack a login. With `notes`, shows a
    /// desktop notification before a session ends.
    pub(in crate::commands) fn start(
        contexts: Vec<Arc<AwsContext>>,
        failing: impl Fn() -> Vec<Arc<AwsContext>> + Send + 'static,
        notes: bool,
    ) -> Self {
        let watching = note::watch(contexts.clone());
        let logged_in = Arc::new(Notify::new());
        let asking = ask(contexts, failing, Arc::clone(&logged_in));
        let has_terminal = io::stdin().is_terminal();
        Self {
            logged_in,
            _asking: has_terminal.then(|| AbortOnDropHandle::new(tokio::spawn(asking))),
            _notes: notes.then(|| AbortOnDropHandle::new(tokio::spawn(watching))),
        }
    }

    /// Waits for a login at the terminal. Cancel-safe.
    pub(in crate::commands) async fn completed(&self) {
        self.logged_in.notified().await;
    }
}

/// Offers logins until dropped, one at a time.
async fn ask(
    contexts: Vec<Arc<AwsContext>>,
    failing: impl Fn() -> Vec<Arc<AwsContext>> + Send,
    logged_in: Arc<Notify>,
) {
    let (mut due, mut pauses) = (contexts, OfferPauses::default());
    loop {
        // A server in the background is not asked for its input.
        if terminal::is_interactive() {
            for aws in due {
                if !pauses.is_over(aws.profile(), Instant::now()) {
                    continue;
                }
                let outcome = offer(&aws).await.unwrap_or_else(|error| {
                    let reason = error_text::causes(error.as_ref());
                    warn!(reason = reason.trim_end(), "the login failed");
                    OfferOutcome::Refused
                });
                pauses.begin(aws.profile(), outcome, Instant::now());
                if outcome == OfferOutcome::LoggedIn {
                    logged_in.notify_one();
                }
            }
        }
        sleep(LOOK).await;
        due = failing();
    }
}

/// Times before which a profile gets no other offer.
#[derive(Debug, Default)]
struct OfferPauses(HashMap<Option<String>, Instant>);

impl OfferPauses {
    fn is_over(&self, profile: Option<&str>, now: Instant) -> bool {
        let until = self.0.get(&profile.map(str::to_owned));
        until.is_none_or(|until| now >= *until)
    }

    fn begin(&mut self, profile: Option<&str>, outcome: OfferOutcome, now: Instant) {
        let pause = match outcome {
            OfferOutcome::Refused => REFUSED,
            OfferOutcome::NotNeeded | OfferOutcome::LoggedIn => NOT_NEEDED,
        };
        self.0.insert(profile.map(str::to_owned), now + pause);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_the_profile() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let ended = SessionState::Ended(now - Duration::from_secs(60));
        let text = question("dev", ended, now).unwrap();
        assert!(
            text.starts_with("The SSO session of profile dev ended at "),
            "{text}"
        );
        assert_eq!(
            question("default", SessionState::Missing, now).unwrap(),
            "There is no login to the SSO session of the default profile.\n\
             Press Enter to log in, Ctrl-C to stop."
        );
        assert_eq!(question("dev", SessionState::Usable, now), None);
    }

    #[test]
    fn a_refused_offer_comes_again_after_a_minute() {
        let (mut pauses, now) = (OfferPauses::default(), Instant::now());
        assert!(pauses.is_over(Some("dev"), now));
        pauses.begin(Some("dev"), OfferOutcome::Refused, now);
        assert!(!pauses.is_over(Some("dev"), now + Duration::from_secs(59)));
        assert!(pauses.is_over(None, now));
        assert!(pauses.is_over(Some("dev"), now + REFUSED));
        pauses.begin(Some("dev"), OfferOutcome::LoggedIn, now);
        assert!(pauses.is_over(Some("dev"), now + NOT_NEEDED));
    }
}
