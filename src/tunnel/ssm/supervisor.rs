//! [`SsmTransport`]: the session of one target. Opened on demand by one starter that all waiters
//! share, used by every connection of the target, replaced when it has ended, ended at shutdown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use uuid::Uuid;

use super::driver::{self, Driver, Phase};
use super::state::Shared;
use super::{SsmStream, api, connect};
use crate::aws::AwsContext;
use crate::config::Endpoint;
use crate::tunnel::{ApiRefusal, BoxFuture, Stream, Transport, TunnelError};

/// Deadline for TCP, TLS and upgrade of the data channel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

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
        bastion: &str,
        endpoint: Endpoint,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                aws,
                region,
                bastion: Arc::from(bastion),
                endpoint,
                slot: Mutex::new(Slot::Empty),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }
}

impl Transport for SsmTransport {
    fn open(&self) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let session = self.inner.session().await?;
            let stream =
                SsmStream::open(&session.shared, &self.inner.bastion, &self.inner.endpoint)?;
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
                Slot::Starting(outcome) => outcome.clone(),
                Slot::Closed => return Err(TunnelError::ShuttingDown),
                Slot::Up(_) | Slot::Empty => {
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
        let credentials_error = |error| TunnelError::Credentials(Arc::new(error));
        let credentials = self.aws.credentials().await.map_err(credentials_error)?;
        let region = match &self.region {
            Some(region) => region.clone(),
            None => self
                .aws
                .region()
                .await
                .map_err(credentials_error)?
                .ok_or(TunnelError::NoRegion)?,
        };
        let client = self.aws.ssm(&region).await.map_err(credentials_error)?;
        let roots = self.aws.roots().await.map_err(credentials_error)?;
        let endpoints = self
            .aws
            .configured_endpoints()
            .await
            .map_err(credentials_error)?;

        let started = api::start_session(&client, &region, &self.bastion, &self.endpoint).await?;
        debug!(session_id = started.session_id, bastion = %self.bastion, "SSM session started");
        let joined = async {
            let url = connect::stream_url(&started.stream_url, &endpoints)?;
            let connecting = connect::connect(&url, &region, &credentials, roots);
            timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| {
                TunnelError::ChannelConnect {
                    host: url.host_str().unwrap_or_default().to_owned(),
                    reason: format!("no answer in {} s", CONNECT_DEADLINE.as_secs()),
                }
            })?
        };
        let joined = self.stop.run_until_cancelled(joined).await;
        let socket = match joined.unwrap_or(Err(TunnelError::ShuttingDown)) {
            Ok(socket) => socket,
            Err(error) => {
                // AWS counts the session as open until told otherwise.
                let session_id = started.session_id;
                self.tasks
                    .spawn(async move { api::terminate_session(&client, &session_id).await });
                return Err(error);
            }
        };

        let config = ssm_channel::Config::new(
            started.token,
            Uuid::new_v4().to_string(),
            Uuid::new_v4().to_string(),
            Uuid::new_v4().as_u128(),
            unix_millis(),
        );
        let shared = Arc::new(Shared::new(
            driver::channel(config),
            smux::Session::new(smux::Role::Client),
        ));
        let (sender, phase) = watch::channel(Phase::Starting);
        let driver = Driver::new(
            socket,
            Arc::clone(&shared),
            sender,
            Arc::clone(&self.bastion),
        );
        let session_id = started.session_id.clone();
        self.tasks
            .spawn(driver.run(async move { api::terminate_session(&client, &session_id).await }));

        let mut session = Session { shared, phase };
        let established = self.stop.run_until_cancelled(session.established()).await;
        established.unwrap_or_else(|| {
            session.shared.close();
            Err(TunnelError::ShuttingDown)
        })?;
        info!(session_id = started.session_id, bastion = %self.bastion, "tunnel up");
        Ok(session)
    }
}

impl Session {
    fn is_alive(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Up)
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
