//! Requests to block devices: how many, how large, how long they waited and how long they took.

use crate::{errno, exponential, group::Group};

/// What a request asks of the device, by the numbers of `enum req_op` (include/linux/blk_types.h), which
/// these have kept.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads data.
    Read,
    /// Writes data.
    Write,
    /// Makes what the device's own cache holds durable.
    Flush,
    /// Gives blocks back.
    Discard,
    /// Writes zeroes without their being sent.
    WriteZeroes,
    /// Zones, secure erasure, and commands of drivers.
    Other,
}

impl Operation {
    /// Every operation, in the order of the cells.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::WriteZeroes, Self::Other];

    /// By the flags of a request or a bio, whose low byte is the operation.
    #[inline(always)]
    pub const fn of(flags: u32) -> Self {
        match flags & 0xff {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Flush,
            3 => Self::Discard,
            9 => Self::WriteZeroes,
            _ => Self::Other,
        }
    }
}

/// Operations.
pub const OPERATIONS: u32 = Operation::ALL.len() as u32;
/// Devices that can be told apart: those of the map `DEVICES`, which has the number of each by its place.
/// Place 0 is for all others.
pub const DEVICES: u32 = 1024;
/// Places at which a device is looked for.
pub const PROBES: u32 = 8;

/// The place at which a device is looked for in the given try: never 0.
#[inline(always)]
pub const fn place(device: u32, tried: u32) -> u32 {
    // The golden ratio's digits spread numbers that differ in few bits (Knuth).
    let first = device.wrapping_mul(0x9e37_79b1) >> 16;
    1 + (first + tried) % (DEVICES - 1)
}

crate::shared! {
    /// The cell of a group, a device and an operation. One program alone writes each field.
    pub struct Counts {
        /// Requests that ended.
        pub operations: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Requests that the device was given, each time.
        pub issued: u64,
        /// Of these, those that ended.
        pub ended: u64,
        /// Of these, those that were taken back.
        pub returned: u64,
        /// Of these, those whose end was not seen: found out when the request's memory was given out again.
        pub lost_at_start: u64,
        /// As many, found out when it was issued.
        pub lost_at_issue: u64,
        /// Times that a request was put back into the queue.
        pub requeues: u64,
        /// Bios that joined a request at its end.
        pub merged_behind: u64,
        /// Bios that joined a request at its front.
        pub merged_before: u64,
        /// Requests that joined another.
        pub joined: u64,
    }
}

/// The entry of the counts.
#[inline(always)]
pub const fn counts(place: u32, operation: u32) -> u32 {
    place * OPERATIONS + operation
}

/// The entry of the requests that failed with an error.
#[inline(always)]
pub const fn failures(place: u32, operation: u32, error: u32) -> u32 {
    counts(place, operation) * errno::SLOTS + error
}

/// Buckets in a [`Times`]: those of one octave, from one power of two to the next.
pub const OCTAVE: usize = 1 << exponential::SCALE;
/// Octaves that cover every duration, rounded up.
pub const OCTAVES: usize = exponential::BUCKETS.div_ceil(OCTAVE);

crate::shared! {
    /// The requests whose time was of one octave.
    pub struct Times {
        /// Sum of the times in ns.
        pub nanos: u64,
        /// Times of zero.
        pub zeros: u64,
        /// Times by [`exponential::bucket`], less the octave's first.
        pub buckets: [u64; OCTAVE],
    }
}

/// Two times of a request.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until the device was given it.
    Queue,
    /// From then on; all of it, where the two are not told apart.
    Device,
}

/// The entry of the times of an octave.
#[inline(always)]
pub const fn times(place: u32, operation: u32, phase: Phase, octave: u32) -> u32 {
    (counts(place, operation) * 2 + phase as u32) * OCTAVES as u32 + octave
}

