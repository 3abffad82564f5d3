//! Starts a session: credentials, a working bastion, `ssm:StartSession`, the data channel, the
//! handshake.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use rustls::RootCertStore;
use ssm_channel::ChannelToken;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use uuid::Uuid;

use super::api::SessionRoute;
use super::bastions::{BastionSet, should_try_next};
use super::driver::resume::{OpenedChannel, SessionCalls};
use super::driver::{self, Driver, SessionPhase};
use super::proxy::ProxySettings;
use super::session::SsmSession;
use super::socket::WebSocket;
use super::state::SharedSession;
use super::{api, datakey, endpoint, leftovers};
use crate::aws::calls::{CREDENTIALS_STEP, within};
use crate::aws::{AwsContext, ClockWatch, Endpoints};
use crate::base::jitter::jitter;
use crate::base::names::{NodeId, Region, SessionId};
use crate::base::single_flight::system_clock;
use crate::config::{Endpoint, RelaySettings, SsmSettings};
use crate::tunnel::ssm::data_channel;
use crate::tunnel::{ApiRefusal, BastionCandidate, TunnelError};

/// Deadline for TCP, TLS and upgrade of the data channel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline for the answer to StartSession, the SDK's own retries included. (The SDK has a deadline
/// for connecting and none for the answer.) Also used for ResumeSession.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// Deadline once the program is stopping. Together with the call that terminates the session it
/// must fit into a shutdown.
const STOPPED_START_DEADLINE: Duration = Duration::from_secs(4);
/// While AWS throttles StartSession: the first pause, the longest, and the time limit. That is well
/// below the 30 s that a connection waits, so that its client gets the reason.
const THROTTLED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
const THROTTLED_DEADLINE: Duration = Duration::from_secs(12);

/// Messages of a session kept because an earlier one is missing. After a lost connection the agent
/// repeats the missing messages at one per 100 ms and round trip, and sends 700 new ones a second
/// meanwhile. At a round trip of 300 ms 105 go missing: 42 s, or 29,400 messages. The real programs
/// keep 10,000.
const REORDER_MESSAGES: usize = 32 * 1024;
/// Most nodes that one attempt tries. A tag may match thousands.
const MOST_TRIED: usize = 10;

/// Starts the sessions of one target.
#[derive(Clone)]
pub(super) struct SessionStarter {
    inner: Arc<StarterState>,
    pub(super) tasks: TaskTracker,
    /// Stops the running start.
    pub(super) stop: CancellationToken,
    /// The step that the running start waits for.
    step: Arc<Mutex<Option<&'static str>>>,
}

struct StarterState {
    aws: Arc<AwsContext>,
    region: Option<Region>,
    settings: SsmSettings,
    route: SessionRoute,
    /// Maximum number of concurrent sessions.
    most: usize,
    bastions: BastionSet,
}

impl SessionStarter {
    /// Creates a starter of sessions to `endpoint`.
    pub(super) fn new(
        aws: Arc<AwsContext>,
        region: Option<Region>,
        settings: SsmSettings,
        endpoint: Endpoint,
    ) -> Self {
        let bastions = BastionSet::new(settings.bastion.clone(), aws.clone(), endpoint.clone());
        let document = settings.document.clone();
        Self::of(StarterState {
            aws,
            region,
            most: settings.sessions,
            settings,
            route: SessionRoute::Host { endpoint, document },
            bastions,
        })
    }

    /// Creates a starter of sessions to the relay on the bastions of this one.
    pub(super) fn to_relay(&self, relay: RelaySettings) -> Self {
        let StarterState {
            aws,
            region,
            settings,
            ..
        } = &*self.inner;
        let endpoint = self.inner.route.endpoint();
        Self::of(StarterState {
            aws: Arc::clone(aws),
            region: region.clone(),
            settings: settings.clone(),
            route: SessionRoute::Port(relay.port),
            most: relay.sessions,
            bastions: BastionSet::new(settings.bastion.clone(), Arc::clone(aws), endpoint),
        })
    }

    fn of(state: StarterState) -> Self {
        Self {
            inner: Arc::new(state),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            step: Arc::default(),
        }
    }

    /// Returns the address that the agent dials.
    pub(super) fn destination(&self) -> Endpoint {
        self.inner.route.endpoint()
    }

