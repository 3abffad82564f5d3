//! [`SsmTransport`]: streams to one endpoint through the sessions of its target.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::pool::{Need, Pool};
use super::session::{Session, Stuck};
use super::start::Starter;
use super::state::Hello;
use super::stream::SsmStream;
use crate::aws::AwsContext;
use crate::base::error_text::plain;
use crate::base::stream::{BoxFuture, Stream};
use crate::config::{Bastion, Endpoint, SsmSettings};
use crate::tunnel::{Carrier, Readiness, Transport, TunnelError, TunnelStats};

/// For how long the outcome of a dial through a fresh session stands: until then no further session
/// is started only to dial again. It doubles while dials fail, up to the second. A client that retries
/// every second must not cost a StartSession every second.
const FRESH_FAILURE_STANDS: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(60));
/// How often a stream that was never dialled moves to another session.
const MOVES: u32 = 3;
/// How long the first dial of a session may go without an answer before it is made a second time, two
/// round trips not counted: the agent may have thrown the first one away (`driver/first_bytes.rs`).
const FIRST_ANSWER: Duration = Duration::from_secs(1);

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
        let mut moves = 0;
        let mut need = Need {
            not_before: None,
            brief,
            hello: if hello.is_empty() {
                Hello::Irreplaceable
            } else {
                Hello::Repeatable
            },
            elsewhere: false,
        };
        loop {
            let (session, mut stream) = self.pool.open(need).await?;
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
                    self.dial_worked(&session, need.not_before);
                    return Ok(stream);
                }
                Err(error) => error,
            };
            drop(stream);
            if matches!(
                error,
                TunnelError::DialRefused { .. } | TunnelError::DialTimeout { .. }
            ) {
                // Another bastion may do what this one cannot; the same one, asked anew, will not.
                let fresh = session.began() >= need.not_before.unwrap_or(asked);
                self.not_dialled(&session, need, fresh, error)?;
                need.not_before = Some(dialled);
                continue;
            }
            moves += 1;
            need.elsewhere = self.not_carried(&session, moves, error)?;
        }
    }

    /// The agent could not connect. `Ok`: it is worth another attempt, through a session that is
    /// fresher than the one that was used.
    fn not_dialled(
        &self,
        session: &Session,
        need: Need,
        fresh: bool,
        error: TunnelError,
    ) -> Result<(), TunnelError> {
        self.starter.dial_failed(session.bastion());
        let last = fresh && (need.not_before.is_some() || !self.has_other_bastions());
        let standing = self.standing_failure().is_some();
        if last {
            self.remember(&error);
        }
        if need.not_before.is_some() {
            session.retire(); // It was started for this dial alone.
        }
        if last || standing {
            return Err(error);
        }
        info!(reason = %error, "trying once more through a fresh session");
        Ok(())
    }

    /// The agent has not come to the dial, or the session is gone. `Ok`: another one may do, and
    /// whether one should be started even if sessions have failed lately.
    fn not_carried(
        &self,
        session: &Session,
        moves: u32,
        error: TunnelError,
    ) -> Result<bool, TunnelError> {
        let early = session.failed_early();
        let of_bastion = early
            || matches!(
                error,
                TunnelError::NameNotResolved { .. } | TunnelError::AgentSilent { .. }
            );
        if of_bastion {
            self.starter.dial_failed(session.bastion());
        }
        // The same bastion, asked again, will not know the name either.
        let in_vain = error.is_about_the_name() && !self.starter.has_other_bastions();
        if moves > MOVES || in_vain {
            return Err(error);
        }
        match self.standing_failure() {
            Some(standing) if moves > 1 => Err(standing),
            _ => {
                info!(reason = %error, "moving to another session");
                Ok(!early || self.starter.has_other_bastions())
            }
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
        let (proven, round_trip) = session.is_proven();
        let mut again = (!proven).then(|| Instant::now() + FIRST_ANSWER + 2 * round_trip);
        let mut second: Option<SsmStream> = None;
        loop {
            let wake = again.map_or(look, |again| again.min(look));
            tokio::select! {
                readable = stream.readable() => return readable.map_err(tunnel_error),
                answered = readable(&mut second) => {
                    // What became of the first one tells, if the second is closed.
                    match (answered, second.take()) {
                        (Ok(()), Some(answering)) => {
                            *stream = answering;
                            return Ok(());
                        }
                        _ => continue,
                    }
                }
                () = sleep_until(wake) => {}
            }
            if again.is_some_and(|again| Instant::now() >= again) {
                again = None;
                second = self.dial_again(session, hello).await;
            }
            if Instant::now() < look {
                continue;
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

    /// The first dial of a session once more, beside one without an answer.
    async fn dial_again(&self, session: &Session, hello: &Bytes) -> Option<SsmStream> {
        if session.is_proven().0 {
            return None; // Another stream was answered: the agent is merely slow with this one.
        }
        let mut stream = session.open(&self.endpoint, Hello::Repeatable).ok()?;
        debug!(bastion = %session.bastion(), "no answer to the first dial of a session; dialling again");
        stream.write_all(hello).await.ok()?;
        Some(stream)
    }

    /// A stream is up. When it took a fresh session, the older ones have outdated names.
    fn dial_worked(&self, session: &Session, not_before: Option<Instant>) {
        self.starter.dial_worked(session.bastion());
        self.pool.worked();
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

    fn waits_for(&self) -> Option<&'static str> {
        match self.pool.readiness() {
            Readiness::Up => Some("the first bytes of the database through the tunnel"),
            Readiness::Starting => self.starter.step(),
            Readiness::Idle | Readiness::Interrupted => None,
        }
    }

    fn stats(&self) -> TunnelStats {
        self.pool.stats()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.pool.shutdown())
    }
}

/// Waits until the stream, if there is one, can be read. Cancel-safe.
async fn readable(stream: &mut Option<SsmStream>) -> io::Result<()> {
    match stream {
        Some(stream) => stream.readable().await,
        None => std::future::pending().await,
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
