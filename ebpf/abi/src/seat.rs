//! Seats: places for what is known about something between two of its events, found by its address without a search.

/// What has a seat, and what is known about it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<V> {
    /// The address of whose it is; 0 if it is free.
    pub of: u64,
    /// What is known.
    pub value: V,
}

/// The seat of what is at an address, of 2^`bits`: what differs between addresses, spread by a multiplication.
#[inline(always)]
pub const fn seat(address: u64, bits: u32) -> u32 {
    // The golden ratio's digits spread numbers that differ in few bits (Knuth).
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - bits)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_sit_apart() {
        let mut seen = [false; 1 << 13];
        let taken_twice = (0..1_000_u64)
            .filter(|i| {
                let place = seat(0xffff_8881_0000_0000 + 320 * i, 13) as usize;
                core::mem::replace(&mut seen[place], true)
            })
            .count();
        // As many as chance would have it are 59.
        assert!(taken_twice < 60, "{taken_twice}");
    }
}
