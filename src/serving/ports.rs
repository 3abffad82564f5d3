//! Local ports and Unix sockets: collects those that the targets need, and listens on them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tracing::warn;

use crate::admission::{BindFailure, BoundPort, Listening, PassedSockets, listen_at_all};
use crate::base::names::TargetName;
use crate::config::{ServeSettings, SocketDir};
use crate::platform::socket::{SocketError, UnixSocket};
use crate::platform::{self, descriptors};
use crate::targets::context::ProtocolState;
use crate::targets::served_target::{PortTargets, ServedTarget};

/// Reserve of descriptors for the program itself and for its first clients.
const BESIDES: usize = 64;

/// Reason why the server cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The port is in use.
    #[error(
        "cannot listen on {address}: the port is in use\nhint: another pgiam or a PostgreSQL \
         server may be running; choose another port with {}", .setting.remedy(next(.address))
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The setting that the port belongs to.
        setting: PortSetting,
    },
    /// A port of `[serve]` is configured for another use as well.
    #[error("{key} = {port} is also {other}\nhint: choose another port for one of them")]
    Same {
        /// The key of `[serve]`.
        key: &'static str,
        /// The port.
        port: u16,
        /// The other use: "the port of target \"orders\"", "hub_port".
        other: String,
    },
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The targets need more descriptors than are available.
    #[error(
        "cannot listen on {ports} ports: they need {needed} file descriptors, and {}\nhint: \
         raise the limit ({}), or use the same port for several targets: clients then select one \
         by the database name", has(.limit), descriptors::HOW_TO_RAISE
    )]
    Descriptors {
        /// Number of ports.
        ports: usize,
        /// Number of descriptors that the ports need.
        needed: u64,
        /// Limit of the process; `None` if the limit of the system was reached.
        limit: Option<u64>,
    },
    /// The service manager passed a socket that no target uses.
    #[error(
        "the service manager passed the socket {socket}, which belongs to no target\nhint: pgiam \
         listens on {own}; change ListenStream= in the socket unit, or write it again:\n  pgiam \
         service install --on-demand"
    )]
    Passed {
        /// Address or path of the socket.
        socket: String,
        /// Addresses and ports of the configuration.
        own: String,
    },
    /// Another failure.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

impl BindError {
    /// Returns the port that is in use, and the setting for another one.
    #[must_use]
    pub fn in_use(&self) -> Option<(u16, String)> {
        match self {
            Self::InUse { address, setting } => {
                Some((address.port(), setting.remedy(next(address))))
            }
            _ => None,
        }
    }
}

fn has(limit: &Option<u64>) -> String {
    match limit {
        Some(limit) => format!("the limit of this process is {limit}"),
        None => "the system has none left".to_owned(),
    }
}

fn next(address: &SocketAddr) -> u16 {
    address.port().checked_add(1).unwrap_or(5433)
}

/// Purpose of a local port. It stays the same across a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortUse {
    /// The targets with this `port`.
    Port(u16),
    /// One target without a fixed port; the system chooses one.
    Any(TargetName),
    /// All targets.
    Hub(u16),
}

impl PortUse {
    /// Returns the port, unless the system chooses it.
    pub(super) fn fixed_port(&self) -> Option<u16> {
        Some(self.port()).filter(|port| *port != 0)
    }

    fn port(&self) -> u16 {
        match *self {
            Self::Port(port) | Self::Hub(port) => port,
            Self::Any(_) => 0,
        }
    }
}

