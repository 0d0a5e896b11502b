//! Kernels without what a probe needs: the probe is reported, its metrics are absent, and the rest is exact.

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file,
    modes::hole,
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
