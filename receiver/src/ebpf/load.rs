//! Loads an object and climbs the ladder of each of its probes.
//!
//! An object's maps are created together, its programs one by one: what the kernel refuses takes
//! nothing else down. Nothing is pinned, so the kernel drops all of it with this process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use abi::{
    Plain,
    group::{BY_GROUP, BY_SEAT, Key, SEATED, SEATS},
    scope::{CGROUPS, Cgroup, Found, MAX_CGROUPS, PROCESSES},
};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};

use super::{
    attach::{self, chain},
    globals::{Globals, Missing},
    group::GroupBy,
    kernel::Kernel,
    ladder::{Attach, Mode, Probe, Rung, Status},
    object::{self, Prepared},
    seats::{Maps, Seats},
    table::{Source, Table, read_plain},
};

/// What a signal brings to be loaded.
pub struct Request<'a> {
    /// Its name.
    pub signal: &'static str,
    /// Its object.
    pub object: &'static [u8],
    /// The probes that are wanted.
    pub probes: Vec<&'static Probe>,
    /// Of their programs, those that can be done without.
    pub spared: &'static [&'static str],
    /// Its globals.
    pub globals: Globals,
    /// What `*` in a target stands for.
    pub names: Vec<&'static str>,
    /// Cells that a group is expected to need in each of its maps.
    pub cells: u32,
    /// Cells of the host in each of its maps, where the host has cells there.
    pub host_cells: u32,
    /// The entries of maps whose number depends on the configuration.
    pub sizes: Vec<(&'static str, u32)>,
    /// What is the same for every signal.
    pub settings: &'a Settings,
}

/// How a receiver's signals are loaded.
pub struct Settings {
    /// The one mode that is allowed, if there is one.
    pub forced: Option<Mode>,
    /// What is counted by.
    pub group_by: GroupBy,
    /// Groups that there is room for.
    pub max_groups: u32,
    /// Whether everything is the host's, whoever does it.
    pub whole_host: bool,
    /// Fields without which the scope or the groups cannot be known.
    pub needed: Vec<&'static str>,
}

/// What decides about the programs and maps of a signal: requests that are equal in it load the same.
#[derive(Clone, PartialEq)]
pub struct Blueprint {
    probes: Vec<&'static str>,
    spared: &'static [&'static str],
    globals: Globals,
    names: Vec<&'static str>,
    sizes: Vec<(&'static str, u32)>,
    forced: Option<Mode>,
    group_by: GroupBy,
    max_groups: u32,
}

impl Request<'_> {
    /// What of it differs between configurations.
    pub fn blueprint(&self) -> Blueprint {
        Blueprint {
            probes: self.probes.iter().map(|probe| probe.name).collect(),
            spared: self.spared,
            globals: self.globals.clone(),
            names: self.names.clone(),
            sizes: self.sizes.clone(),
            forced: self.settings.forced,
            group_by: self.settings.group_by,
            max_groups: self.settings.max_groups,
        }
    }

    fn size(&self, map: &str) -> Option<u32> {
        if object::is_by_group(map) {
            return Some(match self.settings.group_by {
                GroupBy::Host => self.host_cells,
                _ => self.settings.max_groups.saturating_mul(self.cells),
            });
        }
        self.sizes.iter().find(|(name, _)| *name == map).map(|(_, entries)| *entries)
    }

    /// Cells of seats in each array: none where the host's cells are in arrays.
    fn seated(&self) -> u32 {
        let sparse = self.settings.group_by != GroupBy::Host || self.host_cells > 1;
        if sparse { SEATS } else { 0 }
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Prepared> {
        object::prepare(self.object, kernel.may_allocate, self.seated(), |map| self.size(map))
    }

    /// The most memory that its maps can take, in bytes.
    pub fn memory(&self, kernel: &Kernel) -> Result<u64> {
        Ok(self.prepare(kernel)?.memory)
    }
}

