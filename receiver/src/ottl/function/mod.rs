//! Converters: functions that make a value of values.

mod collections;
mod format;
mod hash;
mod kinds;
mod parsers;
mod texts;
mod time;
mod uri;

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use jiff::Zoned;
use opentelemetry_proto::tonic::common::v1::KeyValue;

pub use self::parsers::pattern;
use super::{Above, Context, Item, Of, Operand, compare::Any};

/// A converter.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its parameters, in their order.
    pub parameters: &'static [Parameter],
    call: Call,
    /// The context that has it, if not all have it.
    only: Option<Context>,
}

type Call = for<'a> fn(Arguments<'a>) -> Result<Any<'a>, String>;

/// A parameter of a converter.
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be given.
    pub needed: bool,
    /// What it takes.
    pub takes: Takes,
}

/// What a parameter takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Anything.
    Any,
    /// A text that is known beforehand.
    Text,
    /// A truth that is known beforehand.
    Bool,
    /// A list.
    List,
}

impl Parameter {
    /// Whether it is meant by a name, which may be written in either way: `utf8_safe`, `utf8Safe`.
    pub fn is_called(&self, name: &str) -> bool {
        let small = |name: &str| name.replace('_', "").to_ascii_lowercase();
        self.name == name || small(self.name) == small(name)
    }
}

/// Converters of the Collector that are not here: they parse XML, or know the patterns of grok and of user agents.
pub const MISSING: &[&str] = &[
    "ConvertAttributesToElementsXML",
    "ConvertTextToElementsXML",
    "ExtractGrokPatterns",
    "GetXML",
    "InsertXML",
    "ParseSimplifiedXML",
    "ParseXML",
    "RemoveXML",
    "UserAgent",
];

const fn parameter(name: &'static str, needed: bool, takes: Takes) -> Parameter {
    Parameter { name, needed, takes }
}

/// `name(parameter, list[], text: str, optional?, …) = function`
macro_rules! functions {
    (@one $p:ident) => { parameter(stringify!($p), true, Takes::Any) };
    (@one $p:ident text) => { parameter(stringify!($p), true, Takes::Text) };
    (@one $p:ident list) => { parameter(stringify!($p), true, Takes::List) };
    (@one $p:ident maybe) => { parameter(stringify!($p), false, Takes::Any) };
    (@one $p:ident maybe_text) => { parameter(stringify!($p), false, Takes::Text) };
    (@one $p:ident maybe_bool) => { parameter(stringify!($p), false, Takes::Bool) };
    (@one $p:ident maybe_list) => { parameter(stringify!($p), false, Takes::List) };
    ($($name:ident ($($p:ident $($kind:ident)?),*) $($only:ident)? = $call:expr;)*) => {
        &[$(Function {
            name: stringify!($name),
            parameters: &[$(functions!(@one $p $($kind)?)),*],
            call: $call,
            only: functions!(@only $($only)?),
        }),*]
    };
    (@only) => { None };
    (@only $only:ident) => { Some(Context::$only) };
}

