#!/bin/sh
# Two visits one after the other: the second number is one higher, whichever replica counts.
set -eu
visit() {
    curl -sSf --retry 20 --retry-all-errors --retry-delay 1 --max-time 10 "http://127.0.0.1:${HITS_PORT:-8082}/"
}
number() {
    sed -n 's/^visit number \([0-9]*\), .*/\1/p'
}
first=$(visit | number)
second=$(visit | number)
echo "visits $first and $second"
[ "$second" = $((first + 1)) ]
