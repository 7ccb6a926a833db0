#!/usr/bin/env bash
# Prints the path of a docker-compose program to compare with, and fetches it first if need be: the newest one
# of Debian's suites, unpacked into a cache of our own and not installed. Works without root.
# The cache is $PYSWARM_TEST_CACHE, or ~/.cache/pyswarm-tests.
set -euo pipefail
cache="${PYSWARM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pyswarm-tests}/docker-compose"
if [ -x "$cache/docker-compose" ]; then
    echo "$cache/docker-compose"
    exit 0
fi
for program in apt-get dpkg-deb tar; do
    command -v "$program" >/dev/null || { echo "$program is missing: the oracle comes as a Debian package" >&2; exit 1; }
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || { echo "$keyring is missing: apt-get install debian-archive-keyring" >&2; exit 1; }
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null \
    | grep -oE 'https?://[^ ]+/debian/?([[:space:]]|$)' | head -1 | tr -d '[:space:]' || true)
mirror="${mirror:-http://deb.debian.org/debian}"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=$keyring] $mirror sid main" >"$work/sources.list"
options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
apt-get "${options[@]}" update >&2
(cd "$work" && apt-get "${options[@]}" download docker-compose >&2)
dpkg-deb --fsys-tarfile "$work"/docker-compose_*.deb \
    | tar -xO ./usr/libexec/docker/cli-plugins/docker-compose >"$work/docker-compose"
chmod +x "$work/docker-compose"
"$work/docker-compose" version >&2
mv "$work/docker-compose" "$cache/docker-compose"
echo "$cache/docker-compose"
