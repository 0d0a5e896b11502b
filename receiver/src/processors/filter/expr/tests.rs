//! What expressions say, and what is wrong with them.

use opentelemetry_proto::tonic::metrics::v1::{Gauge, NumberDataPoint};

use super::*;
use crate::metric::pairs;

/// Whether it is true of a gauge `io.time` with one point, whose labels are `code=503`, `empty=` and `é=Ü `.
fn says(text: &str) -> Result<bool, String> {
    let attributes = pairs(&[("code", "503"), ("empty", ""), ("é", "Ü ")]);
    let point = NumberDataPoint { attributes, ..Default::default() };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point] }));
    let metric = Metric { name: "io.time".into(), data, ..Default::default() };
    Expression::new(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}")).matches(&metric)
}

#[test]
fn operators_mean_what_they_mean_in_the_collector() {
    let true_ones = [
        "MetricName == 'io.time' && MetricType == \"Gauge\"",
        "int(Label('code')) >= 500 and int(Label('code')) < 600",
        "500 <= int(Label('code')) < 600 == true",
        "not (400 <= int(Label('code')) < 500)",
        "1 < 2 < 3 < 4",
        "!(1 < 2 > 3)",
        "float(Label('code')) == 503 and int(503.9) == 503 and float(1) == 1.0",
        "Label('code') in ['500', '503'] and Label('code') not in ['404']",
        "1 in [2, 1.0] and not (1 in [])",
        "MetricName startsWith 'io.' and MetricName endsWith 'time' and MetricName contains '.'",
        "MetricName not startsWith 'x' and MetricName not matches '^x'",
        "MetricName matches `^io\\.(time|size)$`",
        "len(Label('é')) == 2 and trim(Label('é')) == 'Ü' and lower('Ü') == 'ü' and upper('ü') == 'Ü'",
        "Label(lower('CO') + 'de') == \"\\x35\\u0030\" + '3'",
        "HasLabel('empty') and Label('empty') == '' and Label('none') == '' and !HasLabel('none')",
        "MetricType == 'Sum' ? false : MetricType == 'Gauge' ? true : false",
        "(HasLabel('code') ? 1 : 2.5) == 1",
        "false ?: true",
        "nil == nil and MetricName != nil",
        // Products bind more strongly than sums, powers more than signs, signs more than `not`.
        "1 + 2 * 3 - 4 == 3 and 7 % 4 == 3 and -7 % 4 == -3 and 7 / 2 == 3.5",
        "2 ** 3 ^ 2 == 512 and -2 ** 2 == -4 and +1 == 1",
        "0x1F + 0b11 + 0o17 + 1_000 == 1_049 and 1.5e1 == 15 and .5 < 1",
        "9223372036854775807 + 1 < 0",
        "true or true and false",
        "!false and not false",
        "'a' < 'b' and 'Z' < 'a' and 2 > 1.5",
        "1\n\t<2",
    ];
    for text in true_ones {
        assert_eq!(says(text), Ok(true), "{text}");
        assert_eq!(says(&format!("not ({text})")), Ok(false), "{text}");
    }
    let row = |sign: &str| vec!["true"; 10_000].join(sign);
    assert_eq!(says(&row(" and ")), Ok(true));
    assert_eq!(says(&row(" || ")), Ok(true));
    assert_eq!(says("int(Label('empty')) == 1"), Err("invalid operation: int(\"\")".into()));
    assert_eq!(says("float('a') == 1"), Err("invalid operation: float(\"a\")".into()));
    assert_eq!(says("1 % len('') == 1"), Err("integer divide by zero".into()));
    // What need not be asked does not fail.
    assert_eq!(says("false and 1 % 0 == 1 or true or 1 % 0 == 1"), Ok(true));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let (deep, open) = ("!".repeat(10_000), "(".repeat(10_000));
    let sum = format!("1 == 1{}", " + 1".repeat(10_000));
    let wrong = [
        ("foo", "unknown name foo (1:1)"),
        ("MetricName", "expected bool, but got string (1:1)"),
        ("", "unexpected token EOF (1:1)"),
        ("MetricName ==", "unexpected token EOF (1:14)"),
        ("MetricName == 'a", "literal not terminated (1:15)"),
        ("MetricName ==\n '\\q'", "invalid char escape (2:3)"),
        ("HasLabel('a') HasLabel('b')", "unexpected token Identifier(\"HasLabel\") (1:15)"),
        ("HasLabel('é') )", "unexpected token Bracket(\")\") (1:15)"),
        ("MetricName matches '('", "error parsing regexp: missing closing ): `(` (1:20)"),
        (
            "MetricName matches MetricType",
            "what follows \"matches\" must be a text in quotes (1:20)",
        ),
        ("true @ false", "unrecognized character: '@' (1:6)"),
        (&deep, "nested too deeply (1:101)"),
        (&open, "nested too deeply (1:101)"),
        (&sum, "nested too deeply (1:404)"),
        // What can be told from the words alone is a mistake of the configuration.
        ("Label('n') > 1", "invalid operation: > (mismatched types string and int) (1:12)"),
        ("not MetricName == 'a'", "invalid operation: ! (mismatched type string) (1:5)"),
        ("'a' in MetricName", "what follows \"in\" must be a list: [a, b] (1:8)"),
        ("1 in ['a']", "cannot use int as type string in array (1:3)"),
        (
            "MetricName contains 1",
            "invalid operation: contains (mismatched types string and int) (1:12)",
        ),
        ("true ? 1 : 'a'", "invalid operation: ?: (mismatched types int and string) (1:6)"),
        ("1 ? true : false", "non-bool expression (type int) used as condition (1:1)"),
        ("-'a' == 1", "invalid operation: - (mismatched type string) (1:1)"),
        ("1 + 'a' == 1", "invalid operation: + (mismatched types int and string) (1:3)"),
        ("5 % 2.0 == 1", "invalid operation: % (mismatched types int and float64) (1:3)"),
        ("len(1) == 1", "cannot use int as argument to call len (1:5)"),
        ("len() == 1", "not enough arguments to call len (1:1)"),
        ("Label('a', 'b') == ''", "too many arguments to call Label (1:10)"),
        ("true not true", "unexpected token Identifier(\"true\") (1:10)"),
        ("0x == 1", "bad number syntax: \"0x\" (1:1)"),
        // What the Collector's library has besides.
        ("1 in 1..3", "what follows \"in\" must be a list: [a, b] (1:6)"),
        ("len(MetricName) == 1..3", "operator \"..\" is not supported (1:21)"),
        (
            "all(['a'], # == 'a')",
            "unknown function all: the functions are Label, HasLabel, len, lower, upper, trim, int and float (1:1)",
        ),
        (
            "['a'] == ['a']",
            "unexpected token Bracket(\"[\"): a list can only stand after \"in\", and maps, indices and slices are not supported (1:1)",
        ),
    ];
    for (text, message) in wrong {
        assert_eq!(Expression::new(text).err().as_deref(), Some(message), "{text}");
    }
}
