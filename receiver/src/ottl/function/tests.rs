//! What the converters make, as the Collector makes it.

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, any_value::Value},
    logs::v1::LogRecord,
    resource::v1::Resource,
};

use super::super::{Above, Conditions, Context, ErrorMode, Item, Of};
use crate::{metric::pairs, value};

fn log() -> LogRecord {
    let attributes = serde_json::json!({"s": "helloWorld", "i": 7, "d": 2.5, "b": true, "l": ["x", 2],
        "m": {"k": "v", "n": 3}, "ip": "10.1.2.3", "e": ""});
    let Some(Value::KvlistValue(attributes)) = value::from_config(&attributes).value else {
        panic!("a map")
    };
    let body = r#"{"a": 1, "b": [1,"x"], "c": {"d": true}}"#;
    LogRecord {
        attributes: attributes.values,
        time_unix_nano: 1_700_000_000_123_456_789,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(value::from_config(&body.into())),
        ..Default::default()
    }
}

fn asked(condition: &str) -> Result<bool, String> {
    let resource = Resource { attributes: pairs(&[("host", "one")]), ..Default::default() };
    let scope = InstrumentationScope { name: "lib".into(), ..Default::default() };
    let list = [condition.to_owned()];
    let made = Conditions::new(Context::Log, &list, ErrorMode::Propagate);
    let conditions = made.map_err(|mut wrong| wrong.remove(0).1)?;
    let log = log();
    let above = Above { resource: Some(&resource), scope: Some(&scope), ..Default::default() };
    conditions.hold(&Item { above, of: Of::Log(&log) })
}

