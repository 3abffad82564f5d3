//! [`SsmTransport`]: streams to one endpoint through the sessions of its target.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::pool::Pool;
use super::session::{Session, Stuck};
use super::start::Starter;
use super::stream::{NotOpened, SsmStream};
use crate::aws::AwsContext;
use crate::config::{Bastion, Endpoint, SsmSettings};
use crate::tunnel::{BoxFuture, Stream, Transport, TunnelError, plain};

/// For how long the outcome of a dial through a fresh session stands: until then no further session
/// is started only to dial again. A client that retries every second must not cost a StartSession
/// every second.
const FRESH_FAILURE_STANDS: Duration = Duration::from_secs(5);

/// Streams to one endpoint through Session Manager.
pub struct SsmTransport {
    pool: Arc<Pool>,
    starter: Starter,
    endpoint: Endpoint,
    settings: SsmSettings,
    /// The last dial that failed although its session was fresh, and so were the names in it.
    fresh_failure: Mutex<Option<(Instant, TunnelError)>>,
}

impl SsmTransport {
    /// With `settings.warm` the first session is opened now, else with the first stream. `region`
    /// `None` means the AWS default region.
    #[must_use]
    pub fn new(
        aws: Arc<AwsContext>,
        region: Option<String>,
        settings: SsmSettings,
        endpoint: Endpoint,
    ) -> Self {
        let starter = Starter::new(aws, region, settings.clone(), endpoint.clone());
        let pool = Pool::new(starter.clone(), settings.clone());
        if settings.warm {
            starter.tasks.spawn(Arc::clone(&pool).warm_up());
        }
        Self {
            pool,
            starter,
            endpoint,
            settings,
            fresh_failure: Mutex::default(),
        }
    }

    /// Opens a stream and waits until the far side answers `hello`; through a fresh session when
    /// that does not work through an older one.
    async fn open_and_dial(&self, hello: Bytes) -> Result<SsmStream, TunnelError> {
        let asked = Instant::now();
        let mut not_before = None;
        loop {
            let dialled = Instant::now();
            let session = self.pool.session(not_before).await?;
            let mut stream = match session.open(&self.endpoint) {
                Ok(stream) => stream,
                Err(NotOpened::Leaving) => continue,
                Err(NotOpened::Ended(error)) => {
                    debug!(%error, "the session ended while a stream was opened");
                    continue;
                }
            };
            if hello.is_empty() {
                return Ok(stream);
            }
            let error = match self.dial(&session, &mut stream, &hello).await {
                Ok(()) => {
                    self.dial_worked(&session, not_before);
                    return Ok(stream);
                }
                Err(error) => error,
            };
            drop(stream);
            // Another bastion may do what this one cannot; the same one, asked anew, will not.
            let fresh = session.began() >= not_before.unwrap_or(asked);
            let last = fresh && (not_before.is_some() || !self.has_other_bastions());
            match error {
                // The agent has not even come to it: it moves, once when that is in vain.
                TunnelError::Stranded { .. } => match self.standing_failure() {
                    Some(error) if not_before.is_some() => return Err(error),
                    _ => not_before = Some(dialled),
                },
                TunnelError::DialRefused { .. } | TunnelError::DialTimeout { .. } => {
                    self.starter.dial_failed(session.bastion());
                    let standing = self.standing_failure().is_some();
                    if last {
                        self.remember(&error);
                    }
                    if last || standing {
                        return Err(error);
                    }
                    info!(reason = %error, "trying once more through a fresh session");
                    not_before = Some(dialled);
                }
                // The session is gone, and nothing has come through it.
                error if not_before.is_none() => {
                    info!(reason = %error, "trying once more through another session");
                    not_before = Some(dialled);
                }
                error => return Err(error),
            }
        }
    }

    /// Sends `hello` with the SYN and waits for the first byte, or for the end of patience with the
    /// agent's dial.
    async fn dial(
        &self,
        session: &Session,
        stream: &mut SsmStream,
        hello: &Bytes,
    ) -> Result<(), TunnelError> {
        stream.write_all(hello).await.map_err(tunnel_error)?;
        let patience = self.settings.dial_timeout;
        let mut look = Instant::now() + patience;
        loop {
            tokio::select! {
                readable = stream.readable() => return readable.map_err(tunnel_error),
                () = sleep_until(look) => {}
            }
            match session.strand_if_stuck(patience) {
                Stuck::No => look = Instant::now() + patience,
                Stuck::NotBefore(limit) => look = limit,
                Stuck::Yes if stream.was_dialled() => {
                    return Err(TunnelError::DialTimeout {
                        bastion: session.bastion().to_string(),
                        endpoint: self.endpoint.clone(),
                        after: patience,
                    });
                }
                Stuck::Yes => {} // It is stranded, and `readable` says so.
            }
        }
    }

    /// A stream is up. When it took a fresh session, the older ones have outdated names.
    fn dial_worked(&self, session: &Session, not_before: Option<Instant>) {
        self.starter.dial_worked(session.bastion());
        *self.fresh_failure() = None;
        if let Some(not_before) = not_before {
            self.pool.retire_older(not_before);
        }
    }

    fn has_other_bastions(&self) -> bool {
        !matches!(&self.settings.bastion, Bastion::Nodes(nodes) if nodes.len() == 1)
    }

    fn remember(&self, error: &TunnelError) {
        *self.fresh_failure() = Some((Instant::now(), error.clone()));
    }

    fn standing_failure(&self) -> Option<TunnelError> {
        let failure = self.fresh_failure();
        let (at, error) = failure.as_ref()?;
        (at.elapsed() < FRESH_FAILURE_STANDS).then(|| error.clone())
    }

    fn fresh_failure(&self) -> MutexGuard<'_, Option<(Instant, TunnelError)>> {
        self.fresh_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for SsmTransport {
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let stream = self.open_and_dial(hello).await?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.pool.shutdown())
    }
}

/// What a stream of ours returned, in the tunnel's words.
fn tunnel_error(error: io::Error) -> TunnelError {
    match TunnelError::of(&error) {
        Some(error) => error.clone(),
        None => TunnelError::ChannelLost {
            reason: plain(&error),
        },
    }
}
