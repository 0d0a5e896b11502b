//! OTLP metrics -> the series of remote write.
//!
//! A receiver refuses a whole request for one bad sample, so what it would refuse is left out here and
//! counted: deltas, samples of one series at one time, histograms that contradict themselves.

use std::collections::{BTreeMap, HashMap, hash_map};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{AggregationTemporality, Metric, metric::Data},
};

use super::{
    labels::{self, Labels, Origin, Rules},
    point::{Datum, Part, Point},
    proto::{Exemplar, Histogram, MetricType, Sample},
};
use crate::prometheus_names::{Suffix, unit};

/// Why a point was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not cumulative, which is all that remote write can say.
    Temporality,
    /// Nothing in the name can stand in a Prometheus name.
    Name,
    /// The point contradicts itself, or has no time.
    Malformed,
    /// An exponential histogram that is coarser than native ones can be.
    Scale,
    /// Another point of the same series has the same time, or another metric has the same series.
    Collision,
}

impl Reason {
    /// For the count.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Temporality => "invalid_temporality",
            Self::Name => "invalid_name",
            Self::Malformed => "malformed",
            Self::Scale => "scale_too_low",
            Self::Collision => "label_collision",
        }
    }

    /// For the log; the Collector's words where it has some.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Temporality => "invalid temporality and type combination",
            Self::Name => "no character of its name can stand in a Prometheus name",
            Self::Malformed => "a point contradicts itself or has no time",
            Self::Scale => "cannot convert exponential to native histogram. Scale must be >= -4",
            Self::Collision => "two points have the same name, labels and time",
        }
    }
}

/// A metric under its name in Prometheus.
#[derive(Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub kind: MetricType,
    pub help: String,
    /// As OTLP has it.
    pub unit: String,
}

impl Family {
    /// The unit as names say it.
    pub fn unit_in_words(&self) -> String {
        unit(&self.unit)
    }
}

/// What is sent in one request or not at all: the series of points that have the same labels.
#[derive(Debug)]
pub struct Group {
    /// Its place among the families.
    pub family: usize,
    /// The points that are in it.
    pub points: usize,
    pub series: Vec<Series>,
}

/// One series.
#[derive(Debug)]
pub struct Series {
    pub labels: Labels,
    /// In the order of their times.
    pub samples: Vec<Sample>,
    /// The same, instead of samples.
    pub histograms: Vec<Histogram>,
    pub exemplars: Vec<Exemplar>,
}

/// A batch, translated.
#[derive(Debug, Default)]
pub struct Translated {
    pub families: Vec<Family>,
    pub groups: Vec<Group>,
    /// Points left out, by the reason and the metric's own name.
    pub dropped: BTreeMap<(Reason, String), usize>,
    /// By name and kind.
    by_name: HashMap<(String, MetricType), usize>,
    /// Group and series by labels.
    places: HashMap<Labels, (usize, usize)>,
}

impl Translated {
    /// All that can be sent of `request`. `starts` is whether samples say since when they count.
    pub fn of(rules: &Rules, request: &ExportMetricsServiceRequest, starts: bool) -> Self {
        let mut translated = Self::default();
        for resource_metrics in &request.resource_metrics {
            let resource = resource_metrics.resource.clone().unwrap_or_default();
            let mut latest = 0;
            for scope_metrics in &resource_metrics.scope_metrics {
                let origin = Origin::new(rules, &resource, scope_metrics.scope.as_ref());
                for metric in &scope_metrics.metrics {
                    latest = latest.max(translated.metric(rules, &origin, metric, starts));
                }
            }
            // It is as old as what it is joined with.
            if latest > 0
                && let Some((name, labels)) = labels::target_info(rules, &resource)
            {
                translated.describe(name, labels, latest);
            }
        }
        translated
    }

    /// Adds a metric, and returns the time of its latest point.
    fn metric(&mut self, rules: &Rules, origin: &Origin<'_>, metric: &Metric, starts: bool) -> i64 {
        let Some(data) = &metric.data else { return 0 };
        let cumulative = i32::from(AggregationTemporality::Cumulative);
        let (kind, suffix, temporality, points): (_, _, _, Vec<Point<'_>>) = match data {
            Data::Gauge(gauge) => {
                let points = gauge.data_points.iter().map(|point| Point::number(point, false));
                (MetricType::Gauge, Suffix::Ratio, cumulative, points.collect())
            }
            Data::Sum(sum) => {
                let monotonic = sum.is_monotonic;
                let points = sum.data_points.iter().map(|point| Point::number(point, monotonic));
                let (kind, suffix) = match monotonic {
                    true => (MetricType::Counter, Suffix::Total),
                    false => (MetricType::Gauge, Suffix::None),
                };
                (kind, suffix, sum.aggregation_temporality, points.collect())
            }
            Data::Histogram(histogram) => {
                let points = histogram.data_points.iter().map(Point::classic).collect();
                let temporality = histogram.aggregation_temporality;
                (MetricType::Histogram, Suffix::None, temporality, points)
            }
            Data::ExponentialHistogram(histogram) => {
                let points = histogram.data_points.iter().map(Point::native).collect();
                let temporality = histogram.aggregation_temporality;
                (MetricType::Histogram, Suffix::None, temporality, points)
            }
            Data::Summary(summary) => {
                let points = summary.data_points.iter().map(Point::summary).collect();
                (MetricType::Summary, Suffix::None, cumulative, points)
            }
        };
        let latest = points.iter().map(|point| point.time).max().unwrap_or_default();
        let refused = match rules.names.metric(&metric.name, &metric.unit, suffix) {
            _ if temporality != cumulative => Err(Reason::Temporality),
            None => Err(Reason::Name),
            Some(name) => Ok(name),
        };
        let name = match refused {
            Ok(name) => name,
            Err(reason) => {
                self.drop(reason, &metric.name, points.len());
                return latest;
            }
        };
        let family = self.family(name, kind, metric);
        for mut point in points {
            if !starts {
                point.start = 0;
            }
            let attributes = point.attributes;
            let result =
                point.parts().and_then(|parts| self.point(origin, family, attributes, parts));
            if let Err(reason) = result {
                self.drop(reason, &metric.name, 1);
            }
        }
        latest
    }

