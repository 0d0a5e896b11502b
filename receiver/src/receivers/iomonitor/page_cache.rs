//! Pages that enter and leave the page cache, and pages that reads look for in it.

use abi::page_cache::Counter;
use anyhow::{Result, bail};

use super::{
    folio::{FOLIO, HEAD},
    groups::Groups,
    signal::{Disabled, Signal, Switch},
    system_call,
};
use crate::{
    config::Mistakes,
    ebpf::{
        globals::Globals,
        ladder::{Attach, Context, Mode, Probe, Rung},
        load::Loaded,
    },
    metric::{About, Kind, Metric, Points},
    receivers::iomonitor::DROPPED,
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
             cgroups alone and memory is controlled by cgroup v2; otherwise for the task that deletes, so that \
             pages that kswapd evicts are missing in a scope. Adds less deletes is not the size of the cache, since \
             tmpfs deletes pages that it never added.",
    attributes: &[],
};

const READ_ATTEMPTS: Metric = Metric {
    name: "ebpf.cache.read_attempts",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that buffered reads looked for in the page cache.",
    caveat: "A read of one byte looks for one page. Direct I/O, DAX, tmpfs, mmap and writes do not \
             look here. Exact for read and pread64; of vectored reads, splice and io_uring, pages whose \
             neighbours are still being read may be missing.",
    attributes: &[],
};

/// Pages by the page cache's own events.
pub struct PageCache {
    /// Whether anybody wants to know what reads ask for, which takes longer than the rest.
    lookups: bool,
}

impl Signal for PageCache {
    const NAME: &'static str = "page_cache";
    const DESCRIPTION: &'static str =
        "What enters and leaves the page cache, and what reads ask it for.";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/page_cache.o");
    const METRICS: &'static [Metric] = &[ADDS, DELETES, READ_ATTEMPTS];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[
        Probe {
            name: "adds",
            context: Context::Task,
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "adds_btf",
                        target: "mm_filemap_add_to_page_cache",
                    }],
                    fields: FOLIO,
                    values: HEAD,
                },
                Rung {
                    mode: Mode::RawTp,
                    programs: &[Attach {
                        program: "adds_raw",
                        target: "mm_filemap_add_to_page_cache",
                    }],
                    fields: FOLIO,
                    values: HEAD,
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "adds_tp",
                        target: "filemap/mm_filemap_add_to_page_cache",
                    }],
                    fields: RECORD,
                    values: &[],
                },
            ],
        },
        Probe {
            name: "deletes",
            // With interrupts off.
            context: Context::Interrupt,
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "deletes_btf",
                        target: "mm_filemap_delete_from_page_cache",
                    }],
                    fields: FOLIO,
                    values: HEAD,
                },
                Rung {
                    mode: Mode::RawTp,
                    programs: &[Attach {
                        program: "deletes_raw",
                        target: "mm_filemap_delete_from_page_cache",
                    }],
                    fields: FOLIO,
                    values: HEAD,
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "deletes_tp",
                        target: "filemap/mm_filemap_delete_from_page_cache",
                    }],
                    fields: RECORD,
                    values: &[],
                },
            ],
        },
        Probe {
            name: LOOKUPS,
            context: Context::Task,
            // The classic record lacks the size of the file, beyond which a request may reach; a pair of kprobe and
            // kretprobe lost a fifth of the reads of three threads on Linux 5.10.
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[
                        Attach { program: "lookups_btf", target: "mm_filemap_get_pages" },
                        Attach { program: "thread_exit_btf", target: "sched_process_exit" },
                    ],
                    fields: LOOKUP,
                    values: &[],
                },
                Rung {
                    mode: Mode::RawTp,
                    programs: &[
                        Attach { program: "lookups_raw", target: "mm_filemap_get_pages" },
                        Attach { program: "thread_exit_raw", target: "sched_process_exit" },
                    ],
                    fields: LOOKUP,
                    values: &[],
                },
                Rung {
                    mode: Mode::Fentry,
                    programs: &[Attach { program: "reads_fexit", target: "filemap_read" }],
                    fields: POSITION,
                    values: &[],
                },
                // The same function before Linux 5.11.
                Rung {
                    mode: Mode::Fentry,
                    programs: &[Attach {
                        program: "reads_fexit",
                        target: "generic_file_buffered_read",
                    }],
                    fields: POSITION,
                    values: &[],
                },
            ],
        },
    ];

    fn new(config: Switch, disabled: &Disabled) -> Result<Option<Self>, Mistakes> {
        let lookups = !disabled.contains(READ_ATTEMPTS.name);
        Ok(config.enabled.then_some(Self { lookups }))
    }

    fn wants(&self, probe: &str) -> bool {
        self.lookups || probe != LOOKUPS
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        for (name, call) in [("NR_READ", "read"), ("NR_PREAD64", "pread64")] {
            globals.number(name, system_call::number(call)?);
        }
        Ok(())
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        let (adds, deletes, lookups) =
            (loaded.has("adds"), loaded.has("deletes"), loaded.has(LOOKUPS));
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            for (_, cell) in cells {
                let &[added, deleted, looked_up] = cell.as_slice() else {
                    bail!("a cell of {} numbers", cell.len())
                };
                let metrics = [
                    (adds, &ADDS, added),
                    (deletes, &DELETES, deleted),
                    (lookups, &READ_ATTEMPTS, looked_up),
                ];
                for (_, metric, value) in metrics.into_iter().filter(|(attached, ..)| *attached) {
                    points.counter(metric, &[], value);
                }
            }
        }
        points.about(About::default());
        if lookups {
            let counters = loaded.counters("COUNTERS")?;
            points.counter(
                &DROPPED,
                &[("probe", "page_cache/lookups"), ("reason", "too many threads")],
                counters[Counter::LookupsUntracked as usize],
            );
        }
        Ok(())
    }
}

const LOOKUPS: &str = "lookups";

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
    "pt_regs.dx",
    "pt_regs.r10",
];
/// Where a read has come to.
const POSITION: &[&str] = &["kiocb.ki_pos"];
