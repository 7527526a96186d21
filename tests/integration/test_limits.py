# SPDX-License-Identifier: Apache-2.0
"""What a workspace uses beyond its limits ends itself, not the workspace and not its neighbours."""

import os
import signal
import threading
import time

import host
from api import WORKSPACES, Api, Workspace, provider, wait_until
from own_suite import own_suite
from test_auth import make_key
from test_lifecycle import limits_of_host
from ticker import Ticker

SMALL = {"cpu": "1", "memory": "512M", "disk": "256M"}
BOMB = "b() { b | b & }; b; sleep 1000"


def answers(ws):
    reply = ws.call("bash", command="echo alive", timeout_ms=20000)
    return reply.status == 200 and reply.json()["stdout"] == "alive\n"


def test_S017_a_fork_bomb_is_ended_and_the_workspace_lives_on(make):
    ws, neighbour = make(resource_limits=SMALL), make(resource_limits=SMALL)
    ws.write("kept.txt", "kept")
    result = ws.bash(BOMB, timeout_ms=60000)
    assert result["exit_code"] != 0, result
    wait_until(lambda: answers(ws), 60, "workspace answers after the bomb")
    assert ws.read_bytes("kept.txt") == b"kept"
    assert ws.show()["status"] == "ready", ws.row
    left = int(ws.sh("ls /proc | grep -c '^[0-9]'"))
    assert left < 20, "%d processes are left" % left
    assert answers(neighbour)


def test_S017_a_fork_bomb_that_ignores_term_ends_at_its_deadline(make):
    ws = make(resource_limits=SMALL)
    result = ws.bash("trap '' TERM; " + BOMB, timeout_ms=3000)
    assert result["exit_code"] != 0, result
    wait_until(lambda: answers(ws), 60, "workspace answers after the bomb")


HOG = "python3 -c 'b = bytearray(1)\nwhile True: b += bytes(8 << 20)'"


def test_S017_a_process_that_takes_all_memory_is_killed_and_what_follows_is_not(make):
    ws = make(resource_limits={"cpu": "1", "memory": "256M", "disk": "256M"})
    for _ in range(3):
        result = ws.bash(HOG, timeout_ms=60000)
        assert result["exit_code"] == 137, result
        assert any("memory" in warning for warning in result.get("warnings", [])), result
        for _ in range(5):
            began = time.monotonic()
            assert ws.sh("echo alive") == "alive\n"
            assert time.monotonic() - began < 20
    assert ws.show()["status"] == "ready", ws.row


def test_temporary_files_count_as_disk_and_not_as_memory(make):
    ws = make(resource_limits={"cpu": "1", "memory": "256M", "disk": "256M"})
    result = ws.bash("head -c 400000000 /dev/zero > /tmp/big")
    assert result["exit_code"] != 0 and "No space left" in result["stderr"], result
    assert ws.sh("rm /tmp/big; stat -c %a /tmp") == "1777\n"


def test_S001_S124_S192_G07_default_limits_are_in_force(make):
    ws = make(resource_limits=None)
    assert ws.show()["resource_limits"] == {"cpu": "2", "memory": "4G", "disk": "10G"}, ws.row
    name, value = limits_of_host(ws, ("cpu.max", "cpu.cfs_quota_us"))
    period = int(value[1]) if name == "cpu.max" else int(limits_of_host(ws, ("cpu.cfs_period_us",))[1][0])
    assert int(value[0]) == 2 * period, value
    _, value = limits_of_host(ws, ("memory.max", "memory.limit_in_bytes"))
    assert 4 << 30 <= int(value[0]) <= int(1.2 * (4 << 30)), value
    assert 9 << 30 < int(ws.sh("df -B1 --output=size /workspace | tail -n 1")) <= 10 << 30


def test_limits_are_in_force_after_resume_from_snapshot_and_in_forks(make):
    ws = make(resource_limits={"cpu": "0.5", "memory": "256M", "disk": "256M"})

    def check(each):
        name, value = limits_of_host(each, ("cpu.max", "cpu.cfs_quota_us"))
        period = int(value[1]) if name == "cpu.max" else int(limits_of_host(each, ("cpu.cfs_period_us",))[1][0])
        assert int(value[0]) * 2 == period, (name, value)
        _, value = limits_of_host(each, ("memory.max", "memory.limit_in_bytes"))
        assert 256 << 20 <= int(value[0]) <= 512 << 20, value
        assert int(each.sh("df -B1 --output=size /workspace | tail -n 1")) <= 256 << 20
        result = each.bash(HOG, timeout_ms=60000)
        assert result["exit_code"] == 137 and any("memory" in w for w in result.get("warnings", [])), result
        result = each.bash("head -c 400000000 /dev/zero > /workspace/big")
        assert result["exit_code"] != 0 and "No space left" in result["stderr"], result
        each.sh("rm big")

    ws.stop()
    ws.resume()
    check(ws)
    copy = Workspace(ws.api, ws.does("fork", 201)["workspaces"][0])
    try:
        copy.wait_for("ready")
        check(copy)
    finally:
        copy.delete()


def test_S017_the_largest_is_ended_and_the_smaller_ones_go_on(make):
    ws = make(resource_limits={"cpu": "1", "memory": "256M", "disk": "256M"})
    ticker = Ticker(ws)
    ticker.wait_more()
    result = ws.bash(HOG, timeout_ms=60000)
    assert result["exit_code"] == 137 and any("memory" in w for w in result.get("warnings", [])), result
    assert ticker.is_running()
    ticker.wait_more()


FORKS = """
import os, time
made = 0
for _ in range(400):
    try:
        pid = os.fork()
    except OSError:
        continue
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    made += 1
print(made)
"""


