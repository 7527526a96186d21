# SPDX-License-Identifier: Apache-2.0
"""What a workspace uses beyond its limits ends itself, not the workspace and not its neighbours."""

import time

from api import wait_until

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
