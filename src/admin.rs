//! The program's own small HTTP server: health endpoints and metrics on a TCP port, if one is
//! configured, and on a Unix socket of this user alone also what `pgiam status` and `pgiam stop` need.

mod answer;
pub mod client;
pub mod document;
mod http;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::admission::{Entrance, Guard, Listening};
use crate::observe::Observed;
use crate::platform::{descriptors, socket};
use crate::postgres::server;

/// Which command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pgiam serve`.
    Serve,
    /// `pgiam run`.
    Run,
    /// `pgiam tunnel`.
    Tunnel,
}

impl Kind {
    /// The command's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Run => "run",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Where to listen, and what to say of oneself.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// Which command runs.
    pub kind: Kind,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Where the health endpoints and metrics are; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Where the control socket is; `None`: there is none.
    pub control_dir: Option<PathBuf>,
}

/// What may be asked of the program.
#[derive(Clone, Debug, Default)]
pub struct Controls {
    /// Cancelled when the program is asked to end.
    pub stop: CancellationToken,
    /// Told when it is asked to load its configuration anew; `None` where it has none to load.
    pub reload: Option<mpsc::Sender<()>>,
}

/// Why there are no health endpoints.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The port is taken.
    #[error(
        "cannot listen on {address} for health and metrics: the port is in use.\nhint: choose another with http_port or --http-port"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// There are no descriptors left.
    #[error(
        "cannot listen on {address} for health and metrics: out of file descriptors.\nhint: raise the limit: {}",
        descriptors::HOW_TO_RAISE
    )]
    Descriptors {
        /// The address.
        address: SocketAddr,
    },
    /// Another failure.
    #[error("cannot listen on {address} for health and metrics: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The running HTTP server. It ends with [`Admin::stop`], or when this is dropped.
#[derive(Debug)]
pub struct Admin {
    http: Option<SocketAddr>,
    control: Option<PathBuf>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the answers are made of.
#[derive(Debug)]
struct Context {
    kind: Kind,
    config: Option<PathBuf>,
    http: Option<SocketAddr>,
    observed: Arc<Observed>,
    controls: Controls,
}

impl Admin {
    /// Begins to answer. To be called before the first target is looked up or bound, so that
    /// `/startup` can say "not yet"; inside a Tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`] when the configured address cannot be had. Nobody has asked for the control
    /// socket: without it the log says why, and `pgiam status` finds nothing.
    pub fn start(
        options: AdminOptions,
        observed: Arc<Observed>,
        controls: Controls,
    ) -> Result<Self, AdminError> {
        let listener = options.http.map(listen).transpose()?;
        let http = listener.as_ref().and_then(|l| l.local_addr().ok());
        let control = options.control_dir.as_deref().and_then(control);
        let context = Arc::new(Context {
            kind: options.kind,
            config: options.config,
            http,
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
                address = http.map(tracing::field::display),
                "health endpoints and metrics"
            );
            let entrance = Entrance::new(listener, Arc::new(Guard::of_everybody()));
            admin.spawn(http::answer(entrance, Arc::clone(&context)));
        }
        if let Some(socket) = control {
            let entrance = Entrance::new(socket, Arc::new(Guard::of_control()));
            admin.spawn(http::answer(entrance, context));
        }
        Ok(admin)
    }

    fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(serving).await;
        });
    }

    /// Where the health endpoints are.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> Option<&Path> {
        self.control.as_deref()
    }

    /// Answers no more, and removes the control socket. To be called when nothing else runs any more:
    /// until then the answers tell that the program is stopping.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn listen(address: SocketAddr) -> Result<Listening, AdminError> {
    server::socket(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => AdminError::InUse { address },
        _ if descriptors::are_exhausted(&source) => AdminError::Descriptors { address },
        _ => AdminError::Other { address, source },
    })
}

fn control(dir: &Path) -> Option<socket::UnixSocket> {
    match socket::control::bind(dir) {
        Ok(socket) => {
            debug!(path = %socket.path().display(), "control socket");
            Some(socket)
        }
        Err(error) => {
            warn!(reason = %error, "no control socket: pgiam status, wait and stop will not find this process");
            None
        }
    }
}
