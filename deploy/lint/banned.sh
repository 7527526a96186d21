#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Calls that docs/style.md forbids; threads outside the actors; package hosts written into files.
set -u
. "$(dirname "$0")/common.sh"
files '*.c' '*.h' | xargs grep -nHE '(^|[^A-Za-z0-9_>.])(sprintf|vsprintf|strcpy|strcat|strncpy|strncat|strtok|atoi|atol|atoll|atof|gets|system|popen|alloca|tmpnam|mktemp)[[:space:]]*\(' |
    grep -vE '^[^:]*:[0-9]*:[[:space:]]*(\*|//|/\*)' |
    sed -E 's/^([^:]*:[0-9]*):.*[^A-Za-z0-9_]([a-z]+)[[:space:]]*\(.*/\1: banned: \2() (see docs\/style.md)/' > "$found"
# An open task belongs into an issue.
files '*.c' '*.h' '*.sh' '*.py' | grep -vE '^(deploy/lint|tests)/' | xargs grep -nHE '(//|/\*|^[[:space:]]*[*#]).*\b(TODO|FIXME|XXX|HACK)\b' |
    sed -E 's/^([^:]*:[0-9]*):.*/\1: banned: open task in a comment; file an issue/' >> "$found"
finish
