# SPDX-License-Identifier: Apache-2.0
"""The database goes away and comes back: tool calls go on, lifecycle calls say so, nothing is lost. PostgreSQL only: a file does not go away."""

import os
import subprocess
import threading
import time

from api import WORKSPACES, wait_until
from test_restart import kill, pid_of, restarted_api, start_background, suite

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = {"container_type": "agent_workspace", "warm_start": False, "resource_limits": {"cpu": "1", "memory": "256M", "disk": "256M"}}


def database(verb):
    result = subprocess.run(["sh", os.path.join(HERE, "postgres.sh"), verb, os.environ["EW_TEST_DATABASE_DIR"]], check=False)
    assert result.returncode == 0, "the database does not %s" % verb


def wait_until_down(api):
    wait_until(lambda: api.get("/ready").status == 503, 10, "the gateway notices")


def wait_until_back(api):
    wait_until(lambda: api.get("/ready").status == 200, 20, "the gateway comes back by itself")


def expect_unavailable(reply):
    assert reply.status == 503 and reply.code == "database_unavailable", reply
    assert reply.message == "the database cannot be reached now; retry in a moment", reply
    assert reply.headers.get("Retry-After"), reply


def ids(api):
    return {row["id"] for row in api.get(WORKSPACES).json()}


def check_tools_go_on(ws, number):
    for i in range(20):
        began = time.monotonic()
        assert ws.sh("echo %d | tee -a while_down.txt" % i) == "%d\n" % i
        assert time.monotonic() - began < 3, "a tool call does not wait for the database"
    assert ws.call("write", file_path="new.txt", content="new\n").status == 200
    running = {p["process_id"]: p["state"] for p in ws.processes()}
    assert running.get(number) == "running", running


def test_while_the_database_is_down_tool_calls_go_on_and_lifecycle_calls_say_so(api, fresh, make):
    other = make(**SMALL)
    number = start_background(fresh)
    before = ids(api)
    database("stop")
    try:
        wait_until_down(api)
        health = api.get("/health").json()
        assert health["status"] == "degraded" and "database" in health["database"], health
        expect_unavailable(api.get("/ready"))
        expect_unavailable(api.post(WORKSPACES, SMALL))
        expect_unavailable(api.post(WORKSPACES + "?wait=10", SMALL))
        expect_unavailable(api.delete(other.path))
        expect_unavailable(api.post("/api/v1/admin/api-keys", {"name": "while-down", "scopes": ["admin:read"]}))
        assert ids(api) == before, "what failed is not there, what was there is"
        check_tools_go_on(fresh, number)
        assert other.sh("echo still here") == "still here\n"
    finally:
        database("start")
    wait_until_back(api)
    assert api.get("/health").json()["database"] == "ok"
    assert ids(api) == before
    check_tools_go_on(fresh, number)
    make(**SMALL)
    assert api.delete(other.path).status == 204
    other.delete = lambda: None


def test_a_gateway_that_starts_before_its_database_waits_for_it(api, fresh):
    fresh.sh("echo kept > kept.txt")
    before = ids(api)
    kill("gateway")
    database("crash")
    later = threading.Timer(2, database, ["start"])
    later.start()
    suite("up")
    later.join()
    restarted_api(api)
    assert ids(api) == before
    wait_until(lambda: fresh.call("bash", command="true").status == 200, 30, "workspace answers again")
    assert fresh.sh("cat kept.txt") == "kept\n"


def crash_amid_creates(api, delay):
    """Returns what was acknowledged; nothing else may be there."""
    before = ids(api)
    made, refused = set(), []

    def create(number):
        for _ in range(2):
            reply = api.post(WORKSPACES, SMALL)
            if reply.status == 201:
                made.add(reply.json()["id"])
            else:
                refused.append(reply)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(delay)  # the moment of the crash is what is varied
    database("crash")
    database("start")
    for thread in threads:
        thread.join(60)
    wait_until_back(api)
    for reply in refused:
        expect_unavailable(reply)
    assert ids(api) - before == made, "exactly what was acknowledged: %s, %s" % (ids(api) - before, made)
    return made


def test_kill_9_of_the_database_amid_creates_leaves_true_rows(api):
    before = ids(api)
    made = set()
    for delay in (0.005, 0.02, 0.05):
        made |= crash_amid_creates(api, delay)
    kill("gateway")
    suite("up")
    restarted_api(api)
    assert ids(api) == before | made, "the rows say the same as the memory did"
    wait_until(lambda: all(row["status"] == "ready" for row in api.get(WORKSPACES).json() if row["id"] in made), 120, "all become ready")
    for ident in made:
        assert api.delete("%s/%s" % (WORKSPACES, ident)).status == 204


test_kill_9_of_the_database_amid_creates_leaves_true_rows.seconds = 300


def test_the_last_use_during_an_outage_is_kept(api, fresh):
    database("stop")
    try:
        wait_until_down(api)
        fresh.sh("true")
        used = fresh.show()["last_used_at"]
        time.sleep(2.5)  # last uses are written each second: more than one attempt meets no database
    finally:
        database("start")
    wait_until_back(api)
    time.sleep(2.5)
    kill("gateway")
    suite("up")
    restarted_api(api)
    assert fresh.show()["last_used_at"] == used


def test_the_password_is_nowhere_to_be_seen(api):
    pid = pid_of("gateway")
    for name in ("environ", "cmdline"):
        with open("/proc/%d/%s" % (pid, name), "rb") as file:
            assert b"p%40ss" not in file.read(), name
    for path in ("/health", "/ready", "/metrics"):
        assert "p%40ss" not in api.get(path).body.decode()


if os.environ.get("EW_TEST_DATABASE") != "postgres":
    for _name in [name for name in globals() if name.startswith("test_")]:
        del globals()[_name]
