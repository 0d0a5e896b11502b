//! Processes that a signal ends, and those that the kernel chose because memory was short.

use abi::kills::{CHOSEN, Counter, DUMPED, Event, OOM};
use anyhow::Result;
use nix::sys::signal;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
};

use super::{
    groups::Groups,
    own::dropped,
    signal::{Disabled, Signal, Switch},
};
use crate::{
    config::Mistakes,
    ebpf::{
        architecture::page_size,
        ladder::{Context, Mode, Probe, Rung, at, rungs},
        load::Loaded,
    },
    metric::{About, Attribute, Kind, Metric, Points, key_value},
};

const KILLED: Metric = Metric {
    name: "ebpf.process.killed",
    unit: "{process}",
    kind: Kind::Counter,
    description: "Processes of the scope that a signal ended.",
    caveat: "A series appears with its first process. Signals that a process handles do not end it, and who ends by exit \
             after one is not in it. Counted when the process ends, not when the signal is sent.",
    attributes: &[Attribute {
        name: "signal.name",
        description: "the signal, such as `SIGKILL`; a number for real-time signals",
    }],
};

const OOM_KILLS: Metric = Metric {
    name: "ebpf.memory.oom_kills",
    unit: "{process}",
    kind: Kind::Counter,
    description: "Processes of the scope that the kernel killed because the machine, or their memory cgroup, was out of \
                  memory.",
    caveat: "Counted when the process has ended: one that cannot end is missing. Processes that share a victim's memory \
             die with it and are in ebpf.process.killed alone. What a daemon in user space kills is no such kill.",
    attributes: &[],
};

/// Processes by signal.
pub struct Kills;

impl Signal for Kills {
    const NAME: &'static str = "kills";
    const DESCRIPTION: &'static str = "Which processes are killed, by whom memory runs out. In a pipeline of logs, an event \
                                       for each: `ebpf.process.killed`, or `ebpf.process.oom_killed`.";
    const QUESTION: &'static str =
        "Which processes did not end by themselves, and was it for want of memory?";
    const OBJECT: &'static [u8] = aya::include_bytes_aligned!("../../../../ebpf/prebuilt/kills.o");
    const METRICS: &'static [Metric] = &[KILLED, OOM_KILLS];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[Probe {
        name: "ended",
        context: Context::Task,
        rungs: rungs!(
            [([("exit", "sched_process_exit")], FIELDS)],
            [Rung::new(Mode::Tracepoint, &[at("exit_tp", "sched/sched_process_exit")], FIELDS)]
        ),
    }];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has("ended") {
            return Ok(());
        }
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            let mut chosen = 0;
            for (entry, cell) in cells.iter() {
                let count = cell.first().copied().unwrap_or(0);
                if entry == OOM {
                    chosen = count;
                } else if count > 0 {
                    let attributes = [(KILLED.attributes[0].name, &*name(entry))];
                    points.counter(&KILLED, &attributes, count);
                }
            }
            points.counter(&OOM_KILLS, &[], chosen);
        }
        points.about(About::default());
        let counters = loaded.counters("COUNTERS")?;
        let events = counters[Counter::EventsLost as usize];
        dropped(points, "kills/ended", &[("too many events", events)]);
        Ok(())
    }

    fn events(&mut self, loaded: &mut Loaded, groups: &Groups) -> Result<Vec<LogRecord>> {
        if !loaded.has("ended") {
            return Ok(Vec::new());
        }
        let events = loaded.events::<Event>("EVENTS")?;
        Ok(events.iter().map(|event| record(event, groups)).collect())
    }
}

/// What a process's end is as a log record.
fn record(event: &Event, groups: &Groups) -> LogRecord {
    let chosen = event.flags & CHOSEN != 0;
    let (severity, name_of_event) = match chosen {
        true => (SeverityNumber::Error, "ebpf.process.oom_killed"),
        false => (SeverityNumber::Warn, "ebpf.process.killed"),
    };
    let (signal, command) = (name(event.signal), text(event.name));
    let why = if chosen { ", because memory ran out" } else { "" };
    let text = format!("{command} ({}) was killed by {signal}{why}", event.pid);
    let number = |value: u64| Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
    let mut attributes = vec![
        key_value("process.pid", number(event.pid)),
        key_value("process.executable.name", Value::StringValue(command)),
        key_value("process.creation.time", Value::StringValue(groups.date(event.start))),
        key_value("cgroup.id", number(event.cgroup)),
        key_value(KILLED.attributes[0].name, Value::StringValue(signal)),
        key_value("process.core_dumped", Value::BoolValue(event.flags & DUMPED != 0)),
    ];
    if event.most_pages > 0 {
        let bytes = event.most_pages.saturating_mul(page_size());
        attributes.push(key_value("process.memory.max_rss", number(bytes)));
    }
    LogRecord {
        time_unix_nano: u64::try_from(groups.moment(event.time).as_nanos()).unwrap_or(0),
        observed_time_unix_nano: crate::metric::nanos(std::time::SystemTime::now()),
        severity_number: severity.into(),
        severity_text: if chosen { "ERROR" } else { "WARN" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(text)) }),
        attributes,
        event_name: name_of_event.to_owned(),
        ..Default::default()
    }
}

/// A signal by name, if it has one.
fn name(number: u32) -> String {
    let known = i32::try_from(number).ok().and_then(|n| signal::Signal::try_from(n).ok());
    known.map_or_else(|| number.to_string(), |signal| signal.as_str().to_owned())
}

/// What stands before the zero.
fn text(name: [u64; 2]) -> String {
    let bytes: Vec<u8> =
        name.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Of a task that ends.
const FIELDS: &[&str] = &[
    "task_struct.exit_code",
    "task_struct.signal",
    "signal_struct.live",
    "signal_struct.oom_mm",
    "signal_struct.maxrss",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_and_processes_have_names() {
        assert_eq!(name(9), "SIGKILL");
        assert_eq!(name(34), "34");
        let mut bytes = [0_u8; 16];
        bytes[..4].copy_from_slice(b"work");
        let half = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!(text([half(0), half(8)]), "work");
    }
}
