//! A value that is made once, shared by all who ask, and renewed before it runs out.
//!
//! Both the AWS credentials and the login tokens are such values: making one may take seconds
//! (SSO, an external process) and must not be done once per connection.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tracing::Instrument;

use crate::base::background;
use crate::base::background::Stopped;

/// Where the time of day comes from. Validity is measured with the wall clock, because a laptop
/// that slept must see that its token has ended.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The clock of this machine.
pub(crate) fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// A value is renewed in the background when less than this is left, so that no connection waits
/// for it: 5 minutes is a third of a token's life, and ample for several attempts.
const RENEW_EARLY: Duration = Duration::from_secs(5 * 60);

/// With less than this left, the caller waits for the renewal: a login that starts now could
/// reach the server after the end. If the renewal fails, the old value is still tried.
const TOO_CLOSE: Duration = Duration::from_secs(30);

/// After a failed early renewal the next one waits this long; a broken SSO session must not cause
/// one attempt per connection while the old value is still good.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(15);

/// A value that seems to be made this far in the future was made before the clock was set back.
const CLOCK_JITTER: Duration = Duration::from_secs(60);

/// A value and how long it may be used.
#[derive(Clone, Debug)]
pub(crate) struct Lease<V> {
    pub(crate) value: V,
    pub(crate) made_at: SystemTime,
    /// `None` = for ever.
    pub(crate) until: Option<SystemTime>,
}

impl<V> Lease<V> {
    fn left(&self, now: SystemTime) -> Option<Duration> {
        match self.until {
            None => Some(Duration::MAX),
            Some(until) => until.duration_since(now).ok().filter(|d| !d.is_zero()),
        }
    }

