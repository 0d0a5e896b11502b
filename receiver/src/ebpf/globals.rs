//! The read-only globals of an object, set before it is loaded.

use aya::EbpfLoader;

/// Values by the globals' names.
#[derive(Default)]
pub struct Globals(Vec<(String, Vec<u8>)>);

impl Globals {
    /// Sets a `u32`.
    pub fn number(&mut self, name: impl Into<String>, value: u32) {
        self.bytes(name, value.to_ne_bytes());
    }

    /// Sets a global of any type to its bytes in memory.
    pub fn bytes(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// Hands all of them to the loader. One that an object does not have is none of its business:
    /// the scope, for instance, is set for every object.
    pub(super) fn apply<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (name, value) in &self.0 {
            loader.override_global(name, value.as_slice(), false);
        }
    }
}

/// The name of the global that holds a field's offset: `OFFSET_FOLIO_FLAGS` for `folio.flags`.
pub fn of_field(path: &str) -> String {
    format!("OFFSET_{}", path.replace('.', "_").to_uppercase())
}

/// The name of the global that holds an enum's value: `ENUM_PAGEFLAGS_PG_HEAD` for
/// `pageflags.PG_head`.
pub fn of_value(path: &str) -> String {
    format!("ENUM_{}", path.replace('.', "_").to_uppercase())
}
