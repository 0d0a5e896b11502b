//! Page faults.

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Faults that needed no input.
        pub minor: u64,
        /// Faults that had to wait for input.
        pub major: u64,
    }
}
