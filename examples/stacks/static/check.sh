#!/bin/sh
# The page comes, and all three replicas take their turn.
set -eu
url="http://127.0.0.1:${STATIC_PORT:-8081}/"
curl -sSf --max-time 10 "$url" | grep "<h1>A static site</h1>"
replicas=$(for _ in $(seq 30); do
    curl -sSf --max-time 10 -o /dev/null -D - "$url" | grep -i "^x-served-by:"
done | sort -u | wc -l)
echo "$replicas replicas answered"
[ "$replicas" = 3 ]
