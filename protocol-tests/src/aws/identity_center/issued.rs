//! Logins without a browser, for tests that begin with a cached token.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::registration::{AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN};
use super::{ACCOUNT_ACCESS, Client, IdentityCenter, NewClient, START_URL};
use crate::aws::sigv4::format_iso_date;

/// A login with everything that the AWS CLI caches about it. Holds secrets.
pub struct IssuedLogin {
    /// Bearer token of the portal.
    pub access_token: String,
    /// End of the access token.
    pub expires_at: SystemTime,
    /// Absent if [`super::Settings::refresh_tokens`] is off.
    pub refresh_token: Option<String>,
    /// Client that may refresh.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// End of the registration.
    pub registration_expires_at: SystemTime,
    region: String,
}

impl IdentityCenter {
    /// Registers a client for authorization codes, and returns its id.
    pub fn register_for_codes(&self) -> String {
        self.registered(&[AUTHORIZATION_CODE, REFRESH_TOKEN]).id
    }

    /// Starts a login with a device code, and returns the code that the user types.
    ///
    /// # Panics
    /// If the service refuses its own registration.
    pub fn start_device_code(&self) -> String {
        let client = self.registered(&[DEVICE_CODE]);
        #[expect(clippy::expect_used, reason = "the client may use device codes")]
        let new = self.start_device(&client, START_URL).expect("a code");
        new.user_code
    }

    fn registered(&self, grant_types: &[&str]) -> Client {
        let new = NewClient {
            name: "botocore-client-test".to_owned(),
            kind: "public".to_owned(),
            scopes: vec![ACCOUNT_ACCESS.to_owned()],
            grant_types: grant_types.iter().map(|&g| g.to_owned()).collect(),
            redirect_uris: vec!["http://127.0.0.1/oauth/callback".to_owned()],
            issuer_url: Some(START_URL.to_owned()),
        };
        #[expect(clippy::expect_used, reason = "the input above is valid")]
        self.register(new).expect("a registration")
    }

    /// Logs the user in for a client with the scope `sso:account:access`, without a browser.
    pub fn log_in(&self) -> IssuedLogin {
        let client = self.registered(&[AUTHORIZATION_CODE, REFRESH_TOKEN]);
        let tokens = self.log_in_client(&client, client.scopes.clone());
        IssuedLogin {
            access_token: tokens.access_token,
            expires_at: self.now() + tokens.expires_in,
            refresh_token: tokens.refresh_token,
            client_id: client.id,
            client_secret: client.secret,
            registration_expires_at: client.expires,
            region: self.iam.region().to_owned(),
        }
    }
}

impl IssuedLogin {
    /// The token file of `~/.aws/sso/cache`, as the AWS CLI writes it.
    pub fn token_file(&self) -> Value {
        let mut file = json!({
            "startUrl": START_URL,
            "region": self.region,
            "accessToken": self.access_token,
            "expiresAt": format_iso_date(self.expires_at),
            "clientId": self.client_id,
            "clientSecret": self.client_secret,
            "registrationExpiresAt": format_iso_date(self.registration_expires_at),
        });
        if let Some(token) = &self.refresh_token {
            file["refreshToken"] = json!(token);
        }
        file
    }
}
