//! Device codes, authorization codes and the tokens that clients get for them.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::registration::{AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN, plain_url};
use super::{ACCOUNT_ACCESS, Client, Denied, IdentityCenter, START_URL, State, denied, opaque};
use crate::harness::sync::lock;

/// Life of an authorization code; RFC 6749 (4.1.2) allows ten minutes at most.
const CODE_LIFE: Duration = Duration::from_secs(600);

/// The answer of the user to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Open,
    Allowed,
    Denied,
}

/// A device code in use.
pub(super) struct Device {
    client_id: String,
    user_code: String,
    pub(super) expires: SystemTime,
    decision: Decision,
}

/// Output of `StartDeviceAuthorization`.
pub(crate) struct NewDevice {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) expires_in: Duration,
    pub(crate) interval: Duration,
}

/// A request for an authorization code, as the page shows it.
#[derive(Clone)]
pub(crate) struct AuthorizationRequest {
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) state: String,
    pub(crate) challenge: String,
    pub(crate) scopes: Vec<String>,
}

/// An authorization code that was given out.
pub(super) struct Code {
    request: AuthorizationRequest,
    expires: SystemTime,
}

/// A login of the user for one client.
pub(super) struct Login {
    client_id: String,
    pub(super) scopes: Vec<String>,
    ends: SystemTime,
}

/// An access token that was given out.
pub(super) struct AccessToken {
    pub(super) login: Uuid,
    pub(super) expires: SystemTime,
}

/// Output of `CreateToken`.
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) expires_in: Duration,
    pub(crate) refresh_token: Option<String>,
}

/// Input of `CreateToken`, besides the client.
#[derive(Debug)]
pub(crate) enum Grant<'a> {
    Device {
        code: &'a str,
    },
    Refresh {
        token: &'a str,
    },
    Code {
        code: &'a str,
        verifier: &'a str,
        redirect_uri: &'a str,
    },
}

impl IdentityCenter {
    /// Makes a device code.
    pub(crate) fn start_device(
        &self,
        client: &Client,
        start_url: &str,
    ) -> Result<NewDevice, Denied> {
        client.may_use(DEVICE_CODE)?;
        if plain_url(start_url) != START_URL {
            return Err(denied(
                "InvalidRequestException",
                "Invalid start url provided",
            ));
        }
        let mut state = lock(&self.state);
        let new = NewDevice {
            device_code: opaque("", 2),
            user_code: user_code(),
            expires_in: state.settings.device_code_life,
            interval: state.settings.interval,
        };
        let device = Device {
            client_id: client.id.clone(),
            user_code: new.user_code.clone(),
            expires: self.now() + new.expires_in,
            decision: Decision::Open,
        };
        state.secrets.push(new.device_code.clone());
        state.devices.insert(new.device_code.clone(), device);
        Ok(new)
    }

    /// Allows the device with this user code, as the user does in a browser. False if there is no
    /// such device, or if its code has ended or was answered before.
    pub fn approve(&self, user_code: &str) -> bool {
        self.decide(user_code, Decision::Allowed)
    }

    /// Denies the device with this user code; see [`Self::approve`].
    pub fn deny(&self, user_code: &str) -> bool {
        self.decide(user_code, Decision::Denied)
    }

    fn decide(&self, user_code: &str, decision: Decision) -> bool {
        let now = self.now();
        let mut state = lock(&self.state);
        let mut waiting = state.devices.values_mut().filter(|device| {
            device.user_code == user_code
                && device.decision == Decision::Open
                && now < device.expires
        });
        waiting
            .next()
            .map(|device| device.decision = decision)
            .is_some()
    }

    /// The name of the client that waits with this user code.
    pub(crate) fn waiting_client(&self, user_code: &str) -> Option<Client> {
        let id = {
            let state = lock(&self.state);
            let mut devices = state.devices.values();
            let found =
                devices.find(|d| d.user_code == user_code && d.decision == Decision::Open)?;
            (self.now() < found.expires).then(|| found.client_id.clone())?
        };
        self.client_by_id(&id)
    }

    /// Remembers a request for an authorization code until the user has answered.
    pub(crate) fn open_request(&self, request: AuthorizationRequest) -> Uuid {
        let id = Uuid::new_v4();
        lock(&self.state).requests.insert(id, request);
        id
    }

    /// Takes the request back and, if the user allows it, makes its code.
    pub(crate) fn close_request(
        &self,
        id: Uuid,
        allowed: bool,
    ) -> Option<(AuthorizationRequest, Option<String>)> {
        let mut state = lock(&self.state);
        let request = state.requests.remove(&id)?;
        if !allowed {
            return Some((request, None));
        }
        let code = opaque("", 4);
        state.secrets.push(code.clone());
        let kept = Code {
            request: request.clone(),
            expires: self.now() + CODE_LIFE,
        };
        state.codes.insert(code.clone(), kept);
        Some((request, Some(code)))
    }

