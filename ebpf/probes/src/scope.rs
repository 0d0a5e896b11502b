//! Whether the current task, or the owner of a page, belongs to the scope.

use abi::{
    group::Group,
    scope::{
        ANY_LEVEL, BY_ID, BY_PATTERN, Cgroup as Subtree, Found, MAX_CGROUPS, MAX_LEVELS, MAX_NAMES,
        MAX_NAMESPACES, MAX_PROCESSES, NANOS_PER_TICK, Name,
    },
};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};

use crate::{
    NO_PREALLOC,
    cgroup::{self, Cgroup},
    field::{Memory, set},
    sample, task,
};

crate::fields! {
    OFFSET_TASK_STRUCT_NSPROXY,
    OFFSET_NSPROXY_MNT_NS,
    OFFSET_MNT_NAMESPACE_NS_INUM,
}

#[unsafe(no_mangle)]
static SCOPE_CGROUP_COUNT: u32 = 0;
#[unsafe(no_mangle)]
static SCOPE_NAMESPACES: [u32; MAX_NAMESPACES] = [0; MAX_NAMESPACES];
#[unsafe(no_mangle)]
static SCOPE_NAMESPACE_COUNT: u32 = 0;
#[unsafe(no_mangle)]
static SCOPE_NAMES: [Name; MAX_NAMES] = [Name::NONE; MAX_NAMES];
#[unsafe(no_mangle)]
static SCOPE_NAME_COUNT: u32 = 0;
#[unsafe(no_mangle)]
static SCOPE_PROCESSES_USED: u32 = 0;

#[map]
static SCOPE_CGROUPS: Array<Subtree> = Array::with_max_entries(MAX_CGROUPS as u32, 0);

#[map]
static SCOPE_PROCESSES: HashMap<u64, Found> = HashMap::with_max_entries(MAX_PROCESSES, NO_PREALLOC);

/// Whether what the current task does is counted: everything that is configured must hold, and if the signal is
/// sampled, the event must be one of those that are. So it is asked once for each event.
#[inline(always)]
pub fn contains_current() -> bool {
    contains_current_of(0)
}

/// The same where the id of the task's cgroup is known, which often is the one that is asked for; 0 if it is not known.
#[inline(always)]
pub fn contains_current_of(cgroup: u64) -> bool {
    in_subtree(cgroup, |level| cgroup::current_ancestor(level))
        && in_namespace()
        && is_process()
        && sample::is_counted()
}

/// Whether every task is counted.
#[inline(always)]
pub fn is_everything() -> bool {
    set(&SCOPE_CGROUP_COUNT) == 0
        && set(&SCOPE_NAMESPACE_COUNT) == 0
        && set(&SCOPE_NAME_COUNT) == 0
        && set(&SCOPE_PROCESSES_USED) == 0
}

/// Whether what happens to a page of `owner` is counted. Of the scope, only its cgroups can be asked
/// about a page: user space sets no other criterion where owners are used. The owner's group is known.
#[inline(always)]
pub fn contains_owner(owner: Option<Cgroup>, group: Group) -> bool {
    let own = if owner.is_some() { group.id } else { 0 };
    in_subtree(own, |level| match owner {
        Some(cgroup) => cgroup.ancestor(level),
        None => 0,
    }) && sample::is_counted()
}

#[inline(always)]
fn in_subtree(own: u64, ancestor: impl Fn(u32) -> u64) -> bool {
    let count = set(&SCOPE_CGROUP_COUNT);
    if count == 0 {
        return true;
    }
    let mut i = 0;
    while i < MAX_CGROUPS as u32 {
        if i >= count {
            return false;
        }
        let Some(subtree) = SCOPE_CGROUPS.get(i) else { return false };
        // They are packed: after the first unused place there is none.
        if subtree.id == 0 {
            return false;
        }
        if subtree.id == own || is_below(*subtree, &ancestor) {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
fn is_below(subtree: Subtree, ancestor: &impl Fn(u32) -> u64) -> bool {
    if subtree.level != ANY_LEVEL {
        return ancestor(subtree.level) == subtree.id;
    }
    let mut level = 0;
    while level < MAX_LEVELS {
        let id = ancestor(level);
        if id == subtree.id {
            return true;
        }
        if id == 0 {
            return false;
        }
        level += 1;
    }
    false
}

#[inline(always)]
fn in_namespace() -> bool {
    let count = set(&SCOPE_NAMESPACE_COUNT) as usize;
    if count == 0 {
        return true;
    }
    // A task that is exiting has none any more, and kernel threads have that of init.
    let inode: u32 = task::current()
        .follow(&OFFSET_TASK_STRUCT_NSPROXY)
        .follow(&OFFSET_NSPROXY_MNT_NS)
        .read(&OFFSET_MNT_NAMESPACE_NS_INUM);
    let mut i = 0;
    while i < MAX_NAMESPACES {
        if i >= count {
            return false;
        }
        if set(&SCOPE_NAMESPACES[i]) == inode {
            return true;
        }
        i += 1;
    }
    false
}

/// By the processes that are named, and by name: what is not configured always holds.
#[inline(always)]
fn is_process() -> bool {
    let used = set(&SCOPE_PROCESSES_USED);
    let names = set(&SCOPE_NAME_COUNT) as usize;
    if used == 0 && names == 0 {
        return true;
    }
    let found = if used == 0 { 0 } else { criteria() };
    (used & BY_ID == 0 || found & BY_ID != 0)
        && ((used & BY_PATTERN == 0 && names == 0) || found & BY_PATTERN != 0 || has_name(names))
}

/// Which criteria user space has found the current process to meet.
#[inline(always)]
fn criteria() -> u32 {
    let process = task::process();
    // SAFETY: the value is copied at once; a change of it in between is as good as one before.
    match unsafe { SCOPE_PROCESSES.get(&process.id) }.copied() {
        Some(found) if process.start / NANOS_PER_TICK == found.start_ticks => found.criteria,
        _ => 0,
    }
}

#[inline(always)]
fn has_name(names: usize) -> bool {
    if names == 0 {
        return false;
    }
    let name = task::process_name();
    let mut i = 0;
    while i < MAX_NAMES {
        if i >= names {
            return false;
        }
        if set(&SCOPE_NAMES[i]).fits(name) {
            return true;
        }
        i += 1;
    }
    false
}
