#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy with the checks of .clang-tidy.
set -u
. "$(dirname "$0")/common.sh"
# shellcheck disable=SC2046 # a list of words
tidy_flags="-std=gnu11 -D_GNU_SOURCE -I. $(pkg-config --cflags $(sed -n 's/^PKGS = //p' Makefile))"
export tidy_flags
# shellcheck disable=SC2016 # for the inner shell
files '*.c' | grep -v '^tests/' | xargs -P "$jobs" -n 4 sh -c '
    out=$(clang-tidy --quiet "$@" -- $tidy_flags 2>/dev/null |
        sed -n "s|^$PWD/||; s/^\([^ ]*:[0-9]*\):[0-9]*: \(warning\|error\): \(.*\)/\1: tidy: \3/p")
    [ -z "$out" ] || printf "%s\n" "$out"' sh > "$found"
finish
