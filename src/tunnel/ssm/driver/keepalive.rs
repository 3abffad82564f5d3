//! Monitors the path to the service: decides when to ping, and when silence means that the path is
//! dead.
//!
//! A path that dies silently is detected within [`PING_INTERVAL`] + [`PONG_DEADLINE`] = 28 s, one
//! with outstanding acknowledgements within [`OVERDUE`] + [`PONG_DEADLINE`] = 13 s, and one that
//! did not survive a suspend of the machine within [`TICK`] + [`WAKE_DEADLINE`] = 5 s.
//!
//! The service answers pings by itself. So pongs without acknowledgements mean that the path works
//! but the agent at its end has died, and the service has not noticed.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::base::single_flight::Clock;

/// Interval of pings on a quiet path. The agent pings every 54 s; a client should every 20–30 s.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Silence that leads to a ping when acknowledgements are due: the agent acknowledges at once.
const OVERDUE: Duration = Duration::from_secs(5);
/// Silence after a ping that means a dead path.
const PONG_DEADLINE: Duration = Duration::from_secs(8);
/// Silence after a ping that means a dead path after a suspend, when the path is probably gone.
const WAKE_DEADLINE: Duration = Duration::from_secs(3);
/// Interval of comparing the two clocks. A suspend stops the monotonic one, and with it timers.
const TICK: Duration = Duration::from_secs(2);
/// Advance of the wall clock over the monotonic one that means a suspend. (Setting the clock has
/// the same effect, which costs one ping.)
const SUSPENDED: Duration = Duration::from_secs(5);

/// Action on the silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepaliveAction {
    /// No action yet.
    Wait,
    /// Send a ping.
    Ping,
    /// Send a ping: the machine has slept for this long.
    Woken(Duration),
    /// The path is dead: no message arrived for this long.
    Dead(Duration),
    /// The path is alive, and the agent has owed an answer for this long. Repeated from time to
    /// time while that lasts.
    AgentSilent(Duration),
}

/// Signs of life of one path.
pub(super) struct Keepalive {
    wall: Clock,
    heard: Instant,
    /// The outstanding ping: when it left, and the timeout of its answer.
    ping: Option<(Instant, Duration)>,
    /// Both clocks at the last comparison.
    compared: (Instant, SystemTime),
    /// Silence that leads to a ping when acknowledgements are due.
    overdue: Duration,
    /// Time since which the agent has owed an answer in silence.
    owes: Option<Instant>,
    /// The agent's silence is not reported again before this.
    told_until: Option<Instant>,
}

impl Keepalive {
    /// Creates the pulse of a new path. An agent may be silent for `patience` when it owes an
    /// answer, but for [`OVERDUE`] at most.
    pub(super) fn new(wall: Clock, patience: Duration) -> Self {
        let now = Instant::now();
        let compared = (now, wall());
        Self {
            wall,
            heard: now,
            ping: None,
            compared,
            overdue: OVERDUE.min(patience),
            owes: None,
            told_until: None,
        }
    }

    /// Returns the pulse of the connection that replaces this one.
    pub(super) fn renewed(&self) -> Self {
        Self::new(Clock::clone(&self.wall), self.overdue)
    }

    /// Records any input.
    pub(super) fn note_input(&mut self) {
        self.heard = Instant::now();
        self.ping = None;
    }

    /// Records input of the agent, or that none is expected.
    pub(super) fn heard_agent(&mut self) {
        (self.owes, self.told_until) = (None, None);
    }

    /// Returns the time of the next [`Keepalive::check`]. `unacked`: acknowledgements are due.
    pub(super) fn deadline(&mut self, unacked: bool) -> Instant {
        let now = Instant::now();
        if unacked {
            self.owes.get_or_insert(now);
        } else {
            self.heard_agent();
        }
        if self.agent_silence(now).is_some() {
            return self.heard; // At once, for either clock reading.
        }
        let tick = self.compared.0 + TICK;
        let silence = match self.ping {
            Some((sent, patience)) => sent + patience,
            None => self.heard + self.pause(unacked),
        };
        tick.min(silence)
    }

    /// Returns the silence after which to ping.
    fn pause(&self, unacked: bool) -> Duration {
        if unacked { self.overdue } else { PING_INTERVAL }
    }

    /// Returns the duration of the agent's silence, if it is too long, the path has since proved
    /// alive, and the silence was not reported just now.
    fn agent_silence(&self, now: Instant) -> Option<Duration> {
        let since = self.owes?;
        let silent = self.heard >= since + self.overdue;
        let told = self.told_until.is_some_and(|until| now < until);
        (silent && !told).then(|| now - since)
    }

