//! Series that a change of the configuration ends: whoever keeps the last value of each is told.

use std::{collections::BTreeSet, mem, time::SystemTime};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        ExponentialHistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, metric::Data,
    },
};
use prost::Message as _;

use crate::{
    batch::Batch,
    metric::{NO_RECORDED_VALUE, nanos},
};

/// Adds to a collection that the series of an earlier one, which it does not have, have ended.
pub(super) fn add(before: Batch, now: &mut Batch) {
    let (Batch::Metrics(before), Batch::Metrics(now)) = (before, now) else { return };
    let time = nanos(SystemTime::now());
    let scope = now.resource_metrics.first_mut().and_then(|of| of.scope_metrics.first_mut());
    let Some(scope) = scope else { return };
    for mut metric in metrics(before.resource_metrics) {
        let place = scope.metrics.iter().position(|there| there.name == metric.name);
        match place.map(|place| &mut scope.metrics[place]) {
            Some(there) => {
                let (Some(data), Some(there)) = (metric.data, &mut there.data) else { continue };
                end(data, there, time);
            }
            None => {
                let Some(mut data) = metric.data.take() else { continue };
                let mut ended = emptied(&mut data);
                end(data, &mut ended, time);
                scope.metrics.push(Metric { data: Some(ended), ..metric });
            }
        }
    }
}

fn metrics(of: Vec<ResourceMetrics>) -> impl Iterator<Item = Metric> {
    let scopes = of.into_iter().flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics)
}

/// The same kind of data without the points, which stay where they were.
fn emptied(data: &mut Data) -> Data {
    fn without<P, D: Clone>(data: &mut D, points: fn(&mut D) -> &mut Vec<P>) -> D {
        let taken = mem::take(points(data));
        let empty = data.clone();
        *points(data) = taken;
        empty
    }
    match data {
        Data::Gauge(data) => Data::Gauge(without(data, |data| &mut data.data_points)),
        Data::Sum(data) => Data::Sum(without(data, |data| &mut data.data_points)),
        Data::Histogram(data) => Data::Histogram(without(data, |data| &mut data.data_points)),
        Data::ExponentialHistogram(data) => {
            Data::ExponentialHistogram(without(data, |data| &mut data.data_points))
        }
        Data::Summary(data) => Data::Summary(without(data, |data| &mut data.data_points)),
    }
}

/// The kinds that the receiver has: see [`crate::metric::Kind`].
fn end(before: Data, now: &mut Data, time: u64) {
    match (before, now) {
        (Data::Gauge(before), Data::Gauge(now)) => {
            points(before.data_points, &mut now.data_points, time);
        }
        (Data::Sum(before), Data::Sum(now)) => {
            points(before.data_points, &mut now.data_points, time);
        }
        (Data::ExponentialHistogram(before), Data::ExponentialHistogram(now)) => {
            points(before.data_points, &mut now.data_points, time);
        }
        _ => {}
    }
}

fn points<P: Point>(before: Vec<P>, now: &mut Vec<P>, time: u64) {
    let there: BTreeSet<Vec<u8>> = now.iter().map(series).collect();
    let gone = before.into_iter().filter(|point| !point.has_ended());
    now.extend(gone.filter(|point| !there.contains(&series(point))).map(|point| point.ended(time)));
}

/// What tells a series from others of its metric.
fn series<P: Point>(point: &P) -> Vec<u8> {
    let attributes = point.attributes().iter();
    attributes.flat_map(|attribute| attribute.encode_length_delimited_to_vec()).collect()
}

trait Point: Sized {
    fn attributes(&self) -> &[KeyValue];
    fn has_ended(&self) -> bool;
    /// One that says so.
    fn ended(self, time: u64) -> Self;
}

macro_rules! point {
    ($point:ident) => {
        impl Point for $point {
            fn attributes(&self) -> &[KeyValue] {
                &self.attributes
            }
            fn has_ended(&self) -> bool {
                self.flags & NO_RECORDED_VALUE != 0
            }
            fn ended(self, time: u64) -> Self {
                Self {
                    attributes: self.attributes,
                    start_time_unix_nano: self.start_time_unix_nano,
                    time_unix_nano: time,
                    flags: NO_RECORDED_VALUE,
                    ..Default::default()
                }
            }
        }
    };
}

point!(NumberDataPoint);
point!(ExponentialHistogramDataPoint);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metric::{Exponential, Kind, Metric, Points};

    const fn metric(name: &'static str, kind: Kind) -> Metric {
        Metric { name, unit: "1", kind, description: "", caveat: "", attributes: &[] }
    }
    const COUNT: Metric = metric("count", Kind::Counter);
    const GAUGE: Metric = metric("gauge", Kind::Gauge);
    const TIMES: Metric = metric("times", Kind::ExponentialHistogram);

    fn batch(emit: impl FnOnce(&mut Points<'_>)) -> Batch {
        let off = BTreeSet::new();
        let mut points = Points::new(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH, &off);
        emit(&mut points);
        points.into_batch(&[], "scope")
    }

    #[test]
    fn what_is_no_longer_there_has_ended_and_nothing_else() {
        let before = batch(|points| {
            points.counter(&COUNT, &[("a", "stays")], 1);
            points.counter(&COUNT, &[("a", "goes")], 2);
            points.ended(|points| points.counter(&COUNT, &[("a", "gone")], 3));
            points.gauge(&GAUGE, &[], 4);
            let (offset, buckets) = (0, vec![1]);
            let times = Exponential { scale: 0, sum: 1.0, zero_count: 0, offset, buckets };
            points.histogram(&TIMES, &[], times);
        });
        let mut now = batch(|points| points.counter(&COUNT, &[("a", "stays")], 5));
        add(before, &mut now);
        let Batch::Metrics(now) = now else { panic!("{now:?}") };
        let all: Vec<_> = metrics(now.resource_metrics).collect();
        let [count, gauge, times] = &all[..] else { panic!("{all:?}") };
        let Some(Data::Sum(sum)) = &count.data else { panic!("{count:?}") };
        let flags: Vec<_> = sum.data_points.iter().map(|point| point.flags).collect();
        assert_eq!(flags, [0, NO_RECORDED_VALUE]);
        assert!(sum.is_monotonic && sum.data_points[1].value.is_none());
        assert!(sum.data_points[1].time_unix_nano > 0);
        let Some(Data::Gauge(gauge)) = &gauge.data else { panic!("{gauge:?}") };
        assert!(gauge.data_points[0].has_ended() && gauge.data_points[0].value.is_none());
        let Some(Data::ExponentialHistogram(times)) = &times.data else { panic!("{times:?}") };
        assert!(times.data_points[0].has_ended() && times.data_points[0].count == 0);
        assert_eq!(times.aggregation_temporality, 2);
    }
}
