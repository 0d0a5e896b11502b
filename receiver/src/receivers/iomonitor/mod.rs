//! `iomonitor`: what the kernel does for the I/O of a host or of cgroups, counted in the kernel and
//! read once per interval.
//!
//! Each signal is a file of its own and a line in [`SIGNALS`]; this file knows none of them by name.

mod attached;
mod block;
mod compaction;
pub mod config;
mod derived;
mod descriptors;
mod dirty;
mod durations;
mod ends;
mod errors;
mod fadvise;
mod faults;
mod folio;
mod groups;
mod inherit;
mod io_uring;
mod kept;
mod kills;
mod living;
mod madvise;
mod own;
mod page_cache;
mod page_states;
mod pressure;
mod reclaim;
mod sampling;
mod schedule;
pub mod signal;
mod swap;
mod syscalls;
mod system_call;
mod tier;

use std::{future::Future, time::Duration};

use anyhow::{Result, anyhow, bail};
use caps::Capability;
use tokio::time::sleep;
use tracing::debug;

use self::config::ModeChoice;
use self::{
    attached::Attached,
    inherit::{Left, Will},
    own::Scraped,
    schedule::Schedule,
    signal::{AnySignal, Disabled, Factory, signal},
};
pub use self::{config::Config, groups::ATTRIBUTES};
use crate::{
    batch::{Batch, Signal as Telemetry},
    channel::Output,
    component::{Component, Context, Receiver},
    config::{Mistakes, Raw, Section},
    ebpf::{ladder::Status, memory, scope::Scope},
    metric::Metric,
    privilege::{self, Needs, Raised},
};

/// Every signal.
pub const SIGNALS: &[Factory] = &[
    signal::<page_cache::PageCache>(),
    signal::<dirty::Dirty>(),
    signal::<page_states::PageStates>(),
    signal::<fadvise::Fadvise>(),
    signal::<madvise::Madvise>(),
    signal::<faults::Faults>(),
    signal::<reclaim::Reclaim>(),
    signal::<compaction::Compaction>(),
    signal::<kills::Kills>(),
    signal::<syscalls::Syscalls>(),
    signal::<io_uring::IoUring>(),
    signal::<block::Block>(),
    signal::<descriptors::Descriptors>(),
];

/// The receiver's own metrics, the kernel's own, and those of every signal.
const METRICS: &[Metric] = &all_metrics();

/// Metrics that are no signal's.
const OTHERS: [&[Metric]; 4] = [own::METRICS, pressure::METRICS, swap::METRICS, derived::METRICS];

/// Joins the lists of the signals at compile time.
const fn all_metrics() -> [Metric; count_metrics()] {
    let mut all = [own::METRICS[0]; count_metrics()];
    let (mut next, mut list) = (0, 0);
    while list < OTHERS.len() + SIGNALS.len() {
        let metrics =
            if list < OTHERS.len() { OTHERS[list] } else { SIGNALS[list - OTHERS.len()].metrics };
        let mut i = 0;
        while i < metrics.len() {
            all[next] = metrics[i];
            next += 1;
            i += 1;
        }
        list += 1;
    }
    all
}

const fn count_metrics() -> usize {
    let (mut count, mut i) = (0, 0);
    while i < OTHERS.len() {
        count += OTHERS[i].len();
        i += 1;
    }
    i = 0;
    while i < SIGNALS.len() {
        count += SIGNALS[i].metrics.len();
        i += 1;
    }
    count
}

/// After a change of its configuration the receiver collects this soon, for what has ended must not seem to go on. Two
/// points of a series are apart by more than a millisecond, which is as exact as Prometheus is.
const SOON: Duration = Duration::from_millis(10);

/// What a collection has taken for a moment is handed back so long after it: by then, those whom it was sent to have taken it
/// in, and at the first, everything else has started.
const LATER: Duration = Duration::from_millis(50);
/// A collection of so many points takes more than a MiB, which is worth the walk through the heap and the faults of the next.
const MANY: usize = 4_096;

/// The receiver.
pub struct IoMonitor {
    config: Config,
    scope: Scope,
    signals: Vec<Box<dyn AnySignal>>,
    disabled: Disabled,
    running: Option<Attached>,
}

