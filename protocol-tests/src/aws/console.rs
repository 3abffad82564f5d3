//! Sign-in sessions of the console, which `aws login` opens: credentials for at most 15 minutes, and
//! a refresh token that is bound to the client's key (DPoP, RFC 9449).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::aws::iam::{Iam, User};
use crate::aws::session::random_token;
use crate::aws::sigv4::{format_iso_date, sha256_hex};
use crate::harness::sync::lock;

mod proof;

pub(crate) use proof::Proof;

/// Client id of the flow with a browser on the same machine.
const SAME_DEVICE: &str = "arn:aws:signin:::devtools/same-device";
/// Life of a session as a whole.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Life of the credentials: `ExpiresIn` of the model is at most this.
const CREDENTIALS_LIFE: Duration = Duration::from_secs(900);

/// Reason why a session cannot be refreshed any more: `error` of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The refresh token has ended.
    TokenExpired,
    /// The user's password was changed.
    CredentialsChanged,
    /// The user lost the permission to use the sign-in service.
    InsufficientPermissions,
}

impl SessionEnd {
    /// `OAuth2ErrorCode` of the model.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::CredentialsChanged => "USER_CREDENTIALS_CHANGED",
            Self::InsufficientPermissions => "INSUFFICIENT_PERMISSIONS",
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::TokenExpired => "The refresh token has expired.",
            Self::CredentialsChanged => "The user's credentials have changed.",
            Self::InsufficientPermissions => "The user has insufficient permissions.",
        }
    }
}

/// Refusal of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsoleRefusal {
    /// `ValidationException`: unknown token, wrong client or wrong key.
    InvalidGrant,
    /// `AccessDeniedException`.
    Ended(SessionEnd),
}

/// The sign-in sessions; clones share them.
#[derive(Clone)]
pub struct Console {
    iam: Iam,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Session>,
    /// `jti` of each proof: none is accepted twice.
    proofs: HashSet<String>,
    secrets: Vec<String>,
}

struct Session {
    identity: String,
    client_id: String,
    /// Uncompressed point of the client's key.
    key: Vec<u8>,
    ends: SystemTime,
    ended: Option<SessionEnd>,
}

/// Output of a refresh.
pub(crate) struct Refreshed {
    pub(crate) user: User,
    pub(crate) refresh_token: String,
    pub(crate) expires_in: Duration,
}

/// A login with everything that the AWS CLI caches about it. Holds secrets.
pub struct ConsoleLogin {
    /// Value of the profile's `login_session`.
    pub login_session: String,
    /// Content of the cache file.
    pub file: Value,
}

impl ConsoleLogin {
    /// Name of the file in `~/.aws/login/cache`.
    pub fn file_name(&self) -> String {
        format!("{}.json", sha256_hex(self.login_session.as_bytes()))
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = lock(&self.state).sessions.len();
        f.debug_struct("Console")
            .field("sessions", &sessions)
            .finish_non_exhaustive()
    }
}

impl Console {
    pub(crate) fn new(iam: &Iam) -> Self {
        Self {
            iam: iam.clone(),
            state: Arc::default(),
        }
    }

    /// Signs the identity with this ARN in, as `aws login` does, with credentials that end after
    /// `life`.
    ///
    /// # Panics
    /// When the cryptographic library cannot make a key.
    pub fn log_in(&self, identity: &str, life: Duration) -> ConsoleLogin {
        #[expect(
            clippy::expect_used,
            reason = "a machine without randomness runs no tests"
        )]
        let (key, der) = new_key().expect("a key pair");
        let user = self.credentials(identity, life);
        let token = refresh_token();
        let session = Session {
            identity: identity.to_owned(),
            client_id: SAME_DEVICE.to_owned(),
            key,
            ends: self.iam.now() + SESSION_LIFE,
            ended: None,
        };
        let mut state = lock(&self.state);
        state.secrets.push(token.clone());
        state.sessions.insert(token.clone(), session);
        let file = json!({
            "accessToken": {
                "accessKeyId": user.access_key_id,
                "secretAccessKey": user.secret_access_key,
                "sessionToken": user.session_token,
                "accountId": user.account(),
                "expiresAt": user.expires.map(format_iso_date),
            },
            "tokenType": "aws_sigv4",
            "clientId": SAME_DEVICE,
            "refreshToken": token,
            "idToken": id_token(identity),
            "dpopKey": pem(&der),
        });
        ConsoleLogin {
            login_session: identity.to_owned(),
            file,
        }
    }

    /// Ends all sessions: refreshes are refused from now on. Credentials stay valid to their end.
    pub fn end_sessions(&self, reason: SessionEnd) {
        for session in lock(&self.state).sessions.values_mut() {
            session.ended = Some(reason);
        }
    }

    /// Every refresh token that was ever given out.
    pub fn secrets(&self) -> Vec<String> {
        lock(&self.state).secrets.clone()
    }

    /// Gives new credentials for a refresh token, which rotates.
    pub(crate) fn refresh(
        &self,
        client_id: &str,
        token: &str,
        proof: &Proof,
    ) -> Result<Refreshed, ConsoleRefusal> {
        let now = self.iam.now();
        let mut state = lock(&self.state);
        if !state.proofs.insert(proof.id.clone()) {
            return Err(ConsoleRefusal::InvalidGrant);
        }
        let session = state.sessions.get(token);
        let session = session.filter(|s| s.client_id == client_id && s.key == proof.key);
        let session = session.ok_or(ConsoleRefusal::InvalidGrant)?;
        let over = (now >= session.ends).then_some(SessionEnd::TokenExpired);
        if let Some(end) = session.ended.or(over) {
            return Err(ConsoleRefusal::Ended(end));
        }
        let new_token = refresh_token();
        if let Some(session) = state.sessions.remove(token) {
            let user = self.credentials(&session.identity, CREDENTIALS_LIFE);
            state.secrets.push(new_token.clone());
            state.sessions.insert(new_token.clone(), session);
            return Ok(Refreshed {
                user,
                refresh_token: new_token,
                expires_in: CREDENTIALS_LIFE,
            });
        }
        Err(ConsoleRefusal::InvalidGrant)
    }

    fn credentials(&self, identity: &str, life: Duration) -> User {
        let name = identity.rsplit('/').next().unwrap_or_default();
        let ends = self.iam.now() + life;
        let user = User::with_new_key(name, identity.to_owned(), Some(ends));
        self.iam.add(user.clone());
        user
    }
}

fn refresh_token() -> String {
    format!("{}{}", random_token(), Uuid::new_v4().simple())
}

/// A P-256 key: its public point, and the private key in the form of SEC 1.
fn new_key() -> Result<(Vec<u8>, Vec<u8>), aws_lc_rs::error::Unspecified> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der()?;
    Ok((pair.public_key().as_ref().to_vec(), der.as_ref().to_vec()))
}

/// The key as a PEM file with lines of 64 columns.
fn pem(der: &[u8]) -> String {
    // Apart from "BEGIN", so that the search for keys in the tree does not find it.
    const LABEL: &str = "EC PRIVATE KEY";
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {LABEL}-----\n{body}\n-----END {LABEL}-----\n")
}

/// A JWT that names the identity; nothing verifies it.
fn id_token(identity: &str) -> String {
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({ "typ": "JWT", "alg": "ES384" }));
    let claims = encode(json!({ "sub": identity, "iss": "https://signin.aws.amazon.com/signin" }));
    format!("{header}.{claims}.{}", Uuid::new_v4().simple())
}
