//! Where the programs attach. Classic tracepoints are of no use here: their records do not say which request
//! they are about, nor whose it is, and those of interrupts are lost.

use crate::ebpf::ladder::{Attach, Context, Mode, Probe, Rung};

/// Requests from their begin to their end. The end comes first: what is seen to begin is seen to end.
pub const REQUESTS: Probe = Probe {
    name: "requests",
    context: Context::Interrupt,
    rungs: &[
        Rung {
            mode: Mode::TpBtf,
            programs: &[
                Attach { program: "complete_btf", target: "block_rq_complete" },
                Attach { program: "requeue_btf", target: "block_rq_requeue" },
                Attach { program: "issue_btf", target: "block_rq_issue" },
                Attach { program: "start_btf", target: "block_io_start" },
            ],
            fields: REQUEST,
            values: &[],
        },
        // Before Linux 6.5, no event says that a request begins; in most cases its submitter inserts or
        // issues it.
        Rung {
            mode: Mode::TpBtf,
            programs: &[
                Attach { program: "complete_btf", target: "block_rq_complete" },
                Attach { program: "requeue_btf", target: "block_rq_requeue" },
                Attach { program: "issue_btf", target: "block_rq_issue" },
                Attach { program: "insert_btf", target: "block_rq_insert" },
            ],
            fields: INSERTED,
            values: &[],
        },
        Rung {
            mode: Mode::RawTp,
            programs: &[
                Attach { program: "complete_raw", target: "block_rq_complete" },
                Attach { program: "requeue_raw", target: "block_rq_requeue" },
                Attach { program: "issue_raw", target: "block_rq_issue" },
                Attach { program: "start_raw", target: "block_io_start" },
            ],
            fields: REQUEST,
            values: &[],
        },
        Rung {
            mode: Mode::RawTp,
            programs: &[
                Attach { program: "complete_raw", target: "block_rq_complete" },
                Attach { program: "requeue_raw", target: "block_rq_requeue" },
                Attach { program: "issue_raw", target: "block_rq_issue" },
                Attach { program: "insert_raw", target: "block_rq_insert" },
            ],
            fields: INSERTED,
            values: &[],
        },
    ],
};

/// What joins a request that waits.
pub const MERGES: Probe = Probe {
    name: "merges",
    context: Context::Interrupt,
    rungs: &[
        Rung {
            mode: Mode::TpBtf,
            programs: &[
                Attach { program: "merge_btf", target: "block_rq_merge" },
                Attach { program: "behind_btf", target: "block_bio_backmerge" },
                Attach { program: "before_btf", target: "block_bio_frontmerge" },
            ],
            fields: MERGED,
            values: &[],
        },
        Rung {
            mode: Mode::RawTp,
            programs: &[
                Attach { program: "merge_raw", target: "block_rq_merge" },
                Attach { program: "behind_raw", target: "block_bio_backmerge" },
                Attach { program: "before_raw", target: "block_bio_frontmerge" },
            ],
            fields: MERGED,
            values: &[],
        },
    ],
};

const REQUEST: &[&str] = &[
    "block_rq_issue(request)",
    "block_rq_requeue(request)",
    "request.q",
    "request.rq_disk|request_queue.disk",
    "request.cmd_flags",
    "request.__data_len",
    "request.bio",
    "request.start_time_ns",
    "gendisk.major",
    "gendisk.first_minor",
];

const INSERTED: &[&str] = &[
    "block_rq_insert(request)",
    "block_rq_issue(request)",
    "block_rq_requeue(request)",
    "request.q",
    "request.rq_disk|request_queue.disk",
    "request.cmd_flags",
    "request.__data_len",
    "request.bio",
    "request.start_time_ns",
    "gendisk.major",
    "gendisk.first_minor",
];

const MERGED: &[&str] = &[
    "block_rq_merge(request)",
    "block_bio_backmerge(bio)",
    "block_bio_frontmerge(bio)",
    "request.q",
    "request.rq_disk|request_queue.disk",
    "request.cmd_flags",
    "request.bio",
    "gendisk.major",
    "gendisk.first_minor",
    "bio.bi_disk|bio.bi_bdev",
    "block_device.bd_disk",
    "bio.bi_opf",
];
