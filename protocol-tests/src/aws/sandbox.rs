//! Assembly: one account in one region, with its API, its gateway and its nodes, on one local port.

use std::path::Path;
use std::sync::Arc;

use crate::aws::agent::AgentControl;
use crate::aws::api::{Api, SessionDocument};
use crate::aws::cloud::Cloud;
use crate::aws::console::Console;
use crate::aws::events::{Event, EventLog};
use crate::aws::iam::{Iam, User};
use crate::aws::identity_center::IdentityCenter;
use crate::aws::inventory::Inventory;
use crate::aws::kms::Kms;
use crate::aws::mfa::Mfa;
use crate::aws::preferences::Preferences;
use crate::aws::roles::Roles;
use crate::aws::session::{Order, Side};
use crate::harness::pki::Pki;
use crate::harness::sync::lock;
use crate::network::link::Link;
use crate::network::vpc::Vpc;

mod builder;

pub use builder::Builder;
use builder::Place;

/// The managed node a sandbox has unless told otherwise.
pub const DEFAULT_TARGET: &str = "i-0123456789abcdef0";

/// A running sandbox. Dropping it stops everything; [`Sandbox::shutdown`] also waits for that.
pub struct Sandbox {
    port: u16,
    cloud: Arc<Cloud>,
    pki: Pki,
    pin: String,
    user: User,
    node_role: User,
    names: Vec<String>,
    // Last, so that files outlive what uses them.
    dir: Place,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.cloud.tasks.stop();
    }
}

impl Sandbox {
    /// Starting point with every default.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `https://localhost:PORT`, for every service; with its first other name if it has one.
    pub fn endpoint_url(&self) -> String {
        let name = self.names.first().map_or("localhost", String::as_str);
        format!("https://{name}:{}", self.port)
    }

