#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the suite of one state directory on this machine.
# usage: deploy/dev/suite.sh up | down | drain | run | status | destroy
#   up       starts what is down and waits until workspaces can be made; does nothing to what runs
#   down     stops the daemons; sandboxes live on and are adopted by the next `up`
#   drain    before this machine goes down: stops every workspace with its processes on disk, then the daemons; they go on when they are used
#   run      up, shows the first workspace doing work, waits for Ctrl-C, down
#   status   tells what runs
#   destroy  deletes every workspace, stops the daemons, removes the state directory
# Several suites stand side by side with their own EW_STATE_DIR and SERVER_PORT. The programs are those of $BUILD/bin (build/bin).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$root/$build ;; esac
bin=${EW_BIN:-$build/bin}
daemons='gateway gvisord'
refused_wait_s=${EW_REFUSED_WAIT_S:-10} # a probe on a busy machine may fail once and pass the next time
ready_wait_s=${EW_READY_WAIT_S:-120}
stop_wait_s=${EW_STOP_WAIT_S:-20}
drain_wait_s=${EW_DRAIN_WAIT_S:-300} # writing the memory of all workspaces takes its time

EW_STATE_DIR=${EW_STATE_DIR:-$root/var}
mkdir -p "$EW_STATE_DIR"
chmod 0700 "$EW_STATE_DIR"
EW_STATE_DIR=$(cd "$EW_STATE_DIR" && pwd)
EW_RUN_DIR=${EW_RUN_DIR:-$EW_STATE_DIR/run}
EW_IMAGE_DIR=${EW_IMAGE_DIR:-$EW_STATE_DIR/images}
export EW_STATE_DIR EW_RUN_DIR EW_IMAGE_DIR
image=${WORKSPACE_DEFAULT_IMAGE:-base}
log_dir=$EW_STATE_DIR/log

say() { echo "suite: $*" >&2; }

