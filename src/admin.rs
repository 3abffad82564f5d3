//! HTTP server of the program itself. On a TCP port, if one is configured, it serves health endpoints
//! and metrics to all clients, and to programs of its own user a page with the status. On a control
//! socket that is private to this user it also serves the requests of `pgiam status` and `pgiam
//! stop`.

mod access;
mod answer;
pub mod client;
pub mod document;
mod http;
mod page;
pub mod running;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::admission::{self, Entrance, Guard, KnownOwners, Listening};
use crate::base::names::TargetName;
use crate::observe::Observed;
use crate::platform::descriptors;
use crate::platform::socket::control::{self, ControlListener};
use http::EntranceKind;

/// The running command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessKind {
    /// `pgiam serve`.
    Serve,
    /// `pgiam run`.
    Run,
    /// `pgiam tunnel`.
    Tunnel,
}

impl ProcessKind {
    /// Returns the name of the command.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Run => "run",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Addresses of the server, and information about the program.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// The running command.
    pub kind: ProcessKind,
    /// Path of the configuration file.
    pub config: Option<PathBuf>,
    /// Port of the page, the health endpoints and metrics; `None`: they are off.
    pub http: Option<HttpOptions>,
    /// Directory of the control socket; `None`: there is none.
    pub control_dir: Option<PathBuf>,
    /// Log file of a process that `pgiam up` started.
    pub log: Option<PathBuf>,
}

/// Address of the HTTP server, and the rule for clients of databases, which the page shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Address.
    pub address: SocketAddr,
    /// Clients must belong to pgiam's user, if the system can tell.
    pub peer_check: bool,
    /// Clients on TCP need a password.
    pub has_password: bool,
}

/// Actions that clients can request.
#[derive(Clone, Debug, Default)]
pub struct ControlRequests {
    /// Cancelled when a client requests the end of the program.
    pub stop: CancellationToken,
    /// Receives a message when a client requests a reload of the configuration; `None` if there is
    /// none to reload.
    pub reload: Option<mpsc::Sender<()>>,
    /// Receives the requests to stop a target; `None` if the program has only one.
    pub stop_target: Option<mpsc::Sender<TargetStop>>,
}

/// Request to stop a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStop {
    /// Name of the target.
    pub name: TargetName,
    /// Closes its connections now, without the time that they have otherwise.
    pub now: bool,
}

/// Reason why there are no health endpoints.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The port is in use.
    #[error(
        "cannot listen on {address} for the status page, health and metrics: the port is in use\nhint: choose another port with http_port or --http-port"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// There are no descriptors left.
    #[error(
        "cannot listen on {address} for the status page, health and metrics: out of file descriptors\nhint: raise the limit: {}",
        descriptors::HOW_TO_RAISE
    )]
    Descriptors {
        /// The address.
        address: SocketAddr,
    },
    /// Another failure.
    #[error("cannot listen on {address} for the status page, health and metrics: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
}

/// The running HTTP server. It ends with [`AdminServer::stop`], or when this is dropped.
#[derive(Debug)]
pub struct AdminServer {
    http: Option<SocketAddr>,
    control: Option<PathBuf>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Data for the answers.
#[derive(Debug)]
struct AdminContext {
    kind: ProcessKind,
    config: Option<PathBuf>,
    http: Option<SocketAddr>,
    has_password: bool,
    /// The owners of clients of the port are looked up.
    knows_owners: bool,
    log: Option<PathBuf>,
    observed: Arc<Observed>,
    controls: ControlRequests,
}

impl AdminServer {
    /// Starts the server. Call it before the first target is looked up or bound, so that `/startup`
    /// can answer "not yet"; inside a Tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`] when the configured address is not available. A missing control socket is no
    /// error, because it is not configured: the log has the reason, and `pgiam status` finds
    /// nothing.
    pub fn start(
        options: AdminOptions,
        observed: Arc<Observed>,
        controls: ControlRequests,
    ) -> Result<Self, AdminError> {
        let listener = options.http.map(|http| listen(http.address)).transpose()?;
        let http = listener.as_ref().and_then(|l| l.local_addr().ok());
        let control = options.control_dir.as_deref().and_then(listen_for_control);
        let peer_check = options.http.is_some_and(|http| http.peer_check);
        let context = Arc::new(AdminContext {
            kind: options.kind,
            config: options.config,
            http,
            has_password: options.http.is_some_and(|http| http.has_password),
            knows_owners: KnownOwners::with(peer_check) == KnownOwners::All,
            log: options.log,
            observed,
            controls,
        });
        let admin = Self {
            http,
            control: control.as_ref().map(|socket| socket.path().to_owned()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        if let Some(listener) = listener {
            info!(
                url = http.map(page_url),
                "serving the status page, health endpoints and metrics"
            );
            let entrance = Entrance::new(listener, Arc::new(Guard::of_http(peer_check)));
            let context = Arc::clone(&context);
            admin.spawn(http::answer(entrance, EntranceKind::Tcp, context));
        }
        if let Some(socket) = control {
            let entrance = Entrance::new(socket, Arc::new(Guard::of_control()));
            admin.spawn(http::answer(entrance, EntranceKind::Control, context));
        }
        Ok(admin)
    }

    fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(serving).await;
        });
    }

    /// Returns the address of the health endpoints.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Returns the path of the control socket.
    #[must_use]
    pub fn control(&self) -> Option<&Path> {
        self.control.as_deref()
    }

    /// Stops the server and removes the control socket. Call it when nothing else runs any more:
    /// until then the answers report that the program is stopping.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns the address of the page for a browser on this machine. It is never `localhost`: browsers
/// try `::1` first, where another user may listen.
#[must_use]
pub fn page_url(address: SocketAddr) -> String {
    format!("http://{}/", reachable(address))
}

/// Returns the address at which programs of this machine reach a listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn listen(address: SocketAddr) -> Result<Listening, AdminError> {
    admission::listen(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => AdminError::InUse { address },
        _ if descriptors::are_exhausted(&source) => AdminError::Descriptors { address },
        _ => AdminError::Other { address, source },
    })
}

fn listen_for_control(dir: &Path) -> Option<ControlListener> {
    match control::bind(dir) {
        Ok(socket) => {
            debug!(path = %socket.path().display(), "listening on the control socket");
            Some(socket)
        }
        Err(error) => {
            warn!(reason = %error, "cannot create the control socket; pgiam status, wait and stop cannot find this process");
            None
        }
    }
}
