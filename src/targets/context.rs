//! Context of one target, which its connections share.

use crate::base::names::{NodeId, TargetName};
use crate::failure::{ConnectionError, SetupError};
use std::path::Path;
use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::connection_limit::ConnectionLimit;
use crate::aws::AwsContext;
use crate::aws::alias::Aliases;
use crate::aws::calls::CREDENTIALS_STEP;
use crate::aws::token::{self, TokenProvider};
use crate::config::{Auth, Endpoint, ResolvedTarget, TargetConfig, Via};
use crate::login::background::{BackgroundLogins, LOGIN_STEP};
use crate::observe::ReadyCounts;
use crate::targets::last_failure::{LastFailure, RecoveryFlag};
use crate::tls::upstream::UpstreamTls;
use crate::tunnel::direct::DirectTransport;
use crate::tunnel::ssm::supervisor::SsmTransport;
use crate::tunnel::{BastionCandidate, Readiness, Transport};

/// State that a protocol keeps for each target, such as facts about its server.
pub trait ProtocolState: Default + Send + Sync + 'static {
    /// Name of the protocol for ALPN (RFC 7301); `None` if it has none.
    const ALPN: Option<&'static [u8]>;

    /// Closes everything that is kept for later clients, because none will come.
    fn no_more_clients(&self) {}

    /// Returns the number of connections that are kept ready for later clients, and their use.
    fn ready(&self) -> ReadyCounts {
        ReadyCounts::default()
    }
}

/// Everything that one target needs: endpoint, signer, transport, trust roots. The state of the
/// protocol `P` lives as long as the target.
pub struct TargetContext<P> {
    /// The target.
    pub target: Arc<ResolvedTarget>,
    /// The path to the database.
    pub transport: Arc<dyn Transport>,
    pub(crate) tokens: Arc<dyn TokenProvider>,
    pub(crate) tls: UpstreamTls,
    pub(crate) aws: Arc<AwsContext>,
    pub(crate) connection_limit: ConnectionLimit,
    /// State of the protocol that clients speak.
    pub(crate) protocol: P,
    pub(crate) last_failure: LastFailure,
    pub(crate) recovering: RecoveryFlag,
    aliases: Arc<Aliases>,
    /// Logins that clients may start.
    logins: Option<Arc<BackgroundLogins>>,
    /// Tracks the end of the tunnel.
    endings: TaskTracker,
}

impl<P> Drop for TargetContext<P> {
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

impl<P: ProtocolState> TargetContext<P> {
    /// Sets up a target. Sends no request to AWS.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn new(
        target: ResolvedTarget,
        aws: Arc<AwsContext>,
        endings: TaskTracker,
    ) -> Result<Self, SetupError> {
        let tls = trust::<P>(&target.name, target.settings.ca_file.as_deref())?;
        let transport: Arc<dyn Transport> = match &target.settings.via {
            Via::Direct => Arc::new(DirectTransport::new(
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
            connection_limit: ConnectionLimit::new(target.settings.login.connection_limit),
            protocol: P::default(),
            last_failure: LastFailure::default(),
            recovering: RecoveryFlag::default(),
            aliases: Arc::new(Aliases::new(target.settings.login.dns_server)),
            logins: None,
            target: Arc::new(target),
        })
    }

    /// Lets clients start these logins.
    #[must_use]
    pub(super) fn with_logins(mut self, logins: Option<Arc<BackgroundLogins>>) -> Self {
        self.logins = logins;
        self
    }

    /// Waits for a login in the browser, if the configuration allows it, the target needs AWS, and
    /// a login is what the credentials lack. Only a client of pgiam's own user may open windows on
    /// its screen.
    ///
    /// # Errors
    /// [`ConnectionError::ConnectTimeout`].
    pub(crate) async fn await_login(&self, is_owners: bool) -> Result<(), ConnectionError> {
        match &self.logins {
            Some(logins) if is_owners && self.needs_aws() => {
                let login = async {
                    logins.wait(&self.aws).await;
                    Ok(())
                };
                self.within_connect_timeout(login).await
            }
            _ => Ok(()),
        }
    }

    /// Checks the settings that can be checked before the database of a target is known.
    ///
    /// # Errors
    /// The same as for [`TargetContext::new`].
    pub(crate) fn check(config: &TargetConfig) -> Result<(), SetupError> {
        trust::<P>(&config.name, config.settings.ca_file.as_deref()).map(|_| ())
    }

    /// Returns the pending step of a connection before its login, as a noun; `None` if it is
    /// unknown.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        let logins = self.logins.as_ref();
        match self.aws.is_loading() {
            true => Some(CREDENTIALS_STEP),
            false if logins.is_some_and(|logins| logins.is_running(&self.aws)) => Some(LOGIN_STEP),
            false => self.transport.waits_for(),
        }
    }