    fn stage(&self, now: SystemTime) -> Stage {
        if self.made_at > now + CLOCK_JITTER {
            return Stage::Over;
        }
        let Some(left) = self.left(now) else {
            return Stage::Over;
        };
        let whole = self
            .until
            .and_then(|until| until.duration_since(self.made_at).ok())
            .unwrap_or(Duration::MAX);
        // Short leases (credentials that end soon) have short margins, or every use would renew.
        if left <= TOO_CLOSE.min(whole / 10) {
            Stage::Closing
        } else if left <= RENEW_EARLY.min(whole / 3) {
            Stage::Ageing
        } else {
            Stage::Fresh
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Fresh,
    Ageing,
    Closing,
    Over,
}

type Outcome<V, E> = Result<Lease<V>, E>;
type Flight<V, E> = Shared<BoxFuture<'static, Outcome<V, E>>>;

struct State<V, E> {
    kept: Option<Lease<V>>,
    running: Option<Flight<V, E>>,
    /// Raised by every `forget`, so that a flight which began before it cannot bring back what
    /// was thrown away.
    epoch: u64,
    not_before: Option<SystemTime>,
    /// The last attempt panicked: its error, when that was, and how long it answers instead of another
    /// attempt. `forget` does not touch it, as it is not about a value.
    panicked: Option<(Stopped, SystemTime, Duration)>,
}

/// See the module. `E` is shared among all who waited, hence `Clone`.
pub(crate) struct Kept<V, E> {
    clock: Clock,
    state: Arc<Mutex<State<V, E>>>,
}

impl<V, E> Kept<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: From<Stopped> + Clone + Send + Sync + 'static,
{
    pub(crate) fn new(clock: Clock) -> Self {
        let state = State {
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

    /// The kept value and `true`, or a new one and `false`.
    ///
    /// `make` is called only if no other call is making the value already; it runs in a task of
    /// its own. Cancel-safe: whoever stops waiting stops nobody else, and the result is kept.
    pub(crate) async fn get<F>(&self, make: impl FnOnce() -> F) -> Result<(Lease<V>, bool), E>
    where
        F: Future<Output = Outcome<V, E>> + Send + 'static,
    {
        let now = (self.clock)();
        let (flight, old) = {
            let mut state = lock(&self.state);
            let stage = state.kept.as_ref().map(|kept| kept.stage(now));
            match (stage, state.kept.clone()) {
                (Some(Stage::Fresh), Some(kept)) => return Ok((kept, true)),
                (Some(Stage::Ageing), Some(kept)) => {
                    if state.not_before.is_none_or(|then| then <= now) {
                        // It runs in a task of its own; nobody has to wait for it.
                        drop(self.join(&mut state, make));
                    }
                    return Ok((kept, true));
                }
                (Some(Stage::Closing), old) => (self.join(&mut state, make), old),
                _ => (self.join(&mut state, make), None),
            }
        };
        match (flight.await, old) {
            (Ok(lease), _) => Ok((lease, false)),
            (Err(_), Some(old)) if old.left((self.clock)()).is_some() => Ok((old, true)),
            (Err(error), _) => Err(error),
        }
    }

    /// Throws the kept value away if `is_it` says so; says whether it did.
    pub(crate) fn forget_if(&self, is_it: impl FnOnce(&V) -> bool) -> bool {
        let mut state = lock(&self.state);
        let found = state.kept.as_ref().is_some_and(|kept| is_it(&kept.value));
        if found {
            forget(&mut state);
        }
        found
    }

    /// Throws away what is kept and what is being made.
    pub(crate) fn forget(&self) {
        forget(&mut lock(&self.state));
    }

    /// Whether dropping this would lose anything.
    pub(crate) fn is_alive(&self) -> bool {
        let now = (self.clock)();
        let state = lock(&self.state);
        let kept = state.kept.as_ref();
        state.running.is_some() || kept.is_some_and(|kept| kept.stage(now) != Stage::Over)
    }

    /// Whether a value is being made at this moment.
    pub(crate) fn is_running(&self) -> bool {
        lock(&self.state).running.is_some()
    }

    fn join<F>(&self, state: &mut State<V, E>, make: impl FnOnce() -> F) -> Flight<V, E>
    where
        F: Future<Output = Outcome<V, E>> + Send + 'static,
    {
        if let Some(flight) = &state.running {
            return flight.clone();
        }
        let now = (self.clock)();
        if let Some((stopped, at, pause)) = state.panicked
            // A clock that was set back must not make it last.
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
        let flight = async move { task.await.unwrap_or_else(|_| Err(Stopped.into())) };
        let flight = flight.boxed().shared();
        state.running = Some(flight.clone());
        flight
    }
}

fn lock<V, E>(state: &Mutex<State<V, E>>) -> MutexGuard<'_, State<V, E>> {
    // Nothing is left half-done under the lock, so a panic elsewhere does not spoil it.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget<V, E>(state: &mut State<V, E>) {
    state.kept = None;
    state.running = None;
    state.not_before = None;
    state.epoch += 1;
}

/// Remembers a panic, or that there was none.
fn note_panic<V, E>(state: &Mutex<State<V, E>>, panicked: Option<Stopped>, now: SystemTime) {
    let mut state = lock(state);
    let last = state.panicked.map(|(_, _, pause)| pause);
    state.panicked = panicked.map(|stopped| (stopped, now, background::next_pause(last)));
}

fn land<V: Clone, E>(
    state: &Mutex<State<V, E>>,
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

    fn lease(whole: u64) -> Lease<()> {
        Lease {
            value: (),
            made_at: at(0),
            until: Some(at(whole)),
        }
    }

    #[test]
    fn stages_of_a_token() {
        let token = lease(900);
        for (second, stage) in [
            (0, Stage::Fresh),
            (599, Stage::Fresh),
            (600, Stage::Ageing),
            (869, Stage::Ageing),
            (870, Stage::Closing),
            (899, Stage::Closing),
            (900, Stage::Over),
            (90_000, Stage::Over),
        ] {
            assert_eq!(token.stage(at(second)), stage, "second {second}");
        }
    }

    #[test]
    fn short_leases_are_not_renewed_all_the_time() {
        let token = lease(90);
        assert_eq!(token.stage(at(59)), Stage::Fresh);
        assert_eq!(token.stage(at(60)), Stage::Ageing);
        assert_eq!(token.stage(at(80)), Stage::Ageing);
        assert_eq!(token.stage(at(81)), Stage::Closing);
    }

    #[test]
    fn a_clock_set_back_ends_a_lease() {
        let now = at(0);
        let token = lease(900);
        assert_eq!(token.stage(now - Duration::from_secs(59)), Stage::Fresh);
        assert_eq!(token.stage(now - Duration::from_secs(61)), Stage::Over);
    }

    #[test]
    fn without_an_end_a_lease_stays_fresh() {
        let key = Lease {
            value: (),
            made_at: at(0),
            until: None,
        };
        assert_eq!(key.stage(at(1_000_000_000)), Stage::Fresh);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_that_stands_for_a_while() {
        let second = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let hand = Arc::clone(&second);
        let set = |to| second.store(to, std::sync::atomic::Ordering::SeqCst);
        let clock: Clock = Arc::new(move || at(hand.load(std::sync::atomic::Ordering::SeqCst)));
        let kept: Kept<u8, String> = Kept::new(clock);
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let ask = async || {
            let made = kept.get(|| {
                attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                async { panic!("on purpose") }
            });
            assert_eq!(made.await.unwrap_err(), Stopped.to_string());
            attempts.load(std::sync::atomic::Ordering::SeqCst)
        };
        // Clients that ask all the time, for a minute; errors that lead to a fresh look as well.
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
        let made = Lease {
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
        // Nor does a clock that is set back make it last.
        set(20);
        assert_eq!(ask().await, 7);
    }

    #[tokio::test]
    async fn what_was_thrown_away_does_not_come_back() {
        let kept: Arc<Kept<u8, String>> = Arc::new(Kept::new(Arc::new(|| at(0))));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let slow = {
            let kept = kept.clone();
            tokio::spawn(async move {
                kept.get(|| async move {
                    wait.await.unwrap();
                    Ok(Lease {
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
        let fresh = Lease {
            value: 2,
            made_at: at(0),
            until: None,
        };
        assert_eq!(kept.get(|| async { Ok(fresh) }).await.unwrap().0.value, 2);
    }

    impl From<Stopped> for String {
        fn from(stopped: Stopped) -> Self {
            stopped.to_string()
        }
    }
}
