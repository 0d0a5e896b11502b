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
mod errors;
mod fadvise;
mod faults;
mod folio;
mod groups;
mod io_uring;
mod kept;
mod kills;
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

use anyhow::{Result, anyhow, bail};
use caps::Capability;
use tracing::debug;

use self::config::ModeChoice;
use self::{
    attached::Attached,
    own::Scraped,
    schedule::Schedule,
    signal::{AnySignal, Disabled, Factory, signal},
};
pub use self::{config::Config, groups::ATTRIBUTES};
use crate::{
    batch::Signal as Telemetry,
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
        Ok(self.attach()?.statuses)
    }

    async fn start(&mut self, cx: &Context) -> Result<()> {
        // Loading is work for the CPU, for some 100 ms, and nothing else runs yet on this thread.
        let attached = tokio::task::block_in_place(|| {
            let _raised = Raised::now()?;
            self.attach()
        })?;
        memory::release();
        cx.status.probes(own::probes(&attached.statuses));
        attached.report()?;
        self.running = Some(attached);
        Ok(())
    }

    async fn run(mut self, cx: Context, out: Output) -> Result<()> {
        let Some(mut attached) = self.running.take() else { bail!("it was not started") };
        let scraped = Scraped::new(&cx);
        let intervals = self.config.intervals();
        let all = vec![true; intervals.len()];
        let align = &self.config.align;
        let epoch = align.enabled.then_some(align.epoch);
        let mut schedule = Schedule::new(intervals, self.config.initial_delay, epoch);
        let mut settled = false;
        loop {
            let (stopped, due) = tokio::select! {
                biased;
                () = cx.stop.cancelled() => (true, all.clone()),
                due = schedule.next() => (false, due),
            };
            // The kernel goes on counting, and the next collection has it all.
            if out.refuses_all() && !stopped {
                debug!("not collected: data is refused, due to high memory usage");
                continue;
            }
            // A few system calls, well under a millisecond: not worth another thread.
            let (metrics, events) = tokio::task::block_in_place(|| {
                attached.look_for_scope();
                let metrics = out
                    .carries(Telemetry::Metrics)
                    .then(|| attached.collect(&due, &self.disabled, &scraped, &cx.status));
                // Taken out of the kernel even if nobody wants them: full, it would count them as lost.
                let events =
                    attached.events(&due, &scraped).filter(|_| out.carries(Telemetry::Logs));
                (metrics, events)
            });
            if let Some(metrics) = &metrics {
                scraped.points.add(metrics.items() as u64, &scraped.attributes);
            }
            for batch in metrics.into_iter().chain(events) {
                if out.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            // By now everything else has started, too.
            if !std::mem::replace(&mut settled, true) {
                memory::release();
            }
            if stopped {
                return Ok(());
            }
        }
    }
}

impl IoMonitor {
    fn attach(&mut self) -> Result<Attached> {
        let signals = std::mem::take(&mut self.signals);
        Attached::new(&self.config, std::mem::take(&mut self.scope), signals)
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
