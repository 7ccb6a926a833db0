#!/bin/bash
# Boots systemd as the first process of namespaces of its own: a machine whose root is an overlay over this one's,
# whose /var/lib/pyswarm is a real directory, and whose network has nothing but a loopback. It is process 1 of a
# fresh pid namespace, in fresh mount, network, IPC, host name and cgroup namespaces, when it starts.
#   systemd_boot.sh DIRECTORY PATH...     DIRECTORY: root/, upper/, work/, state/; PATH: shown as they are
set -eu
directory=$1
root=$directory/root
shift
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
for path in "$@"; do
    mkdir -p "$root$path"
    mount --bind "$path" "$root$path"
done
mkdir -p "$root/var/lib/pyswarm"
mount --bind "$directory/state" "$root/var/lib/pyswarm"

# The hierarchies that the machine has, each seen from the cgroup that this process was put into.
groups=$root/sys/fs/cgroup
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
    mount -t cgroup2 cgroup2 "$groups"
else
    mount -t tmpfs tmpfs "$groups"
    while read -r _ where type options _; do
        case $type in cgroup | cgroup2) ;; *) continue ;; esac
        case $where in /sys/fs/cgroup/*) ;; *) continue ;; esac
        name=${where##*/}
        mkdir "$groups/$name"
        if [ "$type" = cgroup2 ]; then
            mount -t cgroup2 cgroup2 "$groups/$name"
        elif [ "$name" = systemd ]; then
            mount -t cgroup -o none,name=systemd cgroup "$groups/$name"
        else
            mount -t cgroup -o "$name" cgroup "$groups/$name"
        fi
    done < /proc/mounts
fi

# Of the services that happen to be installed here none is wanted, and of systemd's own those that a machine without
# hardware needs.
units=$root/etc/systemd/system
if [ ! -e "$directory/booted" ]; then
    rm -rf "$units"/*.wants
    ln -sfn /lib/systemd/system/multi-user.target "$units/default.target"
    for unit in systemd-udevd systemd-udev-trigger systemd-resolved systemd-networkd systemd-timesyncd systemd-logind \
        systemd-tmpfiles-setup systemd-tmpfiles-clean console-getty getty@tty1; do
        ln -sfn /dev/null "$units/$unit.service"
    done
    for unit in systemd-udevd-control systemd-udevd-kernel docker containerd; do
        ln -sfn /dev/null "$units/$unit.socket"
    done
    : > "$root/etc/machine-id"
    : > "$directory/booted"
fi
ip link set lo up

cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
exec env -i container=pyswarm-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=console --show-status=0
