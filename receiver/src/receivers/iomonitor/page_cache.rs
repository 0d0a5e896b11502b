//! Pages that enter and leave the page cache, and pages that reads look for in it.

use abi::page_cache::Counter;
use anyhow::{Result, bail};

use super::{
    derived::{HIT_RATIO, Quantity},
    folio::{FOLIO, HEAD},
    groups::Groups,
    own::dropped,
    signal::{Disabled, Signal, Switch},
    system_call,
};
use crate::{
    config::Mistakes,
    ebpf::{
        globals::Globals,
        ladder::{Context, Mode, Probe, Rung, at, rungs},
        load::Loaded,
    },
    metric::{About, Kind, Metric, Points},
};

const ADDS: Metric = Metric {
    name: "ebpf.page_cache.adds",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages added to the page cache by tasks of the scope.",
    caveat: "Not the number of cache misses: readahead and writes add pages too.",
    attributes: &[],
};

const DELETES: Metric = Metric {
    name: "ebpf.page_cache.deletes",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages deleted from the page cache by tasks of the scope.",
    caveat: "Counted for the cgroup that a page is charged to, whoever deletes it, where the scope names \
             cgroups alone and memory is controlled by cgroup v2, unless a classic tracepoint is forced; otherwise for the \
             task that deletes, so that pages that kswapd evicts are missing in a scope. Adds less deletes is not the \
             size of the cache, since tmpfs deletes pages that it never added.",
    attributes: &[],
};

const READ_ATTEMPTS: Metric = Metric {
    name: "ebpf.cache.read_attempts",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that buffered reads looked for in the page cache.",
    caveat: "A read of one byte looks for one page. Direct I/O, DAX, tmpfs, mmap and writes do not \
             look here. Exact for read, pread64 and their vectored forms of up to 16 parts; of splice and io_uring, \
             pages whose neighbours are still being read may be missing.",
    attributes: &[],
};

const FOLLOWED: Metric = Metric {
    name: "ebpf.cache.followed",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that read, pread64, readv, preadv and preadv2 looked for in the page cache. What of them is neither \
                  in ebpf.cache.misses nor in ebpf.cache.readahead is a hit: it was there because something had used it \
                  before.",
    caveat: "Vectors of more than 16 parts, splice, sendfile and io_uring are in ebpf.cache.read_attempts alone: of these \
             it is not known for which page they came.",
    attributes: &[],
};

const MISSES: Metric = Metric {
    name: "ebpf.cache.misses",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that reads looked for and that were not in the page cache: the read waited for the disk. Of those in \
                  ebpf.cache.followed.",
    caveat: "What the kernel reads ahead beside them is none. A page that a read of many asks for is one even if readahead \
             fetches it while the read is under way. Reads that fail have misses without having been followed.",
    attributes: &[],
};

const READAHEAD: Metric = Metric {
    name: "ebpf.cache.readahead",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that reads found in the page cache for the first time since they, or advice to do so, had them read \
                  ahead: no hit, since a cache of any size would have had to fetch them, and no miss, since they were there \
                  in time. Of those in ebpf.cache.followed.",
    caveat: "The read may have waited for a page that was still under way. Pages that tasks outside the scope had read ahead \
             count as hits, and so do those behind the first 16 MiB of one read.",
    attributes: &[],
};

const FAULTED: Metric = Metric {
    name: "ebpf.cache.faulted",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that faults of programs which map their files added to the page cache.",
    caveat: "With what the kernel reads around and ahead of them. Faults that the kernel takes on a program's behalf inside a \
             system call are not in it. How many faults waited is in ebpf.memory.page_faults.",
    attributes: &[],
};

/// Pages by the page cache's own events.
pub struct PageCache {
    /// Whether it is of interest what reads find.
    followed: bool,
    /// Whether anybody wants to know what reads ask for, which takes longer than the rest.
    lookups: bool,
}

