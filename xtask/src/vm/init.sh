#!/bin/sh
# The first process of a machine of `cargo xtask vm`: makes it a machine, unpacks the disk with the programs, and runs
# the script that is on it. The kernel has a console of its own; what counts goes to $terminal.
export PATH=/test/bin:/test/bin/deps:/bin HOME=/tmp RUST_BACKTRACE=0
/bin/busybox --install -s /bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +cpu +io +memory +pids >/sys/fs/cgroup/cgroup.subtree_control
chmod 1777 /tmp
# As many files as systemd allows.
ulimit -n 524288
echo "127.0.0.1 localhost" >/etc/hosts
ifconfig lo 127.0.0.1 up

exec >"/dev/$terminal" 2>&1 </dev/null
# Lines end as the programs end them.
stty -F "/dev/$terminal" -opost
for module in /modules/*.ko; do
	insmod "$module" || echo "insmod $module failed"
done
mount -t "$file_system" /dev/vda /test || echo "mount $file_system failed"
cd /test && cpio -i -d -m <"/dev/vdb" 2>/dev/null
sh /test/run
echo "@@@ ended $?"
sync
# The machine is told not to come back.
reboot -f
