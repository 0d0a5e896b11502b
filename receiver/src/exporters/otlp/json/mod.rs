//! OTLP as JSON, as the specification writes it: names in camelCase, ids in hexadecimal, enums as
//! numbers, 64-bit integers as text, and what is no number as `"NaN"` or `"Infinity"`.

mod writer;

use serde::Serialize as _;

use self::writer::Writer;
use crate::batch::Batch;

/// Writes a batch.
pub fn write(batch: &Batch) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(1024);
    match batch {
        Batch::Metrics(request) => request.serialize(Writer(&mut text)),
        Batch::Logs(request) => request.serialize(Writer(&mut text)),
        Batch::Traces(request) => request.serialize(Writer(&mut text)),
    }?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::exporters::otlp::sample;

    fn written(batch: &Batch) -> Value {
        serde_json::from_slice(&write(batch).unwrap()).unwrap()
    }

    #[test]
    fn numbers_are_written_as_the_specification_says() {
        let all = written(&sample::metrics());
        let metrics = &all["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let points = metrics[0]["gauge"]["dataPoints"].as_array().unwrap();
        assert_eq!(points[0]["asInt"], "9223372036854775807");
        assert_eq!(points[0]["startTimeUnixNano"], "1700000000123456788");
        assert_eq!(points[0]["exemplars"][0]["traceId"], "000102030405060708090a0b0c0dfeff");
        assert_eq!(points[0]["exemplars"][0]["spanId"], "10111213141516ff");
        let doubles: Vec<_> = points[1..].iter().map(|point| &point["asDouble"]).collect();
        assert_eq!(doubles, [&json!(0.1), &json!("NaN"), &json!("-Infinity")]);
        assert_eq!(metrics[1]["sum"]["aggregationTemporality"], 2);
        let point = &metrics[2]["histogram"]["dataPoints"][0];
        assert_eq!(point["bucketCounts"], json!(["0", "18446744073709551615"]));
        assert_eq!(point["count"], "18446744073709551615");
        let bytes = &points[0]["attributes"][7]["value"]["bytesValue"];
        assert_eq!(bytes, "AAH+/w==");
    }

    #[test]
    fn what_is_absent_is_left_out() {
        for batch in sample::all() {
            let text = String::from_utf8(write(&batch).unwrap()).unwrap();
            assert!(!text.contains("null"), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let Batch::Traces(request) = sample::traces() else { unreachable!() };
        assert_eq!(serde_json::from_value::<_>(written(&sample::traces())).ok(), Some(request));
        let Batch::Logs(request) = sample::logs() else { unreachable!() };
        assert_eq!(serde_json::from_value::<_>(written(&sample::logs())).ok(), Some(request));
    }
}
