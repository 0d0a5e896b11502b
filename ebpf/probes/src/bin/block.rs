//! Requests to block devices: how many, how large, how long they waited and how long they took.
//!
//! A request is counted when it ends, which its device's interrupt decides, so nothing about the current task
//! is asked then. What a task alone could say was asked when the request began.
#![no_std]
#![no_main]

use core::hint::black_box;

use abi::{
    block::{
        Counter, Counts, DEVICES as PLACES, MAX_REQUESTS, OCTAVE, OCTAVES, OPERATIONS, Operation,
        PROBES, Phase, Request, SEATS_BITS, Times, counts, error, failures, place, times,
    },
    errno, exponential,
    group::Group,
    seat::Seat,
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use probes::{
    count,
    duration::now,
    field::{Address, Arguments, Memory, checked, present, set},
    group,
    seats::Seats,
};

probes::program!();

probes::fields! {
    ARG_BLOCK_RQ_INSERT_REQUEST,
    ARG_BLOCK_RQ_ISSUE_REQUEST,
    ARG_BLOCK_RQ_REQUEUE_REQUEST,
    ARG_BLOCK_RQ_MERGE_REQUEST,
    ARG_BLOCK_BIO_BACKMERGE_BIO,
    ARG_BLOCK_BIO_FRONTMERGE_BIO,
    OFFSET_REQUEST_Q,
    OFFSET_REQUEST_RQ_DISK,
    OFFSET_REQUEST_CMD_FLAGS,
    OFFSET_REQUEST___DATA_LEN,
    OFFSET_REQUEST_BIO,
    OFFSET_REQUEST_START_TIME_NS,
    OFFSET_REQUEST_PART,
    OFFSET_REQUEST_QUEUE_DISK,
    OFFSET_GENDISK_MAJOR,
    OFFSET_GENDISK_FIRST_MINOR,
    OFFSET_BIO_BI_DISK,
    OFFSET_BIO_BI_BDEV,
    OFFSET_BIO_BI_OPF,
    OFFSET_BLOCK_DEVICE_BD_DISK,
}

/// 1 if the time in the queue and the time in the device are told apart, and what is in flight is counted.
#[unsafe(no_mangle)]
static SPLIT: u32 = 0;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// By [`counts`].
    COUNTS, COUNTS_BY_GROUP, COUNTS_SEATS: [Counts; OPERATIONS]
}

probes::cells! {
    /// By [`failures`].
    ERRORS, ERRORS_BY_GROUP, ERRORS_SEATS: [u64; OPERATIONS * errno::SLOTS]
}

probes::cells! {
    /// By [`times`].
    TIMES, TIMES_BY_GROUP, TIMES_SEATS: [Times; OPERATIONS * 2 * OCTAVES as u32]
}

#[map]
static SEATS: Array<Seat<Request>> = Array::with_max_entries(1 << SEATS_BITS, 0);

/// Preallocated: with interrupts off, memory cannot be waited for.
#[map]
static OTHERS: HashMap<u64, Request> = HashMap::with_max_entries(MAX_REQUESTS, 0);

/// Requests that have not ended, and of those that have, what is left in their seats.
const REQUESTS: Seats<Request> = Seats { seats: &SEATS, bits: SEATS_BITS, others: &OTHERS };

/// The number of the device at each [`place`]. A hash, since inserting takes a place for one alone.
#[map]
static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(PLACES, 0);

/// One more than that number at the place that each device wants first, once it has it; found without a search.
#[map]
static TAKEN: Array<u64> = Array::with_max_entries(PLACES, 0);

#[inline(always)]
fn split() -> bool {
    set(&SPLIT) != 0
}

/// The place of a device, which it gets with its first request.
#[inline(always)]
fn placed(disk: impl Memory) -> u32 {
    if disk.address() == 0 {
        // The request is for a controller.
        return 0;
    }
    let device: u32 = disk.read::<u32>(&OFFSET_GENDISK_MAJOR) << 20
        | disk.read::<u32>(&OFFSET_GENDISK_FIRST_MINOR);
    let taken = u64::from(device) + 1;
    if TAKEN.get(place(device, 0)).is_some_and(|found| *found == taken) {
        return place(device, 0);
    }
    let mut tried = 0;
    while tried < PROBES {
        let at = place(device, tried);
        // If one is there, it stays, and another may be first. Not asked before: the verifier of Linux 5.10 would take
        // both answers for each try.
        let _ = DEVICES.insert(&at, &device, u64::from(BPF_NOEXIST));
        // SAFETY: what stands at a place never changes.
        if unsafe { DEVICES.get(&at) }.is_some_and(|found| *found == device) {
            if tried == 0 {
                let _ = TAKEN.set(at, &taken, 0);
            }
            return at;
        }
        tried += 1;
    }
    0
}

