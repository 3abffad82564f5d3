//! Pauses between attempts: growth, and random jitter so that programs do not retry together.

use std::time::Duration;

use uuid::Uuid;

/// Returns a random duration between half and all of `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a random fraction needs no more"
    )]
    let fraction = (random >> 11) as f64 / (1_u64 << 53) as f64;
    most.mul_f64(0.5 + fraction / 2.0)
}

/// Returns the pause after one of `last`: the first one, then twice the last one, up to the
/// longest.
pub(crate) fn doubled(last: Option<Duration>, (first, longest): (Duration, Duration)) -> Duration {
    last.map_or(first, |last| (last * 2).min(longest))
}
