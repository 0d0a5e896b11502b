//! Where the programs attach. Classic tracepoints are of no use here: their records do not say which request
//! they are about, nor whose it is, and those of interrupts are lost.

use crate::ebpf::ladder::{Context, Probe, rungs};

/// Requests from their begin to their end. The end comes first: what is seen to begin is seen to end.
pub const REQUESTS: Probe = Probe {
    name: "requests",
    context: Context::Interrupt,
    rungs: rungs!([
        (
            [
                ("complete", "block_rq_complete"),
                ("requeue", "block_rq_requeue"),
                ("issue", "block_rq_issue"),
                ("start", "block_io_start"),
            ],
            REQUEST,
        ),
        // Before Linux 6.5, no event says that a request begins; in most cases its submitter inserts or
        // issues it.
        (
            [
                ("complete", "block_rq_complete"),
                ("requeue", "block_rq_requeue"),
                ("issue", "block_rq_issue"),
                ("insert", "block_rq_insert"),
            ],
            INSERTED,
        ),
    ]),
};

/// Of their programs, those that only find out whose a request is.
pub const OF_TASKS: &[&str] = &["start_btf", "start_raw", "insert_btf", "insert_raw"];

/// As well those of its issue: when it was made, a request says itself when it ends.
pub const BEFORE_THE_END: &[&str] =
    &["start_btf", "start_raw", "insert_btf", "insert_raw", "issue_btf", "issue_raw"];

/// What joins a request that waits.
pub const MERGES: Probe = Probe {
    name: "merges",
    context: Context::Interrupt,
    rungs: rungs!([(
        [
            ("merge", "block_rq_merge"),
            ("behind", "block_bio_backmerge"),
            ("before", "block_bio_frontmerge"),
        ],
        MERGED,
    )]),
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
    "request.part",
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
    "request.part",
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
