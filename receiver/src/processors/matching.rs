//! Which items a processor means: `include` and `exclude`, by names, attributes, resources and
//! scopes.

mod regexp;

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::{Span, span::SpanKind},
};
use regex::Regex;
use serde::{Deserialize, Serialize};

pub use self::regexp::regexp;
use crate::{batch::Signal, config::Mistakes, value};

/// What an item must have; all that is given must match.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How texts are compared: `strict` (equal) or `regexp` (a match anywhere in them).
    pub match_type: String,
    /// Accepted as the Collector's; regular expressions are fast without a cache.
    pub regexp: Option<Regexp>,
    /// `service.name` of the resource: one of these.
    pub services: Vec<String>,
    /// The span's name: one of these.
    pub span_names: Vec<String>,
    /// The span's kind: one of these.
    pub span_kinds: Vec<String>,
    /// The log record's body: one of these.
    pub log_bodies: Vec<String>,
    /// The log record's severity text: one of these.
    pub log_severity_texts: Vec<String>,
    /// The log record's severity number.
    pub log_severity_number: Option<Severity>,
    /// The metric's name: one of these.
    pub metric_names: Vec<String>,
    /// Attributes of the item: all of these.
    pub attributes: Vec<Attribute>,
    /// Attributes of the resource: all of these.
    pub resources: Vec<Attribute>,
    /// The instrumentation scope: all of these.
    pub libraries: Vec<Library>,
}

/// The Collector's settings of regular expressions.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Regexp {
    /// Has no effect.
    pub cacheenabled: bool,
    /// Has no effect.
    pub cachemaxnumentries: u64,
}

/// The least severity.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Severity {
    /// The least severity number.
    pub min: i32,
    /// Whether a record without one matches.
    pub match_undefined: bool,
}

/// An attribute.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Attribute {
    /// Its key.
    pub key: String,
    /// Its value; any, if there is none here.
    pub value: Option<serde_json::Value>,
}

/// An instrumentation scope.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Its version; any, if there is none here.
    pub version: Option<String>,
}

/// One item, with what it stands below.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// The attributes of the resource.
    pub resource: &'a [KeyValue],
    /// The instrumentation scope.
    pub scope: Option<&'a InstrumentationScope>,
    /// The attributes of the item.
    pub attributes: &'a [KeyValue],
    /// What the item is.
    pub kind: Kind<'a>,
}

/// What an item is.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// A data point of the metric of this name.
    Point(&'a str),
    /// A log record.
    Log(&'a LogRecord),
    /// A span.
    Span(&'a Span),
}

const NOT_OF_METRICS: &str = "\"span_names\", \"span_kinds\", \"log_bodies\", \
                              \"log_severity_texts\", \"log_severity_number\", \"services\", \
                              \"attributes\" and \"libraries\" are not valid for metrics";
const NOT_OF_LOGS: &str =
    "services, span_names, span_kinds and metric_names are not valid for log records";

/// `include` and `exclude`, checked.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

impl Selection {
    /// Checks both.
    pub fn new(include: Option<Config>, exclude: Option<Config>) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let mut checked = |at: &str, config: Option<Config>| match config.map(Matcher::new)? {
            Ok(matcher) => Some(matcher),
            Err(message) => {
                wrong.add(at, message);
                None
            }
        };
        let (include, exclude) = (checked("include", include), checked("exclude", exclude));
        wrong.or(Self { include, exclude })
    }

    /// What may not be asked of items of `signal`: what they do not have, and what the Collector does not
    /// ask them for.
    pub fn unsuited(&self, signal: Signal) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (at, matcher) in [("include", &self.include), ("exclude", &self.exclude)] {
            let asked = matcher.iter().flat_map(Matcher::asked);
            for (key, _) in asked.filter(|(_, of)| !of.contains(&signal)) {
                wrong.add(
                    format!("{at}::{key}"),
                    match signal {
                        Signal::Metrics => NOT_OF_METRICS.to_owned(),
                        Signal::Logs => NOT_OF_LOGS.to_owned(),
                        Signal::Traces => format!("{key} should not be specified for trace spans"),
                    },
                );
            }
        }
        wrong
    }

    /// Whether everything is meant.
    pub fn is_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Whether an item is meant: `include` is asked first.
    pub fn means(&self, item: &Item<'_>) -> bool {
        self.include.as_ref().is_none_or(|include| include.matches(item))
            && !self.exclude.as_ref().is_some_and(|exclude| exclude.matches(item))
    }
}

