//! Whether the current task belongs to the scope.

use abi::scope::{Cgroup, MAX_CGROUPS};
use aya_ebpf::helpers::bpf_get_current_ancestor_cgroup_id;

use crate::field::set;

#[unsafe(no_mangle)]
static SCOPE_CGROUPS: [Cgroup; MAX_CGROUPS] = [Cgroup::NONE; MAX_CGROUPS];
#[unsafe(no_mangle)]
static SCOPE_CGROUP_COUNT: u32 = 0;

/// Whether the current task is counted.
#[inline(always)]
pub fn contains_current() -> bool {
    let count = set(&SCOPE_CGROUP_COUNT) as usize;
    if count == 0 {
        return true;
    }
    let mut i = 0;
    while i < MAX_CGROUPS {
        if i >= count {
            return false;
        }
        let Cgroup { id, level, .. } = set(&SCOPE_CGROUPS[i]);
        // SAFETY: the helper has no preconditions; it returns 0 for a level below the task's own.
        if unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } == id {
            return true;
        }
        i += 1;
    }
    false
}
