#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cppcheck with warnings, performance and portability; style has clang-tidy.
set -u
. "$(dirname "$0")/common.sh"
files '*.c' | grep -v '^tests/' |
    cppcheck --file-list=- -j "$jobs" -q --std=c11 --language=c -D_GNU_SOURCE -D__linux__ --library=deploy/lint/cppcheck.cfg -I. --enable=warning,performance,portability \
        --inline-suppr --suppressions-list=deploy/lint/cppcheck.txt --template='{file}:{line}: cppcheck: {message} [{id}]' 2> "$found"
finish