#[test]
fn converters_make_what_they_make_in_the_collector() {
    for condition in [
        r#"ConvertCase(attributes["s"], "snake") == "hello_world""#,
        r#"ConvertCase(attributes["s"], "camel") == "HelloWorld""#,
        r#"ConvertCase("some_name-x.y z", "camel") == "SomeNameXYZ""#,
        r#"ConvertCase("JSONData2Go", "snake") == "json_data_2_go""#,
        r#"ConvertCase("ID", "camel") == "Id""#,
        r#"ConvertCase("AB1c", "camel") == "Ab1C""#,
        r#"ConvertCase("aBCd", "camel") == "ABcd""#,
        r#"ToSnakeCase("someJSONData v2.5") == "some_json_data_v_2_5""#,
        r#"ToCamelCase("foo_bar") == "FooBar""#,
        r#"ConvertCase("", "camel") == """#,
        r#"ParseJSON(body)["a"] == 1"#,
        r#"ParseJSON(body)["a"] == 1.0"#,
        r#"ParseJSON(body)["b"][1] == "x""#,
        r#"ParseJSON(body)["c"]["d"] == true"#,
        r#"ParseJSON(body)["c"]["d"]"#,
        r#"IsMap(ParseJSON(body))"#,
        r#"IsDouble(ParseJSON(body)["a"])"#,
        r#"{"a": 1} == {"a": 1}"#,
        r#"attributes["m"] == {"k": "v", "n": 3}"#,
        r#"Len({"a": 1, "b": 2}) == 2"#,
        r#"Coalesce([attributes["x"], attributes["s"]]) == "helloWorld""#,
        r#"Base64Encode("abc") == "YWJj""#,
        r#"Base64Encode("ab?>", "base64-url") == "YWI_Pg==""#,
        r#"Base64Decode("YWJj") == "abc""#,
        r#"Decode("YWJj", "base64") == "abc""#,
        r#"Decode("abc", "utf-8") == "abc""#,
        r#"Decode("abc", "us-ascii") == "abc""#,
        r#"FNV("hello world") == 8618312879776256743"#,
        r#"MD5("hello world") == "5eb63bbbe01eeed093cb22bb8f5acdc3""#,
        r#"SHA1("a") == "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8""#,
        r#"SHA256("hello world") == "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9""#,
        r#"SHA512("") == "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e""#,
        r#"XXH3("hello world") == "d447b1ea40e6988b""#,
        r#"XXH128("hello world") == "df8d09e93f874900a99b8775cc15b6c7""#,
        r#"Murmur3Hash("Hello World") == "ce837619""#,
        r#"Murmur3Hash128("Hello World") == "dbc2a0c1ab26631a27b4c09fcf1fe683""#,
        r#"CommunityID("123.124.125.126", 12345, "55.56.57.58", 80) == "1:9qr9Z1LViXcNwtLVOHZ3CL8MlyM=""#,
        r#"CommunityID("55.56.57.58", 80, "123.124.125.126", 12345, "UDP", 1) == "1:1viZaClxhTkWejXjxmQXaZzI8F4=""#,
        r#"CommunityID("::1", 1, "::2", 2, "UDP", 5) == "1:v3hjp03ltVd5SdpUV0amQeWq3Vs=""#,
        r#"ParseCSV("a,b", "x|y", headerDelimiter="|") == {"x": "a", "y": "b"}"#,
        r#"Decode("h\u00e9", "iso-8859-1") == "h\u00c3\u00a9""#,
        r#"ParseInt("1_000", 0) == 1000"#,
        r#"ToUpperCase("\u00dfa") == "\u00dfA""#,
        r#"Substring("\u00e4\u00f6\u00fc", 1, 3, utf8Safe=true) == "\u00f6""#,
        r#"ExtractPatterns("\u00e4b", "(?P<x>\\w+)")["x"] == "b""#,
        r#"String(SpanID(0x0102030405060708)) == "[1,2,3,4,5,6,7,8]""#,
        r#"not (SpanID(0x0102030405060708) == 0x0102030405060708)"#,
        r#"String(log.time) == "\"2023-11-14T22:13:20.123456789Z\"""#,
        r#"Concat([Duration("1.5s"), nil], "|") == "1500000000|<nil>""#,
        r#"Format("%[2]s %[1]s %U %T", ["a", "b"]) == "b a %!U(string=b) %!T(BADINDEX)""#,
        r#"Format("%#x % d %*d", [255, 5, 3, 1]) == "0xff  5   1""#,
        r#"Format("%v %v", [[1, "a"], 0x01ff]) == "[1 a] [1 255]""#,
        r#"URL("HTTP://u:p@h.x:80/a%20b.c?q=1#f")["url.original"] == "http://u:p@h.x:80/a%20b.c?q=1#f""#,
        r#"URL("http://h/a%20b")["url.path"] == "/a b""#,
        r#"URL("a.b/c")["url.extension"] == "b/c" and URL("a.b/c")["url.domain"] == """#,
        r#"Time("02/03/24", "%D", "UTC") == Time("2024-02-03", "%F", "UTC")"#,
        r#""a\x41\101" == "aAA""#,
        r#"Hex("abc") == "616263""#,
        r#"Hex(7) == "0000000000000007""#,
        r#"Hex(true) == "01""#,
        r#"Hex(1.5) == "3ff8000000000000""#,
        r#"Index("hello", "l") == 2"#,
        r#"Index(attributes["l"], 2) == 1"#,
        r#"Index(attributes["l"], "nope") == -1"#,
        r#"IsInCIDR(attributes["ip"], ["10.0.0.0/8"])"#,
        r#"IsInCIDR(attributes["ip"], ["192.168.0.0/16", "10.1.2.3/32"])"#,
        r#"IsInCIDR("::1", ["::1/128"])"#,
        r#"IsInCIDR("::ffff:10.0.0.1", ["10.0.0.0/8"])"#,
        r#"IsInCIDR("1.2.3.4", ["0.0.0.0/0"])"#,
        r#"IsValidLuhn("17893729974")"#,
        r#"IsValidLuhn("4242424242424242")"#,
        r#"IsValidLuhn("424242424242424")"#,
        r#"IsValidLuhn(17893729974)"#,
        r#"Keys(attributes["m"]) == ["k", "n"]"#,
        r#"Values(attributes["m"]) == ["v", 3]"#,
        r#"Len(Keys(attributes)) == 8"#,
        r#"ParseInt("ff", 16) == 255"#,
        r#"ParseInt("0xff", 0) == 255"#,
        r#"ParseInt("-101", 2) == -5"#,
        r#"ParseInt("+7", 10) == 7"#,
        r#"ParseInt("0b11", 0) == 3"#,
        r#"ParseInt("012", 0) == 10"#,
        r#"ParseKeyValue("a=b c=d")["c"] == "d""#,
        r#"ParseKeyValue("a='b c' d=\"e f\"")["a"] == "b c""#,
        r#"ParseKeyValue("a:b|c:d", ":", "|")["c"] == "d""#,
        r#"ParseKeyValue("a=b=c")["a"] == "b=c""#,
        r#"ParseKeyValue("a=b  c=d")["c"] == "d""#,
        r#"ParseKeyValue("k1=v1", pair_delimiter=",")["k1"] == "v1""#,
        r#"ParseCSV("1,2,3", "a,b,c")["b"] == "2""#,
        r#"ParseCSV("1\t2", "a\tb", delimiter="\t")["b"] == "2""#,
        r#"ParseCSV("\"x,y\",2", "a,b")["a"] == "x,y""#,
        r#"ParseCSV("\"x\"\"y\",2", "a,b")["a"] == "x\"y""#,
        r#"ParseCSV("x\"y,2", "a,b", mode="lazyQuotes")["a"] == "x\"y""#,
        r#"ParseCSV("\"x,2", "a,b", mode="ignoreQuotes")["a"] == "\"x""#,
        r#"ParseCSV("1|2", "a,b", delimiter="|", header_delimiter=",")["a"] == "1""#,
        r#"ParseCSV("a\nb,c", "x,y")["x"] == "a\nb""#,
        r#"ExtractPatterns("abc123", "(?P<w>[a-z]+)(?P<n>\\d+)")["n"] == "123""#,
        r#"ExtractPatterns("abc", "(?P<n>\\d+)") == {}"#,
        r#"Sort([3, 1, 2]) == [1, 2, 3]"#,
        r#"Sort([3, 1, 2], "desc") == [3, 2, 1]"#,
        r#"Sort(["b", "a"]) == ["a", "b"]"#,
        r#"Sort([2, 1.5]) == [1.5, 2]"#,
        r#"Sort(["b", 1, true]) == [1, "b", true]"#,
        r#"ToKeyValueString(attributes["m"]) == "k=v n=3""#,
        r#"ToKeyValueString({"b": "x y", "a": 1}, "=", " ", true) == "a=1 b=\"x y\"""#,
        r#"ToKeyValueString(attributes["m"], sort_output=true) == "k=v n=3""#,
        r#"SliceToMap(["x", "y"]) == {"0": "x", "1": "y"}"#,
        r#"Format("%s-%03d-%.2f-%v-%t", ["a", 7, 2.5, "x", true]) == "a-007-2.50-x-true""#,
        r#"Format("%d", ["a"]) == "%!d(string=a)""#,
        r#"Format("%5s|%-5s|", ["a", "b"]) == "    a|b    |""#,
        r#"Format("%x %X %q", [255, 255, "a"]) == "ff FF \"a\"""#,
        r#"Format("%s", []) == "%!s(MISSING)""#,
        r#"Format("%v", [nil]) == "<nil>""#,
        r#"Format("a", ["b"]) == "a%!(EXTRA string=b)""#,
        r#"Format("%s", [1]) == "%!s(int64=1)""#,
        r#"Format("%+d", [5]) == "+5""#,
        r#"Format("%e", [1.5]) == "1.500000e+00""#,
        r#"Format("%v", [1.0]) == "1""#,
        r#"Log(1) == 0.0"#,
        r#"Log("2.718281828459045") > 0.99"#,
        r#"Time("2024-03-01", "%Y-%m-%d", "UTC") < Now()"#,
        r#"Time("2024-03-01T10:11:12Z", "%Y-%m-%dT%H:%M:%SZ") == Unix(1709287872)"#,
        r#"Time("2024-03-01T10:11:12.345Z", "%Y-%m-%dT%H:%M:%S.%LZ") == Unix(1709287872, 345000000)"#,
        r#"Time("2024-03-01T10:11:12.345678Z", "%Y-%m-%dT%H:%M:%S.%fZ") == Unix(1709287872, 345678000)"#,
        r#"Time("2024-03-01T10:11:12+0200", "%Y-%m-%dT%H:%M:%S%z") == Unix(1709280672)"#,
        r#"Time("2024-03-01T10:11:12+02:00", "%Y-%m-%dT%H:%M:%S%j") == Unix(1709280672)"#,
        r#"Time("01/Mar/2024:10:11:12 +0000", "%d/%b/%Y:%H:%M:%S %z") == Unix(1709287872)"#,
        r#"Time("March 1, 2024 3:05 PM", "%B %d, %Y %l:%M %p", "UTC") == Unix(1709305500)"#,
        r#"Time("Fri Mar 01 10:11:12 2024", "%c", "UTC") == Unix(1709287872)"#,
        r#"Time("24-3-1", "%y-%m-%d", "UTC") == Unix(1709251200)"#,
        r#"FormatTime(Time("2024-03-01 10:11:12.120", "%F %T.%L", "UTC"), "%Y-%m-%d %H:%M:%S.%L") == "2024-03-01 10:11:12.12""#,
        r#"FormatTime(Time("2024-03-01 10:11:12", "%F %T", "UTC"), "%b %e %I:%M %p %a %A %y %Z") == "Mar  1 10:11 AM Fri Friday 24 UTC""#,
        r#"FormatTime(Time("2024-03-01 10:11:12", "%F %T", "UTC"), "%D %R %c %z") == "03/01/2024 10:11 Fri Mar 01 10:11:12 2024 Z""#,
        r#"Year(log.time) == 2023"#,
        r#"Month(log.time) == 11"#,
        r#"Day(log.time) == 14"#,
        r#"Hour(log.time) == 22"#,
        r#"Minute(log.time) == 13"#,
        r#"Second(log.time) == 20"#,
        r#"Nanosecond(log.time) == 123456789"#,
        r#"Weekday(log.time) == 2"#,
        r#"UnixSeconds(log.time) == 1700000000"#,
        r#"UnixMilli(log.time) == 1700000000123"#,
        r#"UnixMicro(log.time) == 1700000000123456"#,
        r#"UnixNano(log.time) == 1700000000123456789"#,
        r#"UnixNano(log.time) == time_unix_nano"#,
        r#"time < Now()"#,
        r#"Now() - time > Duration("1h")"#,
        r#"TruncateTime(time, Duration("1s")) == Unix(1700000000)"#,
        r#"TruncateTime(time, Duration("24h")) == Unix(1699920000)"#,
        r#"Hours(Duration("90m")) == 1.5"#,
        r#"Minutes(Duration("90s")) == 1.5"#,
        r#"Seconds(Duration("1500ms")) == 1.5"#,
        r#"Milliseconds(Duration("1.5s")) == 1500"#,
        r#"Microseconds(Duration("1ms")) == 1000"#,
        r#"Nanoseconds(Duration("1us")) == 1000"#,
        r#"Duration("1m") == Duration("60s")"#,
        r#"Duration("-1m") < Duration("1s")"#,
        r#"Duration("1m") + Duration("1s") == Duration("61s")"#,
        r#"time + Duration("1h") > time"#,
        r#"String(7) == "7""#,
        r#"String(2.5) == "2.5""#,
        r#"String(attributes["m"]) == "{\"k\":\"v\",\"n\":3}""#,
        r#"URL("https://user:pw@example.com:8080/a/b.html?x=1#frag")["url.extension"] == "html""#,
        r#"URL("https://user:pw@example.com:8080/a/b.html?x=1#frag")["url.username"] == "user""#,
        r#"URL("https://example.com")["url.path"] == """#,
        r#"URL("https://example.com/")["url.path"] == "/""#,
        r#"URL("https://example.com/?a=b")["url.query"] == "a=b""#,
        r#"URL("https://example.com/#f")["url.fragment"] == "f""#,
        r#"ParseSeverity(attributes["i"], {"info": [{"range": {"min": 1, "max": 9}}], "error": [{"range": {"min": 10, "max": 19}}]}) == "info""#,
        r#"ParseSeverity("err", {"error": [{"equals": ["err", "error"]}]}) == "error""#,
        r#"ParseSeverity(404, {"error": [{"range": "4xx"}]}) == "error""#,
        r#"Len(UUID()) == 36"#,
        r#"Substring("hello", 1, 3) == "ell""#,
        r#"Split("a|b", delimiter="|")[0] == "a""#,
        r#"Trim("  a  ") == "a""#,
        r#"Trim("xxaxx", "x") == "a""#,
        r#"TrimPrefix("abc", "a") == "bc""#,
        r#"Concat(["a", 1, true, 2.5, nil], "-") == "a-1-true-2.5-<nil>""#,
        r#"Concat([attributes["l"], attributes["m"]], "-") == "[\"x\",2]-{\"k\":\"v\",\"n\":3}""#,
        r#"IsMatch(attributes["s"], attributes["s"])"#,
        r#"IsMatch(attributes["s"], "^hello")"#,
        r#"IsMatch(attributes["i"], "7")"#,
        r#"IsMatch(attributes["d"], "^2\\.5$")"#,
        r#"IsMatch(attributes["b"], "true")"#,
        r#"attributes[Concat(["s", ""], "")] == "helloWorld""#,
        r#"attributes["m"][Substring("kk", 0, 1)] == "v""#,
        r#"cache == {}"#,
        r#"trace_id == TraceID(0x00000000000000000000000000000000)"#,
        r#"TraceID("00000000000000000000000000000000") == trace_id"#,
        r#"span_id == SpanID(0x0000000000000000)"#,
        r#"not false and (true or false)"#,
        r#"Int("7") == 7 and Int(2.9) == 2 and Int("x") == nil"#,
        r#"Double("1.5") == 1.5"#,
        r#"Bool("true")"#,
        r#"ContainsValue(attributes["l"], "x")"#,
        r#"ContainsValue(["a", "b"], "a")"#,
        r#"IsString(attributes["s"]) and IsInt(attributes["i"]) and IsDouble(attributes["d"]) and IsBool(attributes["b"]) and IsList(attributes["l"]) and IsMap(attributes["m"])"#,
        r#"HasPrefix("abc", "a") and HasSuffix("abc", "c")"#,
        r#"Len("ä") == 2"#,
        r#"ToLowerCase("ÄB") == "äb""#,
        r#"ProfileID(0x00000000000000000000000000000000) != nil"#,
        r#"UUIDv7() != """#,
    ] {
        assert_eq!(asked(condition), Ok(true), "{condition}");
    }
}

