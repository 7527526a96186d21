#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the suite in the foreground until Ctrl-C, after a first workspace did some work. See suite.sh.
exec sh "$(dirname "$0")/suite.sh" run