/// Returns the ports to listen on, and the targets behind each. Targets with the same port share
/// one entry, port 0 is a fresh port for each, and the hub's port serves all targets.
///
/// # Errors
/// [`BindError::Same`].
pub(super) fn port_uses<P: ProtocolState>(
    targets: &[Arc<ServedTarget<P>>],
    serve: &ServeSettings,
) -> Result<Vec<(PortUse, PortTargets<P>)>, BindError> {
    let hub = serve.hub_port;
    let mut port_uses = Vec::new();
    let mut by_port: BTreeMap<u16, Vec<Arc<ServedTarget<P>>>> = BTreeMap::new();
    let port_targets = |targets: Vec<Arc<ServedTarget<P>>>, by_name| PortTargets {
        targets: targets.into(),
        by_name,
        stopped: Arc::default(),
    };
    for served in targets {
        match served.config.settings.local_port {
            0 => port_uses.push((
                PortUse::Any(served.config.name.clone()),
                port_targets(vec![Arc::clone(served)], false),
            )),
            port => by_port.entry(port).or_default().push(Arc::clone(served)),
        }
    }
    let target_on = |port: u16| {
        let targets = by_port.get(&port)?;
        Some(format!("the port of target \"{}\"", name_of(targets)))
    };
    let same = |key, port, other| Err(BindError::Same { key, port, other });
    if let Some(port) = hub
        && let Some(other) = target_on(port)
    {
        return same("hub_port", port, other);
    }
    if let Some(http) = serve.http.filter(|http| meets(http.ip(), &serve.addresses)) {
        let port = http.port();
        if let Some(other) = target_on(port) {
            return same("http_port", port, other);
        }
        if hub == Some(port) && port != 0 {
            return same("http_port", port, "hub_port".to_owned());
        }
    }
    for (port, targets) in by_port {
        port_uses.push((PortUse::Port(port), port_targets(targets, false)));
    }
    if let Some(port) = hub {
        port_uses.push((PortUse::Hub(port), port_targets(targets.to_vec(), true)));
    }
    Ok(port_uses)
}

/// Returns whether a socket on `address` would conflict with one on any of `others` on the same
/// port.
fn meets(address: IpAddr, others: &[IpAddr]) -> bool {
    let same =
        |other: &IpAddr| *other == address || other.is_unspecified() || address.is_unspecified();
    others.iter().any(same)
}

/// The setting that a port belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSetting {
    /// `hub_port`.
    Hub,
    /// `port` of a target.
    Target(TargetName),
}

impl PortSetting {
    /// Returns the setting with another port.
    fn remedy(&self, port: u16) -> String {
        match self {
            Self::Hub => format!("hub_port = {port} or --hub-port"),
            Self::Target(name) => format!("port = {port} for target \"{name}\" or --port"),
        }
    }
}

fn name_of<P>(targets: &[Arc<ServedTarget<P>>]) -> TargetName {
    targets
        .first()
        .map(|served| served.config.name.clone())
        .unwrap_or_default()
}

/// One local port with its sockets, and the targets behind it.
pub struct Listener<P> {
    pub(super) port_use: PortUse,
    pub(super) sockets: Vec<Listening>,
    pub(super) unix: Option<UnixSocket>,
    pub(super) port: u16,
    pub(super) port_targets: PortTargets<P>,
}

impl<P> Listener<P> {
    /// Returns the local port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of the Unix socket, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(UnixSocket::path)
    }
}

/// Addresses and socket directory to listen on, besides the ports of the targets.
pub struct ListenAt {
    /// The `[serve]` settings.
    pub serve: ServeSettings,
    /// Directory of the Unix sockets if none is configured and the system supports such sockets.
    pub default_socket_dir: Option<PathBuf>,
    /// Sockets from the service manager, used in place of new ones.
    pub passed: PassedSockets,
}

