#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts a suite of its own on a free port with a fresh state directory, runs the integration tests, stops it, and looks for what was left.
# usage: tests/integration/run.sh [name …]     EW_TEST_PROVIDER=gvisor, EW_TEST_KEEP=1 keeps the state directory for a look,
#        EW_TEST_DATABASE=postgres runs it on a PostgreSQL server of its own (sqlite),
#        EW_TEST_BACKEND=docker on a Docker daemon of its own with gVisor, docker-plain without (runsc)
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
export BUILD
suite=$root/deploy/dev/suite.sh

EW_STATE_DIR=$(mktemp -d /tmp/ew-test-XXXXXX)
EW_RUN_DIR=$EW_STATE_DIR/run
EW_IMAGE_DIR=${EW_IMAGE_DIR:-/var/cache/emergent-workspaces/images}
EW_CGROUP_PARENT=$(basename "$EW_STATE_DIR")
SERVER_ADDRESS=127.0.0.1
SERVER_PORT=0
STANDALONE_API_KEY=
WORKSPACE_MAX_CONCURRENT=${WORKSPACE_MAX_CONCURRENT:-40}
LOG_LEVEL=${LOG_LEVEL:-info}
export EW_STATE_DIR EW_RUN_DIR EW_IMAGE_DIR EW_CGROUP_PARENT SERVER_ADDRESS SERVER_PORT STANDALONE_API_KEY WORKSPACE_MAX_CONCURRENT LOG_LEVEL
mkdir -p "$EW_IMAGE_DIR"

if ! command -v "${RUNSC_BIN:-runsc}" > /dev/null && [ "${EW_TEST_PROVIDER:-gvisor}" = gvisor ]; then
    echo "SKIP: runsc is not installed"
    [ "${EW_MUST_WORK:-1}" = 0 ] && exit 0
    exit 1
fi

DATABASE_URL=
EW_TEST_DATABASE=${EW_TEST_DATABASE:-sqlite}
EW_TEST_DATABASE_DIR=
if [ "$EW_TEST_DATABASE" = postgres ]; then
    EW_TEST_DATABASE_DIR=$(mktemp -d /tmp/ew-test-db-XXXXXX)
    "$root/tests/integration/postgres.sh" start "$EW_TEST_DATABASE_DIR"
    code=$?
    if [ "$code" -ne 0 ]; then
        rm -rf --one-file-system "$EW_TEST_DATABASE_DIR" "$EW_STATE_DIR"
        [ "$code" -eq 3 ] && [ "${EW_MUST_WORK:-1}" = 0 ] && exit 0
        echo "0 passed, 1 failed"
        exit 1
    fi
    DATABASE_URL=$(cat "$EW_TEST_DATABASE_DIR/url")
fi
export DATABASE_URL EW_TEST_DATABASE EW_TEST_DATABASE_DIR

EW_TEST_BACKEND=${EW_TEST_BACKEND:-runsc}
EW_TEST_DOCKER_DIR=
GVISORD_BACKEND=runsc
case $EW_TEST_BACKEND in docker*)
    EW_TEST_DOCKER_DIR=$(mktemp -d /tmp/ew-test-docker-XXXXXX)
    "$root/tests/integration/docker.sh" start "$EW_TEST_DOCKER_DIR"
    code=$?
    if [ "$code" -ne 0 ]; then
        "$root/tests/integration/docker.sh" destroy "$EW_TEST_DOCKER_DIR"
        rm -rf --one-file-system "$EW_STATE_DIR"
        [ "$code" -eq 3 ] && [ "${EW_MUST_WORK:-1}" = 0 ] && exit 0
        echo "0 passed, 1 failed"
        exit 1
    fi
    GVISORD_BACKEND=docker
    DOCKER_HOST=unix://$EW_TEST_DOCKER_DIR/docker.sock
    export DOCKER_HOST
    if [ "$EW_TEST_BACKEND" = docker-plain ]; then
        export GVISORD_DOCKER_RUNTIME=none GVISORD_ALLOW_PLAIN_RUNTIME=true
    fi
    ;;
esac
export EW_TEST_BACKEND EW_TEST_DOCKER_DIR GVISORD_BACKEND

# shellcheck source=tests/leaks.sh
. "$root/tests/leaks.sh"
leaks_begin

stop_database() {
    [ -z "$EW_TEST_DATABASE_DIR" ] || "$root/tests/integration/postgres.sh" destroy "$EW_TEST_DATABASE_DIR"
}
stop_docker() {
    [ -z "$EW_TEST_DOCKER_DIR" ] || "$root/tests/integration/docker.sh" destroy "$EW_TEST_DOCKER_DIR"
}
stop_all() {
    "$suite" down > /dev/null 2>&1
    stop_database
    stop_docker
}
trap 'stop_all; exit 130' INT TERM

if ! "$suite" up; then
    echo "0 passed, 1 failed"
    stop_all
    exit 1
fi

EW_TEST_URL=http://127.0.0.1:$(cat "$EW_STATE_DIR/gateway.port")
EW_TEST_KEY=$(cat "$EW_STATE_DIR/api-key")
EW_TEST_BIN=$BUILD/bin
EW_TEST_SUITE=$suite
export EW_TEST_URL EW_TEST_KEY EW_TEST_BIN EW_TEST_SUITE
result=$EW_STATE_DIR/result.txt
PYTHONDONTWRITEBYTECODE=1 python3 "$root/tests/integration/suite.py" "$@" | tee "$result"

passed=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$result" | tail -n 1)
failed=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$result" | tail -n 1)
passed=${passed:-0}
failed=${failed:-1}
# A name that fits no test is a mistake, not a success.
if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi

leaks_end
[ -z "$DATABASE_URL" ] || check "password of the database in a log" "$(grep -lE 'p@ss|p%40ss' "$EW_STATE_DIR"/log/*.log 2>/dev/null | tr '\n' ' ')"
stop_database
[ -z "$EW_TEST_DOCKER_DIR" ] || check "container, volume or process of one" "$("$root/tests/integration/docker.sh" left "$EW_TEST_DOCKER_DIR" | tr '\n' ' ')"
stop_docker
leaks_result
