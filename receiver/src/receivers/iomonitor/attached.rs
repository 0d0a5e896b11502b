//! The receiver at work: what has been attached, and how it is read.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use aya::sys::{Stats, enable_stats};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::InstrumentationScope,
    logs::v1::{ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use tracing::{error, info, warn};

use super::{
    config::Config,
    derived::{Derived, Notes},
    groups::Groups,
    inherit::{Awaited, Promised, Will},
    own::{self, Scraped},
    pressure::Pressure,
    signal::{AnySignal, Disabled},
    swap::Swap,
    tier::{Read, Tier},
};
use crate::{
    batch::Batch,
    descriptors,
    ebpf::{
        capability,
        globals::Globals,
        group::{self, GroupBy},
        kernel::Kernel,
        ladder::Status,
        load::{Loaded, Settings},
        process,
        scope::{self, Resolved, Scope},
        turn::Turn,
        undisturbed::Undisturbed,
    },
    metric::{Points, pairs},
    status::{Probe, Reporter},
};

/// What has been attached.
pub(super) struct Attached {
    /// The first has what is read at the receiver's own interval.
    pub(super) tiers: Vec<Tier>,
    /// Signals that are loaded as they are to be, in the instance that runs yet.
    pub(super) awaited: Vec<Awaited>,
    /// What the next instance can have of this one.
    pub(super) will: Will,
    pub(super) statuses: Vec<Status>,
    /// What is known of the probes.
    probes: Vec<Probe>,
    pub(super) pressure: Option<Pressure>,
    pub(super) swap: Option<Swap>,
    pub(super) derived: Derived,
    scope: Scope,
    /// What the scope meant at the last collection.
    pub(super) resolved: Resolved,
    /// Bytes that the maps can come to take.
    memory: u64,
    /// While this is open, the kernel measures run times.
    _statistics: Option<std::os::fd::OwnedFd>,
    resource: Vec<(&'static str, String)>,
}

const MIB: u64 = 1 << 20;
/// File descriptors that scrapers, exporters and files have to share.
const DESCRIPTORS: u64 = 24;
/// The instrumentation scope of all that the receiver sends.
const SCOPE: &str = "fathom/iomonitor";

impl Attached {
    /// Loads and attaches the signals, but those that the instance that runs has promised.
    pub(super) fn new(
        config: &Config,
        mut scope: Scope,
        wanted: Vec<Box<dyn AnySignal>>,
        promised: &Will,
    ) -> Result<Self> {
        let _undisturbed = Undisturbed::new()?;
        capability::check()?;
        let kernel = Kernel::running();
        scope.open()?;
        let mounts = scope::mounts()?;
        let by = config.group_by;
        match by {
            GroupBy::Process => ensure!(
                process::ids_are_the_kernels(),
                "group_by: process needs the ids of the host's pid namespace (`hostPID: true`, `--pid host`), \
                 and this process is in another"
            ),
            GroupBy::Cgroup => {
                ensure!(!mounts.is_empty(), "group_by: cgroup needs a cgroup v2 hierarchy");
            }
            GroupBy::Host => {}
        }
        let by_cgroup = scope.is_cgroups_alone() || by == GroupBy::Cgroup;
        let owners = by_cgroup && by != GroupBy::Process && !scope.asks_for_tasks();
        let typed = kernel.btf().is_ok();
        if owners && !typed {
            warn!(
                "This kernel has no BTF, so pages and requests are counted for the task at hand, not for the cgroup \
                 that they are charged to."
            );
        }
        let page_owners = owners && typed && group::is_charged_in("memory", &mounts);
        let bio_owners = owners && typed && group::is_charged_in("io", &mounts);
        let mut globals = Globals::default();
        scope.set(&mut globals)?;
        by.set(&mut globals, page_owners, bio_owners);
        let mut needed = scope.needs();
        needed.extend(by.needs());
        if page_owners {
            needed.extend(group::OWNER);
        }
        if bio_owners {
            needed.extend(group::BIO_OWNER);
        }
        let settings = Settings {
            forced: config.mode.forced(),
            group_by: by,
            max_groups: config.max_groups,
            whole_host: by == GroupBy::Host && !scope.asks(),
            needed,
        };

        let requests = wanted.iter().map(|signal| {
            let mut globals = globals.clone();
            if let Some(sampling) = config.sampling(signal.name()) {
                sampling.set(&mut globals);
            }
            signal.request(globals, &settings)
        });
        let requests = requests.collect::<Result<Vec<_>>>()?;
        let memory: u64 = requests.iter().map(|r| r.memory(&kernel)).sum::<Result<u64>>().context(
            "cannot compute \
            the memory of the maps",
        )?;
        within_budget(memory, config)?;

        let _statistics = match config.run_time {
            true => Some(enable_stats(Stats::RunTime).context("cannot turn on run_time")?),
            false => None,
        };
        let resolved = scope.resolve();
        let pressure = config.pressure.enabled.then(|| Pressure::new(meant(&scope, &resolved)));
        let swap = config.swap.enabled.then(|| Swap::new(meant(&scope, &resolved)));
        // Every counter is zero at this moment.
        let start = SystemTime::now();
        let mut attached = Self {
            tiers: Vec::new(),
            awaited: Vec::new(),
            will: Will::new(config),
            statuses: Vec::new(),
            probes: Vec::new(),
            pressure,
            swap,
            derived: Derived::default(),
            resolved,
            scope,
            memory,
            _statistics,
            resource: own::resource(),
        };
        let tiers = config.intervals().len();
        attached.tiers.extend((0..tiers).map(|_| Tier::new(Groups::new(by, mounts.clone()))));
        for (signal, request) in wanted.into_iter().zip(requests) {
            let (name, probes) = (signal.name(), request.probes.clone());
            let (tier, blueprint) = (config.tier(name), request.blueprint());
            if let Some(Promised { statuses, .. }) = promised.of(&attached.will, name, &blueprint) {
                attached.statuses.extend(statuses.clone());
                attached.will.add(name, blueprint, statuses.clone());
                attached.awaited.push(Awaited { name, tier });
                continue;
            }
            let loaded = Loaded::new(&kernel, request).and_then(|(mut loaded, statuses)| {
                loaded.set_scope(&attached.resolved.cgroups, &attached.resolved.processes)?;
                leaves_enough()?;
                Ok((loaded, statuses))
            });
            match loaded {
                Ok((loaded, statuses)) => {
                    let rate = config.sampling(name).map(|sampling| sampling.rate);
                    // What did not attach at all is tried again.
                    if loaded.has_any() {
                        attached.will.add(name, blueprint, statuses.clone());
                    }
                    attached.tiers[tier].signals.push(Read { signal, loaded, start, rate });
                    attached.statuses.extend(statuses);
                }
                Err(error) => attached.statuses.extend(probes.iter().map(|probe| Status {
                    probe: format!("{name}/{}", probe.name),
                    mode: None,
                    refused: probe.rungs.iter().map(|r| (r.mode, format!("{error:#}"))).collect(),
                })),
            }
        }
        attached.probes = own::probes(&attached.statuses);
        Ok(attached)
    }

    /// Logs what has become of the probes; an error if there is not one to go on with.
    pub(super) fn report(&self) -> Result<()> {
        // Each a text of its own: of many that are equal, the log shows some.
        let awaited = |status: &&Status| self.awaited.iter().any(|one| one.has(status));
        for status in self.statuses.iter().filter(|status| !awaited(status)) {
            match (status.mode, status.reason()) {
                (Some(mode), reason) if reason.is_empty() => {
                    info!(%mode, "Attached {}.", status.probe);
                }
                (Some(mode), reason) => info!(%mode, reason, "Attached {}.", status.probe),
                (None, reason) => warn!(reason, "Not attached: {}.", status.probe),
            }
        }
        info!(limit_mib = self.memory.div_ceil(MIB), "What the maps can come to take.");
        for problem in &self.resolved.problems {
            warn!("The scope is degraded: {problem}.");
        }
        let nothing = self.statuses.first().map(Status::reason).unwrap_or_default();
        ensure!(self.statuses.is_empty() || !self.will.is_empty(), "no probe attached: {nothing}",);
        Ok(())
    }

    /// Reads the tiers that are due; with the first comes what belongs to no signal.
    pub(super) fn collect(
        &mut self,
        due: &[bool],
        disabled: &Disabled,
        scraped: &Scraped,
        at: &Reporter,
    ) -> Batch {
        // Each signal says since when it counts; what the kernel counts itself, whom it is about.
        let mut points = Points::new(SystemTime::UNIX_EPOCH, SystemTime::now(), disabled);
        if due.first() == Some(&true) {
            own::statuses(&mut points, &self.statuses);
            own::scope(&mut points, &self.resolved.problems);
            own::memory(&mut points, self.memory);
            if let Some(pressure) = &mut self.pressure {
                pressure.read(meant(&self.scope, &self.resolved), &mut points);
            }
            if let Some(swap) = &mut self.swap {
                swap.read(meant(&self.scope, &self.resolved), &mut points);
            }
            for read in self.tiers.iter().flat_map(|tier| &tier.signals) {
                points.count_from(read.start);
                own::accounts(&mut points, &read.loaded, &mut self.probes);
            }
        }
        let turn = Turn::take();
        let mut notes = Notes::default();
        for (tier, _) in self.tiers.iter_mut().zip(due).filter(|(_, due)| **due) {
            tier.read(&mut points, scraped);
            notes.append(tier.groups.noted());
        }
        drop(turn);
        if let Some(tier) = self.tiers.first() {
            self.derived.emit(notes, &tier.groups, &mut points);
        }
        at.probes(self.probes.clone());
        let resource: Vec<_> = self.resource.iter().map(|(k, v)| (*k, v.as_str())).collect();
        points.into_batch(&resource, SCOPE)
    }

    /// What has happened since this was asked last, as a batch of logs; `None` if nothing has.
    pub(super) fn events(&mut self, due: &[bool], scraped: &Scraped) -> Option<Batch> {
        let mut records = Vec::new();
        for (tier, _) in self.tiers.iter_mut().zip(due).filter(|(_, due)| **due) {
            tier.events(&mut records, scraped);
        }
        if records.is_empty() {
            return None;
        }
        let resource: Vec<_> = self.resource.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let logs = ScopeLogs {
            scope: Some(InstrumentationScope {
                name: SCOPE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }),
            log_records: records,
            schema_url: String::new(),
        };
        Some(Batch::Logs(ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(Resource { attributes: pairs(&resource), ..Default::default() }),
                scope_logs: vec![logs],
                schema_url: String::new(),
            }],
        }))
    }

    /// Tells the programs what the scope means now, if that has changed.
    pub(super) fn look_for_scope(&mut self) {
        let resolved = self.scope.resolve();
        if resolved == self.resolved {
            return;
        }
        for Read { signal, loaded, .. } in self.tiers.iter_mut().flat_map(|tier| &mut tier.signals)
        {
            if let Err(error) = loaded.set_scope(&resolved.cgroups, &resolved.processes) {
                error!(signal = signal.name(), "cannot change its scope: {error:#}");
                return;
            }
        }
        match (resolved.problems.is_empty(), resolved.problems == self.resolved.problems) {
            (true, false) => info!("The scope is whole again."),
            (false, false) => {
                warn!("The scope is degraded: {}.", resolved.problems.join("; "));
            }
            _ => {}
        }
        self.resolved = resolved;
    }
}

