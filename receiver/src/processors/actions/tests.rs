//! What the actions do, and what is wrong with them.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Proto;

use super::*;
use crate::metric::pairs;

fn actions(list: Value) -> Result<Actions, Mistakes> {
    Actions::new("actions", serde_json::from_value(list).expect("of the right types"))
}

fn applied(list: Value, before: &[(&str, &str)]) -> Vec<KeyValue> {
    let mut attributes = pairs(before);
    actions(list).expect("valid").apply(&mut attributes);
    attributes
}

#[test]
fn each_verb_does_what_it_says() {
    let one = |action: &str| serde_json::json!([{"key": "a", "action": action, "value": "new"}]);
    let (absent, present) = ([("b", "1")], [("a", "old"), ("b", "1")]);
    assert_eq!(applied(one("insert"), &absent), pairs(&[("b", "1"), ("a", "new")]));
    assert_eq!(applied(one("insert"), &present), pairs(&present));
    assert_eq!(applied(one("update"), &absent), pairs(&absent));
    assert_eq!(applied(one("UPDATE"), &present), pairs(&[("a", "new"), ("b", "1")]));
    assert_eq!(applied(one("upsert"), &absent), pairs(&[("b", "1"), ("a", "new")]));
    assert_eq!(applied(one("Upsert"), &present), pairs(&[("a", "new"), ("b", "1")]));
    let delete = serde_json::json!([{"key": "a", "action": "delete"}]);
    assert_eq!(applied(delete, &present), pairs(&absent));
}

#[test]
fn actions_run_in_order_and_copy() {
    let list = serde_json::json!([
        {"key": "c", "action": "insert", "from_attribute": "a"},
        {"key": "a", "action": "delete"},
        {"key": "d", "action": "insert", "from_attribute": "a"},
    ]);
    assert_eq!(applied(list, &[("a", "1")]), pairs(&[("c", "1")]));
}

#[test]
fn where_a_source_leads_to_nothing_the_default_is_given() {
    let list = serde_json::json!([
        {"key": "a", "action": "insert", "from_attribute": "x", "default_value": "1"},
        {"key": "b", "action": "upsert", "from_context": "metadata.x", "default_value": "2"},
        {"key": "c", "action": "insert", "default_value": "3"},
        {"key": "d", "action": "insert", "from_attribute": "a", "default_value": "4"},
        {"key": "e", "action": "update", "from_context": "auth.x"},
        {"key": "f", "action": "insert", "from_context": "client.address"},
    ]);
    let expected = [("b", "2"), ("e", "0"), ("a", "1"), ("c", "3"), ("d", "1"), ("f", "")];
    assert_eq!(applied(list, &[("b", "0"), ("e", "0")]), pairs(&expected));
}

#[test]
fn values_keep_their_type() {
    let list = serde_json::json!([{"key": "a", "action": "insert", "value": 7}]);
    let value = applied(list, &[]).remove(0).value.and_then(|v| v.value);
    assert_eq!(value, Some(Proto::IntValue(7)));
}

#[test]
fn delete_and_hash_take_keys_by_pattern() {
    let before = [("a.x", "1"), ("a.y", "2"), ("b", "3")];
    let delete = serde_json::json!([{"action": "delete", "pattern": "^a\\."}]);
    assert_eq!(applied(delete, &before), pairs(&[("b", "3")]));
    let both = serde_json::json!([{"action": "delete", "key": "b", "pattern": "x$"}]);
    assert_eq!(applied(both, &before), pairs(&[("a.y", "2")]));
    // printf 3 | sha256sum
    let three = "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce";
    let hash = serde_json::json!([{"action": "hash", "pattern": "b"}]);
    let expected = [("a.x", "1"), ("a.y", "2"), ("b", three)];
    assert_eq!(applied(hash, &before), pairs(&expected));
    let numbers = serde_json::json!([
        {"action": "insert", "key": "n", "value": 24},
        {"action": "hash", "key": "n"},
        {"action": "hash", "key": "absent"},
    ]);
    // printf '\x18\0\0\0\0\0\0\0' | sha256sum
    let hashed = "cbb032642036ec7043fa4529f06c9c9d8b12fa70ea6799a19ca8321a808d86fa";
    assert_eq!(applied(numbers, &[]), pairs(&[("n", hashed)]));
    // printf '' | sha256sum, and once more of that.
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let twice = "cd372fb85148700fa88095e3492d3f9f5beb43e555e5ff26d95f5a6adc36f8e6";
    let hash = serde_json::json!([{"action": "hash", "key": "n", "pattern": "^n"}]);
    assert_eq!(applied(hash, &[("n", ""), ("nn", "")]), pairs(&[("n", twice), ("nn", empty)]));
}