def test_too_many_processes_are_refused_or_ended_and_the_workspace_lives(make):
    # No more than fit into its memory, whatever the limit of processes says: 128.
    ws = make(resource_limits=SMALL)
    ws.write("forks.py", FORKS)
    result = ws.bash("python3 forks.py", timeout_ms=60000)
    assert result["exit_code"] != 0 or int(result["stdout"]) <= 128, result
    wait_until(lambda: answers(ws), 60, "workspace answers")


def created_at_once(api, number, **fields):
    replies = []
    gate = threading.Barrier(number)
    body = dict({"container_type": "agent_workspace", "provider": provider(), "warm_start": False, "resource_limits": {"cpu": "1", "memory": "128M", "disk": "128M"}},
                **fields)

    def run():
        client = Api(api.url, api.key)
        gate.wait()
        replies.append(client.post(WORKSPACES, body))

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(replies) == number
    return replies


def split(replies, text):
    """Those that were made; the others must say why they were not."""
    for reply in replies:
        assert reply.status == 201 or (reply.status == 429 and reply.code == "limit_reached" and text in reply.message and reply.headers.get("Retry-After")), reply
    return [reply.json()["id"] for reply in replies if reply.status == 201]


def test_S005_G14_of_50_creates_at_once_exactly_the_limit_is_made(api):
    with own_suite(WORKSPACE_MAX_CONCURRENT="10") as own:
        made = split(created_at_once(own, 50), "maximum concurrent workspace limit reached (10)")
        assert len(made) == 10, len(made)
        for ident in made:
            Workspace(own, own.get("%s/%s" % (WORKSPACES, ident)).json()).wait_for("ready")
        # A stopped one gives its place away, and gets it back only when there is one.
        first, second = (Workspace(own, own.get("%s/%s" % (WORKSPACES, ident)).json()) for ident in made[:2])
        first.stop()
        assert len(split(created_at_once(own, 5), "limit reached (10)")) == 1
        reply = own.post(first.path + "/resume")
        assert reply.status == 429 and "limit reached (10)" in reply.message, reply
        assert first.show()["status"] == "stopped"
        second.delete()
        first.resume()
        assert first.sh("echo alive") == "alive\n"


def test_per_owner_quotas_hold_under_a_burst_and_do_not_touch_others(api):
    with own_suite(WORKSPACE_MAX_CONCURRENT="30", WORKSPACE_OWNER_MAX="3") as own:
        (_, one), (_, two) = make_key(own, owner="one"), make_key(own, owner="two")
        made = split(created_at_once(one, 12), "is 3,")
        assert len(made) == 3, made
        other = split(created_at_once(two, 2), "is 3,")
        assert len(other) == 2, other
        for client, ids in ((one, made), (two, other)):
            for ident in ids:
                assert client.delete("%s/%s" % (WORKSPACES, ident)).status == 204
    with own_suite(WORKSPACE_OWNER_MAX_CPU="2", WORKSPACE_OWNER_MAX_MEMORY="1G", WORKSPACE_OWNER_MAX_DISK="1G") as own:
        for limits, word in (({"cpu": "3"}, "cpu"), ({"memory": "2G"}, "memory"), ({"disk": "2G"}, "disk")):
            body = {"container_type": "agent_workspace", "provider": provider(), "resource_limits": dict({"cpu": "1", "memory": "256M", "disk": "256M"}, **limits)}
            reply = own.post(WORKSPACES, body)
            assert reply.status == 429 and word in reply.message.lower(), (word, reply)
        first = own.create(resource_limits={"cpu": "1", "memory": "256M", "disk": "600M"})
        reply = own.post(WORKSPACES, {"container_type": "agent_workspace", "resource_limits": {"cpu": "1", "memory": "256M", "disk": "600M"}})
        assert reply.status == 429 and "disk" in reply.message.lower(), reply
        first.stop()
        reply = own.post(WORKSPACES, {"container_type": "agent_workspace", "resource_limits": {"cpu": "1", "memory": "256M", "disk": "600M"}})
        assert reply.status == 429, "a stopped one still has its disk: %s" % reply
        assert own.post(WORKSPACES + "?wait=30", {"container_type": "agent_workspace", "resource_limits": {"cpu": "2", "memory": "1G", "disk": "256M"}}).status == 201


def test_a_sandbox_that_dies_comes_back_with_its_files_and_says_so(api, make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ws.write("kept.txt", "kept")
    told = []

    def listen():
        with api.stream("GET", ws.path + "/events", timeout=60) as stream:
            told.append(None)
            for event in stream:
                told.append("%s %s" % (event.name, event.data))
                if "restarted" in told[-1]:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    wait_until(lambda: told, 10, "listening")
    before = host.kernel_of(ws.id)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: host.kernel_of(ws.id) not in (None, before), 30, "another one runs")
    wait_until(lambda: answers(ws), 30, "workspace answers")
    assert ws.read_bytes("kept.txt") == b"kept"
    assert ws.show()["status"] == "ready" and any("process" in w for w in ws.row.get("warnings", [])), ws.row
    assert not ticker.is_running()
    thread.join(30)
    assert not thread.is_alive() and any("restarted" in str(each) for each in told), told


def test_a_call_in_flight_when_the_sandbox_dies_is_told(make):
    ws = make(resource_limits=SMALL)
    ended = {}
    thread = threading.Thread(target=lambda: ended.update(reply=ws.call("bash", command="touch go; sleep 60")))
    thread.start()
    wait_until(lambda: ws.call("read", file_path="go").status == 200, 20, "the command runs")
    os.kill(host.kernel_of(ws.id), signal.SIGKILL)
    thread.join(30)
    assert not thread.is_alive() and ended["reply"].status in (409, 500, 503), ended
    wait_until(lambda: answers(ws), 30, "workspace answers")
