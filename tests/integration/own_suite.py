# SPDX-License-Identifier: Apache-2.0
"""A second suite beside the one under test, for settings of its own. It lives below the first one's state directory, so that its leaks are seen, too."""

import contextlib
import os
import shutil
import subprocess
import tempfile

from api import WORKSPACES, SNAPSHOTS, Api, wait_until

DAEMONS = ("gateway", "gvisord")


@contextlib.contextmanager
def own_suite(is_ready=True, **settings):
    """An Api of a fresh suite with these settings; everything of it is gone afterwards. is_ready False: it cannot become so, and nobody waits."""
    state = tempfile.mkdtemp(prefix="own-", dir=os.environ["EW_STATE_DIR"])
    parent = "%s-%s" % (os.environ["EW_CGROUP_PARENT"], os.path.basename(state))
    env = dict(os.environ, EW_STATE_DIR=state, EW_RUN_DIR=os.path.join(state, "run"), SERVER_PORT="0", STANDALONE_API_KEY="k" * 40, EW_CGROUP_PARENT=parent,
               DATABASE_URL="")
    env.update(settings)
    kept = {name: os.environ[name] for name in ("EW_STATE_DIR", "EW_RUN_DIR", "EW_CGROUP_PARENT")}
    log = open(os.path.join(kept["EW_STATE_DIR"], "log", os.path.basename(state) + ".log"), "ab")
    daemons = [subprocess.Popen([os.path.join(os.environ["EW_TEST_BIN"], name)], env=env, stdout=log, stderr=log) for name in DAEMONS]
    try:
        os.environ.update({name: env[name] for name in kept})  # host.py looks there
        port = wait_until(lambda: os.path.exists(state + "/gateway.port") and open(state + "/gateway.port").read(), 20, "gateway is up")
        api = Api("http://127.0.0.1:" + port.strip(), "k" * 40)
        if is_ready:
            wait_until(lambda: api.get("/ready").status == 200, 60, "the second suite is ready")
        try:
            yield api
        finally:
            for row in api.get(WORKSPACES).json():
                api.delete("%s/%s" % (WORKSPACES, row["id"]))
            for row in api.get(SNAPSHOTS).json():
                api.delete("%s/%s" % (SNAPSHOTS, row["snapshot_id"]))
    finally:
        os.environ.update(kept)
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)
        log.close()
        if not any(line.split(" ")[1].startswith(state) for line in open("/proc/self/mounts")):
            shutil.rmtree(state, ignore_errors=True)
        for top in ("/sys/fs/cgroup/" + name for name in os.listdir("/sys/fs/cgroup")):
            for path, _, _ in os.walk(os.path.join(top, parent), topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    pass