/// A [`Config`] that was checked. What an item cannot have, such as the span's name of a log
/// record, is not asked of it.
#[derive(Clone, Debug)]
struct Matcher {
    services: Option<Texts>,
    span_names: Option<Texts>,
    span_kinds: Option<Texts>,
    log_bodies: Option<Texts>,
    log_severity_texts: Option<Texts>,
    log_severity_number: Option<Severity>,
    metric_names: Option<Texts>,
    attributes: Attributes,
    resources: Attributes,
    libraries: Vec<(Texts, Option<Texts>)>,
}

impl Matcher {
    fn new(config: Config) -> Result<Self, String> {
        let kind = config.match_type.as_str();
        let names = |what: &str, list: Vec<String>| {
            if list.is_empty() {
                return Ok(None);
            }
            Texts::new(kind, list)
                .map(Some)
                .map_err(|error| format!("error creating {what} filters: {error}"))
        };
        let attributes = |what: &str, list: Vec<Attribute>| {
            Attributes::new(kind, list)
                .map_err(|error| format!("error creating {what} filters: {error}"))
        };
        let libraries = config.libraries.into_iter().map(|Library { name, version }| {
            let texts = |what: &str, text| {
                Texts::new(kind, vec![text])
                    .map_err(|error| format!("error creating library {what} filters: {error}"))
            };
            Ok((texts("name", name)?, version.map(|v| texts("version", v)).transpose()?))
        });
        if kind == "strict" && config.span_kinds.iter().any(|kind| !SPAN_KINDS.contains(&&**kind)) {
            return Err(format!(
                "span_kinds string must match one of the standard span kinds when \
                 match_type=strict: [{}]",
                SPAN_KINDS.join(" ")
            ));
        }
        let matcher = Self {
            libraries: libraries.collect::<Result<_, String>>()?,
            attributes: attributes("attribute", config.attributes)?,
            resources: attributes("resource", config.resources)?,
            services: names("service name", config.services)?,
            span_names: names("span name", config.span_names)?,
            span_kinds: names("span kind", config.span_kinds)?,
            log_bodies: names("log record body", config.log_bodies)?,
            log_severity_texts: names("log record severity text", config.log_severity_texts)?,
            log_severity_number: config.log_severity_number,
            metric_names: names("metric name", config.metric_names)?,
        };
        if matcher.is_empty() {
            return Err(
                "at least one of \"attributes\", \"libraries\",  or \"resources\" field must \
                        be specified"
                    .to_owned(),
            );
        }
        Ok(matcher)
    }

    fn is_empty(&self) -> bool {
        let names = [
            &self.services,
            &self.span_names,
            &self.span_kinds,
            &self.log_bodies,
            &self.log_severity_texts,
            &self.metric_names,
        ];
        names.iter().all(|names| names.is_none())
            && self.log_severity_number.is_none()
            && self.attributes.is_empty()
            && self.resources.is_empty()
            && self.libraries.is_empty()
    }

    /// What is asked for, and of which signals it may be.
    fn asked(&self) -> impl Iterator<Item = (&'static str, &'static [Signal])> {
        use Signal::{Logs, Metrics, Traces};
        let all: [(_, _, &[Signal]); 9] = [
            ("services", self.services.is_some(), &[Traces]),
            ("attributes", !self.attributes.is_empty(), &[Logs, Traces]),
            ("libraries", !self.libraries.is_empty(), &[Logs, Traces]),
            ("span_names", self.span_names.is_some(), &[Traces]),
            ("span_kinds", self.span_kinds.is_some(), &[Traces]),
            ("log_bodies", self.log_bodies.is_some(), &[Logs]),
            ("log_severity_texts", self.log_severity_texts.is_some(), &[Logs]),
            ("log_severity_number", self.log_severity_number.is_some(), &[Logs]),
            ("metric_names", self.metric_names.is_some(), &[Metrics]),
        ];
        all.into_iter().filter_map(|(key, asked, of)| asked.then_some((key, of)))
    }

