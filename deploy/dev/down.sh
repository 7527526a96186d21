#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stops the daemons of the suite; sandboxes live on. See suite.sh.
exec sh "$(dirname "$0")/suite.sh" down
