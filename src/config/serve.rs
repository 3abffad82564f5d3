//! Settings of `pgiam serve` as a whole: its addresses, and its clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, ServeDefaults, ServeLayer};

/// Default addresses of every TCP port.
pub const DEFAULT_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Upper limit of `max_connections`: each takes one or two descriptors, of which systems give a
/// process some thousands at most.
const MOST_CONNECTIONS: usize = 10_000;

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

impl From<PathBuf> for SocketDir {
    /// Interprets `none`; other paths are directories.
    fn from(path: PathBuf) -> Self {
        match path.as_os_str() == "none" {
            true => Self::None,
            false => Self::At(path),
        }
    }
}

/// Addresses and clients of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
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
    /// Clients of this user may open the browser for a login to AWS.
    pub browser_login: bool,
    /// Address of the status page, the health endpoints and metrics; `None`: they are off.
    pub http: Option<SocketAddr>,
}

impl ServeSettings {
    /// Validates `layer`.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] for the first invalid value.
    pub fn from_layer(layer: ServeLayer) -> Result<Self, ConfigError> {
        Ok(Self {
            addresses: addresses(layer.address)?,
            socket_dir: socket_dir(layer.socket_dir)?,
            peer_check: layer.peer_check.unwrap_or(ServeDefaults::peer_check()),
            password_file: layer.password_file,
            hub_port: hub_port(layer.hub_port)?,
            max_connections: max_connections(layer.max_connections)?,
            startup_timeout: startup_timeout(layer.startup_timeout)?,
            browser_login: browser_login(layer.login.as_deref())?,
            http: http(layer.http_port, layer.http_address)?,
        })
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

fn addresses(written: Option<Vec<String>>) -> Result<Vec<IpAddr>, ConfigError> {
    let Some(written) = written else {
        return Ok(DEFAULT_ADDRESSES.to_vec());
    };
    if written.is_empty() {
        let reason = "expected at least one address";
        return Err(ConfigError::invalid_setting("address", "[]", reason));
    }
    let addresses = written.iter().map(|text| {
        text.trim().parse().map_err(|_| {
            ConfigError::invalid_setting(
                "address",
                text,
                "expected an IP address such as 127.0.0.1, or 0.0.0.0 for all interfaces (set the port with `port`)",
            )
        })
    });
    addresses.collect()
}

fn socket_dir(written: Option<SocketDir>) -> Result<SocketDir, ConfigError> {
    match written {
        Some(SocketDir::At(path)) if path.as_os_str().is_empty() => {
            let reason = "expected a directory, or \"none\"";
            Err(ConfigError::invalid_setting("socket_dir", "", reason))
        }
        written => Ok(written.unwrap_or_default()),
    }
}

fn hub_port(port: Option<u16>) -> Result<Option<u16>, ConfigError> {
    match port {
        Some(0) => {
            let reason = "expected a port, 1 to 65535";
            Err(ConfigError::invalid_setting("hub_port", 0, reason))
        }
        port => Ok(port),
    }
}

fn max_connections(limit: Option<u64>) -> Result<usize, ConfigError> {
    let limit = limit.unwrap_or(ServeDefaults::max_connections());
    usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=MOST_CONNECTIONS).contains(limit))
        .ok_or_else(|| {
            let reason = format!("expected 1 to {MOST_CONNECTIONS}");
            ConfigError::invalid_setting("max_connections", limit, reason)
        })
}

fn startup_timeout(seconds: Option<u64>) -> Result<Duration, ConfigError> {
    match seconds.unwrap_or(ServeDefaults::startup_timeout()) {
        0 => {
            let reason = "expected whole seconds, 1 or more";
            Err(ConfigError::invalid_setting("startup_timeout", 0, reason))
        }
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn browser_login(method: Option<&str>) -> Result<bool, ConfigError> {
    match method {
        None | Some("off") => Ok(false),
        Some("browser") => Ok(true),
        Some(other) => {
            let reason = "expected \"off\" or \"browser\"";
            Err(ConfigError::invalid_setting("login", other, reason))
        }
    }
}

fn http(port: Option<u16>, address: Option<IpAddr>) -> Result<Option<SocketAddr>, ConfigError> {
    match (port, address) {
        (Some(port), address) => {
            let address = address.unwrap_or(ServeDefaults::http_address());
            Ok(Some(SocketAddr::new(address, port)))
        }
        (None, None) => Ok(None),
        (None, Some(address)) => {
            let reason = "it has no effect without http_port; set both";
            Err(ConfigError::invalid_setting(
                "http_address",
                address,
                reason,
            ))
        }
    }
}
