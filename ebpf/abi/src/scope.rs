//! The scope: which tasks a program counts. It is decided at the top of every program from
//! read-only globals, so that a scope that is not set costs nothing.

crate::shared! {
    /// One cgroup v2 subtree. A task is inside if its ancestor at `level` has this id.
    pub struct Cgroup {
        /// The id: the inode number of the cgroup's directory.
        pub id: u64,
        /// Depth below the root of the hierarchy, which has level 0.
        pub level: u32,
        /// Explicit padding.
        pub pad: u32,
    }
}

impl Cgroup {
    /// An unused place in the table.
    pub const NONE: Self = Self { id: 0, level: 0, pad: 0 };
}

/// Subtrees that a scope can name. The program checks one after the other, unrolled.
pub const MAX_CGROUPS: usize = 16;

/// The global that holds the subtrees: `[Cgroup; MAX_CGROUPS]`.
pub const CGROUPS: &str = "SCOPE_CGROUPS";
/// The global that holds how many are set: `u32`. 0: every task is counted.
pub const CGROUP_COUNT: &str = "SCOPE_CGROUP_COUNT";
