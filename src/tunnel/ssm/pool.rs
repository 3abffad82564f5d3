//! The sessions of one target: limited in number, started one at a time by one starter that all
//! waiters share, closed when unused.

mod alone;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::placement::{Availability, Placement, choose};
use super::session::SsmSession;
use super::start::{SessionStarter, is_throttled};
use super::state::{Repeatability, StreamSlot};
use super::stream::{NotOpened, SsmStream};
use crate::base::background;
use crate::base::background::TaskStopped;
use crate::base::jitter::{doubled, jitter};
use crate::config::{Endpoint, SsmSettings};
use crate::tunnel::{Readiness, SessionStats, SpareMark, TunnelError, TunnelStats, TunnelTotals};

/// Interval at which a waiting connection checks for a session without traffic.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time that a connection waits for a further session when it could share one. Enough for
/// three that are started in sequence over a slow connection to AWS.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause before a further session after AWS refused one: first, and at most. It doubles.
pub(super) const REFUSED_PAUSE: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(120));
/// Pause before a further session after one that failed early: first, and at most. It doubles. Each
/// attempt costs a session. The commonest reason is a name that the bastion cannot resolve: the
/// agent looks it up once per session and ends the session with the error.
const EARLY_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Factor by which the last session of a target stays longer than the others.
pub(super) const LAST_STAYS: u32 = 3;
/// Shortest time between checks for idle sessions.
pub(super) const SWEEP: Duration = Duration::from_secs(5);

type Outcome = Result<SsmSession, TunnelError>;
type Starting = watch::Receiver<Option<Outcome>>;

/// Requirements of a stream for its session.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamNeeds<'a> {
    /// The session's start must have begun after this: an older session may have resolved the
    /// database's name to an outdated address.
    pub(super) not_before: Option<Instant>,
    /// The stream is short-lived and not worth a session of its own.
    pub(super) brief: bool,
    /// Repeatability of its first bytes.
    pub(super) hello: Repeatability,
    /// The stream is for a later connection.
    pub(super) spare: Option<&'a SpareMark>,
    /// Another bastion may work where one failed: a session is started despite recent failures.
    pub(super) elsewhere: bool,
}

/// The sessions of one target.
pub(super) struct SessionPool {
    starter: SessionStarter,
    settings: SsmSettings,
    endpoint: Endpoint,
    sessions: Mutex<Sessions>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Sessions {
    all: Vec<SsmSession>,
    starting: Option<Starting>,
    /// Time at which it began.
    starting_since: Option<Instant>,
    /// Running starts of sessions for one stream each.
    starting_alone: usize,
    /// No further session is requested before this; length of the pause.
    refused: Option<(Instant, Duration)>,
    /// AWS throttles, or a start panicked: time until which no session is requested at all, and the
    /// answer meanwhile.
    standing: Option<(Instant, TunnelError)>,
    /// Length of the pause after the last panic.
    panic_pause: Option<Duration>,
    /// The last session that failed early.
    early: Option<EarlyEnd>,
    /// A task checks for idle sessions.
    swept: bool,
    closed: bool,
    count: PoolCounts,
}

/// A session that ended, or with an agent that fell silent, before it received any data.
struct EarlyEnd {
    /// No further session is started before this.
    until: Instant,
    /// Length of the pause. Zero after a first failure that may be temporary.
    pause: Duration,
    error: TunnelError,
}

/// Counts so far.
#[derive(Default)]
struct PoolCounts {
    started: u64,
    failed: u64,
    ended: u64,
    /// Totals of the ended sessions.
    by_ended: TunnelTotals,
}

/// Next step of a connection that needs a session.
enum PoolStep {
    Take(SsmSession, SsmStream),
    /// Wait for the running start, or for a change.
    Await(Option<Starting>),
}

impl SessionPool {
    pub(super) fn new(
        starter: SessionStarter,
        settings: SsmSettings,
        endpoint: Endpoint,
    ) -> Arc<Self> {
        let (tasks, stop) = (starter.tasks.clone(), starter.stop.clone());
        Arc::new(Self {
            starter,
            settings,
            endpoint,
            sessions: Mutex::default(),
            tasks,
            stop,
        })
    }