    /// Returns the endpoint for tokens and certificates: the configured one, or the RDS name behind
    /// an alias.
    pub(crate) async fn endpoint(&self) -> Result<Endpoint, ConnectionError> {
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
    pub(crate) fn forget_endpoint(&self) {
        self.aliases.forget(&self.target.endpoint.host);
    }

    /// Returns the candidates that could carry a connection.
    ///
    /// # Errors
    /// [`ConnectionError::Tunnel`].
    pub(crate) async fn carriers(&self) -> Result<Vec<BastionCandidate>, ConnectionError> {
        Ok(self.transport.carriers().await?)
    }

    /// Returns the carrier of a connection, after opening a session through it if needed.
    ///
    /// # Errors
    /// [`ConnectionError::Tunnel`], [`ConnectionError::ConnectTimeout`].
    pub(crate) async fn prepare(&self) -> Result<Option<NodeId>, ConnectionError> {
        self.within_connect_timeout(async { Ok(self.transport.prepare().await?) })
            .await
    }

    /// Checks the requirements of a connection that cost nothing; with `warm` it also opens the
    /// tunnel.
    pub(crate) async fn check_prerequisites(&self) -> Result<(), ConnectionError> {
        if self.needs_aws() {
            self.aws.credentials().await?;
        }
        if matches!(&self.target.settings.via, Via::Ssm(settings) if settings.warm) {
            self.prepare().await?;
        }
        Ok(())
    }

    /// Returns `true` if connections need AWS credentials.
    fn needs_aws(&self) -> bool {
        let settings = &self.target.settings;
        settings.login.auth == Auth::Iam || matches!(settings.via, Via::Ssm(_))
    }

    /// Runs the steps before TLS and login.
    pub(crate) async fn within_connect_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        let after = self.target.settings.connect_timeout;
        let late = |_| ConnectionError::ConnectTimeout {
            after,
            readiness: self.transport.readiness(),
            waiting: self.waits_for(),
        };
        timeout(after, work).await.map_err(late)?
    }

    /// Returns why a readiness probe is refused, as far as is known.
    pub(crate) fn not_now(&self) -> Option<ConnectionError> {
        match self.transport.readiness() {
            waits @ (Readiness::Starting | Readiness::Interrupted) => {
                Some(ConnectionError::NoTunnelYet(waits))
            }
            Readiness::Up | Readiness::Idle => {
                let failure = self.last_failure.get();
                failure.map(|failure| ConnectionError::FailedBefore(failure.id()))
            }
        }
    }
}

fn trust<P: ProtocolState>(
    target: &TargetName,
    ca_file: Option<&Path>,
) -> Result<UpstreamTls, SetupError> {
    UpstreamTls::new(ca_file, P::ALPN).map_err(|source| SetupError::Trust {
        target: target.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsOptions;
    use crate::config::{ConfigFile, TargetLayer};

    #[derive(Default)]
    struct NoState;

    impl ProtocolState for NoState {
        const ALPN: Option<&'static [u8]> = None;
    }

    #[tokio::test]
    async fn targets_without_aws_wait_for_no_login() {
        let (passthrough, direct) = ("auth = 'passthrough'", "via = 'direct'");
        let bastion = "bastion = 'i-0123456789abcdef0'";
        for (keys, expected) in [
            (format!("{passthrough}\n{direct}"), false),
            (format!("{passthrough}\n{bastion}"), true),
            (direct.to_owned(), true),
        ] {
            let host = "host = 'orders.abc.eu-central-1.rds.amazonaws.com'";
            let text = format!("[targets.orders]\n{host}\n{keys}");
            let file: ConfigFile = toml::from_str(&text).unwrap();
            let mut targets = file.resolved_targets(&[], &TargetLayer::default()).unwrap();
            let target = targets.remove(0);
            let aws = Arc::new(AwsContext::new(AwsOptions::default()));
            let context = TargetContext::<NoState>::new(target, aws, TaskTracker::new());
            assert_eq!(context.unwrap().needs_aws(), expected, "{keys}");
        }
    }
}
