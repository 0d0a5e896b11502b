//! Requests through io_uring: how many of what, how long, how many bytes, which errors.

use std::collections::BTreeMap;

use abi::{
    errno,
    io_uring::{Counter, MOVE_BYTES, OCTAVES, OPERATIONS},
};
use anyhow::Result;

use super::{
    durations::Durations,
    errors,
    groups::{Groups, Owner},
    own::dropped,
    signal::{Disabled, Signal, Switch},
};
use crate::{
    config::Mistakes,
    ebpf::{
        ladder::{Context, Mode, Probe, Rung, at, rungs},
        load::Loaded,
    },
    metric::{About, Attribute, Kind, Metric, Points},
};

const OPERATION: Attribute = Attribute {
    name: "ebpf.io_uring.operation",
    description: "as the kernel calls it, in lower case without `IORING_OP_`: `read`, `write_fixed`, `fsync`, …; \
                  `_OTHER` for what has no name or is no request's own: each but the last completion of a multishot \
                  request, messages of other rings",
};

const SUBMISSIONS: Metric = Metric {
    name: "ebpf.io_uring.submissions",
    unit: "{request}",
    kind: Kind::Counter,
    description: "Requests that tasks of the scope have submitted to the kernel through io_uring. They move data without \
                  a system call each, so ebpf.syscall.calls does not have them.",
    caveat: "A series appears with its first request. Requests that are wrong in themselves are refused before they are \
             submitted: they complete with an error alone. Before Linux 5.18 so are those whose file is not open.",
    attributes: &[OPERATION],
};

const COMPLETIONS: Metric = Metric {
    name: "ebpf.io_uring.completions",
    unit: "{completion}",
    kind: Kind::Counter,
    description: "Completions that the kernel has put into rings, whether of success or failure, for who submitted the \
                  request.",
    caveat: "A series appears with its first completion. Requests that ask for no completion have none if they succeed, \
             multishot ones have many, and from Linux 6.15 on, one that finds its ring full is not in it.",
    attributes: &[OPERATION],
};

const IO: Metric = Metric {
    name: "ebpf.io_uring.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes that completions said were moved.",
    caveat: "Not what reached a disk: the page cache, pipes and sockets count alike. What multishot requests move is \
             missing.",
    attributes: &[OPERATION],
};

const ERRORS: Metric = Metric {
    name: "ebpf.io_uring.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Completions of failure, by error.",
    caveat: "A series appears with its first error. A timeout that is over completes with ETIME, which is what it is for.",
    attributes: &[OPERATION, errors::TYPE],
};

const DURATION: Metric = Metric {
    name: "ebpf.io_uring.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time from a request's submission to its completion.",
    caveat: "Waiting is part of it: for the requests that it is linked behind, for a peer, for a worker of the kernel. The \
             completion is in the ring then, and may lie there. Requests that ask for no completion, that are refused, and \
             that were under way when the agent attached are not timed.",
    attributes: &[OPERATION],
};

/// Requests by operation.
pub struct IoUring;

impl Signal for IoUring {
    const NAME: &'static str = "io_uring";
    const DESCRIPTION: &'static str =
        "What is asked of the kernel through io_uring, and what comes of it.";
    const QUESTION: &'static str =
        "How long do requests take that no system call waits for, and which of them fail?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/io_uring.o");
    const METRICS: &'static [Metric] = &[SUBMISSIONS, COMPLETIONS, IO, ERRORS, DURATION];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[SUBMITTED, COMPLETED];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    /// A few operations, each in a few octaves.
    const CELLS: u32 = 8;
    /// A dozen operations, each in some twenty octaves, or with some errors.
    const HOST_CELLS: u32 = 512;

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if loaded.has(SUBMITTED.name) {
            for (owner, cells) in groups.read(Self::NAME, "SUBMITTED", loaded)?.iter() {
                points.about(groups.about(owner));
                for (place, cell) in cells.iter().filter(|(_, cell)| cell[0] > 0) {
                    let attributes = [(OPERATION.name, name(place))];
                    points.counter(&SUBMISSIONS, &attributes, cell[0]);
                }
            }
        }
        if loaded.has(COMPLETED.name) {
            for ((owner, place), sum) in &sums(loaded, groups)? {
                points.about(groups.about(*owner));
                sum.emit(points, name(*place));
            }
            points.about(About::default());
            let counters = loaded.counters("COUNTERS")?;
            let events = counters[Counter::InFlightFull as usize];
            dropped(points, "io_uring/completions", &[("too many requests", events)]);
        }
        points.about(About::default());
        Ok(())
    }
}

/// An operation's name.
fn name(place: u32) -> &'static str {
    let operation = place.checked_sub(1).and_then(|operation| OPERATIONS.get(operation as usize));
    operation.copied().unwrap_or("_OTHER")
}

/// What has completed of one operation.
#[derive(Default)]
struct Sum {
    completions: u64,
    bytes: u64,
    durations: Durations,
    errors: Vec<(u32, u64)>,
}

