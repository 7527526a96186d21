#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every source, script and document of ours names its licence at its beginning (scripts: below `#!`). Texts that are themselves data of a test,
# and Markdown, which is covered by LICENSE, are left out.
set -u
. "$(dirname "$0")/common.sh"
files '*.c' '*.h' '*.def' '*.sh' '*.py' '*.sql' '*.yml' '*.yaml' '*.mk' '*.service' '*.cfg' '*.html' '*.js' '*.css' Makefile deploy/packages.txt | grep -v '^tests/fuzz/corpus/' |
    while read -r file; do
        head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$file:1: spdx: the first line must name Apache-2.0"
    done > "$found"
finish
