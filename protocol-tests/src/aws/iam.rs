//! The sandbox's users, and the two questions AWS answers about them: who signed this request, and
//! may the holder of this token log in to that database.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Uri};
use uuid::Uuid;

use crate::aws::partition::Partition;
use crate::aws::session::random_token;

mod db_token;
mod request;
mod token_refusal;

pub use db_token::DbEndpoint;
pub use request::AuthError;
pub(crate) use request::signed_service;
pub use token_refusal::TokenRefusal;

/// How far a request's own date may be from the service's clock ("Signature expired: …").
pub(crate) const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// Somebody with an access key.
#[derive(Clone)]
pub struct User {
    /// Friendly name.
    pub name: String,
    /// `arn:aws:iam::…:user/…` or `arn:aws:sts::…:assumed-role/…`.
    pub arn: String,
    /// Not a secret: it stands in clear in every signed request.
    pub access_key_id: String,
    /// Secret; never shown.
    pub secret_access_key: String,
    /// Present with temporary credentials; secret, never shown.
    pub session_token: Option<String>,
    /// When temporary credentials end.
    pub expires: Option<SystemTime>,
    /// Actions refused to this user, for example `ssm:StartSession` or `ssm:StartSession:document`:
    /// no policy allows them. With `explicit:` in front a policy of the user's denies them, with
    /// `scp:` one of the organisation. Followed by a space and an ARN on that resource only.
    pub deny: BTreeSet<String>,
    /// Database users this user may connect as (`rds-db:connect`), and roles of Aurora DSQL it is
    /// associated with; `*` is every one.
    pub db_users: Vec<String>,
    /// The session was opened with an MFA code (`aws:MultiFactorAuthPresent`).
    pub mfa: bool,
}

impl User {
    /// A user with long-term keys who may do everything, as AWS writes such keys in its examples.
    pub fn example(name: &str, account: &str) -> Self {
        Self {
            name: name.to_owned(),
            arn: format!("arn:aws:iam::{account}:user/{name}"),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expires: None,
            deny: BTreeSet::new(),
            db_users: vec!["*".to_owned()],
            mfa: false,
        }
    }

    /// A user with a random key who may do everything; one with an end gets a session token.
    pub(crate) fn with_new_key(name: &str, arn: String, expires: Option<SystemTime>) -> Self {
        let id = Uuid::new_v4().simple().to_string().to_uppercase();
        let kind = if expires.is_some() { "ASIA" } else { "AKIA" };
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Self {
            name: name.to_owned(),
            arn,
            access_key_id: format!("{kind}{}", &id[..16]),
            secret_access_key: secret[..40].to_owned(),
            session_token: expires.map(|_| random_token()),
            expires,
            deny: BTreeSet::new(),
            db_users: vec!["*".to_owned()],
            mfa: false,
        }
    }

    /// The account in the ARN.
    pub(crate) fn account(&self) -> &str {
        self.arn.split(':').nth(4).unwrap_or_default()
    }

    /// Returns true for the session of a role.
    pub(crate) fn is_role_session(&self) -> bool {
        self.arn.contains(":assumed-role/")
    }

    /// Whether `action` is refused to this user.
    pub fn is_denied(&self, action: &str) -> bool {
        self.deny.contains(action)
    }

    /// Whether `action` on the resource with this ARN is refused to this user.
    pub fn is_denied_on(&self, action: &str, resource: &str) -> bool {
        self.is_denied(action) || self.is_denied(&format!("{action} {resource}"))
    }

    /// Why `action` on the resource with this ARN is refused to this user, if it is.
    pub fn refusal(&self, action: &str, resource: &str) -> Option<Refusal> {
        let kinds = [
            ("scp:", Refusal::Organization),
            ("explicit:", Refusal::Explicit),
            ("", Refusal::Implicit),
        ];
        let found = kinds
            .into_iter()
            .find(|(kind, _)| self.is_denied_on(&format!("{kind}{action}"), resource));
        found.map(|(_, refusal)| refusal)
    }

    /// Whether `rds-db:connect` covers this database user.
    pub fn may_connect_as(&self, db_user: &str) -> bool {
        self.refusal("rds-db:connect", "*").is_none() && self.is_mapped_to(db_user)
    }

    /// Whether the list of database users names this one.
    pub(crate) fn is_mapped_to(&self, db_user: &str) -> bool {
        self.db_users.iter().any(|u| u == "*" || u == db_user)
    }

