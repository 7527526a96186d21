# SPDX-License-Identifier: Apache-2.0
"""A snapshot stands on its own; what is made from it, or by fork, goes on from there and shares nothing."""

import os
import re
import threading
import time
import uuid

import host
from api import SNAPSHOTS, WORKSPACES, Workspace, wait_until
from test_auth import KEYS, make_key
from test_restart import kill, restarted_api, suite
from ticker import Ticker

SMALL = {"cpu": "1", "memory": "256M", "disk": "256M"}


class Snapshot:
    """Taken of a workspace, deleted at the end of the with."""

    def __init__(self, ws, **fields):
        self.api = ws.api
        self.row = ws.does("snapshot", 201, **fields)
        self.id = self.row["snapshot_id"]
        self.path = "%s/%s" % (SNAPSHOTS, self.id)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.api.delete(self.path)

    def show(self):
        reply = self.api.get(self.path)
        assert reply.status == 200, reply
        return reply.json()

    def restore(self, made, wait=60, **fields):
        """A workspace from it, which is deleted after the test: made is a list of the test."""
        reply = self.api.post("%s/from-snapshot?wait=%d" % (WORKSPACES, wait), dict(fields, snapshot_id=self.id))
        assert reply.status == 201, reply
        ws = Workspace(self.api, reply.json())
        made.append(ws)
        ws.wait_for("ready")
        return ws


class Made(list):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        for ws in self:
            ws.delete()


def fork(ws, made, **fields):
    rows = ws.does("fork", 201, **fields)["workspaces"]
    made.extend(Workspace(ws.api, row) for row in rows)
    copies = made[len(made) - len(rows):]
    for copy in copies:
        copy.wait_for("ready")
    return copies


def test_S029_a_snapshot_of_a_running_workspace_tells_what_it_is(api, make):
    ws = make(resource_limits=SMALL)
    ws.write("kept.txt", "kept")
    with Snapshot(ws, name="first", description="before the change") as snap:
        assert uuid.UUID(snap.id)
        row = snap.show()
        assert row == dict(snap.row, **row), (row, snap.row)
        assert row["status"] == "ready" and row["workspace_id"] == ws.id and row["name"] == "first" and row["description"] == "before the change", row
        assert row["size_bytes"] > 0 and row["has_processes"] is True and row["resource_limits"] == SMALL, row
        assert "stall_ms" in row and row["stall_ms"] < 5000, row
        assert ws.show()["status"] == "ready" and ws.row["snapshot_id"] == snap.id, ws.row
        assert snap.id in [r["snapshot_id"] for r in api.get(SNAPSHOTS).json()]
        assert os.path.isdir(host.provider_dir("snapshots", snap.id))
        assert api.delete(snap.path).status == 204
        assert api.get(snap.path).status == 404 and api.delete(snap.path).status == 404
        assert snap.id not in [r["snapshot_id"] for r in api.get(SNAPSHOTS).json()]
        assert not os.path.exists(host.provider_dir("snapshots", snap.id)), "nothing is left of it on disk"


