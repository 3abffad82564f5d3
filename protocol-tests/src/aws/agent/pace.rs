//! The pause between two messages that gives the real agent its speed.

use std::time::{Duration, Instant};

/// Keeps two messages of one session at least a pace apart.
///
/// The real agent's loop reads what there is, up to 1,024 bytes, sends it and sleeps. So the first
/// message after a silence goes out at once, and a run of messages has their due times a pace apart.
/// Waking up late is made up for within such a run, by [`CREDIT`] at most and never beyond it, so
/// that no run is faster than the real agent's.
pub(super) struct Pacer {
    due: Instant,
    timer: Timer,
}

/// Paces that a run may be behind its due times and still catch up: a busy machine is late by some
/// milliseconds now and then, which is not what is to be measured.
const CREDIT: u32 = 4;

impl Pacer {
    pub(super) fn new() -> Self {
        Self {
            due: Instant::now(),
            timer: Timer::new(),
        }
    }

    /// Waits until a message may follow the one just sent. `idle` says that the sender had to wait
    /// for its data, which puts the message before at the begin of a run.
    pub(super) async fn pause(&mut self, pace: Duration, idle: bool) {
        let now = Instant::now();
        let last = if idle {
            now
        } else {
            self.due.max(now - pace * CREDIT)
        };
        self.due = last + pace;
        self.timer.wait_until(self.due).await;
    }
}

/// The kernel's own timer where there is one: tokio's has a grain of a millisecond, which is
/// most of a pace.
#[cfg(target_os = "linux")]
struct Timer(Option<KernelTimer>);

#[cfg(target_os = "linux")]
struct KernelTimer {
    set: nix::sys::timerfd::TimerFd,
    /// The same timer as something to read from: eight bytes when it has expired.
    expired: tokio::net::unix::pipe::Receiver,
}

#[cfg(target_os = "linux")]
impl KernelTimer {
    fn new() -> Option<Self> {
        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
        use std::os::fd::AsFd as _;
        use tokio::net::unix::pipe::Receiver;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let set = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok()?;
        let expired = set.as_fd().try_clone_to_owned().ok()?;
        let expired = Receiver::from_owned_fd_unchecked(expired).ok()?;
        Some(Self { set, expired })
    }

    /// False when the kernel does not play along.
    async fn wait(&self, left: Duration) -> bool {
        use nix::sys::time::TimeSpec;
        use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        if self.set.set(once, TimerSetTimeFlags::empty()).is_err() {
            return false;
        }
        loop {
            if self.expired.readable().await.is_err() {
                return false;
            }
            match self.expired.try_read(&mut [0; 8]) {
                Ok(_) => return true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }
}

#[cfg(target_os = "linux")]
impl Timer {
    fn new() -> Self {
        Self(KernelTimer::new())
    }

    async fn wait_until(&mut self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if let Some(timer) = &self.0
            && timer.wait(left).await
        {
            return;
        }
        tokio::time::sleep_until(due.into()).await;
    }
}

#[cfg(not(target_os = "linux"))]
struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> Self {
        Self
    }

    async fn wait_until(&mut self, due: Instant) {
        tokio::time::sleep_until(due.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_millis(2);

    #[tokio::test]
    async fn a_run_keeps_the_pace_and_never_beats_it() {
        let mut pacer = Pacer::new();
        let begin = Instant::now();
        let runs = 50;
        for n in 0..runs {
            pacer.pause(PACE, n == 0).await;
            assert!(begin.elapsed() >= PACE * (n + 1), "message {n} came early");
        }
    }

    #[tokio::test]
    async fn silence_is_not_saved_up() {
        let mut pacer = Pacer::new();
        pacer.pause(PACE, true).await;
        tokio::time::sleep(10 * PACE).await;
        let begin = Instant::now();
        pacer.pause(PACE, true).await;
        assert!(begin.elapsed() >= PACE);
        // A sender that is itself slow gets its credit and no more.
        std::thread::sleep(10 * PACE);
        let begin = Instant::now();
        for _ in 0..=CREDIT {
            pacer.pause(PACE, false).await;
        }
        assert!(begin.elapsed() >= PACE);
    }
}
