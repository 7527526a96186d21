#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every check, one line per finding, exit code 1 if there is one. `all.sh format size` runs only these.
set -u
here=$(dirname "$0")
code=0
# shellcheck disable=SC2048 # a list of words
for check in ${*:-format spdx size banned shell licenses compile cppcheck tidy}; do
    began=$(date +%s)
    "$here/$check.sh" || code=1
    echo "lint: $check took $(($(date +%s) - began)) s" >&2
done
exit $code
