#!/bin/sh
# All five parts of the job have left their file; the scheduled job leaves its own when the minute is full.
set -eu
url="http://127.0.0.1:${JOBS_PORT:-8086}"
fetch() {
    curl -sSf --retry "${2:-20}" --retry-all-errors --retry-delay 1 --max-time 10 "$url/$1"
}
for part in 1 2 3 4 5; do
    echo "part-$part counted $(fetch "part-$part")"
    [ "$(fetch "part-$part")" = 1000 ]
done
echo "ticked at $(fetch tick 70)"
