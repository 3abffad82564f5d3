//! Settings of `pgiam serve` as a whole: its addresses, and its clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, DEFAULT_MAX_CONNECTIONS, DEFAULT_STARTUP_TIMEOUT, forms};

/// Settings in `[serve]`, or in its flags. Every key is optional in every layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeLayer {
    /// Addresses to listen on.
    #[serde(default, deserialize_with = "forms::list")]
    pub address: Option<Vec<String>>,
    /// Directory of the Unix sockets; `none` for no sockets.
    pub socket_dir: Option<PathBuf>,
    /// Clients must belong to pgiam's user.
    #[serde(default, deserialize_with = "forms::switch")]
    pub peer_check: Option<bool>,
    /// File with the password that clients must give.
    pub password_file: Option<PathBuf>,
    /// Extra port for all targets; the database name selects one.
    pub hub_port: Option<u16>,
    /// Maximum number of concurrent connections.
    pub max_connections: Option<u64>,
    /// Seconds a client may take to complete startup.
    pub startup_timeout: Option<u64>,
    /// Port of the health endpoints and metrics.
    pub http_port: Option<u16>,
    /// Address of the health endpoints and metrics.
    pub http_address: Option<IpAddr>,
}

impl ServeLayer {
    /// Merges two layers; these settings take precedence over those `below`.
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

/// Location of the Unix sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SocketDir {
    /// The user's runtime directory, if there can be one.
    #[default]
    Default,
    /// No Unix sockets.
    None,
    /// This directory.
    At(PathBuf),
}

/// Addresses and clients of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Addresses of every TCP port.
    pub addresses: Vec<IpAddr>,
    /// Directory of the Unix sockets.
    pub socket_dir: SocketDir,
    /// Clients must belong to pgiam's user, if the system can tell.
    pub peer_check: bool,
    /// File with the password that TCP clients must give.
    pub password_file: Option<PathBuf>,
    /// Extra port for all targets; the database name selects one.
    pub hub_port: Option<u16>,
    /// Maximum number of concurrent connections.
    pub max_connections: usize,
    /// Time that a client may take to complete startup, including TLS and a password.
    pub startup_timeout: Duration,
    /// Address of the health endpoints and metrics; `None`: they are off.
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
    /// Validates `layer`.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] for the first invalid value.
    pub fn from_layer(layer: ServeLayer) -> Result<Self, ConfigError> {
        let invalid = |key, value: String, reason| ConfigError::invalid_setting(key, value, reason);
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

    /// Returns the first address that other machines can reach.
    #[must_use]
    pub fn exposed_address(&self) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter();
        addresses
            .find(|address| !address.to_canonical().is_loopback())
            .copied()
    }
}

/// Upper limit of `max_connections`: each takes one or two descriptors, of which systems give a
/// process some thousands at most.
const MOST_CONNECTIONS: usize = 10_000;