#[test]
fn groups_become_attributes() {
    let list = serde_json::json!([{
        "action": "extract",
        "key": "url",
        "pattern": "^(?P<scheme>\\w+)://(?P<host>[^/:]+)(?P<port>:\\d+)?",
    }]);
    let got = applied(list.clone(), &[("url", "http://a/b"), ("host", "old")]);
    let expected = [("url", "http://a/b"), ("host", "a"), ("scheme", "http"), ("port", "")];
    assert_eq!(got, pairs(&expected));
    assert_eq!(applied(list.clone(), &[("url", "none")]), pairs(&[("url", "none")]));
    assert_eq!(applied(list, &[("b", "http://a")]), pairs(&[("b", "http://a")]));
}

#[test]
fn types_are_converted_where_that_is_possible() {
    let converted = |value: Value, to: &str| {
        let list = serde_json::json!([
            {"action": "insert", "key": "a", "value": value},
            {"action": "convert", "key": "a", "converted_type": to},
        ]);
        applied(list, &[]).remove(0).value.and_then(|v| v.value).expect("a value")
    };
    let text = |text: &str| Proto::StringValue(text.to_owned());
    assert_eq!(converted("12".into(), "int"), Proto::IntValue(12));
    assert_eq!(converted("1.5".into(), "int"), text("1.5"));
    assert_eq!(converted(2.9.into(), "int"), Proto::IntValue(2));
    assert_eq!(converted(true.into(), "int"), Proto::IntValue(1));
    assert_eq!(converted("1.5".into(), "double"), Proto::DoubleValue(1.5));
    assert_eq!(converted(3.into(), "double"), Proto::DoubleValue(3.0));
    assert_eq!(converted(3.into(), "string"), text("3"));
    assert_eq!(converted(1.0.into(), "string"), text("1"));
    assert_eq!(converted(false.into(), "string"), text("false"));
}

#[test]
fn every_mistake_is_reported() {
    let cases = [
        (
            serde_json::json!({"key": "a"}),
            "with key \"a\" (0-th action): error creating AttrProc due to unsupported action \"\"",
        ),
        (serde_json::json!({"key": "a", "action": "Fix"}), "unsupported action \"fix\""),
        (serde_json::json!({"action": "delete"}), "at least one of \"key\" and \"pattern\""),
        (serde_json::json!({"action": "extract", "pattern": "a"}), "required field \"key\""),
        (
            serde_json::json!({"key": "a", "action": "insert"}),
            "\"from_context\", or \"default_value\" must be",
        ),
        (
            serde_json::json!({"key": "a", "action": "insert", "value": 1, "from_attribute": "b"}),
            "multiple value sources",
        ),
        (
            serde_json::json!({"key": "a", "action": "upsert", "value": 1, "converted_type": "int"}),
            "Action \"upsert\" does not use the \"converted_type\" field. This must not be specified",
        ),
        (
            serde_json::json!({"key": "a", "action": "upsert", "value": 1, "pattern": "b"}),
            "Action \"upsert\" does not use the \"pattern\" field. This must not be specified",
        ),
        (
            serde_json::json!({"key": "a", "action": "hash", "value": 1}),
            "Action \"hash\" does not use \"value\" or \"from_attribute\" field. These must not",
        ),
        (
            serde_json::json!({"action": "delete", "pattern": "("}),
            "Field \"pattern\" has invalid pattern: \"(\"",
        ),
        (
            serde_json::json!({"key": "a", "action": "extract"}),
            "missing required field \"pattern\" for action \"extract\"",
        ),
        (
            serde_json::json!({"key": "a", "action": "extract", "pattern": "b"}),
            "contains no named matcher groups",
        ),
        (
            serde_json::json!({"key": "a", "action": "extract", "pattern": "(?P<b>b)(c)"}),
            "contains at least one unnamed matcher group",
        ),
        (
            serde_json::json!({"key": "a", "action": "convert"}),
            "missing required field \"converted_type\" for action \"convert\"",
        ),
        (
            serde_json::json!({"key": "a", "action": "convert", "converted_type": "bool"}),
            "invalid value \"bool\" in field \"converted_type\"",
        ),
        (
            serde_json::json!({"key": "a", "action": "delete", "converted_type": "int"}),
            "does not use the \"converted_type\" field",
        ),
    ];
    for (action, expected) in cases {
        let wrong = actions(serde_json::json!([action])).expect_err("it is wrong");
        assert_eq!(wrong.0.len(), 1, "{wrong:?}");
        assert!(wrong.0[0].message.contains(expected), "{} | {expected}", wrong.0[0].message);
    }
    assert!(actions(serde_json::json!([])).is_err());
}