def test_S030_S031_S032_restored_with_files_and_processes_and_the_original_goes_on(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ws.sh("echo before > file; mkdir -p d && echo x > d/y")
    ticker.wait_more()
    with Snapshot(ws) as snap, Made() as made:
        at = ticker.read(wait_ms=0)
        ws.sh("echo after > file; rm -r d")
        ticker.wait_more(10)
        copy = snap.restore(made)
        assert copy.id != ws.id and copy.row["snapshot_id"] == snap.id, copy.row
        assert copy.sh("cat file d/y") == "before\nx\n" and ws.sh("cat file") == "after\n"
        twin = ticker.of(copy)
        twin.seen, twin.offset = 0, 0
        twin.wait_more(at + 3)
        ticker.wait_more(5)
        copy.sh("echo copy > file")
        assert ws.sh("cat file") == "after\n"


def test_a_snapshot_of_a_stopped_workspace(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ticker.wait_more()
    ws.write("file", "stopped")
    ws.stop()
    with Snapshot(ws) as snap, Made() as made:
        assert ws.show()["status"] == "stopped", "it stays as it was"
        copy = snap.restore(made)
        assert copy.read_bytes("file") == b"stopped"
        if snap.row["has_processes"]:
            ticker.of(copy).wait_more()
        ws.resume()
        ticker.wait_more()


def test_a_snapshot_without_processes_holds_files_only(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ws.write("file", "kept")
    with Snapshot(ws, without_processes=True) as snap, Made() as made:
        assert snap.row["has_processes"] is False, snap.row
        copy = snap.restore(made)
        assert copy.read_bytes("file") == b"kept" and not ticker.of(copy).is_running()
        ticker.wait_more()


def test_G46_a_snapshot_outlives_its_source(api, make):
    ws = make(resource_limits=SMALL, env={"GREETING": "hello"})
    ticker = Ticker(ws)
    ws.write("file", "kept")
    ticker.wait_more()
    with Snapshot(ws) as snap, Made() as made:
        ws.delete()
        assert api.get(ws.path).status == 404 and host.what_runs_of(ws.id) == []
        assert snap.show()["status"] == "ready"
        first, second = snap.restore(made), snap.restore(made)
        for copy in (first, second):
            assert copy.read_bytes("file") == b"kept"
            ticker.of(copy).wait_more()
        assert api.delete(snap.path).status == 204
        first.stop()
        first.resume()
        assert first.read_bytes("file") == b"kept", "what was made from it does not need it"
        ticker.of(second).wait_more(6)


def test_snapshots_live_through_a_restart_of_all(api, make):
    ws = make(resource_limits=SMALL)
    ws.write("file", "kept")
    with Snapshot(ws, name="kept") as snap, Made() as made:
        before = snap.show()
        kill("gateway")
        kill(os.environ.get("EW_TEST_DAEMON", "gvisord"))
        suite("up")
        restarted_api(api)
        assert snap.show() == before
        wait_until(lambda: api.get("/ready").status == 200, 30, "ready")
        assert snap.restore(made).read_bytes("file") == b"kept"


def test_a_kill_amid_a_snapshot_leaves_a_whole_one_or_none(api, make):
    ws = make(resource_limits=SMALL)
    ws.sh("head -c 50000000 /dev/urandom > data; sha256sum data > sum")
    daemon = os.environ.get("EW_TEST_DAEMON", "gvisord")
    for victim in ("gateway", daemon):
        for delay in (0.02, 0.15, 0.4):
            ended = {}

            def take():
                try:
                    ended["reply"] = api.post(ws.path + "/snapshot", {"name": "amid"})
                except OSError:
                    pass

            thread = threading.Thread(target=take)
            thread.start()
            time.sleep(delay)  # the moment of the kill is what is varied
            kill(victim)
            suite("up")
            restarted_api(api)
            thread.join(60)
            rows = wait_until(lambda: (lambda rows: rows if not [r for r in rows if r["status"] in ("creating", "deleting")] else None)(
                api.get(SNAPSHOTS).json() + [{"status": "end"}]), 60, "snapshots come to rest")[:-1]
            good = [row for row in rows if row["status"] == "ready"]
            reply = ended.get("reply")
            at = (victim, delay, reply, rows)
            assert reply is None or reply.status in (201, 503), at
            if reply is not None and reply.status == 201:
                assert [row["snapshot_id"] for row in good] == [reply.json()["snapshot_id"]], at
            for row in good:
                with Made() as made:
                    wait_until(lambda: api.get("/ready").status == 200, 30, "ready")
                    reply = api.post(WORKSPACES + "/from-snapshot?wait=60", {"snapshot_id": row["snapshot_id"]})
                    assert reply.status == 201, reply
                    made.append(Workspace(api, reply.json()))
                    made[0].wait_for("ready")
                    assert made[0].sh("sha256sum -c sum") == "data: OK\n"
            for row in rows:
                assert api.delete("%s/%s" % (SNAPSHOTS, row["snapshot_id"])).status == 204, row
            wait_until(lambda: not host.snapshot_names(), 20, "nothing is left on disk")
            wait_until(lambda: ws.call("bash", command="sha256sum -c sum").status == 200, 30, "the workspace is unharmed")


test_a_kill_amid_a_snapshot_leaves_a_whole_one_or_none.seconds = 300


def test_unknown_and_malformed_snapshots(api, make):
    ws = make(resource_limits=SMALL)
    unknown = str(uuid.uuid4())
    for method in ("GET", "DELETE"):
        reply = api.request(method, "%s/%s" % (SNAPSHOTS, unknown))
        assert reply.status == 404 and reply.code == "not_found" and unknown in reply.message, (method, reply)
        for bad in ("x", "..%2f..%2fetc", unknown + "0"):
            assert api.request(method, "%s/%s" % (SNAPSHOTS, bad)).status in (400, 404), bad
    reply = api.post(WORKSPACES + "/from-snapshot", {"snapshot_id": unknown})
    assert reply.status == 404 and unknown in reply.message, reply
    reply = api.post(WORKSPACES + "/from-snapshot", {})
    assert reply.status == 400 and "snapshot_id is required" in reply.message, reply
    for bad in ("x", "../../sandboxes/" + ws.id, ws.id, "a" * 5000):
        reply = api.post(WORKSPACES + "/from-snapshot", {"snapshot_id": bad})
        assert reply.status in (400, 404), (bad, reply)
    assert host.snapshot_names() == set()


def test_G43_a_foreign_snapshot_does_not_exist(api, make):
    ws = make(resource_limits=SMALL)
    number, other = make_key(api, owner="somebody-else")
    with Snapshot(ws) as snap:
        for method, path, body in (("GET", snap.path, None), ("DELETE", snap.path, None), ("POST", WORKSPACES + "/from-snapshot", {"snapshot_id": snap.id}),
                                   ("POST", ws.path + "/snapshot", {}), ("POST", ws.path + "/fork", {}), ("POST", ws.path + "/stop", {})):
            reply = other.request(method, path, body=body)
            assert reply.status == 404, (method, path, reply)
        assert other.get(SNAPSHOTS).json() == []
        assert snap.show()["status"] == "ready"
    api.delete("%s/%s" % (KEYS, number))


def test_G44_limits_of_the_copy_are_the_sources_or_larger(api, make):
    ws = make(resource_limits=SMALL)
    ws.sh("head -c 100000000 /dev/urandom > data; sha256sum data > sum")
    with Snapshot(ws) as snap, Made() as made:
        assert snap.restore(made).show()["resource_limits"] == SMALL
        large = snap.restore(made, resource_limits={"disk": "600M"}, metadata={"ticket": 7}, env={"NEW": "yes"})
        assert large.show()["resource_limits"] == dict(SMALL, disk="600M") and large.row["metadata"]["ticket"] == 7, large.row
        assert large.sh("sha256sum -c sum; echo $NEW") == "data: OK\nyes\n"
        large.sh("head -c 350000000 /dev/zero > more && rm more")
        reply = api.post(WORKSPACES + "/from-snapshot?wait=30", {"snapshot_id": snap.id, "resource_limits": {"disk": "64M"}})
        assert reply.status in (400, 422) and "disk" in reply.message, reply


def test_from_snapshot_counts_against_the_limit_and_takes_a_session(api, make):
    ws = make(resource_limits=SMALL)
    session = str(uuid.uuid4())
    with Snapshot(ws) as snap, Made() as made:
        copy = snap.restore(made, agent_session_id=session)
        assert copy.show()["agent_session_id"] == session, copy.row
        assert copy.row["lifecycle"] == "ephemeral" and copy.row["expires_at"] > copy.row["created_at"], copy.row


def identity(ws):
    text = ws.sh("cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1; "
                 "python3 -c 'import random; print(random.SystemRandom().random())'")
    values = text.splitlines()
    assert len(values) == 4 and all(values), values
    return values


def test_forks_go_on_independently_and_are_somebody_else_each(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    # The shell seeds $RANDOM from what a copy has, too; the kernel's numbers must differ all the same.
    ws.sh("echo shared > file")
    ticker.wait_more()
    with Made() as made:
        copies = fork(ws, made, count=3, metadata={"of": ws.id})
        assert len({copy.id for copy in copies} | {ws.id}) == 4
        twins = [ticker.of(copy) for copy in copies]
        for twin, copy in zip(twins, copies):
            assert copy.row["metadata"]["of"] == ws.id, copy.row
            twin.wait_more(3)
        ticker.wait_more(3)
        for number, copy in enumerate(copies):
            assert copy.sh("cat file") == "shared\n"
            copy.sh("echo %d > file" % number)
        assert [copy.sh("cat file") for copy in copies] == ["0\n", "1\n", "2\n"] and ws.sh("cat file") == "shared\n"
        made[0].api.post("%s/processes/%d/signal" % (copies[0].path, ticker.number), {"signal": "KILL", "tree": True})
        wait_until(lambda: not twins[0].is_running(), 10, "one ends")
        assert twins[1].is_running() and ticker.is_running(), "the others go on"
        facts = [identity(each) for each in [ws] + copies]
        for kind, values in zip(("machine-id", "hostname", "random bytes", "random number"), zip(*facts)):
            assert len(set(values)) == 4, "%s is not one's own: %s" % (kind, values)
    assert host.snapshot_names() == set(), "what a fork needed in between is gone"


def test_fork_of_a_stopped_one_and_its_bounds(api, make):
    ws = make(resource_limits=SMALL)
    ws.write("file", "kept")
    ticker = Ticker(ws)
    ticker.wait_more()
    ws.stop()
    with Made() as made:
        copy = fork(ws, made)[0]
        assert len(made) == 1 and copy.read_bytes("file") == b"kept"
        assert ws.show()["status"] == "stopped"
        bare = fork(ws, made, without_processes=True, env={"NEW": "yes"})[0]
        assert bare.sh("cat file; echo $NEW") == "keptyes\n" and not ticker.of(bare).is_running()
    for count in (-1, 101, "two"):
        reply = api.post(ws.path + "/fork", {"count": count})
        assert reply.status in (400, 422), (count, reply)


def test_a_fork_beyond_the_limit_makes_none(api, make):
    ws = make(resource_limits=SMALL)
    before = {row["id"] for row in api.get(WORKSPACES).json()}
    reply = api.post(ws.path + "/fork", {"count": 100})
    assert reply.status == 429 and reply.headers.get("Retry-After"), reply
    assert re.search(r"limit reached \(\d+\)", reply.message), reply
    assert {row["id"] for row in api.get(WORKSPACES).json()} == before, "all or none"
    assert host.snapshot_names() == set()


def test_a_snapshot_is_closed_to_others_and_its_secrets_stay_in_it(api, make):
    marker = "swordfish-%s" % uuid.uuid4().hex
    ws = make(resource_limits=SMALL, env={"API_TOKEN": marker})
    ws.start("bash", "-c", "held=%s; exec sleep 1000" % marker)
    with Snapshot(ws) as snap, Made() as made:
        base = host.provider_dir("snapshots", snap.id)
        assert os.stat(base).st_mode & 0o777 == 0o700
        assert host.open_to_others(base) == [], "0700 and 0600 throughout"
        assert marker not in str(snap.show())
        copy = snap.restore(made)
        assert copy.sh("echo ${API_TOKEN:-none}") == "none\n", "commands of the copy do not get the source's secrets"


def test_G47_snapshots_are_listed_newest_first_and_by_workspace(api, make):
    ws = make(resource_limits=SMALL)
    with Snapshot(ws, name="a") as first, Snapshot(ws, name="b") as second:
        rows = [row for row in api.get(SNAPSHOTS).json() if row["workspace_id"] == ws.id]
        assert [row["snapshot_id"] for row in rows] == [second.id, first.id], rows
        assert first.id != second.id


def test_a_snapshot_with_a_time_to_live_says_when_it_goes(make):
    ws = make(resource_limits=SMALL)
    with Snapshot(ws, ttl_seconds=3600) as snap:
        row = snap.show()
        assert row["expires_at"] > row["created_at"], row
    with Snapshot(ws) as snap:
        assert "expires_at" not in snap.show()
