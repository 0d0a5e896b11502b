//! Pages that enter and leave the page cache, and pages that reads look for in it.

use abi::page_cache::Counter;
use anyhow::{Context as _, Result};

use super::{
    signal::{Disabled, Signal, Switch},
    system_call,
};
use crate::{
    config::Mistakes,
    ebpf::{
        globals::Globals,
        ladder::{Attach, Mode, Probe, Rung},
        load::Loaded,
    },
    metric::{Kind, Metric, Points},
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
    caveat: "Counted for the task that deletes, not for the owner of the page: within a scope, pages \
             that kswapd evicts are missing. Adds less deletes is not the size of the cache, since \
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
pub struct PageCache;

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
            name: "lookups",
            // The classic record lacks the size of the file, beyond which a request may reach.
            rungs: &[Rung {
                mode: Mode::TpBtf,
                programs: &[
                    Attach { program: "lookups_btf", target: "mm_filemap_get_pages" },
                    Attach { program: "lookups_exit_btf", target: "sched_process_exit" },
                ],
                fields: &[
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
                ],
                values: &[],
            }],
        },
    ];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        for (name, call) in [("NR_READ", "read"), ("NR_PREAD64", "pread64")] {
            let call = system_call::named(call).context("a call that the table lacks")?;
            globals.number(name, call.number);
        }
        Ok(())
    }

    fn read(&mut self, loaded: &mut Loaded, points: &mut Points<'_>) -> Result<()> {
        let counters = loaded.counters("COUNTERS")?;
        let value = |counter: Counter| counters[counter as usize];
        if loaded.has("adds") {
            points.counter(&ADDS, &[], value(Counter::Adds));
        }
        if loaded.has("deletes") {
            points.counter(&DELETES, &[], value(Counter::Deletes));
        }
        if loaded.has("lookups") {
            points.counter(&READ_ATTEMPTS, &[], value(Counter::Lookups));
            points.counter(
                &DROPPED,
                &[("probe", "page_cache/lookups"), ("reason", "too many threads")],
                value(Counter::LookupsUntracked),
            );
        }
        Ok(())
    }
}

/// A folio's order: its flags say whether it is large, its second page's how large.
const FOLIO: &[&str] = &["folio.flags", "folio._flags_1"];
const HEAD: &[&str] = &["pageflags.PG_head"];
const RECORD: &[&str] = &["trace_event_raw_mm_filemap_op_page_cache.order"];