impl Component for IoMonitor {
    const NAME: &'static str = "iomonitor";
    const DESCRIPTION: &'static str = "Page cache, advice, memory, system calls and block devices, counted by eBPF \
                                       programs, and the processes that are killed.";
    const SIGNALS: &'static [Telemetry] = &[Telemetry::Metrics, Telemetry::Logs];
    const METRICS: &'static [Metric] = METRICS;
    const EXAMPLE: &'static str = "scope:\n  cgroups: [/sys/fs/cgroup/system.slice]\nsignals:\n  syscalls:\n    calls: [read, pread64, fsync]";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        config.check(&mut wrong);
        let mut disabled = Disabled::new();
        for (name, switch) in &config.metrics {
            match METRICS.iter().find(|m| m.name == name) {
                Some(metric) if !switch.enabled => drop(disabled.insert(metric.name)),
                Some(_) => {}
                None => wrong.unknown(
                    format!("metrics::{name}"),
                    format!("no metric is called {name}"),
                    name,
                    METRICS.iter().map(|m| m.name),
                ),
            }
        }
        config.check_overrides(&mut wrong);
        sampling::check(&config, &mut wrong);
        for name in config.signals.keys().filter(|n| !SIGNALS.iter().any(|s| s.name == n.as_str()))
        {
            wrong.unknown(
                format!("signals::{name}"),
                format!("no signal is called {name}"),
                name,
                SIGNALS.iter().map(|s| s.name),
            );
        }
        let mut signals = Vec::new();
        for factory in SIGNALS {
            let section = config.signals.get(factory.name).map(Raw::section).unwrap_or_default();
            match (factory.configure)(&section, &disabled) {
                Ok(signal) => signals.extend(signal),
                Err(nested) => wrong.nest(&format!("signals::{}", factory.name), nested),
            }
        }
        let scope = Scope::new(config.scope.clone()).unwrap_or_else(|nested| {
            wrong.nest("scope", nested);
            Scope::default()
        });
        wrong.or(Self { config, scope, signals, disabled, running: None })
    }
}

impl Receiver for IoMonitor {
    fn needs(&self) -> Needs {
        let mut to_start = vec![
            // Programs that read the kernel's memory.
            Capability::CAP_PERFMON,
            // Tracefs, which is root's, for an agent that is not.
            Capability::CAP_DAC_READ_SEARCH,
            // The namespaces of other users' processes.
            Capability::CAP_SYS_PTRACE,
            // Linux 5.10 counts maps as locked memory.
            Capability::CAP_SYS_RESOURCE,
        ];
        if self.config.run_time || privilege::perf_is_for_administrators() {
            to_start.push(Capability::CAP_SYS_ADMIN);
        }
        // Older kernels ask for the first at each reading of a map; the second is for a turn on the CPU.
        let mut to_run = vec![Capability::CAP_BPF, Capability::CAP_SYS_NICE];
        // Who has given it this one has meant the others, as before Linux 5.8.
        if !(privilege::may(Capability::CAP_BPF) && privilege::may(Capability::CAP_PERFMON)) {
            to_run.push(Capability::CAP_SYS_ADMIN);
        }
        Needs { to_start, to_run }
    }

    fn probe(&mut self) -> Result<Vec<Status>> {
        Ok(self.attach(&Will::default())?.statuses)
    }

    async fn start(&mut self, cx: &Context) -> Result<()> {
        // Loading is work for the CPU, for some 100 ms, and nothing else runs yet on this thread.
        let promised = cx.heritage.promised::<Will>().unwrap_or_default();
        let attached = tokio::task::block_in_place(|| {
            let _raised = Raised::now()?;
            self.attach(&promised)
        })?;
        memory::release();
        cx.status.probes(own::probes(&attached.statuses));
        attached.report()?;
        self.running = Some(attached);
        Ok(())
    }

    fn run(self, cx: Context, out: Output) -> impl Future<Output = Result<()>> + Send {
        // A reload may come before the task runs for the first time.
        if let Some(attached) = &self.running {
            cx.heritage.promise(attached.will.clone());
        }
        self.work(cx, out)
    }
}