    /// Whether the user's policies are those of the user or role with this ARN. A session has the
    /// policies of its role; paths do not matter, because names are unique without them.
    pub(crate) fn is_principal(&self, arn: &str) -> bool {
        let own = match self.arn.split_once(":assumed-role/") {
            None => self.arn.clone(),
            Some((account, session)) => {
                let role = session.split('/').next().unwrap_or_default();
                format!("{}:role/{role}", account.replacen(":sts:", ":iam:", 1))
            }
        };
        let asked = Entity::of_arn(arn);
        asked.is_some() && asked == Entity::of_arn(&own)
    }

    /// Whether the credentials themselves have ended.
    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }
}

/// What has policies: a user, a group or a role, but not a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entity<'a> {
    account: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Entity<'a> {
    /// Takes `arn:PARTITION:iam::ACCOUNT:KIND/PATH/NAME` apart.
    pub(crate) fn of_arn(arn: &'a str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [_, _, "iam", _, account, entity] = parts[..] else {
            return None;
        };
        let (kind, path) = entity.split_once('/')?;
        let name = path.rsplit('/').next()?;
        let known = ["user", "group", "role"].contains(&kind);
        known.then_some(Self {
            account,
            kind,
            name,
        })
    }
}

/// Whose policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Nobody's: none allows.
    Implicit,
    /// One of the user's own denies.
    Explicit,
    /// One of the organisation's denies, whatever the user's own allow.
    Organization,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("arn", &self.arn)
            .field("access_key_id", &self.access_key_id)
            .field("temporary", &self.session_token.is_some())
            .field("expires", &self.expires)
            .field("deny", &self.deny)
            .field("db_users", &self.db_users)
            .finish_non_exhaustive()
    }
}

/// The sandbox's identity service. Clones share their users.
#[derive(Debug, Clone)]
pub struct Iam {
    region: Arc<str>,
    account: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<String, User>,
    /// Seconds the service's clock is ahead of this machine's.
    clock_ahead: i64,
}

impl Iam {
    /// An identity service without users for one region and one 12-digit account.
    pub fn new(region: &str, account: &str) -> Self {
        Self {
            region: region.into(),
            account: account.into(),
            state: Arc::default(),
        }
    }

    /// The region every request must be signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The account all users belong to.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The partition the region belongs to.
    pub fn partition(&self) -> Partition {
        Partition::of_region(&self.region)
    }

    /// `arn:PARTITION:service:region:account:rest` of this account.
    pub fn resource_arn(&self, service: &str, rest: &str) -> String {
        let partition = self.partition().name;
        format!(
            "arn:{partition}:{service}:{}:{}:{rest}",
            self.region, self.account
        )
    }

    /// Adds a user, or replaces the one with the same access key.
    pub fn add(&self, user: User) {
        self.lock().users.insert(user.access_key_id.clone(), user);
    }

    /// Changes a user in place; returns whether the access key is known. The key itself stays.
    pub fn update(&self, access_key_id: &str, change: impl FnOnce(&mut User)) -> bool {
        match self.lock().users.get_mut(access_key_id) {
            Some(user) => {
                change(user);
                user.access_key_id = access_key_id.to_owned();
                true
            }
            None => false,
        }
    }

    /// Forgets a user: its key is unknown from now on.
    pub fn remove(&self, access_key_id: &str) -> Option<User> {
        self.lock().users.remove(access_key_id)
    }

    /// The user with this access key, as it is now.
    pub fn get(&self, access_key_id: &str) -> Option<User> {
        self.lock().users.get(access_key_id).cloned()
    }

    /// The user with this ARN, or one that has assumed the role with it. With several sessions of a
    /// role it is always the same one.
    pub fn principal(&self, arn: &str) -> Option<User> {
        let state = self.lock();
        let matching = state.users.values().filter(|user| user.is_principal(arn));
        matching
            .min_by(|a, b| a.access_key_id.cmp(&b.access_key_id))
            .cloned()
    }

