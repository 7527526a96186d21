#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A Docker daemon for tests, with a containerd, a data directory and a socket of its own. It touches no other one, no firewall, no bridge.
# usage: docker.sh start DIR               with gVisor as `runsc`, and as `runsc-bare` without the arguments that it needs here
#        docker.sh restart DIR             stops dockerd, which ends its containers, and starts it again
#        docker.sh left DIR                 prints the containers, volumes and processes of containers that are there
#        docker.sh destroy DIR              stops it and removes DIR
set -eu
dir=${2:-}
api() { curl -s --max-time 20 --unix-socket "$dir/docker.sock" "$@"; }

is_alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

wait_for() { # file of a socket, pid
    for _ in $(seq 1 150); do
        [ ! -S "$1" ] || return 0
        is_alive "$2" || return 1
        sleep 0.2
    done
    return 1
}

write_config() {
    runsc=$(command -v "${RUNSC_BIN:-runsc}")
    printf '{"runtimes": {"runsc": {"path": "%s", "runtimeArgs": ["--network=none", "--overlay2=none"]}, "runsc-bare": {"path": "%s"}}}\n' \
        "$runsc" "$runsc" > "$dir/daemon.json"
    printf 'version = 2\nroot = "%s/containerd"\nstate = "%s/run"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "%s/containerd.sock"\n[ttrpc]\naddress = "%s/containerd.sock.ttrpc"\n' \
        "$dir" "$dir" "$dir" "$dir" > "$dir/containerd.toml"
}

run_dockerd() { # storage driver
    rm -f "$dir/docker.sock"
    setsid dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
        --containerd "$dir/containerd.sock" --host "unix://$dir/docker.sock" --storage-driver "$1" --cgroup-parent "/$(basename "$dir")" \
        --iptables=false --ip6tables=false --bridge=none > "$dir/dockerd.log" 2>&1 < /dev/null &
    dockerd=$!
    wait_for "$dir/docker.sock" "$dockerd" && api http://docker/_ping > /dev/null
}

start() {
    if ! command -v dockerd > /dev/null || ! command -v containerd > /dev/null; then
        echo "SKIP: dockerd is not installed" >&2
        return 3
    fi
    mkdir -p "$dir"
    chmod 0700 "$dir"
    write_config
    setsid containerd --config "$dir/containerd.toml" > "$dir/containerd.log" 2>&1 < /dev/null &
    echo $! > "$dir/containerd.pid"
    wait_for "$dir/containerd.sock" $! || { tail -n 5 "$dir/containerd.log" >&2; return 1; }
    run
}

run() {
    # overlay on overlay does not work: in a container there is vfs only.
    run_dockerd overlay2 || run_dockerd vfs || { tail -n 5 "$dir/dockerd.log" >&2; return 1; }
}

# Of this daemon only: its containers' processes name its directory.
processes() {
    for proc in /proc/[0-9]*; do
        case "$({ tr '\0' ' ' < "$proc/cmdline"; } 2>/dev/null)" in
        *containerd-shim*"$dir/"* | *runsc*"$dir/"*) echo "${proc#/proc/}" ;;
        esac
    done
}

left() {
    api 'http://docker/containers/json?all=1' | jq -r '.[].Names[0]'
    api http://docker/volumes | jq -r '.Volumes[]?.Name'
    processes
}

stop() { # pid
    is_alive "$1" || return 0
    kill "$1"
    for _ in $(seq 1 100); do
        is_alive "$1" || return 0
        sleep 0.2
    done
    kill -9 "$1"
}

restart() {
    stop "$(cat "$dir/dockerd.pid" 2>/dev/null)"
    run
}

destroy() {
    stop "$(cat "$dir/dockerd.pid" 2>/dev/null)"
    for pid in $(processes); do
        kill -9 "$pid" 2>/dev/null || true
    done
    stop "$(cat "$dir/containerd.pid" 2>/dev/null)"
    awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do
        umount "$mount" 2>/dev/null || umount -l "$mount" || true
    done
    find /sys/fs/cgroup -depth -type d \( -path "*/$(basename "$dir")" -o -path "*/$(basename "$dir")/*" \) -exec rmdir {} \; 2>/dev/null || true
    rm -rf --one-file-system "$dir"
}

case ${1:-}:$dir in
*:) sed -n 's/^# \{0,1\}//p' "$0" | sed -n '2,8p' >&2; exit 2 ;;
start:* | restart:* | left:* | destroy:*) verb=$1; shift 2; "$verb" "$@" ;;
*) exit 2 ;;
esac
