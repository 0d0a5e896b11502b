//! Which of the events in the scope are counted: all of them, unless a signal is sampled.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use crate::field::set;

#[unsafe(no_mangle)]
static SAMPLE_EVERY: u32 = 0;
#[unsafe(no_mangle)]
static SAMPLE_BELOW: u32 = 0;

/// Events since the last that was counted.
#[map]
static SAMPLE_PASSED: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Whether this event is one of those that are counted. To be asked once for each event.
#[inline(always)]
pub fn is_counted() -> bool {
    let (every, below) = (set(&SAMPLE_EVERY), set(&SAMPLE_BELOW));
    if below != 0 {
        // SAFETY: the helper has no preconditions.
        return unsafe { aya_ebpf::helpers::bpf_get_prandom_u32() } < below;
    }
    every == 0 || is_nth(every)
}

#[inline(always)]
fn is_nth(every: u32) -> bool {
    let Some(passed) = SAMPLE_PASSED.get_ptr_mut(0) else { return true };
    // SAFETY: the pointer is to this CPU's copy. Where a program interrupts another between the two lines, the
    // wrong one of two events is counted.
    let now = unsafe { *passed } + 1;
    let counted = now >= every;
    unsafe { *passed = if counted { 0 } else { now } };
    counted
}
