//! Registration of pgiam as a client of IAM Identity Center, shared with the AWS CLI.

use std::time::SystemTime;

use aws_profile::{CacheDir, GrantKind, Registration, SecretText, UnknownKeys};
use tracing::debug;

use super::oidc::{DEFAULT_SCOPE, Grant, Oidc, RegisteredClient};
use super::{LoginError, SsoLogin, seconds};
use crate::aws::cache_files::CacheFiles;
use crate::base::redacted::remember;

/// Returns the client of the cached registration, if it fits, else registers one and writes it.
///
/// # Errors
/// [`LoginError`].
pub(super) async fn client(
    oidc: &Oidc,
    login: &SsoLogin,
    issuer: &str,
    (kind, files): (GrantKind, &CacheFiles),
) -> Result<RegisteredClient, LoginError> {
    let (key, now) = (login.key(), seconds(SystemTime::now()));
    let scopes = key.scopes().map(owned);
    let scopes = match (kind, scopes) {
        (GrantKind::AuthorizationCode, None) => Some(vec![DEFAULT_SCOPE.to_owned()]),
        (_, scopes) => scopes,
    };
    let file = key.registration_file();
    // A file that is unreadable is replaced.
    let cached = files.read(CacheDir::Sso, &file, Registration::parse).await;
    let cached = cached.ok().flatten();
    let fits = |cached: &Registration| cached.is_usable(kind, now) && cached.scopes == scopes;
    if let Some(cached) = cached.filter(fits) {
        remember(cached.client_secret.expose());
        return Ok(RegisteredClient {
            id: cached.client_id,
            secret: cached.client_secret.expose().to_owned().into(),
            expires_at: cached.expires_at,
        });
    }
    let name = match &login.session {
        Some(session) => session.clone(),
        None => now.to_string(),
    };
    let grant = match kind {
        GrantKind::AuthorizationCode => Grant::AuthorizationCode { issuer },
        GrantKind::DeviceCode => Grant::DeviceCode,
    };
    let client = oidc.register(&name, grant, scopes.as_deref()).await?;
    let registration = Registration {
        client_id: client.id.clone(),
        client_secret: SecretText::new(client.secret.expose()),
        expires_at: client.expires_at,
        scopes,
        grant_types: kind.grant_types(),
        unknown: UnknownKeys::default(),
    };
    files
        .write(CacheDir::Sso, &file, registration.to_json())
        .await?;
    Ok(client)
}

fn owned(scopes: Vec<&str>) -> Vec<String> {
    scopes.into_iter().map(str::to_owned).collect()
}

/// Removes the cached registration, so that the next login registers anew.
pub(super) async fn forget(login: &SsoLogin, files: &CacheFiles) {
    let file = login.key().registration_file();
    if let Err(error) = files.remove(CacheDir::Sso, &file).await {
        debug!(%error, "cannot remove a registration");
    }
}
