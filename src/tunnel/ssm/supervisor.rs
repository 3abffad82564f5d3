//! [`SsmTransport`]: streams to one endpoint through the sessions of its target.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::pool::{SessionPool, StreamNeeds};
use super::relayed::{RelayRoute, denied};
use super::session::{SsmSession, StuckDial};
use super::start::SessionStarter;
use super::state::{Repeatability, StreamSlot};
use super::stream::SsmStream;
use crate::aws::AwsContext;
use crate::base::error_text::plain;
use crate::base::names::NodeId;
use crate::base::names::Region;
use crate::base::stream::{BoxFuture, Stream};
use crate::config::{Bastion, Endpoint, SsmSettings};
use crate::tunnel::{
    BastionCandidate, Readiness, SpareMark, StreamPurpose, Transport, TunnelError, TunnelStats,
};

/// Time for which the outcome of a dial through a fresh session is valid: until then no further
/// session is started only to repeat the dial. It doubles while dials fail, up to the second value.
/// A client that retries every second must not cost a StartSession every second.
const FRESH_FAILURE_STANDS: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(60));
/// Number of times a stream that was never dialled moves to another session.
const MOVES: u32 = 3;
/// Time without an answer after which the first dial of a session is repeated, two round trips not
/// counted: the agent may have discarded the first one (`driver/first_bytes.rs`).
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// Streams to one endpoint through Session Manager.
pub struct SsmTransport {
    pool: Arc<SessionPool>,
    starter: SessionStarter,
    endpoint: Endpoint,
    settings: SsmSettings,
    /// Route through a relay, if one is configured.
    relay: Option<Arc<RelayRoute>>,
    /// The last dial that failed although its session, and so its name lookup, was fresh.
    fresh_failure: Mutex<Option<FreshFailure>>,
}

/// A dial that failed although nothing about it was outdated.
struct FreshFailure {
    until: Instant,
    stood: Duration,
    error: TunnelError,
}

impl SsmTransport {
    /// Creates the transport. With `settings.warm` the first session is opened now, otherwise with
    /// the first stream. `region` `None` means the AWS default region.
    #[must_use]
    pub fn new(
        aws: Arc<AwsContext>,
        region: Option<Region>,
        settings: SsmSettings,
        endpoint: Endpoint,
    ) -> Self {
        let starter = SessionStarter::new(aws, region, settings.clone(), endpoint.clone());
        let pool = SessionPool::new(starter.clone(), settings.clone(), endpoint.clone());
        let relay = settings.relay.map(|relay| {
            let (settings, endpoint) = (settings.clone(), endpoint.clone());
            RelayRoute::new(relay, settings, endpoint, &starter, Arc::clone(&pool))
        });
        if settings.warm {
            let (relay, pool) = (relay.clone(), Arc::clone(&pool));
            starter.tasks.spawn(async move {
                match relay {
                    Some(relay) if matches!(relay.prepare().await, Ok(Some(_)) | Err(_)) => {}
                    _ => pool.warm_up().await,
                }
            });
        }
        Self {
            pool,
            starter,
            endpoint,
            settings,
            relay,
            fresh_failure: Mutex::default(),
        }
    }

    /// Opens a stream through the relay if there is one, otherwise as [`Self::open_and_dial`] does.
    async fn open_anyhow(
        &self,
        hello: Bytes,
        purpose: StreamPurpose,
    ) -> Result<Stream, TunnelError> {
        let Some(relay) = &self.relay else {
            let (_, stream) = self.open_and_dial(hello, purpose).await?;
            return Ok(Box::new(stream));
        };
        if let Some(stream) = relay.open(&hello).await? {
            return Ok(stream);
        }
        match self.open_and_dial(hello, purpose).await {
            Ok((bastion, stream)) => {
                relay.note_bastion(&bastion);
                Ok(Box::new(stream))
            }
            Err(error) => Err(without_relay(relay, error)),
        }
    }