    /// Gives tokens for a grant.
    pub(crate) fn create_token(
        &self,
        client: &Client,
        grant: &Grant<'_>,
    ) -> Result<Tokens, Denied> {
        match *grant {
            Grant::Device { code } => self.device_token(client, code),
            Grant::Refresh { token } => self.refresh(client, token),
            Grant::Code {
                code,
                verifier,
                redirect_uri,
            } => {
                client.may_use(AUTHORIZATION_CODE)?;
                let request = self.take_code(client, code)?;
                if !proves(verifier, &request.challenge) {
                    return Err(denied(
                        "InvalidGrantException",
                        "Invalid code verifier provided",
                    ));
                }
                if redirect_uri != request.redirect_uri {
                    return Err(denied(
                        "InvalidGrantException",
                        "Invalid redirect uri provided",
                    ));
                }
                Ok(self.log_in_client(client, request.scopes))
            }
        }
    }

    /// A code is good for one try, even if the try fails.
    fn take_code(&self, client: &Client, code: &str) -> Result<AuthorizationRequest, Denied> {
        let found = lock(&self.state).codes.remove(code);
        let own = found.filter(|c| c.request.client_id == client.id && self.now() < c.expires);
        let request = own.map(|code| code.request);
        request.ok_or(denied(
            "InvalidGrantException",
            "Invalid authorization code provided",
        ))
    }

    fn device_token(&self, client: &Client, code: &str) -> Result<Tokens, Denied> {
        client.may_use(DEVICE_CODE)?;
        {
            let mut state = lock(&self.state);
            let device = state.devices.get(code);
            let device = device.filter(|device| device.client_id == client.id);
            let device = device.ok_or(denied(
                "InvalidGrantException",
                "Invalid device code provided",
            ))?;
            match device.decision {
                Decision::Denied => {
                    return Err(denied("AccessDeniedException", "Access was denied"));
                }
                _ if self.now() >= device.expires => {
                    return Err(denied("ExpiredTokenException", "Device code has expired"));
                }
                Decision::Open => {
                    return Err(denied(
                        "AuthorizationPendingException",
                        "Authorization is pending",
                    ));
                }
                Decision::Allowed => {}
            }
            state.devices.remove(code);
        }
        Ok(self.log_in_client(client, client.scopes.clone()))
    }

    /// The refresh token rotates: the old one is refused from now on.
    fn refresh(&self, client: &Client, token: &str) -> Result<Tokens, Denied> {
        const INVALID: Denied = denied("InvalidGrantException", "Invalid refresh token provided");
        client.may_use(REFRESH_TOKEN)?;
        let mut state = lock(&self.state);
        let id = state.refresh_tokens.get(token).copied().ok_or(INVALID)?;
        let login = state.logins.get(&id).ok_or(INVALID)?;
        let now = self.now();
        if login.client_id != client.id || now >= login.ends {
            return Err(INVALID);
        }
        state.refresh_tokens.remove(token);
        Ok(issue(&mut state, id, client, now))
    }

    /// Logs the user in for a client.
    pub(super) fn log_in_client(&self, client: &Client, scopes: Vec<String>) -> Tokens {
        let now = self.now();
        let mut state = lock(&self.state);
        let id = Uuid::new_v4();
        let login = Login {
            client_id: client.id.clone(),
            scopes: match scopes.is_empty() {
                true => vec![ACCOUNT_ACCESS.to_owned()],
                false => scopes,
            },
            ends: now + state.settings.login_life,
        };
        state.logins.insert(id, login);
        issue(&mut state, id, client, now)
    }
}

/// Makes the tokens of a login; none outlives it.
fn issue(state: &mut State, id: Uuid, client: &Client, now: SystemTime) -> Tokens {
    let settings = &state.settings;
    let refreshes = client.may_refresh() && settings.refresh_tokens;
    let left = state.logins.get(&id).and_then(|login| {
        let left = login.ends.duration_since(now);
        left.ok()
    });
    let life = match client.may_refresh() {
        true => settings.access_token_life,
        false => settings.login_life,
    };
    let tokens = Tokens {
        access_token: opaque("aoaAAAAAG", 16),
        expires_in: left.map_or(life, |left| left.min(life)),
        refresh_token: refreshes.then(|| opaque("aorAAAAAG", 16)),
    };
    let access = AccessToken {
        login: id,
        expires: now + tokens.expires_in,
    };
    state.secrets.push(tokens.access_token.clone());
    state
        .access_tokens
        .insert(tokens.access_token.clone(), access);
    if let Some(refresh) = &tokens.refresh_token {
        state.secrets.push(refresh.clone());
        state.refresh_tokens.insert(refresh.clone(), id);
    }
    tokens
}

/// Eight letters in two groups, as the service writes them.
fn user_code() -> String {
    const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
    let bytes = Uuid::new_v4().into_bytes();
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    let group = |part: &[u8]| part.iter().map(letter).collect::<String>();
    format!("{}-{}", group(&bytes[..4]), group(&bytes[12..]))
}

/// Compares a verifier with its challenge (RFC 7636, sections 4.1 and 4.6).
fn proves(verifier: &str, challenge: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let well_formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
    well_formed && BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == challenge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7636_is_accepted() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(proves(
            verifier,
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        ));
        assert!(!proves(
            &verifier[1..],
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        ));
    }

    #[test]
    fn user_codes_have_two_groups() {
        let code = user_code();
        assert_eq!((code.len(), code.find('-')), (9, Some(4)), "{code}");
    }
}
