#!/bb/busybox sh
# First process of a test machine. The host reads the lines that start with NODEWATCH-VM.
/bb/busybox --install -s /bb
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:/bb HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/null >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for place in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $place; done
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/netns
ip link set lo up

echo "NODEWATCH-VM release=$(uname -r)"
while read -r module; do
    insmod "/modules/$module.ko" || echo "NODEWATCH-VM module=$module refused"
done </modules/order
. /environment
while read -r name; do
    cd /tmp || exit 1
    # shellcheck disable=SC2046
    eval "/tests/$name $(cat /arguments)"
    echo "NODEWATCH-VM $name exit=$?"
done </programs
echo "NODEWATCH-VM done"
sync
poweroff -f
