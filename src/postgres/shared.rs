//! State that all connections share.

use super::target::context::Rooms;
use super::target::limits::Places;
use crate::admission::{Arrival, Guard};
use crate::base::flood::{Flood, Flow};
use crate::config::Serve;
use crate::observe::Observed;
use crate::postgres::cancel_keys::CancelKeys;
use crate::tls::local::{self, Kept, LocalTlsError};
use bytes::Bytes;
use pg_handshake::scram::Verifier;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// TLS for local clients.
pub(in crate::postgres) struct LocalAcceptor {
    pub(in crate::postgres) tls: TlsAcceptor,
    /// The file of the certificate that it shows; `None`: kept in memory only.
    pub(in crate::postgres) certificate: Option<Arc<Path>>,
}

/// Cancel requests on their way to databases at the same time; more of them wait.
const MOST_CANCELS: usize = 256;

/// Lines about connections whose target is not known, within [`LINES_WINDOW`]. Whoever reaches the
/// port can cause them.
const MOST_LINES: u32 = 64;
const LINES_WINDOW: Duration = Duration::from_secs(1);

/// What all connections share.
pub struct Proxy {
    pub(in crate::postgres) os_user: Option<String>,
    pub(in crate::postgres) acceptor: LocalAcceptor,
    /// What a client that knows our certificate can bind its login to.
    pub(in crate::postgres) binding: Option<Bytes>,
    /// The local password; `None`: none is asked for.
    pub(in crate::postgres) verifier: Option<Arc<Verifier>>,
    /// Whose clients are served.
    pub(crate) guard: Arc<Guard>,
    pub(in crate::postgres) startup_timeout: Duration,
    pub(in crate::postgres) places: Places,
    pub(in crate::postgres) cancel_keys: CancelKeys<Rooms>,
    /// Cancel requests that are under way.
    pub(in crate::postgres) cancels: Semaphore,
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
    pub(in crate::postgres) fn may_log(&self) -> bool {
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
    pub(in crate::postgres) fn asks_password(&self, arrival: &Arrival) -> bool {
        self.verifier.is_some() && arrival.is_tcp()
    }
}