#[inline(always)]
fn place_of(request: impl Memory) -> u32 {
    // Before Linux 5.17 a request knows its disk itself.
    if present(&OFFSET_REQUEST_RQ_DISK) {
        placed(request.follow(&OFFSET_REQUEST_RQ_DISK))
    } else {
        placed(request.follow(&OFFSET_REQUEST_Q).follow(&OFFSET_REQUEST_QUEUE_DISK))
    }
}

#[inline(always)]
fn operation_of(request: impl Memory) -> u32 {
    Operation::of(request.read(&OFFSET_REQUEST_CMD_FLAGS)) as u32
}

/// When a request was made; 0 if the kernel does not say: of one that it does not account, recent kernels leave the
/// time of the one before at that address. What is accounted has its partition; a flush is, by itself.
#[inline(always)]
fn made(request: impl Memory) -> u64 {
    let accounted = request.follow(&OFFSET_REQUEST_PART).address() != 0;
    if accounted || operation_of(request) == Operation::Flush as u32 {
        request.read(&OFFSET_REQUEST_START_TIME_NS)
    } else {
        0
    }
}

#[inline(always)]
fn bio_of(request: impl Memory) -> Address {
    Address(request.follow(&OFFSET_REQUEST_BIO).address())
}

/// Adds to the field of a cell that `field` picks.
#[inline(always)]
fn add(
    group: Group,
    place: u32,
    operation: u32,
    amount: u64,
    field: impl FnOnce(&mut Counts) -> &mut u64,
) {
    let entry = counts(place, operation);
    let cell = COUNTS.sparse(group, entry, operation);
    if let Some(cell) = cell {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        *field(unsafe { &mut *cell }) += amount;
    }
}

/// A request that begins now, in the context of who submits it, or of who has it issued.
#[inline(always)]
fn begun(request: impl Memory, began: u64) -> Request {
    let (group, counted) = group::of_bio(bio_of(request));
    Request {
        group,
        began,
        queued: began,
        waited: 0,
        issued: 0,
        place: place_of(request),
        operation: operation_of(request),
        counted: counted as u32,
        ended: 0,
    }
}

/// The device once had a request here, and its end was not seen.
#[inline(always)]
fn lost(request: &Request, field: impl FnOnce(&mut Counts) -> &mut u64) {
    if request.issued != 0 && request.ended == 0 && request.counted != 0 {
        add(request.group, request.place, request.operation, 1, field);
    }
}

/// A request begins. Only who submits it is of interest: all else is known later.
#[inline(always)]
fn start(request: impl Memory, began: u64) {
    if !group::tasks_matter() {
        return;
    }
    let key = request.number();
    if let Some(before) = REQUESTS.get(key) {
        // SAFETY: nobody else has the request.
        let before = unsafe { *before };
        if began != 0 && before.began == began && before.issued == 0 && before.ended == 0 {
            // Put into the queue once more.
            return;
        }
        lost(&before, |cell| &mut cell.lost_at_start);
    }
    if !REQUESTS.put(key, &begun(request, began)) {
        count(&COUNTERS, Counter::NoRoomAtStart as u32, 1);
    }
}

/// The device is given a request.
#[inline(always)]
fn issue(request: impl Memory) {
    let key = request.number();
    let began = made(request);
    // Where nobody wants to know when, only that.
    let now = if split() { now() } else { 1 };
    if let Some(slot) = REQUESTS.get(key) {
        // SAFETY: nobody else has the request.
        let slot = unsafe { &mut *slot };
        if slot.issued == 0 && slot.ended == 0 && (slot.began == 0 || slot.began == began) {
            if slot.began == 0 {
                slot.began = began;
                slot.queued = began;
            }
            given(slot, now);
            return;
        }
        let before = *slot;
        lost(&before, |cell| &mut cell.lost_at_issue);
    }
    let mut new = begun(request, began);
    given(&mut new, now);
    if !REQUESTS.put(key, &new) {
        count(&COUNTERS, Counter::NoRoomAtIssue as u32, 1);
    }
}

