//! What tools of this kind have had wrong about I/O, and the test that would notice it here.

use std::{collections::BTreeSet, env, process::Command};

use anyhow::{Result, ensure};

/// Where it is tested.
#[derive(Clone, Copy)]
enum Test {
    /// Here, by its path; with a module for its modes, if it has them.
    Kernel(&'static str),
    /// Beside the code: the file's text and the function.
    Unit(&'static str, &'static str),
}
use Test::{Kernel, Unit};

macro_rules! unit {
    ($file:literal, $name:literal) => {
        Unit(include_str!(concat!("../../", $file)), $name)
    };
}

/// What must hold, since once it did not, and its tests.
const DEFECTS: &[(&str, &[Test])] = &[
    // Block devices.
    (
        "reads and writes of a device are told apart by what the request asks for, at an offset that the kernel's types say, \
         and a write that flushes is a write",
        &[
            Kernel(
                "block::unusual::reads_and_writes_are_told_apart_whatever_else_is_asked_of_them",
            ),
            unit!("ebpf/abi/src/block.rs", "operations_have_the_kernels_numbers"),
        ],
    ),
    (
        "what is written back is the writer's, not the kernel thread's that happens to run",
        &[Kernel("io_stat::what_siblings_write_to_the_page_cache_is_what_each_is_charged_with")],
    ),
    (
        "a request is known by itself, so that one that ends in parts, or is put back, is one, and no entry of it is left",
        &[Kernel("block::unusual::a_request_that_ends_in_parts_is_one_and_leaves_nothing_behind")],
    ),
    (
        "how many requests a device has counts those of all tasks, before one of them ends",
        &[Kernel("block::what_a_device_has_is_in_flight")],
    ),
    (
        "a merge has its device, and is no request that has left it",
        &[Kernel("block::unusual::what_is_merged_has_its_device_and_was_never_in_it")],
    ),
    ("requests that fail are counted, by error", &[Kernel("block::errors_have_their_names")]),
    (
        "bytes, operations, flushes, discards and merges are what the kernel counts",
        &[Kernel("block::what_a_device_does_is_what_the_kernel_counts")],
    ),
    // System calls.
    (
        "failures are apart from successes, by error, and bytes are those that were returned",
        &[
            Kernel("syscalls::every_error_is_counted_by_its_number"),
            Kernel("syscalls::every_call_is_counted"),
        ],
    ),
    (
        "reading and writing is all calls that do, with vectors, at offsets and mapped",
        &[Kernel("calls::every_call_that_can_be_watched_is_counted")],
    ),
    (
        "what goes through io_uring is counted",
        &[
            Kernel("io_uring::every_request_is_counted_to_its_end"),
            Kernel("io_uring::every_submission_is_counted"),
        ],
    ),
    (
        "a call's number and the name of its event are the architecture's",
        &[unit!(
            "receiver/src/receivers/iomonitor/system_call.rs",
            "numbers_are_those_of_the_c_library"
        )],
    ),
    (
        "a thread that is killed inside a call leaves nothing behind",
        &[
            Kernel("syscalls::a_call_that_never_returns_is_none"),
            Kernel("volume::threads_that_are_killed_in_a_call_leave_nothing_behind"),
        ],
    ),
    (
        "a call is counted to its end where it began, wherever the thread is by then",
        &[Kernel("syscalls::a_call_belongs_to_the_cgroup_where_it_began")],
    ),
    (
        "counts of many CPUs at once are not lost",
        &[Kernel("syscalls::no_call_of_many_threads_is_lost")],
    ),
    ("a sum is exact however large it is", &[Kernel("syscalls::sums_are_exact_beyond_24_bits")]),
    // Histograms.
    (
        "a duration is in the bucket whose bounds it lies between, not in the one below",
        &[
            Kernel("latency::a_sleep_falls_into_its_bucket"),
            unit!("ebpf/abi/src/exponential.rs", "powers_of_two_of_a_second_end_their_bucket"),
            unit!("ebpf/abi/src/exponential.rs", "every_bound_of_the_u64_range_is_exact"),
        ],
    ),
    (
        "what is shown as at most a bound is cumulative",
        &[Kernel("latency::text_buckets_hold_what_the_exponential_ones_do")],
    ),
    // Advice.
    (
        "every advice has its name, its result and its bytes, those without a name as well",
        &[
            Kernel("fadvise::every_advice_is_counted_by_name_and_result"),
            Kernel("madvise::advice_is_counted_by_call_name_and_result"),
        ],
    ),
    ("advice of many threads is not lost", &[Kernel("fadvise::no_advice_of_many_threads_is_lost")]),
    ("what advice drops is in pages", &[Kernel("fadvise::what_advice_drops_is_counted")]),
    // The page cache.
    (
        "pages are counted, not events, each of which may be about many",
        &[
            Kernel("page_cache::pages_added_and_deleted_are_those_of_the_file"),
            Kernel("page_cache::lookups_are_the_pages_that_reads_ask_for"),
        ],
    ),
    (
        "what was read ahead in time is no miss, nor a hit",
        &[Kernel("cache::a_first_reading_has_no_hit_and_a_second_nothing_else")],
    ),
    (
        "misses are the pages that reads waited for",
        &[Kernel("cache::without_readahead_misses_are_the_pages_that_are_new")],
    ),
    ("a page that a fault adds is no miss of a read", &[Kernel("cache::what_faults_add_is_apart")]),
    (
        "a page that a write adds is no miss of a read",
        &[Kernel("cache::what_writes_add_is_no_miss")],
    ),
    (
        "a scan of more than memory holds has a hit ratio near 0, and none is above 1",
        &[Kernel("cache::a_scan_of_more_than_memory_holds_is_no_hit")],
    ),
    (
        "pages that somebody else deletes are counted for whom they were kept",
        &[Kernel("page_cache::what_others_delete_is_counted_for_the_owner")],
    ),
    ("what is made dirty is counted once", &[Kernel("dirty::pages_written_to_are_dirtied_once")]),
    ("what is written back is counted", &[Kernel("page_states::what_is_synced_is_written_back")]),
    // Memory.
    (
        "what reclaim scans and frees is a sum, of kswapd and of all others too, by who it was",
        &[Kernel("reclaim::what_a_memory_limit_reclaims_is_counted")],
    ),
    (
        "compaction is watched at an event that kernels have",
        &[Kernel("compaction::every_zone_that_is_compacted_is_counted")],
    ),
    (
        "swapping, of which no kernel has an event, is counted",
        &[
            Kernel("swap::what_the_host_swaps_is_what_the_kernel_counts"),
            Kernel("swap::what_a_cgroup_swaps_is_what_the_kernel_counts"),
            Kernel("swap::what_is_swapped_to_compressed_memory_is_what_the_kernel_counts"),
        ],
    ),
    (
        "killing for want of memory is watched at an event that kernels have",
        &[Kernel("kills::who_runs_out_of_memory_is_told")],
    ),
    (
        "a process ends once, however many threads it has, and with what ended it",
        &[Kernel("kills::who_is_killed_is_told"), Kernel("kills::who_runs_out_of_memory_is_told")],
    ),
    (
        "major faults are those that waited, for a file or for swap",
        &[
            Kernel("faults::faults_are_those_of_the_process"),
            Kernel("faults::what_comes_back_from_a_swap_file_was_waited_for"),
            Kernel("faults::what_comes_back_from_compressed_memory_was_waited_for"),
        ],
    ),
    (
        "what failed to open or to close is no descriptor opened or closed",
        &[Kernel("descriptors::descriptors_are_counted_by_kind")],
    ),
    // What attaches.
    (
        "an event that a kernel does not have takes nothing else along, and is no zero",
        &[
            Kernel("missing::the_rest_is_exact_without_a_tracepoint"),
            Kernel("lifecycle::a_forced_mode_holds_and_what_it_cannot_count_is_absent"),
        ],
    ),
    (
        "half a pair counts nothing, and what is attached in its place counts nothing twice",
        &[Kernel("missing::half_a_pair_counts_nothing_and_the_next_way_counts_once")],
    ),
    (
        "what has not happened is zero, not absent",
        &[Kernel("missing::what_has_not_happened_is_zero")],
    ),
    (
        "what is declared is shown once it has happened",
        &[Kernel("declared::every_metric_is_shown_when_what_it_counts_has_happened")],
    ),
    (
        "what is turned off is absent, not zero or unknown",
        &[Kernel("syscalls::what_is_turned_off_is_absent_and_the_rest_exact")],
    ),
    (
        "a kernel without types is counted by its records",
        &[Kernel("lifecycle::a_kernel_without_types_is_counted_by_its_records")],
    ),
    (
        "what the kernel did not count is said",
        &[Kernel("lifecycle::what_the_kernel_missed_is_shown")],
    ),
    (
        "events that are told one by one are counted in the kernel, whoever reads them or does not",
        &[Kernel("kills::events_that_nobody_asks_for_are_not_lost")],
    ),
    (
        "what is sampled says at which rate",
        &[Kernel("sampling::one_of_n_is_counted"), Kernel("sampling::chances_are_as_configured")],
    ),
    // Reading.
    (
        "reading takes nothing away, so that no count begins anew or gets lost between reading and clearing",
        &[
            Kernel("tiers::each_signal_is_read_at_its_interval_and_loses_nothing"),
            Kernel("otlp::every_point_equals_the_scrape"),
            Kernel("lifecycle::two_agents_count_the_same"),
        ],
    ),
    (
        "a window is the time of its readings, at multiples of its length if so configured",
        &[Kernel("tiers::readings_are_at_whole_multiples_of_their_interval_since_the_epoch")],
    ),
    (
        "who receives slowly loses nothing that was counted",
        &[Kernel("otlp::a_server_that_is_not_ready_loses_nothing")],
    ),
    (
        "a counter is one on its way out, with its start and to the nanosecond",
        &[Kernel("otlp::every_point_equals_the_scrape")],
    ),
    // The scope.
    ("a cgroup is all that is below it", &[Kernel("scope::the_scope_is_its_subtrees")]),
    (
        "criteria must all hold: a process of another pod is not counted for its name",
        &[
            Kernel("scope::what_fits_by_name_but_is_outside_is_not_counted"),
            Kernel("scope::processes_are_told_by_name_by_id_and_by_namespace"),
        ],
    ),
    (
        "more processes than a small table holds are counted, and while they are looked for again",
        &[Kernel("scope::looking_for_processes_again_leaves_no_gap")],
    ),
    (
        "a cgroup that ends and comes again is another, and is found",
        &[
            Kernel("scope::a_cgroup_that_comes_later_is_found_and_found_again"),
            Kernel("sidecar::a_target_that_restarts_is_found_again"),
        ],
    ),
    (
        "the pod is the process's own in every layout of every driver, and never the node's first",
        &[
            Kernel("sidecar::the_targets_container_is_found_in_every_layout"),
            Kernel("cgroups::a_sibling_is_found_from_inside_a_cgroup_namespace"),
            Kernel("cgroups::a_process_is_found_where_it_is"),
        ],
    ),
    // Groups and attributes.
    (
        "what a group has counted is not lost when it ends",
        &[Kernel("groups::processes_have_their_own"), Kernel("groups::cgroups_have_their_own")],
    ),
    (
        "more groups than there is room for are counted together",
        &[Kernel("groups::what_finds_no_place_is_in_the_overflow")],
    ),
    (
        "the memory of maps is bounded before they are made",
        &[Kernel("groups::maps_over_the_budget_are_refused_with_the_key_to_lower")],
    ),
    (
        "what has ended takes no memory",
        &[Kernel("volume::processes_that_come_and_go_leave_nothing_behind")],
    ),
    (
        "a number that the kernel uses again is not taken for who had it before",
        &[
            Kernel("cgroups::points_are_named_and_never_wrongly"),
            Kernel("cgroups::ids_lead_to_paths_and_never_to_the_wrong_one"),
        ],
    ),
    (
        "files of the kernel that are not there are no zeros",
        &[unit!(
            "receiver/src/receivers/iomonitor/swap.rs",
            "what_counts_no_swapping_is_named_once"
        )],
    ),
];

/// No name above is of a test that is no more.
#[test]
fn every_defect_has_its_test() -> Result<()> {
    let listed =
        Command::new(env::current_exe()?).args(["--list", "--format", "terse"]).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    // `block::errors_have_their_names::tp_btf: test`
    let tests: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .flat_map(|test| [Some(test), test.rsplit_once("::").map(|(case, _)| case)])
        .flatten()
        .collect();
    let mut defects = BTreeSet::new();
    for (defect, by) in DEFECTS {
        ensure!(defects.insert(defect) && !by.is_empty(), "{defect}: twice, or untested");
        for test in *by {
            let (name, there) = match test {
                Kernel(name) => (name, tests.contains(name)),
                Unit(file, name) => (name, file.contains(&format!("#[test]\n    fn {name}()"))),
            };
            ensure!(there, "{defect}: there is no test {name}");
        }
    }
    Ok(())
}
