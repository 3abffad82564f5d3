//! [`SsmTransport`]: the session of one target. Opened on demand by one starter that all waiters
//! share, used by every connection of the target, replaced when it has ended, ended at shutdown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use bytes::Bytes;
use rustls::RootCertStore;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use uuid::Uuid;

use super::driver::{self, Driver, Phase};
use super::proxy::Proxies;
use super::socket::WebSocket;
use super::state::Shared;
use super::{SsmStream, api, connect, endpoint};
use crate::aws::{AwsContext, Endpoints};
use crate::config::{Endpoint, SsmSettings};
use crate::tunnel::{ApiRefusal, BoxFuture, Stream, Transport, TunnelError, plain};

/// Deadline for TCP, TLS and upgrade of the data channel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline for the answer to StartSession, the SDK's own retries included. (The SDK has a deadline
/// for connecting and none for the answer.)
const START_DEADLINE: Duration = Duration::from_secs(15);
/// The same once the program is stopping. With the call that terminates the session it must fit
/// into what a shutdown may take.
const STOPPED_START_DEADLINE: Duration = Duration::from_secs(4);

/// Streams to one endpoint through the sessions of one managed node.
pub struct SsmTransport {
    inner: Arc<Inner>,
}

struct Inner {
    aws: Arc<AwsContext>,
    region: Option<String>,
    bastion: Arc<str>,
    endpoint: Endpoint,
    slot: Mutex<Slot>,
    tasks: TaskTracker,
    /// A start under way is given up.
    stop: CancellationToken,
}

/// The one session of the target.
enum Slot {
    Empty,
    Starting(watch::Receiver<Option<Outcome>>),
    Up(Session),
    /// Shutting down: no session will be started any more.
    Closed,
}

type Outcome = Result<Session, TunnelError>;

/// A session whose handshake is complete. Cheap to clone.
#[derive(Clone)]
struct Session {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
}

impl SsmTransport {
    /// Nothing is opened until the first stream is. `region` `None` means the AWS default region.
    #[must_use]
    pub fn new(
        aws: Arc<AwsContext>,
        region: Option<String>,
        settings: SsmSettings,
        endpoint: Endpoint,
    ) -> Self {
        let bastion = settings.bastion.to_string();
        Self {
            inner: Arc::new(Inner {
                aws,
                region,
                bastion: Arc::from(bastion.as_str()),
                endpoint,
                slot: Mutex::new(Slot::Empty),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }
}

impl Transport for SsmTransport {
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let session = self.inner.session().await?;
            let mut stream =
                SsmStream::open(&session.shared, &self.inner.bastion, &self.inner.endpoint)?;
            let lost = |error: std::io::Error| match TunnelError::of(&error) {
                Some(error) => error.clone(),
                None => TunnelError::ChannelLost {
                    reason: plain(&error),
                },
            };
            stream.write_all(&hello).await.map_err(lost)?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let was = std::mem::replace(&mut *self.inner.slot(), Slot::Closed);
            if let Slot::Up(session) = was {
                session.shared.close();
            }
            self.inner.stop.cancel();
            self.inner.tasks.close();
            self.inner.tasks.wait().await;
        })
    }
}

