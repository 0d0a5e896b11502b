# Fathom as a static binary in an empty image.
#
#     docker build --tag fathom .
#     docker run --rm --network host --cap-drop ALL --cap-add BPF --cap-add PERFMON fathom
#
# runs the built-in quickstart: the running kernel's numbers on http://localhost:9464/metrics.
# Built where it is to run: on x86-64 or arm64.
#
# CAP_BPF loads programs and makes maps, CAP_PERFMON attaches them to tracepoints; nothing else is needed,
# neither root nor --privileged. An engine that answers «unknown capability» is older than these two: there,
# --cap-add SYS_ADMIN stands for both. A scope by cgroup needs the host's hierarchy:
# --cgroupns host --volume /sys/fs/cgroup:/sys/fs/cgroup:ro. `mode: tracepoint` needs tracefs, which only
# root may read: --cap-add DAC_READ_SEARCH --volume /sys/kernel/tracing:/sys/kernel/tracing:ro.

# Debian 12: its glibc has the name service modules for files and DNS inside libc.a, so that a static
# binary resolves names without any file of the image but /etc/resolv.conf.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The target is named, even though it is the host, so that the flags apply to the agent and not to the
# procedural macros, which the compiler has to load as shared libraries.
RUN target="$(rustc --print host-tuple)" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" \
    && cp "target/$target/release/fathom" /fathom

FROM scratch
# For exporters that speak TLS: the authorities that Debian trusts.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /fathom /fathom
ENTRYPOINT ["/fathom"]
