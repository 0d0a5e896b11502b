//! What watching costs: nanoseconds added to an event, beside those that empty programs at the same hooks add, and
//! the agent's own time and memory by the number of groups.
//!
//! For each variant an agent runs until it has found what is busy. Then it is ended, but for its programs, which are
//! attached and detached again and again: a round, in which all variants take turns of a few ms, in random order, and are
//! compared with nothing attached, is over before the machine becomes faster or slower. Of the many rounds the median
//! counts, and what lies between their quarters is shown. While it measures, the bench has priority over everything
//! that is not real-time. Arguments are parts of the names of cases: others are left out.

mod floor;
mod groups;
mod hooks;
mod peers;
mod priority;
mod work;

use anyhow::{Result, ensure};
use nix::{sched::CpuSet, unistd::Pid};
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    memory::Limited,
};

use self::{hooks::Hooks, peers::Peer, work::Work};

/// What is attached in a variant.
enum Attached {
    Nothing,
    Empty(fn() -> Result<Hooks>),
    Agent(Mode, Value),
    Peer(Peer),
}

struct Variant {
    name: &'static str,
    attached: Attached,
    /// The variant of empty programs at the same hooks.
    floor: Option<&'static str>,
}

impl Variant {
    /// Beside the empty programs called `floor`.
    fn over(self, floor: &'static str) -> Self {
        Self { floor: Some(floor), ..self }
    }
}

fn variant(name: &'static str, mode: Mode, iomonitor: Value) -> Variant {
    Variant { name, attached: Attached::Agent(mode, iomonitor), floor: None }
}

fn empty(name: &'static str, hooks: fn() -> Result<Hooks>) -> Variant {
    Variant { name, attached: Attached::Empty(hooks), floor: None }
}

fn peers(peers: Vec<Peer>) -> impl Iterator<Item = Variant> {
    peers.into_iter().map(|peer| Variant {
        name: peer.name,
        attached: Attached::Peer(peer),
        floor: None,
    })
}

/// One signal alone.
fn only(signal: &str, section: Value) -> Value {
    let all = [
        "block",
        "compaction",
        "dirty",
        "fadvise",
        "io_uring",
        "kills",
        "page_cache",
        "reclaim",
        "syscalls",
        // Whichever it is, of those that are off by default, too.
        signal,
    ];
    let mut signals: serde_json::Map<_, _> =
        all.into_iter().map(|name| (name.to_owned(), json!({"enabled": name == signal}))).collect();
    if let (Some(own), Value::Object(more)) = (signals[signal].as_object_mut(), section) {
        own.extend(more);
    }
    json!({"signals": signals, "collection_interval": "300ms"})
}

fn with(mut iomonitor: Value, key: &str, value: Value) -> Value {
    iomonitor[key] = value;
    iomonitor
}

/// In a scope, and by a kind of group.
fn keyed(section: &Value, scope: &Value, by: &str) -> Value {
    with(with(section.clone(), "scope", scope.clone()), "group_by", json!(by))
}

fn main() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    nix::sched::sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let cgroup = Cgroup::new()?;
    let own = Pid::this();
    cgroup.add(own)?;
    let scope = json!({"cgroups": [cgroup.path()]});
    priority::raise();
    let measured = measure(&cgroup, &scope);
    priority::lower();
    // Its directory can be removed when nobody is in it.
    cgroup.leave(own)?;
    measured?;
    if wanted("groups") { groups::measure() } else { Ok(()) }
}

/// Whether a case was asked for.
fn wanted(name: &str) -> bool {
    // Cargo adds an option of its own.
    let mut parts = std::env::args().skip(1).filter(|part| !part.starts_with('-')).peekable();
    parts.peek().is_none() || parts.any(|part| name.contains(&part))
}