    /// The local port all services share.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What somebody would export in their shell to work in this account as the first user. Holds
    /// secrets, which are worth nothing outside of this sandbox.
    pub fn env(&self) -> Vec<(String, String)> {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let mut env = vec![
            ("AWS_ENDPOINT_URL", self.endpoint_url()),
            (
                "AWS_CA_BUNDLE",
                self.pki.ca_pem_path().display().to_string(),
            ),
            ("AWS_ACCESS_KEY_ID", self.user.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.user.secret_access_key.clone()),
        ];
        if let Some(token) = &self.user.session_token {
            env.push(("AWS_SESSION_TOKEN", token.clone()));
        }
        env.extend([
            ("AWS_REGION", self.cloud.iam.region().to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", file("config")),
            ("AWS_SHARED_CREDENTIALS_FILE", file("credentials")),
        ]);
        env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// The variables of [`Self::env`] without the first user's keys, for clients that log in.
    pub fn env_without_keys(&self) -> Vec<(String, String)> {
        const KEYS: [&str; 3] = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        ];
        let mut env = self.env();
        env.retain(|(name, _)| !KEYS.contains(&name.as_str()));
        env
    }

    /// Users and the service's clock.
    pub fn iam(&self) -> &Iam {
        &self.cloud.iam
    }

    /// The first user as it was made; changes are in [`Sandbox::iam`].
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The nodes' role, for an independent agent.
    pub fn node_role(&self) -> &User {
        &self.node_role
    }

    /// Names and routes behind the nodes.
    pub fn vpc(&self) -> &Vpc {
        &self.cloud.vpc
    }

    /// Databases, proxies and machines of the account; none at first.
    pub fn inventory(&self) -> &Inventory {
        &self.cloud.inventory
    }

    /// What has happened.
    pub fn events(&self) -> &EventLog {
        &self.cloud.events
    }

    /// Faults of the API.
    pub fn api(&self) -> &Api {
        &self.cloud.api
    }

    /// Faults between the two sides of the gateway.
    pub fn link(&self) -> &Link {
        &self.cloud.link
    }

    /// The account's KMS keys.
    pub fn kms(&self) -> &Kms {
        &self.cloud.kms
    }

    /// IAM Identity Center: its user, registrations, logins and assigned roles.
    pub fn identity_center(&self) -> &IdentityCenter {
        &self.cloud.identity_center
    }

    /// Sign-in sessions of the console, for `aws login`.
    pub fn console(&self) -> &Console {
        &self.cloud.console
    }

    /// MFA devices; none at first.
    pub fn mfa(&self) -> &Mfa {
        &self.cloud.mfa
    }

    /// Roles that STS gives credentials for; none at first.
    pub fn roles(&self) -> &Roles {
        &self.cloud.roles
    }

    /// The account's Session Manager preferences: how long sessions last.
    pub fn preferences(&self) -> &Preferences {
        &self.cloud.preferences
    }

    /// The node with this id; made on first use, online and with default settings. `i-…` is an
    /// instance, `mi-…` a managed instance, `ecs:cluster_task_runtime` a container.
    pub fn agent(&self, target: &str) -> AgentControl {
        let mut nodes = lock(&self.cloud.nodes);
        nodes.entry(target.to_owned()).or_default().clone()
    }

    /// Forgets a node: the service does not know it any more. Its running sessions go on.
    pub fn remove_node(&self, target: &str) -> Option<AgentControl> {
        lock(&self.cloud.nodes).remove(target)
    }

    /// Adds a session document of the account's own, under a name that does not begin with `AWS-`.
    pub fn add_document(&self, name: &str, document: SessionDocument) {
        self.cloud.add_document(name, document);
    }

    /// Lets an independent agent serve the sessions of this node: it learns their ids from
    /// [`Event::StartSession`].
    pub fn external_agent(&self, target: &str) -> AgentControl {
        let agent = self.agent(target);
        agent.update(|s| s.external = true);
        agent
    }

    /// Certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Pin of the certificate of all services, for a browser.
    pub fn certificate_pin(&self) -> &str {
        &self.pin
    }

    /// A directory that lives as long as the sandbox, or longer with [`Builder::dir`].
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ids of the sessions that have not ended.
    pub fn open_sessions(&self) -> Vec<String> {
        let sessions = self.cloud.open_sessions();
        sessions.iter().map(|s| s.info.id.clone()).collect()
    }

    /// Every `TokenValue` that was ever given to a client: secrets that must not turn up elsewhere.
    pub fn token_values(&self) -> Vec<String> {
        let sessions = self.cloud.all_sessions();
        sessions.iter().flat_map(|s| s.handed_out()).collect()
    }

    /// Ends a session from the service's side, as the idle and the maximum duration do: both sides
    /// get `channel_closed` with this reason. False when there is no such open session.
    pub fn end_session(&self, id: &str, reason: &str) -> bool {
        let session = self.cloud.session(id).filter(|s| !s.has_ended());
        session.map(|s| s.end(reason)).is_some()
    }

    /// Ends a session as `TerminateSession` does when an administrator calls it from the console:
    /// `channel_closed` without a reason. False when there is no such open session.
    pub fn terminate_session(&self, id: &str) -> bool {
        let ended = self.end_session(id, "");
        if ended {
            self.cloud.events.push(Event::TerminateSession {
                session_id: id.to_owned(),
            });
        }
        ended
    }

    /// Drops the client's transport of a session without a close frame; the session lives on and
    /// can be resumed. False when no client was connected.
    pub fn cut_client(&self, id: &str) -> bool {
        self.order_client(id, Order::Cut)
    }

    /// Closes the client's WebSocket of a session in good manner, as the service does about hourly
    /// with 1000; the session lives on. False when no client was connected.
    pub fn close_client(&self, id: &str, code: u16, reason: &str) -> bool {
        self.order_client(id, Order::Close(code, reason.to_owned()))
    }

    fn order_client(&self, id: &str, order: Order) -> bool {
        let session = self.cloud.session(id);
        session.is_some_and(|s| s.order(Side::Client, order))
    }

    /// Stops everything and waits until no task is left.
    pub async fn shutdown(self) {
        self.cloud.tasks.shutdown().await;
    }
}
