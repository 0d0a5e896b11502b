//! What is changed in a metric.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
    },
};

use super::{
    aggregate::{Aggregation, aggregate},
    each,
    filter::{Filter, text},
};
use crate::{metric::key_value, processors::attributes::each_point, value};

/// A change of a metric.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    AddLabel {
        label: String,
        value: String,
    },
    UpdateLabel {
        label: String,
        new: Option<String>,
        values: HashMap<String, String>,
    },
    DeleteLabelValue {
        label: String,
        value: String,
    },
    ToggleType,
    Scale(f64),
    AggregateLabels {
        keep: Vec<String>,
        aggregation: Aggregation,
    },
    AggregateLabelValues {
        label: String,
        values: Vec<String>,
        new: String,
        aggregation: Aggregation,
    },
}

/// An attribute whose value is a text.
pub(super) fn put(attributes: &mut Vec<KeyValue>, key: &str, text: &str) {
    let new = any_value::Value::StringValue(text.to_owned());
    match attributes.iter_mut().find(|a| a.key == key) {
        Some(known) => known.value = Some(AnyValue { value: Some(new) }),
        None => attributes.push(key_value(key, new)),
    }
}

impl Operation {
    /// Changes the metric. Changes of which points there are need that `whole` is meant.
    pub(super) fn apply(&self, metric: &mut Metric, filter: &Filter, whole: bool) {
        match self {
            Self::UpdateLabel { label, new, values } => each_point(metric, &mut |attributes| {
                if filter.means(attributes) {
                    update(attributes, label, new.as_deref(), values);
                }
            }),
            Self::ToggleType => toggle(metric, filter),
            Self::Scale(by) => scale(metric, filter, *by),
            _ if !whole => {}
            Self::AddLabel { label, value } => each_point(metric, &mut |attributes| {
                if !attributes.iter().any(|a| a.key == *label) {
                    put(attributes, label, value);
                }
            }),
            Self::DeleteLabelValue { label, value } => {
                let has = |attributes: &[KeyValue]| {
                    attributes.iter().any(|a| a.key == *label) && text(attributes, label) == value
                };
                each!(&mut metric.data, d => d.data_points.retain(|p| !has(&p.attributes)), ());
            }
            Self::AggregateLabels { keep, aggregation } => {
                each_point(metric, &mut |attributes| attributes.retain(|a| keep.contains(&a.key)));
                metric.data = aggregate(metric.data.take(), *aggregation);
            }
            Self::AggregateLabelValues { label, values, new, aggregation } => {
                each_point(metric, &mut |attributes| {
                    if value::get(attributes, label).is_some()
                        && values.iter().any(|value| value == text(attributes, label))
                    {
                        put(attributes, label, new);
                    }
                });
                metric.data = aggregate(metric.data.take(), *aggregation);
            }
        }
    }
}

fn update(
    attributes: &mut Vec<KeyValue>,
    label: &str,
    new: Option<&str>,
    values: &HashMap<String, String>,
) {
    if !attributes.iter().any(|a| a.key == label) {
        return;
    }
    let value = values.get(text(attributes, label));
    if let Some(new) = new.filter(|new| *new != label) {
        // One that has the new key already makes room.
        attributes.retain(|a| a.key != new);
        for attribute in attributes.iter_mut().filter(|a| a.key == label) {
            new.clone_into(&mut attribute.key);
        }
    }
    if let Some(value) = value {
        put(attributes, new.unwrap_or(label), value);
    }
}

fn toggle(metric: &mut Metric, filter: &Filter) {
    let points = match &mut metric.data {
        Some(Data::Gauge(data)) => &mut data.data_points,
        Some(Data::Sum(data)) => &mut data.data_points,
        _ => return,
    };
    for point in points.iter_mut().filter(|p| filter.means(&p.attributes)) {
        point.value = point.value.map(|value| match value {
            Value::AsInt(value) => Value::AsDouble(value as f64),
            Value::AsDouble(value) => Value::AsInt(value as i64),
        });
    }
}

fn scale(metric: &mut Metric, filter: &Filter, by: f64) {
    let points = match &mut metric.data {
        Some(Data::Gauge(data)) => &mut data.data_points,
        Some(Data::Sum(data)) => &mut data.data_points,
        Some(Data::Histogram(data)) => {
            let meant = data.data_points.iter_mut().filter(|p| filter.means(&p.attributes));
            return meant.for_each(|point| scale_histogram(point, by));
        }
        Some(Data::ExponentialHistogram(data)) => {
            let meant = data.data_points.iter_mut().filter(|p| filter.means(&p.attributes));
            return meant.for_each(|point| scale_exponential(point, by));
        }
        Some(Data::Summary(_)) | None => return,
    };
    for point in points.iter_mut().filter(|p| filter.means(&p.attributes)) {
        point.value = point.value.map(|value| match value {
            Value::AsInt(value) => Value::AsInt((value as f64 * by) as i64),
            Value::AsDouble(value) => Value::AsDouble(value * by),
        });
    }
}

fn scale_histogram(point: &mut HistogramDataPoint, by: f64) {
    for value in [&mut point.sum, &mut point.min, &mut point.max].into_iter().flatten() {
        *value *= by;
    }
    point.explicit_bounds.iter_mut().for_each(|bound| *bound *= by);
    scale_exemplars(&mut point.exemplars, by);
}

fn scale_exponential(point: &mut ExponentialHistogramDataPoint, by: f64) {
    for value in [&mut point.sum, &mut point.min, &mut point.max].into_iter().flatten() {
        *value *= by;
    }
    point.zero_threshold *= by;
    for buckets in [&mut point.positive, &mut point.negative].into_iter().flatten() {
        if !buckets.bucket_counts.is_empty() {
            shift(buckets, point.scale, by);
        }
    }
    scale_exemplars(&mut point.exemplars, by);
}

/// Moves buckets to where the middle of the first one is then: their number and widths stay.
fn shift(buckets: &mut Buckets, scale: i32, by: f64) {
    let per_octave = f64::from(scale).exp2();
    let base = per_octave.recip().exp2();
    // Relative to the first bucket's lower bound, so that no index is too far out to be computed.
    let moved = (((1.0 + base) / 2.0).log2() + by.log2()) * per_octave;
    if moved.is_finite() {
        let offset = f64::from(buckets.offset) + moved.ceil() - 1.0;
        buckets.offset = offset as i32;
    }
}

fn scale_exemplars(exemplars: &mut [Exemplar], by: f64) {
    for exemplar in exemplars {
        exemplar.value = exemplar.value.map(|value| match value {
            exemplar::Value::AsInt(value) => exemplar::Value::AsInt((value as f64 * by) as i64),
            exemplar::Value::AsDouble(value) => exemplar::Value::AsDouble(value * by),
        });
    }
}
