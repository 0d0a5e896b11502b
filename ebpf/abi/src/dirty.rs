//! Pages of files that are made dirty.

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Pages that were clean before.
        pub dirtied: u64,
    }
}