    /// Opens a stream and waits until the far side answers `hello`; retries through a fresh session
    /// when an older one fails.
    async fn open_and_dial(
        &self,
        hello: Bytes,
        purpose: StreamPurpose,
    ) -> Result<(NodeId, SsmStream), TunnelError> {
        let asked = Instant::now();
        let mut moves = 0;
        let mut need = StreamNeeds {
            not_before: None,
            brief: !matches!(purpose, StreamPurpose::Connection),
            spare: match &purpose {
                StreamPurpose::Spare(mark) => Some(mark),
                StreamPurpose::Connection | StreamPurpose::Brief => None,
            },
            hello: if hello.is_empty() {
                Repeatability::Irreplaceable
            } else {
                Repeatability::Repeatable
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
                return Ok((session.bastion().clone(), stream));
            }
            let error = match self.dial(&session, &mut stream, need, &hello).await {
                Ok(()) => {
                    self.dial_worked(&session, need.not_before);
                    return Ok((session.bastion().clone(), stream));
                }
                Err(error) => error,
            };
            drop(stream);
            if need.spare.is_some() {
                return Err(error); // A connection will try again, and judge.
            }
            if matches!(
                error,
                TunnelError::DialRefused { .. } | TunnelError::DialTimeout { .. }
            ) {
                // Another bastion may work where this one failed; the same one will fail again.
                let fresh = session.began() >= need.not_before.unwrap_or(asked);
                self.not_dialled(&session, need, fresh, error)?;
                need.not_before = Some(dialled);
                continue;
            }
            moves += 1;
            need.elsewhere = self.not_carried(&session, moves, error)?;
        }
    }

    /// Handles a refused dial. `Ok`: another attempt is worthwhile, through a fresher session.
    fn not_dialled(
        &self,
        session: &SsmSession,
        need: StreamNeeds<'_>,
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
        info!(reason = %error, "retrying the connection through a new SSM session");
        Ok(())
    }

    /// Handles a dial that the agent has not reached, or a session that is gone. `Ok`: another
    /// session may work; the value tells if one is started despite recent failures.
    fn not_carried(
        &self,
        session: &SsmSession,
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
        // The same bastion will not resolve the name either.
        let in_vain = error.is_about_the_name() && !self.starter.has_other_bastions();
        if moves > MOVES || in_vain {
            return Err(error);
        }
        match self.standing_failure() {
            Some(standing) if moves > 1 => Err(standing),
            _ => {
                info!(reason = %error, "moving the connection to another SSM session");
                Ok(!early || self.starter.has_other_bastions())
            }
        }
    }

    /// Returns true if a session that cannot report its dials in time is better avoided: it refused
    /// the last one, and the name may have moved since it was looked up.
    fn is_outdated(&self, session: &SsmSession) -> bool {
        let outdated = session.refused_last() && session.began().elapsed() > FRESH_FAILURE_STANDS.0;
        if outdated {
            self.starter.dial_failed(session.bastion());
        }
        outdated
    }

