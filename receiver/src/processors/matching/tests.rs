//! Which items are meant.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use serde_json::json;

use super::*;
use crate::metric::pairs;

fn selection(include: serde_json::Value, exclude: serde_json::Value) -> Result<Selection, String> {
    let config = |json| serde_json::from_value(json).expect("of the right types");
    Selection::new(config(include), config(exclude)).map_err(|wrong| wrong.0[0].message.clone())
}

/// Whether the item is meant that has everything.
fn includes(include: serde_json::Value) -> (bool, bool, bool) {
    let selection = selection(include, json!(null)).expect("valid");
    let resource = pairs(&[("service.name", "shop"), ("host.name", "one")]);
    let mut attributes = pairs(&[("a", "text"), ("b", "x")]);
    attributes[1].value = Some(AnyValue { value: Some(Value::IntValue(7)) });
    let scope =
        InstrumentationScope { name: "lib".into(), version: "1.2".into(), ..Default::default() };
    let body = Some(AnyValue { value: Some(Value::StringValue("it failed".into())) });
    let log = LogRecord {
        severity_text: "ERROR".into(),
        severity_number: 17,
        body,
        ..Default::default()
    };
    let span = Span { name: "GET /".into(), kind: 2, ..Default::default() };
    let of = |kind| {
        let (resource, attributes) = (&resource[..], &attributes[..]);
        selection.means(&Item { resource, scope: Some(&scope), attributes, kind })
    };
    (of(Kind::Point("m.one")), of(Kind::Log(&log)), of(Kind::Span(&span)))
}

const ALL: (bool, bool, bool) = (true, true, true);
const NONE: (bool, bool, bool) = (false, false, false);

#[test]
fn each_property_is_asked_of_the_items_that_have_it() {
    let strict = |key: &str, value| includes(json!({"match_type": "strict", key: value}));
    let regexp = |key: &str, value| includes(json!({"match_type": "regexp", key: value}));
    assert_eq!(strict("services", json!(["x", "shop"])), ALL);
    assert_eq!(strict("services", json!(["sho"])), NONE);
    assert_eq!(regexp("services", json!(["sho"])), ALL);
    assert_eq!(strict("metric_names", json!(["m"])), (false, true, true));
    assert_eq!(regexp("metric_names", json!(["^m\\."])), ALL);
    assert_eq!(strict("log_bodies", json!(["failed"])), (true, false, true));
    assert_eq!(regexp("log_bodies", json!(["failed$"])), ALL);
    assert_eq!(strict("log_severity_texts", json!(["error"])), (true, false, true));
    assert_eq!(strict("log_severity_number", json!({"min": 18})), (true, false, true));
    assert_eq!(strict("log_severity_number", json!({"min": 17})), ALL);
    assert_eq!(strict("span_names", json!(["GET"])), (true, true, false));
    assert_eq!(strict("span_kinds", json!(["SPAN_KIND_SERVER"])), ALL);
    assert_eq!(strict("span_kinds", json!(["SPAN_KIND_CLIENT"])), (true, true, false));
}

#[test]
fn what_a_signal_does_not_have_is_a_mistake() {
    let all = json!({
        "match_type": "strict", "services": ["a"], "attributes": [{"key": "a"}],
        "resources": [{"key": "a"}], "libraries": [{"name": "a"}], "metric_names": ["a"],
        "span_names": ["a"], "span_kinds": ["SPAN_KIND_SERVER"], "log_bodies": ["a"],
        "log_severity_texts": ["a"], "log_severity_number": {"min": 1},
    });
    let selection = selection(json!(null), all).expect("valid somewhere");
    let said = |signal| {
        let wrong = selection.unsuited(signal).0.into_iter();
        wrong.map(|m| format!("{}: {}", m.path, m.message)).collect::<Vec<_>>()
    };
    let logs = ["log_bodies", "log_severity_texts", "log_severity_number"];
    let of = |keys: &[&str], message: &dyn Fn(&str) -> String| {
        keys.iter().map(|key| format!("exclude::{key}: {}", message(key))).collect::<Vec<_>>()
    };
    let spans = ["span_names", "span_kinds"];
    let keys = [&["services", "attributes", "libraries"], &spans[..], &logs[..]].concat();
    let text = "\"span_names\", \"span_kinds\", \"log_bodies\", \"log_severity_texts\", \
                \"log_severity_number\", \"services\", \"attributes\" and \"libraries\" are not \
                valid for metrics";
    assert_eq!(said(Signal::Metrics), of(&keys, &|_| text.to_owned()));
    let keys = ["services", "span_names", "span_kinds", "metric_names"];
    let text = "services, span_names, span_kinds and metric_names are not valid for log records";
    assert_eq!(said(Signal::Logs), of(&keys, &|_| text.to_owned()));
    let keys = [&logs[..], &["metric_names"]].concat();
    assert_eq!(
        said(Signal::Traces),
        of(&keys, &|key| format!("{key} should not be specified for trace spans"))
    );
}

