//! Tokens of IAM Identity Center, and their refresh.
//!
//! A refresh token can be used once. One task at a time refreshes a token in this process, for all
//! profiles; it is not cancelled with its caller, because the answer would be lost. Another process
//! may refresh the same token: after a refusal the file is read again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_profile::{
    CacheDir, Freshness, NewAccess, NotRefreshable, SecretText, SsoCacheKey, SsoToken,
};
use aws_sdk_ssooidc::Client;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info, warn};

use super::{CALL_DEADLINE, NotRefreshed, SsoError, SsoPortal, time};
use crate::aws::cache_files::CacheFileError;
use crate::aws::call_error::{CallError, call};
use crate::base::background;
use crate::base::redacted::remember;

const CREATE_TOKEN: &str = "sso-oauth:CreateToken";
const GRANT_TYPE: &str = "refresh_token";

/// Seconds between two refreshes of a token while it is valid, and after a refusal (the AWS CLI's
/// `_attempt_timeout`).
const BETWEEN_ATTEMPTS: i64 = 60;
/// Pauses before the file is read again after a refusal: the program that used the refresh token
/// before has its answer within a round trip, and writes it then.
const PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

/// State of one token file in this process.
#[derive(Debug, Default)]
struct RefreshState {
    /// Number of failed attempts; a caller that waited for one does not repeat it.
    failures: AtomicU64,
    /// The last failure. The lock is held during an attempt.
    last: tokio::sync::Mutex<Option<FailedRefresh>>,
}

#[derive(Debug)]
struct FailedRefresh {
    /// Time in seconds since 1970.
    at: i64,
    /// The token that was to be refreshed.
    access_token: SecretText,
    reason: RefreshFailure,
}

#[derive(Clone, Debug)]
enum RefreshFailure {
    /// Without a request.
    Impossible(NotRefreshable),
    /// The new token could not be written. Nothing was sent, because the refresh token can be used
    /// only once.
    Unwritable(CacheFileError),
    Call(CallError),
}

impl RefreshFailure {
    fn is_refusal(&self) -> bool {
        match self {
            Self::Impossible(_) => true,
            Self::Unwritable(_) => false,
            Self::Call(error) => error.is_refusal(),
        }
    }
}

static STATES: LazyLock<Mutex<HashMap<PathBuf, Arc<RefreshState>>>> = LazyLock::new(Mutex::default);

fn state(path: PathBuf) -> Arc<RefreshState> {
    let mut states = STATES.lock().unwrap_or_else(PoisonError::into_inner);
    states.entry(path).or_default().clone()
}

/// A key without a lifetime, for a task.
struct OwnedKey {
    session: String,
    start_url: String,
    region: String,
}

impl OwnedKey {
    fn as_key(&self) -> SsoCacheKey<'_> {
        SsoCacheKey {
            session: Some(&self.session),
            start_url: &self.start_url,
            region: &self.region,
            registration_scopes: None,
        }
    }
}

impl SsoPortal {
    /// Returns a token that has not expired. A token of a session is refreshed if less than 15
    /// minutes remain, at most once a minute, and used as it is if that fails while it is valid.
    /// Cancel-safe: a refresh that began continues, and its token is written.
    ///
    /// # Errors
    /// [`SsoError`].
    pub async fn token(&self, key: &SsoCacheKey<'_>) -> Result<SsoToken, SsoError> {
        let token = self.read_token(key).await?;
        match (token.freshness(self.now()), key.session) {
            (Freshness::Fresh, _) | (Freshness::Ageing, None) => Ok(token),
            (Freshness::Expired, None) => Err(SsoError::Expired {
                login: key.into(),
                at: time(token.expires_at),
                reason: NotRefreshed::WithoutSession,
            }),
            (Freshness::Ageing | Freshness::Expired, Some(session)) => {
                let key = OwnedKey {
                    session: session.to_owned(),
                    start_url: key.start_url.to_owned(),
                    region: key.region.to_owned(),
                };
                let portal = self.clone();
                let task = async move { portal.refreshed(&key.as_key()).await };
                let task = background::outcome(task).in_current_span();
                match tokio::spawn(task).await {
                    Ok(outcome) => outcome?,
                    Err(_) => Err(background::TaskStopped.into()),
                }
            }
        }
    }

    async fn read_token(&self, key: &SsoCacheKey<'_>) -> Result<SsoToken, SsoError> {
        let name = key.token_file();
        let token = self
            .files
            .read(CacheDir::Sso, &name, SsoToken::parse)
            .await?;
        let token = token.ok_or_else(|| SsoError::NotLoggedIn { login: key.into() })?;
        remember(token.access_token.expose());
        for secret in [&token.refresh_token, &token.client_secret]
            .into_iter()
            .flatten()
        {
            remember(secret.expose());
        }
        Ok(token)
    }

