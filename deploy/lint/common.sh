# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Sourced by the checks: where they are, and the files that git knows or will know.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck disable=SC2034 # used by the checks
jobs=${LINT_JOBS:-$(nproc)}
found=$(mktemp)
trap 'rm -f "$found"' EXIT

# Tracked and new files that match the patterns, without what git ignores.
files() {
    git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do
        [ ! -f "$file" ] || echo "$file"
    done
}

# One line per finding stands in $found: print them and end.
finish() {
    sort -u "$found"
    [ ! -s "$found" ] || exit 1
    exit 0
}
