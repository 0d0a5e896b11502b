//! Base-2 exponential histograms of durations, exactly as OTLP defines them.
//!
//! OTLP metrics data model, "ExponentialHistogram": at scale `s`, `base = 2^(2^-s)` and bucket `i`
//! holds `base^i < value <= base^(i+1)`. Durations are measured in nanoseconds but exported in
//! seconds, so the bounds lie at `1e9 * base^i` ns. No bound but the powers of two is a whole
//! number of nanoseconds, which makes the comparison with integers exact: see [`bucket`].

/// 8 buckets per power of two: a bucket's bounds lie 9 % apart.
pub const SCALE: i32 = 3;
/// The OTLP index of the first bucket: 1 ns lies in `(2^(-240/8), 2^(-239/8)]` seconds.
pub const OFFSET: i32 = -240;
/// Buckets that cover every non-zero `u64` of nanoseconds.
pub const BUCKETS: usize = 513;

/// The bounds `1e9 * 2^(k/8)`, scaled by a power of two into `[2^63, 2^64)`, rounded down, in
/// ascending order: `k` = 1 … 7, then 0, whose place in its octave is the last (1e9 > 1.75 * 2^29).
const BOUNDS: [u64; 8] = [
    0x81ff_a7a9_549c_a6e3,
    0x8dc3_b896_0164_a7d9,
    0x9a98_6705_4d51_2391,
    0xa896_5f74_bf06_5071,
    0xb7d8_8a12_d0dd_9ea0,
    0xc87c_3e7d_03cd_bec3,
    0xdaa1_7c2c_d195_55db,
    0xee6b_2800_0000_0000,
];

/// The bucket, counted from [`OFFSET`], of a duration of `nanos` nanoseconds; `None` for zero,
/// which OTLP counts apart.
///
/// In the octave `2^e <= nanos < 2^(e+1)` lie the eight bounds of index `8 * (e - 30) + 1` to `+ 8`.
/// The bucket's index is that of the greatest bound below the value. A bound is either irrational
/// or stored exactly, so comparing with its rounded-down form decides as the real number would.
#[inline(always)]
pub const fn bucket(nanos: u64) -> Option<usize> {
    if nanos == 0 { None } else { Some(bucket_from_one(nanos)) }
}

/// The same for a duration that is not zero.
///
/// A sixteenth of an octave holds one bound at most: a value is above those of the sixteenths before its own,
/// and is compared with the next one.
#[inline(always)]
pub const fn bucket_from_one(nanos: u64) -> usize {
    let exponent = exponent(nanos);
    let mantissa = nanos << (63 - exponent);
    let sixteenth = (mantissa >> 59) as usize & 15;
    let below = (BEFORE >> (4 * sixteenth)) as usize & 15;
    let below = below + (mantissa > NEXT[sixteenth]) as usize;
    // Whole octaves apart from what is left: programs use the rest as an index, and the verifier need not
    // follow the exponent to it.
    8 * (exponent as usize + (below >> 3)) + (below & 7)
}

/// The greatest power of two in a value that is not zero. The BPF target has no instruction for that, and what
/// the compiler does instead takes longer.
#[inline(always)]
const fn exponent(value: u64) -> u32 {
    let (mut rest, mut exponent, mut half) = (value, 0, 32);
    while half > 0 {
        if rest >> half != 0 {
            rest >>= half;
            exponent += half;
        }
        half /= 2;
    }
    exponent
}

/// The bounds before each sixteenth of an octave: four bits for each.
const BEFORE: u64 = {
    let (mut all, mut k) = (0, 0);
    while k < BOUNDS.len() {
        let mut sixteenth = (BOUNDS[k] >> 59) & 15;
        while sixteenth < 15 {
            sixteenth += 1;
            all += 1 << (4 * sixteenth);
        }
        k += 1;
    }
    all
};

/// The first bound that is not before a sixteenth; the last has none.
static NEXT: [u64; 16] = {
    let (mut next, mut sixteenth) = ([u64::MAX; 16], 0);
    while sixteenth < 16 {
        let before = (BEFORE >> (4 * sixteenth)) as usize & 15;
        if before < BOUNDS.len() {
            next[sixteenth] = BOUNDS[before];
        }
        sixteenth += 1;
    }
    next
};

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;

    /// `nanos <= 1e9 * 2^(index/8)`, decided by the eighth powers of both sides.
    fn at_most(nanos: u64, index: i32) -> bool {
        let value = BigUint::from(nanos).pow(8);
        let unit = BigUint::from(1_000_000_000_u64).pow(8);
        if index >= 0 {
            value <= unit << index.unsigned_abs()
        } else {
            value << index.unsigned_abs() <= unit
        }
    }

    /// The definition itself, in exact arithmetic.
    fn holds(nanos: u64) {
        let index = i32::try_from(bucket(nanos).expect("not zero")).expect("small") + OFFSET;
        assert!(!at_most(nanos, index), "{nanos} ns lies below bucket {index}");
        assert!(at_most(nanos, index + 1), "{nanos} ns lies above bucket {index}");
    }

    /// The greatest whole number of nanoseconds that is at most the bound.
    fn last_below(index: i32) -> Option<u64> {
        let (mut low, mut high) = (0_u64, u64::MAX);
        while low < high {
            let middle = low + (high - low) / 2 + 1;
            if at_most(middle, index) { low = middle } else { high = middle - 1 }
        }
        (low > 0).then_some(low)
    }

    #[test]
    fn every_bound_of_the_u64_range_is_exact() {
        for index in OFFSET..=OFFSET + BUCKETS as i32 {
            let Some(last) = last_below(index) else { continue };
            for nanos in [last - 1, last, last.saturating_add(1)] {
                if nanos > 0 {
                    holds(nanos);
                }
            }
        }
    }

    #[test]
    fn powers_of_two_of_a_second_end_their_bucket() {
        // 2^-9 s is 1,953,125 ns to the nanosecond; an upper bound belongs to its bucket.
        assert_eq!(bucket(1_953_125).map(|b| b as i32 + OFFSET), Some(-9 * 8 - 1));
        assert_eq!(bucket(1_953_126).map(|b| b as i32 + OFFSET), Some(-9 * 8));
        assert_eq!(bucket(1_000_000_000).map(|b| b as i32 + OFFSET), Some(-1));
        assert_eq!(bucket(1_000_000_001).map(|b| b as i32 + OFFSET), Some(0));
    }

    #[test]
    fn the_whole_range_has_a_bucket() {
        assert_eq!(bucket(0), None);
        assert_eq!(bucket(1), Some(0));
        assert_eq!(bucket(u64::MAX), Some(BUCKETS - 1));
        for shift in 0..64 {
            for nanos in [1_u64 << shift, (1_u64 << shift) - 1, (1_u64 << shift) + 1] {
                if nanos > 0 {
                    holds(nanos);
                }
            }
        }
    }
}
