//! Sizes that differ from run to run, so that no number can be hard-coded anywhere.

use std::env;

use fastrand::Rng;

/// A generator whose seed is printed; `FATHOM_TEST_SEED` repeats a run.
pub fn rng() -> Rng {
    let seed = env::var("FATHOM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("FATHOM_TEST_SEED={seed}");
    Rng::with_seed(seed)
}
