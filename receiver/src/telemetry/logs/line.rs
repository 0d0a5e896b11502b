//! A record as a line, laid out as zap does it.

use std::{fmt, time::SystemTime};

use humantime_serde::re::humantime::format_rfc3339_millis;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::{KEPT, output::Outputs, sampling::Sampler};
use crate::telemetry::recent::Owner;

/// Writes records.
pub(super) struct Lines {
    pub(super) json: bool,
    pub(super) caller: bool,
    /// What every record says.
    pub(super) fixed: Map<String, Value>,
    pub(super) sampler: Option<Sampler>,
    pub(super) outputs: Outputs,
    pub(super) errors: Outputs,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut said = Said::default();
        event.record(&mut said);
        let owner = Owner::of(event, &cx);
        let takes = |sampler: &Sampler| sampler.takes(level, owner.as_ref(), &said.message);
        let kept = event.metadata().target() == KEPT;
        if !kept && !self.sampler.as_ref().is_none_or(takes) {
            return;
        }
        let mut fields: Vec<(&str, Value)> =
            self.fixed.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        if let Some(owner) = owner {
            fields.extend(owner.fields().map(|(key, value)| (key, value.into())));
        }
        fields.extend(said.fields);
        let time = format_rfc3339_millis(SystemTime::now()).to_string();
        let metadata = event.metadata();
        let caller = metadata.file().zip(metadata.line()).filter(|_| self.caller);
        let caller = caller.map(|(file, line)| format!("{}:{line}", short(file)));
        let text = match self.json {
            true => {
                let mut all: Vec<(&str, Value)> =
                    vec![("level", level.into()), ("ts", time.into())];
                all.extend(caller.map(|caller| ("caller", caller.into())));
                all.push(("msg", said.message.into()));
                all.append(&mut fields);
                object(&all, ":", ",") + "\n"
            }
            false => {
                let mut line = format!("{time}\t{level}\t");
                if let Some(caller) = caller {
                    line = line + &caller + "\t";
                }
                escape(&said.message, &mut line);
                if !fields.is_empty() {
                    line.push('\t');
                    line.push_str(&object(&fields, ": ", ", "));
                }
                line + "\n"
            }
        };
        self.outputs.write(text.as_bytes(), Some(&self.errors));
    }
}

/// A text from elsewhere on one line of a terminal: what moves the cursor or changes colours is shown, not done.
fn escape(text: &str, line: &mut String) {
    for character in text.chars() {
        match character {
            '\t' => line.push(character),
            _ if character.is_control() => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
}

/// A file in its folder.
fn short(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(at, _)| at);
    slashes.nth(1).map_or(file, |at| &file[at + 1..])
}

fn object(fields: &[(&str, Value)], colon: &str, comma: &str) -> String {
    let field = |(key, value): &(&str, Value)| format!("{}{colon}{value}", Value::from(*key));
    let text = format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(comma));
    // JSON leaves these as they are.
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => escaped += &format!("\\u{:04x}", u32::from(character)),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name(), value.into()));
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
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.add(field, format!("{value:?}")),
        }
    }
}
