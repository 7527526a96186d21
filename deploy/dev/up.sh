#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the suite in the background and waits until it answers. See suite.sh.
exec sh "$(dirname "$0")/suite.sh" up