fn sums(loaded: &Loaded, groups: &mut Groups) -> Result<BTreeMap<(Owner, u32), Sum>> {
    let mut sums: BTreeMap<_, Sum> = BTreeMap::new();
    for (owner, cells) in groups.read_sparse(IoUring::NAME, "CELLS", loaded)?.iter() {
        for (entry, cell) in cells.iter() {
            let [completions, bytes, nanos, zeros, buckets @ ..] = cell else {
                continue;
            };
            let octave = entry as usize % OCTAVES;
            let sum = sums.entry((owner, entry / OCTAVES as u32)).or_default();
            sum.completions += completions;
            sum.bytes += bytes;
            sum.durations.add(octave, *nanos, *zeros, buckets);
        }
    }
    for (owner, cells) in groups.read_sparse(IoUring::NAME, "ERRORS", loaded)?.iter() {
        for (entry, cell) in cells.iter() {
            let sum = sums.entry((owner, entry / errno::SLOTS)).or_default();
            sum.errors.push((entry % errno::SLOTS, cell[0]));
        }
    }
    Ok(sums)
}

impl Sum {
    fn emit(&self, points: &mut Points<'_>, name: &'static str) {
        let attributes = [(OPERATION.name, name)];
        points.counter(&COMPLETIONS, &attributes, self.completions);
        if MOVE_BYTES.contains(&name) {
            points.counter(&IO, &attributes, self.bytes);
        }
        points.histogram(&DURATION, &attributes, self.durations.histogram());
        let mut by_error = [0; errno::SLOTS as usize];
        self.errors.iter().for_each(|(error, count)| by_error[*error as usize] += count);
        errors::emit(points, &ERRORS, &attributes, &by_error);
    }
}

/// What is submitted. The name of the event has changed with Linux 6.5, its arguments with 6.0.
const SUBMITTED: Probe = Probe {
    name: "submissions",
    context: Context::Task,
    rungs: rungs!(
        [
            ([("submit", REQ)], &[REQUEST, "io_kiocb.opcode"]),
            ([("submit", SQE)], &[REQUEST, "io_kiocb.opcode"]),
            ([("submit_six", SQE)], &[]),
        ],
        [
            Rung::new(
                Mode::Tracepoint,
                &[at("submit_tp", "io_uring/io_uring_submit_req")],
                &[RECORD_OPERATION],
            ),
            Rung::new(
                Mode::Tracepoint,
                &[at("submit_tp", "io_uring/io_uring_submit_sqe")],
                &[RECORD_OPERATION],
            ),
        ]
    ),
};

/// What completes. Before Linux 5.18 a completion does not say of which request it is.
const COMPLETED: Probe = Probe {
    name: "completions",
    context: Context::Task,
    rungs: rungs!(
        [
            (
                [("complete", COMPLETE), ("begin", REQ)],
                &[REQUEST, ENTRY, "io_uring_cqe.res", "io_kiocb.opcode", "io_kiocb.flags"],
            ),
            (
                [("complete_seven", COMPLETE), ("begin", REQ)],
                &[REQUEST, "io_kiocb.opcode", "io_kiocb.flags"],
            ),
            (
                [("complete_seven", COMPLETE), ("begin", SQE)],
                &[REQUEST, "io_kiocb.opcode", "io_kiocb.flags"],
            ),
        ],
        [
            Rung::new(
                Mode::Tracepoint,
                &[
                    at("complete_tp", "io_uring/io_uring_complete"),
                    at("begin_tp", "io_uring/io_uring_submit_req"),
                ],
                RECORDS,
            ),
            Rung::new(
                Mode::Tracepoint,
                &[
                    at("complete_tp", "io_uring/io_uring_complete"),
                    at("begin_tp", "io_uring/io_uring_submit_sqe"),
                ],
                RECORDS,
            ),
        ]
    ),
};

const REQ: &str = "io_uring_submit_req";
const REQUEST: &str = "io_uring_submit_req(io_kiocb)|io_uring_submit_sqe(io_kiocb)";
const SQE: &str = "io_uring_submit_sqe";
const COMPLETE: &str = "io_uring_complete";
const ENTRY: &str = "io_uring_complete(io_uring_cqe)";

/// The operation of a record of a submission.
const RECORD_OPERATION: &str =
    "trace_event_raw_io_uring_submit_req.opcode|trace_event_raw_io_uring_submit_sqe.opcode";
/// A submission and a completion.
const RECORDS: &[&str] = &[
    "trace_event_raw_io_uring_complete.req",
    "trace_event_raw_io_uring_complete.res",
    "trace_event_raw_io_uring_submit_req.req|trace_event_raw_io_uring_submit_sqe.req",
    "trace_event_raw_io_uring_submit_req.flags|trace_event_raw_io_uring_submit_sqe.flags",
    RECORD_OPERATION,
    "io_kiocb.opcode?",
];

#[cfg(test)]
mod tests {
    use abi::io_uring::{PLACES, UNNAMED, place};

    use super::*;

    #[test]
    fn places_have_their_names() {
        assert_eq!(name(place(0)), "nop");
        assert_eq!(name(place(22)), "read");
        assert_eq!(name(PLACES - 1), "pipe");
        assert_eq!(name(UNNAMED), "_OTHER");
        assert_eq!(name(PLACES), "_OTHER");
    }
}
