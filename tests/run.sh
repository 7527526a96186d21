#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the named suites and ends with one line `N passed, N failed`.
#   docs         the generated documents are the ones that the tables give
#   unit         Criterion programs under ASan + UBSan: codec, fabric, streams, calls, agent and its tools, kit, gateway, a real gvisord
#   fuzz         each fuzz target on its corpus and then for FUZZ_SECONDS (default 5)
#   integration  a whole suite on real gVisor, through the REST API and the CLI, with a leak check
#   integration-postgres  what touches the store, once more on a real PostgreSQL that is started for it
#   integration-docker  workspaces, tools and kills of daemons once more on a Docker daemon with gVisor that is started for it
#   chaos        random operations against a model while daemons are killed -9, CHAOS_KILLS times (default 300)
# EW_MUST_WORK=1 (the default here) turns "cannot run on this machine" into a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
FUZZ_SECONDS=${FUZZ_SECONDS:-5}
export EW_MUST_WORK="${EW_MUST_WORK:-1}"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1}"
export EW_AGENT="${EW_AGENT:-$BUILD/asan/bin/ew-agent-sanitized}"
export EW_AGENT_STATIC="$BUILD/bin/ew-agent"
if [ "${1:-}" != --unit-one ]; then
    logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
fi
passed=0
failed=0

note() { # result name: one line a program
    printf '%-8s %s\n' "$1" "$2"
}

count() { # passed failed
    passed=$((passed + $1))
    failed=$((failed + $2))
}

run_docs() {
    for doc in protocol configuration openapi; do
        case $doc in
        protocol) "$BUILD/asan/bin/proto_reference" >"$logs/doc" 2>"$logs/err" ;;
        configuration) "$BUILD/asan/bin/gateway" --config-reference >"$logs/doc" 2>"$logs/err" ;;
        openapi) "$BUILD/asan/bin/gateway" --openapi >"$logs/doc" 2>"$logs/err" ;;
        esac
        file=docs/$doc.md
        [ $doc = openapi ] && file=docs/openapi.json
        if cmp -s "$logs/doc" "$file"; then
            note ok "docs/$doc"
            count 1 0
        else
            note FAILED "docs/$doc is stale: make docs"
            count 0 1
        fi
    done
}

# The tests of gvisord start real sandboxes: on a fresh machine their image must be made first.
need_image() {
    export EW_IMAGE_DIR="${EW_IMAGE_DIR:-/var/cache/emergent-workspaces/images}"
    [ ! -f "$EW_IMAGE_DIR/base/image.json" ] || return 0
    mkdir -p "$EW_IMAGE_DIR"
    # The lock is the one of deploy/dev/suite.sh.
    GVISORD=$BUILD/bin/gvisord flock "$EW_IMAGE_DIR/.build.lock" sh deploy/images/build-base.sh >"$logs/image" 2>&1 || cat "$logs/image"
}

# One program; tells how it went in $logs/NAME.counts and shows it at once.
unit_one() { # program
    name=$(basename "$1")
    began=$(date +%s)
    timeout 300 "$1" --jobs 1 >"$logs/$name" 2>&1 </dev/null
    status=$?
    took=$(($(date +%s) - began))
    line=$(sed 's/\x1b\[[0-9;]*m//g' "$logs/$name" | grep 'Synthesis:' | tail -n 1)
    ok=$(printf '%s' "$line" | sed -n 's/.*Passing: \([0-9]*\).*/\1/p')
    bad=$(printf '%s' "$line" | sed -n 's/.*Failing: \([0-9]*\).*/\1/p')
    crash=$(printf '%s' "$line" | sed -n 's/.*Crashing: \([0-9]*\).*/\1/p')
    bad=$((${bad:-0} + ${crash:-0}))
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
    echo "${ok:-0} $bad" >"$logs/$name.counts"
    {
        if [ "$bad" -eq 0 ]; then
            note ok "$name: ${ok:-0} tests, $took s"
        else
            note FAILED "$name: $bad of $((${ok:-0} + bad)) (exit $status), $took s"
            sed 's/\x1b\[[0-9;]*m//g' "$logs/$name" | grep -aE '^\[(----|FAIL|CRASH|TIME)' | head -n 40
            sed 's/\x1b\[[0-9;]*m//g' "$logs/$name" | grep -avE '^\[(----|PASS|RUN|SKIP)' | tail -n 30
        fi
        grep -a 'SKIP' "$logs/$name" | head -n 5
    } >"$logs/$name.report"
    cat "$logs/$name.report"
}

