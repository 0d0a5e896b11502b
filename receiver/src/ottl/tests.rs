//! Conditions, parsed and asked.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    metrics::v1::{
        ExponentialHistogramDataPoint, Gauge, NumberDataPoint, Sum, SummaryDataPoint, metric::Data,
        number_data_point,
    },
    trace::v1::Status,
};

use super::*;
use crate::{metric::pairs, value};

fn holds(context: Context, of: Of<'_>, condition: &str) -> bool {
    let resource = Resource { attributes: pairs(&[("host", "one")]), ..Default::default() };
    let scope = InstrumentationScope { name: "lib".into(), ..Default::default() };
    let conditions = Conditions::new(context, &[condition.to_owned()], ErrorMode::Propagate);
    let conditions = conditions.unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let above = Above { resource: Some(&resource), scope: Some(&scope), ..Default::default() };
    let item = Item { above, of };
    conditions.hold(&item).unwrap_or_else(|failure| panic!("{failure}"))
}

fn error(context: Context, condition: &str) -> String {
    let wrong =
        Conditions::new(context, &["true".to_owned(), condition.to_owned()], ErrorMode::Ignore);
    let mut wrong = wrong.err().unwrap_or_else(|| panic!("{condition} is taken"));
    assert_eq!((wrong.len(), wrong[0].0), (1, 1));
    let prefix = format!("unable to parse OTTL condition {condition:?}: ");
    let text = wrong.remove(0).1;
    text.strip_prefix(&prefix).unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn attribute(value: Value) -> Vec<KeyValue> {
    let mut attributes = pairs(&[("k", "")]);
    attributes[0].value = Some(AnyValue { value: Some(value) });
    attributes
}

#[test]
fn values_compare_as_in_the_collector() {
    let log = |value| LogRecord { attributes: attribute(value), ..Default::default() };
    let (text, int, double) = (
        log(Value::StringValue("b".into())),
        log(Value::IntValue(5)),
        log(Value::DoubleValue(5.5)),
    );
    let ask = |log: &LogRecord, rest: &str| {
        holds(Context::Log, Of::Log(log), &format!("attributes[\"k\"] {rest}"))
    };
    for yes in ["== \"b\"", "!= \"a\"", "> \"a\"", ">= \"b\"", "< \"c\"", "!= 5", "!= nil"] {
        assert!(ask(&text, yes), "b {yes}");
    }
    for no in ["== 5", "> 5", "<= 5", "== nil", "<= nil", "< \"b\"", "== true"] {
        assert!(!ask(&text, no), "b {no}");
    }
    for yes in ["== 5", "== 5.0", "< 5.5", ">= -7", "!= \"5\""] {
        assert!(ask(&int, yes), "5 {yes}");
    }
    for yes in ["> 5", "<= 5.5", "< 1.0e3"] {
        assert!(ask(&double, yes), "5.5 {yes}");
    }
    let of = Of::Log(&text);
    for yes in ["attributes[\"x\"] == nil", "nil == attributes[\"x\"]", "attributes[\"x\"] <= nil"]
    {
        assert!(holds(Context::Log, of, yes), "{yes}");
    }
}

#[test]
fn and_binds_stronger_than_or_and_not_strongest() {
    let log = LogRecord::default();
    let ask = |condition: &str| holds(Context::Log, Of::Log(&log), condition);
    assert!(ask("true or false and false"));
    assert!(!ask("(true or false) and false"));
    assert!(ask("not false and true"));
    assert!(!ask("not (false or true)"));
    assert!(ask("not 1 == 2"));
    assert!(ask("IsMatch(\"abc\", \"^a\") == true"));
}

#[test]
fn metrics_and_points_have_their_paths() {
    let point = NumberDataPoint { attributes: pairs(&[("a", "1")]), ..Default::default() };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let metric = Metric {
        name: "m.one".into(),
        description: "d".into(),
        unit: "By".into(),
        data: Some(Data::Sum(sum)),
        ..Default::default()
    };
    let of_metric = [
        "name == \"m.one\" and metric.unit == \"By\" and description == \"d\"",
        "type == METRIC_DATA_TYPE_SUM and is_monotonic == true",
        "aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE",
        "resource.attributes[\"host\"] == \"one\" and instrumentation_scope.name == \"lib\"",
        "HasAttrKeyOnDatapoint(\"a\") and not HasAttrKeyOnDatapoint(\"b\")",
        "HasAttrOnDatapoint(\"a\", \"1\") and not HasAttrOnDatapoint(\"a\", \"2\")",
        "IsMatch(name, \"^m\\\\.\")",
    ];
    for condition in of_metric {
        assert!(holds(Context::Metric, Of::Metric(About::of(&metric)), condition), "{condition}");
    }
    let point = NumberDataPoint {
        attributes: pairs(&[("a", "1")]),
        value: Some(number_data_point::Value::AsInt(7)),
        time_unix_nano: 9,
        ..Default::default()
    };
    let of_point = [
        "metric.name == \"m.one\" and metric.type == METRIC_DATA_TYPE_SUM",
        "attributes[\"a\"] == \"1\" and datapoint.attributes[\"b\"] == nil",
        "value_int == 7 and value_double == 0.0 and count == nil and time_unix_nano == 9",
        "flags == FLAG_NONE",
    ];
    for condition in of_point {
        let of = Of::Point(About::of(&metric), Point::Number(&point));
        assert!(holds(Context::DataPoint, of, condition), "{condition}");
    }
    let gauge = Metric { data: Some(Data::Gauge(Gauge::default())), ..Default::default() };
    assert!(holds(
        Context::Metric,
        Of::Metric(About::of(&gauge)),
        "is_monotonic == nil and type == 1"
    ));
}

#[test]
fn logs_spans_and_resources_have_their_paths() {
    let body = serde_json::json!({"a": [1, {"b": "c"}]});
    let log = LogRecord {
        body: Some(value::from_config(&body)),
        severity_number: 17,
        severity_text: "ERROR".into(),
        trace_id: vec![0xab, 1],
        ..Default::default()
    };
    let of_log = [
        "body[\"a\"][1][\"b\"] == \"c\" and body[\"x\"][\"y\"] == nil",
        "severity_number >= SEVERITY_NUMBER_ERROR and severity_text == \"ERROR\"",
        "trace_id.string == \"ab01\"",
        "IsMatch(body, \"b.*c\") and body != nil",
    ];
    for condition in of_log {
        assert!(holds(Context::Log, Of::Log(&log), condition), "{condition}");
    }
    let status = Status { code: 2, message: "bad".into() };
    let span = Span { name: "GET".into(), kind: 3, status: Some(status), ..Default::default() };
    let of_span = [
        "name == \"GET\" and kind == SPAN_KIND_CLIENT",
        "status.code == STATUS_CODE_ERROR and status.message == \"bad\"",
        "parent_span_id.string == \"0000000000000000\"",
    ];
    for condition in of_span {
        assert!(holds(Context::Span, Of::Span(&span), condition), "{condition}");
    }
    assert!(holds(Context::Resource, Of::Resource, "attributes[\"host\"] == \"one\""));
}

#[test]
fn what_is_not_understood_is_refused_with_its_position() {
    let cases = [
        (
            "name == ",
            "condition has invalid syntax: 1:9: unexpected token \"<EOF>\" (expected Field (\".\" Field)*)",
        ),
        (
            "name",
            "condition has invalid syntax: 1:5: unexpected token \"<EOF>\" (expected \
             <opcomparison> Value)",
        ),
        (
            "(name == \"a\"",
            "condition has invalid syntax: 1:13: unexpected token \"<EOF>\" \
                            (expected \")\")",
        ),
        ("name == \"a\" \"b\"", "condition has invalid syntax: 1:13: unexpected token \"b\""),
        ("name == \"a", "condition has invalid syntax: 1:9: lexer: invalid input text \"\\\"a\""),
        (
            "name == \"\\.\"",
            "condition has invalid syntax: 1:9: invalid quoted string \"\\\"\\\\.\\\"\": invalid syntax",
        ),
        (
            "name = \"a\"",
            "condition has invalid syntax: 1:6: unexpected token \"=\" (expected <opcomparison> Value)",
        ),
        (
            "not not true",
            "condition has invalid syntax: 1:5: unexpected token \"not\" (expected Field (\".\" Field)*)",
        ),
        (
            "1 == 99999999999999999999",
            "condition has invalid syntax: 1:6: failed to conform: strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        ("UnknownFunc(body)", "undefined function \"UnknownFunc\" (at 1:1)"),
        (
            "set(name, 1)",
            "condition has invalid syntax: 1:13: unexpected token \"<EOF>\" (expected <opcomparison> Value)",
        ),
        ("type == METRIC_DATA_TYPE_X", "enum symbol, METRIC_DATA_TYPE_X, not found (at 1:9)"),
        (
            "IsMatch(name)",
            "error while parsing arguments for call to \"IsMatch\": incorrect number of arguments. \
             Expected: 2 Received: 1 (at 1:1)",
        ),
        (
            "IsMatch(name, \"(\")",
            "couldn't create function: the regex pattern supplied to IsMatch '\"(\"' is not a valid pattern: error parsing regexp: missing closing ): `(` (at 1:1)",
        ),
        (
            "true and no.such == 1",
            "segment \"no\" from path \"no.such\" is not a valid path nor a valid OTTL keyword for the metric context - review https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/pkg/ottl/contexts/ottlmetric to see all valid paths (at 1:10)",
        ),
        (
            "name[\"a\"] == 1",
            "the keys indexing \"name\" were not used by the context - this likely means you are trying to index a path that does not support indexing (at 1:1)",
        ),
        (
            "resource.nope == nil",
            "segment \"nope\" from path \"resource.nope\" is not a valid path nor a valid OTTL keyword for the metric context - review https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/pkg/ottl/contexts/ottlmetric to see all valid paths (at 1:1)",
        ),
        (
            "invalid() == 1",
            "converter names must start with an uppercase letter but got 'invalid' (at 1:1)",
        ),
        (
            "resource.attributes[test] == \"pass\"",
            "segment \"test\" from path \"test\" is not a valid path nor a valid OTTL keyword for the metric context - review https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/pkg/ottl/contexts/ottlmetric to see all valid paths (at 1:21)",
        ),
        (
            "SpanID(0x01) == nil",
            "couldn't create function: SpanID: could not decode ID: invalid length: expected 8 or 16 \
             bytes, got 1 (at 1:1)",
        ),
        (
            "ToLowerCase(nil) == \"a\"",
            "error while parsing arguments for call to \"ToLowerCase\": invalid argument at position 0: \
             expected string but got nil (at 1:1)",
        ),
        (
            "Concat(vals=[\"a\"], \"-\") == \"a\"",
            "error while parsing arguments for call to \"Concat\": unnamed argument used after named \
             argument (at 1:1)",
        ),
        (
            "1 + nil == 1",
            "condition has invalid syntax: 1:5: unexpected token \"nil\" (expected Field (\".\" Field)*)",
        ),
        (
            "\"a\" + \"b\" == 1",
            "condition has invalid syntax: 1:5: unexpected token \"+\" (expected <opcomparison> Value)",
        ),
        (
            "GetXML(name, \"/a\") == nil",
            "undefined function \"GetXML\": Fathom does not have it (at 1:1)",
        ),
        ("SPAN_KIND_CLIENT == 3", "enum symbol, SPAN_KIND_CLIENT, not found (at 1:1)"),
        (
            "Len() == 1",
            "error while parsing arguments for call to \"Len\": incorrect number of arguments. \
             Expected: 1 Received: 0 (at 1:1)",
        ),
        (
            "1 + == 2",
            "condition has invalid syntax: 1:5: unexpected token \"==\" (expected Field (\".\" Field)*)",
        ),
        (
            "(1 + 2 == 3",
            "condition has invalid syntax: 1:12: unexpected token \"<EOF>\" (expected \")\")",
        ),
        (
            "name + 1",
            "condition has invalid syntax: 1:9: unexpected token \"<EOF>\" (expected <opcomparison> Value)",
        ),
    ];
    for (condition, expected) in cases {
        assert_eq!(error(Context::Metric, condition), expected, "{condition}");
    }
    let elsewhere = error(Context::Log, "HasAttrKeyOnDatapoint(\"a\")");
    assert_eq!(elsewhere, "undefined function \"HasAttrKeyOnDatapoint\" (at 1:1)");
    assert!(error(Context::Resource, "instrumentation_scope.name == \"a\"").contains("resource"));
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let deep = ["(", "IsMatch(", "-", "["].map(|part| part.repeat(10_000));
    for deep in deep {
        assert!(error(Context::Log, &deep).starts_with("nested too deeply"));
    }
    let many = vec!["true"; 10_000].join(" and ");
    assert!(holds(Context::Resource, Of::Resource, &many));
}

#[test]
fn numbers_are_calculated() {
    let log = LogRecord { attributes: attribute(Value::IntValue(6)), ..Default::default() };
    let ask = |condition: &str| holds(Context::Log, Of::Log(&log), condition);
    for yes in [
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "((1 + 2)) == 3 and (1 == 1)",
        "1-2 == -1",
        "5 - -2 == +7",
        "-(1 + 2) == -3",
        "7 / 2 == 3",
        "7 / 2.0 == 3.5",
        "attributes[\"k\"] / 4 + .5 == 1.5",
        "-attributes[\"k\"] == -6",
        "10 - 3 - 2 == 5",
        "not (1 + 1 == 3)",
        "(attributes[\"k\"] > 5 or false) and 2 * (attributes[\"k\"] - 5) == 2",
    ] {
        assert!(ask(yes), "{yes}");
    }
}

#[test]
fn converters_convert() {
    let values = serde_json::json!({"text": " a,b ", "list": ["x", 1], "map": {"a": {"b": true}},
        "int": "17", "double": 2.9, "bool": "true"});
    let Some(Value::KvlistValue(values)) = value::from_config(&values).value else { panic!("map") };
    let log = LogRecord { attributes: values.values, ..Default::default() };
    let yes = [
        "Len(attributes) == 6 and Len(attributes[\"list\"]) == 2 and Len(\"\u{e4}\") == 2",
        "Split(attributes[\"text\"], \",\")[1] == \"b \" and Split(\"a\", \",\")[0] == \"a\"",
        "Split(\"a,b\", \",\") == [\"a\", \"b\"] and Split(\"ab\", \"\") == [\"a\", \"b\"]",
        "Trim(attributes[\"text\"]) == \"a,b\" and Trim(\"xax\", \"x\") == \"a\"",
        "TrimPrefix(\"abc\", \"a\") == \"bc\" and TrimSuffix(\"abc\", \"a\") == \"abc\"",
        "ToUpperCase(\"aB\") == \"AB\" and ToLowerCase(\"aB\") == \"ab\"",
        "HasPrefix(\"abc\", \"ab\") and not HasSuffix(\"abc\", \"ab\")",
        "Int(attributes[\"int\"]) == 17 and Int(attributes[\"double\"]) == 2 and Int(\"x\") == nil",
        "Double(\"1.5\") == 1.5 and Double(true) == 1.0 and Int(false) == 0 and Double(2) == 2.0",
        "String(1) == \"1\" and String(nil) == nil and String([\"a\", 1]) == \"[\\\"a\\\",1]\"",
        "Bool(attributes[\"bool\"]) and Bool(0) == false and Bool(2.5) and Bool(\"x\") == nil",
        "Concat([\"a\", 1, nil, 2.5], \"-\") == \"a-1-<nil>-2.5\"",
        "Substring(\"abcd\", 1, 2) == \"bc\"",
        "IsString(\"a\") and not IsString(1) and IsInt(1) and IsDouble(1.0) and IsBool(true)",
        "IsMap(attributes) and IsMap(attributes[\"map\"]) and IsList(attributes[\"list\"])",
        "not IsString(nil) and not IsList(attributes) and not IsMap([1])",
        "ContainsValue(attributes[\"list\"], 1) and not ContainsValue([\"a\"], \"b\")",
        "attributes[\"list\"] == [\"x\", 1] and attributes[\"list\"] != [1, \"x\"]",
        "attributes[\"map\"][\"a\"][\"b\"] == true and attributes[\"map\"] == attributes[\"map\"]",
        "attributes != attributes[\"map\"] and attributes != nil and not (attributes < attributes)",
        "IsMatch(attributes[\"list\"], \"x\") and IsMatch(attributes, \"double\")",
        "trace_id == TraceID(0x00000000000000000000000000000000) or trace_id != nil",
    ];
    for condition in yes {
        assert!(holds(Context::Log, Of::Log(&log), condition), "{condition}");
    }
    let span = Span { span_id: vec![1, 2, 3, 4, 5, 6, 7, 8], ..Default::default() };
    let event = Event {
        name: "exception".into(),
        attributes: pairs(&[("a", "1")]),
        time_unix_nano: 5,
        ..Default::default()
    };
    let of_event = [
        "name == \"exception\" and spanevent.attributes[\"a\"] == \"1\"",
        "span.span_id == SpanID(0x0102030405060708) and event_index == 2 and time_unix_nano == 5",
        "scope.name == \"lib\" and resource.attributes[\"host\"] == \"one\"",
    ];
    for condition in of_event {
        let of = Of::Event(&span, &event, 2);
        assert!(holds(Context::SpanEvent, of, condition), "{condition}");
    }
    assert!(holds(Context::Span, Of::Span(&span), "IsRootSpan() and span_id != nil"));
    let long = Span {
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 3_500_000_000,
        ..Default::default()
    };
    let took = "end_time - start_time > Duration(\"2s\") and end_time < Now()";
    assert!(holds(Context::Span, Of::Span(&long), took));
    assert!(error(Context::Log, "IsRootSpan()").starts_with("undefined function"));
}

#[test]
fn what_fails_fails_the_condition_or_is_passed_over() {
    let log = LogRecord { attributes: pairs(&[("k", "v")]), ..Default::default() };
    let item = Item { above: Above::default(), of: Of::Log(&log) };
    for (condition, failure) in [
        ("1 / 0 == 1", "attempted to divide by 0"),
        ("1.0 / 0 == 1", "attempted to divide by 0"),
        ("attributes[\"k\"] + 1 == 1", "v must be int64, float64, time.Time or time.Duration"),
        ("1 + attributes[\"x\"] == 1", "<nil> must be int64 or float64"),
        ("-attributes[\"k\"] == 1", "unsupported unary minus operation on type string"),
        ("ToLowerCase(attributes[\"x\"]) == \"a\"", "expected string but got nil"),
        ("HasPrefix(flags, \"a\")", "expected string but got int64"),
        ("body[\"a\"] == nil", "log bodies of type Empty cannot be indexed"),
        ("Double(attributes) == 1", "unsupported type: pcommon.Map"),
        (
            "Substring(\"\", 0, 100) == \"test\"",
            "invalid range for substring function, start(0)+length(100) cannot be greater than the \
             length of target string(0)",
        ),
        (
            "Substring(\"a\", -1, 1) == \"\"",
            "invalid start for substring function, -1 cannot be negative",
        ),
        (
            "span_id == SpanID(attributes[\"k\"])",
            "SpanID: could not decode ID: invalid length: expected 8 or 16 bytes, got 1",
        ),
        (
            "Trim(\"true\")",
            "value returned from Converter in constant expression must be bool but got string",
        ),
    ] {
        let list = [condition.to_owned(), "true".to_owned()];
        let hold = |mode| {
            let conditions = Conditions::new(Context::Log, &list, mode).expect("it can be read");
            conditions.hold(&item)
        };
        let expected = Err(format!("failed to eval condition: {condition}, {failure}"));
        assert_eq!(hold(ErrorMode::Propagate), expected);
        for mode in [ErrorMode::Ignore, ErrorMode::Silent] {
            assert_eq!(hold(mode), Ok(true), "the next one holds");
        }
    }
}

#[test]
fn what_a_condition_is_about_is_inferred() {
    let all = [Context::Resource, Context::Scope, Context::Metric, Context::DataPoint];
    let infer = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
        Conditions::inferred(&all, &list, ErrorMode::Ignore).map(|(context, _)| context)
    };
    for (list, context) in [
        (&["resource.attributes[\"a\"] == 1"][..], Context::Resource),
        (&["scope.name == \"a\" and resource.attributes[\"a\"] == 1"], Context::Scope),
        (&["metric.name == \"a\" or scope.name == \"b\""], Context::Metric),
        (&["HasAttrKeyOnDatapoint(\"a\")"], Context::Metric),
        (&["datapoint.value_int > 1 and metric.name == \"a\""], Context::DataPoint),
        (&["metric.name == \"a\"", "datapoint.count == 1"], Context::DataPoint),
    ] {
        assert_eq!(infer(list), Ok(context), "{list:?}");
    }
    let missing = "unable to parse OTTL condition \"name == \\\"a\\\"\": missing context name for path \
                   \"name\", possibly valid options are: \"metric.name\", \"scope.name\" (at 1:1)";
    assert_eq!(infer(&["name == \"a\""]), Err(vec![(0, missing.to_owned())]));
}

