#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the named suites and ends with one line `N passed, N failed`.
#   docs         the generated documents are the ones that the tables give
#   unit         Criterion programs under ASan + UBSan: codec, fabric, streams, calls, agent and its tools, kit, gateway, a real gvisord
#   fuzz         each fuzz target on its corpus and then for FUZZ_SECONDS (default 5)
#   integration  a whole suite on real gVisor, through the REST API and the CLI, with a leak check
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
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
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

run_unit() {
    need_image
    for program in "$BUILD"/asan/unit/test_*; do
        [ -x "$program" ] && [ -f "$program" ] || continue
        case $program in *.d | *.o) continue ;; esac
        name=$(basename "$program")
        timeout 300 "$program" --jobs 1 >"$logs/$name" 2>&1
        status=$?
        line=$(sed 's/\x1b\[[0-9;]*m//g' "$logs/$name" | grep 'Synthesis:' | tail -n 1)
        ok=$(printf '%s' "$line" | sed -n 's/.*Passing: \([0-9]*\).*/\1/p')
        bad=$(printf '%s' "$line" | sed -n 's/.*Failing: \([0-9]*\).*/\1/p')
        crash=$(printf '%s' "$line" | sed -n 's/.*Crashing: \([0-9]*\).*/\1/p')
        bad=$((${bad:-0} + ${crash:-0}))
        if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
        count "${ok:-0}" "$bad"
        if [ "$bad" -eq 0 ]; then
            note ok "$name: ${ok:-0} tests"
        else
            note FAILED "$name: $bad of $((${ok:-0} + bad)) (exit $status)"
            sed 's/\x1b\[[0-9;]*m//g' "$logs/$name" | grep -aE '^\[(----|FAIL|CRASH|TIME)' | head -n 40
            sed 's/\x1b\[[0-9;]*m//g' "$logs/$name" | grep -avE '^\[(----|PASS|RUN|SKIP)' | tail -n 30
        fi
        grep -a 'SKIP' "$logs/$name" | head -n 5
    done
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

run_integration() { # with the sanitised daemons; the agent in the sandboxes is the static one
    BUILD=$BUILD/asan sh tests/integration/run.sh >"$logs/integration" 2>&1
    status=$?
    cat "$logs/integration"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$logs/integration" | tail -n 1)
    ok=$(printf '%s' "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
    bad=$(printf '%s' "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
    if [ "$status" -ne 0 ] && [ "${bad:-0}" -eq 0 ]; then bad=1; fi
    count "${ok:-0}" "${bad:-0}"
}

for suite in "$@"; do
    echo "== $suite"
    "run_$suite"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