#[test]
fn attributes_resources_and_libraries_must_all_match() {
    let strict = |key: &str, value| includes(json!({"match_type": "strict", key: value}));
    let regexp = |key: &str, value| includes(json!({"match_type": "regexp", key: value}));
    assert_eq!(strict("attributes", json!([{"key": "a"}])), ALL);
    assert_eq!(strict("attributes", json!([{"key": "a"}, {"key": "c"}])), NONE);
    assert_eq!(strict("attributes", json!([{"key": "b", "value": 7}])), ALL);
    assert_eq!(strict("attributes", json!([{"key": "b", "value": "7"}])), NONE);
    assert_eq!(regexp("attributes", json!([{"key": "b", "value": "^7$"}])), ALL);
    assert_eq!(regexp("attributes", json!([{"key": "a", "value": "^tex.$"}])), ALL);
    assert_eq!(strict("resources", json!([{"key": "host.name", "value": "one"}])), ALL);
    assert_eq!(strict("resources", json!([{"key": "host.name", "value": "two"}])), NONE);
    assert_eq!(strict("libraries", json!([{"name": "lib"}])), ALL);
    assert_eq!(strict("libraries", json!([{"name": "lib", "version": ""}])), NONE);
    assert_eq!(regexp("libraries", json!([{"name": "l.b", "version": "^1"}])), ALL);
}

#[test]
fn exclude_is_asked_after_include() {
    let strict = |value: &str| json!({"match_type": "strict", "metric_names": [value]});
    let item = |kind| Item { resource: &[], scope: None, attributes: &[], kind };
    let both = selection(json!({"match_type": "regexp", "metric_names": ["^a"]}), strict("ab"))
        .expect("valid");
    let means = |name| both.means(&item(Kind::Point(name)));
    assert_eq!(["a", "ab", "b"].map(means), [true, false, false]);
    let service = selection(json!(null), json!({"match_type": "regexp", "services": ["nil"]}));
    let service = service.expect("valid");
    assert!(!service.means(&item(Kind::Point("a"))), "no service is the Collector's text");
    assert!(Selection::default().is_all());
}

#[test]
fn mistakes_have_the_collector_s_text() {
    let error = |include| selection(include, json!(null)).expect_err("wrong");
    assert_eq!(
        error(json!({"match_type": "strict"})),
        "at least one of \"attributes\", \"libraries\",  or \"resources\" field must be specified"
    );
    assert_eq!(
        error(json!({"match_type": "exact", "span_names": ["a"]})),
        "error creating span name filters: unrecognized match_type: 'exact', valid types are: \
         [regexp strict]"
    );
    let regexp = error(json!({"match_type": "regexp", "services": ["["]}));
    assert!(regexp.starts_with("error creating service name filters: error parsing regexp: "));
    assert_eq!(
        error(json!({"match_type": "regexp", "attributes": [{"key": "a", "value": 1}]})),
        "error creating attribute filters: match_type=regexp for \"a\" only supports Str, but \
         found Int"
    );
    assert_eq!(
        error(json!({"match_type": "strict", "resources": [{"value": 1}]})),
        "error creating resource filters: can't have empty key in the list of attributes"
    );
    let kinds = error(json!({"match_type": "strict", "span_kinds": ["server"]}));
    assert!(kinds.ends_with("SPAN_KIND_PRODUCER SPAN_KIND_SERVER]"), "{kinds}");
}