    /// Returns a new stream, and its session. The caller sets the deadline. Cancel-safe.
    ///
    /// # Errors
    /// The reason why no session could be started, when there is none to share.
    pub(super) async fn open(
        self: &Arc<Self>,
        need: StreamNeeds<'_>,
    ) -> Result<(SsmSession, SsmStream), TunnelError> {
        let mut could_share = None;
        let mut awaited = None;
        let not_before = need.not_before;
        loop {
            let starting = match self.step(&mut could_share, awaited.take(), need)? {
                PoolStep::Take(session, stream) => return Ok((session, stream)),
                PoolStep::Await(starting) => starting,
            };
            let Some(mut starting) = starting else {
                sleep(LOOK).await;
                continue;
            };
            let failed = tokio::select! {
                biased;
                outcome = starting.wait_for(Option::is_some) => match outcome.as_deref() {
                    Ok(Some(Err(error))) => Some(error.clone()),
                    Ok(_) => None,
                    Err(_cancelled) => Some(self.cancelled()),
                },
                () = sleep(LOOK) => None,
            };
            if let Some(error) = failed {
                if !self.has_any(not_before) {
                    return Err(error);
                }
                // The existing session may be used only later.
                sleep(LOOK).await;
            } else {
                awaited = Some(starting);
            }
        }
    }

    /// Returns the next step of a connection. `awaited`: the start that it waited for so far.
    fn step(
        self: &Arc<Self>,
        could_share: &mut Option<Instant>,
        awaited: Option<Starting>,
        need: StreamNeeds<'_>,
    ) -> Result<PoolStep, TunnelError> {
        let StreamNeeds {
            not_before, brief, ..
        } = need;
        let mut sessions = self.lock();
        if sessions.closed {
            return Err(TunnelError::ShuttingDown);
        }
        let now = Instant::now();
        let standings = sessions.standings(self.settings.dial_timeout, not_before);
        Ok(match choose(&standings, self.settings.sessions) {
            Placement::Place(place) => self.take(&sessions.all[place], need),
            Placement::BetterFurther(place) => {
                let refused = sessions.refused.is_some_and(|(until, _)| now < until)
                    || sessions.fails_early(now).is_some();
                let since = *could_share.get_or_insert(now);
                if brief || refused || now >= since + PATIENCE {
                    self.take(&sessions.all[place], need)
                } else {
                    PoolStep::Await(Some(self.start(&mut sessions)))
                }
            }
            Placement::Further => {
                if let Some(error) = sessions.may_not_start(need.elsewhere, now) {
                    return Err(error);
                }
                // The start may have failed since the last look at it: its outcome is the answer,
                // and a second start would take the connection past its deadline.
                let outcome = awaited.and_then(|starting| starting.borrow().clone());
                if let Some(Err(error)) = outcome {
                    return Err(error);
                }
                PoolStep::Await(Some(self.start(&mut sessions)))
            }
            Placement::Wait => PoolStep::Await(None),
        })
    }

    /// Opens a stream under the lock: the next connection sees a busy session.
    fn take(&self, session: &SsmSession, need: StreamNeeds<'_>) -> PoolStep {
        let slot = StreamSlot::new(self.endpoint.clone(), need.hello, need.spare.cloned());
        match session.open(slot) {
            Ok(stream) => PoolStep::Take(session.clone(), stream),
            // It ended between the check and this step; the next check will not see it.
            Err(NotOpened::Leaving | NotOpened::Ended) => PoolStep::Await(None),
        }
    }