    fn drop(&mut self, reason: Reason, metric: &str, points: usize) {
        if points > 0 {
            *self.dropped.entry((reason, metric.to_owned())).or_default() += points;
        }
    }

    fn family(&mut self, name: String, kind: MetricType, metric: &Metric) -> usize {
        match self.by_name.entry((name, kind)) {
            hash_map::Entry::Occupied(known) => *known.get(),
            hash_map::Entry::Vacant(free) => {
                self.families.push(Family {
                    name: free.key().0.clone(),
                    kind,
                    help: metric.description.clone(),
                    unit: metric.unit.clone(),
                });
                *free.insert(self.families.len() - 1)
            }
        }
    }

    /// Adds a point, whole or not at all.
    fn point(
        &mut self,
        origin: &Origin<'_>,
        family: usize,
        attributes: &[KeyValue],
        parts: Vec<Part>,
    ) -> Result<(), Reason> {
        let base = origin.labels(attributes);
        let name = &self.families[family].name;
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let own = part.own.as_ref().map(|(label, value)| (*label, value.as_str()));
                let labels = labels::series(&base, &format!("{name}{}", part.ending), own);
                (labels, part)
            })
            .collect();
        // The first series is one that all points of these labels have.
        let group = parts.first().and_then(|(labels, _)| self.places.get(labels)).map(|at| at.0);
        if group.is_some_and(|group| self.groups[group].family != family) {
            return Err(Reason::Collision);
        }
        for (labels, part) in &parts {
            let Some((in_group, at)) = self.places.get(labels) else { continue };
            let free = group == Some(*in_group)
                && self.groups[*in_group].series[*at].has_room(&part.datum);
            if !free {
                return Err(Reason::Collision);
            }
        }
        let group = group.unwrap_or_else(|| {
            self.groups.push(Group { family, points: 0, series: Vec::new() });
            self.groups.len() - 1
        });
        self.groups[group].points += 1;
        for (labels, part) in parts {
            self.add(group, labels, part);
        }
        Ok(())
    }

    fn add(&mut self, group: usize, labels: Labels, part: Part) {
        let all = &mut self.groups[group].series;
        let at = match self.places.entry(labels) {
            hash_map::Entry::Occupied(known) => known.get().1,
            hash_map::Entry::Vacant(free) => {
                let labels = free.key().clone();
                let (samples, histograms, exemplars) = Default::default();
                all.push(Series { labels, samples, histograms, exemplars });
                free.insert((group, all.len() - 1)).1
            }
        };
        all[at].add(part);
    }

    /// The series that describes a resource, at the time of its latest point.
    fn describe(&mut self, name: String, labels: Labels, time: i64) {
        let metric = Metric { description: "Target metadata".to_owned(), ..Default::default() };
        let family = self.family(name, MetricType::Gauge, &metric);
        let datum = Datum::Float(Sample { value: 1.0, timestamp: time, start_timestamp: 0 });
        let part = Part { ending: "", own: None, datum, exemplars: Vec::new() };
        let group = match self.places.get(&labels) {
            Some((group, at)) => {
                let series = &self.groups[*group].series[*at];
                // Said already, of another part of the same resource.
                if self.groups[*group].family != family || !series.has_room(&part.datum) {
                    return;
                }
                *group
            }
            None => {
                self.groups.push(Group { family, points: 0, series: Vec::new() });
                self.groups.len() - 1
            }
        };
        self.add(group, labels, part);
    }
}

impl Series {
    /// Whether there is nothing yet at the time of `datum`, nor anything of another kind.
    fn has_room(&self, datum: &Datum) -> bool {
        match datum {
            Datum::Float(sample) => {
                let same = |held: &Sample| held.timestamp.cmp(&sample.timestamp);
                self.histograms.is_empty() && self.samples.binary_search_by(same).is_err()
            }
            Datum::Native(histogram) => {
                let same = |held: &Histogram| held.timestamp.cmp(&histogram.timestamp);
                self.samples.is_empty() && self.histograms.binary_search_by(same).is_err()
            }
        }
    }

    fn add(&mut self, part: Part) {
        match part.datum {
            Datum::Float(sample) => {
                let at = self.samples.partition_point(|held| held.timestamp < sample.timestamp);
                self.samples.insert(at, sample);
            }
            Datum::Native(histogram) => {
                let later = |held: &Histogram| held.timestamp < histogram.timestamp;
                let at = self.histograms.partition_point(later);
                self.histograms.insert(at, histogram);
            }
        }
        self.exemplars.extend(part.exemplars);
        self.exemplars.sort_by_key(|exemplar| exemplar.timestamp);
    }
}