    /// Refreshes a token unless another task or program did so, or a failure stands.
    async fn refreshed(&self, key: &SsoCacheKey<'_>) -> Result<SsoToken, SsoError> {
        let state = state(self.files.path(CacheDir::Sso, &key.token_file()));
        let failures = state.failures.load(Ordering::SeqCst);
        let mut last = state.last.lock().await;
        let has_waited = failures != state.failures.load(Ordering::SeqCst);
        let token = self.read_token(key).await?;
        let freshness = token.freshness(self.now());
        if freshness == Freshness::Fresh {
            return Ok(token);
        }
        let stands = last.as_ref().filter(|failed| {
            let passed = self.now().saturating_sub(failed.at);
            let is_recent = (0..BETWEEN_ATTEMPTS).contains(&passed)
                && (freshness == Freshness::Ageing || failed.reason.is_refusal());
            failed.access_token == token.access_token && (has_waited || is_recent)
        });
        let (reason, is_new) = match stands {
            Some(failed) => (failed.reason.clone(), false),
            None => {
                let config = self.config_in(key.region)?;
                match self.refresh(key, &token, &config).await {
                    Ok(new) => {
                        *last = None;
                        return Ok(new);
                    }
                    Err(reason) => (reason, true),
                }
            }
        };
        debug!(
            ?reason,
            "did not refresh the SSO token of {}",
            key.token_file()
        );
        if is_new {
            state.failures.fetch_add(1, Ordering::SeqCst);
            *last = Some(FailedRefresh {
                at: self.now(),
                access_token: token.access_token.clone(),
                reason: reason.clone(),
            });
        }
        if token.freshness(self.now()) != Freshness::Expired {
            return Ok(token);
        }
        if is_new
            && let RefreshFailure::Call(error) = &reason
            && error.is_refusal()
            && let Some(new) = self.token_of_another(key, &token).await
        {
            return Ok(new);
        }
        Err(expired(key, &token, reason))
    }

    /// Sends a refresh and writes the new token.
    async fn refresh(
        &self,
        key: &SsoCacheKey<'_>,
        token: &SsoToken,
        config: &SdkConfig,
    ) -> Result<SsoToken, RefreshFailure> {
        let grant = token.refresh_grant(self.now());
        let grant = grant.map_err(RefreshFailure::Impossible)?;
        let name = key.token_file();
        let pending = self.files.begin_write(CacheDir::Sso, &name).await;
        let pending = pending.map_err(RefreshFailure::Unwritable)?;
        let asked = Client::new(config)
            .create_token()
            .grant_type(GRANT_TYPE)
            .client_id(grant.client_id)
            .client_secret(grant.client_secret.expose())
            .refresh_token(grant.refresh_token.expose());
        let until = Instant::now() + CALL_DEADLINE;
        let answer = call(CREATE_TOKEN, until, asked.send()).await;
        let answer = answer.map_err(RefreshFailure::Call)?;
        let incomplete = |reason: &str| {
            let reason = reason.into();
            RefreshFailure::Call(CallError::Answer {
                action: CREATE_TOKEN,
                reason,
            })
        };
        let access_token = answer
            .access_token
            .ok_or_else(|| incomplete("no access token"))?;
        remember(&access_token);
        if let Some(next) = &answer.refresh_token {
            remember(next);
        }
        let new = NewAccess {
            access_token: SecretText::new(access_token),
            expires_at: self.now().saturating_add(answer.expires_in.into()),
            refresh_token: answer.refresh_token.map(SecretText::new),
        };
        let new = token.refreshed(new, key);
        if new.freshness(self.now()) == Freshness::Expired {
            return Err(incomplete("the new token has no lifetime"));
        }
        // A logout or a login meanwhile decides about the file.
        let stored = self.read_token(key).await;
        if !stored.is_ok_and(|stored| stored.access_token == token.access_token) {
            debug!("the SSO token was replaced or removed during its refresh");
            return Ok(new);
        }
        match pending.commit(new.to_json()).await {
            Ok(()) => info!(expires_in = answer.expires_in, "refreshed the SSO token"),
            // The old refresh token has been used; the next refresh will be refused.
            Err(error) => warn!(%error, "the refreshed SSO token is not stored"),
        }
        Ok(new)
    }

    /// Returns the token that another program wrote after it used the refresh token.
    async fn token_of_another(&self, key: &SsoCacheKey<'_>, old: &SsoToken) -> Option<SsoToken> {
        for pause in PAUSES {
            sleep(pause).await;
            let token = self.read_token(key).await.ok()?;
            let is_valid = token.freshness(self.now()) != Freshness::Expired;
            if token.access_token != old.access_token && is_valid {
                debug!("another program refreshed the SSO token");
                return Some(token);
            }
        }
        None
    }
}

/// Returns the error for an expired token. A failure that may pass is not one of the login.
fn expired(key: &SsoCacheKey<'_>, token: &SsoToken, reason: RefreshFailure) -> SsoError {
    let reason = match reason {
        RefreshFailure::Impossible(reason) => NotRefreshed::Token(reason),
        RefreshFailure::Call(error) if error.is_refusal() => NotRefreshed::Refused(error),
        RefreshFailure::Call(error) => return error.into(),
        RefreshFailure::Unwritable(error) => return error.into(),
    };
    SsoError::Expired {
        login: key.into(),
        at: time(token.expires_at),
        reason,
    }
}
