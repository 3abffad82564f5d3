//! State that all PostgreSQL connections share.

use super::target::PgContext;
use crate::admission::Arrival;
use crate::config::ServeSettings;
use crate::postgres::cancel_keys::CancelKeys;
use crate::serving::state::ServingState;
use crate::tls::local::{self, CertificateLocation, LocalTlsError};
use bytes::Bytes;
use pg_handshake::scram::ScramVerifier;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// TLS for local clients.
pub(in crate::postgres) struct LocalAcceptor {
    pub(in crate::postgres) tls: TlsAcceptor,
    /// The file of its certificate; `None` if it is in memory only.
    pub(in crate::postgres) certificate: Option<Arc<Path>>,
}

/// Maximum number of cancel requests in transit to databases at the same time; others wait.
const MOST_CANCELS: usize = 256;

/// State that all PostgreSQL connections share.
pub struct Proxy {
    /// The state that is not PostgreSQL's own.
    pub serving: ServingState,
    pub(in crate::postgres) os_user: Option<String>,
    pub(in crate::postgres) acceptor: LocalAcceptor,
    /// Hash of our certificate, which a client can bind its login to.
    pub(in crate::postgres) binding: Option<Bytes>,
    /// SCRAM verifier of the local password; `None` if none is required.
    pub(in crate::postgres) verifier: Option<Arc<ScramVerifier>>,
    pub(in crate::postgres) cancel_keys: CancelKeys<PgContext>,
    /// Cancel requests in transit.
    pub(in crate::postgres) cancels: Semaphore,
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
                debug!(certificate = %path.display(), "loaded the certificate for local TLS clients");
            }
            CertificateLocation::InMemory { reason } => warn!(
                reason,
                "the certificate for local TLS is in memory only: clients that verify it \
                 (sslrootcert) need the new one after each start; set a writable directory with \
                 --state-dir"
            ),
        }
        Ok(Self {
            serving: ServingState::new(serve),
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
            cancel_keys: CancelKeys::default(),
            cancels: Semaphore::new(MOST_CANCELS),
        })
    }

    /// Returns `true` if clients on TCP need the local password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.verifier.is_some()
    }

    /// Returns whether clients of this arrival need the local password. On the Unix socket the user
    /// id identifies them.
    pub(in crate::postgres) fn asks_password(&self, arrival: &Arrival) -> bool {
        self.verifier.is_some() && arrival.is_tcp()
    }
}