    /// Sends `hello` with the SYN and waits for the first byte, or for the timeout of the agent's
    /// dial.
    async fn dial(
        &self,
        session: &SsmSession,
        stream: &mut SsmStream,
        need: StreamNeeds<'_>,
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
                    // The outcome of the first one counts, if the second is closed.
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
                second = self.dial_again(session, need, hello).await;
            }
            if Instant::now() < look {
                continue;
            }
            match session.strand_if_stuck(patience) {
                StuckDial::No => look = Instant::now() + patience,
                StuckDial::NotBefore(limit) => look = limit,
                StuckDial::Yes if stream.was_dialled() => {
                    return Err(TunnelError::DialTimeout {
                        bastion: session.bastion().to_string(),
                        endpoint: self.endpoint.clone(),
                        after: patience,
                    });
                }
                StuckDial::Yes => {} // It is stranded, and `readable` reports it.
            }
        }
    }

    /// Repeats the first dial of a session, beside one without an answer.
    async fn dial_again(
        &self,
        session: &SsmSession,
        need: StreamNeeds<'_>,
        hello: &Bytes,
    ) -> Option<SsmStream> {
        if session.is_proven().0 {
            return None; // Another stream was answered: the agent is only slow with this one.
        }
        let slot = StreamSlot::new(self.endpoint.clone(), need.hello, need.spare.cloned());
        let mut stream = session.open(slot).ok()?;
        debug!(bastion = %session.bastion(), "no answer to the first dial of a session; dialing again");
        stream.write_all(hello).await.ok()?;
        Some(stream)
    }

    /// Records a working stream. If it needed a fresh session, the older ones have outdated names.
    fn dial_worked(&self, session: &SsmSession, not_before: Option<Instant>) {
        self.starter.dial_worked(session.bastion());
        self.pool.note_success();
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
        Box::pin(self.open_anyhow(hello, StreamPurpose::Connection))
    }

    fn open_briefly(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(self.open_anyhow(hello, StreamPurpose::Brief))
    }

    fn open_spare(
        &self,
        hello: Bytes,
        mark: SpareMark,
    ) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(self.open_anyhow(hello, StreamPurpose::Spare(mark)))
    }

    fn take_spare(&self, mark: &SpareMark) -> bool {
        // A stream through the relay suits as long as it lives: it uses all sessions.
        match self.pool.take_spare(mark) {
            None => self.relay.is_some() && mark.take(),
            Some(taken) => taken,
        }
    }

    fn prepare(&self) -> BoxFuture<'_, Result<Option<NodeId>, TunnelError>> {
        Box::pin(async move {
            if let Some(relay) = &self.relay
                && let Some(bastion) = relay.prepare().await?
            {
                return Ok(Some(bastion));
            }
            let session = self.pool.first().await;
            let session = session.map_err(|error| match &self.relay {
                Some(relay) => without_relay(relay, error),
                None => error,
            })?;
            Ok(Some(session.bastion().clone()))
        })
    }

    fn carriers(&self) -> BoxFuture<'_, Result<Vec<BastionCandidate>, TunnelError>> {
        Box::pin(self.starter.carriers())
    }

    fn readiness(&self) -> Readiness {
        let of_relay = self.relay.as_ref().and_then(|relay| relay.readiness());
        of_relay.unwrap_or_else(|| self.pool.readiness())
    }

    fn waits_for(&self) -> Option<&'static str> {
        let starting = || match &self.relay {
            Some(relay) if relay.readiness().is_some() => relay.step(),
            _ => self.starter.step(),
        };
        match self.readiness() {
            Readiness::Up => Some("the first bytes of the database through the tunnel"),
            Readiness::Starting => starting(),
            Readiness::Idle | Readiness::Interrupted => None,
        }
    }

    fn stats(&self) -> TunnelStats {
        let mut stats = self.pool.stats();
        if let Some(relay) = &self.relay {
            let (state, of_relay) = relay.stats();
            stats.add_relay(state, of_relay);
        }
        stats
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match &self.relay {
                Some(relay) => _ = tokio::join!(relay.shutdown(), self.pool.shutdown()),
                None => self.pool.shutdown().await,
            }
        })
    }
}

/// Returns the error of a session to the database. If AWS refuses that session, the relay would have
/// been the other route.
fn without_relay(relay: &RelayRoute, error: TunnelError) -> TunnelError {
    match relay.absence() {
        Some(absence) if denied(&error).is_some() => TunnelError::NeitherRelayNorHost {
            relay: absence,
            host: Box::new(error),
        },
        _ => error,
    }
}

/// Waits until the stream, if there is one, can be read. Cancel-safe.
async fn readable(stream: &mut Option<SsmStream>) -> io::Result<()> {
    match stream {
        Some(stream) => stream.readable().await,
        None => std::future::pending().await,
    }
}

/// Converts an error of a tunnel stream to the tunnel's error.
fn tunnel_error(error: io::Error) -> TunnelError {
    match TunnelError::of(&error) {
        Some(error) => error.clone(),
        None => TunnelError::ChannelLost {
            reason: plain(&error),
        },
    }
}
