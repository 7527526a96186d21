#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Measures a suite of its own against floors and peers in the same run and prints the table of docs/performance.md.
# Needs root and runsc; docker is compared with only when its daemon and an image answer. Everything stays on loopback and is bounded.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
export BUILD
bench=$BUILD/bench
requests=${BENCH_REQUESTS:-5000}
work=$(mktemp -d /tmp/ew-bench-XXXXXX)
export EW_STATE_DIR="$work/state" EW_RUN_DIR="$work/state/run" EW_CGROUP_PARENT="ew-bench-$$"
export EW_IMAGE_DIR="${EW_IMAGE_DIR:-/var/cache/emergent-workspaces/images}"
export SERVER_ADDRESS=127.0.0.1 SERVER_PORT=0 STANDALONE_API_KEY='' WORKSPACE_MAX_CONCURRENT=100 LOG_LEVEL=warn
suite=$root/deploy/dev/suite.sh
pids=
runsc="runsc --root $work/runsc --platform=systrap --network=none --overlay2=none --ignore-cgroups"

finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for id in bench-chain bench-peer; do $runsc delete -force $id >/dev/null 2>&1 || true; done
    "$suite" destroy >/dev/null 2>&1 || true
    if ! grep -q " $work/" /proc/self/mounts; then rm -rf --one-file-system "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

row() { # what, ours, floor or peer, target
    ratio=$(awk -v a="$2" -v b="$3" 'BEGIN { if (b > 0) printf "%.2f", a / b; else print "-" }')
    printf '| %s | %s | %s | %s | %s |\n' "$1" "$2" "$3" "$ratio" "$4"
}
load() { # connections requests method path [body]: prints p50 p99 per_second failed
    "$bench/http_load" "$port" "$1" "$2" "$3" "$4" "${5:-}" "X-API-Key: $key"
}
field() { echo "$1" | cut -d' ' -f"$2"; }
# p50 in microseconds of running a command N times
time_command() { # times command…
    times=$1
    shift
    i=0
    : >"$work/times"
    while [ $i -lt "$times" ]; do
        t0=$(date +%s%N)
        "$@" >/dev/null 2>&1 </dev/null
        t1=$(date +%s%N)
        echo $(((t1 - t0) / 1000)) >>"$work/times"
        i=$((i + 1))
    done
    sort -n "$work/times" | sed -n "$(((times + 1) / 2))p"
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
bundle() { # directory rootfs args…
    mkdir -p "$1"
    dir=$1 rootfs=$2
    shift 2
    jq -n --arg rootfs "$rootfs" '{ociVersion: "1.0.2", process: {user: {uid: 0, gid: 0}, args: $ARGS.positional, env: ["PATH=/bin:/usr/bin"], cwd: "/"},
        root: {path: $rootfs, readonly: false}, linux: {namespaces: [{type: "pid"}, {type: "mount"}, {type: "network"}]},
        mounts: [{destination: "/proc", type: "proc", source: "proc"}]}' --args "$@" >"$dir/config.json"
}

"$suite" up >&2
port=$(cat "$EW_STATE_DIR/gateway.port")
key=$(cat "$EW_STATE_DIR/api-key")
api() { curl -sS --fail-with-body -H "X-API-Key: $key" -H 'Content-Type: application/json' "$@"; }
base=http://127.0.0.1:$port/api/v1/agent/workspaces
id=$(api -d '{"container_type":"agent_workspace"}' "$base?wait=60" | jq -r .id)
head -c 4096 /dev/zero | tr '\0' a >"$work/f4k"
head -c 3000 /dev/zero | tr '\0' b | fold -w 99 >"$work/content"
api -T "$work/f4k" -H 'Content-Type: application/octet-stream' "$base/$id/files?path=/workspace/f4k" >/dev/null
ws=/api/v1/agent/workspaces/$id
read_body='{"file_path":"/workspace/f4k"}'
write_body=$(jq -n --rawfile c "$work/f4k" '{file_path:"/workspace/w4k",content:$c}')

echo "## Measured $(date -u +%Y-%m-%d), $(nproc) CPUs, $(runsc --version | head -n 1), kernel $(uname -r)"
echo
echo 'Times are p50 in microseconds unless the row says otherwise. Command: `make bench`.'
echo
echo '| what | ours | floor or peer | ratio | target |'
echo '|---|---|---|---|---|'

