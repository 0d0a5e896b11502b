//! Cgroups of the version 2 hierarchy: the current task's, and that of a page's owner.

use abi::group::Group;
use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};

use crate::{
    field::{Address, Memory, present, probe_at, set},
    task,
};

crate::fields! {
    OFFSET_TASK_STRUCT_CGROUPS,
    OFFSET_CSS_SET_DFL_CGRP,
    OFFSET_CGROUP_LEVEL,
    OFFSET_CGROUP_ANCESTOR_IDS,
    OFFSET_CGROUP_ANCESTORS,
    OFFSET_CGROUP_KN,
    OFFSET_KERNFS_NODE_ID,
    OFFSET_MEM_CGROUP_CSS_CGROUP,
    OFFSET_PAGE_MEM_CGROUP,
    OFFSET_FOLIO_MEMCG_DATA,
    OFFSET_OBJ_CGROUP_MEMCG,
    OFFSET_OBJ_CGROUP_IS_ROOT,
    OFFSET_BIO_BI_BLKG,
    OFFSET_BLKCG_GQ_BLKCG,
    OFFSET_BLKCG_CSS_CGROUP,
}

/// The id of the current task's cgroup.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_cgroup_id() }
}

/// The id of the current task's ancestor at a level; 0 if it lies above.
#[inline(always)]
pub fn current_ancestor(level: u32) -> u64 {
    // Tracing programs may call the helper since Linux 5.15, when cgroups no longer kept the ids.
    if present(&OFFSET_CGROUP_ANCESTOR_IDS) {
        let cgroup =
            task::current().follow(&OFFSET_TASK_STRUCT_CGROUPS).follow(&OFFSET_CSS_SET_DFL_CGRP);
        Cgroup(cgroup).ancestor(level)
    } else {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
    }
}

/// A cgroup.
#[derive(Clone, Copy)]
pub struct Cgroup(Address);

impl Cgroup {
    /// The one that a page's memory is charged to, which need not be the current task's: kswapd, for
    /// one, deletes pages of all. `None` if it is charged to none.
    ///
    /// How a page names its owner has changed three times (include/linux/memcontrol.h): a pointer to the
    /// memory cgroup; the same with flags in its low bits; a pointer to an `obj_cgroup`, with flags.
    #[inline(always)]
    pub fn owner(page: Address) -> Option<Self> {
        const FLAGS: u64 = 7;
        let memory = if present(&OFFSET_PAGE_MEM_CGROUP) {
            page.follow(&OFFSET_PAGE_MEM_CGROUP)
        } else {
            let data: u64 = page.read(&OFFSET_FOLIO_MEMCG_DATA);
            let pointer = Address(data & !FLAGS);
            if present(&OFFSET_OBJ_CGROUP_IS_ROOT) {
                pointer.follow(&OFFSET_OBJ_CGROUP_MEMCG)
            } else {
                pointer
            }
        };
        Self::of_memory(memory)
    }

    /// That of a memory cgroup. `None` if there is none.
    #[inline(always)]
    pub fn of_memory(memory: Address) -> Option<Self> {
        if memory.address() == 0 {
            return None;
        }
        let cgroup = memory.follow(&OFFSET_MEM_CGROUP_CSS_CGROUP);
        if cgroup.address() == 0 { None } else { Some(Self(cgroup)) }
    }

    /// The one that a bio is charged to; `None` if it is charged to none, or there is no bio.
    #[inline(always)]
    pub fn of_bio(bio: Address) -> Option<Self> {
        if bio.address() == 0 {
            return None;
        }
        let charged = bio.follow(&OFFSET_BIO_BI_BLKG);
        if charged.address() == 0 {
            return None;
        }
        let cgroup = charged.follow(&OFFSET_BLKCG_GQ_BLKCG).follow(&OFFSET_BLKCG_CSS_CGROUP);
        if cgroup.address() == 0 { None } else { Some(Self(cgroup)) }
    }

    /// Whether the current task is in it or below it.
    #[inline(always)]
    pub fn contains_current(self) -> bool {
        current_ancestor(self.0.read(&OFFSET_CGROUP_LEVEL)) == self.id()
    }

    /// Its id.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0.follow(&OFFSET_CGROUP_KN).read(&OFFSET_KERNFS_NODE_ID)
    }

    /// As a group.
    #[inline(always)]
    pub fn group(self) -> Group {
        Group { id: self.id(), start: 0 }
    }

    /// The id of its ancestor at a level, itself included; 0 if it lies above.
    #[inline(always)]
    pub fn ancestor(self, level: u32) -> u64 {
        let own: u32 = self.0.read(&OFFSET_CGROUP_LEVEL);
        if own < level {
            return 0;
        }
        let word = 8 * u64::from(level);
        if present(&OFFSET_CGROUP_ANCESTOR_IDS) {
            probe_at(self.0.address() + u64::from(set(&OFFSET_CGROUP_ANCESTOR_IDS)) + word)
        } else {
            let ancestors = self.0.address() + u64::from(set(&OFFSET_CGROUP_ANCESTORS));
            Self(Address(probe_at(ancestors + word))).id()
        }
    }
}