/// Listens on every port that the targets need. A port that fails does not affect the others; its
/// error is returned with the listeners. A machine without IPv6 listens on 127.0.0.1 alone, and one
/// whose default directory is unusable listens without Unix sockets.
///
/// # Errors
/// [`BindError::Same`]; [`BindError::Passed`]; and [`BindError::Descriptors`], because an arbitrary
/// part of the targets would be served.
pub fn bind<P: ProtocolState>(
    targets: &[Arc<ServedTarget<P>>],
    at: &ListenAt,
) -> Result<(Vec<Listener<P>>, Vec<BindError>), BindError> {
    let (mut listeners, mut failed) = (Vec::new(), Vec::new());
    let port_uses = port_uses(targets, &at.serve)?;
    let fixed = port_uses.iter().filter_map(|(each, _)| each.fixed_port());
    if let Some(error) = at.unused(&fixed.collect::<Vec<_>>()) {
        return Err(error);
    }
    let ports = port_uses.len();
    for (port_use, port_targets) in port_uses {
        match at.listen_as_one_of(ports, port_use, port_targets) {
            Ok(listener) => listeners.push(listener),
            Err(error @ BindError::Descriptors { .. }) => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    Ok((listeners, failed))
}

impl ListenAt {
    /// Returns the error for a passed socket that belongs to none of the ports.
    pub(super) fn unused(&self, ports: &[u16]) -> Option<BindError> {
        let unused = self.passed.unused(&self.serve.addresses, ports);
        let socket = unused.into_iter().next()?;
        let list = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
        let addresses = list(&mut self.serve.addresses.iter().map(IpAddr::to_string));
        let ports = list(&mut ports.iter().map(u16::to_string));
        let own = format!("{addresses}, port {ports}");
        Some(BindError::Passed { socket, own })
    }

    /// Listens on one of `ports` ports.
    pub(super) fn listen_as_one_of<P: ProtocolState>(
        &self,
        ports: usize,
        port_use: PortUse,
        port_targets: PortTargets<P>,
    ) -> Result<Listener<P>, BindError> {
        self.listen(port_use, port_targets)
            .map_err(|error| match error {
                BindError::Descriptors { limit, .. } => self.too_many(ports, limit),
                error => error,
            })
    }

    fn listen<P: ProtocolState>(
        &self,
        port_use: PortUse,
        port_targets: PortTargets<P>,
    ) -> Result<Listener<P>, BindError> {
        let port = port_use.port();
        let setting = if port_targets.by_name {
            PortSetting::Hub
        } else {
            PortSetting::Target(name_of(&port_targets.targets))
        };
        let bound = listen_at_all(&self.serve.addresses, port, &self.passed);
        let bound = bound.map_err(|BindFailure { address, source }| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, setting },
            _ if descriptors::are_exhausted(&source) => {
                self.too_many(1, descriptors::limit_reached(&source))
            }
            _ => BindError::Other { address, source },
        })?;
        // There are no descriptors left for its clients.
        let BoundPort { port, sockets } = bound;
        if let Some(limit) = sockets.iter().find_map(Listening::is_among_the_last) {
            return Err(self.too_many(1, Some(limit)));
        }
        Ok(Listener {
            port_use,
            sockets,
            unix: self.socket(port)?,
            port,
            port_targets,
        })
    }

    /// Returns the number of descriptors per port: a TCP socket for each address, the Unix socket
    /// and its lock.
    fn descriptors_of_a_port(&self) -> usize {
        let unix = match (&self.serve.socket_dir, &self.default_socket_dir) {
            (SocketDir::None, _) | (SocketDir::Default, None) => 0,
            (SocketDir::At(_), _) | (SocketDir::Default, Some(_)) => 2,
        };
        self.serve.addresses.len() + unix
    }

    /// Creates the error for `ports` ports that exceed the limit.
    fn too_many(&self, ports: usize, limit: Option<u64>) -> BindError {
        let needed = ports * self.descriptors_of_a_port() + BESIDES;
        BindError::Descriptors {
            ports,
            needed: u64::try_from(needed).unwrap_or(u64::MAX),
            limit,
        }
    }

    fn socket(&self, port: u16) -> Result<Option<UnixSocket>, BindError> {
        let passed = self.passed.unix(port);
        let failed = |source| SocketError::File {
            doing: "take over the passed socket for port",
            path: PathBuf::from(port.to_string()),
            source,
        };
        if let Some(socket) = passed.map_err(failed)? {
            return Ok(Some(socket));
        }
        match (&self.serve.socket_dir, &self.default_socket_dir) {
            (SocketDir::None, _) | (SocketDir::Default, None) => Ok(None),
            (SocketDir::At(dir), _) | (SocketDir::Default, Some(dir)) => self.socket_in(dir, port),
        }
    }

    fn socket_in(&self, dir: &Path, port: u16) -> Result<Option<UnixSocket>, BindError> {
        let error = match platform::socket::bind(dir, port) {
            Ok(socket) => return Ok(Some(socket)),
            Err(error) => error,
        };
        if let SocketError::File { source, .. } = &error
            && descriptors::are_exhausted(source)
        {
            return Err(self.too_many(1, descriptors::limit_reached(source)));
        }
        if self.serve.socket_dir != SocketDir::Default {
            return Err(error.into());
        }
        // The socket is a default, not a request of the user.
        warn!(reason = %error, "cannot create the Unix socket; clients can use localhost");
        Ok(None)
    }
}
