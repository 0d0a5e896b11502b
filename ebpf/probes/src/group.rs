//! What an event is counted for, and the cell that it is counted in.

use abi::{
    Plain,
    group::{CGROUP, Group, HOST, Key, PROCESS, Seat},
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{Array, PerCpuArray, PerCpuHashMap},
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
#[unsafe(no_mangle)]
static BIOS_HAVE_OWNERS: u32 = 0;
#[unsafe(no_mangle)]
static SEATED: u32 = 0;

/// What a new cell is made of. On the stack the compiler would call a function to write it, and of a program that calls
/// one the verifier before Linux 6.2 takes every number to matter (`__mark_reg_unknown`): it follows each way to the end.
static ZEROS: [u64; 128] = [0; 128];

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
    let group = if set(&GROUP_BY) == CGROUP { current() } else { Group::HOST };
    if !scope::contains_current_of(group.id) {
        return None;
    }
    if set(&GROUP_BY) == CGROUP { Some(group) } else { Some(current()) }
}

/// The group to which something that happens to a page belongs, if the scope contains it: that of
/// the page's owner where user space says that owners can be known and are wanted, otherwise that of
/// the current task.
#[inline(always)]
pub fn of_page(page: Address) -> Option<Group> {
    if set(&PAGES_HAVE_OWNERS) == 0 {
        return in_scope();
    }
    of_owner(Cgroup::owner(page))
}

/// The same for something that is known by its memory cgroup.
#[inline(always)]
pub fn of_memory(memory: Address) -> Option<Group> {
    if set(&PAGES_HAVE_OWNERS) == 0 {
        return in_scope();
    }
    of_owner(Cgroup::of_memory(memory))
}

/// The group to which a bio belongs, and whether the scope contains it: that of the cgroup that it is charged
/// to, which for writeback is not the writer's, where user space says that owners can be known and are wanted,
/// otherwise that of the current task. The same if it is charged to a cgroup that contains the current task: then
/// the controller may be off below it.
///
/// Not an `Option`: the compiler would copy its value where there is none, which the verifier refuses.
#[inline(always)]
pub fn of_bio(bio: Address) -> (Group, bool) {
    if bios_have_owners()
        && let Some(owner) = Cgroup::of_bio(bio)
        && !owner.contains_current()
    {
        let group = owned_by(Some(owner));
        return (group, scope::contains_owner(Some(owner), group));
    }
    (current(), scope::contains_current())
}

/// As much where the current task has nothing to do with the bio: `None` if only the task that submitted it
/// would know.
#[inline(always)]
pub fn of_bio_alone(bio: Address) -> Option<Group> {
    if bios_have_owners() {
        of_owner(Cgroup::of_bio(bio))
    } else if tasks_matter() {
        None
    } else {
        Some(Group::HOST)
    }
}

/// Whether the task that submits a bio decides whose it is.
#[inline(always)]
pub fn tasks_matter() -> bool {
    !(set(&GROUP_BY) == HOST && scope::is_everything())
}

#[inline(always)]
fn bios_have_owners() -> bool {
    set(&BIOS_HAVE_OWNERS) != 0
}

#[inline(always)]
fn of_owner(owner: Option<Cgroup>) -> Option<Group> {
    let group = owned_by(owner);
    if scope::contains_owner(owner, group) { Some(group) } else { None }
}

/// The group of what a cgroup owns.
#[inline(always)]
fn owned_by(owner: Option<Cgroup>) -> Group {
    match (set(&GROUP_BY), owner) {
        (CGROUP, Some(owner)) => owner.group(),
        // What is charged to nobody is the root's.
        (CGROUP, None) => Group { id: 1, start: 0 },
        _ => Group::HOST,
    }
}

/// The maps of a signal's cells, which [`cells!`](crate::cells) declares.
pub struct Cells<V: Plain + 'static> {
    /// For who has a seat; and behind those, for the host and for the overflow.
    pub all: &'static PerCpuArray<V>,
    /// For the groups. User space sets how many there is room for.
    pub by_group: &'static PerCpuHashMap<Key, V>,
    /// Who has which seat.
    pub seats: &'static Array<Seat>,
}

impl<V: Plain> Cells<V> {
    /// This CPU's copy of a cell.
    ///
    /// If the group has no place and gets none, because the hash is full or no memory could be had at
    /// once, that is the cell of the overflow group, which is in the array.
    #[inline(always)]
    pub fn cell(&self, group: Group, entry: u32) -> Option<*mut V> {
        if set(&GROUP_BY) == HOST {
            return self.all.get_ptr_mut(set(&SEATED) + entry);
        }
        self.sparse(group, entry, entry)
    }

    /// The same of a signal whose entries are too many for an array: the hash has the host's cells too, and the
    /// array those of the overflow alone, at the entry `unplaced`.
    #[inline(always)]
    pub fn sparse(&self, group: Group, entry: u32, unplaced: u32) -> Option<*mut V> {
        let key = Key { group, entry, pad: 0 };
        if let Some(number) = self.seat(&key) {
            return self.all.get_ptr_mut(number);
        }
        if let Some(cell) = self.by_group.get_ptr_mut(&key) {
            return Some(cell);
        }
        const { assert!(size_of::<V>() <= size_of_val(&ZEROS) && align_of::<V>() <= 8) }
        // SAFETY: plain types may be all zeros, and there are enough of them.
        let zero = unsafe { &*(&raw const ZEROS).cast::<V>() };
        // Another program, or another CPU, may have been first: then this changes nothing.
        let _ = self.by_group.insert(&key, zero, u64::from(BPF_NOEXIST));
        match self.by_group.get_ptr_mut(&key) {
            Some(cell) => Some(cell),
            None => self.all.get_ptr_mut(set(&SEATED) + unplaced),
        }
    }

    /// The seat that a cell has.
    #[inline(always)]
    fn seat(&self, key: &Key) -> Option<u32> {
        let number = key.seat();
        let seat = self.seats.get_ptr(number)?;
        // SAFETY: the pointer is to an entry of the map. First whether it is open: then the rest does not change.
        let is_its = unsafe {
            (&raw const (*seat).open).read_volatile() != 0
                && (*seat).entry == key.entry
                && (*seat).group == key.group
        };
        if is_its { Some(number) } else { None }
    }
}

/// Declares a signal's cells and their three maps: `NAME`, which is also that of the constant, `NAME_BY_GROUP` and
/// `NAME_SEATS`.
#[macro_export]
macro_rules! cells {
    ($(#[$doc:meta])* $all:ident, $by_group:ident, $seats:ident: [$cell:ty; $entries:expr]) => {
        $(#[$doc])*
        const $all: $crate::group::Cells<$cell> = {
            #[aya_ebpf::macros::map]
            static $all: aya_ebpf::maps::PerCpuArray<$cell> =
                aya_ebpf::maps::PerCpuArray::with_max_entries($entries, 0);
            #[aya_ebpf::macros::map]
            static $by_group: aya_ebpf::maps::PerCpuHashMap<abi::group::Key, $cell> =
                aya_ebpf::maps::PerCpuHashMap::with_max_entries(
                    abi::group::DEFAULT_GROUPS,
                    $crate::NO_PREALLOC,
                );
            #[aya_ebpf::macros::map]
            static $seats: aya_ebpf::maps::Array<abi::group::Seat> =
                aya_ebpf::maps::Array::with_max_entries(abi::group::SEATS, 0);
            $crate::group::Cells { all: &$all, by_group: &$by_group, seats: &$seats }
        };
    };
}
