# SPDX-License-Identifier: Apache-2.0
"""A daemon that is started with other settings still finds, serves and ends the sandboxes it made before."""

import os
import signal

from api import wait_until
from test_restart import is_alive, pid_of, restarted_api, suite


def stop(daemon):
    pid = pid_of(daemon)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), 20, "%s has ended" % daemon)


def sandbox_processes(text):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % name, "rb") as file:
                if text.encode() in file.read():
                    found.append(name)
        except OSError:
            pass
    return found


def test_another_cgroup_parent_leaves_no_process_behind(api, fresh):
    kept = os.environ["EW_CGROUP_PARENT"]
    daemon = os.environ.get("EW_TEST_DAEMON", "gvisord")
    stop(daemon)
    os.environ["EW_CGROUP_PARENT"] = kept + "-other"
    try:
        suite("up")
        wait_until(lambda: fresh.call("bash", command="true").status == 200, 30, "workspace answers again")
        assert sandbox_processes(fresh.id), "the sandbox runs"
        assert api.delete(fresh.path).status == 204
        assert sandbox_processes(fresh.id) == []
    finally:
        os.environ["EW_CGROUP_PARENT"] = kept
        stop(daemon)
        suite("up")
        restarted_api(api)
