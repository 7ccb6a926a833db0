#!/usr/bin/env bash
# Prints the path of a program to compare with, and fetches it first if need be: the newest one of Debian's suites,
# unpacked into a cache of our own and not installed. Works without root.
# usage: get_oracle.sh docker-compose|docker
# The cache is $PYSWARM_TEST_CACHE, or ~/.cache/pyswarm-tests.
set -euo pipefail
program="${1:-docker-compose}"
case "$program" in
    docker-compose) package=docker-compose file=./usr/libexec/docker/cli-plugins/docker-compose version="version" ;;
    docker) package=docker-cli file=./usr/bin/docker version="--version" ;;
    *) echo "unknown program $program" >&2; exit 2 ;;
esac
cache="${PYSWARM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pyswarm-tests}/$program"
if [ -x "$cache/$program" ]; then
    echo "$cache/$program"
    exit 0
fi
for tool in apt-get dpkg-deb tar; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: $program comes as a Debian package" >&2; exit 1; }
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
(cd "$work" && apt-get "${options[@]}" download "$package" >&2)
dpkg-deb --fsys-tarfile "$work/$package"_*.deb | tar -xO "$file" >"$work/$program"
chmod +x "$work/$program"
"$work/$program" "$version" >&2
mv "$work/$program" "$cache/$program"
echo "$cache/$program"
