#!/bin/sh
# Three votes for cats: the result grows by three, once the worker has moved them.
set -eu
vote="http://127.0.0.1:${VOTING_PORT:-8084}/"
result="http://127.0.0.1:${VOTING_RESULT_PORT:-8085}/"
fetch() {
    curl -sSf --retry 20 --retry-all-errors --retry-delay 1 --max-time 10 "$@"
}
cats() {
    fetch "$result" | sed -n 's/.*"cats": *\([0-9]*\).*/\1/p' | grep . || echo 0
}
before=$(cats)
for _ in 1 2 3; do
    fetch -d vote=cats "$vote" | grep "voted for cats"
done
for _ in $(seq 100); do
    after=$(cats)
    [ "$after" -ge $((before + 3)) ] && break
    sleep 0.1
done
echo "cats: $before before, $after after three votes"
[ "$after" = $((before + 3)) ]