impl Signal for PageCache {
    const NAME: &'static str = "page_cache";
    const DESCRIPTION: &'static str =
        "What enters and leaves the page cache, and what reads ask it for.";
    const QUESTION: &'static str = "Are reads served from memory, and what moves in and out of it?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/page_cache.o");
    const METRICS: &'static [Metric] =
        &[ADDS, DELETES, READ_ATTEMPTS, FOLLOWED, MISSES, READAHEAD, FAULTED];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[
        Probe {
            name: "adds",
            context: Context::Task,
            rungs: rungs!(
                [([("adds", ADD)], FOLIO, HEAD)],
                [Rung::new(
                    Mode::Tracepoint,
                    &[at("adds_tp", "filemap/mm_filemap_add_to_page_cache")],
                    RECORD,
                )]
            ),
        },
        Probe {
            name: "deletes",
            // With interrupts off.
            context: Context::Interrupt,
            rungs: rungs!(
                [([("deletes", DELETE)], FOLIO, HEAD)],
                [Rung::new(
                    Mode::Tracepoint,
                    &[at("deletes_tp", "filemap/mm_filemap_delete_from_page_cache")],
                    RECORD,
                )]
            ),
        },
        Probe {
            name: LOOKUPS,
            context: Context::Task,
            // The classic record lacks the size of the file, beyond which a request may reach; a pair of kprobe and
            // kretprobe lost a fifth of the reads of three threads on Linux 5.10.
            rungs: rungs!(
                [(
                    [("lookups", "mm_filemap_get_pages"), ("thread_exit", "sched_process_exit")],
                    LOOKUP,
                )],
                [
                    Rung::new(Mode::Fentry, &[at("reads_fexit", "filemap_read")], POSITION),
                    // The same function before Linux 5.11.
                    Rung::new(
                        Mode::Fentry,
                        &[at("reads_fexit", "generic_file_buffered_read")],
                        POSITION,
                    ),
                ]
            ),
        },
        Probe {
            name: "misses",
            context: Context::Task,
            // Lookups have no other rungs to tell a page by.
            rungs: rungs!([([("gone", DELETE), ("fills", ADD)], FILL, HEAD)]),
        },
    ];

    fn new(config: Switch, disabled: &Disabled) -> Result<Option<Self>, Mistakes> {
        let told = [FOLLOWED.name, MISSES.name, READAHEAD.name, FAULTED.name, HIT_RATIO.name];
        let followed = told.iter().any(|name| !disabled.contains(name));
        let lookups = followed || !disabled.contains(READ_ATTEMPTS.name);
        Ok(config.enabled.then_some(Self { followed, lookups }))
    }

    fn wants(&self, probe: &str) -> bool {
        match probe {
            LOOKUPS => self.lookups,
            "misses" => self.followed,
            _ => true,
        }
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        for name in ["read", "pread64", "readv", "preadv", "preadv2", "readahead", "fadvise64"] {
            let number = system_call::number(name)?;
            globals.number(format!("NR_{}", name.to_uppercase()), number);
        }
        globals.number("FOLLOWED", self.followed.into());
        Ok(())
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        let [adds, deletes, lookups, misses] =
            ["adds", "deletes", LOOKUPS, "misses"].map(|probe| loaded.has(probe));
        let followed = lookups && misses;
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            for (_, cell) in cells.iter() {
                let &[added, deleted, looked_up, asked, ahead, missed, faulted] = cell else {
                    bail!("a cell of {} numbers", cell.len())
                };
                let metrics = [
                    (adds, &ADDS, added),
                    (deletes, &DELETES, deleted),
                    (lookups, &READ_ATTEMPTS, looked_up),
                    (followed, &FOLLOWED, asked),
                    (misses, &MISSES, missed),
                    (followed, &READAHEAD, ahead),
                    (misses, &FAULTED, faulted),
                ];
                for (_, metric, value) in metrics.into_iter().filter(|(attached, ..)| *attached) {
                    points.counter(metric, &[], value);
                }
                if followed {
                    groups.note(owner, Quantity::Asked, asked);
                    groups.note(owner, Quantity::NotHit, missed + ahead);
                }
            }
        }
        points.about(About::default());
        if lookups {
            let counters = loaded.counters("COUNTERS")?;
            let events = counters[Counter::LookupsUntracked as usize];
            dropped(points, "page_cache/lookups", &[("too many threads", events)]);
        }
        if followed {
            let counters = loaded.counters("COUNTERS")?;
            let events = [
                ("too many chunks read ahead", counters[Counter::AheadFull as usize]),
                ("too long a read", counters[Counter::TooLong as usize]),
            ];
            dropped(points, "page_cache/misses", &events);
        }
        Ok(())
    }
}

const LOOKUPS: &str = "lookups";

const ADD: &str = "mm_filemap_add_to_page_cache";
const DELETE: &str = "mm_filemap_delete_from_page_cache";

/// Records without an order are of kernels whose page cache has events for single pages alone.
const RECORD: &[&str] = &["trace_event_raw_mm_filemap_op_page_cache.order|page.compound_order"];
/// A lookup, and the read that it is for.
const LOOKUP: &[&str] = &[
    "address_space.host",
    "inode.i_size",
    "task_struct.ioac.syscr",
    "task_struct.files",
    "files_struct.fdt",
    "fdtable.fd",
    "file.f_pos",
    "pt_regs.orig_ax",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.dx",
    "pt_regs.r10",
];
/// Where a page is added, and the read that it is for.
const FILL: &[&str] = &[
    "mm_filemap_get_pages(address_space)",
    "folio.flags|page.flags",
    "folio._folio_order|folio._flags_1|page.compound_order",
    "page",
    "folio.mapping",
    "folio.index",
    "task_struct.files",
    "files_struct.fdt",
    "fdtable.fd",
    "file.f_pos",
    "file.f_mapping",
    "pt_regs.orig_ax",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.dx",
    "pt_regs.r10",
];
/// Where a read has come to.
const POSITION: &[&str] = &["kiocb.ki_pos"];
