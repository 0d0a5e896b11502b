//! All series of one name, and how a point becomes the value of one of them.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    hash::{BuildHasherDefault, Hasher},
    mem,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{self, DataPointFlags},
};

use super::{
    buckets::Window,
    exemplar::{self, Exemplar},
    labels::{Identity, Origin},
    reason::Reason,
    value::{Malformed, Value},
};

/// What Prometheus calls a metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    /// The label that samples of this kind need for themselves.
    pub(super) const fn own_label(self) -> &'static str {
        match self {
            Self::Counter | Self::Gauge => "",
            Self::Histogram => "le",
            Self::Summary => "quantile",
        }
    }

    /// The endings of the names of its samples.
    pub(super) const fn samples(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_count", "_sum"],
            Self::Summary => &["", "_count", "_sum"],
        }
    }
}

/// All series of one name.
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) help: String,
    /// The bounds that its exponential histograms show.
    pub(super) window: Window,
    pub(super) series: HashMap<Identity, Series, BuildHasherDefault<AsItIs>>,
    /// By their labels as they are written, hence in a stable order.
    order: BTreeMap<Box<str>, Identity>,
    /// Whether it was said that another description was given, too.
    pub(super) described_twice: bool,
}

/// Identities are hashes already, by keys that nobody outside knows.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, identity: u128) {
        self.0 = identity as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One series.
pub(super) struct Series {
    pub(super) value: Value,
    /// When it was collected, in nanoseconds since the epoch.
    pub(super) time: u64,
    /// Since when it counts, likewise; 0 is unknown.
    pub(super) start: u64,
    /// Of the last point that had any, the newest first.
    pub(super) exemplars: Box<[Exemplar]>,
    seen: Instant,
}

/// A point on its way in, whatever its type was.
pub(super) struct Point {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) flags: u32,
    pub(super) exemplars: Vec<v1::Exemplar>,
    pub(super) value: Result<Value, Malformed>,
}

/// What is said once for all points of a metric.
pub(super) struct Arrival<'a> {
    pub(super) origin: &'a Origin<'a>,
    pub(super) metric: &'a str,
    pub(super) delta: bool,
    pub(super) now: Instant,
}

impl Family {
    pub(super) fn new(kind: Kind, help: String, unit: &str) -> Self {
        Self {
            kind,
            help,
            window: Window::of_unit(unit),
            series: HashMap::default(),
            order: BTreeMap::new(),
            described_twice: false,
        }
    }

    /// Takes in a point. `room` is whether there may be one series more.
    pub(super) fn take(
        &mut self,
        arrival: &Arrival<'_>,
        point: Point,
        room: bool,
    ) -> Result<(), Reason> {
        let Arrival { origin, metric, delta, now } = *arrival;
        let identity = origin.identity(metric, &point.attributes);
        let own = self.kind.own_label();
        let labels = || origin.labels(&point.attributes, own).into_boxed_str();
        if point.flags & DataPointFlags::NoRecordedValueMask as u32 != 0 {
            if self.series.remove(&identity).is_some() {
                self.forget(&labels(), identity);
            }
            return Ok(());
        }
        let series = Series {
            value: point.value.map_err(|Malformed| Reason::Malformed)?,
            time: point.time,
            start: point.start,
            exemplars: exemplar::taken(origin, point.exemplars),
            seen: now,
        };
        match self.series.get_mut(&identity) {
            Some(held) => held.go_on(series, delta)?,
            None => self.begin(identity, labels(), series, delta, room)?,
        }
        if self.kind == Kind::Histogram
            && let Some(Series { value: Value::Exponential(histogram), .. }) =
                self.series.get(&identity)
        {
            self.window.show(histogram);
        }
        Ok(())
    }

    /// Takes in the first point of an identity.
    fn begin(
        &mut self,
        identity: Identity,
        labels: Box<str>,
        series: Series,
        delta: bool,
        room: bool,
    ) -> Result<(), Reason> {
        let series = match self.order.entry(labels) {
            btree_map::Entry::Vacant(_) if !room => return Err(Reason::SeriesLimit),
            btree_map::Entry::Vacant(free) => {
                free.insert(identity);
                Some(series)
            }
            btree_map::Entry::Occupied(mut by) => {
                let held = self.series.get_mut(by.get());
                let series = match held {
                    // Labels are all that a scraper knows of a series: what comes later with the same ones is its
                    // next value, as after a change of the resource. In one batch, they are two series.
                    Some(held) if held.seen == series.seen || series.time <= held.time => {
                        return Err(Reason::LabelCollision);
                    }
                    Some(held) => {
                        held.go_on(series, delta)?;
                        self.series.remove(by.get())
                    }
                    None => Some(series),
                };
                by.insert(identity);
                series
            }
        };
        self.series.extend(series.map(|series| (identity, series)));
        Ok(())
    }

    /// `target_info` of one target: there is one per target, the last one told.
    pub(super) fn describe_target(
        &mut self,
        identity: Identity,
        labels: String,
        room: bool,
        now: Instant,
    ) -> Result<(), Reason> {
        let known = self.series.contains_key(&identity);
        if !known && !room {
            return Err(Reason::SeriesLimit);
        }
        let labels = labels.into_boxed_str();
        let held_by = self.order.insert(labels.clone(), identity);
        if held_by != Some(identity) {
            held_by.map(|other| self.series.remove(&other));
            if known {
                self.order.retain(|held, by| *by != identity || *held == labels);
            }
        }
        let (value, exemplars) = (Value::Int(1), Box::default());
        let series = Series { value, time: 0, start: 0, exemplars, seen: now };
        self.series.insert(identity, series);
        Ok(())
    }

    /// The series, by their labels.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, &Series)> {
        self.order.iter().filter_map(|(labels, by)| Some((&**labels, self.series.get(by)?)))
    }

    /// Removes what has not been seen for `lifetime`.
    pub(super) fn expire(&mut self, lifetime: Duration, now: Instant) {
        let Self { series, order, .. } = self;
        let before = series.len();
        series.retain(|_, series| now.saturating_duration_since(series.seen) <= lifetime);
        if series.len() < before {
            order.retain(|_, by| series.contains_key(by));
        }
    }

    /// Forgets the labels of a series that is no more.
    fn forget(&mut self, labels: &str, identity: Identity) {
        if self.order.get(labels) == Some(&identity) {
            self.order.remove(labels);
        } else {
            // It had others at first: the schema, which they show, does not make another series.
            self.order.retain(|_, by| *by != identity);
        }
    }
}

impl Series {
    /// Becomes what a later point says.
    fn go_on(&mut self, mut next: Self, delta: bool) -> Result<(), Reason> {
        if next.time < self.time {
            return Err(Reason::OldTimestamp);
        }
        if delta {
            if next.start < self.time {
                return Err(Reason::DeltaOverlap);
            }
            // A gap is a reset: what happened in it is unknown.
            if next.start == self.time {
                let mut sum = mem::replace(&mut self.value, Value::Int(0));
                sum.add(next.value);
                next.value = sum;
                next.start = self.start;
            }
        }
        if next.exemplars.is_empty() {
            next.exemplars = mem::take(&mut self.exemplars);
        }
        *self = next;
        Ok(())
    }
}
