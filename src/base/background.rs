//! Results of work that runs in a task of its own.
//!
//! Callers wait for such work. If it panics, they must get an error and the same back-off as for
//! every other failure: without an error, waiting callers would start the task again at once.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::base::jitter::doubled;

/// Time for which the error of a panic answers later callers: initial and maximum value. It
/// doubles. A panic comes from the same input each time, so an immediate second attempt fails in
/// the same way.
pub(crate) const PANIC_STANDS: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(60));

/// The work ended without a result: it panicked, or its task was cancelled. The panic hook
/// ([`crate::base::crash`]) has logged the location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("internal error of pgiam; see internal.panic in the log")]
pub struct TaskStopped;

/// Runs `work` to its end and converts a panic to [`TaskStopped`].
pub(crate) async fn outcome<T>(work: impl Future<Output = T>) -> Result<T, TaskStopped> {
    // The work owns its state, or holds locks that tolerate a panic (see each `lock`).
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|_panic| TaskStopped)
}

/// Returns the lifetime of the next panic's error, after one that lasted `last`.
pub(crate) fn next_pause(last: Option<Duration>) -> Duration {
    doubled(last, PANIC_STANDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_outcome() {
        assert_eq!(outcome(async { 7 }).await, Ok(7));
        let panics = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert_eq!(outcome::<()>(panics).await, Err(TaskStopped));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut last = None;
        let pauses: Vec<u64> = std::iter::repeat_with(|| {
            let pause = next_pause(last);
            last = Some(pause);
            pause.as_secs()
        })
        .take(6)
        .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }
}
