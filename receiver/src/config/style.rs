//! How configurations are written. serde hands no such choice down to the types it writes, so it is
//! kept beside, for the thread that writes.

use std::cell::Cell;

/// What depends on who reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Secrets are written as they are.
    pub reveal: bool,
    /// Durations are whole nanoseconds.
    pub nanos: bool,
}

thread_local! {
    static STYLE: Cell<Style> = const { Cell::new(Style { reveal: false, nanos: false }) };
}

/// The style of what is being written.
pub fn current() -> Style {
    STYLE.get()
}

/// Runs `write` in a style. Ends with it, also by a panic: a secret must not stay revealed.
pub fn with<T>(style: Style, write: impl FnOnce() -> T) -> T {
    struct Restore(Style);
    impl Drop for Restore {
        fn drop(&mut self) {
            STYLE.set(self.0);
        }
    }
    let _restore = Restore(STYLE.replace(style));
    write()
}
