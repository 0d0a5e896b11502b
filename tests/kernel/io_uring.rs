//! Requests through io_uring, by operation and result.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use nix::{errno::Errno, libc};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, pipe},
    modes::hole,
    plan::{Call, Open, Plan, Step, Tally, ring},
    random,
    scrape::Scrape,
};

use crate::{in_each_mode, work};

in_each_mode!(["io_uring/submissions", "io_uring/completions"] every_request_is_counted_to_its_end);
in_each_mode!(["io_uring/submissions"] every_submission_is_counted);

/// How long a timeout is.
const WAIT: u64 = 5_000_000;

/// `IORING_OP_READV`.
const READV: i32 = 1;

/// What was done of an operation.
#[derive(Default)]
struct Truth {
    submitted: u64,
    timed: u64,
    told: Tally,
}

fn name(step: &Step) -> Result<&'static str> {
    let name = abi::io_uring::OPERATIONS.get((step.advice & 0xff) as usize);
    name.copied().context("an operation without a name")
}

/// Rings are turned off on some machines, and for containers.
fn usable() -> bool {
    let off = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    off.trim().is_empty() || off.trim() == "0"
}

fn every_request_is_counted_to_its_end(mode: Mode) -> Result<()> {
    let (scrape, truths) = requests(mode)?;
    for (operation, truth) in &truths {
        equal(&scrape, operation, truth)?;
    }
    submissions(&scrape, &truths)
}

fn every_submission_is_counted(mode: Mode) -> Result<()> {
    let (scrape, truths) = requests(mode)?;
    submissions(&scrape, &truths)
}

/// Makes requests of each kind, right and wrong.
fn requests(mode: Mode) -> Result<(Scrape, BTreeMap<&'static str, Truth>)> {
    ensure!(usable(), "io_uring is turned off (kernel.io_uring_disabled)");
    let mut rng = random::rng();
    let directory = file::directory()?;
    let data = file::cold(&directory, &mut rng, 1 << 20)?;
    let (pipe, _ends) = pipe(&directory)?;
    let files = vec![Open::Never, Open::Read(data.clone()), Open::Write(data), Open::Read(pipe)];
    let [never, reading, writing, pipe] = [0, 1, 2, 3];
    let step = |operation: i32, file: usize, size: usize| Step {
        advice: operation,
        ..Step::new(Call::Ring, file, size)
    };
    let mut size = || rng.usize(1..20_000);
    let mut steps = vec![
        step(0, never, 0),
        step(ring::WRONG, never, 0),
        step(READV, reading, size()).at(9_999),
        step(READV, never, size()),
        step(2, writing, size()).at(4_321),
        step(3, writing, 0),
        step(3, pipe, 0),
        step(11, never, 0).at(WAIT),
        step(22, reading, size()).at(1_234),
        step(22 | ring::ELSEWHERE, reading, size()).at(77_777),
        step(22, writing, size()),
        step(22, reading, 10).at(2 << 20),
        step(23, writing, size()).at(55),
        step(23, reading, size()),
        step(24, reading, 0),
    ];
    let kernel = fs::read_to_string("/proc/kallsyms")?;
    // Linux 5.17; requests for the attributes of files came a little later.
    if kernel.contains("io_setxattr") {
        steps.push(step(ring::SILENT, never, 0));
    }
    steps.iter_mut().for_each(|step| step.count = rng.u64(1..60));
    rng.shuffle(&mut steps);
    // Linux 5.18 has begun to look at a request's file when it comes to do it, and to say of which request a completion
    // is; before, one whose file is not open, or not for that, is refused like one that is wrong in itself.
    let late = hole("io_uring/completions", Mode::Auto)?.is_none();
    let refused = |step: &Step| {
        let wrong_file = [(READV, never), (22, writing), (23, reading)];
        step.advice & ring::WRONG != 0 || !late && wrong_file.contains(&(step.advice, step.file))
    };
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("io_uring", mode, &cgroup))?;
    let mut truths = BTreeMap::<_, Truth>::new();
    for step in steps {
        let plan = Plan { threads: 1, files: files.clone(), phases: vec![vec![step]] };
        let told = work(&plan, &cgroup)?.of(Call::Ring);
        ensure!(told.calls == step.count, "{step:?}: {told:?}");
        let truth = truths.entry(name(&step)?).or_default();
        if !refused(&step) {
            truth.submitted += told.calls;
        }
        if step.advice & (ring::WRONG | ring::SILENT) == 0 {
            truth.timed += told.calls;
        }
        if step.advice & ring::SILENT == 0 {
            truth.told.merge(told);
        }
    }
    Ok((agent.settled()?, truths))
}

fn submissions(scrape: &Scrape, truths: &BTreeMap<&'static str, Truth>) -> Result<()> {
    for (operation, truth) in truths {
        let label = [("ebpf_io_uring_operation", *operation)];
        let shown = scrape.count("ebpf_io_uring_submissions_total", &label)?;
        let made = truth.submitted;
        ensure!(shown == made, "{operation}: {shown} submissions shown, {made} made");
    }
    let (shown, made) = (
        scrape.sum("ebpf_io_uring_submissions_total", &[])?,
        truths.values().map(|truth| truth.submitted).sum::<u64>(),
    );
    ensure!(shown == made, "{shown} submissions shown, {made} made");
    Ok(())
}

fn equal(scrape: &Scrape, operation: &str, truth: &Truth) -> Result<()> {
    let label = [("ebpf_io_uring_operation", operation)];
    let told = &truth.told;
    let count = |name: &str| scrape.count(&format!("ebpf_io_uring_{name}"), &label);
    let shown = count("completions_total")?;
    ensure!(shown == told.calls, "{operation}: {shown} completions shown, {} told", told.calls);
    let moves = abi::io_uring::MOVE_BYTES.contains(&operation);
    ensure!(count("io_bytes_total").is_ok() == moves, "{operation} moves bytes or not");
    if moves {
        let shown = count("io_bytes_total")?;
        ensure!(shown == told.bytes, "{operation}: {shown} bytes shown, {} moved", told.bytes);
    }
    for (number, failed) in &told.errors {
        let errno = format!("{:?}", Errno::from_raw(*number));
        let labels = [label[0], ("error_type", &*errno)];
        let shown = scrape.count("ebpf_io_uring_errors_total", &labels)?;
        ensure!(shown == *failed, "{operation}: {shown} {errno} shown, {failed} met");
    }
    let (shown, failed) =
        (scrape.sum("ebpf_io_uring_errors_total", &label)?, told.errors.values().sum::<u64>());
    ensure!(shown == failed, "{operation}: {shown} errors shown, {failed} met");
    let shown = count("duration_seconds_count")?;
    ensure!(shown == truth.timed, "{operation}: {shown} durations shown, {} made", truth.timed);
    let seconds = scrape.one("ebpf_io_uring_duration_seconds_sum", &label)?.value;
    let most = told.nanos.iter().sum::<u64>() as f64 / 1e9;
    let waits = told.errors.get(&libc::ETIME).copied().unwrap_or(0);
    let least = (waits * WAIT) as f64 / 1e9;
    ensure!(seconds <= most, "{operation}: {seconds} s shown, {most} s for the caller");
    ensure!(seconds >= least, "{operation}: {seconds} s shown, {least} s waited for");
    Ok(())
}
