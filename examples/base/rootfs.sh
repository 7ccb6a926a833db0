#!/usr/bin/env bash
# Makes rootfs.tar, a minimal Debian for the examples' images, from the package mirror that this machine uses.
# usage: rootfs.sh DIRECTORY   (harmless when DIRECTORY/rootfs.tar is there)
set -eu
target=$1
[ -s "$target/rootfs.tar" ] && exit 0
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
rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb "$work"/rootfs/usr/share/doc "$work"/rootfs/usr/share/man
tar -C "$work/rootfs" --numeric-owner -cf "$target/rootfs.tar.new" .
mv "$target/rootfs.tar.new" "$target/rootfs.tar"
