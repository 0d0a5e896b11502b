#!/bin/bash
# What a watched system call, and a watched request to a block device, cost with Fathom, with bpftrace and with
# biolatency, and whether what they show is what was done.
#
# As root: tests/bench/beside.sh FATHOM [ROUNDS [calls|block]]
# Needs cc, chrt and losetup (util-linux) and curl. Of bpftrace and biolatency (Debian's libbpf-tools; that of
# bpfcc-tools wants the kernel's headers), what is not installed is left out. In each round a thread with real-time
# priority, on the last CPU, reads one byte of a cached file 500,000 times, or 4 KiB of a loop device, past the page cache,
# 20,000 times, with nothing attached and with each in turn; the tables have the medians.
set -euo pipefail

fathom=$(realpath "${1:?the binary of Fathom}") rounds=${2:-15} tables=${3:-calls block}
directory=$(mktemp -d)
watcher= device= cgroup=
# bpftrace does not always hear the first signal.
stop() {
    while [ -n "$watcher" ] && kill -TERM "$watcher" 2> /dev/null; do sleep 0.3; done
    [ -z "$watcher" ] || wait "$watcher" || true
    watcher=
}
clean() {
    stop
    [ -z "$device" ] || losetup -d "$device"
    [ -z "$cgroup" ] || rmdir "$cgroup"
    rm -rf "$directory"
}
trap clean EXIT
cd "$directory"

cat > reads.c <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
// FILE CALLS BYTES: whole pages are read past the page cache, one after the other of the first 256.
int main(int count, char **arguments) {
    // The median of parts is what undisturbed ones take; where another thread has to answer, which has no priority, the
    // tenth percentile is.
    enum { PARTS = 200, PAGE = 4096 };
    double took[PARTS];
    static _Alignas(PAGE) char buffer[PAGE];
    long calls = atol(arguments[2]) / PARTS, bytes = atol(arguments[3]);
    int pages = bytes == PAGE;
    int file = open(arguments[1], O_RDONLY | (pages ? O_DIRECT : 0));
    for (int part = 0; part < PARTS; part++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (long i = 0; i < calls; i++)
            if (syscall(SYS_pread64, file, buffer, bytes, pages ? i % 256 * PAGE : 0) != bytes) return 1;
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[part] = ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls;
    }
    qsort(took, PARTS, sizeof *took, ascending);
    printf("%.1f\n", took[PARTS / (pages ? 10 : 2)]);
}
C
cc -O2 -static -o reads-beside reads.c
printf x > file

hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
cgroup=$hierarchy/fathom-beside-$$
mkdir "$cgroup"

# NAME MODE SIGNAL SCOPE GROUPS SECTION METRICS: one signal alone.
configure() {
    cat > "$1.yaml" <<YAML
receivers:
  iomonitor:
    collection_interval: 200ms
    initial_delay: 0s
    mode: $2
    pressure: {enabled: false}
    swap: {enabled: false}
    scope: $4
    group_by: $5
    signals:
      $3: $6
$(for signal in syscalls page_cache dirty fadvise reclaim compaction kills io_uring block; do
    [ "$signal" = "$3" ] || echo "      $signal: {enabled: false}"
done)
    metrics: $7
exporters:
  prometheus: {endpoint: "127.0.0.1:19464"}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [iomonitor], exporters: [prometheus]}}
YAML
}
# Only the loop's own calls: a static program makes no pread64 but those.
calls='{comm: {exact: [reads-beside]}}'
configure counted auto syscalls "$calls" host '{calls: [pread64]}' '{ebpf.syscall.duration: {enabled: false}}'
configure timed auto syscalls "$calls" host '{calls: [pread64]}' '{}'
configure timed-one syscall_tracepoint syscalls "$calls" host '{calls: [pread64]}' '{}'
configure block auto block '{}' host '{enabled: true}' '{}'
configure block-cgroup auto block "{cgroups: [$cgroup]}" cgroup '{enabled: true}' '{}'

cat > count.bt <<'BT'
tracepoint:syscalls:sys_exit_pread64 /comm == "reads-beside"/ { @n = count(); }
BT
cat > hist.bt <<'BT'
tracepoint:syscalls:sys_enter_pread64 /comm == "reads-beside"/ { @s[tid] = nsecs; }
tracepoint:syscalls:sys_exit_pread64 /@s[tid]/ { @h = hist(nsecs - @s[tid]); @n = count(); delete(@s[tid]); }
BT
cat > block.bt <<'BT'
tracepoint:block:block_rq_issue { @s[args->dev, args->sector] = nsecs; }
tracepoint:block:block_rq_complete /@s[args->dev, args->sector]/ {
    @h[args->dev] = hist(nsecs - @s[args->dev, args->sector]);
    @n[args->dev] = count();
    delete(@s[args->dev, args->sector]);
}
BT