/// A loaded object with the programs that attached.
pub struct Loaded {
    ebpf: Ebpf,
    attached: BTreeSet<&'static str>,
    /// The probes that attached, each with its mode and programs.
    programs: Vec<(String, Mode, Vec<&'static str>)>,
    /// What has programs run at classic tracepoints.
    events: Vec<OwnedFd>,
    /// Cells of seats in each array.
    seated: u32,
    /// Of each map of cells by group that has been read.
    seats: Mutex<BTreeMap<&'static str, Seats>>,
}

impl Loaded {
    /// Loads an object and attaches what is wanted of it.
    pub fn new(kernel: &Kernel, mut request: Request<'_>) -> Result<(Self, Vec<Status>)> {
        let missing = Missing::find(kernel, &request.probes, &mut request.globals);
        if let Some(reason) = request.settings.needed.iter().find_map(|f| missing.reason(f)) {
            bail!("the scope or the groups cannot be known: {reason}");
        }
        let prepared = request.prepare(kernel)?;
        let mut loader = EbpfLoader::new();
        loader.btf(kernel.btf().ok());
        for (map, entries) in &prepared.sizes {
            loader.map_max_entries(map, *entries);
        }
        request.globals.number(SEATED, request.seated());
        request.globals.apply(&mut loader);
        let ebpf = loader
            .load(&prepared.bytes)
            .map_err(|e| anyhow!("cannot create its maps: {}", chain(&e)))?;

        let (attached, programs, events) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (seated, seats) = (request.seated(), Mutex::default());
        let mut loaded = Self { ebpf, attached, programs, events, seated, seats };
        let statuses =
            request.probes.iter().map(|p| loaded.climb(kernel, &request, &missing, p)).collect();
        Ok((loaded, statuses))
    }

    /// Attaches the first rung that works.
    fn climb(
        &mut self,
        kernel: &Kernel,
        request: &Request<'_>,
        missing: &Missing,
        probe: &'static Probe,
    ) -> Status {
        let name = format!("{}/{}", request.signal, probe.name);
        let forced = request.settings.forced;
        let mut refused = Vec::new();
        for rung in probe.order(kernel.preemptible) {
            if forced.is_some_and(|mode| mode != rung.mode) {
                continue;
            }
            let attached = match missing.refusal(rung) {
                Some(reason) => Err(anyhow!("{reason}")),
                None => self.rung(kernel, request, rung),
            };
            match attached {
                Ok(()) => {
                    self.attached.insert(probe.name);
                    let programs = rung.programs.iter().map(|p| p.program).collect();
                    self.programs.push((name.clone(), rung.mode, programs));
                    return Status { probe: name, mode: Some(rung.mode), refused };
                }
                Err(error) => refused.push((rung.mode, format!("{error:#}"))),
            }
        }
        if let Some(mode) = forced.filter(|_| refused.is_empty()) {
            refused.push((
                mode,
                "the configuration forces it, and the probe has no such way".to_owned(),
            ));
        }
        Status { probe: name, mode: None, refused }
    }

    /// All programs of a rung, or none.
    fn rung(&mut self, kernel: &Kernel, request: &Request<'_>, rung: &Rung) -> Result<()> {
        let mut events = Vec::new();
        for (i, attach) in rung.programs.iter().enumerate() {
            if request.spared.contains(&attach.program) {
                continue;
            }
            match self.attach(kernel, request, attach) {
                Ok(more) => events.extend(more),
                Err(error) => {
                    drop(events);
                    for done in &rung.programs[..=i] {
                        if let Some(program) = self.ebpf.program_mut(done.program) {
                            attach::unload(program);
                        }
                    }
                    return Err(error.context(format!("{} at {}", attach.program, attach.target)));
                }
            }
        }
        self.events.extend(events);
        Ok(())
    }

    fn attach(
        &mut self,
        kernel: &Kernel,
        request: &Request<'_>,
        attach: &Attach,
    ) -> Result<Vec<OwnedFd>> {
        let program =
            self.ebpf.program_mut(attach.program).context("the object has no such program")?;
        let targets: Vec<String> = if attach.target.contains('*') {
            request.names.iter().map(|name| attach.target.replace('*', name)).collect()
        } else {
            vec![attach.target.to_owned()]
        };
        attach::attach(program, &targets, kernel)
    }

    /// Whether a probe attached.
    pub fn has(&self, probe: &str) -> bool {
        self.attached.contains(probe)
    }

    /// Whether any did.
    pub fn has_any(&self) -> bool {
        !self.attached.is_empty()
    }

    /// What the kernel knows of each attached probe's programs, added up.
    pub fn accounts(&self) -> Vec<(&str, Account)> {
        let account = |programs: &[&'static str]| {
            let all = programs.iter().filter_map(|program| self.account(program));
            let sum = all.reduce(|sum, one| Account {
                runs: sum.runs + one.runs,
                nanos: sum.nanos + one.nanos,
                missed: sum.missed.zip(one.missed).map(|(a, b)| a + b),
            });
            sum.unwrap_or_default()
        };
        self.programs
            .iter()
            .map(|(probe, _, programs)| (probe.as_str(), account(programs)))
            .collect()
    }