# ---- the bare chain: same HTTP parser, one ZeroMQ hop, FIFOs into a sandbox of the same runsc ----
mkdir -p "$work/chain/rootfs/proc"
cp "$bench/bare_echo" "$work/f4k" "$work/chain/rootfs/"
bundle "$work/chain" "$work/chain/rootfs" /bare_echo /f4k
mkfifo "$work/in" "$work/out"
# shellcheck disable=SC2094 # a FIFO opened both ways never gives an end of file
$runsc create --bundle "$work/chain" bench-chain <>"$work/out" >"$work/in.none" 2>/dev/null <>"$work/out" 1<>"$work/in"
$runsc start bench-chain
chain_port=$(free_port)
"$bench/bare_chain" http "$chain_port" "ipc://$work/chain.sock" & pids="$pids $!"
"$bench/bare_chain" relay "ipc://$work/chain.sock" "$work/in" "$work/out" & pids="$pids $!"
hello_port=$(free_port)
"$bench/bare_chain" http "$hello_port" & pids="$pids $!"
sleep 1
chain=$(field "$("$bench/http_load" "$chain_port" 1 "$requests" POST / "$read_body")" 1)
ours=$(field "$(load 1 "$requests" POST "$ws/read" "$read_body")" 1)
row 'read 4 KiB over REST, against the bare chain' "$ours" "$chain" '<= 1.20'
row 'read 4 KiB, milliseconds against 0.4' "$(awk -v a="$ours" 'BEGIN { print a / 1000 }')" 0.4 '<= 1.00 on one CPU set'
written=$(field "$(load 1 "$requests" POST "$ws/write" "$write_body")" 1)
row 'write 4 KiB, against our read' "$written" "$ours" '<= 2.00'

# ---- commands ----
fork=$(for i in 1 2 3 4 5; do api "http://127.0.0.1:$port$ws/stats?measure_fork=true" | jq -r .fork_exec_us; done | sort -n | sed -n 3p)
bash=$(field "$(load 1 300 POST "$ws/bash" '{"command":"true"}')" 1)
row 'bash true over REST, against fork+exec inside the sandbox' "$bash" "${fork:-0}" '<= 1.20'

# ---- the gateway alone ----
hello=$("$bench/http_load" "$hello_port" 32 100000 GET /)
health=$(load 32 100000 GET /health)
row 'gateway /health per second, bare hello server divided by ours' "$(field "$hello" 3)" "$(field "$health" 3)" '<= 2.00'

# ---- cold create, against runsc create+start of the same bundle ----
runsc_peer() {
    $runsc create --bundle "$work/chain" bench-peer <"$work/f4k" >/dev/null 2>&1
    $runsc start bench-peer
}
: >"$work/times"
: >"$work/times-ours"
for i in 1 2 3 4 5 6 7 8; do
    t0=$(date +%s%N)
    runsc_peer
    t1=$(date +%s%N)
    echo $(((t1 - t0) / 1000)) >>"$work/times"
    $runsc delete -force bench-peer >/dev/null 2>&1 || true
    # curl's own clock: its start would count as ours, while runsc's start really is runsc's
    new=$(api -o "$work/created" -w '%{time_total}' -d '{"container_type":"agent_workspace","warm_start":false}' "$base?wait=60")
    awk -v s="$new" 'BEGIN { printf "%d\n", s * 1000000 }' >>"$work/times-ours"
    api -X DELETE "$base/$(jq -r .id "$work/created")"
done
row 'cold create over REST, against runsc create+start' "$(sort -n "$work/times-ours" | sed -n 4p)" "$(sort -n "$work/times" | sed -n 4p)" '<= 1.15'

