#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts a suite of its own on a free port with a fresh state directory, runs the integration tests, stops it, and looks for what was left.
# usage: tests/integration/run.sh [name …]     EW_TEST_PROVIDER=gvisor, EW_TEST_KEEP=1 keeps the state directory for a look
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

names() {
    find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort
}
kept_namespaces=$(names /var/run/netns)
kept_veths=$(names /sys/class/net)

stop_all() {
    "$suite" down > /dev/null 2>&1
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

# ---- nothing may be left: neither of the workspaces, while the daemons run, nor of the daemons afterwards ----
check() { # sentence, what was found
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok     leak: no $1"
    else
        failed=$((failed + 1))
        echo "FAILED leak: $1: $2"
    fi
}

new_since() { # before, now
    printf '%s\n' "$2" | while read -r name; do
        case "
$1
" in *"
$name
"*) ;; *) printf '%s ' "$name" ;; esac
    done
}

processes_of_sandboxes() {
    for dir in /proc/[0-9]*; do
        # The redirection itself fails for a process that is gone by now.
        case "$({ tr '\0' ' ' < "$dir/cmdline"; } 2>/dev/null)" in
        *runsc*"$EW_STATE_DIR"*) echo "${dir#/proc/}" ;;
        esac
    done
}

# A daemon that was just started may still run its probe sandbox.
deadline=$(($(date +%s) + 20))
while [ -n "$(processes_of_sandboxes)" ] && [ "$(date +%s)" -lt "$deadline" ]; do
    sleep 0.2
done
"$EW_TEST_BIN/emergent" workspace list --quiet > "$EW_STATE_DIR/left.txt"
check "workspace" "$(tr '\n' ' ' < "$EW_STATE_DIR/left.txt")"
check "sandbox directory" "$(find "$EW_STATE_DIR/gvisord/sandboxes" -mindepth 1 -maxdepth 1 2>/dev/null | tr '\n' ' ')"
check "sandbox process" "$(processes_of_sandboxes | tr '\n' ' ')"
check "mount of a sandbox" "$(awk -v dir="$EW_STATE_DIR/" 'index($2, dir "gvisord/sandboxes/") == 1 { print $2 }' /proc/self/mounts | tr '\n' ' ')"
check "loop device" "$(losetup --list --noheadings --output BACK-FILE 2>/dev/null | grep -F "$EW_STATE_DIR/gvisord/sandboxes/" | tr '\n' ' ')"
check "cgroup of a sandbox" "$(find /sys/fs/cgroup -mindepth 2 -type d -path "*/$EW_CGROUP_PARENT/*" -name '????????-????-*' 2>/dev/null | head -n 3 | tr '\n' ' ')"
check "network namespace" "$(new_since "$kept_namespaces" "$(names /var/run/netns)")"
check "network interface" "$(new_since "$kept_veths" "$(names /sys/class/net)")"
down_text=$("$suite" down 2>&1)
check "daemon that does not stop" "$(printf '%s' "$down_text" | grep 'did not stop' | tr '\n' ' ')"
check "daemon" "$("$suite" status 2>/dev/null | grep ' runs' | tr '\n' ' ')"
check "error of a sanitizer in a log" "$(grep -lE 'ERROR: (Address|Leak)Sanitizer|runtime error:' "$EW_STATE_DIR"/log/*.log 2>/dev/null | tr '\n' ' ')"
check "secret in a log" "$(grep -lF "$EW_TEST_KEY" "$EW_STATE_DIR"/log/*.log 2>/dev/null | tr '\n' ' ')"
# The empty groups of the daemons themselves.
find /sys/fs/cgroup -depth -type d \( -path "*/$EW_CGROUP_PARENT" -o -path "*/$EW_CGROUP_PARENT/*" \) -exec rmdir {} \; 2>/dev/null

if [ "$failed" -gt 0 ] || [ "${EW_TEST_KEEP:-0}" = 1 ]; then
    echo "state and logs: $EW_STATE_DIR"
elif ! grep -q " $EW_STATE_DIR/" /proc/self/mounts; then
    rm -rf --one-file-system "$EW_STATE_DIR"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
