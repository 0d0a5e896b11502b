//! The agent's own spans: one for each batch that a receiver or a processor hands on, and one for each that an
//! exporter delivers. They are spans of `tracing`, so that nobody pays for them who does not ask for them.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    KeyValue, SpanId, TraceFlags,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::{
    metrics::Level,
    push::{Processor, Queue, scope},
    recent::{OWN, Owner},
};
use crate::config::Mistakes;

/// By this target the spans are known.
pub(crate) const TARGET: &str = "fathom::span";

/// `service::telemetry::traces`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether there are spans: `none` turns them off.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub level: Level,
    /// Read for the sake of existing files: `tracecontext` and `b3`. A batch carries no context.
    pub propagators: Vec<String>,
    /// What becomes of spans. Without one there are none.
    pub processors: Vec<Processor>,
    /// Which spans are sent; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// Read for the sake of existing files: spans are small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Map<String, serde_json::Value>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: Level::Basic,
            propagators: Vec::new(),
            processors: Vec::new(),
            sampler: None,
            limits: None,
        }
    }
}

/// Which spans are sent: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampler {
    /// As its parent, which for the agent's spans is as the first of a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_based: Option<ParentBased>,
    /// None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_off: Option<Map<String, serde_json::Value>>,
    /// All.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_on: Option<Map<String, serde_json::Value>>,
    /// A part of all traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id_ratio_based: Option<Ratio>,
}

/// `parent_based`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParentBased {
    /// For the first span of a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Choice>,
    /// Read for the sake of existing files: the agent's spans have no parents elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_parent_sampled: Option<Choice>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_parent_not_sampled: Option<Choice>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_parent_sampled: Option<Choice>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_parent_not_sampled: Option<Choice>,
}

/// Which spans: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Choice {
    /// None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_off: Option<Map<String, serde_json::Value>>,
    /// All.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always_on: Option<Map<String, serde_json::Value>>,
    /// A part of all traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id_ratio_based: Option<Ratio>,
}

/// `trace_id_ratio_based`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ratio {
    /// How many of all, from 0 to 1.
    pub ratio: f64,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { ratio: 1.0 }
    }
}

impl Choice {
    /// How many of all traces; `None` if it does not say.
    fn ratio(&self) -> Option<f64> {
        match self {
            Self { always_off: Some(_), .. } => Some(0.0),
            Self { always_on: Some(_), .. } => Some(1.0),
            Self { trace_id_ratio_based: Some(part), .. } => Some(part.ratio),
            _ => None,
        }
    }
}

impl Sampler {
    fn ratio(&self) -> Option<f64> {
        if let Some(parent) = &self.parent_based {
            return parent.root.as_ref().map_or(Some(1.0), Choice::ratio);
        }
        let Self { always_off, always_on, trace_id_ratio_based, .. } = self.clone();
        Choice { always_off, always_on, trace_id_ratio_based }.ratio()
    }
}

impl Config {
    pub(super) fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (i, name) in self.propagators.iter().enumerate() {
            let known = ["tracecontext", "b3"];
            if !known.contains(&name.as_str()) {
                let message = "error creating propagator: unsupported trace propagator";
                wrong.unknown(format!("propagators::{i}"), message, name, known);
            }
        }
        for (i, processor) in self.processors.iter().enumerate() {
            wrong.nest(&format!("processors::{i}"), processor.check("span"));
        }
        let unknown = self.sampler.as_ref().is_some_and(|sampler| sampler.ratio().is_none());
        wrong.require(!unknown, "sampler", "invalid sampler configuration");
        wrong
    }

    /// Whether spans are made at all.
    pub(super) fn is_on(&self) -> bool {
        self.level != Level::None && !self.processors.is_empty()
    }

    pub(super) fn spans(&self, queues: Vec<Queue<SpanData>>) -> Spans {
        let ratio = self.sampler.as_ref().and_then(Sampler::ratio).unwrap_or(1.0);
        Spans { queues, ratio }
    }
}

/// Makes spans.
pub(super) struct Spans {
    queues: Vec<Queue<SpanData>>,
    /// How many of all.
    ratio: f64,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let Some(span) = cx.span(id).filter(|span| span.metadata().target() == TARGET) else {
            return;
        };
        if fastrand::f64() >= self.ratio {
            return;
        }
        let (trace, id) = (fastrand::u128(1..).into(), fastrand::u64(1..).into());
        let now = SystemTime::now();
        let mut open = Open(SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::default(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope(),
        });
        attributes.record(&mut open);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(open);
        }
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        let Some(span) = cx.span(&id) else { return };
        let Some(Open(mut data)) = span.extensions_mut().remove::<Open>() else { return };
        let owner = span.scope().find_map(|span| span.extensions().get::<Owner>().cloned());
        if let Some(owner) = owner {
            if owner.kind == OWN {
                return;
            }
            let operation = match (owner.kind.as_str(), &*data.name) {
                ("receiver", "metrics") => "MetricsReceived",
                ("receiver", "logs") => "LogsReceived",
                ("receiver", "traces") => "TraceDataReceived",
                (_, signal) => signal,
            };
            data.name = format!("{}/{}/{operation}", owner.kind, owner.id).into();
            data.attributes.extend(owner.fields().map(|(key, value)| KeyValue::new(key, value)));
        }
        data.end_time = SystemTime::now();
        let Some((last, rest)) = self.queues.split_last() else { return };
        rest.iter().for_each(|queue| queue.put(data.clone()));
        last.put(data);
    }
}

/// A span that has not ended.
struct Open(SpanData);

impl Visit for Open {
    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.attributes.push(KeyValue::new(field.name(), value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "error" => self.0.status = Status::error(value.to_owned()),
            "signal" => self.0.name = value.to_owned().into(),
            name => self.0.attributes.push(KeyValue::new(name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
