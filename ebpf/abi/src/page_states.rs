//! Pages that come back too soon, and pages that are written back.

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Pages of files that came back after they had been reclaimed.
        pub refaulted_file: u64,
        /// As many of anonymous memory.
        pub refaulted_anon: u64,
        /// Pages that were put under writeback.
        pub written: u64,
    }
}