# A process of this name; a zombie that nobody reaped is not running.
is_running() { # pid daemon
    [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# Its pid when it runs: the pid file may be older than a reboot, so the name must fit too.
pid_of() {
    pid=$(cat "$EW_RUN_DIR/$1.pid" 2>/dev/null) || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    is_running "$pid" "$1" || return 1
    echo "$pid"
}

fail_with_log() { # daemon sentence
    say "$2; last lines of $log_dir/$1.log:"
    tail -n 15 "$log_dir/$1.log" >&2 || true
    exit 1
}

emergent() { "$bin/emergent" "$@"; }

build_image() {
    if [ -f "$EW_IMAGE_DIR/$image/image.json" ]; then
        return 0
    fi
    builder=$root/deploy/images/build-$image.sh
    if [ ! -x "$builder" ]; then
        say "image '$image' is not in $EW_IMAGE_DIR and there is no $builder; import it with: gvisord --import-image $image FILE"
        exit 1
    fi
    mkdir -p "$EW_IMAGE_DIR"
    # Suites that share the directory must not build twice.
    (
        flock 9
        [ ! -f "$EW_IMAGE_DIR/$image/image.json" ] || exit 0
        say "building the image '$image' (once, about half a minute)"
        GVISORD=$bin/gvisord "$builder" >&2
    ) 9> "$EW_IMAGE_DIR/.build.lock"
}

start() { # daemon
    if pid_of "$1" > /dev/null; then
        return 0
    fi
    "$bin/$1" --check > /dev/null || exit 1 # says itself what is wrong
    mkdir -p "$log_dir"
    echo "---- started $(date -u +%Y-%m-%dT%H:%M:%SZ)" >> "$log_dir/$1.log"
    setsid "$bin/$1" >> "$log_dir/$1.log" 2>&1 < /dev/null &
    eval "started_$1=$!"
}

# A provider has tried what it can do here, and none can make workspaces. Unknown without an answer, and while one starts;
# those whose daemon is not connected were never checked.
is_refused() {
    rows=$(emergent providers --json 2> /dev/null) || return 1
    case $rows in *'"healthy": true'* | *'"message": "starting'*) return 1 ;; esac
    echo "$rows" | grep -q '"last_checked_at_ms": [1-9]'
}

# Ends when the gateway says ready; a daemon that died meanwhile ends it at once.
wait_ready() {
    deadline=$(($(date +%s) + ready_wait_s))
    until answer=$(emergent health --ready 2>&1); do
        for daemon in $daemons; do
            eval "child=\${started_$daemon:-}"
            if [ -n "$child" ] && ! kill -0 "$child" 2>/dev/null && ! pid_of "$daemon" > /dev/null; then
                fail_with_log "$daemon" "$daemon ended while it started"
            fi
        done
        if ! is_refused; then
            refused_until=
        elif [ "$(date +%s)" -ge "${refused_until:=$(($(date +%s) + refused_wait_s))}" ]; then
            say "no provider can make workspaces:"
            emergent providers >&2 || true
            fail_with_log gvisord "gvisord may know why"
        fi
        if [ "$(date +%s)" -ge "$deadline" ]; then
            say "not ready after $ready_wait_s s: $answer"
            emergent providers >&2 || true
            fail_with_log gvisord "gvisord may know why"
        fi
        sleep 0.2
    done
}

up() {
    for program in $daemons emergent ew-agent; do
        if [ ! -x "$bin/$program" ]; then
            say "$bin/$program is missing; run make first"
            exit 1
        fi
    done
    build_image
    for daemon in $daemons; do
        start "$daemon"
    done
    wait_ready
    say "up on http://${SERVER_ADDRESS:-127.0.0.1}:$(port), key in $EW_STATE_DIR/api-key, logs in $log_dir"
}

port() {
    cat "$EW_STATE_DIR/gateway.port" 2>/dev/null || echo "${SERVER_PORT:-3002}"
}

sandbox_count() {
    find "$EW_STATE_DIR/gvisord/sandboxes" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | wc -l
}

stop() { # daemon, signal, seconds
    pid=$(pid_of "$1") || return 0
    kill "-${2:-TERM}" "$pid"
    wait_s=${3:-$stop_wait_s}
    deadline=$(($(date +%s) + wait_s))
    # The pid file goes before the process does, and the process holds the lock to its end.
    while is_running "$pid" "$1"; do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            say "$1 (pid $pid) did not stop in $wait_s s; killing it"
            kill -KILL "$pid"
            break
        fi
        sleep 0.1
    done
}

drain() {
    stop gvisord USR2 "$drain_wait_s"
    stop gateway
    say "drained: what ran is on disk and goes on when it is used after the next make up"
}

down() {
    # The gateway first, so that no call is cut by a provider that leaves.
    for daemon in $daemons; do
        stop "$daemon"
    done
    count=$(sandbox_count)
    say "down; $count sandboxes live on${count:+ (make up adopts them, deploy/dev/suite.sh destroy ends them)}"
}

show_work() {
    workspace=$(emergent workspace create) || return 1
    echo "\$ emergent workspace create"
    echo "$workspace"
    # shellcheck disable=SC2016 # expanded in the sandbox
    work='echo "hello from $(uname -s) in a sandbox, $(nproc) CPUs" | tee hello.txt'
    echo "\$ emergent workspace exec $workspace '$work'"
    emergent workspace exec "$workspace" "$work"
    echo "\$ emergent workspace read $workspace hello.txt"
    emergent workspace read "$workspace" hello.txt
    emergent workspace delete "$workspace"
}

run() {
    trap 'exit 130' INT TERM
    trap 'trap - EXIT INT TERM; down' EXIT
    up
    show_work
    say "running; Ctrl-C stops it"
    gateway_pid=$(pid_of gateway)
    # Not a child when the suite ran already, so `wait` alone would not do.
    tail -f --pid="$gateway_pid" /dev/null &
    wait $!
    fail_with_log gateway "the gateway ended"
}

status() {
    code=0
    for daemon in $daemons; do
        if pid=$(pid_of "$daemon"); then
            echo "$daemon runs, pid $pid"
        else
            echo "$daemon is down"
            code=1
        fi
    done
    echo "$(sandbox_count) sandboxes"
    return $code
}

destroy() {
    if [ ! -d "$EW_STATE_DIR/gateway" ] && [ ! -d "$EW_STATE_DIR/gvisord" ]; then
        say "$EW_STATE_DIR holds no suite"
        return 0
    fi
    if [ "$(sandbox_count)" != 0 ]; then
        up
        emergent workspace list --quiet | while read -r id; do
            emergent workspace delete "$id"
        done
    fi
    down
    if [ "$(sandbox_count)" != 0 ] || grep -q " $EW_STATE_DIR/" /proc/self/mounts; then
        say "sandboxes or mounts are left below $EW_STATE_DIR; nothing was removed"
        return 1
    fi
    case $EW_IMAGE_DIR in
    "$EW_STATE_DIR"/*) find "$EW_STATE_DIR" -mindepth 1 -maxdepth 1 ! -path "$EW_IMAGE_DIR" -exec rm -rf --one-file-system {} + ;;
    *) rm -rf --one-file-system "$EW_STATE_DIR" ;;
    esac
}

case ${1:-} in
up | down | drain | run | status | destroy) "$1" ;;
*)
    sed -n 's/^# \{0,1\}//p' "$0" | sed -n '2,10p' >&2
    exit 2
    ;;
esac
