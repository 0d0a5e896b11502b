//! What the kernel counts itself, for the host or for cgroups, and has counted since long before the agent started:
//! what counts is what has been added since the first reading.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tracing::warn;

use crate::metric::{About, key_value, nanos};

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    Host,
    Cgroup(u64),
}

/// The cgroups that are meant at the moment, by their ids; `None`: the host.
pub(super) type Meant<'a> = Option<&'a BTreeMap<u64, PathBuf>>;

/// The series of `S` that have been read.
pub(super) struct Kept<S> {
    begins: BTreeMap<(Of, S), Begin>,
}

/// Where a series began.
struct Begin {
    total: u64,
    at: u64,
}

/// What there is to say of a series: whom it is about, which, and what has been added to it.
pub(super) type Added<S> = (About, S, u64);

impl<S: Copy + Ord> Kept<S> {
    /// Nothing has been read yet.
    pub(super) fn new() -> Self {
        Self { begins: BTreeMap::new() }
    }

    /// Takes the totals that have been read. A series that is new begins with them; one that is not among them ends.
    pub(super) fn take(&mut self, totals: &BTreeMap<(Of, S), u64>) -> Vec<Added<S>> {
        let at = nanos(SystemTime::now());
        for (series, total) in totals {
            self.begins.entry(*series).or_insert(Begin { total: *total, at });
        }
        let mut added = Vec::new();
        self.begins.retain(|series, begin| {
            let total = totals.get(series);
            let grown = total.map(|total| total.saturating_sub(begin.total));
            let about = about(series.0, begin.at, total.is_none());
            added.push((about, series.1, grown.unwrap_or_default()));
            total.is_some()
        });
        added
    }

    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        self.begins.len()
    }
}

/// What has been said to be missing: once, however often a reload makes the receiver anew.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Texts that are said: cgroups come and go, and each has its own.
const MAX_SAID: usize = 1000;

/// The text of a file; says once why there is none.
pub(super) fn file(path: &Path, of: &str) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            missing(of, &format!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

/// Says once that something cannot be had.
pub(super) fn missing(of: &str, why: &str) {
    let text = format!("No {of} of this: {why}.");
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < MAX_SAID && !said.contains(&text) {
        warn!("{text}");
        said.insert(text);
    }
}

/// How many of the texts have this in them.
#[cfg(test)]
pub(super) fn said(part: &str) -> usize {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.iter().filter(|text| text.contains(part)).count()
}

fn about(of: Of, start: u64, ended: bool) -> About {
    match of {
        Of::Host => About { start, ended, ..About::default() },
        Of::Cgroup(id) => {
            let id = Value::IntValue(i64::try_from(id).unwrap_or(i64::MAX));
            About { attributes: vec![key_value("cgroup.id", id)], start, ended }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_does_not_count() {
        let mut kept = Kept::new();
        let totals =
            |host: u64| BTreeMap::from([((Of::Host, 'a'), host), ((Of::Cgroup(3), 'a'), 5)]);
        assert!(kept.take(&totals(100)).iter().all(|(.., added)| *added == 0));
        let added: Vec<_> = kept.take(&totals(107)).into_iter().map(|(.., added)| added).collect();
        assert_eq!(added, [7, 0]);
        // One that is gone ends, and if it comes back it begins anew.
        let gone = kept.take(&BTreeMap::from([((Of::Host, 'a'), 107)]));
        assert!(gone[1].0.ended && !gone[0].0.ended);
        assert_eq!(kept.take(&totals(107))[1].2, 0);
    }
}