fn measure(cgroup: &Cgroup, scope: &Value) -> Result<()> {
    let untimed = json!({"ebpf.syscall.duration": {"enabled": false}});
    let calls = only("syscalls", json!({"calls": ["pread64"]}));
    let counted = with(calls.clone(), "metrics", untimed);
    let keyed = |section: &Value, by: &str| keyed(section, scope, by);
    let syscalls = || {
        vec![
            empty(EXIT, || floor::typed(&["sys_exit"])),
            empty(PAIR, || floor::typed(&["sys_exit", "sys_enter"])),
            empty(CLASSIC_PAIR, || {
                floor::classic(&["raw_syscalls/sys_exit", "raw_syscalls/sys_enter"])
            }),
            empty(CALL_EXIT, || floor::classic(&["syscalls/sys_exit_pread64"])),
            empty(CALL_PAIR, || {
                floor::classic(&["syscalls/sys_exit_pread64", "syscalls/sys_enter_pread64"])
            }),
            variant("counted, tp_btf", Mode::TpBtf, counted.clone()).over(EXIT),
            variant("counted, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&counted, "cgroup"))
                .over(EXIT),
            variant("counted, syscall_tracepoint", Mode::SyscallTracepoint, counted.clone())
                .over(CALL_EXIT),
            variant(
                "counted, syscall_tracepoint, scope, cgroup",
                Mode::SyscallTracepoint,
                keyed(&counted, "cgroup"),
            )
            .over(CALL_EXIT),
            variant("timed, tp_btf", Mode::TpBtf, calls.clone()).over(PAIR),
            variant("timed, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&calls, "cgroup"))
                .over(PAIR),
            variant("timed, tp_btf, scope, process", Mode::TpBtf, keyed(&calls, "process"))
                .over(PAIR),
            variant("timed, tracepoint", Mode::Tracepoint, calls.clone()).over(CLASSIC_PAIR),
            variant("timed, syscall_tracepoint", Mode::SyscallTracepoint, calls.clone())
                .over(CALL_PAIR),
            variant(
                "timed, syscall_tracepoint, scope, cgroup",
                Mode::SyscallTracepoint,
                keyed(&calls, "cgroup"),
            )
            .over(CALL_PAIR),
        ]
    };
    let watched = syscalls().into_iter().chain(peers(peers::calls())).collect();
    case("pread64 of 4 KiB, cached (watched)", Work::cached_read, watched, cgroup)?;
    case("getppid (nobody watches)", || Ok(Work::unwatched()), syscalls(), cgroup)?;
    let pages = only("page_cache", json!({}));
    let off = |names: &[&str]| {
        let names =
            names.iter().map(|name| (format!("ebpf.cache.{name}"), json!({"enabled": false})));
        Value::Object(names.collect())
    };
    let finds = ["followed", "misses", "readahead", "faulted", "hit_ratio"];
    let looked = with(pages.clone(), "metrics", off(&finds));
    let moves = with(pages.clone(), "metrics", off(&[&finds[..], &["read_attempts"]].concat()));
    let page_cache = || {
        vec![
            empty(PAGES, || {
                floor::typed(&["mm_filemap_add_to_page_cache", "mm_filemap_delete_from_page_cache"])
            }),
            variant("adds and deletes, tp_btf", Mode::TpBtf, moves.clone()).over(PAGES),
            variant(
                "adds and deletes, tp_btf, scope, cgroup",
                Mode::TpBtf,
                keyed(&moves, "cgroup"),
            )
            .over(PAGES),
            variant("and lookups, tp_btf", Mode::TpBtf, looked.clone()).over(PAGES),
            variant("and lookups, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&looked, "cgroup"))
                .over(PAGES),
            variant("and what they find, tp_btf", Mode::TpBtf, pages.clone()).over(PAGES),
            variant("adds and deletes, tracepoint", Mode::Tracepoint, moves.clone()),
        ]
    };
    case("a page read in and dropped again (two events)", Work::pages, page_cache(), cgroup)?;
    case("a page of 16 MiB that stream by", Work::stream, page_cache(), cgroup)?;
    let advice = only("fadvise", json!({}));
    let fadvise = vec![
        empty(EXIT, || floor::typed(&["sys_exit"])),
        variant("fadvise, tp_btf", Mode::TpBtf, advice.clone()).over(EXIT),
        variant("fadvise, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&advice, "cgroup")).over(EXIT),
        variant("fadvise, syscall_tracepoint", Mode::SyscallTracepoint, advice),
    ];
    case("fadvise64(NORMAL)", Work::advice, fadvise, cgroup)?;
    let dirty = only("dirty", json!({}));
    let dirtied = vec![
        empty(DIRTIED, || floor::typed(&["writeback_dirty_folio"])),
        variant("dirty, tp_btf", Mode::TpBtf, dirty.clone()).over(DIRTIED),
        variant("dirty, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&dirty, "cgroup")).over(DIRTIED),
    ];
    case("a page written to and thrown away (dirty)", Work::writes, dirtied, cgroup)?;
    let rings = only("io_uring", json!({}));
    let ring = vec![
        empty(RING, || floor::typed(&["io_uring_submit_req", "io_uring_complete"])),
        variant("io_uring, tp_btf", Mode::TpBtf, rings.clone()).over(RING),
        variant("io_uring, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&rings, "cgroup")).over(RING),
    ];
    case("a request through io_uring that does nothing", Work::ring, ring, cgroup)?;
    let requests = only("block", json!({}));
    let whole = only("block", json!({"split": false}));
    let mut block = vec![
        empty(REQUESTS, || floor::typed(&["block_rq_issue", "block_rq_complete"])),
        variant("block, tp_btf", Mode::TpBtf, requests.clone()).over(REQUESTS),
        variant("block, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&requests, "cgroup"))
            .over(REQUESTS),
        variant("block, split: false, tp_btf", Mode::TpBtf, whole.clone()).over(REQUESTS),
        variant("the same, scope, cgroup", Mode::TpBtf, keyed(&whole, "cgroup")).over(REQUESTS),
    ];
    block.extend(peers(peers::requests(cgroup)));
    case("4 KiB read past the cache from a loop device", Work::requests, block, cgroup)?;
    let states = only("page_states", json!({}));
    let changes = vec![
        empty(STATES, || floor::typed(&["mod_memcg_lruvec_state"])),
        variant("page_states, tp_btf", Mode::TpBtf, states.clone()).over(STATES),
        variant("page_states, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&states, "cgroup"))
            .over(STATES),
    ];
    case("a page written to and thrown away (page_states)", Work::writes, changes, cgroup)?;
    let faults = only("faults", json!({}));
    let served = vec![
        empty(FAULTS, floor::faults),
        variant("faults, perf_event", Mode::PerfEvent, faults.clone()).over(FAULTS),
        variant("faults, perf_event, scope, cgroup", Mode::PerfEvent, keyed(&faults, "cgroup"))
            .over(FAULTS),
    ];
    case("a page of memory touched for the first time (faults)", Work::faults, served, cgroup)?;
    for (name, work, signal) in [
        ("madvise(NORMAL)", Work::memory_advice as fn() -> Result<Work>, "madvise"),
        ("a descriptor opened and closed (two calls)", Work::descriptors, "descriptors"),
    ] {
        let signal = only(signal, json!({}));
        let calls = vec![
            empty(EXIT, || floor::typed(&["sys_exit"])),
            variant("tp_btf", Mode::TpBtf, signal.clone()).over(EXIT),
            variant("tp_btf, scope, cgroup", Mode::TpBtf, keyed(&signal, "cgroup")).over(EXIT),
        ];
        case(name, work, calls, cgroup)?;
    }
    rare(cgroup, scope)
}

/// Events that are few, whose cause takes longer than they do.
fn rare(cgroup: &Cgroup, scope: &Value) -> Result<()> {
    let variants = |signal: &str, floor: Variant, scope: &Value| {
        let (only, over) = (only(signal, json!({})), floor.name);
        vec![
            floor,
            variant("tp_btf", Mode::TpBtf, only.clone()).over(over),
            variant("tp_btf, scope, cgroup", Mode::TpBtf, keyed(&only, scope, "cgroup")).over(over),
        ]
    };
    let ends = empty(ENDS, || floor::typed(&["sched_process_exit"]));
    let ends = variants("kills", ends, scope);
    case("a process made, killed and waited for (kills)", || Ok(Work::kills()), ends, cgroup)?;
    let zones = empty(ZONES, || floor::typed(&["mm_compaction_begin", "mm_compaction_end"]));
    let zones = variants("compaction", zones, scope);
    let compaction = || Ok(Work::compaction());
    case("all memory compacted (two events a zone)", compaction, zones, cgroup)?;
    let reclaim = "a page read where another has to go (reclaim)";
    if wanted(reclaim) {
        let limited = Limited::new(work::LIMIT)?;
        let scope = json!({"cgroups": [limited.scope().path()]});
        let pages = empty(RECLAIM, || {
            floor::typed(&[
                "mm_vmscan_memcg_reclaim_begin",
                "mm_vmscan_lru_isolate",
                "mm_vmscan_lru_shrink_inactive",
                "mm_vmscan_memcg_reclaim_end",
            ])
        });
        let pages = variants("reclaim", pages, &scope);
        case(reclaim, || Work::reclaim(limited), pages, cgroup)?;
        // The work has left every cgroup of the bench.
        cgroup.add(Pid::this())?;
    }
    Ok(())
}

const EXIT: &str = "empty, tp_btf exit";
const PAIR: &str = "empty, tp_btf pair";
const CLASSIC_PAIR: &str = "empty, tracepoint pair";
const CALL_EXIT: &str = "empty, syscall_tracepoint exit";
const CALL_PAIR: &str = "empty, syscall_tracepoint pair";
const PAGES: &str = "empty, tp_btf at add and delete";
const STATES: &str = "empty, tp_btf at changes of statistics";
const FAULTS: &str = "empty, perf_event at minor faults";
const DIRTIED: &str = "empty, tp_btf at dirtying";
const RING: &str = "empty, tp_btf at submission and completion";
const REQUESTS: &str = "empty, tp_btf at issue and completion";
const ENDS: &str = "empty, tp_btf at exit";
const ZONES: &str = "empty, tp_btf at begin and end";
const RECLAIM: &str = "empty, tp_btf at begin, both lists and end";

fn case(
    name: &str,
    work: impl FnOnce() -> Result<Work>,
    mut variants: Vec<Variant>,
    cgroup: &Cgroup,
) -> Result<()> {
    if !wanted(name) {
        return Ok(());
    }
    let work = work()?;
    let nothing = Variant { name: "nothing, again", attached: Attached::Nothing, floor: None };
    variants.insert(0, nothing);
    let mut all = Vec::new();
    for variant in variants {
        match hooks(&variant, &work, cgroup)? {
            Some(hooks) => all.push((variant, hooks)),
            None => println!("left out: {}", variant.name),
        }
    }
    let (variants, hooks): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let mut deltas = vec![Vec::new(); variants.len()];
    let mut bases = Vec::new();
    let mut rng = fastrand::Rng::new();
    for _ in 0..work.rounds {
        let base = work.nanos()?;
        bases.push(base);
        let mut order: Vec<usize> = (0..variants.len()).collect();
        rng.shuffle(&mut order);
        for index in order {
            let _attached = hooks[index].attach()?;
            deltas[index].push(work.nanos()? - base);
        }
    }
    bases.sort_by(f64::total_cmp);
    let base = quantile(&bases, 2);
    println!("\n{name}: {base:.0} ns");
    println!(
        "  {:<44} {:>7} {:>7} {:>9}  {:>17}",
        "attached", "added", "%", "x empty", "half of all rounds"
    );
    deltas.iter_mut().for_each(|deltas| deltas.sort_by(f64::total_cmp));
    for (variant, of) in variants.iter().zip(&deltas) {
        let added = quantile(of, 2);
        let floor = variants.iter().position(|other| Some(other.name) == variant.floor);
        // Of what is not to be seen there are no multiples.
        let floor = floor.map(|floor| &deltas[floor]).filter(|floor| quantile(floor, 1) > 0.0);
        println!(
            "  {:<44} {added:>+7.1} {:>+7.1} {:>9}  [{:>+7.1} …{:>+7.1}]",
            variant.name,
            added / base * 100.0,
            floor.map_or(String::new(), |floor| format!("{:.2}", added / quantile(floor, 2))),
            quantile(of, 1),
            quantile(of, 3)
        );
    }
    Ok(())
}

/// What a variant attaches; `None` if it cannot be had here.
fn hooks(variant: &Variant, work: &Work, cgroup: &Cgroup) -> Result<Option<Hooks>> {
    /// In how many collections in a row something has to be busy for the agent to give it a seat, and one more.
    const COLLECTIONS: usize = 4;
    match &variant.attached {
        Attached::Nothing => Ok(Some(Hooks(Vec::new()))),
        Attached::Empty(hooks) => hooks().map(Some),
        // The rest does not need it.
        Attached::Peer(peer) => Ok(peer.hooks().inspect_err(|error| println!("{error:#}")).ok()),
        Attached::Agent(mode, iomonitor) => {
            let mut setup = Setup::new(*mode, cgroup);
            setup.iomonitor = iomonitor.clone();
            setup.iomonitor["mode"] = json!(mode.name());
            setup.iomonitor["initial_delay"] = json!("0s");
            let agent = Agent::start(&setup)?;
            for _ in 0..COLLECTIONS {
                work.warm()?;
                agent.settled()?;
            }
            let hooks = Hooks::of(agent.pid())?;
            ensure!(!hooks.0.is_empty(), "the agent has attached nothing");
            Ok(Some(hooks))
        }
    }
}

/// One of the quarters of sorted values: the second is the median.
fn quantile(sorted: &[f64], quarter: usize) -> f64 {
    sorted[sorted.len() * quarter / 4]
}
