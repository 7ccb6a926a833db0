#!/bin/sh
# A note that was written is there, and still is when the database runs in a new container.
set -eu
url="http://127.0.0.1:${POSTGRES_PORT:-8083}/notes"
fetch() {
    curl -sSf --retry 20 --retry-all-errors --retry-delay 1 --max-time 10 "$@" "$url"
}
note="written $(date +%s.%N)"
fetch -H "Content-Type: text/plain" -d "$note" | grep -F "$note"
"${PYSWARM:-pyswarm}" service update --quiet --force postgres_db
fetch | grep -F "$note"
