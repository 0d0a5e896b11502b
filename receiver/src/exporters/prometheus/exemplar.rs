//! Exemplars: single observations that say which trace they belong to.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::{self, exemplar};

use super::labels::{Origin, written};

/// OpenMetrics allows that many characters in the labels of one.
const CHARACTERS: usize = 128;
/// A series holds that many at most; a bucket shows one.
const HELD: usize = 64;

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exemplar {
    /// As they are written, without braces.
    pub(super) labels: Box<str>,
    pub(super) value: f64,
    /// Nanoseconds since the epoch; 0 is unknown.
    pub(super) time: u64,
}

/// A point's exemplars, the newest first.
pub(super) fn taken(origin: &Origin<'_>, exemplars: Vec<v1::Exemplar>) -> Box<[Exemplar]> {
    let mut taken: Vec<_> =
        exemplars.into_iter().filter_map(|exemplar| Exemplar::new(origin, &exemplar)).collect();
    taken.sort_by_key(|exemplar| std::cmp::Reverse(exemplar.time));
    taken.truncate(HELD);
    taken.into()
}

/// The newest one in `(above, to]`.
pub(super) fn newest(exemplars: &[Exemplar], above: f64, to: f64) -> Option<&Exemplar> {
    exemplars.iter().find(|exemplar| above < exemplar.value && exemplar.value <= to)
}

impl Exemplar {
    fn new(origin: &Origin<'_>, exemplar: &v1::Exemplar) -> Option<Self> {
        let value = match exemplar.value? {
            exemplar::Value::AsInt(value) => value as f64,
            exemplar::Value::AsDouble(value) => value,
        };
        let mut labels = BTreeMap::new();
        let mut room = CHARACTERS;
        let mut add = |name: String, value: String| {
            let size = name.chars().count() + value.chars().count();
            if !labels.contains_key(&name) && size <= room {
                room -= size;
                labels.insert(name, value);
            }
        };
        // First, for they matter most and must find room.
        for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
            if id.iter().any(|byte| *byte != 0) {
                add(name.to_owned(), id.iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
        for (name, value) in origin.rules().names.labels(&exemplar.filtered_attributes) {
            add(name, value);
        }
        Some(Self { labels: written(&labels).into(), value, time: exemplar.time_unix_nano })
    }
}