    /// Compares the clocks and decides on the silence.
    pub(super) fn check(&mut self, unacked: bool) -> KeepaliveAction {
        let (now, wall) = (Instant::now(), (self.wall)());
        let (then, wall_then) = std::mem::replace(&mut self.compared, (now, wall));
        let passed = wall.duration_since(wall_then).unwrap_or_default();
        let slept = passed.saturating_sub(now - then);
        if slept > SUSPENDED {
            self.ping = Some((now, WAKE_DEADLINE));
            return KeepaliveAction::Woken(slept);
        }
        if let Some(silence) = self.agent_silence(now).filter(|_| unacked) {
            self.told_until = Some(now + self.overdue);
            return KeepaliveAction::AgentSilent(silence);
        }
        match self.ping {
            Some((sent, patience)) if now >= sent + patience => {
                KeepaliveAction::Dead(now - self.heard)
            }
            Some(_) => KeepaliveAction::Wait,
            None if now < self.heard + self.pause(unacked) => KeepaliveAction::Wait,
            None => {
                self.ping = Some((now, PONG_DEADLINE));
                KeepaliveAction::Ping
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::time::advance;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Returns a pulse with a wall clock that follows the paused one, plus an offset set by the
    /// test.
    fn pulse() -> (Keepalive, Arc<AtomicU64>) {
        let (zero, slept) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let extra = slept.clone();
        let wall = move || {
            SystemTime::UNIX_EPOCH + zero.elapsed() + seconds(extra.load(Ordering::Relaxed))
        };
        (Keepalive::new(Arc::new(wall), seconds(10)), slept)
    }

    /// Advances time in ticks until an action is due; returns it, and the time passed.
    async fn next(pulse: &mut Keepalive, unacked: bool) -> (KeepaliveAction, Duration) {
        let began = Instant::now();
        loop {
            let deadline = pulse.deadline(unacked);
            assert!(deadline > Instant::now(), "a deadline in the past spins");
            advance(deadline - Instant::now()).await;
            match pulse.check(unacked) {
                KeepaliveAction::Wait => {}
                verdict => return (verdict, began.elapsed()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_path_is_pinged_and_then_dead_within_30_s() {
        let (mut pulse, _) = pulse();
        assert_eq!(
            next(&mut pulse, false).await,
            (KeepaliveAction::Ping, seconds(20))
        );
        let dead = (KeepaliveAction::Dead(seconds(28)), seconds(8));
        assert_eq!(next(&mut pulse, false).await, dead);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_starts_it_all_again() {
        let (mut pulse, _) = pulse();
        next(&mut pulse, false).await;
        advance(seconds(1)).await;
        pulse.note_input();
        assert_eq!(
            next(&mut pulse, false).await,
            (KeepaliveAction::Ping, seconds(20))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn missing_acknowledgements_are_asked_about_sooner() {
        let (mut pulse, _) = pulse();
        assert_eq!(
            next(&mut pulse, true).await,
            (KeepaliveAction::Ping, seconds(5))
        );
        let dead = (KeepaliveAction::Dead(seconds(13)), seconds(8));
        assert_eq!(next(&mut pulse, true).await, dead);
    }

    #[tokio::test(start_paused = true)]
    async fn pongs_without_acknowledgements_mean_the_agent() {
        let (mut pulse, _) = pulse();
        pulse.deadline(true);
        let mut told = Vec::new();
        let began = Instant::now();
        while began.elapsed() < seconds(22) {
            let deadline = pulse.deadline(true);
            advance(deadline.saturating_duration_since(Instant::now())).await;
            match pulse.check(true) {
                // The service answers at once.
                KeepaliveAction::Ping => pulse.note_input(),
                KeepaliveAction::AgentSilent(silence) => told.push(silence.as_secs()),
                KeepaliveAction::Wait => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, [5, 10, 15, 20]);
        // Input of the agent starts the time again.
        pulse.note_input();
        pulse.heard_agent();
        assert_eq!(
            next(&mut pulse, true).await,
            (KeepaliveAction::Ping, seconds(5))
        );
        pulse.note_input();
        assert_eq!(pulse.check(true), KeepaliveAction::AgentSilent(seconds(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_owes_nothing_may_be_silent_for_ever() {
        let (mut pulse, _) = pulse();
        for _ in 0..50 {
            assert_eq!(
                next(&mut pulse, false).await,
                (KeepaliveAction::Ping, seconds(20))
            );
            pulse.note_input();
        }
        // An answer is due from now on.
        assert_eq!(
            next(&mut pulse, true).await,
            (KeepaliveAction::Ping, seconds(5))
        );
        // Without a pong the path is dead.
        let dead = (KeepaliveAction::Dead(seconds(13)), seconds(8));
        assert_eq!(next(&mut pulse, true).await, dead);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_suspend_the_path_is_probed_at_once() {
        let (mut pulse, slept) = pulse();
        advance(seconds(1)).await;
        slept.store(3600, Ordering::Relaxed);
        let woken = (KeepaliveAction::Woken(seconds(3600)), seconds(1));
        assert_eq!(next(&mut pulse, false).await, woken);
        let dead = (KeepaliveAction::Dead(seconds(5)), seconds(3));
        assert_eq!(next(&mut pulse, false).await, dead);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_is_no_suspend() {
        let (mut pulse, slept) = pulse();
        slept.store(3600, Ordering::Relaxed);
        next(&mut pulse, false).await;
        pulse.note_input();
        slept.store(0, Ordering::Relaxed);
        assert_eq!(
            next(&mut pulse, false).await,
            (KeepaliveAction::Ping, seconds(20))
        );
    }
}
