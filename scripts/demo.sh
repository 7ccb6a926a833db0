#!/usr/bin/env bash
# The demo: a one-node cluster, the shop of examples/stacks, one request through its published port.
#   demo.sh up | down
# Environment: SHOP_PORT; PYSWARM_STATE_DIR and PYSWARM_RUN_DIR as for pyswarm; PYSWARM_INIT_FLAGS, more flags for
# `pyswarm init`; DEMO_CACHE, where the base image's root file system is kept until `down`.
set -eu
cd "$(dirname "$0")/.."
pyswarm=.venv/bin/pyswarm
port=${SHOP_PORT:-8080}
cache=${DEMO_CACHE:-build/examples}

up() {
    if ! $pyswarm node ls > /dev/null 2>&1; then
        echo "== pyswarm init"
        # shellcheck disable=SC2086  # several flags
        $pyswarm init ${PYSWARM_INIT_FLAGS:-}
    fi
    if ! $pyswarm image inspect debian-base > /dev/null 2>&1; then
        echo "== building the base image (a minimal Debian, once; a minute or two)"
        examples/base/rootfs.sh $cache/base
        cp examples/base/Dockerfile $cache/base/
        $pyswarm image build -q -t debian-base $cache/base
    fi
    echo "== pyswarm stack deploy -c examples/stacks/shop/compose.yml shop"
    $pyswarm stack deploy --timeout 240s -c examples/stacks/shop/compose.yml shop
    echo "== curl localhost:$port/api/products"
    curl -sS --retry 10 --retry-all-errors --retry-delay 1 --max-time 10 "http://localhost:$port/api/products"
    cat <<TEXT

The shop runs at http://localhost:$port/. Now try:
  $pyswarm stack services shop
  $pyswarm service ps shop_api
  $pyswarm service scale shop_web=10
  $pyswarm service logs -f shop_api
  $pyswarm exec shop_api.1 python3 --version
  make demo-down
TEXT
}

down() {
    if [ -x $pyswarm ]; then
        $pyswarm leave --force --purge
    fi
    rm -rf $cache
}

"$1"
