//! Shared context of connections: for the whole program and per target.

use crate::failure::SessionError;
use crate::failure::SetupError;
use crate::tunnel::Readiness;
use std::path::Path;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::limits::Places;
use crate::aws::AwsContext;
use crate::aws::alias::Aliases;
use crate::aws::calls::CREDENTIALS_STEP;
use crate::aws::token;
use crate::aws::token::TokenProvider;
use crate::config::{Auth, Endpoint, ResolvedTarget, TargetConfig, Via};
use crate::postgres::target::last_failure::LastFailure;
use crate::postgres::target::last_failure::Recovering;
use crate::postgres::target::server_memory::Memory;
use crate::tls::upstream::UpstreamTls;
use crate::tunnel::Transport;
use crate::tunnel::direct::Direct;
use crate::tunnel::ssm::supervisor::SsmTransport;

/// Everything that one target needs: endpoint, signer, transport, trust roots.
pub struct Rooms {
    /// The target.
    pub target: Arc<ResolvedTarget>,
    /// The path to the database.
    pub transport: Arc<dyn Transport>,
    pub(in crate::postgres) tokens: Arc<dyn TokenProvider>,
    pub(in crate::postgres) tls: UpstreamTls,
    pub(in crate::postgres) aws: Arc<AwsContext>,
    pub(in crate::postgres) known: Memory,
    pub(in crate::postgres) places: Places,
    pub(in crate::postgres) last_failure: LastFailure,
    pub(in crate::postgres) recovering: Recovering,
    aliases: Arc<Aliases>,
    /// Tracks the end of the tunnel.
    endings: TaskTracker,
}

impl Drop for Rooms {
    /// Ends the tunnel. After a reload that changes or removes a target, this happens with its last
    /// connection.
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let transport = Arc::clone(&self.transport);
            let ending = async move { transport.shutdown().await };
            self.endings.spawn_on(ending, &runtime);
        }
    }
}

impl Rooms {
    /// Returns the pending step of a connection before its login, as a noun; `None` if it is
    /// unknown.
    pub(in crate::postgres) fn waits_for(&self) -> Option<&'static str> {
        match self.aws.is_loading() {
            true => Some(CREDENTIALS_STEP),
            false => self.transport.waits_for(),
        }
    }

    /// Returns the endpoint for tokens and certificates: the configured one, or the RDS name behind
    /// an alias.
    pub(in crate::postgres) async fn endpoint(&self) -> Result<Endpoint, SessionError> {
        let Endpoint { host, port } = &self.target.endpoint;
        let host = match (
            self.aliases.resolve(host).await,
            self.target.settings.login.auth,
        ) {
            (Ok(host), _) => host,
            (Err(error), Auth::Iam) => return Err(error.into()),
            // Nothing is signed, and a self-hosted server has its own name.
            (Err(_), Auth::Passthrough) => host.clone(),
        };
        Ok(Endpoint { host, port: *port })
    }

    /// Makes the next connection resolve the endpoint again, because the name now leads to another
    /// server.
    pub(in crate::postgres) fn forget_endpoint(&self) {
        self.aliases.forget(&self.target.endpoint.host);
    }
}

impl Rooms {
    /// Sets up a target. Sends no request to AWS.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn new(
        target: ResolvedTarget,
        aws: Arc<AwsContext>,
        endings: TaskTracker,
    ) -> Result<Self, SetupError> {
        let tls = trust(&target.name, target.settings.ca_file.as_deref())?;
        let transport: Arc<dyn Transport> = match &target.settings.via {
            Via::Direct => Arc::new(Direct::new(
                target.endpoint.clone(),
                target.settings.connect_timeout,
            )),
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
            places: Places::new(target.settings.login.connection_limit),
            last_failure: LastFailure::default(),
            recovering: Recovering::default(),
            aliases: Arc::new(Aliases::new(target.settings.login.dns_server)),
            target: Arc::new(target),
        })
    }

    /// Checks the settings that can be checked before the database of a target is known.
    ///
    /// # Errors
    /// The same as for [`Rooms::new`].
    pub(crate) fn check(config: &TargetConfig) -> Result<(), SetupError> {
        trust(&config.name, config.settings.ca_file.as_deref()).map(|_| ())
    }
}

fn trust(target: &str, ca_file: Option<&Path>) -> Result<UpstreamTls, SetupError> {
    UpstreamTls::new(ca_file).map_err(|source| SetupError::Trust {
        target: target.to_owned(),
        source,
    })
}

impl Rooms {
    pub(crate) fn not_now(&self) -> Option<SessionError> {
        match self.transport.readiness() {
            waits @ (Readiness::Starting | Readiness::Interrupted) => {
                Some(SessionError::NoTunnelYet(waits))
            }
            Readiness::Up | Readiness::Idle => {
                let failure = self.last_failure.get();
                failure.map(|failure| SessionError::FailedBefore(failure.id))
            }
        }
    }
}
