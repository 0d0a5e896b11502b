//! Requests through io_uring: submitted, completed, and the time in between.
//!
//! A request is known by its address, from its submission to its completion, which may be another thread's.
#![no_std]
#![no_main]

use abi::{
    errno, exponential,
    group::Group,
    io_uring::{
        Cell, Counter, MAX_REQUESTS, OCTAVE, OCTAVES, PLACES, Request, SEATS_BITS, UNNAMED, cell,
        error, place,
    },
    seat::Seat,
};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
    programs::TracePointContext,
};
use probes::{
    NO_PREALLOC, count, duration,
    field::{Address, Memory, checked, present, record},
    group,
    seats::Seats,
};

probes::program!();

probes::fields! {
    ARG_IO_URING_SUBMIT_REQ_IO_KIOCB,
    ARG_IO_URING_SUBMIT_SQE_IO_KIOCB,
    ARG_IO_URING_COMPLETE_IO_URING_CQE,
    OFFSET_IO_KIOCB_OPCODE,
    OFFSET_IO_KIOCB_FLAGS,
    OFFSET_IO_URING_CQE_RES,
    OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_REQ,
    OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_OPCODE,
    OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_FLAGS,
    OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_SQE_REQ,
    OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_SQE_OPCODE,
    OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_SQE_FLAGS,
    OFFSET_TRACE_EVENT_RAW_IO_URING_COMPLETE_REQ,
    OFFSET_TRACE_EVENT_RAW_IO_URING_COMPLETE_RES,
}

/// A request that completes without a word if it succeeds: `IOSQE_CQE_SKIP_SUCCESS_BIT` of
/// include/uapi/linux/io_uring.h, which is the kernel's own flag too.
const SKIPS: u32 = 1 << 6;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// Requests submitted, by [`place`].
    SUBMITTED, SUBMITTED_BY_GROUP, SUBMITTED_SEATS: [u64; PLACES]
}

probes::cells! {
    /// Completions by [`cell`].
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; OCTAVES as u32]
}

probes::cells! {
    /// Failures by [`error`].
    ERRORS, ERRORS_BY_GROUP, ERRORS_SEATS: [u64; errno::SLOTS]
}

#[map]
static SEATS: Array<Seat<Request>> = Array::with_max_entries(1 << SEATS_BITS, 0);

#[map]
static IN_FLIGHT: HashMap<u64, Request> = HashMap::with_max_entries(MAX_REQUESTS, NO_PREALLOC);

const REQUESTS: Seats<Request> = Seats { seats: &SEATS, bits: SEATS_BITS, others: &IN_FLIGHT };

#[inline(always)]
fn submitted(operation: impl FnOnce() -> u8) {
    let Some(group) = group::in_scope() else { return };
    if let Some(cell) = SUBMITTED.cell(group, place(operation())) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *cell += 1 };
    }
}

/// Whether what is submitted comes as the request that it is, as the first argument.
#[inline(always)]
fn by_request() -> bool {
    present(&ARG_IO_URING_SUBMIT_REQ_IO_KIOCB) || present(&ARG_IO_URING_SUBMIT_SQE_IO_KIOCB)
}

probes::raw_tracepoints! {
    /// `io_uring_submit_req(request)`; `io_uring_submit_sqe(request, force)` before Linux 6.5.
    fn submit_btf, submit_raw("io_uring_submit_req", ctx) {
        if by_request() {
            submitted(|| ctx.pointer(0).read(&OFFSET_IO_KIOCB_OPCODE));
        }
    }
}

probes::raw_tracepoints! {
    /// `io_uring_submit_sqe(ring, request, opcode, user_data, flags, …)`, before Linux 6.0. It does not attach where
    /// there are two arguments.
    fn submit_six_btf, submit_six_raw("io_uring_submit_sqe", ctx) {
        let operation: u64 = ctx.arg(2);
        submitted(|| operation as u8);
    }
}

probes::tracepoint! {
    /// See [`submit_btf`].
    fn submit_tp(ctx) {
        submitted(|| operation_of_record(&ctx));
    }
}

#[inline(always)]
fn operation_of_record(ctx: &TracePointContext) -> u8 {
    if present(&OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_OPCODE) {
        record(ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_OPCODE)
    } else {
        record(ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_SQE_OPCODE)
    }
}

