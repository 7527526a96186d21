#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every shell script passes shellcheck; every Python file compiles.
set -u
. "$(dirname "$0")/common.sh"
files '*.sh' | xargs -r shellcheck -S warning -x -P SCRIPTDIR -e SC1091 -f gcc 2>&1 | sed 's/: \(note\|warning\|error\):/: shell:/' > "$found"
files '*.py' | while read -r file; do
    python3 -c 'import sys; compile(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1], "exec")' "$file" 2>&1 | tail -n 1 | sed "s|^|$file:1: python: |"
done >> "$found"
finish
