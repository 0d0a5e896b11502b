//! Kernels without what a probe needs: the probe is reported, its metrics are absent, and the rest is exact.

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file,
    memory::release,
    modes::{hole, refused},
    plan::{Call, Open, Plan, Step},
    random,
};

use crate::{syscalls::equal, work};

/// A tracepoint, the probes that need it, and how the names of the first one's metrics begin.
const MISSING: [(&str, &[&str], &str); 4] = [
    (
        "filemap/mm_filemap_delete_from_page_cache",
        &["page_cache/deletes", "fadvise/dropped"],
        "ebpf_page_cache_deletes_total",
    ),
    ("filemap/mm_filemap_add_to_page_cache", &["page_cache/adds"], "ebpf_page_cache_adds_total"),
    ("raw_syscalls/sys_enter", &["syscalls/timed"], "ebpf_syscall_"),
    ("vmscan/mm_vmscan_lru_isolate", &["reclaim/shrink"], "ebpf_memory_lru_pages_"),
];

#[test]
fn the_rest_is_exact_without_a_tracepoint() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    // Of the modes that need its files.
    let mode = Mode::Tracepoint;
    for (event, missing, metrics) in MISSING {
        let pages = rng.u64(50..200);
        let path = file::cold(&directory, &mut rng, pages * 4_096)?;
        let cgroup = Cgroup::new()?;
        let agent = Agent::start(&Setup::new(mode, &cgroup).without_tracepoint(event))?;
        let steps = vec![Step::new(Call::Read, 0, 4_096).times(pages), Step::advise(0, 4)];
        let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![steps] };
        let report = work(&plan, &cgroup)?;
        let scrape = agent.settled()?;

        let shown = scrape.samples().iter().find(|sample| sample.name.starts_with(metrics));
        ensure!(shown.is_none(), "without {event}: {shown:?}");
        for probe in scrape.all("ebpf_probe_status", &[]) {
            let name = probe.labels["probe"].as_str();
            let attached = !missing.contains(&name) && hole(name, mode)?.is_none();
            ensure!((probe.value == 1.0) == attached, "without {event}: {probe:?}");
            let told = probe.labels.get("reason").is_some_and(|why| why.contains(event));
            ensure!(told == missing.contains(&name), "without {event}: {probe:?}");
        }
        for (probe, name) in [
            ("page_cache/adds", "ebpf_page_cache_adds_total"),
            ("page_cache/deletes", "ebpf_page_cache_deletes_total"),
        ] {
            if !missing.contains(&probe) {
                let shown = scrape.count(name, &[])?;
                ensure!(shown == pages, "without {event}: {name}: {shown} of {pages} pages");
            }
        }
        if !missing.contains(&"syscalls/timed") {
            equal(&scrape, &report)?;
        }
    }
    Ok(())
}

/// A test of what does not attach is not run. That is for kernels that lack something, not for programs that are wrong.
#[test]
fn the_verifier_refuses_nothing() -> Result<()> {
    if release()? < (5, 15) {
        println!(
            "not run here: this kernel lacks helpers and instructions that some programs need"
        );
        return Ok(());
    }
    let refused = refused()?;
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

/// A pair of which the kernel has one half. A second way is then taken in its place, not beside it: nothing counts twice.
#[test]
fn half_a_pair_counts_nothing_and_the_next_way_counts_once() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let files = || {
        Ok::<_, anyhow::Error>(vec![Open::Read(file::cold(&directory, &mut random::rng(), 4_096)?)])
    };
    for half in ["enter", "exit"] {
        let cgroup = Cgroup::new()?;
        let event = format!("syscalls/sys_{half}_fadvise64");
        let forced = Setup::new(Mode::SyscallTracepoint, &cgroup).without_tracepoint(&event);
        let forced = Agent::start(&forced)?;
        // Without types this pair comes first, and next the functions, where functions can be attached to.
        let next = Setup::new(Mode::Auto, &cgroup).without_types().without_tracepoint(&event);
        let next = Agent::start(&next)?;
        let times = rng.u64(100..1_000);
        let steps = vec![Step::advise(0, 1).times(times)];
        work(&Plan { threads: 1, files: files()?, phases: vec![steps] }, &cgroup)?;
        let scrape = forced.settled()?;
        let shown = scrape.all("ebpf_fadvise_calls_total", &[]).count();
        ensure!(shown == 0, "{shown} series without {event}");
        let probe = [("probe", "fadvise/calls")];
        let status = scrape.one("ebpf_probe_status", &probe)?;
        let told = status.labels.get("reason").is_some_and(|why| why.contains(&event));
        ensure!(status.value == 0.0 && told, "without {event}: {status:?}");
        let scrape = next.settled()?;
        let status = scrape.one("ebpf_probe_status", &probe)?;
        let by_function = hole("fadvise/calls", Mode::Kprobe)?.is_none();
        ensure!((status.value == 1.0) == by_function, "without {event}: {status:?}");
        if by_function {
            let shown = scrape.count("ebpf_fadvise_calls_total", &[])?;
            ensure!(shown == times, "{shown} calls shown, {times} made: {status:?}");
        }
    }
    Ok(())
}

/// What is counted at all is there from the start on: its absence means something else.
#[test]
fn what_has_not_happened_is_zero() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let scrape = Agent::start(&Setup::new(Mode::Auto, &cgroup))?.settled()?;
    for (probe, name, label) in [
        ("page_cache/adds", "ebpf_page_cache_adds_total", None),
        ("page_cache/deletes", "ebpf_page_cache_deletes_total", None),
        ("page_cache/lookups", "ebpf_cache_read_attempts_total", None),
        ("page_cache/misses", "ebpf_cache_misses_total", None),
        ("dirty/dirtied", "ebpf_page_cache_dirtied_total", None),
        ("fadvise/calls", "ebpf_fadvise_calls_total", None),
        ("fadvise/calls", "ebpf_fadvise_advice_total", Some(("advice", "dontneed"))),
        ("syscalls/timed", "ebpf_syscall_calls_total", Some(("syscall", "pread64"))),
        (
            "reclaim/direct",
            "ebpf_memory_direct_reclaim_begins_total",
            Some(("reclaim_type", "global")),
        ),
        (
            "reclaim/memcg",
            "ebpf_memory_direct_reclaim_begins_total",
            Some(("reclaim_type", "memcg")),
        ),
        ("kills/ended", "ebpf_memory_oom_kills_total", None),
    ] {
        let labels: Vec<_> = label.into_iter().collect();
        let series: Vec<_> = scrape.all(name, &labels).map(|sample| sample.value).collect();
        let counted = hole(probe, Mode::Auto)?.is_none();
        ensure!(series == vec![0.0; usize::from(counted)], "{name} {label:?}: {series:?}");
    }
    // These are the whole machine's, which may be at it.
    for name in ["ebpf_memory_lru_pages_scanned_total", "ebpf_memory_lru_pages_reclaimed_total"] {
        for kind in ["global", "memcg", "kswapd"] {
            scrape.count(name, &[("reclaim_type", kind)])?;
        }
    }
    Ok(())
}
