//! The last warnings and errors, by component, for whoever looks at the agent after they were logged.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::SystemTime,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

/// Records that are kept, and of one component: one that fails all the time must not push out the rest.
const MOST: usize = 256;
const MOST_OF_ONE: usize = 32;
/// Bytes of a record's text that are kept.
const MOST_TEXT: usize = 2048;

/// A warning or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who logged it, as in `exporter:otlp_grpc`; empty for the agent itself.
    pub component: String,
    /// `warn` or `error`.
    pub level: &'static str,
    /// What it says, with its fields.
    pub text: String,
    /// How many times it was logged in a row.
    pub times: u64,
    /// When it was logged last.
    pub time: SystemTime,
}

/// The records, the oldest first. As a layer of `tracing` it takes them in.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Record>>>);

static ALL: LazyLock<Recent> = LazyLock::new(Recent::default);

/// Those of the process: its log is one, too.
pub fn all() -> &'static Recent {
    &ALL
}

impl Recent {
    /// The records, the oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, record: Record) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = |other: &Record| other.component == record.component;
        if let Some(at) = records.iter().rposition(of_one) {
            let last = &records[at];
            if (last.level, &last.text) == (record.level, &record.text) {
                // It goes to the end, for it is the newest again.
                let times = last.times + 1;
                records.remove(at);
                records.push_back(Record { times, ..record });
                return;
            }
        }
        let full = records.iter().filter(|other| of_one(other)).count() == MOST_OF_ONE;
        match records.iter().position(of_one) {
            Some(oldest) if full => drop(records.remove(oldest)),
            _ if records.len() == MOST => drop(records.pop_front()),
            _ => {}
        }
        records.push_back(record);
    }
}

/// The kind of what sends the agent's own telemetry, which is not to send what it says itself.
pub(super) const OWN: &str = "telemetry";

/// The component that a span stands for. This layer notes it at the span, and others read it there.
#[derive(Clone, Default, Hash)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) id: String,
    /// Of a processor, which has an instance in each.
    pub(super) pipeline: Option<String>,
}

impl Owner {
    /// Whose record it is.
    pub(super) fn of<S>(event: &Event<'_>, cx: &Context<'_, S>) -> Option<Self>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        cx.event_scope(event)?.find_map(|span| span.extensions().get::<Self>().cloned())
    }

    /// As records show it.
    pub(super) fn fields(self) -> impl Iterator<Item = (&'static str, String)> {
        let pipeline = self.pipeline.map(|id| ("otelcol.pipeline.id", id));
        [("otelcol.component.id", self.id), ("otelcol.component.kind", self.kind)]
            .into_iter()
            .chain(pipeline)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recent {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut owner = Owner::default();
        attributes.record(&mut owner);
        if let Some(span) = cx.span(id).filter(|_| !owner.kind.is_empty()) {
            span.extensions_mut().insert(owner);
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => return,
        };
        let owner = Owner::of(event, &cx).map(|Owner { kind, id, .. }| format!("{kind}:{id}"));
        let mut text = Text(String::new());
        event.record(&mut text);
        self.add(Record {
            component: owner.unwrap_or_default(),
            level,
            text: text.0,
            times: 1,
            time: SystemTime::now(),
        });
    }
}

impl Visit for Owner {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "otelcol.component.kind" {
            value.clone_into(&mut self.kind);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "otelcol.component.id" => self.id = format!("{value:?}"),
            "otelcol.pipeline.id" => self.pipeline = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

/// A record's message and fields, in one line or more, and not without end.
struct Text(String);

impl Text {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let _ = match field.name() {
            "message" => self.write_fmt(value),
            name => write!(self, " {name}={value}"),
        };
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MOST_TEXT.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error, error_span, info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn recorded(log: impl FnOnce()) -> Vec<Record> {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, log);
        recent.records()
    }

    fn of<T>(kind: &str, id: &str, log: impl FnOnce() -> T) -> T {
        error_span!("component", otelcol.component.id = %id, otelcol.component.kind = kind)
            .in_scope(log)
    }

    #[test]
    fn warnings_and_errors_are_kept_with_their_owner() {
        let records = recorded(|| {
            info!("nothing");
            warn!(probe = "a/b", "Not attached.");
            of("exporter", "otlp_grpc/x", || {
                (0..3).for_each(|_| error!(code = 14, "it is away"));
            });
        });
        let shown: Vec<_> = records
            .iter()
            .map(|r| (r.component.as_str(), r.level, r.text.as_str(), r.times))
            .collect();
        assert_eq!(
            shown,
            [
                ("", "warn", "Not attached. probe=a/b", 1),
                ("exporter:otlp_grpc/x", "error", "it is away code=14", 3),
            ]
        );
    }

    #[test]
    fn who_fails_all_the_time_takes_its_own_room_alone() {
        let records = recorded(|| {
            of("receiver", "quiet", || warn!("once"));
            of("exporter", "loud", || (0..10_000).for_each(|i| error!("number {i}")));
        });
        assert_eq!(records.len(), 1 + MOST_OF_ONE);
        assert_eq!(records[0].text, "once");
        assert_eq!(records[MOST_OF_ONE].text, "number 9999");

        let records = recorded(|| {
            for i in 0..1000 {
                of("exporter", &i.to_string(), || error!("{}", "é".repeat(10_000)));
            }
        });
        assert_eq!(records.len(), MOST);
        assert!(records.iter().all(|r| r.text.len() == MOST_TEXT));
        assert_eq!(records[MOST - 1].component, "exporter:999");
    }
}
