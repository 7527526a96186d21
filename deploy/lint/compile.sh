#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file compiles without a warning with gcc and clang (syntax only; the flags are the Makefile's).
set -u
. "$(dirname "$0")/common.sh"
warnings=$(sed -n '/^WARN = /,/[^\\]$/p' Makefile | sed 's/^WARN = //; s/\\$//' | tr '\n' ' ')
packages=$(sed -n 's/^PKGS = //p' Makefile)
# shellcheck disable=SC2086 # lists of words
flags="-std=gnu11 -D_GNU_SOURCE -I. -O1 -fsyntax-only $warnings $(pkg-config --cflags $packages)"
for compiler in gcc clang; do
    # shellcheck disable=SC2016 # for the inner shell
    files '*.c' | compile_with="$compiler $flags" xargs -P "$jobs" -n 4 sh -c '
        out=$($compile_with "$@" 2>&1 | grep -E "(warning|error):")
        [ -z "$out" ] || printf "%s\n" "$out"' sh >> "$found"
done
finish