/// Whose pressure is read.
fn meant<'a>(scope: &Scope, resolved: &'a Resolved) -> Option<&'a BTreeMap<u64, PathBuf>> {
    scope.asks_for_cgroups().then_some(&resolved.directories)
}

/// Refuses what takes the last file descriptors: without any, nobody could be served, and no file be read.
fn leaves_enough() -> Result<()> {
    if let Some((left, limit)) = descriptors::left() {
        ensure!(
            left >= DESCRIPTORS,
            "of {limit} file descriptors (ulimit -n) it would leave {left} for all else, and {DESCRIPTORS} are needed"
        );
    }
    Ok(())
}

/// Refuses maps that could take more than is allowed, and names the key that makes them smaller.
fn within_budget(memory: u64, config: &Config) -> Result<()> {
    let budget = config.memory_budget_mib.saturating_mul(MIB);
    if memory <= budget {
        return Ok(());
    }
    let needed = memory.div_ceil(MIB);
    let text = format!(
        "the maps in the kernel could take {needed} MiB, more than memory_budget_mib ({})",
        config.memory_budget_mib
    );
    if config.group_by == GroupBy::Host {
        bail!("{text}: raise it, or watch fewer calls (signals::syscalls::calls)");
    }
    let fit = u128::from(config.max_groups) * u128::from(budget) / u128::from(memory);
    bail!("{text}: lower max_groups (to some {fit}), or raise memory_budget_mib to {needed}")
}
