#!/bin/bash
# What a watched system call costs with Fathom and with bpftrace, and whether what they show is what was done.
#
# As root: tests/bench/beside.sh FATHOM [ROUNDS]
# Needs cc, chrt (util-linux), curl and bpftrace. In each round a thread with real-time priority, on the last CPU, reads
# one byte of a cached file 500,000 times, with nothing attached and with each in turn; the table has the medians.
set -euo pipefail

fathom=${1:?the binary of Fathom} rounds=${2:-15} calls=500000
directory=$(mktemp -d)
watcher=
# bpftrace does not always hear the first signal.
stop() {
    while [ -n "$watcher" ] && kill -TERM "$watcher" 2> /dev/null; do sleep 0.3; done
    [ -z "$watcher" ] || wait "$watcher" || true
    watcher=
}
trap 'stop; rm -rf "$directory"' EXIT
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
int main(int count, char **arguments) {
    // The median of parts is what undisturbed ones take.
    enum { PARTS = 25 };
    double took[PARTS];
    char byte;
    int file = open(arguments[1], O_RDONLY);
    long calls = atol(arguments[2]) / PARTS;
    for (int part = 0; part < PARTS; part++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (long i = 0; i < calls; i++)
            if (syscall(SYS_pread64, file, &byte, 1, 0) != 1) return 1;
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[part] = ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls;
    }
    qsort(took, PARTS, sizeof *took, ascending);
    printf("%.1f\n", took[PARTS / 2]);
}
C
cc -O2 -static -o reads-beside reads.c
printf x > file

# Only the loop's own calls: a static program makes no pread64 but those.
configure() {
    cat > "$1.yaml" <<YAML
receivers:
  iomonitor:
    collection_interval: 200ms
    initial_delay: 0s
    mode: $2
    pressure: {enabled: false}
    swap: {enabled: false}
    scope: {comm: {exact: [reads-beside]}}
    signals:
      syscalls: {calls: [pread64]}
$(for signal in page_cache dirty fadvise reclaim compaction kills io_uring block; do echo "      $signal: {enabled: false}"; done)
    metrics: {ebpf.syscall.duration: {enabled: $3}}
exporters:
  prometheus: {endpoint: "127.0.0.1:19464"}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [iomonitor], exporters: [prometheus]}}
YAML
}
configure counted auto false
configure timed auto true
configure timed-one syscall_tracepoint true

cat > count.bt <<'BT'
tracepoint:syscalls:sys_exit_pread64 /comm == "reads-beside"/ { @n = count(); }
BT
cat > hist.bt <<'BT'
tracepoint:syscalls:sys_enter_pread64 /comm == "reads-beside"/ { @s[tid] = nsecs; }
tracepoint:syscalls:sys_exit_pread64 /@s[tid]/ { @h = hist(nsecs - @s[tid]); @n = count(); delete(@s[tid]); }
BT

scrape() { curl -sf http://127.0.0.1:19464/metrics || true; }
shown() { scrape | awk '/^ebpf_syscall_calls_total.*pread64/ { n = $NF } END { printf "%d", n }'; }

# Waits until what it is told is there.
await() { for _ in $(seq 300); do "$@" > /dev/null && return; sleep 0.1; done; echo "waited in vain: $*" >&2; exit 1; }
serving() { scrape | grep -q ebpf_probe_status; }
attached() { grep -q attached_probes out; }

reads() { chrt -f 1 taskset -c $(($(nproc) - 1)) ./reads-beside file "$calls"; }

round() {
    case $1 in
    nothing) reads >> "$1.ns" ;;
    fathom-*)
        "$fathom" --config "${1#fathom-}.yaml" 2> log & watcher=$!
        await serving
        reads >> "$1.ns"
        sleep 1
        shown >> "$1.shown"; echo >> "$1.shown"
        stop ;;
    bpftrace-*)
        bpftrace -f json -o out "${1#bpftrace-}.bt" 2> log & watcher=$!
        await attached
        sleep 1
        reads >> "$1.ns"
        stop
        grep -o '"@n": [0-9]*' out | cut -d' ' -f2 >> "$1.shown" ;;
    esac
}

kinds="nothing fathom-counted fathom-timed fathom-timed-one bpftrace-count bpftrace-hist"
for _ in $(seq "$rounds"); do for kind in $kinds; do : > out; round "$kind"; done; done

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
base=$(median nothing.ns)
echo "| | ns a call | added | shown of $calls, in $rounds rounds |"
echo "|---|---|---|---|"
for kind in $kinds; do
    ns=$(median "$kind.ns")
    shown=all
    [ "$kind" = nothing ] && shown=
    if [ -n "$shown" ] && grep -qvx "$calls" "$kind.shown"; then shown=$(sort -n "$kind.shown" | tr '\n' ' '); fi
    awk -v k="$kind" -v n="$ns" -v b="$base" -v s="$shown" 'BEGIN { printf "| %s | %.0f | %.0f | %s |\n", k, n, n - b, s }'
done
