//! A value that is created once, shared by all callers, and renewed before it expires.
//!
//! Both the AWS credentials and the login tokens are such values: creating one may take seconds
//! (SSO, an external process) and must not be done once per connection.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tracing::Instrument;

use crate::base::background;
use crate::base::background::TaskStopped;

/// Source of the wall-clock time. Validity is measured with the wall clock, so that a laptop
/// notices after sleep that its token has expired.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Returns the clock of this machine.
pub(crate) fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// Remaining time at which a value is renewed in the background, so that no connection waits for
/// it: 5 minutes is a third of a token's life, and enough for several attempts.
const RENEW_EARLY: Duration = Duration::from_secs(5 * 60);

/// Remaining time at which the caller waits for the renewal: a login that starts now could reach
/// the server after the expiry. If the renewal fails, the old value is still tried.
const TOO_CLOSE: Duration = Duration::from_secs(30);

/// Pause after a failed early renewal; a broken SSO session must not cause one attempt per
/// connection while the old value is still valid.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(15);

/// A value that seems to be created this far in the future was created before the clock was set
/// back.
const CLOCK_JITTER: Duration = Duration::from_secs(60);

/// A value and its expiry.
#[derive(Clone, Debug)]
pub(crate) struct Expiring<V> {
    pub(crate) value: V,
    pub(crate) made_at: SystemTime,
    /// Expiry; `None` = never.
    pub(crate) until: Option<SystemTime>,
}

impl<V> Expiring<V> {
    fn left(&self, now: SystemTime) -> Option<Duration> {
        match self.until {
            None => Some(Duration::MAX),
            Some(until) => until.duration_since(now).ok().filter(|d| !d.is_zero()),
        }
    }