unit_some() { # how many at once; programs on standard input
    logs=$logs xargs -P "$1" -I '{}' sh "$PWD/tests/run.sh" --unit-one '{}'
}

# Those of the agent's tools end processes by their numbers, which are used again soon where much is started: they run alone. The
# others wait more than they compute: some at once, the longest first.
run_unit() {
    need_image
    list=$logs/programs
    for program in "$BUILD"/asan/unit/test_*; do
        case $program in *.d | *.o) continue ;; esac
        [ ! -x "$program" ] || [ ! -f "$program" ] || echo "$program"
    done >"$list"
    alone='/test_(agent|tool)'
    long='/test_(gvisord|store_postgres|provider|workspaces|lifecycle)'
    grep -E "$alone" "$list" | unit_some 1
    { grep -E "$long" "$list"; grep -vE "$long|$alone" "$list"; } | unit_some "${UNIT_AT_ONCE:-3}"
    while read -r program; do
        read -r ok bad <"$logs/$(basename "$program").counts" || { ok=0 bad=1; }
        count "$ok" "$bad"
    done <"$list"
}

run_fuzz() {
    for program in "$BUILD"/fuzz/fuzz_*; do
        [ -x "$program" ] || continue
        name=$(basename "$program")
        corpus=tests/fuzz/corpus/${name#fuzz_}
        mkdir -p "$logs/corpus-$name"
        [ -d "$corpus" ] && cp -r "$corpus/." "$logs/corpus-$name/"
        if "$program" -max_total_time="$FUZZ_SECONDS" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
            -artifact_prefix="$logs/" "$logs/corpus-$name" >"$logs/$name" 2>&1; then
            runs=$(sed -n 's/stat::number_of_executed_units: *//p' "$logs/$name")
            note ok "$name: $runs runs"
            count 1 0
        else
            note FAILED "$name"
            tail -n 40 "$logs/$name"
            count 0 1
        fi
    done
}

# With the sanitised daemons; the agent in the sandboxes is the static one.
run_suite() { # name command…
    name=$1
    shift
    BUILD=$BUILD/asan "$@" >"$logs/$name" 2>&1
    status=$?
    cat "$logs/$name"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$logs/$name" | tail -n 1)
    ok=$(printf '%s' "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
    bad=$(printf '%s' "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
    if [ "$status" -ne 0 ] && [ "${bad:-0}" -eq 0 ]; then bad=1; fi
    count "${ok:-0}" "${bad:-0}"
}

run_integration() {
    run_suite integration sh tests/integration/run.sh
}

run_integration_postgres() {
    files=
    for name in lifecycle restart audit auth database sessions snapshots; do # those that are there
        [ ! -f "tests/integration/test_$name.py" ] || files="$files test_$name"
    done
    # shellcheck disable=SC2086 # a list of words
    EW_TEST_DATABASE=postgres run_suite integration-postgres sh tests/integration/run.sh $files
}

run_integration_docker() {
    EW_TEST_BACKEND=docker run_suite integration-docker sh tests/integration/run.sh test_docker test_lifecycle test_tools_bash test_tools_files test_restart
}

run_chaos() {
    run_suite chaos sh tests/chaos/run.sh "${CHAOS_KILLS:-300}"
}

if [ "${1:-}" = --unit-one ]; then
    unit_one "$2"
    exit 0
fi
for suite in "$@"; do
    echo "== $suite"
    began=$(date +%s)
    "run_$(echo "$suite" | tr - _)"
    echo "-- $suite took $(($(date +%s) - began)) s"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
