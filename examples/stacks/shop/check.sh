#!/bin/sh
# The products that the migration put into the store come through web front end and API; both APIs take their turn.
set -eu
url="http://127.0.0.1:${SHOP_PORT:-8080}/api/products"
fetch() {
    curl -sSf --retry 20 --retry-all-errors --retry-delay 1 --max-time 10 "$url"
}
fetch | grep '"name": "Blue cup"'
apis=$(for _ in $(seq 20); do fetch | grep -o '"served_by": "[^"]*"'; done | sort -u | wc -l)
echo "$apis APIs answered"
[ "$apis" = 2 ]
