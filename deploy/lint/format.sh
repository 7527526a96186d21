#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file is as clang-format makes it. `format.sh --fix` changes them.
set -u
. "$(dirname "$0")/common.sh"
if [ "${1:-}" = --fix ]; then
    files '*.c' '*.h' | xargs -P "$jobs" -n 8 clang-format -i
    exit
fi
# Each batch prints at once, so that lines of two batches do not mix.
# shellcheck disable=SC2016 # for the inner shell
files '*.c' '*.h' | xargs -P "$jobs" -n 8 sh -c '
    out=$(clang-format --dry-run --ferror-limit=1 "$@" 2>&1 |
        sed -n "s/^\([^: ]*:[0-9]*\):[0-9]*: .*code should be clang-formatted.*/\1: format: run make fmt/p")
    [ -z "$out" ] || printf "%s\n" "$out"' sh > "$found"
finish
