#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Random lifecycle and tool operations against a model while daemons are killed -9; then the usual look for leaks.
# usage: tests/chaos/run.sh [kills]     EW_CHAOS_SEED=n replays the choices of a run, EW_TEST_KEEP=1 keeps its state directory
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
export BUILD
suite=$root/deploy/dev/suite.sh

EW_STATE_DIR=$(mktemp -d /tmp/ew-chaos-XXXXXX)
EW_RUN_DIR=$EW_STATE_DIR/run
EW_IMAGE_DIR=${EW_IMAGE_DIR:-/var/cache/emergent-workspaces/images}
EW_CGROUP_PARENT=$(basename "$EW_STATE_DIR")
SERVER_ADDRESS=127.0.0.1
SERVER_PORT=0
STANDALONE_API_KEY=
WORKSPACE_MAX_CONCURRENT=30
LOG_LEVEL=${LOG_LEVEL:-info}
export EW_STATE_DIR EW_RUN_DIR EW_IMAGE_DIR EW_CGROUP_PARENT SERVER_ADDRESS SERVER_PORT STANDALONE_API_KEY WORKSPACE_MAX_CONCURRENT LOG_LEVEL
mkdir -p "$EW_IMAGE_DIR"

if ! command -v "${RUNSC_BIN:-runsc}" > /dev/null; then
    echo "SKIP: runsc is not installed"
    [ "${EW_MUST_WORK:-1}" = 0 ] && exit 0
    exit 1
fi

# shellcheck source=tests/leaks.sh
. "$root/tests/leaks.sh"
leaks_begin
# Ended by hand: sandboxes stay for a look, deploy/dev/suite.sh destroy ends them.
trap '"$suite" down > /dev/null 2>&1; echo "state and logs: $EW_STATE_DIR"; exit 130' INT TERM

if ! "$suite" up; then
    echo "0 passed, 1 failed"
    "$suite" down > /dev/null 2>&1
    exit 1
fi
EW_TEST_KEY=$(cat "$EW_STATE_DIR/api-key")
EW_TEST_BIN=$BUILD/bin
export EW_TEST_KEY EW_TEST_BIN
result=$EW_STATE_DIR/result.txt
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/tests/integration python3 "$root/tests/chaos/chaos.py" "${1:-300}" | tee "$result"
"$suite" up > /dev/null 2>&1 # whatever the driver left

passed=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$result" | tail -n 1)
failed=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$result" | tail -n 1)
passed=${passed:-0}
failed=${failed:-1}

leaks_end
leaks_result
