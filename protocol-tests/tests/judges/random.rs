//! Randomness with a name.

use std::ops::Range;
use std::panic::{RefUnwindSafe, catch_unwind};

use bytes::Bytes;

/// splitmix64: a small generator with a one-word seed, so that a failing seed can be named.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True in `percent` of the cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Bytes {
        let mut out = Vec::with_capacity(len + 7);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out.into()
    }
}

/// Runs every seed of a range, or the one that `SIMULATION_SEED` names if it is in there. Says
/// which one failed. What the runs return is handed on when all of them have run.
pub(crate) fn for_each_seed<T>(
    seeds: Range<u64>,
    run: impl Fn(u64) -> T + RefUnwindSafe,
) -> Option<Vec<T>> {
    let only = std::env::var("SIMULATION_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("SIMULATION_SEED is a number"));
    let mut results = Vec::new();
    for seed in seeds.filter(|seed| only.is_none_or(|only| only == *seed)) {
        match catch_unwind(|| run(seed)) {
            Ok(result) => results.push(result),
            Err(_) => panic!("SIMULATION_SEED={seed} shows what is printed above"),
        }
    }
    only.is_none().then_some(results)
}
