//! What connections share: the whole program's part, and each target's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::SessionError;
use super::greet::LocalAcceptor;
use super::known::Memory;
use super::limits::Places;
use super::probe::LastFailure;
use super::recovery::Recovering;
use crate::admission::{Arrival, Guard};
use crate::aws::AwsContext;
use crate::aws::alias::Aliases;
use crate::aws::calls::CREDENTIALS_STEP;
use crate::aws::token;
use crate::aws::token::TokenProvider;
use crate::base::flood::{Flood, Flow};
use crate::cancel::CancelKeys;
use crate::config::{Auth, Endpoint, Plan, Serve, Target, Via};
use crate::observe::Observed;
use crate::scram::Verifier;
use crate::tls::local::{self, Kept, LocalTlsError};
use crate::tls::upstream::{TrustError, UpstreamTls};
use crate::tunnel::Transport;
use crate::tunnel::direct::Direct;
use crate::tunnel::ssm::supervisor::SsmTransport;

/// Cancel requests on their way to databases at the same time; more of them wait.
const MOST_CANCELS: usize = 256;

/// Lines about connections whose target is not known, within [`LINES_WINDOW`]. Whoever reaches the
/// port can cause them.
const MOST_LINES: u32 = 64;
const LINES_WINDOW: Duration = Duration::from_secs(1);

/// What all connections share.
pub struct Proxy {
    pub(super) os_user: Option<String>,
    pub(super) acceptor: LocalAcceptor,
    /// What a client that knows our certificate can bind its login to.
    pub(super) binding: Option<Bytes>,
    /// The local password; `None`: none is asked for.
    pub(super) verifier: Option<Arc<Verifier>>,
    /// Whose clients are served.
    pub(crate) guard: Arc<Guard>,
    pub(super) startup_timeout: Duration,
    pub(super) places: Places,
    pub(super) cancel_keys: CancelKeys<Rooms>,
    /// Cancel requests that are under way.
    pub(super) cancels: Semaphore,
    /// Bounds the log lines about connections whose target is not known.
    noise: Flood,
    /// Nobody is let in any more.
    closing: AtomicBool,
    /// Told when a target that could not be reached can be.
    pub recovered: Notify,
    /// What is measured.
    pub observed: Arc<Observed>,
    /// Cancelled when the remaining connections must end.
    pub stop: CancellationToken,
}

impl Proxy {
    /// Loads or makes the local certificate below `state_dir`, or makes one for this run only.
    ///
    /// # Errors
    /// [`LocalTlsError`].
    pub fn new(
        state_dir: Option<&Path>,
        os_user: Option<String>,
        serve: &Serve,
        verifier: Option<Verifier>,
    ) -> Result<Self, LocalTlsError> {
        let local = local::load_or_create(state_dir)?;
        match &local.kept {
            Kept::At(path) => {
                debug!(certificate = %path.display(), "certificate for local TLS clients");
            }
            Kept::InMemory { reason } => warn!(
                reason,
                "the certificate for local TLS is kept in memory only: clients that verify it \
                 (sslrootcert) need the new one after each start; name a writable directory with --state-dir"
            ),
        }
        Ok(Self {
            os_user,
            acceptor: LocalAcceptor {
                tls: TlsAcceptor::from(local.config),
                certificate: match local.kept {
                    Kept::At(path) => Some(path.into()),
                    Kept::InMemory { .. } => None,
                },
            },
            binding: local.end_point,
            verifier: verifier.map(Arc::new),
            guard: Arc::new(Guard::of_clients(serve.peer_check)),
            startup_timeout: serve.startup_timeout,
            places: Places::new(Some(serve.max_connections)),
            cancel_keys: CancelKeys::default(),
            cancels: Semaphore::new(MOST_CANCELS),
            noise: Flood::new(MOST_LINES, LINES_WINDOW),
            closing: AtomicBool::new(false),
            recovered: Notify::new(),
            observed: Arc::new(Observed::new(serve.max_connections)),
            stop: CancellationToken::new(),
        })
    }

    /// From now on clients that want in are told that the program is stopping; cancel requests are
    /// served.
    pub fn turn_away_newcomers(&self) {
        self.closing.store(true, Ordering::Release);
        self.observed.drains();
    }

