//! Assembly: one account in one region, with its API, its gateway and its nodes, on one local port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::agent::AgentControl;
use crate::api::{self, Api, SessionDocument};
use crate::cloud::Cloud;
use crate::events::{Event, EventLog};
use crate::iam::{Iam, User};
use crate::inventory::Inventory;
use crate::kms::Kms;
use crate::link::Link;
use crate::partition::Partition;
use crate::pki::Pki;
use crate::preferences::Preferences;
use crate::session::{Order, Side};
use crate::sync::lock;
use crate::vpc::Vpc;

/// The managed node a sandbox has unless told otherwise.
pub const DEFAULT_TARGET: &str = "i-0123456789abcdef0";

/// What a sandbox is made from.
#[derive(Debug, Clone)]
pub struct Builder {
    region: String,
    account: String,
    user: String,
    temporary: Option<Duration>,
    targets: Vec<String>,
    port: u16,
    cell_numbers: bool,
    dir: Option<PathBuf>,
    listen: Option<IpAddr>,
    names: Vec<String>,
}

impl Builder {
    /// Region the account lives in; `eu-central-1` by default.
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// 12-digit account number.
    pub fn account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.account);
        self
    }

    /// Name of the first user, whose credentials [`Sandbox::env`] holds; `dev` by default.
    pub fn user(mut self, name: &str) -> Self {
        name.clone_into(&mut self.user);
        self
    }

    /// Gives the first user temporary credentials that end after `life`.
    pub fn temporary_credentials(mut self, life: Duration) -> Self {
        self.temporary = Some(life);
        self
    }

    /// Adds a managed node besides [`DEFAULT_TARGET`].
    pub fn target(mut self, id: &str) -> Self {
        self.targets.push(id.to_owned());
        self
    }

    /// Adds a cell number with Base64's `+` and `/` to every `StreamUrl`, as the service often does;
    /// a client must open and sign the URL with it.
    pub fn cell_numbers(mut self) -> Self {
        self.cell_numbers = true;
        self
    }

    /// Fixed local port instead of any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Writes its files here, and leaves them, instead of below a temporary directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Listens at this address instead of at those of loopback.
    pub fn listen(mut self, address: IpAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Adds a name the sandbox is reached by besides `localhost`. Endpoint URLs have the first one.
    pub fn name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Makes keys and certificates, binds the port and starts answering.
    pub async fn start(self) -> anyhow::Result<Sandbox> {
        let dir = Place::new(self.dir.as_deref())?;
        let pki = Pki::new(dir.path())?;
        let region = &self.region;
        let partition = Partition::of_region(region);
        let services = ["ssm", "ssmmessages", "sts", "kms", "rds", "ec2"];
        let services = services.map(|s| partition.host_names(s, region));
        let iam_names = partition.iam_host_names();
        let mut names = vec!["localhost", "127.0.0.1", "::1"];
        names.extend(services.iter().flatten().map(String::as_str));
        names.extend(iam_names.iter().map(String::as_str));
        names.extend(self.names.iter().map(String::as_str));
        let tls = pki.issue(&names)?.server_config(&[b"http/1.1"])?;
        let iam = Iam::new(region, &self.account);
        let user = self.first_user();
        let node_role = self.node_role();
        iam.add(user.clone());
        iam.add(node_role.clone());
        let key = &node_role.access_key_id;
        let cloud = Cloud::new(iam, key, self.cell_numbers, self.names.clone());
        for target in &self.targets {
            lock(&cloud.nodes).insert(target.clone(), AgentControl::default());
        }
        for name in ["config", "credentials"] {
            std::fs::write(dir.path().join(name), "").context("writing an empty AWS file")?;
        }
        let (port, listeners) = bind(self.listen, self.port).await?;
        for listener in listeners {
            let work = api::serve(cloud.clone(), listener, TlsAcceptor::from(tls.clone()));
            cloud.tasks.spawn(work);
        }
        Ok(Sandbox {
            port,
            cloud,
            pki,
            dir,
            user,
            node_role,
            names: self.names,
        })
    }

    fn first_user(&self) -> User {
        let (name, account) = (&self.user, &self.account);
        let partition = Partition::of_region(&self.region).name;
        let arn = match self.temporary {
            None => format!("arn:{partition}:iam::{account}:user/{name}"),
            Some(_) => format!("arn:{partition}:sts::{account}:assumed-role/Developer/{name}"),
        };
        with_new_key(name, arn, self.temporary)
    }

    /// What an independent agent signs with: the role of its instance profile.
    fn node_role(&self) -> User {
        let arn = format!(
            "arn:{}:sts::{}:assumed-role/BastionRole/node",
            Partition::of_region(&self.region).name,
            self.account
        );
        let mut user = with_new_key("node", arn, Some(Duration::from_secs(6 * 3600)));
        user.db_users.clear();
        user
    }
}

/// A user with a random key; temporary ones get a session token and an end.
fn with_new_key(name: &str, arn: String, life: Option<Duration>) -> User {
    let id = Uuid::new_v4().simple().to_string().to_uppercase();
    let kind = if life.is_some() { "ASIA" } else { "AKIA" };
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    User {
        name: name.to_owned(),
        arn,
        access_key_id: format!("{kind}{}", &id[..16]),
        secret_access_key: secret[..40].to_owned(),
        session_token: life.map(|_| crate::session::random_token()),
        expires: life.map(|life| SystemTime::now() + life),
        deny: std::collections::BTreeSet::new(),
        db_users: vec!["*".to_owned()],
    }
}

/// Where the files are.
enum Place {
    /// Goes with the sandbox.
    Temporary(TempDir),
    /// Stays.
    Given(PathBuf),
}

impl Place {
    fn new(given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = given else {
            let dir = tempfile::Builder::new()
                .prefix("pgiam-sandbox-")
                .tempdir()
                .context("making the sandbox directory")?;
            return Ok(Self::Temporary(dir));
        };
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        // Somebody else's working directory may not be there for whoever reads the files.
        let dir = dir.canonicalize();
        Ok(Self::Given(dir.context("finding the sandbox directory")?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(dir) => dir,
        }
    }
}

/// Binds one address or, without, the same port on both of loopback; a machine without IPv6 does
/// with one.
async fn bind(listen: Option<IpAddr>, port: u16) -> anyhow::Result<(u16, Vec<TcpListener>)> {
    let address = listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let first = TcpListener::bind(SocketAddr::from((address, port)))
        .await
        .context("binding the sandbox port")?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    if listen.is_some() {
        return Ok((port, listeners));
    }
    if let Ok(v6) = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        listeners.push(v6);
    }
    Ok((port, listeners))
}

/// A running sandbox. Dropping it stops everything; [`Sandbox::shutdown`] also waits for that.
pub struct Sandbox {
    port: u16,
    cloud: Arc<Cloud>,
    pki: Pki,
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
        Builder {
            region: "eu-central-1".to_owned(),
            account: "123456789012".to_owned(),
            user: "dev".to_owned(),
            temporary: None,
            targets: vec![DEFAULT_TARGET.to_owned()],
            port: 0,
            cell_numbers: false,
            dir: None,
            listen: None,
            names: Vec::new(),
        }
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
    /// [`Event::StartSession`](crate::events::Event::StartSession).
    pub fn external_agent(&self, target: &str) -> AgentControl {
        let agent = self.agent(target);
        agent.update(|s| s.external = true);
        agent
    }

    /// Certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
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
