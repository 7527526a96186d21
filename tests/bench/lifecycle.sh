#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Measures stop, resume, snapshot and fork of a suite of its own against bare runsc in the same run, with 0 and 100 MB of dirty memory.
# Needs root and runsc. BENCH_ROUNDS (default 5) measurements of each.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
export BUILD
EW_STATE_DIR=$(mktemp -d /tmp/ew-bench-XXXXXX)
EW_RUN_DIR=$EW_STATE_DIR/run
EW_CGROUP_PARENT=$(basename "$EW_STATE_DIR")
EW_IMAGE_DIR=${EW_IMAGE_DIR:-/var/cache/emergent-workspaces/images}
SERVER_ADDRESS=127.0.0.1
SERVER_PORT=0
STANDALONE_API_KEY=
LOG_LEVEL=warn
WORKSPACE_MAX_CONCURRENT=200
export EW_STATE_DIR EW_RUN_DIR EW_CGROUP_PARENT EW_IMAGE_DIR SERVER_ADDRESS SERVER_PORT STANDALONE_API_KEY LOG_LEVEL WORKSPACE_MAX_CONCURRENT
suite=$root/deploy/dev/suite.sh
trap '"$suite" destroy >/dev/null 2>&1' EXIT
trap 'exit 130' INT TERM

"$suite" up >&2
EW_TEST_URL=http://127.0.0.1:$(cat "$EW_STATE_DIR/gateway.port")
EW_TEST_KEY=$(cat "$EW_STATE_DIR/api-key")
export EW_TEST_URL EW_TEST_KEY
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/tests/integration python3 "$root/tests/bench/lifecycle.py"
