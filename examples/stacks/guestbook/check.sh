#!/bin/sh
# A guest who signs is on the list.
set -eu
guest="guest $(date +%s.%N)"
curl -sSf --retry 20 --retry-all-errors --retry-delay 1 --max-time 10 --data-urlencode "name=$guest" \
    "http://127.0.0.1:${GUESTBOOK_PORT:-8087}/" | grep -F "<li>$guest</li>"
