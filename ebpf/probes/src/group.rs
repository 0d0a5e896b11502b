//! What an event is counted for, and the cell that it is counted in.

use abi::{
    Plain,
    group::{CGROUP, Group, HOST, Key, PROCESS},
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{PerCpuArray, PerCpuHashMap},
};

use crate::{
    cgroup::{self, Cgroup},
    field::{Address, set},
    scope, task,
};

#[unsafe(no_mangle)]
static GROUP_BY: u32 = HOST;
#[unsafe(no_mangle)]
static PAGES_HAVE_OWNERS: u32 = 0;

/// The group of the current task.
#[inline(always)]
pub fn current() -> Group {
    match set(&GROUP_BY) {
        CGROUP => Group { id: cgroup::current(), start: 0 },
        PROCESS => task::process(),
        _ => Group::HOST,
    }
}

/// The current task's group, if the scope contains the task.
#[inline(always)]
pub fn in_scope() -> Option<Group> {
    if scope::contains_current() { Some(current()) } else { None }
}

/// The group to which something that happens to a page belongs, if the scope contains it: that of
/// the page's owner where user space says that owners can be known and are wanted, otherwise that of
/// the current task.
#[inline(always)]
pub fn of_page(page: Address) -> Option<Group> {
    if set(&PAGES_HAVE_OWNERS) == 0 {
        return in_scope();
    }
    let owner = Cgroup::owner(page);
    if !scope::contains_owner(owner) {
        return None;
    }
    match (set(&GROUP_BY), owner) {
        (CGROUP, Some(owner)) => Some(owner.group()),
        // Memory that is charged to nobody is the root's.
        (CGROUP, None) => Some(Group { id: 1, start: 0 }),
        _ => Some(Group::HOST),
    }
}

/// This CPU's copy of a cell.
///
/// If the group has no place and gets none, because the hash is full or no memory could be had at
/// once, that is the cell of the overflow group, which is in the array.
#[inline(always)]
pub fn cell<V: Plain>(
    all: &PerCpuArray<V>,
    by_group: &PerCpuHashMap<Key, V>,
    group: Group,
    entry: u32,
) -> Option<*mut V> {
    if set(&GROUP_BY) == HOST {
        return all.get_ptr_mut(entry);
    }
    let key = Key { group, entry, pad: 0 };
    if let Some(cell) = by_group.get_ptr_mut(&key) {
        return Some(cell);
    }
    // SAFETY: plain types may be all zeros.
    let zero: V = unsafe { core::mem::zeroed() };
    // Another program, or another CPU, may have been first: then this changes nothing.
    let _ = by_group.insert(&key, &zero, u64::from(BPF_NOEXIST));
    match by_group.get_ptr_mut(&key) {
        Some(cell) => Some(cell),
        None => all.get_ptr_mut(entry),
    }
}

/// Declares the two maps of a signal's cells: `NAME` for the host and for the overflow,
/// `NAME_BY_GROUP` for the groups. User space sets how many groups there is room for.
#[macro_export]
macro_rules! cells {
    ($(#[$doc:meta])* $all:ident, $by_group:ident: [$cell:ty; $entries:expr]) => {
        $(#[$doc])*
        #[aya_ebpf::macros::map]
        static $all: aya_ebpf::maps::PerCpuArray<$cell> =
            aya_ebpf::maps::PerCpuArray::with_max_entries($entries, 0);
        #[doc = "The same by group."]
        #[aya_ebpf::macros::map]
        static $by_group: aya_ebpf::maps::PerCpuHashMap<abi::group::Key, $cell> =
            aya_ebpf::maps::PerCpuHashMap::with_max_entries(
                abi::group::DEFAULT_GROUPS,
                $crate::NO_PREALLOC,
            );
    };
}
