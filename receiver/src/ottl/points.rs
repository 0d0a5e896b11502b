//! What the paths of a data point lead to, whatever its type.

use opentelemetry_proto::tonic::metrics::v1::{
    exponential_histogram_data_point::Buckets, number_data_point::Value,
};

use super::{
    Point,
    compare::Any,
    names::Field,
    path::{map, nanos, time},
};

macro_rules! each {
    ($point:expr, $p:ident => $of:expr) => {
        match $point {
            Point::Number($p) => $of,
            Point::Histogram($p) => $of,
            Point::Exponential($p) => $of,
            Point::Summary($p) => $of,
        }
    };
}

/// What a field of the point is; nil if its type does not have it, and nothing if it is no field of points.
pub fn of_point<'a>(field: Field, point: Point<'a>) -> Option<Any<'a>> {
    Some(match (field, point) {
        (Field::PointAttributes, _) => map(each!(point, p => &p.attributes)),
        (Field::PointFlags, _) => Any::Int(each!(point, p => p.flags).into()),
        (Field::PointStart, _) => nanos(each!(point, p => p.start_time_unix_nano)),
        (Field::PointStartTime, _) => time(each!(point, p => p.start_time_unix_nano)),
        (Field::PointTime, _) => nanos(each!(point, p => p.time_unix_nano)),
        (Field::PointTimeTime, _) => time(each!(point, p => p.time_unix_nano)),
        // A number of the other type, or none, reads as 0, as the Collector has it.
        (Field::PointDouble, Point::Number(p)) => Any::Double(match p.value {
            Some(Value::AsDouble(value)) => value,
            _ => 0.0,
        }),
        (Field::PointInt, Point::Number(p)) => Any::Int(match p.value {
            Some(Value::AsInt(value)) => value,
            _ => 0,
        }),
        (Field::PointCount, Point::Histogram(p)) => nanos(p.count),
        (Field::PointCount, Point::Exponential(p)) => nanos(p.count),
        (Field::PointCount, Point::Summary(p)) => nanos(p.count),
        (Field::PointSum, Point::Histogram(p)) => Any::Double(p.sum.unwrap_or(0.0)),
        (Field::PointSum, Point::Exponential(p)) => Any::Double(p.sum.unwrap_or(0.0)),
        (Field::PointSum, Point::Summary(p)) => Any::Double(p.sum),
        (Field::PointBounds, Point::Histogram(p)) => {
            Any::List(p.explicit_bounds.iter().map(|bound| Any::Double(*bound)).collect())
        }
        (Field::PointBuckets, Point::Histogram(p)) => counts(&p.bucket_counts),
        (Field::PointScale, Point::Exponential(p)) => Any::Int(p.scale.into()),
        (Field::PointZeroCount, Point::Exponential(p)) => nanos(p.zero_count),
        (Field::PointPositive | Field::PointNegative, Point::Exponential(_)) => {
            Any::Held(field, None)
        }
        (Field::PointPositiveOffset, Point::Exponential(p)) => offset(p.positive.as_ref()),
        (Field::PointNegativeOffset, Point::Exponential(p)) => offset(p.negative.as_ref()),
        (Field::PointPositiveBuckets, Point::Exponential(p)) => buckets(p.positive.as_ref()),
        (Field::PointNegativeBuckets, Point::Exponential(p)) => buckets(p.negative.as_ref()),
        (Field::PointQuantiles, Point::Summary(p)) => {
            Any::Held(field, Some(p.quantile_values.len()))
        }
        (Field::PointExemplars, Point::Number(p)) => Any::Held(field, Some(p.exemplars.len())),
        (Field::PointExemplars, Point::Histogram(p)) => Any::Held(field, Some(p.exemplars.len())),
        (Field::PointExemplars, Point::Exponential(p)) => Any::Held(field, Some(p.exemplars.len())),
        (
            Field::PointDouble
            | Field::PointInt
            | Field::PointCount
            | Field::PointSum
            | Field::PointBounds
            | Field::PointBuckets
            | Field::PointScale
            | Field::PointZeroCount
            | Field::PointPositive
            | Field::PointPositiveOffset
            | Field::PointPositiveBuckets
            | Field::PointNegative
            | Field::PointNegativeOffset
            | Field::PointNegativeBuckets
            | Field::PointQuantiles
            | Field::PointExemplars,
            _,
        ) => Any::Nil,
        _ => return None,
    })
}

/// A side of an exponential histogram that is absent is empty.
fn offset(side: Option<&Buckets>) -> Any<'static> {
    Any::Int(side.map_or(0, |side| side.offset.into()))
}

fn buckets(side: Option<&Buckets>) -> Any<'static> {
    counts(side.map_or(&[], |side| &side.bucket_counts))
}

fn counts(all: &[u64]) -> Any<'static> {
    Any::List(all.iter().copied().map(nanos).collect())
}
