//! Logs in to AWS as a person: IAM Identity Center in a browser or with a device code, and MFA
//! codes. Logs out, too.
//!
//! Facts about the services and the files are from the IAM Identity Center OIDC API Reference and
//! from the AWS CLI 2.36, whose logins pgiam shares.

pub mod aws_files;
pub mod background;
pub mod browser;
mod callback;
mod console;
mod device;
mod error;
pub mod logout;
pub mod new_profile;
pub mod note;
mod oidc;
mod pkce;
pub mod plan;
mod registration;
mod start_url;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_profile::{CacheDir, Freshness, GrantKind, SecretText, SsoCacheKey, SsoToken, UnknownKeys};

pub use console::ConsoleLogin;
pub use device::qr_code;
pub use error::LoginError;

use crate::aws::CredentialsError;
use crate::aws::cache_files::CacheFiles;
use callback::CallbackListener;
use oidc::{IssuedToken, Oidc};
use pkce::Returned;

/// A login to IAM Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsoLogin {
    /// Name of the `[sso-session …]` section; `None` for a profile with a start URL of its own.
    pub session: Option<String>,
    /// `sso_start_url`.
    pub start_url: String,
    /// `sso_region`.
    pub region: String,
    /// `sso_registration_scopes`, a list with commas; `None` if not set.
    pub scopes: Option<String>,
}

impl SsoLogin {
    /// Returns the settings that name the cache files.
    #[must_use]
    pub fn key(&self) -> SsoCacheKey<'_> {
        SsoCacheKey {
            session: self.session.as_deref(),
            start_url: &self.start_url,
            region: &self.region,
            registration_scopes: self.scopes.as_deref(),
        }
    }

    /// Returns the name for messages: that of the session, else the start URL.
    #[must_use]
    pub fn name(&self) -> &str {
        self.session.as_deref().unwrap_or(&self.start_url)
    }
}

/// Choices of the user for a login.
#[derive(Clone, Debug, Default)]
pub struct LoginOptions {
    /// Use a device code even if the profile has a session.
    pub device_code: bool,
    /// Do not open the browser.
    pub no_browser: bool,
    /// Port of the redirect on 127.0.0.1; `None`: a free one.
    pub redirect_port: Option<u16>,
}

/// Progress of a login, to be shown to the user.
#[derive(Debug)]
pub enum LoginEvent<'a> {
    /// The user has to open this page. pgiam is about to open it if `opens`.
    Page {
        /// Address of the page.
        url: &'a str,
        /// Port that the page leads back to.
        port: u16,
        /// pgiam opens the browser.
        opens: bool,
    },
    /// The user has to enter this code on a page.
    DeviceCode {
        /// The code.
        code: &'a str,
        /// Address of the page.
        url: &'a str,
        /// Address that contains the code.
        complete_url: Option<&'a str>,
        /// Lifetime of the code.
        expires_in: Duration,
        /// pgiam opens the browser.
        opens: bool,
    },
    /// The browser did not open.
    NoBrowser(&'a browser::NoBrowser),
}

/// Receiver of [`LoginEvent`]s.
pub type Tell<'a> = &'a mut (dyn FnMut(LoginEvent<'_>) + Send);

/// A completed login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// End of the access token.
    pub until: SystemTime,
    /// pgiam and the AWS CLI renew the access token while the session at AWS lasts.
    pub is_renewable: bool,
}

/// Returns `true` if a new login is the remedy for missing credentials.
#[must_use]
pub fn is_remedy(error: &CredentialsError) -> bool {
    matches!(
        error,
        CredentialsError::SsoSession { .. } | CredentialsError::Expired { .. }
    )
}

/// State of a session on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Its access token is valid.
    Usable,
    /// Its access token has ended, and perhaps cannot be renewed.
    Ended(SystemTime),
    /// There is no readable token.
    Missing,
}

