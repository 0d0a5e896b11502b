//! `processors`: records as OTLP, for who collects the logs of agents.

use std::{fmt, time::SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use crate::telemetry::{
    push::Queue,
    recent::{OWN, Owner},
};

/// Puts records where they are sent from.
pub(super) struct Export {
    queues: Vec<Queue<SdkLogRecord>>,
    /// Makes records, and nothing else.
    logger: SdkLogger,
}

impl Export {
    pub(super) fn new(queues: Vec<Queue<SdkLogRecord>>) -> Self {
        let logger = SdkLoggerProvider::builder().build().logger(env!("CARGO_PKG_NAME"));
        Self { queues, logger }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Export {
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let owner = Owner::of(event, &cx);
        if owner.as_ref().is_some_and(|owner| owner.kind == OWN) {
            return;
        }
        let (severity, text) = match *event.metadata().level() {
            Level::ERROR => (Severity::Error, "error"),
            Level::WARN => (Severity::Warn, "warn"),
            Level::INFO => (Severity::Info, "info"),
            Level::DEBUG | Level::TRACE => (Severity::Debug, "debug"),
        };
        let mut said = Said(self.logger.create_log_record());
        let time = SystemTime::now();
        said.0.set_timestamp(time);
        said.0.set_observed_timestamp(time);
        said.0.set_severity_number(severity);
        said.0.set_severity_text(text);
        event.record(&mut said);
        said.0.add_attributes(owner.into_iter().flat_map(Owner::fields));
        let Some((last, rest)) = self.queues.split_last() else { return };
        rest.iter().for_each(|queue| queue.put(said.0.clone()));
        last.put(said.0);
    }
}

/// What an event says.
struct Said(SdkLogRecord);

impl Said {
    fn add(&mut self, field: &Field, value: impl Into<AnyValue>) {
        match field.name() {
            "message" => self.0.set_body(value.into()),
            name => self.0.add_attribute(name, value),
        }
    }
}

impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}
