//! What `pgiam serve` as a whole does: where it listens, and for whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, DEFAULT_MAX_CONNECTIONS, DEFAULT_STARTUP_TIMEOUT, forms};

/// What is written in `[serve]`, or in its flags. Every key is optional in every layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeLayer {
    /// Addresses to listen on.
    #[serde(default, deserialize_with = "forms::list")]
    pub address: Option<Vec<String>>,
    /// Where the Unix sockets are; `none` for no sockets.
    pub socket_dir: Option<PathBuf>,
    /// Whether clients must belong to the user who runs the program.
    #[serde(default, deserialize_with = "forms::switch")]
    pub peer_check: Option<bool>,
    /// File with the password that clients must give.
    pub password_file: Option<PathBuf>,
    /// A further port, on which the database name picks among all targets.
    pub hub_port: Option<u16>,
    /// Most connections at a time.
    pub max_connections: Option<u64>,
    /// Seconds a client may take to say what it wants.
    pub startup_timeout: Option<u64>,
    /// The port of the health endpoints and metrics.
    pub http_port: Option<u16>,
    /// Their address.
    pub http_address: Option<IpAddr>,
}

impl ServeLayer {
    /// These settings, and where they say nothing those `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            address: self.address.or(below.address),
            socket_dir: self.socket_dir.or(below.socket_dir),
            peer_check: self.peer_check.or(below.peer_check),
            password_file: self.password_file.or(below.password_file),
            hub_port: self.hub_port.or(below.hub_port),
            max_connections: self.max_connections.or(below.max_connections),
            startup_timeout: self.startup_timeout.or(below.startup_timeout),
            http_port: self.http_port.or(below.http_port),
            http_address: self.http_address.or(below.http_address),
        }
    }
}

/// Where the Unix sockets are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SocketDir {
    /// In the user's runtime directory, if there can be one.
    #[default]
    Default,
    /// There are none.
    None,
    /// Here.
    At(PathBuf),
}

/// Where the program listens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The addresses of every TCP port.
    pub addresses: Vec<IpAddr>,
    /// The Unix sockets.
    pub socket_dir: SocketDir,
    /// Clients must belong to the user who runs the program, where the system tells.
    pub peer_check: bool,
    /// File with the password that TCP clients must give.
    pub password_file: Option<PathBuf>,
    /// A further port, on which the database name picks among all targets.
    pub hub_port: Option<u16>,
    /// Most connections at a time.
    pub max_connections: usize,
    /// How long a client may take to say what it wants, TLS and a password included.
    pub startup_timeout: Duration,
    /// Where the health endpoints and metrics are; `None`: nowhere.
    pub http: Option<SocketAddr>,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            addresses: vec![
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ],
            socket_dir: SocketDir::Default,
            peer_check: true,
            password_file: None,
            hub_port: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            startup_timeout: DEFAULT_STARTUP_TIMEOUT,
            http: None,
        }
    }
}

impl Serve {
    /// What `layer` means.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] for the first value that cannot be meant.
    pub fn from_layer(layer: ServeLayer) -> Result<Self, ConfigError> {
        let invalid = |key, value: String, reason: &str| ConfigError::Setting {
            key,
            value,
            reason: reason.to_owned(),
        };
        let mut serve = Self::default();
        if let Some(written) = layer.address {
            serve.addresses = written
                .iter()
                .map(|text| {
                    text.trim().parse().map_err(|_| {
                        invalid("address", text.clone(), "write an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all; the port is port's business")
                    })
                })
                .collect::<Result<_, _>>()?;
            if serve.addresses.is_empty() {
                return Err(invalid(
                    "address",
                    "[]".to_owned(),
                    "give one address or more",
                ));
            }
        }
        serve.socket_dir = match layer.socket_dir {
            None => SocketDir::Default,
            Some(dir) if dir.as_os_str() == "none" => SocketDir::None,
            Some(dir) if dir.as_os_str().is_empty() => {
                return Err(invalid(
                    "socket_dir",
                    String::new(),
                    "give a directory, or \"none\"",
                ));
            }
            Some(dir) => SocketDir::At(dir),
        };
        if let Some(port @ 0) = layer.hub_port {
            return Err(invalid(
                "hub_port",
                port.to_string(),
                "give a port, 1 to 65535",
            ));
        }
        serve.hub_port = layer.hub_port;
        serve.peer_check = layer.peer_check.unwrap_or(true);
        serve.password_file = layer.password_file;
        if let Some(limit) = layer.max_connections {
            serve.max_connections = usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=MOST_CONNECTIONS).contains(limit))
                .ok_or_else(|| {
                    invalid(
                        "max_connections",
                        limit.to_string(),
                        "give a number of connections, 1 to 10000",
                    )
                })?;
        }
        match layer.startup_timeout {
            Some(0) => {
                return Err(invalid(
                    "startup_timeout",
                    "0".to_owned(),
                    "give whole seconds, 1 or more",
                ));
            }
            Some(given) => serve.startup_timeout = Duration::from_secs(given),
            None => {}
        }
        serve.http = match (layer.http_port, layer.http_address) {
            (Some(port), address) => Some(SocketAddr::new(
                address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                port,
            )),
            (None, None) => None,
            (None, Some(address)) => {
                return Err(invalid(
                    "http_address",
                    address.to_string(),
                    "give http_port, too; there is no port by default",
                ));
            }
        };
        Ok(serve)
    }

    /// The first address at which other machines can reach it.
    #[must_use]
    pub fn exposed_address(&self) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter();
        addresses
            .find(|address| !address.to_canonical().is_loopback())
            .copied()
    }
}

/// Each takes one or two descriptors, of which systems give a process some thousands at most.
const MOST_CONNECTIONS: usize = 10_000;
