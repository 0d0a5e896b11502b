//! What a scraper is shown: names as they are, or as readers of classic names need them.

use std::{borrow::Cow, collections::HashSet};

use super::{
    family::{Family, Series},
    labels::{pairs, written},
    store::Store,
};
use crate::prometheus_names::underscored;

/// A whole exposition.
pub(super) struct Rendered {
    pub(super) bytes: Vec<u8>,
    /// Series that are not in it, because they look like another one to this reader.
    pub(super) hidden: usize,
}

/// Shows all families with their series in their order, and returns how many series could not be
/// shown: without `utf8`, names that differ only in what becomes `_` are the same.
pub(super) fn view(
    store: &Store,
    utf8: bool,
    mut show: impl FnMut(&str, &Family, &mut dyn Iterator<Item = (&str, &Series)>),
) -> usize {
    if utf8 || store.is_classic() {
        for (name, family) in &store.families {
            show(name, family, &mut family.in_order());
        }
        return 0;
    }
    let mut hidden = 0;
    let mut names = HashSet::new();
    for (name, family) in &store.families {
        let name = underscored(name);
        if !names.insert(name.clone()) {
            hidden += family.series.len();
            continue;
        }
        let mut shown = HashSet::new();
        let escaped: Vec<(String, &Series)> = family
            .in_order()
            .map(|(labels, series)| (classic(labels), series))
            .filter(|(labels, _)| shown.insert(labels.clone()))
            .collect();
        hidden += family.series.len() - escaped.len();
        let mut series = escaped.iter().map(|(labels, series)| (labels.as_str(), *series));
        show(&name, family, &mut series);
    }
    hidden
}

/// Labels with classic names; of those that have become one, the first counts.
fn classic(labels: &str) -> String {
    let mut escaped = std::collections::BTreeMap::new();
    for (name, value) in pairs(labels) {
        let name = underscored(&name).replace(':', "_");
        escaped.entry(name).or_insert_with(|| Cow::into_owned(value));
    }
    written(&escaped)
}
