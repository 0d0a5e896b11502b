//! A component that is to run, and by what a reload knows whether it is still the same.

use serde_json::Value;

use super::{Id, Mistakes, Section, Style, style};
use crate::component::Factory;

/// A component that is to run.
pub struct Planned<K> {
    /// Its id.
    pub id: Id,
    /// The component.
    pub component: K,
    /// What it was made of.
    pub recipe: Recipe<K>,
}

/// What a component was made of.
pub struct Recipe<K> {
    /// What its section means, with its secrets: two that are equal here do the same.
    pub effective: Value,
    configure: fn(&Section) -> Result<K, Mistakes>,
    section: Section,
}

impl<K> Planned<K> {
    pub(super) fn new(id: Id, component: K, factory: &Factory<K>, section: Section) -> Self {
        // A new password is a change.
        let style = Style { reveal: true, nanos: false };
        let effective = style::with(style, || (factory.effective)(&section));
        let recipe = Recipe { effective, configure: factory.configure, section };
        Self { id, component, recipe }
    }
}

impl<K> Recipe<K> {
    /// Makes the component once more.
    pub fn make(&self) -> Result<K, Mistakes> {
        (self.configure)(&self.section)
    }
}
