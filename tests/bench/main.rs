//! What watching costs: nanoseconds added to an event, beside those that empty programs at the same hooks add, and
//! the agent's own time and memory by the number of groups.
//!
//! The variants of a case take turns in every round, in random order, and are compared with nothing attached in
//! the same round: what else the machine does hits all of them alike. Of a round's many short batches the
//! tenth percentile counts, which is the cost when nobody disturbs; of the rounds the median.

mod floor;
mod groups;
mod work;

use anyhow::Result;
use nix::{sched::CpuSet, unistd::Pid};
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
};

use self::{floor::Empty, work::Work};

const ROUNDS: usize = 9;

/// What is attached in a variant.
enum Attached {
    Nothing,
    Empty(fn() -> Result<Empty>),
    Agent(Mode, Value),
}

struct Variant {
    name: &'static str,
    attached: Attached,
}

fn variant(name: &'static str, mode: Mode, iomonitor: Value) -> Variant {
    Variant { name, attached: Attached::Agent(mode, iomonitor) }
}

fn empty(name: &'static str, attach: fn() -> Result<Empty>) -> Variant {
    Variant { name, attached: Attached::Empty(attach) }
}

/// One signal alone.
fn only(signal: &str, section: Value) -> Value {
    let all = ["block", "dirty", "fadvise", "page_cache", "reclaim", "syscalls"];
    let mut signals: serde_json::Map<_, _> =
        all.map(|name| (name.to_owned(), json!({"enabled": name == signal}))).into_iter().collect();
    if let (Some(own), Value::Object(more)) = (signals[signal].as_object_mut(), section) {
        own.extend(more);
    }
    json!({"signals": signals, "collection_interval": "1h"})
}

fn with(mut iomonitor: Value, key: &str, value: Value) -> Value {
    iomonitor[key] = value;
    iomonitor
}

fn main() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    nix::sched::sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let cgroup = Cgroup::new()?;
    let own = Pid::this();
    cgroup.add(own)?;
    let scope = json!({"cgroups": [cgroup.path()]});
    let measured = measure(&cgroup, &scope);
    // Its directory can be removed when nobody is in it.
    cgroup.leave(own)?;
    measured?;
    groups::measure()
}

fn measure(cgroup: &Cgroup, scope: &Value) -> Result<()> {
    let untimed = json!({"ebpf.syscall.duration": {"enabled": false}});
    let calls = only("syscalls", json!({"calls": ["pread64"]}));
    let counted = with(calls.clone(), "metrics", untimed);
    let keyed = |section: &Value, by: &str| {
        with(with(section.clone(), "scope", scope.clone()), "group_by", json!(by))
    };
    let syscalls = || {
        vec![
            empty("empty, tp_btf exit", || Empty::typed(&["sys_exit"])),
            empty("empty, tp_btf pair", || Empty::typed(&["sys_exit", "sys_enter"])),
            empty("empty, tracepoint pair", || {
                Empty::classic(&["raw_syscalls/sys_exit", "raw_syscalls/sys_enter"])
            }),
            empty("empty, syscall_tracepoint pair", || {
                Empty::classic(&["syscalls/sys_exit_pread64", "syscalls/sys_enter_pread64"])
            }),
            variant("counted, tp_btf", Mode::TpBtf, counted.clone()),
            variant("counted, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&counted, "cgroup")),
            variant(
                "counted, syscall_tracepoint, scope, cgroup",
                Mode::SyscallTracepoint,
                keyed(&counted, "cgroup"),
            ),
            variant("timed, tp_btf", Mode::TpBtf, calls.clone()),
            variant("timed, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&calls, "cgroup")),
            variant("timed, tp_btf, scope, process", Mode::TpBtf, keyed(&calls, "process")),
            variant("timed, tracepoint", Mode::Tracepoint, calls.clone()),
            variant("timed, syscall_tracepoint", Mode::SyscallTracepoint, calls.clone()),
            variant(
                "timed, syscall_tracepoint, scope, cgroup",
                Mode::SyscallTracepoint,
                keyed(&calls, "cgroup"),
            ),
        ]
    };
    case("pread64 of 4 KiB, cached (watched)", &Work::cached_read()?, syscalls(), cgroup)?;
    case("getppid (nobody watches)", &Work::unwatched(), syscalls(), cgroup)?;
    let pages = only("page_cache", json!({}));
    let page_cache = vec![
        empty("empty, tp_btf at add and delete", || {
            Empty::typed(&["mm_filemap_add_to_page_cache", "mm_filemap_delete_from_page_cache"])
        }),
        variant("page_cache, tp_btf (with lookups)", Mode::TpBtf, pages.clone()),
        variant("page_cache, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&pages, "cgroup")),
        variant("page_cache, tracepoint (no lookups)", Mode::Tracepoint, pages.clone()),
    ];
    case("a page read in and dropped again (two events)", &Work::pages()?, page_cache, cgroup)?;
    let advice = only("fadvise", json!({}));
    let fadvise = vec![
        empty("empty, tp_btf exit", || Empty::typed(&["sys_exit"])),
        variant("fadvise, tp_btf", Mode::TpBtf, advice.clone()),
        variant("fadvise, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&advice, "cgroup")),
        variant("fadvise, syscall_tracepoint", Mode::SyscallTracepoint, advice),
    ];
    case("fadvise64(NORMAL)", &Work::advice()?, fadvise, cgroup)?;
    let requests = only("block", json!({}));
    let block = vec![
        empty("empty, tp_btf", || Empty::typed(&["block_rq_issue", "block_rq_complete"])),
        variant("block, tp_btf", Mode::TpBtf, requests.clone()),
        variant("block, tp_btf, scope, cgroup", Mode::TpBtf, keyed(&requests, "cgroup")),
    ];
    case("4 KiB read past the cache from a loop device", &Work::requests()?, block, cgroup)
}

fn case(name: &str, work: &Work, mut variants: Vec<Variant>, cgroup: &Cgroup) -> Result<()> {
    variants.insert(0, Variant { name: "nothing, again", attached: Attached::Nothing });
    let mut deltas = vec![Vec::new(); variants.len()];
    let mut bases = Vec::new();
    let mut rng = fastrand::Rng::new();
    for _ in 0..ROUNDS {
        let base = work.nanos();
        bases.push(base);
        let mut order: Vec<usize> = (0..variants.len()).collect();
        rng.shuffle(&mut order);
        for index in order {
            let nanos = match &variants[index].attached {
                Attached::Nothing => work.nanos(),
                Attached::Empty(attach) => {
                    let _attached = attach()?;
                    work.nanos()
                }
                Attached::Agent(mode, iomonitor) => {
                    let mut setup = Setup::new(*mode, cgroup);
                    setup.iomonitor = iomonitor.clone();
                    setup.iomonitor["mode"] = json!(mode.name());
                    setup.iomonitor["initial_delay"] = json!("0s");
                    let _agent = Agent::start(&setup)?;
                    work.nanos()
                }
            };
            deltas[index].push(nanos - base);
        }
    }
    println!("\n{name}: {:.0} ns", median(&mut bases));
    println!("  {:<44} {:>7}  {:>15}", "attached", "added", "of all rounds");
    for (variant, deltas) in variants.iter().zip(&mut deltas) {
        let middle = median(deltas);
        let (least, most) = (deltas[0], deltas[deltas.len() - 1]);
        println!("  {:<44} {middle:>+7.0}  [{least:>+6.0} …{most:>+6.0}]", variant.name);
    }
    Ok(())
}

/// The median; the values are sorted afterwards.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
