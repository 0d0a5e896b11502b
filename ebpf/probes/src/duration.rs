//! What begins and ends in one thread, and the time in between.

use abi::{
    duration::{Begun, Cell, OCTAVE, entry},
    exponential,
    group::Group,
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, maps::HashMap};

use crate::{field::checked, group::Cells, task};

/// A clock that runs while the machine does, in ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Notes that the current thread begins something. False if there is no room for that.
#[inline(always)]
pub fn begin(in_flight: &HashMap<u64, Begun>, kind: u32, counted: bool) -> bool {
    let begun = Begun { nanos: now(), kind, counted: u32::from(counted) };
    in_flight.insert(&task::thread(), &begun, 0).is_ok()
}

/// What the current thread has begun, and for how many ns; it is in it no more.
#[inline(always)]
pub fn end(in_flight: &HashMap<u64, Begun>) -> Option<(Begun, u64)> {
    let thread = task::thread();
    // SAFETY: only this thread writes its entry; the value is copied at once.
    let begun = unsafe { *in_flight.get_ptr(&thread)? };
    let _ = in_flight.remove(&thread);
    Some((begun, now().saturating_sub(begun.nanos)))
}

/// Counts a duration. No two programs may count the same kind.
#[inline(always)]
pub fn count(cells: &Cells<Cell>, group: Group, kind: u32, nanos: u64) {
    // Not an `Option`: the compiler would copy its value where there is none, which the verifier refuses.
    let bucket = exponential::bucket_from_one(if nanos == 0 { 1 } else { nanos });
    let Some(cell) = cells.cell(group, entry(kind, bucket)) else { return };
    // SAFETY: the pointer is to this CPU's copy, which one program alone writes.
    let cell = unsafe { &mut *cell };
    cell.nanos += nanos;
    if nanos == 0 {
        cell.zeros += 1;
    } else if let Some(bucket) = checked::<OCTAVE>(bucket % OCTAVE) {
        cell.buckets[bucket] += 1;
    }
}
