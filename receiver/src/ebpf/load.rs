//! Loads an object and climbs the ladder of each of its probes.
//!
//! An object's maps are created together, its programs one by one: what the kernel refuses takes
//! nothing else down. Nothing is pinned, so the kernel drops all of it with this process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{Program, ProgramError},
};

use super::{
    btf::Types,
    globals::{Globals, of_field, of_value},
    ladder::{Attach, Mode, Probe, Rung, Status},
};

/// The kernel as programs are loaded into it: its types, in the two forms that are needed.
pub struct Kernel {
    types: Types,
    btf: Btf,
}

impl Kernel {
    /// The running one.
    pub fn running() -> Result<Self> {
        let types = Types::of_running_kernel()?;
        let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        Ok(Self { types, btf })
    }
}

/// A loaded object with the programs that attached.
pub struct Loaded {
    ebpf: Ebpf,
    /// Fields and values that this kernel does not have, with the reason: they refuse the rungs that
    /// need them.
    missing: BTreeMap<&'static str, String>,
    attached: BTreeSet<&'static str>,
    programs: Vec<(String, &'static str)>,
}

impl Loaded {
    /// Loads `object` with its globals and attaches the probes that `wanted` names, by the one mode that
    /// is `forced` if there is one.
    pub fn new(
        kernel: &Kernel,
        object: &[u8],
        signal: &str,
        probes: &[&'static Probe],
        mut globals: Globals,
        forced: Option<Mode>,
    ) -> Result<(Self, Vec<Status>)> {
        let rungs = || probes.iter().flat_map(|p| p.rungs);
        let mut missing = BTreeMap::new();
        for field in rungs().flat_map(|r| r.fields).collect::<BTreeSet<_>>() {
            match kernel.types.offset(field) {
                Ok(offset) => globals.number(of_field(field), offset),
                Err(error) => drop(missing.insert(*field, error.to_string())),
            }
        }
        for value in rungs().flat_map(|r| r.values).collect::<BTreeSet<_>>() {
            match kernel.types.value(value) {
                Ok(number) => globals.number(of_value(value), number),
                Err(error) => drop(missing.insert(*value, error.to_string())),
            }
        }
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&kernel.btf));
        globals.apply(&mut loader);
        let ebpf =
            loader.load(object).map_err(|e| anyhow!("cannot create its maps: {}", chain(&e)))?;

        let mut loaded = Self { ebpf, missing, attached: BTreeSet::new(), programs: Vec::new() };
        let statuses =
            probes.iter().map(|probe| loaded.climb(kernel, signal, probe, forced)).collect();
        Ok((loaded, statuses))
    }

    /// Attaches the first rung that works.
    fn climb(
        &mut self,
        kernel: &Kernel,
        signal: &str,
        probe: &'static Probe,
        forced: Option<Mode>,
    ) -> Status {
        let name = format!("{signal}/{}", probe.name);
        let mut refused = Vec::new();
        for rung in probe.rungs {
            if forced.is_some_and(|mode| mode != rung.mode) {
                refused.push((rung.mode, "the configuration forces another mode".to_owned()));
                continue;
            }
            match self.rung(kernel, rung) {
                Ok(()) => {
                    self.attached.insert(probe.name);
                    self.programs.extend(rung.programs.iter().map(|p| (name.clone(), p.program)));
                    return Status { probe: name, mode: Some(rung.mode), refused };
                }
                Err(error) => refused.push((rung.mode, format!("{error:#}"))),
            }
        }
        Status { probe: name, mode: None, refused }
    }

    /// All programs of a rung, or none.
    fn rung(&mut self, kernel: &Kernel, rung: &Rung) -> Result<()> {
        if let Some(reason) =
            rung.fields.iter().chain(rung.values).find_map(|needed| self.missing.get(needed))
        {
            bail!("{reason}");
        }
        for (i, attach) in rung.programs.iter().enumerate() {
            if let Err(error) = self.attach(kernel, attach) {
                for done in &rung.programs[..=i] {
                    self.unload(done.program);
                }
                return Err(error.context(format!("{} at {}", attach.program, attach.target)));
            }
        }
        Ok(())
    }