/// A request begins, and will complete.
#[inline(always)]
fn begun(request: u64, operation: u8, flags: u32) {
    if flags & SKIPS != 0 {
        // What was followed at this address has ended in silence, and nobody knows how this will.
        REQUESTS.end(request, |request| request.began = 0);
        return;
    }
    // Of others it is known that they are nobody's when they complete.
    let (group, counted) = match group::in_scope() {
        Some(group) => (group, 1),
        None => (Group::HOST, 0),
    };
    let new = Request { group, began: duration::now(), place: place(operation), counted };
    if !REQUESTS.put(request, &new) && counted != 0 {
        count(&COUNTERS, Counter::InFlightFull as u32, 1);
    }
}

probes::raw_tracepoints! {
    /// See [`submit_btf`].
    fn begin_btf, begin_raw("io_uring_submit_req", ctx) {
        if by_request() {
            let request = ctx.pointer(0);
            let operation = request.read(&OFFSET_IO_KIOCB_OPCODE);
            begun(request.number(), operation, request.read(&OFFSET_IO_KIOCB_FLAGS));
        }
    }
}

probes::tracepoint! {
    /// See [`submit_btf`].
    fn begin_tp(ctx) {
        let (request, flags) = if present(&OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_REQ) {
            (
                record(&ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_REQ),
                record(&ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_REQ_FLAGS),
            )
        } else {
            (
                record(&ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_SQE_REQ),
                record(&ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_SUBMIT_SQE_FLAGS),
            )
        };
        begun(request, operation_of_record(&ctx), flags);
    }
}

/// A request completes, or something does that is none: then its address is 0.
#[inline(always)]
fn completed(request: u64, result: i32) {
    let known = match REQUESTS.get(request) {
        // SAFETY: nobody else has the request; the value is copied at once.
        Some(known) if unsafe { (*known).began } != 0 => Some(unsafe { *known }),
        _ => None,
    };
    let (group, place, nanos) = match known {
        Some(known) => {
            REQUESTS.end(request, |request| request.began = 0);
            if known.counted == 0 {
                return;
            }
            (known.group, known.place, duration::now().saturating_sub(known.began))
        }
        // It was refused before it was submitted, skips most completions, or was under way when this was attached.
        None => {
            let Some(group) = group::in_scope() else { return };
            let place = if request == 0 || !present(&OFFSET_IO_KIOCB_OPCODE) {
                UNNAMED
            } else {
                place(Address(request).read(&OFFSET_IO_KIOCB_OPCODE))
            };
            (group, place, 0)
        }
    };
    let slot = errno::slot(i64::from(result));
    if slot != 0 {
        let (entry, unplaced) = (error(place, slot), error(UNNAMED, slot));
        if let Some(cell) = ERRORS.sparse(group, entry, unplaced) {
            // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
            unsafe { *cell += 1 };
        }
    }
    // Not an `Option`: the compiler would copy its value where there is none, which the verifier refuses.
    let bucket = exponential::bucket_from_one(if nanos == 0 { 1 } else { nanos });
    let octave = (bucket / OCTAVE) as u32;
    let (entry, unplaced) = (cell(place, octave), cell(UNNAMED, octave));
    let cell = CELLS.sparse(group, entry, unplaced);
    let Some(cell) = cell else { return };
    // SAFETY: as above.
    let cell = unsafe { &mut *cell };
    cell.calls += 1;
    if slot == 0 {
        cell.bytes += result as u64;
    }
    if known.is_none() {
        return;
    }
    cell.nanos += nanos;
    if nanos == 0 {
        cell.zeros += 1;
    } else if let Some(bucket) = checked::<OCTAVE>(bucket % OCTAVE) {
        cell.buckets[bucket] += 1;
    }
}

probes::raw_tracepoints! {
    /// `io_uring_complete(ring, request, entry)`.
    fn complete_btf, complete_raw("io_uring_complete", ctx) {
        if present(&ARG_IO_URING_COMPLETE_IO_URING_CQE) {
            completed(ctx.arg(1), ctx.pointer(2).read(&OFFSET_IO_URING_CQE_RES));
        }
    }
}

probes::raw_tracepoints! {
    /// `io_uring_complete(ring, request, user_data, result, flags, extra1, extra2)`, before Linux 6.15.
    fn complete_seven_btf, complete_seven_raw("io_uring_complete", ctx) {
        seven(ctx.arg(1), ctx.arg(3), ctx.arg(6));
    }
}

#[inline(always)]
fn seven(request: u64, result: u64, last: u64) {
    // Where there is no seventh argument, the kernel refuses this, and so does not take another for the result.
    core::hint::black_box(last);
    completed(request, result as i32);
}

probes::tracepoint! {
    /// See [`complete_btf`].
    fn complete_tp(ctx) {
        completed(
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_COMPLETE_REQ),
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_IO_URING_COMPLETE_RES),
        );
    }
}