    /// Whether clients that want in are too late.
    #[must_use]
    pub fn turns_newcomers_away(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns whether one more line about a connection whose target is not known may be logged.
    pub(super) fn may_log(&self) -> bool {
        match self.noise.next() {
            Flow::Through { held: 0 } => true,
            Flow::Through { held } => {
                warn!(
                    lines = held,
                    "left out more lines about connections without a session"
                );
                true
            }
            Flow::First => {
                warn!(
                    "more than {MOST_LINES} connections within a second ended before they chose a target; leaving out the lines about the others"
                );
                false
            }
            Flow::Held => false,
        }
    }

    /// Whether clients that come like this must know the local password. Those on the Unix socket
    /// are known by their user id.
    pub(super) fn asks_password(&self, arrival: &Arrival) -> bool {
        self.verifier.is_some() && arrival.is_tcp()
    }
}

/// What one target needs: where it is, who signs, how to get there, whom to trust.
pub struct Rooms {
    /// The target.
    pub target: Arc<Target>,
    /// The way to it.
    pub transport: Arc<dyn Transport>,
    pub(super) tokens: Arc<dyn TokenProvider>,
    pub(super) tls: UpstreamTls,
    pub(super) aws: Arc<AwsContext>,
    pub(super) known: Memory,
    pub(super) places: Places,
    pub(super) last_failure: LastFailure,
    pub(super) recovering: Recovering,
    aliases: Arc<Aliases>,
    /// Where the end of its tunnel is waited for.
    endings: TaskTracker,
}

impl Drop for Rooms {
    /// When a target is configured anew, or no longer, its tunnel ends with its last connection.
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let transport = Arc::clone(&self.transport);
            let ending = async move { transport.shutdown().await };
            self.endings.spawn_on(ending, &runtime);
        }
    }
}

impl Rooms {
    /// The step that a connection waits for before its login, as a noun; `None` where it is not known.
    pub(super) fn waits_for(&self) -> Option<&'static str> {
        match self.aws.is_loading() {
            true => Some(CREDENTIALS_STEP),
            false => self.transport.waits_for(),
        }
    }

    /// The endpoint as tokens are signed, and certificates verified, for it: the configured one, or
    /// where that is an alias, the RDS name behind it.
    pub(super) async fn endpoint(&self) -> Result<Endpoint, SessionError> {
        let Endpoint { host, port } = &self.target.endpoint;
        let host = match (self.aliases.resolve(host).await, self.target.login.auth) {
            (Ok(host), _) => host,
            (Err(error), Auth::Iam) => return Err(error.into()),
            // Nothing is signed, and a server of one's own has its own name.
            (Err(_), Auth::Passthrough) => host.clone(),
        };
        Ok(Endpoint { host, port: *port })
    }

    /// The endpoint is looked up anew for the next connection: the server behind the name is another
    /// one.
    pub(super) fn forget_endpoint(&self) {
        self.aliases.forget(&self.target.endpoint.host);
    }
}

/// Why the rooms of a target cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The trust roots.
    #[error(
        "target \"{target}\": {source}{}",
        crate::base::environment::origin_hint("ca_file")
    )]
    Trust {
        /// The target.
        target: String,
        /// What is wrong.
        source: TrustError,
    },
}

impl Rooms {
    /// Sets up a target. Nothing is asked of AWS here.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn new(
        target: Target,
        aws: Arc<AwsContext>,
        endings: TaskTracker,
    ) -> Result<Self, SetupError> {
        let tls = trust(&target.name, target.ca_file.as_deref())?;
        let transport: Arc<dyn Transport> = match &target.via {
            Via::Direct => Arc::new(Direct::new(target.endpoint.clone(), target.connect_timeout)),
            Via::Ssm(settings) => Arc::new(SsmTransport::new(
                Arc::clone(&aws),
                target.region.clone(),
                settings.clone(),
                target.endpoint.clone(),
            )),
        };
        Ok(Self {
            endings,
            transport,
            tokens: Arc::new(token::provider(Arc::clone(&aws))),
            tls,
            aws,
            known: Memory::default(),
            places: Places::new(target.login.connection_limit),
            last_failure: LastFailure::default(),
            recovering: Recovering::default(),
            aliases: Arc::new(Aliases::new(target.login.dns_server)),
            target: Arc::new(target),
        })
    }

    /// Looks at what can be looked at before the database of a target is known.
    ///
    /// # Errors
    /// As for [`Rooms::new`].
    pub(crate) fn check(plan: &Plan) -> Result<(), SetupError> {
        trust(&plan.name, plan.ca_file.as_deref()).map(|_| ())
    }
}

fn trust(target: &str, ca_file: Option<&Path>) -> Result<UpstreamTls, SetupError> {
    UpstreamTls::new(ca_file).map_err(|source| SetupError::Trust {
        target: target.to_owned(),
        source,
    })
}