crate::shared! {
    /// A request. The kernel allocates requests once and uses them again, so that their addresses are few.
    pub struct Request {
        /// Whose it is.
        pub group: Group,
        /// When the kernel says that it began, which tells it from an earlier one at its address; 0 if it does
        /// not say.
        pub began: u64,
        /// Time that it has waited. Not beside `issued`: the compiler would call a function to write two zeros, see
        /// `ZEROS` of the programs' `group`.
        pub waited: u64,
        /// Since when it has waited.
        pub queued: u64,
        /// When the device was given it, or 1 if nobody wants to know when; 0 if the device does not have it.
        pub issued: u64,
        /// The device's place.
        pub place: u32,
        /// See [`Operation`].
        pub operation: u32,
        /// 1 if the scope contains it.
        pub counted: u32,
        /// 1 if it has ended.
        pub ended: u32,
    }
}

/// The binary logarithm of the entries of the map `SEATS`.
pub const SEATS_BITS: u32 = 13;

/// The entries of the map `OTHERS`: the seats that are taken, and requests without one.
pub const MAX_REQUESTS: u32 = 16_384;

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Requests that found no room in the map when they began.
        NoRoomAtStart,
        /// As many when they were issued.
        NoRoomAtIssue,
    }
}

/// The error number behind the status that a request ended with: before Linux 5.12 that is one already,
/// negative; since then a `blk_status_t`, of which the numbers up to 13 have kept their meaning
/// (`blk_errors` in block/blk-core.c).
#[inline(always)]
pub const fn error(status: i32) -> u32 {
    /// By status: EOPNOTSUPP, ETIMEDOUT, ENOSPC, ENOLINK, EREMOTEIO, EBADE, ENODATA, EILSEQ, ENOMEM, EIO,
    /// EREMCHG, EAGAIN, EBUSY, of eight bits each.
    const LOW: u64 = u64::from_le_bytes([0, 95, 110, 28, 67, 121, 52, 61]);
    const HIGH: u64 = u64::from_le_bytes([84, 12, 5, 78, 11, 16, 0, 0]);
    if status <= 0 {
        return errno::slot(status as i64);
    }
    // Shifts, and not a table: a table would be a map to look into.
    match status {
        1..8 => (LOW >> (8 * status) & 0xff) as u32,
        8..14 => (HIGH >> (8 * (status - 8)) & 0xff) as u32,
        _ => errno::OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_kernels_table() {
        let known = [0, 95, 110, 28, 67, 121, 52, 61, 84, 12, 5, 78, 11, 16];
        for (status, errno) in known.into_iter().enumerate() {
            assert_eq!(error(status as i32), errno);
        }
        assert_eq!(error(14), errno::OTHER);
        assert_eq!(error(255), errno::OTHER);
        assert_eq!(error(-5), 5);
        assert_eq!(error(-121), 121);
    }

    #[test]
    fn entries_are_apart() {
        let mut seen = [false; (2 * OPERATIONS * 2 * OCTAVES as u32) as usize];
        for place in 0..2 {
            for operation in Operation::ALL {
                for phase in [Phase::Queue, Phase::Device] {
                    for octave in 0..OCTAVES as u32 {
                        let entry = times(place, operation as u32, phase, octave) as usize;
                        assert!(!seen[entry]);
                        seen[entry] = true;
                    }
                }
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(failures(1, 0, 0), OPERATIONS * errno::SLOTS);
    }

    #[test]
    fn no_device_is_at_the_place_of_all_others() {
        for device in [0, 1, 7 << 20, 254 << 20, u32::MAX] {
            for tried in 0..PROBES {
                assert!((1..DEVICES).contains(&place(device, tried)));
            }
        }
    }

    #[test]
    fn operations_have_the_kernels_numbers() {
        assert_eq!(Operation::of(0x0008_0001), Operation::Write);
        assert_eq!(Operation::of(9), Operation::WriteZeroes);
        assert_eq!(Operation::of(34), Operation::Other);
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place);
        }
    }
}