    /// Takes a stream that was opened for a later connection. Returns `false` if a new one would
    /// get a session with less traffic than a bulk transfer, or if the stream's session is no longer up; `None` if no
    /// session has it.
    pub(super) fn take_spare(&self, mark: &SpareMark) -> Option<bool> {
        let mut sessions = self.lock();
        let standings = sessions.standings(self.settings.dial_timeout, None);
        let place = sessions.all.iter().position(|s| s.has_spare(mark))?;
        let suits = match standings[place] {
            // Logins and short queries beside it delay it less than the start of a session would.
            Availability::Up(load) if !load.troubled && !sessions.all[place].has_bulk() => true,
            Availability::Up(_) => {
                choose(&standings, self.settings.sessions) == Placement::Place(place)
            }
            _ => false,
        };
        Some(suits && mark.take())
    }

    /// Returns true if there is a session that a connection could use now or soon.
    fn has_any(&self, not_before: Option<Instant>) -> bool {
        let mut sessions = self.lock();
        let standings = sessions.standings(self.settings.dial_timeout, not_before);
        standings.iter().any(|s| matches!(s, Availability::Up(_)))
    }

    /// Returns the readiness of the best session.
    pub(super) fn readiness(&self) -> Readiness {
        let mut sessions = self.lock();
        let standings = sessions.standings(self.settings.dial_timeout, None);
        let up = |standing: &Availability| matches!(standing, Availability::Up(_));
        if standings.iter().any(up) {
            Readiness::Up
        // Including those interrupted for so long that no connection waits for them any more: a
        // start that takes long or fails has the same cause.
        } else if sessions.all.iter().any(SsmSession::is_interrupted) {
            Readiness::Interrupted
        } else if sessions.starting().is_some() {
            Readiness::Starting
        } else {
            Readiness::Idle
        }
    }

    /// Returns the totals so far, and the state of each session.
    pub(super) fn stats(&self) -> TunnelStats {
        let dial_timeout = self.settings.dial_timeout;
        let mut sessions = self.lock();
        sessions.standings(dial_timeout, None);
        let mut rows: Vec<SessionStats> = sessions
            .all
            .iter()
            .map(|session| session.stats(dial_timeout))
            .collect();
        let mut totals = sessions.count.by_ended;
        rows.iter().for_each(|row| totals += row.totals);
        let shared = usize::from(sessions.starting().is_some());
        for _ in 0..shared + sessions.starting_alone {
            let since = sessions.starting_since.unwrap_or_else(Instant::now);
            rows.push(SessionStats::starting(since.elapsed()));
        }
        TunnelStats {
            sessions: rows,
            started: sessions.count.started,
            ended: sessions.count.ended,
            failed: sessions.count.failed,
            totals,
            relay: None,
        }
    }

    /// Opens the first session ahead of the first connection. A failure is harmless: the first
    /// connection tries again, and gets the error.
    pub(super) async fn warm_up(self: Arc<Self>) {
        let starting = {
            let mut sessions = self.lock();
            (!sessions.closed).then(|| self.start(&mut sessions))
        };
        if let Some(mut starting) = starting
            && let Ok(Some(Err(error))) = starting.wait_for(Option::is_some).await.as_deref()
        {
            debug!(%error, "cannot open the first session ahead of connections");
        }
    }

    /// Returns a session that is up, or the next one started. Cancel-safe.
    ///
    /// # Errors
    /// The reason why none could be started.
    pub(super) async fn first(self: &Arc<Self>) -> Outcome {
        let mut starting = {
            let mut sessions = self.lock();
            if sessions.closed {
                return Err(TunnelError::ShuttingDown);
            }
            let standings = sessions.standings(self.settings.dial_timeout, None);
            let up = |standing: &Availability| matches!(standing, Availability::Up(_));
            if let Some(place) = standings.iter().position(up) {
                return Ok(sessions.all[place].clone());
            }
            let now = Instant::now();
            if let Some(error) = sessions.may_not_start(false, now) {
                return Err(error);
            }
            self.start(&mut sessions)
        };
        match starting.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(self.cancelled()),
        }
    }

    /// Returns the error for a start that ended without a result, which counts like a panic.
    fn cancelled(&self) -> TunnelError {
        let error = TunnelError::Internal(TaskStopped);
        let mut sessions = self.lock();
        if sessions.starting().is_none() && sessions.starting.take().is_some() {
            sessions.refuse_for_a_while(&error);
        }
        error
    }