/// Returns the state of a session according to the token file.
pub async fn session_state(login: &SsoLogin) -> SessionState {
    let files = CacheFiles::of_environment();
    let file = login.key().token_file();
    let Ok(Some(token)) = files.read(CacheDir::Sso, &file, SsoToken::parse).await else {
        return SessionState::Missing;
    };
    match token.freshness(seconds(SystemTime::now())) {
        Freshness::Fresh | Freshness::Ageing => SessionState::Usable,
        Freshness::Expired => {
            let ended = Duration::from_secs(token.expires_at.try_into().unwrap_or_default());
            SessionState::Ended(SystemTime::UNIX_EPOCH + ended)
        }
    }
}

/// Logs in to IAM Identity Center, and saves the token where the AWS CLI does.
///
/// A profile with a session uses the authorization code with PKCE, others a device code; each kind
/// takes at most about ten minutes. Not cancel-safe, but a dropped call changes no login.
///
/// # Errors
/// [`LoginError`].
pub async fn sso(
    config: &SdkConfig,
    login: &SsoLogin,
    options: &LoginOptions,
    tell: Tell<'_>,
) -> Result<LoggedIn, LoginError> {
    let files = CacheFiles::of_environment();
    log_in(config, (login, options), &files, tell).await
}

async fn log_in(
    config: &SdkConfig,
    (login, options): (&SsoLogin, &LoginOptions),
    files: &CacheFiles,
    tell: Tell<'_>,
) -> Result<LoggedIn, LoginError> {
    let target = start_url::resolve(config, &login.start_url).await?;
    target.check_region(login)?;
    let oidc = Oidc::new(config, &login.region).await?;
    let kind = match login.session.is_none() || options.device_code {
        true => GrantKind::DeviceCode,
        false => GrantKind::AuthorizationCode,
    };
    let returned = match kind {
        GrantKind::DeviceCode => {
            let client = registration::client(&oidc, login, &target.url, (kind, files)).await?;
            let token = device::log_in(&oidc, &client, &target.url, options, tell).await;
            Returned {
                token,
                callback: None,
            }
        }
        GrantKind::AuthorizationCode => {
            // Before the registration: a port that is in use is the most frequent error.
            let listener = CallbackListener::bind(options.redirect_port).await?;
            let client = registration::client(&oidc, login, &target.url, (kind, files)).await?;
            pkce::log_in(&oidc, login, &client, (listener, options), tell).await
        }
    };
    if let Err(error) = &returned.token
        && error.may_be_about_the_registration()
    {
        registration::forget(login, files).await;
    }
    let saved = match returned.token {
        Ok(token) => save(token, login, files).await,
        Err(error) => Err(error),
    };
    if let Some(callback) = returned.callback {
        callback.show(saved.as_ref().err()).await;
    }
    saved
}

/// Writes the token file. A token for another start URL under the same name of a session leaves
/// keys of roles behind that belong to the old one; they are removed.
async fn save(
    issued: IssuedToken,
    login: &SsoLogin,
    files: &CacheFiles,
) -> Result<LoggedIn, LoginError> {
    let file = login.key().token_file();
    // A file that is unreadable is replaced.
    let before = files.read(CacheDir::Sso, &file, SsoToken::parse).await;
    let before = before.ok().flatten();
    let logged_in = LoggedIn {
        until: SystemTime::now() + issued.expires_in,
        is_renewable: issued.refresh_token.is_some() && login.session.is_some(),
    };
    let token = SsoToken {
        start_url: Some(login.start_url.clone()),
        region: Some(login.region.clone()),
        access_token: SecretText::new(issued.access_token.expose()),
        expires_at: seconds(logged_in.until),
        client_id: Some(issued.client.id.clone()),
        client_secret: Some(SecretText::new(issued.client.secret.expose())),
        registration_expires_at: Some(issued.client.expires_at),
        refresh_token: issued
            .refresh_token
            .map(|token| SecretText::new(token.expose())),
        unknown: UnknownKeys::default(),
    };
    files.write(CacheDir::Sso, &file, token.to_json()).await?;
    let of_another = |before: &SsoToken| before.start_url.as_deref() != Some(&login.start_url);
    if before.as_ref().is_some_and(of_another) {
        logout::remove_sso_roles(files).await?;
    }
    Ok(logged_in)
}

/// Returns the seconds since 1970.
fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}