impl IoMonitor {
    async fn work(mut self, cx: Context, out: Output) -> Result<()> {
        let Some(attached) = self.running.take() else { bail!("it was not started") };
        let scraped = Scraped::new(&cx);
        let intervals = self.config.intervals();
        let all = vec![true; intervals.len()];
        let align = &self.config.align;
        let epoch = align.enabled.then_some(align.epoch);
        let (mut attached, mut before) = self.inherit(attached, cx.heritage.take())?;
        let mut schedule = Schedule::new(intervals, self.config.initial_delay, epoch);
        let mut soon = before.is_some();
        let mut settled = false;
        let mut hand_back = false;
        loop {
            let (stopped, due) = tokio::select! {
                biased;
                () = cx.stop.cancelled() => (true, all.clone()),
                () = sleep(SOON), if soon => (false, all.clone()),
                due = schedule.next() => (false, if before.is_some() { all.clone() } else { due }),
                () = sleep(LATER), if hand_back => {
                    tokio::task::block_in_place(memory::release);
                    hand_back = false;
                    settled = true;
                    continue;
                }
            };
            soon = false;
            // The kernel goes on counting, and the next collection has it all.
            if out.refuses_all() && !stopped {
                debug!("not collected: data is refused, due to high memory usage");
                continue;
            }
            // A few system calls, well under a millisecond: not worth another thread.
            let (mut metrics, events) = tokio::task::block_in_place(|| {
                attached.look_for_scope();
                let metrics = out
                    .carries(Telemetry::Metrics)
                    .then(|| attached.collect(&due, &self.disabled, &scraped, &cx.status));
                // Taken out of the kernel even if nobody wants them: full, it would count them as lost.
                let events =
                    attached.events(&due, &scraped).filter(|_| out.carries(Telemetry::Logs));
                (metrics, events)
            });
            let last = metrics.as_ref().filter(|_| stopped).cloned();
            let mut points = 0;
            if let Some(metrics) = &mut metrics {
                points = metrics.items();
                scraped.points.add(points as u64, &scraped.attributes);
                if let Some(before) = before.take() {
                    ends::add(before, metrics);
                }
            }
            for batch in metrics.into_iter().chain(events) {
                if out.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            // What is due already stays due: a small collection may follow a large one at once.
            hand_back |= !settled || points >= MANY;
            if stopped {
                cx.heritage.leave(Left { attached, last });
                return Ok(());
            }
        }
    }

    fn attach(&mut self, promised: &Will) -> Result<Attached> {
        let signals = std::mem::take(&mut self.signals);
        Attached::new(&self.config, std::mem::take(&mut self.scope), signals, promised)
    }

    /// Takes over what the instance before this one has left, with its last collection.
    fn inherit(
        &self,
        mut attached: Attached,
        left: Option<Box<Left>>,
    ) -> Result<(Attached, Option<Batch>)> {
        let (whole, last) = match left {
            Some(left) => (attached.inherit(left.attached), left.last),
            None => (attached.awaited.is_empty(), None),
        };
        if !whole {
            // It did not come to its end: everything begins anew.
            let again = Self::new(self.config.clone()).map_err(|wrong| anyhow!("{wrong:?}"));
            attached = tokio::task::block_in_place(|| {
                let _raised = Raised::now()?;
                again?.attach(&Will::default())
            })?;
            attached.report()?;
        }
        Ok((attached, last))
    }
}

/// With every signal, and everything else as it is by default.
pub fn everything(mode: ModeChoice) -> Result<IoMonitor> {
    let signals = SIGNALS.iter().map(|signal| format!("{}: {{enabled: true}}", signal.name));
    let yaml = format!("signals: {{{}}}", signals.collect::<Vec<_>>().join(", "));
    let section = Section::of_text(&yaml).map_err(|wrong| anyhow!("{wrong:?}"))?;
    let new = section.configure(|config| IoMonitor::new(Config { mode, ..config }));
    new.map_err(|wrong| anyhow!("{wrong:?}"))
}
