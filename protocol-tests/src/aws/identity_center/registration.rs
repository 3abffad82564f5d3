//! Client registrations.

use std::time::SystemTime;

use url::Url;

use super::{Denied, IdentityCenter, START_URL, denied, opaque};
use crate::harness::sync::lock;

pub(crate) const AUTHORIZATION_CODE: &str = "authorization_code";
pub(crate) const REFRESH_TOKEN: &str = "refresh_token";
pub(crate) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Beginnings of the scopes that Identity Center knows.
const SCOPES: [&str; 4] = [
    "sso:",
    "codewhisperer:",
    "codecatalyst:",
    "verified_access:",
];

/// Input of `RegisterClient`.
#[derive(Debug, Default)]
pub(crate) struct NewClient {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) grant_types: Vec<String>,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) issuer_url: Option<String>,
}

/// A registered client.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) name: String,
    pub(crate) issued: SystemTime,
    pub(crate) expires: SystemTime,
    pub(crate) scopes: Vec<String>,
    grant_types: Vec<String>,
    redirect_uris: Vec<String>,
}

impl Client {
    /// Checks that the client registered for a grant type.
    pub(crate) fn may_use(&self, grant_type: &str) -> Result<(), Denied> {
        let registered = self.grant_types.iter().any(|known| known == grant_type);
        match registered {
            true => Ok(()),
            false => Err(denied(
                "UnauthorizedClientException",
                "Client is not authorized to use the requested grant type",
            )),
        }
    }

    /// Returns true for a redirect URI of the registration. The port of a loopback address is left
    /// out of the comparison (RFC 8252, section 7.3).
    pub(crate) fn redirects_to(&self, uri: &str) -> bool {
        let asked = without_loopback_port(uri);
        let mut known = self.redirect_uris.iter();
        asked.is_some() && known.any(|known| without_loopback_port(known) == asked)
    }

    /// Clients without scopes are of the older kind, which gets one long token and none to refresh.
    pub(crate) fn may_refresh(&self) -> bool {
        !self.scopes.is_empty() && self.may_use(REFRESH_TOKEN).is_ok()
    }
}

impl IdentityCenter {
    /// Registers a client.
    pub(crate) fn register(&self, new: NewClient) -> Result<Client, Denied> {
        check(&new)?;
        let mut state = lock(&self.state);
        let issued = self.now();
        let grant_types = match new.grant_types.is_empty() {
            true => vec![DEVICE_CODE.to_owned(), REFRESH_TOKEN.to_owned()],
            false => new.grant_types,
        };
        let client = Client {
            id: opaque("", 1),
            // The service's own is a JWT of about this length.
            secret: opaque("eyJraWQiOiJrZXkt", 24),
            name: new.name,
            issued,
            expires: issued + state.settings.registration_life,
            scopes: new.scopes,
            grant_types,
            redirect_uris: new.redirect_uris,
        };
        state.secrets.push(client.secret.clone());
        state.clients.insert(client.id.clone(), client.clone());
        Ok(client)
    }

    /// The client with this id and secret.
    pub(crate) fn client(&self, id: &str, secret: &str) -> Result<Client, Denied> {
        const INVALID: Denied = denied("InvalidClientException", "Invalid client provided");
        let client = self.client_by_id(id).ok_or(INVALID)?;
        match client.secret == secret && self.now() < client.expires {
            true => Ok(client),
            false => Err(INVALID),
        }
    }

    /// The client with this id, for pages in a browser, which know no secret.
    pub(crate) fn client_by_id(&self, id: &str) -> Option<Client> {
        let state = lock(&self.state);
        let client = state.clients.get(id).cloned();
        client.filter(|client| self.now() < client.expires)
    }
}

fn check(new: &NewClient) -> Result<(), Denied> {
    let metadata = |text| Err(denied("InvalidClientMetadataException", text));
    let request = |text| Err(denied("InvalidRequestException", text));
    if new.name.is_empty() || new.name.len() > 256 {
        return metadata("Invalid client name");
    }
    if new.kind != "public" {
        return metadata("Invalid client type");
    }
    let known = [AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE];
    if new.grant_types.iter().any(|g| !known.contains(&g.as_str())) {
        return Err(denied(
            "UnsupportedGrantTypeException",
            "Unsupported grant type",
        ));
    }
    if new.scopes.iter().any(|scope| !is_scope(scope)) {
        return Err(denied("InvalidScopeException", "Invalid scope provided"));
    }
    let local = |uri: &String| without_loopback_port(uri).is_some();
    if !new.redirect_uris.iter().all(local) {
        return Err(denied(
            "InvalidRedirectUriException",
            "Invalid redirect uri",
        ));
    }
    if new.grant_types.iter().any(|g| g == AUTHORIZATION_CODE) {
        if new.redirect_uris.is_empty() {
            return request("Redirect uris are required for this grant type");
        }
        if new.issuer_url.as_deref().map(plain_url) != Some(START_URL) {
            return request("Invalid issuer url provided");
        }
    }
    Ok(())
}

/// Start URLs are the same with a slash or the fragment of the portal's page behind them.
pub(super) fn plain_url(url: &str) -> &str {
    let url = url.split('#').next().unwrap_or_default();
    url.trim_end_matches('/')
}

fn is_scope(scope: &str) -> bool {
    SCOPES.iter().any(|known| scope.starts_with(known))
}

/// A redirect URI to this machine, without its port; none for any other URI.
fn without_loopback_port(uri: &str) -> Option<Url> {
    let mut url = Url::parse(uri).ok()?;
    let host = url.host_str()?;
    let local = url.scheme() == "http" && ["127.0.0.1", "[::1]"].contains(&host);
    url.set_port(None).ok()?;
    local.then_some(url)
}
