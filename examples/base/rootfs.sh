#!/usr/bin/env bash
# Makes rootfs.tar, a minimal Debian for the examples' images, from the package mirror that this machine uses.
# usage: rootfs.sh DIRECTORY   (harmless when DIRECTORY/rootfs.tar is there and no older than this script)
set -eu
target=$1
[ "$target/rootfs.tar" -nt "$0" ] && exit 0
mkdir -p "$target"
. /etc/os-release
case "$ID" in
    ubuntu) script=$VERSION_CODENAME; default=http://archive.ubuntu.com/ubuntu ;;
    *) script=${VERSION_CODENAME:-stable}; default=http://deb.debian.org/debian ;;
esac
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null \
    | grep -E '^(URIs:|deb )' | grep -oE 'https?://[^ ]+' | grep -E '/(debian|ubuntu)/?$' | head -n 1 || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase "$script" "$work/rootfs" "${mirror:-$default}" > "$work/log" 2>&1 \
    || { tail -n 5 "$work/log" >&2; exit 1; }
# A build that is broken off is started over, so dpkg need not wait for the disk; nobody reads manuals in an image.
cat > "$work/rootfs/etc/dpkg/dpkg.cfg.d/image" <<CONFIG
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
CONFIG
rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb "$work"/rootfs/usr/share/doc "$work"/rootfs/usr/share/man \
    "$work"/rootfs/usr/share/locale
tar -C "$work/rootfs" --numeric-owner -cf "$target/rootfs.tar.new" .
mv "$target/rootfs.tar.new" "$target/rootfs.tar"
