//! Groups: what a receiver counts by, beside the host as a whole.
//!
//! Every signal keeps its cells in two maps: a per-CPU array, which is all there is when the host is
//! one group, and a per-CPU hash with a cell for each group. An event whose group finds no place in
//! the hash is counted in the array: it is the overflow entry, so nothing is ever lost for want of room.
//!
//! To find a cell in the hash takes longer than to count in it. So user space, which sees at each collection which cells
//! are busy, gives those a seat each: a second cell at a place that their key says, in the array. A cell's value is what
//! it has in the hash and in its seat.

use crate::seat::seat;

/// The global `u32` that holds one of [`HOST`], [`CGROUP`], [`PROCESS`].
pub const GROUP_BY: &str = "GROUP_BY";
/// Everything is one group.
pub const HOST: u32 = 0;
/// By cgroup v2.
pub const CGROUP: u32 = 1;
/// By process.
pub const PROCESS: u32 = 2;

/// The global `u32` that is 1 if the memory controller is in the cgroup v2 hierarchy, so that a page's
/// owner is one of its cgroups.
pub const OWNERS: &str = "PAGES_HAVE_OWNERS";

/// As much of the I/O controller, so that a request's owner is one of its cgroups.
pub const BIO_OWNERS: &str = "BIOS_HAVE_OWNERS";

crate::shared! {
    /// A group.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct Group {
        /// The cgroup's id, or the process's in the initial pid namespace.
        pub id: u64,
        /// For a process, its start in ns since boot, which tells it from a later one with its id.
        pub start: u64,
    }
}

impl Group {
    /// The whole host.
    pub const HOST: Self = Self { id: 0, start: 0 };
}

crate::shared! {
    /// The key of a cell in the hash.
    #[derive(PartialOrd, Ord)]
    pub struct Key {
        /// Whose.
        pub group: Group,
        /// Which of the signal's cells: the index that it has in the array.
        pub entry: u32,
        /// Explicit padding.
        pub pad: u32,
    }
}

crate::shared! {
    /// A seat: whose cell it is at the moment. User space gives them.
    pub struct Seat {
        /// The group.
        pub group: Group,
        /// Which of its cells.
        pub entry: u32,
        /// Whether events are counted there. Whose it is changes only while none are.
        pub open: u32,
    }
}

impl Key {
    /// The seat that it may have.
    #[inline(always)]
    pub const fn seat(&self) -> u32 {
        let number = self.group.id ^ self.group.start ^ (self.entry as u64) << 40;
        seat(number, SEATS.trailing_zeros())
    }
}

/// Seats of a signal's map, a power of two: room for the busiest cells, found without a search.
pub const SEATS: u32 = 128;
/// The end of the name of the array that says who has which seat. The cells are in the signal's array, before its own.
pub const BY_SEAT: &str = "_SEATS";
/// The global `u32` that says how many cells of seats each array of cells begins with: [`SEATS`] or none.
pub const SEATED: &str = "SEATED";

/// Groups that a receiver has room for unless its configuration says otherwise.
pub const DEFAULT_GROUPS: u32 = 8_192;

/// The end of the name of the hash beside an array of cells.
pub const BY_GROUP: &str = "_BY_GROUP";
