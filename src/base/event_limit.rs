//! Rate limits for log lines that other parties can cause.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Passes a number of events in each window of time, and counts the others.
#[derive(Debug)]
pub(crate) struct EventLimiter {
    most: u32,
    window: Duration,
    state: Mutex<WindowState>,
}

#[derive(Debug)]
struct WindowState {
    since: Instant,
    through: u32,
    held: u64,
}

/// Decision about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventDecision {
    /// The event passes.
    Through {
        /// Number of suppressed events before it that are not reported yet.
        held: u64,
    },
    /// The first suppressed event of the window.
    First,
    /// Suppressed, like the event before it.
    Held,
}

impl EventLimiter {
    /// Creates a limit of `most` events per `window`.
    pub(crate) fn new(most: u32, window: Duration) -> Self {
        let state = Mutex::new(WindowState {
            since: Instant::now(),
            through: 0,
            held: 0,
        });
        Self {
            most,
            window,
            state,
        }
    }

    /// Counts an event and returns the decision.
    pub(crate) fn next(&self) -> EventDecision {
        self.next_if(true)
    }

    /// Counts an event; without a `place` it is suppressed.
    pub(crate) fn next_if(&self, place: bool) -> EventDecision {
        // Counters: a panic cannot leave them inconsistent.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = 0;
        if state.since.elapsed() >= self.window {
            held = state.held;
            *state = WindowState {
                since: Instant::now(),
                through: 0,
                held: 0,
            };
        }
        if place && state.through < self.most {
            state.through += 1;
            return EventDecision::Through { held };
        }
        state.held += 1 + held;
        if state.held == 1 {
            EventDecision::First
        } else {
            EventDecision::Held
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_beyond_the_bound_are_held_back_and_counted() {
        let second = Duration::from_secs(1);
        let flood = EventLimiter::new(2, second);
        let through = |held| EventDecision::Through { held };
        for expected in [
            through(0),
            through(0),
            EventDecision::First,
            EventDecision::Held,
            EventDecision::Held,
        ] {
            assert_eq!(flood.next(), expected);
        }
        tokio::time::advance(second).await;
        for expected in [through(3), through(0), EventDecision::First] {
            assert_eq!(flood.next(), expected);
        }
        tokio::time::advance(5 * second).await;
        assert_eq!(flood.next(), through(1));
        tokio::time::advance(second).await;
        assert_eq!(flood.next(), through(0), "it is counted once");
        assert_eq!(flood.next_if(false), EventDecision::First);
        tokio::time::advance(second).await;
        assert_eq!(flood.next_if(false), EventDecision::Held);
        tokio::time::advance(second).await;
        assert_eq!(flood.next(), through(2), "none is lost");
    }
}
