#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Registers gVisor as the runtime `runsc` with a Docker daemon, with the arguments that work (docs/operator-guide.md, "Docker").
# usage: deploy/docker/runtime.sh [--print] [FILE]     FILE: the daemon's configuration (/etc/docker/daemon.json)
#   --print  shows what FILE would become and changes nothing
# Whatever else is in FILE stays; a copy of it is kept beside it. The daemon is not restarted: that may end containers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
print_only=0
if [ "${1:-}" = --print ]; then
    print_only=1
    shift
fi
file=${1:-/etc/docker/daemon.json}
say() { echo "docker-runtime: $*" >&2; }

runsc=$(command -v "${RUNSC_BIN:-runsc}") || {
    say "runsc is not here (make install); on Docker Desktop for macOS or Windows it cannot be: see docs/operator-guide.md, Docker"
    exit 1
}
command -v python3 > /dev/null || {
    say "python3 is needed to merge JSON; add this to $file yourself:"
    cat "$here/daemon.json"
    exit 1
}

merged=$(python3 - "$file" "$here/daemon.json" "$runsc" <<'PY'
import json, sys
path, ours, runsc = sys.argv[1:]
try:
    with open(path) as file:
        text = file.read()
except FileNotFoundError:
    text = ""
try:
    config = json.loads(text) if text.strip() else {}
    assert isinstance(config, dict) and isinstance(config.get("runtimes", {}), dict)
except (ValueError, AssertionError):
    sys.exit("docker-runtime: %s is no JSON object with an object of runtimes; nothing was changed" % path)
with open(ours) as file:
    wanted = json.load(file)["runtimes"]["runsc"]
have = config.setdefault("runtimes", {}).setdefault("runsc", {"path": runsc})
arguments = have.setdefault("runtimeArgs", [])
names = {argument.lstrip("-").split("=")[0] for argument in arguments}
arguments += [argument for argument in wanted["runtimeArgs"] if argument.lstrip("-").split("=")[0] not in names]
for argument in wanted["runtimeArgs"]:
    if argument not in arguments:
        print("docker-runtime: another %s is in %s; it stays, %s is what is known to work" % (argument.split("=")[0], path, argument), file=sys.stderr)
print(json.dumps(config, indent=2))
PY
)
if [ "$print_only" = 1 ]; then
    printf '%s\n' "$merged"
    exit 0
fi
if [ -f "$file" ] && [ "$(cat "$file")" = "$merged" ]; then
    say "$file has it already"
    exit 0
fi
mkdir -p "$(dirname "$file")"
[ ! -f "$file" ] || cp -p "$file" "$file.before-runsc"
printf '%s\n' "$merged" > "$file.new"
[ ! -f "$file" ] || chmod --reference="$file" "$file.new"
mv "$file.new" "$file"
say "runsc is in $file; it counts after a restart of the Docker daemon (systemctl restart docker), which may end running containers"