    /// Returns the step that the running start waits for, as a noun.
    pub(super) fn step(&self) -> Option<&'static str> {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, step: &'static str) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    /// Records that a bastion did not connect to the database: the next session uses another one,
    /// if there is one.
    pub(super) fn dial_failed(&self, bastion: &NodeId) {
        self.inner.bastions.failed(bastion);
    }

    /// Returns true if another bastion may still work where this one failed.
    pub(super) fn has_other_bastions(&self) -> bool {
        self.inner.bastions.has_others()
    }

    /// Records that a bastion connected to the database.
    pub(super) fn dial_worked(&self, bastion: &NodeId) {
        self.inner.bastions.note_success(bastion);
    }

    /// Returns the bastions to try now, in order, and Systems Manager's information about each.
    pub(super) async fn carriers(&self) -> Result<Vec<BastionCandidate>, TunnelError> {
        let access = self.inner.access().await?;
        let (client, bastions) = (&access.client, &self.inner.bastions);
        let ids = bastions.candidates(client, &access.region).await?;
        Ok(api::nodes::carriers(client, ids).await)
    }

    /// Starts a session through `on`, or through the first bastion that works.
    pub(super) async fn start(&self, on: Option<&NodeId>) -> Result<SsmSession, TunnelError> {
        let outcome = self.start_anywhere(on).await;
        if outcome.as_ref().is_err_and(is_about_credentials) {
            self.inner.aws.invalidate(); // The user will log in again; reload the credentials then.
        }
        outcome
    }

    async fn start_anywhere(&self, on: Option<&NodeId>) -> Result<SsmSession, TunnelError> {
        let inner = &self.inner;
        self.enter(CREDENTIALS_STEP);
        let access = self.unless_stopped(inner.access()).await?;
        if let Some(bastion) = on {
            return self.start_through(&access, bastion).await;
        }
        self.enter("ssm:DescribeInstanceInformation (bastion lookup)");
        let candidates = inner.bastions.candidates(&access.client, &access.region);
        let candidates = self.unless_stopped(candidates).await?;
        let mut tried: Vec<(NodeId, TunnelError)> = Vec::new();
        let left_out = candidates.len().saturating_sub(MOST_TRIED);
        for bastion in candidates.into_iter().take(MOST_TRIED) {
            match self.start_through(&access, &bastion).await {
                Ok(session) => {
                    inner.bastions.note_success(&bastion);
                    return Ok(session);
                }
                Err(error) if should_try_next(&error) => {
                    inner.bastions.failed(&bastion);
                    info!(%bastion, reason = %error, "cannot open a session through this bastion");
                    // The remaining ones have failed a moment ago; each would cost a session again.
                    let in_vain = error.is_about_the_name() && !inner.bastions.has_others();
                    tried.push((bastion, error));
                    if in_vain {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match (tried.pop(), tried.is_empty()) {
            (Some((_, error)), true) => Err(api::nodes::explained(&access.client, error).await),
            (Some(last), false) => {
                tried.push(last);
                let explained = tried.into_iter().map(async |(bastion, error)| {
                    (bastion, api::nodes::explained(&access.client, error).await)
                });
                let tried = futures_util::future::join_all(explained).await;
                Err(TunnelError::AllBastions(tried.into(), left_out))
            }
            (None, _) => Err(TunnelError::Protocol {
                reason: "no bastion to try".into(),
            }),
        }
    }

    async fn start_through(
        &self,
        access: &AwsAccess,
        bastion: &NodeId,
    ) -> Result<SsmSession, TunnelError> {
        let began = Instant::now();
        self.enter("ssm:StartSession");
        let started = self.start_session(access, bastion).await?;
        self.enter("the data channel (WebSocket) of the session");
        let session_id: SessionId = started.session_id;
        debug!(%session_id, %bastion, "SSM session started");
        // AWS counts the session as open until it is terminated, however it ends here.
        let terminate = {
            let (client, session_id) = (access.client.clone(), session_id.clone());
            async move { api::terminate_session(&client, &session_id).await }
        };
        let record = leftovers::note(&self.inner.aws, &access.region, &session_id).await;
        let joining = async {
            let ticket = started.ticket?;
            join(access, ticket).await
        };
        let joined = match self.unless_stopped(joining).await {
            Ok(joined) => joined,
            Err(error) => {
                self.tasks.spawn(async move {
                    if terminate.await
                        && let Some(record) = record
                    {
                        record.over();
                    }
                });
                return Err(error);
            }
        };
        let about = driver::SessionInfo {
            bastion: bastion.clone(),
            session_id: session_id.clone(),
            endpoint: self.inner.route.endpoint(),
            dial_timeout: self.inner.settings.dial_timeout,
            record,
            keep_alive: self.inner.settings.keep_alive,
            wall: system_clock(),
        };
        let mut session = self.drive(joined, about, began, terminate);
        self.enter("the handshake with the bastion's agent");
        if let Err(error) = self.unless_stopped(session.established()).await {
            session.close();
            return Err(error);
        }
        let start_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(%session_id, %bastion, start_ms, "SSM session established");
        Ok(session)
    }

    /// Calls `ssm:StartSession` within its deadline; retries after a pause while AWS throttles it.
    /// At a stop a running call gets a little more time: only its answer names the session to
    /// terminate.
    async fn start_session(
        &self,
        access: &AwsAccess,
        bastion: &NodeId,
    ) -> Result<api::StartedSession, TunnelError> {
        let stopped = async {
            self.stop.cancelled().await;
            sleep(STOPPED_START_DEADLINE).await;
        };
        tokio::select! {
            started = self.start_session_patiently(access, bastion) => started,
            () = stopped => Err(TunnelError::ShuttingDown),
        }
    }

    async fn start_session_patiently(
        &self,
        access: &AwsAccess,
        bastion: &NodeId,
    ) -> Result<api::StartedSession, TunnelError> {
        let began = Instant::now();
        let (mut pause, longest) = THROTTLED_PAUSE;
        loop {
            let refused = match self.inner.start_session_once(access, bastion).await {
                Err(refused) if is_throttled(&refused) => refused,
                outcome => return outcome,
            };
            if began.elapsed() + pause > THROTTLED_DEADLINE || self.stop.is_cancelled() {
                return Err(refused);
            }
            debug!(%bastion, ?pause, "AWS throttles StartSession; retrying");
            let paused = self.stop.run_until_cancelled(sleep(jitter(pause))).await;
            if paused.is_none() {
                return Err(TunnelError::ShuttingDown);
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// Runs a step of the start; abandons it at a stop.
    async fn unless_stopped<T>(
        &self,
        step: impl Future<Output = Result<T, TunnelError>>,
    ) -> Result<T, TunnelError> {
        let done = self.stop.run_until_cancelled(step).await;
        done.unwrap_or(Err(TunnelError::ShuttingDown))
    }

    /// Starts the driver of a joined session.
    fn drive(
        &self,
        joined: OpenedChannel,
        about: driver::SessionInfo,
        began: Instant,
        terminate: impl Future<Output = bool> + Send + 'static,
    ) -> SsmSession {
        let mut config = ssm_channel::ChannelConfig::new(
            joined.token,
            Uuid::new_v4().to_string(),
            Uuid::new_v4().to_string(),
            Uuid::new_v4().as_u128(),
            unix_millis(),
        );
        config.reorder_messages = REORDER_MESSAGES;
        config.reorder_bytes = REORDER_MESSAGES * ssm_channel::MAX_PAYLOAD;
        let mux = smux::Mux::new(smux::MuxRole::Client);
        let channel = driver::channel(config);
        let shared = Arc::new(SharedSession::new(channel, mux, self.inner.most));
        let (sender, phase) = watch::channel(SessionPhase::Starting);
        let (bastion, id) = (about.bastion.clone(), about.session_id.clone());
        let calls = self.calls(&about);
        let driver = Driver::new(joined.socket, Arc::clone(&shared), sender, about, calls);
        self.tasks.spawn(driver.run(terminate));
        SsmSession::new(shared, phase, bastion, id, began)
    }

    /// Returns the calls to AWS for a session's driver.
    fn calls(&self, about: &driver::SessionInfo) -> SessionCalls {
        let (inner, session_id, bastion) = (
            Arc::clone(&self.inner),
            about.session_id.clone(),
            about.bastion.clone(),
        );
        let rejoin = Box::new(move || {
            let (inner, session_id, bastion) =
                (Arc::clone(&inner), session_id.clone(), bastion.clone());
            Box::pin(async move { inner.rejoin(&session_id, &bastion).await }) as _
        });
        let (inner, session_id, bastion) = (
            Arc::clone(&self.inner),
            about.session_id.clone(),
            about.bastion.clone(),
        );
        let data_key = Box::new(move |key: String, challenge: Option<String>| {
            let (inner, session_id, bastion) =
                (Arc::clone(&inner), session_id.clone(), bastion.clone());
            Box::pin(async move {
                let wanted = datakey::DataKeyRequest {
                    key: &key,
                    session_id: &session_id,
                    target: &bastion,
                    challenge: challenge.as_deref(),
                };
                let region = inner.access().await?.region;
                datakey::data_key(&inner.aws, &region, wanted).await
            }) as _
        });
        SessionCalls { rejoin, data_key }
    }
}

impl StarterState {
    async fn start_session_once(
        &self,
        access: &AwsAccess,
        bastion: &NodeId,
    ) -> Result<api::StartedSession, TunnelError> {
        let AwsAccess { client, region, .. } = access;
        let starting = api::start_session(client, region, bastion, &self.route);
        answered("ssm:StartSession", starting).await
    }

    /// Opens a new connection to a session with a lost one; `None`: AWS reports that it is over.
    /// Credentials that AWS refuses are reloaded once: there may be newer ones by now.
    async fn rejoin(
        &self,
        session_id: &SessionId,
        bastion: &NodeId,
    ) -> Result<Option<OpenedChannel>, TunnelError> {
        match self.rejoin_once(session_id, bastion).await {
            Err(error) if is_about_credentials(&error) => {
                self.aws.invalidate();
                self.rejoin_once(session_id, bastion).await
            }
            outcome => outcome,
        }
    }

    async fn rejoin_once(
        &self,
        session_id: &SessionId,
        bastion: &NodeId,
    ) -> Result<Option<OpenedChannel>, TunnelError> {
        let access = self.access().await?;
        let AwsAccess { client, region, .. } = &access;
        let resuming = api::resume_session(client, region, bastion, session_id);
        let joined = match answered("ssm:ResumeSession", resuming).await? {
            Some(ticket) => join(&access, ticket).await.map(Some),
            None => Ok(None),
        };
        match joined {
            Err(error) if api::is_gone(&error) => {
                debug!(%session_id, reason = %error, "the session no longer exists");
                Ok(None)
            }
            joined => joined,
        }
    }

    /// Returns the clients and settings to request a session from AWS and to join it.
    async fn access(&self) -> Result<AwsAccess, TunnelError> {
        let gather = async {
            let region = match &self.region {
                Some(region) => Some(region.clone()),
                None => self.aws.region().await?,
            };
            let region = region.unwrap_or_default();
            let client = self.aws.ssm(&region).await?;
            let access = AwsAccess {
                credentials: self.aws.credentials().await?,
                client,
                region,
                roots: self.aws.roots().await?,
                watch: self.aws.clock_watch(),
                endpoints: self.aws.endpoints().await?,
            };
            Ok(access)
        };
        let access = gather
            .await
            .map_err(|error| TunnelError::Credentials(Arc::new(error)))?;
        if access.region.is_empty() {
            Err(TunnelError::NoRegion)
        } else {
            Ok(access)
        }
    }
}

/// Clients and settings for AWS: credentials, region, endpoints and trust roots.
struct AwsAccess {
    credentials: Credentials,
    client: aws_sdk_ssm::Client,
    region: Region,
    roots: Arc<RootCertStore>,
    watch: Arc<ClockWatch>,
    /// The user's endpoint settings for data channels.
    endpoints: Endpoints,
}

/// Opens the data channel of a session.
async fn join(
    access: &AwsAccess,
    ticket: api::SessionTicket,
) -> Result<OpenedChannel, TunnelError> {
    let AwsAccess {
        credentials,
        region,
        roots,
        watch,
        endpoints,
        ..
    } = access;
    let url = endpoint::data_channel(&ticket.stream_url, region, endpoints)?;
    let proxies = ProxySettings::from_env();
    let way = data_channel::NetworkPath {
        roots: Arc::clone(roots),
        proxies: &proxies,
        watch,
    };
    let connecting = data_channel::connect(&url, region, credentials, way);
    let socket: WebSocket = timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| {
        TunnelError::ChannelConnect {
            host: url.host_str().unwrap_or_default().to_owned(),
            port: data_channel::port_of(&url),
            reason: format!("no answer within {} s", CONNECT_DEADLINE.as_secs()).into(),
        }
    })??;
    let token: ChannelToken = ticket.token;
    Ok(OpenedChannel { socket, token })
}

fn is_about_credentials(error: &TunnelError) -> bool {
    use ApiRefusal::{CredentialsExpired, CredentialsRejected};
    matches!(
        error,
        TunnelError::Api {
            kind: CredentialsExpired | CredentialsRejected,
            ..
        } | TunnelError::ChannelRefused { status: 403, .. }
    )
}

pub(super) fn is_throttled(error: &TunnelError) -> bool {
    matches!(
        error,
        TunnelError::Api {
            kind: ApiRefusal::Throttled,
            ..
        }
    )
}

/// Limits a call to [`START_DEADLINE`].
async fn answered<T>(
    name: &'static str,
    call: impl Future<Output = Result<T, TunnelError>>,
) -> Result<T, TunnelError> {
    let called = within(name, Instant::now() + START_DEADLINE, call).await;
    called.unwrap_or_else(|late| Err(TunnelError::Late(Box::new(late))))
}

fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
