//! IAM Identity Center: one instance with its user, client registrations, logins and the roles that
//! are assigned in accounts.
//!
//! Names, errors and lifetimes are those of the models of `sso-oidc` and `sso` in botocore 1.43 and
//! of answers that users have quoted in the issues of aws-cli and boto3.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::aws::iam::{Iam, User};
use crate::aws::sigv4;
use crate::harness::sync::lock;

mod grants;
mod issued;
mod registration;

pub(crate) use grants::{AuthorizationRequest, Grant};
pub use issued::IssuedLogin;
pub(crate) use registration::{Client, NewClient};

/// Path of the instance's access portal.
const START_URL: &str = "https://d-1234567890.awsapps.com/start";
/// Scope that the portal needs; clients without scopes have it too.
pub(crate) const ACCOUNT_ACCESS: &str = "sso:account:access";

/// Lifetimes and habits of the instance.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the user that signs in; the session name of role credentials.
    pub user: String,
    /// Life of access tokens that can be refreshed. One hour at AWS.
    pub access_token_life: Duration,
    /// Life of access tokens of registrations without scopes, and of a login as a whole: refresh
    /// tokens end with it. Eight hours unless the administrator changes it.
    pub login_life: Duration,
    /// Life of client registrations. 90 days at AWS.
    pub registration_life: Duration,
    /// Life of device codes. Ten minutes at AWS.
    pub device_code_life: Duration,
    /// Time between two polls. One second at AWS.
    pub interval: Duration,
    /// Life of role credentials; the permission set decides about it at AWS.
    pub role_credentials_life: Duration,
    /// Give refresh tokens to clients that may have them.
    pub refresh_tokens: bool,
}

impl Default for Settings {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            user: "dev@example.com".to_owned(),
            access_token_life: HOUR,
            login_life: 8 * HOUR,
            registration_life: 90 * 24 * HOUR,
            device_code_life: Duration::from_secs(600),
            interval: Duration::from_secs(1),
            role_credentials_life: HOUR,
            refresh_tokens: true,
        }
    }
}

/// Permissions of the role that an assignment makes.
#[derive(Debug, Clone)]
pub struct PermissionSet {
    /// As [`User::deny`].
    pub deny: BTreeSet<String>,
    /// As [`User::db_users`].
    pub db_users: Vec<String>,
}

impl Default for PermissionSet {
    fn default() -> Self {
        Self {
            deny: BTreeSet::new(),
            db_users: vec!["*".to_owned()],
        }
    }
}

/// An account of the organisation.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// Refusal of one of the services: name of the exception and its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Name of the exception in the service's model.
    pub(crate) code: &'static str,
    /// `error_description` or `message`.
    pub(crate) text: &'static str,
}

/// Returns a refusal.
pub(crate) const fn denied(code: &'static str, text: &'static str) -> Denied {
    Denied { code, text }
}

/// Words of the portal for missing, unknown and ended access tokens alike.
const INVALID_TOKEN: Denied = denied(
    "UnauthorizedException",
    "Session token not found or invalid",
);

/// The instance; clones share it.
#[derive(Clone)]
pub struct IdentityCenter {
    iam: Iam,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    settings: Settings,
    accounts: BTreeMap<String, (Account, BTreeMap<String, PermissionSet>)>,
    clients: HashMap<String, Client>,
    devices: HashMap<String, grants::Device>,
    requests: HashMap<Uuid, AuthorizationRequest>,
    codes: HashMap<String, grants::Code>,
    logins: HashMap<Uuid, grants::Login>,
    access_tokens: HashMap<String, grants::AccessToken>,
    refresh_tokens: HashMap<String, Uuid>,
    secrets: Vec<String>,
}

impl fmt::Debug for IdentityCenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = lock(&self.state).accounts.len();
        f.debug_struct("IdentityCenter")
            .field("accounts", &accounts)
            .finish_non_exhaustive()
    }
}

impl IdentityCenter {
    /// An instance in the account's region. The user has the role `Developer` in the account.
    pub(crate) fn new(iam: &Iam) -> Self {
        let new = Self {
            iam: iam.clone(),
            state: Arc::default(),
        };
        new.add_account(iam.account(), "Sandbox", "sandbox@example.com");
        new.assign(iam.account(), "Developer");
        new
    }

