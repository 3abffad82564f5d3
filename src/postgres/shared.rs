//! State that all connections share.

use super::target::PgContext;
use crate::admission::{Arrival, Guard};
use crate::base::event_limit::{EventDecision, EventLimiter};
use crate::config::ServeSettings;
use crate::observe::Observed;
use crate::postgres::cancel_keys::CancelKeys;
use crate::targets::connection_limit::ConnectionLimit;
use crate::tls::local::{self, CertificateLocation, LocalTlsError};
use bytes::Bytes;
use pg_handshake::scram::ScramVerifier;
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
    /// The file of its certificate; `None` if it is in memory only.
    pub(in crate::postgres) certificate: Option<Arc<Path>>,
}

/// Maximum number of cancel requests in transit to databases at the same time; others wait.
const MOST_CANCELS: usize = 256;

/// Maximum number of log lines about connections with an unknown target, within [`LINES_WINDOW`].
/// Any process that reaches the port can cause them.
const MOST_LINES: u32 = 64;
const LINES_WINDOW: Duration = Duration::from_secs(1);

/// State that all connections share.
pub struct Proxy {
    pub(in crate::postgres) os_user: Option<String>,
    pub(in crate::postgres) acceptor: LocalAcceptor,
    /// Hash of our certificate, which a client can bind its login to.
    pub(in crate::postgres) binding: Option<Bytes>,
    /// Verifier of the local password; `None` if none is required.
    pub(in crate::postgres) verifier: Option<Arc<ScramVerifier>>,
    /// Decides which clients are served.
    pub(crate) guard: Arc<Guard>,
    pub(in crate::postgres) startup_timeout: Duration,
    pub(in crate::postgres) connection_limit: ConnectionLimit,
    pub(in crate::postgres) cancel_keys: CancelKeys<PgContext>,
    /// Cancel requests in transit.
    pub(in crate::postgres) cancels: Semaphore,
    /// Limits the log lines about connections with an unknown target.
    noise: EventLimiter,
    /// True once new clients are refused.
    closing: AtomicBool,
    /// Notified when an unreachable target can be reached again.
    pub recovered: Notify,
    /// The metrics.
    pub observed: Arc<Observed>,
    /// Cancelled when the remaining connections must end.
    pub stop: CancellationToken,
}

impl Proxy {
    /// Loads or creates the local certificate below `state_dir`, or creates one for this run only.
    ///
    /// # Errors
    /// [`LocalTlsError`].
    pub fn new(
        state_dir: Option<&Path>,
        os_user: Option<String>,
        serve: &ServeSettings,
        verifier: Option<ScramVerifier>,
    ) -> Result<Self, LocalTlsError> {
        let local = local::load_or_create(state_dir, Some(pg_handshake::ALPN))?;
        match &local.kept {
            CertificateLocation::At(path) => {
                debug!(certificate = %path.display(), "certificate for local TLS clients");
            }
            CertificateLocation::InMemory { reason } => warn!(
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
                    CertificateLocation::At(path) => Some(path.into()),
                    CertificateLocation::InMemory { .. } => None,
                },
            },
            binding: local.end_point,
            verifier: verifier.map(Arc::new),
            guard: Arc::new(Guard::of_clients(serve.peer_check)),
            startup_timeout: serve.startup_timeout,
            connection_limit: ConnectionLimit::new(Some(serve.max_connections)),
            cancel_keys: CancelKeys::default(),
            cancels: Semaphore::new(MOST_CANCELS),
            noise: EventLimiter::new(MOST_LINES, LINES_WINDOW),
            closing: AtomicBool::new(false),
            recovered: Notify::new(),
            observed: Arc::new(Observed::new(serve.max_connections)),
            stop: CancellationToken::new(),
        })
    }

    /// Refuses new clients from now on, because the program is stopping. Cancel requests are still
    /// served.
    pub fn turn_away_newcomers(&self) {
        self.closing.store(true, Ordering::Release);
        self.observed.drains();
    }

    /// Returns whether new clients are refused.
    #[must_use]
    pub fn turns_newcomers_away(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns whether one more line about a connection with an unknown target may be logged.
    pub(in crate::postgres) fn may_log(&self) -> bool {
        match self.noise.next() {
            EventDecision::Through { held: 0 } => true,
            EventDecision::Through { held } => {
                warn!(
                    lines = held,
                    "left out more lines about connections without a session"
                );
                true
            }
            EventDecision::First => {
                warn!(
                    "more than {MOST_LINES} connections within a second ended before they chose a target; leaving out the lines about the others"
                );
                false
            }
            EventDecision::Held => false,
        }
    }

    /// Returns whether clients of this arrival need the local password. On the Unix socket the user
    /// id identifies them.
    pub(in crate::postgres) fn asks_password(&self, arrival: &Arrival) -> bool {
        self.verifier.is_some() && arrival.is_tcp()
    }
}