#[test]
fn what_cannot_be_made_is_a_failure() {
    for (condition, failure) in [
        (
            r#"ParseJSON("1") == 1"#,
            r#"could not convert parsed value of type float64 to JSON object"#,
        ),
        (r#"ParseInt("x", 10) == 1"#, r#"strconv.ParseInt: parsing "x": invalid syntax"#),
        (
            r#"ParseKeyValue("a=b c") == {}"#,
            r#"failed to split pairs into key-values: cannot split "c" into 2 items, got 1 item(s)"#,
        ),
        (
            r#"ParseCSV("1", "a,b") == {}"#,
            r#"map csv headers: wrong number of fields: expected 2, found 1"#,
        ),
        (
            r#"ExtractPatterns("abc", "\\w") == {}"#,
            r#"at least 1 named capture group must be supplied in the given regex"#,
        ),
        (r#"Log(0) == 0"#, r#"invalid input: expected number greater than zero but got 0"#),
        (r#"Time("", "%Y") == Unix(1)"#, r#"time cannot be nil"#),
        (
            r#"ParseSeverity("z", {"a": [{"equals": ["x"]}]}) == "a""#,
            r#"could not map log level: no matching log level found for value 'z'"#,
        ),
        (r#"attributes["l"][7] == nil"#, r#"index 7 out of bounds"#),
        (
            r#"attributes["l"]["x"] == nil"#,
            r#"unable to resolve an integer index in slice: invalid key type"#,
        ),
        (r#"attributes[0] == nil"#, r#"unable to resolve a string index in map: invalid key type"#),
        (r#"ParseKeyValue("a=b")["c"] == nil"#, r#"key not found in map"#),
        (r#"time + 1 == time"#, r#"time.Time must be added to time.Duration; found 1 instead"#),
        (
            r#"Duration("1s") * 2 == 1"#,
            r#"only addition and subtraction supported for time.Time and time.Duration"#,
        ),
        (r#"Hour(attributes["i"]) == 1"#, r#"expected time but got int64"#),
    ] {
        let expected = Err(format!("failed to eval condition: {condition}, {failure}"));
        assert_eq!(asked(condition), expected);
    }
}

#[test]
fn what_is_known_beforehand_is_checked_beforehand() {
    for (condition, expected) in [
        (
            r#"ConvertCase("a", "x") == """#,
            r#"invalid case: x, allowed cases are: lower, upper, snake, camel"#,
        ),
        (
            r#"Coalesce([]) == 1"#,
            r#"couldn't create function: Coalesce requires at least one argument"#,
        ),
        (r#"Time("a", "") == 1"#, r#"couldn't create function: format cannot be nil"#),
        (
            r#"Time("a", "%!") == 1"#,
            r#"invalid strptime format: [unsupported ctimefmt.toNative() directive: %!]"#,
        ),
        (
            r#"Time("a", "%Y", "Nowhere/City") == 1"#,
            r#"failed to load location Nowhere/City: unknown time zone Nowhere/City"#,
        ),
        (r#"ParseKeyValue("a", "") == 1"#, r#"delimiter cannot be set to an empty string"#),
        (
            r#"ParseKeyValue("a", "=", "=") == 1"#,
            r#"pair delimiter "=" cannot be equal to delimiter "=""#,
        ),
        (
            r#"ParseCSV("a", "a", "bb") == 1"#,
            r#"invalid arguments: delimiter must be a single character"#,
        ),
        (r#"ParseCSV("a", "a", mode="x") == 1"#, r#"unknown mode: x"#),
        (
            r#"ExtractPatterns("a", "(") == 1"#,
            r#"the regex pattern supplied to ExtractPatterns '"("' is not a valid pattern: error parsing regexp: missing closing ): `(`"#,
        ),
        (
            r#"Sort([1], "x") == 1"#,
            r#"invalid arguments: x. Order should be either "asc" or "desc""#,
        ),
        (r#"IsInCIDR("a", ["x"])"#, r#"invalid CIDR address: x"#),
        (
            r#"Trim("a", 1) == """#,
            r#"error while parsing arguments for call to "Trim": invalid argument at position 1: must be a string"#,
        ),
        (
            r#"Trim(bad="a") == """#,
            r#"error while parsing arguments for call to "Trim": no such parameter: bad"#,
        ),
        (
            r#"Split("a", "b", "c") == """#,
            r#"error while parsing arguments for call to "Split": incorrect number of arguments. Expected: 2 Received: 3"#,
        ),
    ] {
        let wrong = asked(condition).expect_err(condition);
        assert!(wrong.starts_with("unable to parse") && wrong.contains(expected), "{wrong}");
    }
}

#[test]
fn a_time_is_read_as_it_is_written() {
    let format = "%Y-%m-%d %H:%M:%S.%s %k";
    let condition = format!(
        "FormatTime(Time(\"2024-03-01 10:11:12.5 +02:00:00\", \"{format}\"), \"{format}\") == \
         \"2024-03-01 10:11:12.5 +02:00:00\""
    );
    assert_eq!(asked(&condition), Ok(true));
    assert_eq!(asked("Year(Time(\"Jan 1\", \"%b %e\")) == Year(Now())"), Ok(true));
}