    fn attach(&mut self, kernel: &Kernel, attach: &Attach) -> Result<()> {
        let program =
            self.ebpf.program_mut(attach.program).context("the object has no such program")?;
        match program {
            Program::BtfTracePoint(program) => {
                program.load(attach.target, &kernel.btf).map_err(explain)?;
                program.attach().map_err(explain)?;
            }
            Program::TracePoint(program) => {
                let (category, name) =
                    attach.target.split_once('/').context("its target is not category/name")?;
                tracefs(attach.target)?;
                program.load().map_err(explain)?;
                program.attach(category, name).map_err(explain)?;
            }
            _ => bail!("it is of a type that the ladder does not know"),
        }
        Ok(())
    }

    fn unload(&mut self, name: &str) {
        let unloaded = match self.ebpf.program_mut(name) {
            Some(Program::BtfTracePoint(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            _ => return,
        };
        // One that was never loaded has nothing to unload.
        let _: Result<(), ProgramError> = unloaded;
    }

    /// Whether a probe attached.
    pub fn has(&self, probe: &str) -> bool {
        self.attached.contains(probe)
    }

    /// Whether any did.
    pub fn has_any(&self) -> bool {
        !self.attached.is_empty()
    }

    /// Events that each probe's programs did not see, because the kernel does not run a program on a
    /// CPU that is already running it. Linux counts them since 5.12.
    pub fn missed(&self) -> Vec<(&str, u64)> {
        let mut missed: Vec<(&str, u64)> = Vec::new();
        for (probe, program) in &self.programs {
            let Some(count) = self.recursion_misses(program) else { continue };
            match missed.last_mut() {
                Some((last, total)) if last == probe => *total += count,
                _ => missed.push((probe, count)),
            }
        }
        missed
    }

    fn recursion_misses(&self, program: &str) -> Option<u64> {
        let fd = self.ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
    }

    /// The values of one entry of a per-CPU array, one per CPU.
    pub fn per_cpu<V: Pod>(&self, map: &str, entry: u32) -> Result<Vec<V>> {
        let array: PerCpuArray<&MapData, V> = self.map(map)?.try_into()?;
        Ok(array.get(&entry, 0)?.to_vec())
    }

    /// A per-CPU array of counters, summed over the CPUs.
    pub fn counters(&self, map: &str) -> Result<Vec<u64>> {
        let array: PerCpuArray<&MapData, u64> = self.map(map)?.try_into()?;
        array.iter().map(|values| Ok(values?.iter().sum())).collect()
    }

    /// The entries of a hash.
    pub fn entries<K: Pod, V: Pod>(&self, map: &str) -> Result<Vec<(K, V)>> {
        let hash: HashMap<&MapData, K, V> = self.map(map)?.try_into()?;
        Ok(hash.iter().collect::<Result<_, _>>()?)
    }

    /// Removes an entry of a hash.
    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: &K) -> Result<()> {
        let map = self.ebpf.map_mut(map).with_context(|| format!("the object has no map {map}"))?;
        let mut hash: HashMap<&mut MapData, K, V> = map.try_into()?;
        Ok(hash.remove(key)?)
    }

    fn map(&self, name: &str) -> Result<&aya::maps::Map> {
        self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))
    }
}

/// A classic tracepoint is found by its files; without them the kernel's error would say nothing.
fn tracefs(target: &str) -> Result<()> {
    const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    for mount in MOUNTS {
        let events = Path::new(mount).join("events");
        match fs::metadata(events.join(target).join("id")) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("{mount} may be read by root or with CAP_DAC_READ_SEARCH alone")
            }
            Err(_) if events.exists() => bail!("this kernel has no tracepoint {target}"),
            Err(_) => {}
        }
    }
    bail!("tracefs is not mounted: `mount -t tracefs nodev {}`", MOUNTS[0])
}

/// The kernel's reason, in a line: what the verifier said last, not the whole of its log.
fn explain(error: ProgramError) -> anyhow::Error {
    const LINES: usize = 3;
    let ProgramError::LoadError { io_error, verifier_log } = &error else {
        return anyhow!("{}", chain(&error));
    };
    let log = verifier_log.to_string();
    let said: Vec<_> = log
        .lines()
        .map(str::trim)
        // Statistics follow the reason; they end every log.
        .filter(|l| !l.is_empty() && !STATISTICS.iter().any(|s| l.starts_with(s)))
        .collect();
    let last = said[said.len().saturating_sub(LINES)..].join(" | ");
    match last.is_empty() {
        true => anyhow!("the kernel refuses it: {io_error}"),
        false => anyhow!("the verifier refuses it: {io_error}: {last}"),
    }
}

/// How the lines begin that the verifier ends every log with.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
