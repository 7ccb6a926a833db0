#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that a pyswarm node needs; `--dev` adds what tests and examples use.
# Does nothing (and asks no mirror) when all are there.
set -eu
packages=(etcd-server runc conmon buildah nftables libnftables1 iproute2 catatonit
    golang-github-containers-common python3 python3-venv mount ca-certificates)
examples=(debootstrap curl)
dev=(busybox-static debian-archive-keyring docker-registry e2fsprogs faketime git make systemd)
case "${1:-}" in
    --dev) packages+=("${examples[@]}" "${dev[@]}") ;;
    --demo) packages+=("${examples[@]}") ;;
esac
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing: ${missing[*]}; run this again as root" >&2
    exit 1
fi
echo "installing ${missing[*]}"
# A package that starts a service of its own at once would take etcd's and the registry's ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /tmp/pyswarm-apt.log 2>&1 \
    || { tail -n 20 /tmp/pyswarm-apt.log >&2; exit 1; }