/// All of them.
static FUNCTIONS: &[Function] = functions! {
    Base64Decode(target) = texts::base64_decode;
    Base64Encode(target, variant maybe) = texts::base64_encode;
    Bool(target) = kinds::bool;
    CommunityID(source_ip, source_port, destination_ip, destination_port, protocol maybe, seed maybe) = hash::community_id;
    Coalesce(values list) = collections::coalesce;
    Concat(vals list, delimiter) = texts::concat;
    ContainsValue(target, item) = collections::contains;
    ConvertCase(target, to_case text) = texts::convert_case;
    Day(time) = time::day;
    Decode(target, encoding) = texts::decode;
    Double(target) = kinds::double;
    Duration(duration) = time::duration;
    ExtractPatterns(target, pattern) = parsers::extract_patterns;
    FNV(target) = hash::fnv;
    Format(format text, vals list) = format::format;
    FormatTime(time, format text) = time::format_time;
    HasAttrKeyOnDatapoint(key text) Metric = collections::has_attribute;
    HasAttrOnDatapoint(key text, expected_val text) Metric = collections::has_attribute;
    HasPrefix(target, prefix) = texts::has_prefix;
    HasSuffix(target, suffix) = texts::has_suffix;
    Hex(target) = texts::hexadecimal;
    Hour(time) = time::hour;
    Hours(duration) = time::hours;
    Index(target, value) = collections::index;
    Int(target) = kinds::int;
    IsBool(target) = kinds::is_bool;
    IsDouble(target) = kinds::is_double;
    IsInCIDR(target, networks list) = parsers::is_in_cidr;
    IsInt(target) = kinds::is_int;
    IsList(target) = kinds::is_list;
    IsMap(target) = kinds::is_map;
    IsMatch(target, pattern) = texts::is_match;
    IsRootSpan() Span = kinds::is_root_span;
    IsString(target) = kinds::is_string;
    IsValidLuhn(target) = texts::is_valid_luhn;
    Keys(target) = collections::keys;
    Len(target) = collections::len;
    Log(target) = kinds::log;
    MD5(target) = hash::md5;
    Microseconds(duration) = time::microseconds;
    Milliseconds(duration) = time::milliseconds;
    Minute(time) = time::minute;
    Minutes(duration) = time::minutes;
    Month(time) = time::month;
    Murmur3Hash(target) = hash::murmur3;
    Murmur3Hash128(target) = hash::murmur3_128;
    Nanosecond(time) = time::nanosecond;
    Nanoseconds(duration) = time::nanoseconds;
    Now() = time::now;
    ParseCSV(target, header, delimiter maybe_text, header_delimiter maybe_text, mode maybe_text) = parsers::parse_csv;
    ParseInt(target, base) = parsers::parse_int;
    ParseJSON(target) = parsers::parse_json;
    ParseKeyValue(target, delimiter maybe_text, pair_delimiter maybe_text) = parsers::parse_key_value;
    ParseSeverity(target, mapping) = parsers::parse_severity;
    ProfileID(bytes) = texts::profile_id;
    SHA1(target) = hash::sha1;
    SHA256(target) = hash::sha256;
    SHA512(target) = hash::sha512;
    Second(time) = time::second;
    Seconds(duration) = time::seconds;
    SliceToMap(target, key_path maybe_list, value_path maybe_list) = collections::slice_to_map;
    Sort(target, order maybe_text) = collections::sort;
    SpanID(bytes) = texts::span_id;
    Split(target, delimiter) = texts::split;
    String(target) = kinds::string;
    Substring(target, start, length, utf8_safe maybe_bool) = texts::substring;
    Time(time, format text, location maybe_text, locale maybe_text) = time::parse_time;
    ToCamelCase(target) = texts::to_camel_case;
    ToKeyValueString(target, delimiter maybe_text, pair_delimiter maybe_text, sort_output maybe_bool) = collections::to_key_value_string;
    ToLowerCase(target) = texts::to_lower_case;
    ToSnakeCase(target) = texts::to_snake_case;
    ToUpperCase(target) = texts::to_upper_case;
    TraceID(bytes) = texts::trace_id;
    Trim(target, replacement maybe_text) = texts::trim;
    TrimPrefix(target, prefix) = texts::trim_prefix;
    TrimSuffix(target, suffix) = texts::trim_suffix;
    TruncateTime(time, duration) = time::truncate_time;
    URL(uri) = uri::url;
    UUID() = texts::uuid;
    UUIDv7() = texts::uuid_v7;
    Unix(seconds, nanoseconds maybe) = time::unix;
    UnixMicro(time) = time::unix_micro;
    UnixMilli(time) = time::unix_milli;
    UnixNano(time) = time::unix_nano;
    UnixSeconds(time) = time::unix_seconds;
    Values(target) = collections::values;
    Weekday(time) = time::weekday;
    XXH128(target) = hash::xxh128;
    XXH3(target) = hash::xxh3;
    Year(time) = time::year;
};

