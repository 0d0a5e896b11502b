//! Calls of `fadvise64`, by advice and result.

use crate::errno;

/// The advices of `posix_fadvise(2)`, by their number (include/uapi/linux/fadvise.h; s390 differs).
pub const ADVICES: [&str; 6] =
    ["normal", "random", "sequential", "willneed", "dontneed", "noreuse"];
/// Where calls with an advice that does not exist are counted.
pub const INVALID: u32 = ADVICES.len() as u32;

/// Cells of a group: a `u64` per advice and result.
pub const SLOTS: u32 = (INVALID + 1) * errno::SLOTS;

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Calls lost because the map of threads inside a call was full.
        InFlightFull,
        /// Returns from a call that the kernel did not report.
        ReturnsMissed,
    }
}

/// Threads that can be inside the call at once by a mechanism of two programs.
pub const MAX_THREADS: u32 = 8_192;

/// The entry for a call with `advice` that returned `ret`.
#[inline(always)]
pub const fn slot(advice: u64, ret: i64) -> u32 {
    // The kernel reads the argument as an `int`.
    let advice = advice as u32;
    let advice = if advice < INVALID { advice } else { INVALID };
    advice * errno::SLOTS + errno::slot(ret)
}
