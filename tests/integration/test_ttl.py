# SPDX-License-Identifier: Apache-2.0
"""What nobody uses goes: expired workspaces, running or stopped; idle ones are stopped and come back with the next call. A sweep a minute is the least that
can be set, so everything that waits for one waits together."""

import threading
import time

import host
from api import SNAPSHOTS, WORKSPACES, wait_until
from own_suite import own_suite
from ticker import Ticker

SMALL = {"cpu": "1", "memory": "128M", "disk": "128M"}


def patch(ws, **fields):
    reply = ws.api.request("PATCH", ws.path, body=fields)
    assert reply.status == 200, reply
    return reply.json()


def is_gone(ws):
    return ws.api.get(ws.path).status == 404


def status_of(ws):
    reply = ws.api.get(ws.path)
    return reply.json()["status"] if reply.status == 200 else None


def test_S013_S014_S015_G04_G05_expiry_of_ready_and_stopped_ones_and_idle_stop(api):
    with own_suite(WORKSPACE_CLEANUP_INTERVAL_MIN="1", WORKSPACE_IDLE_STOP_MIN="1") as own:
        ready, stopped, kept, used, idle = (own.create(resource_limits=SMALL, warm_start=False) for _ in range(5))
        source = own.create(resource_limits=SMALL, warm_start=False)
        snapshot = source.does("snapshot", 201, ttl_seconds=1)["snapshot_id"]
        lasting = source.does("snapshot", 201)["snapshot_id"]
        ticker = Ticker(idle)
        ticker.wait_more()
        stopped.stop()
        for ws in (ready, stopped):
            assert patch(ws, ttl_seconds=1)["expires_at"]
        patch(used, ttl_seconds=100)
        end = threading.Event()

        def use():
            while not end.wait(2):
                used.sh("true")

        user = threading.Thread(target=use)
        user.start()
        try:
            wait_until(lambda: is_gone(ready) and is_gone(stopped), 150, "expired ones are destroyed")
            for ws in (ready, stopped):
                assert host.what_runs_of(ws.id) == [] and ws.id not in host.sandbox_ids(), ws.id
            wait_until(lambda: status_of(idle) == "stopped", 150, "an idle one is stopped")
            assert host.what_runs_of(idle.id) == []
            assert status_of(used) == "ready", "one that is used is not"
            wait_until(lambda: own.get("%s/%s" % (SNAPSHOTS, snapshot)).status == 404, 150, "an expired snapshot is removed")
            assert own.get("%s/%s" % (SNAPSHOTS, lasting)).status == 200
        finally:
            end.set()
            user.join(30)
        assert not is_gone(kept), "the default is weeks"
        # The next call does not notice: files, processes, output.
        assert idle.sh("echo alive") == "alive\n"
        assert status_of(idle) == "ready"
        ticker.wait_more()
        rows = {row["id"] for row in own.get(WORKSPACES).json()}
        assert host.sandbox_ids() == rows, "rows and sandboxes are the same"


test_S013_S014_S015_G04_G05_expiry_of_ready_and_stopped_ones_and_idle_stop.seconds = 600


def test_S015_use_extends_by_the_workspaces_own_time_to_live(make):
    ws = make(resource_limits=SMALL)
    before = patch(ws, ttl_seconds=600)["expires_at"]
    time.sleep(0.05)
    ws.sh("true")
    after = wait_until(lambda: (lambda text: text if text > before else None)(ws.show()["expires_at"]), 15, "use moves the end")
    assert after > before