static BY_NAME: LazyLock<HashMap<&'static str, &'static Function>> =
    LazyLock::new(|| FUNCTIONS.iter().map(|function| (function.name, function)).collect());

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    /// The converter of this name.
    pub fn named(name: &str, context: Context) -> Option<&'static Self> {
        BY_NAME.get(name).copied().filter(|found| found.only.is_none_or(|only| only == context))
    }

    /// The value; fails on values of a type that the converter does not take.
    pub fn call<'a>(
        &self,
        values: Vec<Option<Any<'a>>>,
        item: &Item<'a>,
    ) -> Result<Any<'a>, String> {
        (self.call)(Arguments { values: values.into_iter(), item: *item })
    }

    /// The first argument of a type that the converter does not take, if all are known beforehand.
    pub fn mistyped(
        &self,
        given: &[Option<Operand>],
        known: Vec<Option<Any<'_>>>,
    ) -> Option<(usize, String)> {
        let all_known =
            given.iter().zip(&known).all(|(given, known)| given.is_none() || known.is_some());
        if !all_known {
            return None;
        }
        let kinds: Vec<_> = known.iter().map(|value| value.as_ref().map(Any::kind)).collect();
        let item = Item { above: Above::default(), of: Of::Resource };
        let error = self.call(known, &item).err()?;
        let found = error.starts_with("expected ").then(|| error.rsplit_once(" got "))??.1;
        let place = kinds.iter().position(|kind| *kind == Some(found))?;
        Some((place, error))
    }

    /// What is wrong with the arguments that are known beforehand; the others are `None`.
    pub fn check(&self, known: &[Option<Any<'_>>]) -> Result<(), String> {
        let text = |i: usize| match known.get(i) {
            Some(Some(Any::Text(text))) => Some(&**text),
            _ => None,
        };
        match self.name {
            "Coalesce" => match &known[0] {
                Some(Any::List(all)) if all.is_empty() => {
                    Err("Coalesce requires at least one argument".to_owned())
                }
                _ => Ok(()),
            },
            "ConvertCase" => text(1).map_or(Ok(()), texts::check_case),
            "Decode" => text(1).map_or(Ok(()), texts::check_encoding),
            "ProfileID" | "SpanID" | "TraceID" => match &known[0] {
                Some(id) => texts::read_id(self.name, id).map(drop),
                None => Ok(()),
            },
            "ExtractPatterns" | "IsMatch" => match text(1) {
                Some(pattern) => parsers::pattern(self.name, pattern).map(drop),
                None => Ok(()),
            },
            "FormatTime" => text(1).map_or(Ok(()), time::check_format),
            "IsInCIDR" => match &known[1] {
                Some(Any::List(all)) => all.iter().try_for_each(|one| match one {
                    Any::Text(network) => parsers::network(network).map(drop),
                    _ => Ok(()),
                }),
                _ => Ok(()),
            },
            "ParseCSV" => parsers::check_csv(text(2), text(3), text(4)),
            "ParseKeyValue" | "ToKeyValueString" => parsers::check_delimiters(text(1), text(2)),
            "Sort" => match text(1) {
                None | Some("asc" | "desc") => Ok(()),
                Some(order) => Err(format!(
                    "invalid arguments: {order}. Order should be either \"asc\" or \"desc\""
                )),
            },
            "Time" => {
                text(1).map_or(Ok(()), time::check_format)?;
                text(3).map_or(Ok(()), time::check_locale)?;
                time::location(text(2).unwrap_or_default(), text(1).unwrap_or_default()).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// The arguments of a call. What is not given is nil.
pub(super) struct Arguments<'a> {
    values: std::vec::IntoIter<Option<Any<'a>>>,
    item: Item<'a>,
}

impl<'a> Arguments<'a> {
    fn given(&mut self) -> Option<Any<'a>> {
        self.values.next().flatten()
    }

    fn next(&mut self) -> Any<'a> {
        self.given().unwrap_or(Any::Nil)
    }

    fn text(&mut self) -> Result<Cow<'a, str>, String> {
        text(self.next())
    }

    fn text_or(&mut self, default: &'static str) -> Result<Cow<'a, str>, String> {
        self.given().map_or(Ok(default.into()), text)
    }

    fn int(&mut self) -> Result<i64, String> {
        match self.next() {
            Any::Int(value) => Ok(value),
            other => Err(expected("int64", &other)),
        }
    }

    fn truth(&mut self) -> bool {
        self.next() == Any::Bool(true)
    }

    fn time(&mut self) -> Result<Zoned, String> {
        match self.next() {
            Any::Time(time) => Ok(time),
            other => Err(expected("time", &other)),
        }
    }

    fn duration(&mut self) -> Result<i64, String> {
        match self.next() {
            Any::Duration(nanos) => Ok(nanos),
            other => Err(expected("duration", &other)),
        }
    }

    fn list(&mut self) -> Result<Vec<Any<'a>>, String> {
        self.next().into_list().map_err(|other| expected("pcommon.Slice", &other))
    }

    fn map(&mut self) -> Result<Vec<KeyValue>, String> {
        let value = self.next();
        match value.map() {
            Some(pairs) => Ok(pairs.to_vec()),
            None => Err(expected("pcommon.Map", &value)),
        }
    }
}

fn expected(what: &str, found: &Any<'_>) -> String {
    format!("expected {what} but got {}", found.kind())
}

fn text(value: Any<'_>) -> Result<Cow<'_, str>, String> {
    match value {
        Any::Text(text) => Ok(text),
        other => Err(expected("string", &other)),
    }
}

/// A text that was made.
fn made<'a>(text: impl Into<String>) -> Any<'a> {
    Any::Text(Cow::Owned(text.into()))
}

#[cfg(test)]
mod tests;
