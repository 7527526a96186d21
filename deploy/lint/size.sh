#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files of at most 600 lines, functions of at most 75 (from their opening to their closing brace in column one).
# proto/messages.h is one table, a row a field, and may be as long as there are fields.
set -u
. "$(dirname "$0")/common.sh"
# shellcheck disable=SC2016 # awk's own
files '*.c' '*.h' '*.py' '*.sh' | xargs awk -v file_max=600 -v function_max=75 '
    FNR == 1 { if (last != "" && last != "proto/messages.h" && lines > file_max) print last ":1: size: " lines " lines, at most " file_max; last = FILENAME; start = 0 }
    { lines = FNR }
    FILENAME ~ /\.[ch]$/ && /^\{/ { start = FNR; name = before }
    FILENAME ~ /\.[ch]$/ && /^[A-Za-z].*\) *\{$/ && !/^(struct|enum|union|typedef)/ { start = FNR; name = $0 }
    FILENAME ~ /\.[ch]$/ && /^\}/ {
        if (start && FNR - start + 1 > function_max) print FILENAME ":" start ": size: function of " FNR - start + 1 " lines, at most " function_max ": " name
        start = 0 }
    /[^ \t]/ { before = $0 }
    END { if (lines > file_max) print last ":1: size: " lines " lines, at most " file_max }' > "$found"
finish
