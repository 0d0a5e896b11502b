//! Component ids: `type[/name]`.

use std::fmt;

/// A component's id. Pipelines have ids of the same form, the type being the signal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The type.
    pub kind: String,
    /// The name after the `/`; empty if there is none.
    pub name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            f.write_str(&self.kind)
        } else {
            write!(f, "{}/{}", self.kind, self.name)
        }
    }
}