    fn stage(&self, now: SystemTime) -> FlightStage {
        if self.made_at > now + CLOCK_JITTER {
            return FlightStage::Over;
        }
        let Some(left) = self.left(now) else {
            return FlightStage::Over;
        };
        let whole = self
            .until
            .and_then(|until| until.duration_since(self.made_at).ok())
            .unwrap_or(Duration::MAX);
        // Short leases (credentials that expire soon) have short margins, or every use would renew.
        if left <= TOO_CLOSE.min(whole / 10) {
            FlightStage::Closing
        } else if left <= RENEW_EARLY.min(whole / 3) {
            FlightStage::Ageing
        } else {
            FlightStage::Fresh
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum FlightStage {
    Fresh,
    Ageing,
    Closing,
    Over,
}

type Outcome<V, E> = Result<Expiring<V>, E>;
type Flight<V, E> = Shared<BoxFuture<'static, Outcome<V, E>>>;

struct FlightState<V, E> {
    kept: Option<Expiring<V>>,
    running: Option<Flight<V, E>>,
    /// Incremented by every `forget`, so that a flight which began before it cannot restore a
    /// discarded value.
    epoch: u64,
    not_before: Option<SystemTime>,
    /// The last attempt's panic: its error, its time, and how long the error is returned instead of
    /// another attempt. `forget` does not touch it, as it is not about a value.
    panicked: Option<(TaskStopped, SystemTime, Duration)>,
}

/// A shared value, see the module. `E` is shared by all waiting callers, hence `Clone`.
pub(crate) struct Refreshing<V, E> {
    clock: Clock,
    state: Arc<Mutex<FlightState<V, E>>>,
}

impl<V, E> Refreshing<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: From<TaskStopped> + Clone + Send + Sync + 'static,
{
    pub(crate) fn new(clock: Clock) -> Self {
        let state = FlightState {
            kept: None,
            running: None,
            epoch: 0,
            not_before: None,
            panicked: None,
        };
        Self {
            clock,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Returns the value and whether it came from the cache.
    ///
    /// Calls `make` only if no other call is creating the value already; it runs in a task of its
    /// own. Cancel-safe: a cancelled caller does not affect the others, and the result is kept.
    pub(crate) async fn get<F>(&self, make: impl FnOnce() -> F) -> Result<(Expiring<V>, bool), E>
    where
        F: Future<Output = Outcome<V, E>> + Send + 'static,
    {
        let now = (self.clock)();
        let (flight, old) = {
            let mut state = lock(&self.state);
            let stage = state.kept.as_ref().map(|kept| kept.stage(now));
            match (stage, state.kept.clone()) {
                (Some(FlightStage::Fresh), Some(kept)) => return Ok((kept, true)),
                (Some(FlightStage::Ageing), Some(kept)) => {
                    if state.not_before.is_none_or(|then| then <= now) {
                        // It runs in a task of its own; the caller does not wait for it.
                        drop(self.join(&mut state, make));
                    }
                    return Ok((kept, true));
                }
                (Some(FlightStage::Closing), old) => (self.join(&mut state, make), old),
                _ => (self.join(&mut state, make), None),
            }
        };
        match (flight.await, old) {
            (Ok(lease), _) => Ok((lease, false)),
            (Err(_), Some(old)) if old.left((self.clock)()).is_some() => Ok((old, true)),
            (Err(error), _) => Err(error),
        }
    }

    /// Discards the kept value if `is_it` returns `true` for it; returns whether it did.
    pub(crate) fn forget_if(&self, is_it: impl FnOnce(&V) -> bool) -> bool {
        let mut state = lock(&self.state);
        let found = state.kept.as_ref().is_some_and(|kept| is_it(&kept.value));
        if found {
            forget(&mut state);
        }
        found
    }

    /// Discards the kept value and the one being created.
    pub(crate) fn forget(&self) {
        forget(&mut lock(&self.state));
    }

    /// Returns `true` if dropping this would lose anything.
    pub(crate) fn is_alive(&self) -> bool {
        let now = (self.clock)();
        let state = lock(&self.state);
        let kept = state.kept.as_ref();
        state.running.is_some() || kept.is_some_and(|kept| kept.stage(now) != FlightStage::Over)
    }

    /// Returns the kept value, whether or not it has expired.
    pub(crate) fn kept(&self) -> Option<Expiring<V>> {
        lock(&self.state).kept.clone()
    }

    /// Returns `true` while a value is being created.
    pub(crate) fn is_running(&self) -> bool {
        lock(&self.state).running.is_some()
    }

    fn join<F>(&self, state: &mut FlightState<V, E>, make: impl FnOnce() -> F) -> Flight<V, E>
    where
        F: Future<Output = Outcome<V, E>> + Send + 'static,
    {
        if let Some(flight) = &state.running {
            return flight.clone();
        }
        let now = (self.clock)();
        if let Some((stopped, at, pause)) = state.panicked
            // A clock that was set back must not extend the pause.
            && now.duration_since(at).is_ok_and(|passed| passed < pause)
        {
            let error = Err(stopped.into());
            return std::future::ready(error).boxed().shared();
        }
        let (shared, clock, epoch) = (self.state.clone(), self.clock.clone(), state.epoch);
        let made = background::outcome(make());
        let task = async move {
            let made = made.await;
            let now = (clock)();
            note_panic(&shared, made.as_ref().err().copied(), now);
            let outcome = made.unwrap_or_else(|stopped| Err(stopped.into()));
            land(&shared, epoch, &outcome, now);
            outcome
        };
        let task = tokio::spawn(task.in_current_span());
        let flight = async move { task.await.unwrap_or_else(|_| Err(TaskStopped.into())) };
        let flight = flight.boxed().shared();
        state.running = Some(flight.clone());
        flight
    }
}

fn lock<V, E>(state: &Mutex<FlightState<V, E>>) -> MutexGuard<'_, FlightState<V, E>> {
    // The state under the lock is never inconsistent, so a panic elsewhere does no harm.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget<V, E>(state: &mut FlightState<V, E>) {
    state.kept = None;
    state.running = None;
    state.not_before = None;
    state.epoch += 1;
}

/// Records a panic, or that there was none.
fn note_panic<V, E>(
    state: &Mutex<FlightState<V, E>>,
    panicked: Option<TaskStopped>,
    now: SystemTime,
) {
    let mut state = lock(state);
    let last = state.panicked.map(|(_, _, pause)| pause);
    state.panicked = panicked.map(|stopped| (stopped, now, background::next_pause(last)));
}

fn land<V: Clone, E>(
    state: &Mutex<FlightState<V, E>>,
    epoch: u64,
    outcome: &Outcome<V, E>,
    now: SystemTime,
) {
    let mut state = lock(state);
    if state.epoch != epoch {
        return;
    }
    state.running = None;
    match outcome {
        Ok(lease) => {
            state.kept = Some(lease.clone());
            state.not_before = None;
        }
        Err(_) => state.not_before = Some(now + PAUSE_AFTER_FAILURE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn lease(whole: u64) -> Expiring<()> {
        Expiring {
            value: (),
            made_at: at(0),
            until: Some(at(whole)),
        }
    }

    #[test]
    fn stages_of_a_token() {
        let token = lease(900);
        for (second, stage) in [
            (0, FlightStage::Fresh),
            (599, FlightStage::Fresh),
            (600, FlightStage::Ageing),
            (869, FlightStage::Ageing),
            (870, FlightStage::Closing),
            (899, FlightStage::Closing),
            (900, FlightStage::Over),
            (90_000, FlightStage::Over),
        ] {
            assert_eq!(token.stage(at(second)), stage, "second {second}");
        }
    }

    #[test]
    fn short_leases_are_not_renewed_all_the_time() {
        let token = lease(90);
        assert_eq!(token.stage(at(59)), FlightStage::Fresh);
        assert_eq!(token.stage(at(60)), FlightStage::Ageing);
        assert_eq!(token.stage(at(80)), FlightStage::Ageing);
        assert_eq!(token.stage(at(81)), FlightStage::Closing);
    }

    #[test]
    fn a_clock_set_back_ends_a_lease() {
        let now = at(0);
        let token = lease(900);
        assert_eq!(
            token.stage(now - Duration::from_secs(59)),
            FlightStage::Fresh
        );
        assert_eq!(
            token.stage(now - Duration::from_secs(61)),
            FlightStage::Over
        );
    }

    #[test]
    fn without_an_end_a_lease_stays_fresh() {
        let key = Expiring {
            value: (),
            made_at: at(0),
            until: None,
        };
        assert_eq!(key.stage(at(1_000_000_000)), FlightStage::Fresh);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_that_stands_for_a_while() {
        let second = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let hand = Arc::clone(&second);
        let set = |to| second.store(to, std::sync::atomic::Ordering::SeqCst);
        let clock: Clock = Arc::new(move || at(hand.load(std::sync::atomic::Ordering::SeqCst)));
        let kept: Refreshing<u8, String> = Refreshing::new(clock);
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let ask = async || {
            let made = kept.get(|| {
                attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                async { panic!("on purpose") }
            });
            assert_eq!(made.await.unwrap_err(), TaskStopped.to_string());
            attempts.load(std::sync::atomic::Ordering::SeqCst)
        };
        // Clients that ask continuously for a minute, and discard the value after each error.
        let mut seen = Vec::new();
        for now in 0..60 {
            set(now);
            for _ in 0..100 {
                kept.forget();
                seen.push(ask().await);
            }
        }
        assert_eq!(seen.last(), Some(&4), "at 0, 5, 15 and 35 s");
        set(75);
        let made = Expiring {
            value: 7,
            made_at: at(75),
            until: None,
        };
        let (lease, from_cache) = kept.get(|| async { Ok(made) }).await.unwrap();
        assert_eq!((lease.value, from_cache), (7, false));
        // It worked, so the next panic is the first one again.
        kept.forget();
        assert_eq!(ask().await, 5);
        set(80);
        assert_eq!(ask().await, 6);
        // A clock that is set back does not extend it either.
        set(20);
        assert_eq!(ask().await, 7);
    }

    #[tokio::test]
    async fn what_was_thrown_away_does_not_come_back() {
        let kept: Arc<Refreshing<u8, String>> = Arc::new(Refreshing::new(Arc::new(|| at(0))));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let slow = {
            let kept = kept.clone();
            tokio::spawn(async move {
                kept.get(|| async move {
                    wait.await.unwrap();
                    Ok(Expiring {
                        value: 1,
                        made_at: at(0),
                        until: None,
                    })
                })
                .await
            })
        };
        while !kept.is_alive() {
            tokio::task::yield_now().await;
        }
        kept.forget();
        go.send(()).unwrap();
        assert_eq!(slow.await.unwrap().unwrap().0.value, 1);
        assert!(!kept.is_alive());
        let fresh = Expiring {
            value: 2,
            made_at: at(0),
            until: None,
        };
        assert_eq!(kept.get(|| async { Ok(fresh) }).await.unwrap().0.value, 2);
    }

    impl From<TaskStopped> for String {
        fn from(stopped: TaskStopped) -> Self {
            stopped.to_string()
        }
    }
}
