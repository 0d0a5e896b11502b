//! The scope: which tasks a program counts. It is decided at the top of every program. What is not
//! configured costs nothing: read-only globals say so, and the verifier removes the rest.

crate::shared! {
    /// One cgroup v2 subtree. A task is inside if its ancestor at `level` has this id.
    pub struct Cgroup {
        /// The id: the inode number of the cgroup's directory; 0: an unused place.
        pub id: u64,
        /// Depth below the root of the hierarchy, which has level 0; or [`ANY_LEVEL`].
        pub level: u32,
        /// Explicit padding.
        pub pad: u32,
    }
}

impl Cgroup {
    /// An unused place in the table.
    pub const NONE: Self = Self { id: 0, level: 0, pad: 0 };
}

/// The level of a subtree whose depth user space cannot know: in a cgroup namespace it does not see the
/// root of the hierarchy.
pub const ANY_LEVEL: u32 = u32::MAX;
/// Levels that are looked at for [`ANY_LEVEL`]. Real hierarchies have fewer than ten.
pub const MAX_LEVELS: u32 = 24;

/// Subtrees that a scope can name: entries of the map [`CGROUPS`]. The program checks one after the
/// other, unrolled.
pub const MAX_CGROUPS: usize = 16;
/// The map with the subtrees. A map, since a container that restarts gets another cgroup.
pub const CGROUPS: &str = "SCOPE_CGROUPS";
/// The global `u32` that says how many entries of [`CGROUPS`] are to be looked at. 0: any cgroup will do.
pub const CGROUP_COUNT: &str = "SCOPE_CGROUP_COUNT";

/// Mount namespaces that a scope can name.
pub const MAX_NAMESPACES: usize = 8;
/// The global `[u32; MAX_NAMESPACES]` with the namespaces' inode numbers; 0: an unused place.
pub const NAMESPACES: &str = "SCOPE_NAMESPACES";
/// The global `u32` that says how many are set. 0: any will do.
pub const NAMESPACE_COUNT: &str = "SCOPE_NAMESPACE_COUNT";

crate::shared! {
    /// A pattern for the name of a process (`comm` of its main thread), as two words of memory.
    pub struct Name {
        /// The bytes of the pattern.
        pub bytes: [u64; 2],
        /// Which bits are compared: those of the prefix, and for an exact name those of the NUL after it.
        pub mask: [u64; 2],
    }
}

/// Bytes of a name, with the NUL at its end (`TASK_COMM_LEN`).
pub const NAME_LENGTH: usize = 16;

impl Name {
    /// An unused place.
    pub const NONE: Self = Self { bytes: [0; 2], mask: [0; 2] };

    /// The pattern for names that begin with `text`, or that are `text`, of which the kernel keeps
    /// [`NAME_LENGTH`] - 1 bytes. What follows a name's NUL is not compared: it is not always zero.
    pub const fn new(text: &[u8], exact: bool) -> Self {
        let (mut bytes, mut mask) = ([0; NAME_LENGTH], [0; NAME_LENGTH]);
        let mut i = 0;
        while i < text.len() && i < NAME_LENGTH - 1 {
            bytes[i] = text[i];
            mask[i] = u8::MAX;
            i += 1;
        }
        if exact {
            mask[i] = u8::MAX;
        }
        Self { bytes: words(bytes), mask: words(mask) }
    }

    /// Whether a name fits.
    #[inline(always)]
    pub const fn fits(&self, name: [u64; 2]) -> bool {
        (name[0] ^ self.bytes[0]) & self.mask[0] == 0
            && (name[1] ^ self.bytes[1]) & self.mask[1] == 0
    }
}

/// A name as words, in memory order.
pub const fn words(name: [u8; NAME_LENGTH]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = name;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// Names that a scope can give.
pub const MAX_NAMES: usize = 8;
/// The global `[Name; MAX_NAMES]`.
pub const NAMES: &str = "SCOPE_NAMES";
/// The global `u32` that says how many are set. 0, without [`BY_PATTERN`]: any will do.
pub const NAME_COUNT: &str = "SCOPE_NAME_COUNT";

/// Processes that user space has found for the scope: entries of the map [`PROCESSES`].
pub const MAX_PROCESSES: u32 = 4_096;
/// The map `u64 -> Found` of these processes by their id.
pub const PROCESSES: &str = "SCOPE_PROCESSES";

crate::shared! {
    /// A process that user space has found.
    pub struct Found {
        /// Its start since boot in ticks of [`NANOS_PER_TICK`], which is as exactly as user space can know it: it
        /// tells the process from a later one with its id.
        pub start_ticks: u64,
        /// Made of [`BY_ID`] and [`BY_PATTERN`].
        pub criteria: u32,
        /// Explicit padding.
        pub pad: u32,
    }
}

/// A tick of `USER_HZ`, which is 100 on every architecture that Fathom runs on.
pub const NANOS_PER_TICK: u64 = 10_000_000;

/// The scope names the process by its id.
pub const BY_ID: u32 = 1;
/// A pattern that only user space can decide fits the process's name.
pub const BY_PATTERN: u32 = 2;
/// The global `u32` that says which of the two the scope asks for.
pub const PROCESSES_USED: &str = "SCOPE_PROCESSES_USED";

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> [u64; 2] {
        // What the kernel leaves behind the NUL.
        let mut bytes = [b'?'; NAME_LENGTH];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes[text.len()] = 0;
        words(bytes)
    }

    #[test]
    fn a_prefix_fits_what_begins_so_and_a_name_itself_alone() {
        let (prefix, exact) = (Name::new(b"post", false), Name::new(b"postgres", true));
        assert!(prefix.fits(name("postgres")) && prefix.fits(name("post")));
        assert!(!prefix.fits(name("pos")) && !prefix.fits(name("xpost")));
        assert!(exact.fits(name("postgres")));
        assert!(!exact.fits(name("postgre")) && !exact.fits(name("postgresq")));
    }

    #[test]
    fn longer_names_than_the_kernel_keeps_fit_what_it_keeps() {
        let long = Name::new(b"a-very-long-program-name", true);
        assert!(long.fits(name("a-very-long-pro")));
        assert!(!long.fits(name("a-very-long-pr")));
        assert!(Name::new(b"exactly-15-byte", true).fits(name("exactly-15-byte")));
    }

    #[test]
    fn an_empty_prefix_fits_all() {
        assert!(Name::new(b"", false).fits(name("anything")));
        assert!(!Name::new(b"", true).fits(name("anything")));
    }
}
