//! How a sandbox is made: its account, its files and its port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{DEFAULT_TARGET, Sandbox};
use crate::aws::agent::AgentControl;
use crate::aws::api;
use crate::aws::cloud::Cloud;
use crate::aws::iam::{Iam, User};
use crate::aws::partition::Partition;
use crate::harness::pki::Pki;
use crate::harness::sync::lock;

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

impl Default for Builder {
    fn default() -> Self {
        Self {
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
        let certificate = pki.issue(&names)?;
        let tls = certificate.server_config(&[b"http/1.1"])?;
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
            pin: certificate.pin().to_owned(),
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
        User::with_new_key(
            name,
            arn,
            self.temporary.map(|life| SystemTime::now() + life),
        )
    }

    /// What an independent agent signs with: the role of its instance profile.
    fn node_role(&self) -> User {
        let arn = format!(
            "arn:{}:sts::{}:assumed-role/BastionRole/node",
            Partition::of_region(&self.region).name,
            self.account
        );
        let ends = SystemTime::now() + Duration::from_secs(6 * 3600);
        let mut user = User::with_new_key("node", arn, Some(ends));
        user.db_users.clear();
        user
    }
}

/// Where the files are.
pub(super) enum Place {
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

    pub(super) fn path(&self) -> &Path {
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
