# SPDX-License-Identifier: Apache-2.0
"""Warm pools over REST: set, filled, claimed, refilled, emptied (S-003, S-004, S-019 to S-021)."""

import os
import time

from api import WORKSPACES, Api, Workspace, wait_until

POOLS = "/api/v1/admin/warm-pools"
SMALL = {"container_type": "agent_workspace", "provider": os.environ.get("EW_TEST_PROVIDER", "gvisor"),
         "resource_limits": {"cpu": "1", "memory": "256M", "disk": "256M"}}


def set_pools(api, *pools):
    reply = api.request("PUT", POOLS, {"pools": list(pools)})
    assert reply.status == 200, reply
    return reply.json()


def pool(size):
    return {"disk": "256M", "network": "none", "size": size}


def status(api):
    """The first pool of the first node, {} when there is none."""
    nodes = api.get(POOLS).json()["nodes"]
    return nodes[0]["pools"][0] if nodes and nodes[0]["pools"] else {}


def wait_ready(api, count):
    wait_until(lambda: status(api).get("ready") == count, 60, "%d are warm: %s" % (count, status(api)))


def empty(api):
    set_pools(api)
    wait_until(lambda: status(api) == {}, 30, "the pools are gone")


def metric(api, name, **labels):
    total = 0
    for line in api.get("/metrics").body.decode().splitlines():
        if line.startswith(name + "{") and all('%s="%s"' % item in line for item in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def test_S003_S019_S020_a_create_takes_a_warm_one_and_the_pool_is_refilled(api):
    before = len(api.get(WORKSPACES).json())
    set_pools(api, pool(2))
    try:
        wait_ready(api, 2)
        assert len(api.get(WORKSPACES).json()) == before, "what is warm is nobody's workspace"
        hits = metric(api, "ew_warm_pool_hits_total")
        reply = api.post(WORKSPACES, dict(SMALL, env={"COLOR": "green"}))
        assert reply.status == 201 and reply.json()["status"] == "ready", "a warm create is ready at once: %s" % reply.json()
        row = reply.json()
        assert row["metadata"]["warm"] is True, row
        ws = Workspace(api, row)
        assert ws.sh("echo $COLOR; hostname; cat /etc/machine-id") == \
            "green\n%s\n%s\n" % (ws.id, ws.id.replace("-", ""))
        assert ws.sh("df -B1M --output=size /workspace | tail -n 1 | tr -d ' '") in ("%d\n" % n for n in range(200, 257)), "the disk is as asked"
        second = api.post(WORKSPACES, SMALL).json()
        assert second["metadata"]["warm"] is True and second["id"] != row["id"]
        assert Workspace(api, second).sh("echo [$COLOR]; ls -A /workspace /tmp | wc -l").startswith("[]\n"), "nothing of another is in it"
        assert metric(api, "ew_warm_pool_hits_total") == hits + 2 or wait_until(
            lambda: metric(api, "ew_warm_pool_hits_total") == hits + 2, 5, "hits are counted")
        wait_ready(api, 2)
        for ident in (row["id"], second["id"]):
            assert api.delete("%s/%s" % (WORKSPACES, ident)).status == 204
    finally:
        empty(api)


def test_S004_a_miss_is_counted_with_its_reason_and_made_cold(api):
    set_pools(api, pool(1))
    try:
        wait_ready(api, 1)
        other = metric(api, "ew_warm_pool_misses_total", reason="no_such_pool")
        row = api.post(WORKSPACES + "?wait=30", dict(SMALL, resource_limits={"cpu": "1", "memory": "256M", "disk": "300M"})).json()
        assert row["status"] == "ready" and row["metadata"]["warm"] is False, row
        wait_until(lambda: metric(api, "ew_warm_pool_misses_total", reason="no_such_pool") == other + 1, 5, "counted")
        cold = api.post(WORKSPACES + "?wait=30", dict(SMALL, warm_start=False)).json()
        assert cold["metadata"]["warm"] is False
        first = api.post(WORKSPACES, SMALL).json()
        assert first["metadata"].get("warm") is True, first
        second = api.post(WORKSPACES + "?wait=30", SMALL).json()
        wait_until(lambda: metric(api, "ew_warm_pool_hits_total") + metric(api, "ew_warm_pool_misses_total", reason="empty") > 0, 5, "counted")
        for ident in (row["id"], cold["id"], first["id"], second["id"]):
            assert api.delete("%s/%s" % (WORKSPACES, ident)).status == 204
    finally:
        empty(api)


def test_S021_sizes_change_and_pools_go(api):
    try:
        set_pools(api, pool(3))
        wait_ready(api, 3)
        set_pools(api, pool(1))
        wait_ready(api, 1)
        shown = api.get(POOLS).json()
        assert shown["source"] == "api" and shown["pools"][0]["size"] == 1, shown
    finally:
        empty(api)
    assert api.request("DELETE", POOLS).json()["source"] == "config"


def test_a_warm_one_has_the_limits_of_its_create(api):
    set_pools(api, pool(1))
    try:
        wait_ready(api, 1)
        row = api.post(WORKSPACES, SMALL).json()
        assert row["metadata"].get("warm") is True, row
        ws = Workspace(api, row)
        reply = ws.call("bash", command="head -c 400M /dev/zero | tail -n 1 | wc -c", timeout_ms=60000)
        assert reply.status == 200 and reply.json()["stdout"] != "419430400\n", "256M are the limit, whatever the pool had: %s" % reply.json()
        assert ws.sh("echo alive") == "alive\n"
        assert api.delete(ws.path).status == 204
    finally:
        empty(api)


def test_one_whose_process_is_killed_is_not_given_away(api):
    set_pools(api, pool(1))
    try:
        wait_ready(api, 1)
        base = os.path.join(os.environ["EW_STATE_DIR"], "gvisord", "sandboxes")
        host_id = os.listdir(base)[0]
        with open(os.path.join(base, host_id, "pid")) as file:
            os.kill(int(file.read()), 9)
        row = api.post(WORKSPACES + "?wait=30", SMALL).json()
        assert row["status"] == "ready", row
        assert Workspace(api, row).sh("echo works") == "works\n"
        wait_ready(api, 1)
        assert api.delete("%s/%s" % (WORKSPACES, row["id"])).status == 204
    finally:
        empty(api)


def test_bad_pools_are_refused(api):
    def refused(body, text, status=400):
        reply = api.request("PUT", POOLS, body)
        assert reply.status == status and text in reply.json()["error"]["message"], reply

    refused({}, "pools is required")
    refused({"pools": [{"provider": "docker", "size": 1}]}, "provider must be one of")
    refused({"pools": [{"disk": "many", "size": 1}]}, "disk must be a size")
    refused({"pools": [{"network": "wifi", "size": 1}]}, "network")
    refused({"pools": [{"size": 1}, {"size": 2}]}, "same shape")
    refused({"pools": [{"size": 10000}, {"size": 1, "disk": "1G"}]}, "together", 422)
    key = api.post("/api/v1/admin/api-keys", {"name": "tenant", "scopes": ["admin:read", "admin:write"]}).json()
    other = Api(api.url, key["key"])
    assert other.request("PUT", POOLS, {"pools": []}).status == 403
    assert api.delete("/api/v1/admin/api-keys/" + key["id"]).status == 204


def test_a_burst_is_served_from_the_pool(api):
    """Ten at once: each its own sandbox, all warm, none slower than a second even on a busy machine."""
    import threading
    set_pools(api, pool(10))
    try:
        wait_ready(api, 10)
        rows, began = [], time.monotonic()
        threads = [threading.Thread(target=lambda: rows.append(Api(api.url, api.key).post(WORKSPACES + "?wait=30", SMALL).json())) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        took = time.monotonic() - began
        assert len({row["id"] for row in rows}) == 10 and all(row["metadata"].get("warm") for row in rows), rows
        assert took < 10, took
        for row in rows:
            assert api.delete("%s/%s" % (WORKSPACES, row["id"])).status == 204
    finally:
        empty(api)
