//! IAM roles with simple trust policies, for STS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::aws::iam::User;
use crate::harness::sync::lock;

/// A role, and the conditions under which STS gives credentials for it.
#[derive(Debug, Clone)]
pub struct Role {
    /// `arn:aws:iam::ACCOUNT:role/NAME`.
    pub arn: String,
    /// Principals that may assume the role: ARNs of users and roles, `arn:aws:iam::ACCOUNT:root`
    /// for all of an account, or `*`.
    pub trusts: Vec<String>,
    /// `sts:ExternalId` that the trust policy asks for.
    pub external_id: Option<String>,
    /// The trust policy has `aws:MultiFactorAuthPresent`.
    pub requires_mfa: bool,
    /// `MaxSessionDuration`; one hour unless changed, as at AWS.
    pub max_session: Duration,
    /// Text of the web identity token that the role accepts.
    pub web_identity: Option<String>,
    /// As [`User::deny`].
    pub deny: BTreeSet<String>,
    /// As [`User::db_users`].
    pub db_users: Vec<String>,
}

impl Role {
    /// A role that all principals of its own account may assume, and that may do everything.
    pub fn new(arn: &str) -> Self {
        let parts: Vec<&str> = arn.split(':').collect();
        let part = |n: usize| parts.get(n).copied().unwrap_or_default();
        Self {
            arn: arn.to_owned(),
            trusts: vec![format!("arn:{}:iam::{}:root", part(1), part(4))],
            external_id: None,
            requires_mfa: false,
            max_session: Duration::from_secs(3600),
            web_identity: None,
            deny: BTreeSet::new(),
            db_users: vec!["*".to_owned()],
        }
    }

    /// Returns true if the trust policy allows `AssumeRole`.
    pub(crate) fn admits(&self, user: &User, external_id: Option<&str>, mfa: bool) -> bool {
        let trusted = self.trusts.iter().any(|principal| {
            let whole_account = principal.strip_suffix(":root");
            let account = whole_account.and_then(|arn| arn.rsplit(':').next());
            principal == "*"
                || *principal == user.arn
                || user.is_principal(principal)
                || account == Some(user.account())
        });
        let external = self.external_id.as_deref();
        trusted && (external.is_none() || external == external_id) && (mfa || !self.requires_mfa)
    }

    /// Path and name in the ARN: sessions have the name only.
    pub(crate) fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// ARN of a session of the role.
    pub(crate) fn session_arn(&self, session: &str) -> String {
        let parts: Vec<&str> = self.arn.split(':').collect();
        let part = |n: usize| parts.get(n).copied().unwrap_or_default();
        let (partition, account) = (part(1), part(4));
        format!(
            "arn:{partition}:sts::{account}:assumed-role/{}/{session}",
            self.name()
        )
    }
}

/// The roles; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Roles(Arc<Mutex<BTreeMap<String, Role>>>);

impl Roles {
    /// Adds a role, or replaces the one with the same ARN.
    pub fn add(&self, role: Role) {
        lock(&self.0).insert(role.arn.clone(), role);
    }

    /// Deletes a role. Its sessions go on, as at AWS.
    pub fn remove(&self, arn: &str) -> Option<Role> {
        lock(&self.0).remove(arn)
    }

    pub(crate) fn get(&self, arn: &str) -> Option<Role> {
        lock(&self.0).get(arn).cloned()
    }
}