impl Inner {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Every transition is one assignment; a panic cannot leave half of one.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live session, or the one that is being started, or a new one.
    async fn session(self: &Arc<Self>) -> Outcome {
        let mut starting = {
            let mut slot = self.slot();
            match &*slot {
                Slot::Up(session) if session.is_alive() => return Ok(session.clone()),
                // A starter that is gone without an answer has panicked; the next one starts anew.
                Slot::Starting(outcome) if outcome.has_changed().is_ok() => outcome.clone(),
                Slot::Closed => return Err(TunnelError::ShuttingDown),
                Slot::Up(_) | Slot::Starting(_) | Slot::Empty => {
                    let (sender, receiver) = watch::channel(None);
                    *slot = Slot::Starting(receiver.clone());
                    // A task of its own: a client that gives up must not end what others wait for.
                    self.tasks.spawn(Arc::clone(self).start_for_all(sender));
                    receiver
                }
            }
        };
        match starting.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(TunnelError::Protocol {
                reason: "the session's starter ended without an answer".to_owned(),
            }),
        }
    }

    async fn start_for_all(self: Arc<Self>, tell: watch::Sender<Option<Outcome>>) {
        let outcome = self.start().await;
        if let Err(TunnelError::Api { kind, .. }) = &outcome
            && matches!(
                kind,
                ApiRefusal::CredentialsExpired | ApiRefusal::CredentialsRejected
            )
        {
            self.aws.invalidate(); // The user will log in again; look for that next time.
        }
        {
            let mut slot = self.slot();
            match (&outcome, &*slot) {
                (Ok(session), Slot::Closed) => session.shared.close(),
                (Ok(session), _) => *slot = Slot::Up(session.clone()),
                (Err(_), Slot::Closed) => {}
                (Err(_), _) => *slot = Slot::Empty,
            }
        }
        tell.send_replace(Some(outcome));
    }

    async fn start(&self) -> Outcome {
        let access = self.unless_stopped(self.access()).await?;
        let started = self.start_session(&access).await?;
        let session_id = started.session_id.clone();
        debug!(session_id, bastion = %self.bastion, "SSM session started");
        // AWS counts the session as open until told otherwise, however it ends here.
        let terminate = {
            let (client, session_id) = (access.client.clone(), session_id.clone());
            async move { api::terminate_session(&client, &session_id).await }
        };

        let joining = async {
            let ticket = started.ticket?;
            let socket = join(&access, &ticket.stream_url).await?;
            Ok((socket, ticket.token))
        };
        let (socket, token) = match self.unless_stopped(joining).await {
            Ok(joined) => joined,
            Err(error) => {
                self.tasks.spawn(terminate);
                return Err(error);
            }
        };
        let mut session = self.drive(socket, token, terminate);
        if let Err(error) = self.unless_stopped(session.established()).await {
            session.shared.close();
            return Err(error);
        }
        info!(session_id, bastion = %self.bastion, "tunnel up");
        Ok(session)
    }

    /// `ssm:StartSession` within its deadline. One that is under way at a stop is waited for a
    /// little: only its answer tells which session to terminate.
    async fn start_session(&self, access: &Access) -> Result<api::Started, TunnelError> {
        let Access { client, region, .. } = access;
        let starting = api::start_session(client, region, &self.bastion, &self.endpoint, None);
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOPPED_START_DEADLINE).await;
        };
        tokio::select! {
            started = timeout(START_DEADLINE, starting) => started.unwrap_or_else(|_| {
                Err(TunnelError::ApiUnreachable {
                    region: region.clone(),
                    reason: format!("no answer in {} s", START_DEADLINE.as_secs()),
                })
            }),
            () = stopped => Err(TunnelError::ShuttingDown),
        }
    }

    /// A step of the start, given up at a stop.
    async fn unless_stopped<T>(
        &self,
        step: impl Future<Output = Result<T, TunnelError>>,
    ) -> Result<T, TunnelError> {
        let done = self.stop.run_until_cancelled(step).await;
        done.unwrap_or(Err(TunnelError::ShuttingDown))
    }

    /// What it takes to ask AWS for a session and to join it.
    async fn access(&self) -> Result<Access, TunnelError> {
        let gather = async {
            let region = match &self.region {
                Some(region) => Some(region.clone()),
                None => self.aws.region().await?,
            };
            let client = self.aws.ssm(region.as_deref().unwrap_or_default()).await?;
            let access = Access {
                credentials: self.aws.credentials().await?,
                client,
                region: region.unwrap_or_default(),
                roots: self.aws.roots().await?,
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

    /// Starts the driver of a joined session.
    fn drive(
        &self,
        socket: WebSocket,
        token: ssm_channel::Token,
        terminate: impl Future<Output = ()> + Send + 'static,
    ) -> Session {
        let config = ssm_channel::Config::new(
            token,
            Uuid::new_v4().to_string(),
            Uuid::new_v4().to_string(),
            Uuid::new_v4().as_u128(),
            unix_millis(),
        );
        let mux = smux::Session::new(smux::Role::Client);
        let shared = Arc::new(Shared::new(driver::channel(config), mux));
        let (sender, phase) = watch::channel(Phase::Starting);
        let driver = Driver::new(
            socket,
            Arc::clone(&shared),
            sender,
            Arc::clone(&self.bastion),
        );
        self.tasks.spawn(driver.run(terminate));
        Session { shared, phase }
    }
}

/// Who asks, where, and whom to trust.
struct Access {
    credentials: Credentials,
    client: aws_sdk_ssm::Client,
    region: String,
    roots: Arc<RootCertStore>,
    /// What the user has set about where data channels go.
    endpoints: Endpoints,
}

/// Opens the data channel of a started session.
async fn join(access: &Access, stream_url: &str) -> Result<WebSocket, TunnelError> {
    let Access {
        credentials,
        region,
        roots,
        endpoints,
        ..
    } = access;
    let url = endpoint::data_channel(stream_url, region, endpoints)?;
    let proxies = Proxies::from_env();
    let connecting = connect::connect(&url, region, credentials, Arc::clone(roots), &proxies);
    timeout(CONNECT_DEADLINE, connecting)
        .await
        .map_err(|_| TunnelError::ChannelConnect {
            host: url.host_str().unwrap_or_default().to_owned(),
            reason: format!("no answer in {} s", CONNECT_DEADLINE.as_secs()),
        })?
}

impl Session {
    fn is_alive(&self) -> bool {
        // Without a driver there is nobody to change the phase.
        self.phase.has_changed().is_ok() && matches!(*self.phase.borrow(), Phase::Up)
    }

    /// Waits for the handshake, whose deadline is the channel's own.
    async fn established(&mut self) -> Result<(), TunnelError> {
        let phase = self
            .phase
            .wait_for(|phase| !matches!(phase, Phase::Starting))
            .await;
        match phase.as_deref() {
            Ok(Phase::Up) => Ok(()),
            Ok(Phase::Ended(error)) => Err(error.clone()),
            _ => Err(TunnelError::Protocol {
                reason: "the session's driver ended without a reason".to_owned(),
            }),
        }
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