    fn account(&self, program: &str) -> Option<Account> {
        let fd = self.ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let number = |key: &str| {
            info.lines().find_map(|line| line.strip_prefix(key))?.trim().parse::<u64>().ok()
        };
        Some(Account {
            runs: number("run_cnt:").unwrap_or(0),
            nanos: number("run_time_ns:").unwrap_or(0),
            missed: number("recursion_misses:"),
        })
    }

    /// A per-CPU array of counters, summed over the CPUs.
    pub fn counters(&self, map: &str) -> Result<Vec<u64>> {
        let array: PerCpuArray<&MapData, u64> = self.map(map)?.try_into()?;
        array.iter().map(|values| Ok(values?.iter().sum())).collect()
    }

    /// The cells of the host.
    pub fn cells(&self, map: &str) -> Result<Table> {
        let mut cells = self.source(map)?.array()?;
        cells.split_front(self.seated as usize);
        Ok(cells)
    }

    /// The cells of groups, and those of the overflow.
    pub fn cells_by_group(&self, map: &'static str) -> Result<(Table, Table)> {
        let maps = Maps {
            all: self.source(map)?,
            by_group: self.source(&format!("{map}{BY_GROUP}"))?,
            seats: self.source(&format!("{map}{BY_SEAT}"))?,
        };
        self.seats().entry(map).or_insert_with(Seats::new).read(&maps)
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<&'static str, Seats>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self, name: &str) -> Result<Source<'_>> {
        let data = match self.map(name)? {
            Map::PerCpuArray(data) | Map::PerCpuHashMap(data) | Map::Array(data) => data,
            _ => bail!("map {name} is not one of cells"),
        };
        Source::of(data)
    }

    /// The entries of a hash.
    pub fn entries<K: Pod, V: Pod>(&self, map: &str) -> Result<Vec<(K, V)>> {
        let hash: HashMap<&MapData, K, V> = self.map(map)?.try_into()?;
        Ok(hash.iter().collect::<Result<_, _>>()?)
    }

    /// Takes what is in a ring buffer.
    pub fn events<T: Plain>(&mut self, map: &str) -> Result<Vec<T>> {
        let mut buffer: RingBuf<&mut MapData> = self.map_mut(map)?.try_into()?;
        let mut events = Vec::new();
        while let Some(item) = buffer.next() {
            ensure!(item.len() >= size_of::<T>(), "an event of {} bytes in {map}", item.len());
            events.push(read_plain(&item));
        }
        Ok(events)
    }

    /// Removes an entry of a hash.
    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: &K) -> Result<()> {
        let mut hash: HashMap<&mut MapData, K, V> = self.map_mut(map)?.try_into()?;
        Ok(hash.remove(key)?)
    }

    /// Removes a group's cell, with what it had when it was read.
    pub fn remove_cell(&self, map: &'static str, key: &Key) -> Result<()> {
        let failed = || format!("cannot remove a cell of {map}");
        let mut all = self.seats();
        let seats = all.entry(map).or_insert_with(Seats::new);
        if seats.has(key) {
            seats.close(key, &self.source(&format!("{map}{BY_SEAT}"))?).with_context(failed)?;
        }
        self.source(&format!("{map}{BY_GROUP}"))?.remove(key).with_context(failed)?;
        seats.removed(key);
        Ok(())
    }

    /// Replaces the cgroups and the processes of the scope.
    pub fn set_scope(
        &mut self,
        cgroups: &[Cgroup],
        processes: &BTreeMap<u64, Found>,
    ) -> Result<()> {
        let mut table: Array<&mut MapData, Cgroup> = self.map_mut(CGROUPS)?.try_into()?;
        for place in 0..MAX_CGROUPS {
            let cgroup = cgroups.get(place).copied().unwrap_or(Cgroup::NONE);
            table.set(place as u32, cgroup, 0)?;
        }
        let mut table: HashMap<&mut MapData, u64, Found> = self.map_mut(PROCESSES)?.try_into()?;
        let before: Vec<u64> = table.keys().collect::<Result<_, _>>()?;
        for gone in before.iter().filter(|pid| !processes.contains_key(pid)) {
            match table.remove(gone) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (pid, found) in processes {
            table.insert(pid, found, 0)?;
        }
        Ok(())
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }
}

/// What the kernel has counted about programs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Runs, while the kernel's statistics are on (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// Their time in ns.
    pub nanos: u64,
    /// Events for which a program was not run because it, or one like it, was running already. `None`: this
    /// kernel does not count them.
    pub missed: Option<u64>,
}
