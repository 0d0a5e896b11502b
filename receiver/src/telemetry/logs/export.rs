//! `processors`: records as OTLP, for who collects the logs of agents.

use std::{fmt, time::SystemTime};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use crate::{
    metric::{key_value, nanos},
    telemetry::{
        push::Queue,
        recent::{OWN, Owner},
    },
};

/// Puts records where they are sent from.
pub(super) struct Export(pub(super) Vec<Queue<LogRecord>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Export {
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let owner = Owner::of(event, &cx);
        if owner.as_ref().is_some_and(|owner| owner.kind == OWN) {
            return;
        }
        let (severity, text) = match *event.metadata().level() {
            Level::ERROR => (SeverityNumber::Error, "error"),
            Level::WARN => (SeverityNumber::Warn, "warn"),
            Level::INFO => (SeverityNumber::Info, "info"),
            Level::DEBUG | Level::TRACE => (SeverityNumber::Debug, "debug"),
        };
        let time = nanos(SystemTime::now());
        let mut said = Said(LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number: severity.into(),
            severity_text: text.to_owned(),
            ..LogRecord::default()
        });
        event.record(&mut said);
        let LogRecord { attributes, .. } = &mut said.0;
        let owner = owner.into_iter().flat_map(Owner::fields);
        attributes.extend(owner.map(|(key, value)| key_value(key, Value::StringValue(value))));
        let Some((last, rest)) = self.0.split_last() else { return };
        rest.iter().for_each(|queue| queue.put(said.0.clone()));
        last.put(said.0);
    }
}

/// What an event says.
struct Said(LogRecord);

impl Said {
    fn add(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.0.body = Some(AnyValue { value: Some(value) });
        } else {
            let attribute: KeyValue = key_value(field.name(), value);
            self.0.attributes.push(attribute);
        }
    }
}

impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::BoolValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::DoubleValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::StringValue(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::StringValue(format!("{value:?}")));
    }
}