#[inline(always)]
fn given(request: &mut Request, now: u64) {
    request.issued = now;
    if !split() {
        return;
    }
    if request.began != 0 {
        request.waited += now.saturating_sub(request.queued);
    }
    if request.counted != 0 {
        add(request.group, request.place, request.operation, 1, |cell| &mut cell.issued);
    }
}

/// What is known of the request at an address, if it has not ended.
#[inline(always)]
fn request_at(key: u64) -> Option<Request> {
    // Otherwise its end says all.
    if !split() && !group::tasks_matter() {
        return None;
    }
    match REQUESTS.get(key) {
        // SAFETY: nobody else has the request.
        Some(slot) if unsafe { (*slot).ended } == 0 => Some(unsafe { *slot }),
        _ => None,
    }
}

/// A device has done `bytes` of a request, or all of it.
#[inline(always)]
fn complete(request: impl Memory, status: i32, bytes: u32) {
    let key = request.number();
    let length: u32 = request.read(&OFFSET_REQUEST___DATA_LEN);
    let whole = bytes >= length;
    let known = request_at(key);
    if whole && known.is_some() {
        REQUESTS.end(key, |request| request.ended = 1);
    }
    let (group, place, operation) = match &known {
        Some(known) if known.counted == 0 => return,
        Some(known) => (known.group, known.place, known.operation),
        // It was under way when this program was attached.
        None => match group::of_bio_alone(bio_of(request)) {
            Some(group) => (group, place_of(request), operation_of(request)),
            None => return,
        },
    };
    // When it was issued, if it has ended.
    let issued = match &known {
        Some(known) if whole => known.issued,
        _ => 0,
    };
    // A write of nothing stands for a flush, which is a request of its own; and a write with a flush ends
    // twice, the second time with nothing left.
    let nothing = bytes == 0 && operation <= Operation::Write as u32;
    if nothing && issued == 0 {
        return;
    }
    let entry = counts(place, operation);
    let cell = COUNTS.sparse(group, entry, operation);
    if let Some(cell) = cell {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        let cell = unsafe { &mut *cell };
        cell.ended += (issued != 0) as u64;
        cell.operations += (whole && !nothing) as u64;
        cell.bytes += u64::from(bytes);
    }
    if nothing {
        return;
    }
    if status != 0 {
        failed(group, place, operation, error(status));
    }
    if split() {
        if let Some(known) = &known
            && issued != 0
        {
            took(group, place, operation, Phase::Device, now().saturating_sub(issued));
            if known.began != 0 {
                took(group, place, operation, Phase::Queue, known.waited);
            }
        }
    } else if whole {
        let began = made(request);
        if began != 0 {
            took(group, place, operation, Phase::Device, now().saturating_sub(began));
        }
    }
}

#[inline(always)]
fn failed(group: Group, place: u32, operation: u32, error: u32) {
    let (entry, unplaced) = (failures(place, operation, error), failures(0, operation, error));
    let cell = ERRORS.sparse(group, entry, unplaced);
    if let Some(cell) = cell {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *cell += 1 };
    }
}

#[inline(always)]
fn took(group: Group, place: u32, operation: u32, phase: Phase, nanos: u64) {
    // Not an `Option`: the compiler would copy its value where there is none, which the verifier refuses.
    let bucket = exponential::bucket_from_one(if nanos == 0 { 1 } else { nanos });
    let octave = (bucket / OCTAVE) as u32;
    let (entry, unplaced) =
        (times(place, operation, phase, octave), times(0, operation, phase, octave));
    let cell = TIMES.sparse(group, entry, unplaced);
    let Some(cell) = cell else { return };
    // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
    let cell = unsafe { &mut *cell };
    cell.nanos += nanos;
    if nanos == 0 {
        cell.zeros += 1;
    } else if let Some(bucket) = checked::<OCTAVE>(bucket % OCTAVE) {
        cell.buckets[bucket] += 1;
    }
}