    /// Returns the running start, or begins a new one.
    fn start(self: &Arc<Self>, sessions: &mut Sessions) -> Starting {
        if let Some(starting) = sessions.starting() {
            return starting;
        }
        let (tell, starting) = watch::channel(None);
        sessions.starting = Some(starting.clone());
        sessions.starting_since = Some(Instant::now());
        // A task of its own: a client that gives up must not stop the start for the others.
        self.tasks.spawn(Arc::clone(self).start_for_all(tell));
        starting
    }

    async fn start_for_all(self: Arc<Self>, tell: watch::Sender<Option<Outcome>>) {
        let outcome = background::outcome(self.starter.start(None)).await;
        let outcome = outcome.unwrap_or_else(|stopped| Err(TunnelError::Internal(stopped)));
        let mut sessions = self.lock();
        sessions.starting = None;
        self.settle(&mut sessions, &outcome);
        // Under the lock, so that every waiter finds either the start or its outcome.
        tell.send_replace(Some(outcome));
    }

    /// Adds a started session, or records why there is none.
    fn settle(self: &Arc<Self>, sessions: &mut Sessions, outcome: &Outcome) {
        match outcome {
            Ok(session) if sessions.closed => session.close(),
            Ok(session) => {
                sessions.all.push(session.clone());
                sessions.count.started += 1;
                (sessions.refused, sessions.standing) = (None, None);
                sessions.panic_pause = None;
                if !std::mem::replace(&mut sessions.swept, true) {
                    self.tasks.spawn(Arc::clone(self).sweep());
                }
            }
            Err(error) => {
                sessions.count.failed += u64::from(!matches!(error, TunnelError::ShuttingDown));
                sessions.refuse_for_a_while(error);
            }
        }
    }

    /// Closes sessions that were unused for long enough; ends with the last of them.
    async fn sweep(self: Arc<Self>) {
        let idle_timeout = self.settings.idle_timeout;
        let pause = (idle_timeout / 4).min(SWEEP);
        while self.stop.run_until_cancelled(sleep(pause)).await.is_some() {
            let mut sessions = self.lock();
            sessions.standings(self.settings.dial_timeout, None);
            if sessions.all.is_empty() {
                sessions.swept = false;
                return;
            }
            sessions.close_idle(idle_timeout);
        }
    }

    /// Records a working stream, which ends the pause after early failures.
    pub(super) fn note_success(&self) {
        self.lock().early = None;
    }

    /// Retires earlier sessions, which have an outdated address of the database: they end with
    /// their streams.
    pub(super) fn retire_older(&self, not_before: Instant) {
        let sessions = self.lock();
        let older = sessions.all.iter().filter(|s| s.began() < not_before);
        older.for_each(SsmSession::retire);
    }

