#!/bin/busybox sh
# First process of a test guest. Its command and variables are in /etc/snug-command.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

if [ "$1" != in-tmpfs ]; then
    # A container runtime cannot pivot away from the initial ramfs: move to a tmpfs first.
    /bin/busybox mkdir -p /newroot
    /bin/busybox mount -t tmpfs -o mode=755 tmpfs /newroot
    for entry in /*; do
        [ "$entry" = /newroot ] || /bin/busybox cp -a "$entry" /newroot/
    done
    exec /bin/busybox switch_root /newroot /init in-tmpfs
fi

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /etc
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
# busybox adds its applets where no program of that name exists.
/bin/busybox --install -s /bin 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
cgroups=$(cat /etc/snug-cgroups)
if [ "$cgroups" = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controllers in cpu,cpuacct cpuset memory pids blkio devices freezer; do
        mkdir "/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers"
    done
fi
if [ "$cgroups" = hybrid ]; then
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
if [ "$cgroups" = v2 ]; then
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
fi
ip link set lo up
for module in /modules/*; do
    insmod "$module"
done

echo "kernel $(uname -r), $(nproc) CPUs, cgroup $cgroups"
echo "@@SNUG-BEGIN"
sh /etc/snug-command
status=$?
echo
echo "@@SNUG-RESULT $status"
sync
poweroff -f