    fn matches(&self, item: &Item<'_>) -> bool {
        let is = |texts: &Option<Texts>, text: &str| texts.as_ref().is_none_or(|t| t.matches(text));
        let service = || match value::get(item.resource, "service.name") {
            Some(name) => value::text(Some(name)),
            None => "<nil-service-name>".to_owned(),
        };
        let own = match item.kind {
            Kind::Point(name) => is(&self.metric_names, name),
            Kind::Log(record) => {
                let body = || value::text(record.body.as_ref().and_then(|b| b.value.as_ref()));
                self.log_bodies.as_ref().is_none_or(|bodies| bodies.matches(&body()))
                    && is(&self.log_severity_texts, &record.severity_text)
                    && self.log_severity_number.as_ref().is_none_or(|least| {
                        match record.severity_number {
                            0 => least.match_undefined,
                            number => number >= least.min,
                        }
                    })
            }
            Kind::Span(span) => {
                is(&self.span_names, &span.name) && is(&self.span_kinds, kind_name(span.kind()))
            }
        };
        let scope = item.scope.map_or(("", ""), |s| (s.name.as_str(), s.version.as_str()));
        own && self.services.as_ref().is_none_or(|services| services.matches(&service()))
            && self.libraries.iter().all(|(name, version)| {
                name.matches(scope.0) && version.as_ref().is_none_or(|v| v.matches(scope.1))
            })
            && self.resources.matches(item.resource)
            && self.attributes.matches(item.attributes)
    }
}

const SPAN_KINDS: [&str; 5] = [
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_CONSUMER",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_SERVER",
];

fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        _ => kind.as_str_name(),
    }
}

/// Texts of which one must match.
#[derive(Clone, Debug)]
pub enum Texts {
    /// One must be equal.
    Strict(Vec<String>),
    /// One must be found.
    Regexp(Vec<Regex>),
}

impl Texts {
    /// Checks `list`, for a `match_type`; errors have the Collector's text.
    pub fn new(match_type: &str, list: Vec<String>) -> Result<Self, String> {
        match match_type {
            "strict" => Ok(Self::Strict(list)),
            "regexp" => {
                list.iter().map(|text| regexp(text)).collect::<Result<_, _>>().map(Self::Regexp)
            }
            other => {
                Err(format!("unrecognized match_type: '{other}', valid types are: [regexp strict]"))
            }
        }
    }

    /// Whether one matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Strict(list) => list.iter().any(|wanted| wanted == text),
            Self::Regexp(list) => list.iter().any(|wanted| wanted.is_match(text)),
        }
    }
}

/// Attributes that must all be there.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<(String, Wanted)>);

#[derive(Clone, Debug)]
enum Wanted {
    Any,
    Equal(Option<Value>),
    Match(Texts),
}

impl Attributes {
    /// Checks `list`, for a `match_type`; errors have the Collector's text.
    pub fn new(match_type: &str, list: Vec<Attribute>) -> Result<Self, String> {
        let one = |Attribute { key, value }| {
            if key.is_empty() {
                return Err("can't have empty key in the list of attributes".to_owned());
            }
            let wanted = match (value, match_type) {
                (None, _) => Wanted::Any,
                (Some(serde_json::Value::String(text)), "regexp") => {
                    Wanted::Match(Texts::new(match_type, vec![text])?)
                }
                (Some(value), "regexp") => {
                    let found = match value {
                        serde_json::Value::Bool(_) => "Bool",
                        serde_json::Value::Number(number) if number.is_f64() => "Double",
                        serde_json::Value::Number(_) => "Int",
                        serde_json::Value::Array(_) => "Slice",
                        _ => "Map",
                    };
                    return Err(format!(
                        "match_type=regexp for {key:?} only supports Str, but found {found}"
                    ));
                }
                (Some(value), "strict") => Wanted::Equal(value::from_config(&value).value),
                (Some(_), other) => {
                    return Err(Texts::new(other, Vec::new()).expect_err("it is neither"));
                }
            };
            Ok((key, wanted))
        };
        list.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all are there.
    pub fn matches(&self, attributes: &[KeyValue]) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let Some(found) = attributes.iter().find(|a| a.key == *key) else { return false };
            let found = found.value.as_ref().and_then(|v| v.value.as_ref());
            match wanted {
                Wanted::Any => true,
                Wanted::Equal(value) => found == value.as_ref(),
                Wanted::Match(texts) => match found {
                    Some(Value::StringValue(text)) => texts.matches(text),
                    Some(Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_)) => {
                        texts.matches(&value::text(found))
                    }
                    _ => false,
                },
            }
        })
    }
}

#[cfg(test)]
mod tests;