scrape() { curl -sf http://127.0.0.1:19464/metrics || true; }
of_fathom() {
    local series='^ebpf_syscall_calls_total.*pread64'
    [ "$table" = calls ] || series="^ebpf_block_operations_total.*\"${device#/dev/}\""
    # What it missed or had no room for it says: of all devices, at either end.
    scrape | awk -v series="$series" -v events="$events" '
        $0 ~ series { n += $NF } /^ebpf_probe_(missed|dropped)_total/ { lost += $NF }
        END { printf n == events ? "%d\n" : "%d (lost, by its own account: %d)\n", n, lost }'
}
of_bpftrace() {
    local key=@n
    [ "$table" = calls ] || key=$((0x$(stat -c %t "$device") << 20 | 0x$(stat -c %T "$device")))
    grep -o "\"$key\": [0-9]*" out | cut -d' ' -f2 | grep . || echo 0
}
of_biolatency() {
    awk -v device="${device#/dev/}" '/^disk/ { of = $3 == device } of && $2 == "->" { n += $5 } END { printf "%d\n", n }' out
}

# Waits until what it is told is there.
await() { for _ in $(seq 300); do "$@" > /dev/null && return; sleep 0.1; done; echo "waited in vain: $*" >&2; exit 1; }
serving() { scrape | grep -q ebpf_probe_status; }
attached() { grep -q attached_probes out; }

tracing() { grep -q Tracing out; }

# It is in the cgroup whoever watches.
reads() {
    local of=(file "$events" 1)
    [ "$table" = calls ] || of=("$device" "$events" 4096)
    sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$cgroup" \
        chrt -f 1 taskset -c $(($(nproc) - 1)) ./reads-beside "${of[@]}" >> "$table-$1.ns"
}

round() {
    case $1 in
    nothing) reads "$1" ;;
    fathom-*)
        "$fathom" --config "${1#fathom-}.yaml" 2> log & watcher=$!
        await serving
        reads "$1"
        sleep 1
        of_fathom >> "$table-$1.shown"
        stop ;;
    bpftrace-*)
        bpftrace -f json -o out "${1#bpftrace-}.bt" > log 2>&1 & watcher=$!
        await attached
        sleep 1
        reads "$1"
        stop
        of_bpftrace >> "$table-$1.shown" ;;
    biolatency*)
        local scope=()
        [ "$1" = biolatency ] || scope=(-c "$cgroup")
        stdbuf -oL biolatency -D "${scope[@]}" > out 2> log & watcher=$!
        await tracing
        sleep 1
        reads "$1"
        kill -INT "$watcher"
        wait "$watcher" || true
        watcher=
        of_biolatency >> "$table-$1.shown" ;;
    esac
}

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# What of it can be had: the tool's name is what comes before the first dash.
installed() {
    for kind in "$@"; do
        local tool=${kind%%-*}
        case $tool in
        nothing | fathom) echo "$kind" ;;
        *) if command -v "$tool" > /dev/null; then echo "$kind"; else echo "left out, not installed: $kind" >&2; fi ;;
        esac
    done
}

for table in $tables; do
    case $table in
    calls)
        events=500000
        kinds="nothing fathom-counted fathom-timed fathom-timed-one bpftrace-count bpftrace-hist" ;;
    block)
        events=20000
        kinds="nothing fathom-block fathom-block-cgroup bpftrace-block biolatency biolatency-cgroup"
        # Not sparse, and in the page cache: no other device has to do with it.
        head -c 1M /dev/zero > content
        sync content
        device=$(losetup --find --show content) ;;
    *) echo "no table called $table" >&2; exit 1 ;;
    esac
    kinds=$(installed $kinds)
    for _ in $(seq "$rounds"); do for kind in $kinds; do : > out; round "$kind"; done; done
    base=$(median "$table-nothing.ns")
    echo "| | ns a read | added | shown of $events, in $rounds rounds |"
    echo "|---|---|---|---|"
    for kind in $kinds; do
        ns=$(median "$table-$kind.ns")
        shown=all
        [ "$kind" = nothing ] && shown=
        if [ -n "$shown" ] && grep -qvx "$events" "$table-$kind.shown"; then
            shown=$(sort -n "$table-$kind.shown" | tr '\n' ' ')
        fi
        awk -v k="$kind" -v n="$ns" -v b="$base" -v s="$shown" 'BEGIN { printf "| %s | %.0f | %.0f | %s |\n", k, n, n - b, s }'
    done
    echo
done