    /// Puts the service's clock ahead of (or, negative, behind) this machine's, in seconds.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.lock().clock_ahead = seconds;
    }

    /// The time by the service's clock; what a `Date` response header should carry.
    pub fn now(&self) -> SystemTime {
        let ahead = self.lock().clock_ahead;
        let shift = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 {
            SystemTime::now() - shift
        } else {
            SystemTime::now() + shift
        }
    }

    /// Finds out who signed a request to `service` (its signing name, for example `ssm`).
    ///
    /// `uri` and `headers` are as received, `body` is the whole body. Both a signed header set and a
    /// presigned query are understood; the signature is recomputed in either case.
    pub fn authenticate(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
        service: &str,
    ) -> Result<User, AuthError> {
        let parts = request::Parts {
            method,
            uri,
            headers,
            body,
        };
        request::authenticate(self, &parts, service, self.now())
    }

    /// Judges an RDS login token as the database host does, at the time `now`.
    ///
    /// The token must be meant for exactly this endpoint and database user, be signed with a known,
    /// current key that may connect as that user, and be neither too old nor too long-lived.
    pub fn verify_db_token(
        &self,
        token: &str,
        db: &DbEndpoint,
        db_user: &str,
        now: SystemTime,
    ) -> Result<User, TokenRefusal> {
        let token = (db_token::Service::Rds, token);
        db_token::verify(self, token, db, db_user, now)
    }

    /// Judges a login token of Aurora DSQL at the time `now`: for `dsql:DbConnectAdmin` when the
    /// login is for the role `admin`, for `dsql:DbConnect` otherwise. The resource is
    /// [`Self::dsql_cluster_arn`]; [`User::db_users`] are the roles the signer is associated with.
    pub fn verify_dsql_token(
        &self,
        token: &str,
        db: &DbEndpoint,
        db_user: &str,
        now: SystemTime,
    ) -> Result<User, TokenRefusal> {
        let token = (db_token::Service::Dsql, token);
        db_token::verify(self, token, db, db_user, now)
    }

    /// `arn:PARTITION:dsql:region:account:cluster/ID`; the id is the first label of the endpoint
    /// (`ID.dsql.REGION.on.aws`).
    pub fn dsql_cluster_arn(&self, db: &DbEndpoint) -> String {
        let id = db.host.split('.').next().unwrap_or_default();
        self.resource_arn("dsql", &format!("cluster/{id}"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The map is consistent between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let iam = Iam::new("eu-central-1", "123456789012");
        let mut user = User::example("dev", iam.account());
        user.session_token = Some("session-secret".to_owned());
        iam.add(user.clone());
        let shown = format!("{user:?} {iam:?}");
        assert!(shown.contains("AKIAIOSFODNN7EXAMPLE"));
        assert!(!shown.contains("session-secret") && !shown.contains("wJalr"));
    }

    #[test]
    fn principals_are_users_and_roles_not_sessions() {
        let iam = Iam::new("eu-central-1", "123456789012");
        iam.add(User::example("dev", iam.account()));
        let mut session = User::example("dev", iam.account());
        session.arn = "arn:aws:sts::123456789012:assumed-role/Developer/dev".to_owned();
        session.access_key_id = "ASIAIOSFODNN7EXAMPLE".to_owned();
        iam.add(session.clone());
        let found = |arn: &str| iam.principal(arn).map(|user| user.access_key_id);
        let user = found("arn:aws:iam::123456789012:user/dev");
        assert_eq!(user.as_deref(), Some("AKIAIOSFODNN7EXAMPLE"));
        for path in ["", "aws-reserved/sso.amazonaws.com/eu-central-1/"] {
            let role = found(&format!("arn:aws:iam::123456789012:role/{path}Developer"));
            assert_eq!(role.as_deref(), Some("ASIAIOSFODNN7EXAMPLE"));
        }
        assert_eq!(found(&session.arn), None);
        assert_eq!(found("arn:aws:iam::123456789012:role/dev"), None);
    }

    #[test]
    fn the_strongest_refusal_counts() {
        let mut user = User::example("dev", "123456789012");
        assert_eq!(user.refusal("rds-db:connect", "*"), None);
        for (entry, refusal) in [
            ("rds-db:connect", Refusal::Implicit),
            ("explicit:rds-db:connect arn:x", Refusal::Explicit),
            ("scp:rds-db:connect", Refusal::Organization),
        ] {
            user.deny.insert(entry.to_owned());
            assert_eq!(user.refusal("rds-db:connect", "arn:x"), Some(refusal));
        }
        assert!(!user.may_connect_as("db_user"));
    }

    #[test]
    fn clones_share_users_and_updates_keep_the_key() {
        let iam = Iam::new("eu-central-1", "123456789012");
        let other = iam.clone();
        iam.add(User::example("dev", iam.account()));
        assert!(other.update("AKIAIOSFODNN7EXAMPLE", |u| {
            u.access_key_id = "else".to_owned();
            u.deny.insert("ssm:StartSession".to_owned());
        }));
        let user = iam.get("AKIAIOSFODNN7EXAMPLE").unwrap();
        assert!(user.is_denied("ssm:StartSession"));
        assert_eq!(user.access_key_id, "AKIAIOSFODNN7EXAMPLE");
        assert!(!other.update("nobody", |_| panic!("must not be called")));
        assert!(other.remove("AKIAIOSFODNN7EXAMPLE").is_some());
        assert!(iam.get("AKIAIOSFODNN7EXAMPLE").is_none());
    }
}