# ---- peers: the same read and the same command through runsc exec and docker exec ----
peer_root=$(find "$EW_IMAGE_DIR/base" -maxdepth 1 -name 'rootfs*' -type d | head -n 1)
bundle "$work/peer" "$peer_root" /bin/sleep 600
runsc_ro="runsc --root $work/runsc --platform=systrap --network=none --overlay2=root:memory --ignore-cgroups"
$runsc_ro create --bundle "$work/peer" bench-peer </dev/null >/dev/null 2>&1
$runsc_ro start bench-peer
exec_read=$(time_command 15 $runsc_ro exec bench-peer head -c 4096 /etc/login.defs)
exec_true=$(time_command 15 $runsc_ro exec bench-peer /bin/bash -c true)
row 'runsc exec head -c 4096, divided by our read' "$exec_read" "$ours" '>= 10'
row 'runsc exec bash true, divided by our bash' "$exec_true" "$bash" '>= 1.5'
if docker info >/dev/null 2>&1; then
    tar -C "$peer_root" -c . 2>/dev/null | docker import - ew-bench:latest >/dev/null
    docker run -d --rm --name ew-bench --network=none ew-bench:latest sleep 600 >/dev/null
    docker_read=$(time_command 15 docker exec ew-bench head -c 4096 /etc/login.defs)
    docker_true=$(time_command 15 docker exec ew-bench bash -c true)
    docker rm -f ew-bench >/dev/null
    row 'docker exec head -c 4096, divided by our read' "$docker_read" "$ours" '>= 20'
    row 'docker exec bash true, divided by our bash' "$docker_true" "$bash" '>= 4'
else
    echo '| docker exec | - | no docker daemon answers here | - | read >= 20, command >= 4 |'
fi

# ---- grep of a 100 MB tree, ours against ripgrep in the same sandbox ----
api -d '{"command":"mkdir -p /workspace/tree && cd /workspace/tree && for d in $(seq 1 20); do mkdir d$d; for f in $(seq 1 25); do seq $((d*1000+f)) $((d*1000+f+30000)) | sed s/$/-the-quick-brown-fox/ | head -c 209715 > d$d/f$f.txt; done; done; echo needle_in_haystack >> d7/f7.txt","timeout_ms":300000}' "http://127.0.0.1:$port$ws/bash" >/dev/null
grep_ms() { # path body: milliseconds of the second run
    load 1 10 POST "$1" "$2" | cut -d' ' -f1
}
ours_grep=$(grep_ms "$ws/grep" '{"pattern":"needle_in_h[a-z]+","path":"/workspace/tree"}')
rg=$(grep_ms "$ws/bash" '{"command":"rg -n needle_in_h[a-z]+ /workspace/tree"}')
row 'grep of a 100 MB tree, against ripgrep in the sandbox' "$ours_grep" "$rg" '<= 1.50'

# ---- memory ----
for daemon in gateway gvisord; do
    rss=$(awk '/VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$(cat "$EW_RUN_DIR/$daemon.pid")/status")
    row "$daemon resident MiB, against 12" "$rss" 12 '<= 1.00'
done
agent=$(stat -c %s "$BUILD/bin/ew-agent")
row 'agent file MiB, against 1.75' "$(awk -v a="$agent" 'BEGIN { printf "%.2f", a / 1048576 }')" 1.75 '<= 1.00'

# ---- small tool calls per second against a stub provider ----
api -X DELETE "$base/$id"
"$suite" down >/dev/null 2>&1
export EW_STATE_DIR="$work/stub" EW_RUN_DIR="$work/stub/run"
mkdir -p "$EW_STATE_DIR"
"$BUILD/bin/gateway" 2>"$work/stub.log" & pids="$pids $!"
gateway_pid=$!
until [ -s "$EW_STATE_DIR/gateway.port" ]; do sleep 0.1; done
"$bench/stub_provider" "ipc://$EW_RUN_DIR/gateway.fabric" 2>>"$work/stub.log" & pids="$pids $!"
stub_pid=$!
port=$(cat "$EW_STATE_DIR/gateway.port")
key=$(cat "$EW_STATE_DIR/api-key")
sleep 2
id=$(api -d '{"container_type":"agent_workspace"}' "http://127.0.0.1:$port/api/v1/agent/workspaces?wait=30" | jq -r .id)
rate=$(load 32 100000 POST "/api/v1/agent/workspaces/$id/read" "$read_body")
row 'small tool calls per second, 32 connections, stub sandboxes, against 15000' "$(field "$rate" 3)" 15000 '>= 1.00'
kill "$stub_pid" "$gateway_pid"
export EW_STATE_DIR="$work/state" EW_RUN_DIR="$work/state/run"

# ---- the lifecycle, on a suite of its own ----
echo
"$root/tests/bench/lifecycle.sh"