    /// Ends all sessions and waits for that. No further session is started.
    pub(super) async fn shutdown(&self) {
        {
            let mut sessions = self.lock();
            sessions.closed = true;
            sessions.all.iter().for_each(SsmSession::close);
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Every change is one assignment; a panic cannot leave half of one.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Returns the state of each session, after removing the ended ones. One that is too old counts
    /// as leaving.
    fn standings(
        &mut self,
        dial_timeout: Duration,
        not_before: Option<Instant>,
    ) -> Vec<Availability> {
        self.leave_silent_bastions();
        let mut standings = Vec::with_capacity(self.all.len());
        let mut early = None;
        let mut panicked = false;
        let count = &mut self.count;
        self.all.retain(|session| {
            let standing = session.standing(dial_timeout);
            let ended = standing == Availability::Ended;
            early = session.count_early_failure().or(early.take());
            if ended {
                count.ended += 1;
                panicked |= session.panicked();
                count.by_ended += session.totals();
            } else {
                let old = not_before.is_some_and(|at| session.began() < at);
                standings.push(if old { Availability::Leaving } else { standing });
            }
            !ended
        });
        if let Some(error) = early {
            self.failed_early(&error);
        }
        if panicked {
            // Its cause most likely affects the next session, too.
            self.refuse_for_a_while(&TunnelError::Internal(TaskStopped));
        }
        standings
    }

    /// Retires all sessions of a silent agent that were not heard since: an agent silent in one
    /// session is silent in all.
    fn leave_silent_bastions(&self) {
        for silent in &self.all {
            let Some(since) = silent.silent_since() else {
                continue;
            };
            let beside = self.all.iter().filter(|s| s.bastion() == silent.bastion());
            beside.for_each(|session| session.retire_if_unheard(since));
        }
    }

    /// Returns the error for the pause after an early failure.
    fn fails_early(&self, now: Instant) -> Option<TunnelError> {
        let pauses = |early: &&EarlyEnd| !early.pause.is_zero() && now < early.until;
        let early = self.early.as_ref().filter(pauses);
        early.map(|early| early.error.clone())
    }

    /// Returns the error if no session may be started now. `elsewhere`: see [`StreamNeeds`].
    fn may_not_start(&self, elsewhere: bool, now: Instant) -> Option<TunnelError> {
        let standing = self.standing.as_ref();
        let standing = standing.filter(|(until, _)| now < *until);
        let standing = standing.map(|(_, error)| error.clone());
        standing.or_else(|| self.fails_early(now).filter(|_| !elsewhere))
    }

    /// Records an early failure. Several during a pause count as one. A name that cannot be
    /// resolved causes a pause at once; after other errors one further attempt is free, as the
    /// agent may just have been restarted.
    fn failed_early(&mut self, error: &TunnelError) {
        let now = Instant::now();
        let (_, longest) = EARLY_PAUSE;
        let recent = self.early.as_ref();
        let recent = recent.filter(|last| now < last.until + longest);
        let (until, pause) = match recent {
            Some(last) if now < last.until => (last.until, last.pause),
            None if !error.is_about_the_name() => (now, Duration::ZERO),
            last => {
                let last = last.map(|last| last.pause).filter(|pause| !pause.is_zero());
                let pause = doubled(last, EARLY_PAUSE);
                (now + pause, pause)
            }
        };
        self.early = Some(EarlyEnd {
            until,
            pause,
            error: error.clone(),
        });
    }

    /// Returns the running start. A starter that ended without a result was cancelled.
    fn starting(&self) -> Option<Starting> {
        let starting = self.starting.as_ref()?;
        starting.has_changed().is_ok().then(|| starting.clone())
    }

    fn refuse_for_a_while(&mut self, error: &TunnelError) {
        if matches!(error, TunnelError::ShuttingDown) {
            return;
        }
        if error.is_about_the_name() {
            self.failed_early(error);
        }
        if is_throttled(error) {
            self.standing = Some((Instant::now() + jitter(REFUSED_PAUSE.0), error.clone()));
        }
        if matches!(error, TunnelError::Internal(_)) {
            let pause = background::next_pause(self.panic_pause);
            self.panic_pause = Some(pause);
            self.standing = Some((Instant::now() + pause, error.clone()));
        }
        if self.all.is_empty() {
            return; // There is nothing to share: the next connection requests again.
        }
        let pause = doubled(self.refused.map(|(_, pause)| pause), REFUSED_PAUSE);
        self.refused = Some((Instant::now() + jitter(pause), pause));
        warn!(%error, sessions = self.all.len(), "cannot open another session; new connections share the open ones");
    }

    fn close_idle(&mut self, idle_timeout: Duration) {
        let now = Instant::now();
        let idle_for = |session: &SsmSession| session.idle_since().map(|since| now - since);
        // The most recently used one stays for the next connection.
        let last = (0..self.all.len()).min_by_key(|place| idle_for(&self.all[*place]));
        for (place, session) in self.all.iter().enumerate() {
            let limit = if Some(place) == last {
                idle_timeout * LAST_STAYS
            } else {
                idle_timeout
            };
            if idle_for(session).is_some_and(|idle| idle >= limit) {
                debug!(bastion = %session.bastion(), "closing an idle session");
                session.close_if_idle();
            }
        }
    }
}

#[cfg(test)]
mod tests;
