//! `views`: what becomes of single metrics of the agent.

use opentelemetry::Key;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::IncludeExclude;
use crate::config::Mistakes;

/// A view.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct View {
    /// Which metrics it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// What becomes of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Changed>,
}

/// `selector`: all that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// The metric's name, in which `*` stands for anything and `?` for one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instrument_name: Option<String>,
    /// `counter`, `up_down_counter`, `histogram`, `observable_counter`, `observable_up_down_counter` or
    /// `observable_gauge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instrument_type: Option<String>,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The name of the instrumentation scope: `fathom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter_name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter_version: Option<String>,
    /// Its schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter_schema_url: Option<String>,
}

/// `stream`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Changed {
    /// Another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Another description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How values are summed up: one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Summed>,
    /// The attributes that stay; those that are left out add up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute_keys: Option<IncludeExclude>,
}

/// `aggregation`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Summed {
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Map<String, Value>>,
    /// Not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<Map<String, Value>>,
    /// The sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<Map<String, Value>>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_value: Option<Map<String, Value>>,
    /// A histogram with these bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explicit_bucket_histogram: Option<Explicit>,
    /// A histogram whose buckets grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base2_exponential_bucket_histogram: Option<Exponential>,
}

/// `explicit_bucket_histogram`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Explicit {
    /// The upper bounds.
    pub boundaries: Vec<f64>,
    /// Whether the least and the greatest value are kept.
    pub record_min_max: bool,
}

/// `base2_exponential_bucket_histogram`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Exponential {
    /// How fine it may be.
    pub max_scale: i8,
    /// Buckets at most.
    pub max_size: u32,
    /// Whether the least and the greatest value are kept.
    pub record_min_max: bool,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { max_scale: 20, max_size: 160, record_min_max: false }
    }
}

/// The types, by the names that configurations give them.
const KINDS: [(&str, InstrumentKind); 6] = [
    ("counter", InstrumentKind::Counter),
    ("histogram", InstrumentKind::Histogram),
    ("observable_counter", InstrumentKind::ObservableCounter),
    ("observable_gauge", InstrumentKind::ObservableGauge),
    ("observable_up_down_counter", InstrumentKind::ObservableUpDownCounter),
    ("up_down_counter", InstrumentKind::UpDownCounter),
];

impl View {
    pub(super) fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        let Some(selector) = &self.selector else {
            wrong.add("", "view: no selector provided");
            return wrong;
        };
        let given = *selector != Selector::default();
        wrong.require(given, "selector", "view_selector: empty selector not supporter");
        if let Some(kind) = &selector.instrument_type {
            let known = KINDS.map(|(name, _)| name);
            if !known.contains(&kind.as_str()) {
                let message = "view_selector: instrument_type: invalid value";
                wrong.unknown("selector::instrument_type", message, kind, known);
            }
        }
        let keys = self.stream.as_ref().and_then(|stream| stream.attribute_keys.as_ref());
        if let Some(keys) = keys {
            wrong.nest("stream::attribute_keys", keys.check());
            // The SDK must be told which stay, and nobody knows all that there are.
            let named = keys.excluded.is_empty() || !keys.included.is_empty();
            let message = "name those that stay, in `included`";
            wrong.require(named, "stream::attribute_keys::excluded", message);
        }
        if let Err(error) = self.stream() {
            wrong.add("stream::aggregation", error);
        }
        wrong
    }

    /// As the SDK takes it.
    pub(super) fn of_sdk(self) -> impl Fn(&Instrument) -> Option<Stream> + Send + Sync {
        move |instrument| match &self.selector {
            Some(selector) if selector.fits(instrument) => self.stream().ok(),
            _ => None,
        }
    }

    fn stream(&self) -> Result<Stream, String> {
        let Changed { name, description, aggregation, attribute_keys } =
            self.stream.clone().unwrap_or_default();
        let mut stream = Stream::builder();
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            stream = stream.with_name(name);
        }
        if let Some(description) = description.filter(|text| !text.is_empty()) {
            stream = stream.with_description(description);
        }
        if let Some(aggregation) = aggregation.and_then(Summed::of_sdk) {
            stream = stream.with_aggregation(aggregation);
        }
        if let Some(keys) = attribute_keys.filter(|keys| !keys.included.is_empty()) {
            let stay = keys.included.iter().filter(|key| keys.selects(key));
            stream = stream.with_allowed_attribute_keys(stay.cloned().map(Key::new));
        }
        stream.build().map_err(|error| error.to_string())
    }
}