/// A request goes back into the queue, because the device cannot take it or has failed to do it.
#[inline(always)]
fn requeue(request: impl Memory) {
    let key = request.number();
    let (group, place, operation, returned) = match REQUESTS.get(key) {
        // SAFETY: nobody else has the request.
        Some(slot) if unsafe { (*slot).ended } == 0 => {
            // SAFETY: as above.
            let slot = unsafe { &mut *slot };
            if slot.counted == 0 {
                slot.issued = 0;
                return;
            }
            let returned = slot.issued != 0;
            if returned {
                slot.issued = 0;
                slot.queued = now();
            }
            (slot.group, slot.place, slot.operation, returned)
        }
        _ => match group::of_bio_alone(bio_of(request)) {
            Some(group) => (group, place_of(request), operation_of(request), false),
            None => return,
        },
    };
    let entry = counts(place, operation);
    let cell = COUNTS.sparse(group, entry, operation);
    if let Some(cell) = cell {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        let cell = unsafe { &mut *cell };
        cell.requeues += 1;
        cell.returned += returned as u64;
    }
}

/// A request joins another: it will not be issued.
#[inline(always)]
fn joined(request: impl Memory) {
    let key = request.number();
    let (group, place, operation) = match request_at(key) {
        Some(known) => {
            REQUESTS.end(key, |request| request.ended = 1);
            if known.counted == 0 {
                return;
            }
            (known.group, known.place, known.operation)
        }
        None => match group::of_bio_alone(bio_of(request)) {
            Some(group) => (group, place_of(request), operation_of(request)),
            None => return,
        },
    };
    add(group, place, operation, 1, |cell| &mut cell.joined);
}

/// A bio joins a request, in the context of who submits it.
#[inline(always)]
fn merged(bio: impl Memory, field: impl FnOnce(&mut Counts) -> &mut u64) {
    let (group, counted) = group::of_bio(Address(bio.address()));
    if !counted {
        return;
    }
    // Before Linux 5.12 a bio knows its disk itself.
    let place = if present(&OFFSET_BIO_BI_DISK) {
        placed(bio.follow(&OFFSET_BIO_BI_DISK))
    } else {
        placed(bio.follow(&OFFSET_BIO_BI_BDEV).follow(&OFFSET_BLOCK_DEVICE_BD_DISK))
    };
    let operation = Operation::of(bio.read(&OFFSET_BIO_BI_OPF)) as u32;
    add(group, place, operation, 1, field);
}

/// An argument whose place differs between kernels: some hand over the queue first. Without the detour the
/// compiler would compute the argument's address and load once, and the verifier wants each at a constant offset.
#[inline(always)]
fn argument<A: Arguments>(ctx: &A, place: &'static u32) -> A::Pointer {
    match set(place) {
        0 => ctx.pointer(0),
        1 => black_box(ctx.pointer(1)),
        _ => black_box(ctx.pointer(2)),
    }
}

probes::raw_tracepoints! {
    /// In the context of who submits it. The kernel has not set yet when it began: what is there is of an earlier one.
    fn start_btf, start_raw("block_io_start", ctx) {
        // A zero that the compiler does not know: see `Request::waited`.
        start(ctx.pointer(0), black_box(0));
    }

    /// Into a queue, in most cases in the context of who submits it. Not every request is.
    fn insert_btf, insert_raw("block_rq_insert", ctx) {
        let request = argument(&ctx, &ARG_BLOCK_RQ_INSERT_REQUEST);
        start(request, made(request));
    }

    /// To the device.
    fn issue_btf, issue_raw("block_rq_issue", ctx) {
        issue(argument(&ctx, &ARG_BLOCK_RQ_ISSUE_REQUEST));
    }

    /// With the error and the bytes behind it.
    fn complete_btf, complete_raw("block_rq_complete", ctx) {
        complete(ctx.pointer(0), ctx.arg(1), ctx.arg(2));
    }

    /// Back into the queue.
    fn requeue_btf, requeue_raw("block_rq_requeue", ctx) {
        requeue(argument(&ctx, &ARG_BLOCK_RQ_REQUEUE_REQUEST));
    }

    /// Into another request.
    fn merge_btf, merge_raw("block_rq_merge", ctx) {
        joined(argument(&ctx, &ARG_BLOCK_RQ_MERGE_REQUEST));
    }

    /// A bio, to the end of a request.
    fn behind_btf, behind_raw("block_bio_backmerge", ctx) {
        merged(argument(&ctx, &ARG_BLOCK_BIO_BACKMERGE_BIO), |c| &mut c.merged_behind);
    }

    /// A bio, to the beginning of a request.
    fn before_btf, before_raw("block_bio_frontmerge", ctx) {
        merged(argument(&ctx, &ARG_BLOCK_BIO_FRONTMERGE_BIO), |c| &mut c.merged_before);
    }
}