    /// The access portal's address, for `sso_start_url`.
    pub fn start_url(&self) -> &'static str {
        START_URL
    }

    /// Changes lifetimes and habits; tokens given out before keep theirs.
    pub fn update(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.state).settings);
    }

    /// Adds an account to the organisation, or renames it.
    pub fn add_account(&self, id: &str, name: &str, email: &str) {
        let account = Account {
            id: id.to_owned(),
            name: name.to_owned(),
            email: email.to_owned(),
        };
        let mut state = lock(&self.state);
        match state.accounts.get_mut(id) {
            Some((known, _)) => *known = account,
            None => drop(
                state
                    .accounts
                    .insert(id.to_owned(), (account, BTreeMap::new())),
            ),
        }
    }

    /// Gives the user a role in a known account; false if the account is unknown.
    pub fn assign(&self, account: &str, role: &str) -> bool {
        let mut state = lock(&self.state);
        let found = state.accounts.get_mut(account);
        let set = PermissionSet::default();
        found
            .map(|(_, roles)| roles.insert(role.to_owned(), set))
            .is_some()
    }

    /// Takes a role from the user. Credentials given out before stay valid, as at AWS.
    pub fn unassign(&self, account: &str, role: &str) -> bool {
        let mut state = lock(&self.state);
        let found = state.accounts.get_mut(account);
        found.and_then(|(_, roles)| roles.remove(role)).is_some()
    }

    /// Changes the permissions of credentials given out from now on; false without the assignment.
    pub fn update_role(
        &self,
        account: &str,
        role: &str,
        change: impl FnOnce(&mut PermissionSet),
    ) -> bool {
        let mut state = lock(&self.state);
        let found = state.accounts.get_mut(account);
        let found = found.and_then(|(_, roles)| roles.get_mut(role));
        found.map(change).is_some()
    }

    /// Ends all access tokens; refresh tokens stay valid.
    pub fn expire_access_tokens(&self) {
        lock(&self.state).access_tokens.clear();
    }

    /// Ends all logins with all their tokens, as an administrator can.
    pub fn end_logins(&self) {
        let mut state = lock(&self.state);
        state.logins.clear();
        state.access_tokens.clear();
        state.refresh_tokens.clear();
    }

    /// Ends all client registrations.
    pub fn expire_registrations(&self) {
        lock(&self.state).clients.clear();
    }

    /// Ends all device codes that nobody has answered.
    pub fn expire_device_codes(&self) {
        let now = self.iam.now();
        for device in lock(&self.state).devices.values_mut() {
            device.expires = now;
        }
    }

    /// Every client secret, device code, authorization code and token that was ever given out:
    /// values that must not turn up in logs.
    pub fn secrets(&self) -> Vec<String> {
        lock(&self.state).secrets.clone()
    }

    fn now(&self) -> SystemTime {
        self.iam.now()
    }

    /// Accounts in which the user has roles.
    pub(crate) fn accounts(&self, access_token: Option<&str>) -> Result<Vec<Account>, Denied> {
        self.login_of(access_token)?;
        let state = lock(&self.state);
        let with_roles = state.accounts.values().filter(|(_, r)| !r.is_empty());
        Ok(with_roles.map(|(account, _)| account.clone()).collect())
    }

    /// Roles of the user in an account.
    pub(crate) fn roles(
        &self,
        access_token: Option<&str>,
        account: &str,
    ) -> Result<Vec<String>, Denied> {
        self.login_of(access_token)?;
        let state = lock(&self.state);
        match state.accounts.get(account) {
            Some((_, roles)) if !roles.is_empty() => Ok(roles.keys().cloned().collect()),
            _ => Err(NO_ACCESS),
        }
    }

    /// Makes credentials of a role and tells IAM about them.
    pub(crate) fn role_credentials(
        &self,
        access_token: Option<&str>,
        account: &str,
        role: &str,
    ) -> Result<User, Denied> {
        self.login_of(access_token)?;
        let state = lock(&self.state);
        let roles = state.accounts.get(account).map(|(_, roles)| roles);
        let set = roles.and_then(|roles| roles.get(role)).ok_or(NO_ACCESS)?;
        let name = &state.settings.user;
        let partition = self.iam.partition().name;
        let arn = format!(
            "arn:{partition}:sts::{account}:assumed-role/{}/{name}",
            reserved_role(account, role)
        );
        let ends = self.now() + state.settings.role_credentials_life;
        let user = User {
            deny: set.deny.clone(),
            db_users: set.db_users.clone(),
            ..User::with_new_key(name, arn, Some(ends))
        };
        self.iam.add(user.clone());
        Ok(user)
    }

    /// Ends the login of an access token.
    pub(crate) fn log_out(&self, access_token: Option<&str>) -> Result<(), Denied> {
        let login = self.login_of(access_token)?;
        let mut state = lock(&self.state);
        state.logins.remove(&login);
        state.access_tokens.retain(|_, token| token.login != login);
        state.refresh_tokens.retain(|_, owner| *owner != login);
        Ok(())
    }

    /// The login that a current access token belongs to.
    fn login_of(&self, access_token: Option<&str>) -> Result<Uuid, Denied> {
        let state = lock(&self.state);
        let token = access_token.and_then(|token| state.access_tokens.get(token));
        let token = token.filter(|token| self.now() < token.expires);
        let login = token.map(|token| token.login).ok_or(INVALID_TOKEN)?;
        let known = state.logins.get(&login).ok_or(INVALID_TOKEN)?;
        if !known.scopes.iter().any(|scope| scope == ACCOUNT_ACCESS) {
            return Err(INVALID_TOKEN);
        }
        Ok(login)
    }
}

/// Not in the model of the portal; clients get it for accounts and roles without an assignment.
const NO_ACCESS: Denied = denied("ForbiddenException", "No access");

/// Name of the role that Identity Center makes in an account, with its random-looking suffix.
fn reserved_role(account: &str, role: &str) -> String {
    let digest = sigv4::hex(&Sha256::digest(format!("{account}/{role}")));
    format!("AWSReservedSSO_{role}_{}", &digest[..16])
}

/// A random text of about 32 bytes for each of `parts`, as opaque as those of AWS.
fn opaque(prefix: &str, parts: usize) -> String {
    let parts: Vec<String> = (0..parts)
        .map(|_| Uuid::new_v4().simple().to_string())
        .collect();
    format!("{prefix}{}", parts.concat())
}