#[test]
fn what_holds_parts_can_be_counted_and_compared_with_nil() {
    let exemplars = vec![Default::default(); 2];
    let number = NumberDataPoint { exemplars, ..Default::default() };
    let gauge = Gauge { data_points: vec![number.clone()] };
    let metric = Metric { data: Some(Data::Gauge(gauge)), ..Default::default() };
    let summary =
        SummaryDataPoint { quantile_values: vec![Default::default(); 3], ..Default::default() };
    let exponential = ExponentialHistogramDataPoint::default();
    let about = About::of(&metric);
    for (point, condition) in [
        (Point::Number(&number), "exemplars != nil and Len(exemplars) == 2"),
        (Point::Number(&number), "quantile_values == nil and positive == nil and count == nil"),
        (Point::Number(&number), "value_int == 0 and value_double == 0.0"),
        (Point::Number(&number), "Len(metric.data_points) == 1 and metric.metadata == {}"),
        (Point::Summary(&summary), "Len(quantile_values) == 3 and exemplars == nil"),
        (Point::Exponential(&exponential), "positive != nil and positive == positive"),
        (Point::Exponential(&exponential), "positive != negative and positive.offset == 0"),
    ] {
        assert!(holds(Context::DataPoint, Of::Point(about, point), condition), "{condition}");
    }
    let span = Span { events: vec![Event::default()], kind: 3, ..Default::default() };
    for condition in [
        "Len(events) == 1 and links != nil and Len(links) == 0 and status != nil",
        "kind.string == \"Client\" and kind.deprecated_string == \"SPAN_KIND_CLIENT\"",
        "trace_state[\"a\"] == \"\"",
    ] {
        assert!(holds(Context::Span, Of::Span(&span), condition), "{condition}");
    }
    let above = Above { resource_schema: "r/1", scope_schema: "s/1", ..Default::default() };
    let asked = ["resource.schema_url == \"r/1\" and scope.schema_url == \"s/1\"".to_owned()];
    let asked = Conditions::new(Context::Span, &asked, ErrorMode::Propagate).expect("valid");
    assert_eq!(asked.hold(&Item { above, of: Of::Span(&span) }), Ok(true));
}
