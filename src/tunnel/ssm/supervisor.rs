//! [`SsmTransport`]: streams to one endpoint through the sessions of its target.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::pool::{Need, Pool};
use super::session::{Session, Stuck};
use super::start::Starter;
use super::stream::SsmStream;
use crate::aws::AwsContext;
use crate::config::{Bastion, Endpoint, SsmSettings};
use crate::tunnel::{
    BoxFuture, Carrier, Readiness, Stream, Transport, TunnelError, TunnelStats, plain,
};

/// For how long the outcome of a dial through a fresh session stands: until then no further session
/// is started only to dial again. It doubles while dials fail, up to the second. A client that retries
/// every second must not cost a StartSession every second.
const FRESH_FAILURE_STANDS: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(60));
/// How often a stream that was never dialled moves to another session.
const MOVES: u32 = 3;

/// Streams to one endpoint through Session Manager.
pub struct SsmTransport {
    pool: Arc<Pool>,
    starter: Starter,
    endpoint: Endpoint,
    settings: SsmSettings,
    /// The last dial that failed although its session was fresh, and so were the names in it.
    fresh_failure: Mutex<Option<FreshFailure>>,
}

/// A dial that failed although nothing about it was out of date.
struct FreshFailure {
    until: Instant,
    stood: Duration,
    error: TunnelError,
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
        let pool = Pool::new(starter.clone(), settings.clone(), endpoint.clone());
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
    async fn open_and_dial(&self, hello: Bytes, brief: bool) -> Result<SsmStream, TunnelError> {
        let asked = Instant::now();
        let (mut not_before, mut moves) = (None, 0);
        loop {
            let (session, mut stream) = self.pool.open(Need { not_before, brief }).await?;
            let dialled = Instant::now();
            if hello.is_empty() {
                if self.is_outdated(&session) {
                    session.retire();
                    continue;
                }
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
            if !matches!(
                error,
                TunnelError::DialRefused { .. } | TunnelError::DialTimeout { .. }
            ) {
                // The agent has not come to it, or the session is gone: another one will do.
                moves += 1;
                if moves > MOVES {
                    return Err(error);
                }
                match self.standing_failure() {
                    Some(standing) if moves > 1 => return Err(standing),
                    _ => info!(reason = %error, "moving to another session"),
                }
                continue;
            }
            self.starter.dial_failed(session.bastion());
            // Another bastion may do what this one cannot; the same one, asked anew, will not.
            let fresh = session.began() >= not_before.unwrap_or(asked);
            let last = fresh && (not_before.is_some() || !self.has_other_bastions());
            let standing = self.standing_failure().is_some();
            if last {
                self.remember(&error);
            }
            if not_before.is_some() {
                session.retire(); // It was started for this dial alone.
            }
            if last || standing {
                return Err(error);
            }
            info!(reason = %error, "trying once more through a fresh session");
            not_before = Some(dialled);
        }
    }

    /// Whether a session that cannot tell of its dials in time is better left: it refused the last
    /// one, and the name may have moved since it was looked up.
    fn is_outdated(&self, session: &Session) -> bool {
        let outdated = session.refused_last() && session.began().elapsed() > FRESH_FAILURE_STANDS.0;
        if outdated {
            self.starter.dial_failed(session.bastion());
        }
        outdated
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
        let (first, longest) = FRESH_FAILURE_STANDS;
        let mut failure = self.fresh_failure();
        let stood = failure.as_ref().map(|failure| failure.stood * 2);
        let stood = stood.map_or(first, |stood| stood.min(longest));
        *failure = Some(FreshFailure {
            until: Instant::now() + stood,
            stood,
            error: error.clone(),
        });
    }

    fn standing_failure(&self) -> Option<TunnelError> {
        let failure = self.fresh_failure();
        let failure = failure.as_ref()?;
        (Instant::now() < failure.until).then(|| failure.error.clone())
    }

    fn fresh_failure(&self) -> MutexGuard<'_, Option<FreshFailure>> {
        self.fresh_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for SsmTransport {
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let stream = self.open_and_dial(hello, false).await?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn open_briefly(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let stream = self.open_and_dial(hello, true).await?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn prepare(&self) -> BoxFuture<'_, Result<Option<Arc<str>>, TunnelError>> {
        Box::pin(async move {
            let session = self.pool.first().await?;
            Ok(Some(Arc::clone(session.bastion())))
        })
    }

    fn carriers(&self) -> BoxFuture<'_, Result<Vec<Carrier>, TunnelError>> {
        Box::pin(self.starter.carriers())
    }

    fn readiness(&self) -> Readiness {
        self.pool.readiness()
    }

    fn stats(&self) -> TunnelStats {
        self.pool.stats()
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
