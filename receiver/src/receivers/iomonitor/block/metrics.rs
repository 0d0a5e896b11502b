//! What the signal emits.

use crate::{
    metric::{Attribute, Kind, Metric},
    receivers::iomonitor::errors,
};

/// Every metric in this file.
pub const ALL: &[Metric] =
    &[IO, OPERATIONS, ERRORS, REQUEUES, MERGES, QUEUE, DEVICE_DURATION, IN_FLIGHT, DURATION];

/// `system.device` of OpenTelemetry's conventions.
pub const DEVICE: Attribute = Attribute {
    name: "system.device",
    description: "the device's name, such as `nvme0n1`, or `major:minor` if it has gone; absent for controllers",
};
/// `disk.io.direction` of OpenTelemetry's conventions.
pub const DIRECTION: Attribute =
    Attribute { name: "disk.io.direction", description: "`read` or `write`; absent for all else" };
/// What is asked of the device.
pub const OPERATION: Attribute = Attribute {
    name: "ebpf.block.operation",
    description: "`read`, `write`, `flush`, `discard`, `write_zeroes`, or `other`: zones, secure erasure, commands of \
                  drivers",
};

const PLACE: &[Attribute] = &[DEVICE, DIRECTION, OPERATION];

/// Bytes.
pub const IO: Metric = Metric {
    name: "ebpf.block.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes of requests that block devices have ended.",
    caveat: "By whole devices, as /proc/diskstats: what a device stacked on others does (loop, a RAID, a volume) \
             is counted for it, if it has requests of its own, and for those below. Bytes that failed are in it. \
             Writeback counts for the cgroup that the kernel charges, where the scope names \
             cgroups alone or series are by cgroup, and I/O is controlled by cgroup v2; otherwise for the task that \
             submits, which for writeback is the kernel's. What a task submits on behalf of a cgroup above its own, as \
             one that syncs does with the trees of btrfs, counts for the task's.",
    attributes: PLACE,
};

/// Requests.
pub const OPERATIONS: Metric = Metric {
    name: "ebpf.block.operations",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Requests that block devices have ended.",
    caveat: "Not the number of system calls: one may become many requests, and many may be merged to one. A flush \
             serves all who wait for one, and is nobody's: it counts for the root cgroup, or for the kernel's task \
             that issues it.",
    attributes: PLACE,
};

/// Requests that failed.
pub const ERRORS: Metric = Metric {
    name: "ebpf.block.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Requests that failed, wholly or in part, by error.",
    caveat: "A series appears with its first error. What a driver tries again itself does not count.",
    attributes: &[DEVICE, DIRECTION, OPERATION, errors::TYPE],
};

/// Requests put back.
pub const REQUEUES: Metric = Metric {
    name: "ebpf.block.requeues",
    unit: "{request}",
    kind: Kind::Counter,
    description: "Times that a request was put back into the queue, since the device could not take it or failed.",
    caveat: "A device whose own queue is full has requeues in the best of health.",
    attributes: PLACE,
};

/// Merges.
pub const MERGES: Metric = Metric {
    name: "ebpf.block.merges",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Operations that joined a request that waited already.",
    caveat: "Discards that are merged as ranges of one request raise no event and are missing.",
    attributes: PLACE,
};

/// Time before the device.
pub const QUEUE: Metric = Metric {
    name: "ebpf.block.queue.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time that a request waits, from being made to the device's being given it.",
    caveat: "Of a request that is put back, all its waiting together. Not of commands of drivers, nor of devices whose \
             statistics are off (queue/iostats). Since Linux 6.9 the kernel reads the clock once for what is submitted \
             together: all of it counts as made with the first. Absent with `split: false`.",
    attributes: PLACE,
};

/// Time in the device.
pub const DEVICE_DURATION: Metric = Metric {
    name: "ebpf.block.device.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time from the device's being given a request to its end.",
    caveat: "Waiting in the device's own queue is part of it. Requests that were under way when the agent attached are \
             not timed. Absent with `split: false`.",
    attributes: PLACE,
};

/// Requests that devices have.
pub const IN_FLIGHT: Metric = Metric {
    name: "ebpf.block.in_flight",
    unit: "{request}",
    kind: Kind::UpDownCounter,
    description: "Requests that the device has been given and has not ended.",
    caveat: "As of the moment of the collection. Requests that were under way when the agent attached are not in it. \
             Absent with `split: false`.",
    attributes: PLACE,
};

/// Time of the whole request.
pub const DURATION: Metric = Metric {
    name: "ebpf.block.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time from a request's being made to its end; only with `split: false`, instead of those in the queue \
                  and in the device, and of what is in flight.",
    caveat: "Nearly what `iostat` calls await; that has what a flush takes which a write asks for behind it, and the \
             empty writes that stand for flushes. Of a request that is put back, all its time together. Not of \
             commands of drivers, nor of devices whose statistics are off (queue/iostats). Since Linux 6.9 the kernel \
             reads the clock once for what is submitted together: all of it counts as made with the first.",
    attributes: PLACE,
};
