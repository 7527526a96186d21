#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The README's examples against a suite that is up, checked. Exit code 1 at the first thing that is not as the README says.
# The gateway: EMERGENT_URL and EMERGENT_API_KEY, else as the command line finds them.
set -eu
url=${EMERGENT_URL:-http://${SERVER_ADDRESS:-127.0.0.1}:${SERVER_PORT:-3002}}
state=${EW_STATE_DIR:-$(dirname "$0")/../var}
key=${EMERGENT_API_KEY:-${STANDALONE_API_KEY:-$(cat "$state/api-key")}}
api=$url/api/v1/agent/workspaces
here=$(mktemp -d)
ids=
# shellcheck disable=SC2086 # a list of words
trap 'for id in $ids; do curl -sS -o /dev/null -X DELETE -H "X-API-Key: $key" "$api/$id" || true; done; rm -rf "$here"' EXIT

same() { # what, expected, found
    if [ "$2" != "$3" ]; then
        echo "tour: $1: expected '$2', found '$3'" >&2
        exit 1
    fi
    echo "ok  $1"
}

call() { # path body
    curl -fsS -H "X-API-Key: $key" -H 'Content-Type: application/json' "$api$1" -d "$2"
}

echo "== curl"
id=$(call '?wait=60' '{"container_type":"agent_workspace"}' | jq -r .id)
ids="$ids $id"
same "a workspace is ready" ready "$(curl -fsS -H "X-API-Key: $key" "$api/$id" | jq -r .status)"
result=$(call "/$id/bash" '{"command":"uname -a > where.txt; cat where.txt"}')
same "the command's exit code" 0 "$(printf '%s' "$result" | jq .exit_code)"
text=$(printf '%s' "$result" | jq -r .stdout)
same "read shows the same with a line number" "1: $text" "$(call "/$id/read" '{"file_path":"where.txt"}' | jq -r .content)"
same "stop" stopped "$(call "/$id/stop" '{}' | jq -r .status)"
same "resume" ready "$(call "/$id/resume" '{}' | jq -r .status)"
same "the file is as it was left" "1: $text" "$(call "/$id/read" '{"file_path":"where.txt"}' | jq -r .content)"
same "delete" 204 "$(curl -sS -o /dev/null -w '%{http_code}' -X DELETE -H "X-API-Key: $key" "$api/$id")"
same "it is gone" 404 "$(curl -sS -o /dev/null -w '%{http_code}' -H "X-API-Key: $key" "$api/$id")"

echo "== emergent"
id=$(emergent workspace create --memory 1G)
ids="$ids $id"
same "output of exec" "step 1 step 2 step 3" "$(emergent workspace exec "$id" 'for i in 1 2 3; do echo step $i; sleep 1; done' | tr '\n' ' ' | sed 's/ $//')"
code=0
emergent workspace exec "$id" 'exit 42' || code=$?
same "exit code of exec" 42 "$code"
same "write" "6 bytes" "$(echo hello | emergent workspace write "$id" notes/hello.txt)"
same "edit" "1 replaced" "$(emergent workspace edit "$id" notes/hello.txt --old hello --new 'hello world')"
emergent workspace cp "$id:notes/hello.txt" "$here"
same "cp" "hello world" "$(cat "$here/hello.txt")"
emergent workspace delete "$id"
same "it is not listed any more" 0 "$(emergent workspace list --quiet | grep -c "$id" || true)"
