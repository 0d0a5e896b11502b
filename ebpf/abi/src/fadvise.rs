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

/// The place of `POSIX_FADV_DONTNEED`.
pub const DONTNEED: u32 = 4;

crate::shared! {
    /// A call that a thread is in.
    pub struct Call {
        /// The advice.
        pub advice: u64,
        /// Bytes of the file that it is about.
        pub bytes: u64,
    }
}

/// The bytes of a file of `size` that advice about `length` bytes from `offset` on is about; 0 stands for all that
/// follow.
#[inline(always)]
pub const fn bytes(size: i64, offset: i64, length: i64) -> u64 {
    if offset < 0 || length < 0 || size <= offset {
        return 0;
    }
    let rest = size - offset;
    if length == 0 || rest < length { rest as u64 } else { length as u64 }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_ends_with_the_file() {
        assert_eq!(bytes(100, 0, 0), 100);
        assert_eq!(bytes(100, 30, 0), 70);
        assert_eq!(bytes(100, 30, 20), 20);
        assert_eq!(bytes(100, 30, i64::MAX), 70);
        assert_eq!(bytes(100, 100, 1), 0);
        assert_eq!(bytes(100, -1, 1), 0);
        assert_eq!(bytes(100, 0, -1), 0);
        assert_eq!(ADVICES[DONTNEED as usize], "dontneed");
    }
}