impl Summed {
    fn of_sdk(self) -> Option<Aggregation> {
        Some(match self {
            Self { base2_exponential_bucket_histogram: Some(buckets), .. } => {
                let Exponential { max_scale, max_size, record_min_max } = buckets;
                Aggregation::Base2ExponentialHistogram { max_size, max_scale, record_min_max }
            }
            Self { default: Some(_), .. } => return None,
            Self { drop: Some(_), .. } => Aggregation::Drop,
            Self { explicit_bucket_histogram: Some(buckets), .. } => {
                let Explicit { boundaries, record_min_max } = buckets;
                Aggregation::ExplicitBucketHistogram { boundaries, record_min_max }
            }
            Self { last_value: Some(_), .. } => Aggregation::LastValue,
            Self { sum: Some(_), .. } => Aggregation::Sum,
            _ => return None,
        })
    }
}

impl Selector {
    fn fits(&self, instrument: &Instrument) -> bool {
        let is = |asked: &Option<String>, given: &str| {
            asked.as_deref().is_none_or(|asked| asked.is_empty() || asked == given)
        };
        let scope = instrument.scope();
        let name = self.instrument_name.as_deref().filter(|name| !name.is_empty());
        let kind = |name: &String| {
            KINDS.iter().any(|(known, kind)| known == name && *kind == instrument.kind())
        };
        name.is_none_or(|pattern| matches(pattern.as_bytes(), instrument.name().as_bytes()))
            && self.instrument_type.as_ref().is_none_or(kind)
            && is(&self.unit, instrument.unit())
            && is(&self.meter_name, scope.name())
            && is(&self.meter_version, scope.version().unwrap_or_default())
            && is(&self.meter_schema_url, scope.schema_url().unwrap_or_default())
    }
}

/// Whether a pattern of `*` and `?` matches a whole name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        ([b'?', rest @ ..], [_, more @ ..]) => matches(rest, more),
        ([one, rest @ ..], [other, more @ ..]) => one == other && matches(rest, more),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{KeyValue, metrics::MeterProvider as _};
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use prometheus::{Encoder as _, Registry, TextEncoder};
    use serde_json::json;

    use super::*;

    fn view(config: Value) -> View {
        serde_json::from_value(config).expect("of the right types")
    }

    #[test]
    fn what_is_wrong_is_said_in_the_collectors_words() {
        for (config, path, message) in [
            (json!({"stream": {}}), "", "view: no selector provided"),
            (json!({"selector": {}}), "selector", "view_selector: empty selector not supporter"),
            (
                json!({"selector": {"instrument_type": "gauge"}}),
                "selector::instrument_type",
                "view_selector: instrument_type: invalid value",
            ),
            (
                json!({"selector": {"unit": "s"}, "stream": {"attribute_keys": {"included": ["a"], "excluded": ["a"]}}}),
                "stream::attribute_keys::excluded::0",
                "attribute cannot be in both include and exclude list: a",
            ),
        ] {
            let wrong = view(config).check();
            assert_eq!((wrong.0[0].path.as_str(), wrong.0[0].message.as_str()), (path, message));
        }
    }

    #[test]
    fn a_view_renames_drops_and_leaves_attributes_out() {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .without_counter_suffixes()
            .build()
            .expect("a reader");
        let mut builder = SdkMeterProvider::builder().with_reader(reader);
        for config in [
            json!({"selector": {"instrument_name": "otelcol_s*", "instrument_type": "counter"}, "stream": {"name": "sent", "attribute_keys": {"included": ["kept"]}}}),
            json!({"selector": {"instrument_name": "otelcol_dropped_?"}, "stream": {"aggregation": {"drop": {}}}}),
        ] {
            let view = view(config);
            assert_eq!(view.check(), Mistakes::default());
            builder = builder.with_view(view.of_sdk());
        }
        let provider = builder.build();
        let meter = provider.meter("test");
        for name in ["otelcol_sent", "otelcol_dropped_x", "otelcol_other"] {
            let counter = meter.u64_counter(name).build();
            for gone in ["a", "b"] {
                counter.add(2, &[KeyValue::new("kept", "k"), KeyValue::new("gone", gone)]);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).expect("text");
        let text = String::from_utf8(text).expect("text");
        let sent = text.lines().find(|line| line.starts_with("sent{")).expect("renamed");
        assert!(
            sent.contains("kept=\"k\"") && !sent.contains("gone") && sent.ends_with(" 4"),
            "{sent}"
        );
        assert!(!text.contains("otelcol_sent") && !text.contains("dropped_x"), "{text}");
        assert_eq!(text.matches("otelcol_other{").count(), 2, "{text}");
    }
}
