# SPDX-License-Identifier: Apache-2.0
"""gvisord on a Docker daemon (EW_TEST_BACKEND=docker); on runsc these are not there."""

import os
import random
import subprocess
import threading
import time

import docker
from api import WORKSPACES, wait_until
from own_suite import own_suite
from test_restart import kill, restarted_api, start_background, suite

SMALL = {"cpu": "1", "memory": "256M", "disk": "1G"}
SEED = int(os.environ.get("EW_CHAOS_SEED", str(random.randrange(10**6))))
KILLS = int(os.environ.get("EW_DOCKER_KILLS", "5"))


def gvisor(api):
    return {row["name"]: row for row in api.get(WORKSPACES + "/providers").json()}["gvisor"]


def a_container_is_labelled_and_confined(make):
    ws = make(resource_limits=SMALL)
    found = docker.container(ws)
    labels, host = found["Config"]["Labels"], found["HostConfig"]
    assert labels["memory.workspace"] == "true" and labels["workspace.volume"] == docker.name_of(ws) and labels["workspace.type"], labels
    assert [(m["Name"], m["Destination"]) for m in found["Mounts"]] == [(docker.name_of(ws), "/workspace")], found["Mounts"]
    assert docker.ask("GET", "/volumes/" + docker.name_of(ws))[1]["Labels"]["memory.workspace"] == "true"
    assert host["Runtime"] == "runsc" and host["NetworkMode"] == "none" and host["LogConfig"]["Type"] == "none", host
    assert host["CapDrop"] == ["ALL"] and "no-new-privileges" in host["SecurityOpt"] and not host["Privileged"], host
    assert host["NanoCpus"] == 10**9 and 256 << 20 <= host["Memory"] == host["MemorySwap"] <= 400 << 20 and host["PidsLimit"] > 0, host
    assert found["Config"]["OpenStdin"] and not found["Config"]["StdinOnce"] and found["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert not any("KEY" in var or "SECRET" in var for var in found["Config"]["Env"]), found["Config"]["Env"]


def health_names_docker_and_what_it_cannot(api, make):
    row = gvisor(api)
    assert row["healthy"] and row["message"] == "Docker daemon healthy, gVisor (runsc) runtime active", row
    assert any("disk limit" in text for text in row["warnings"]), row
    ws = make(resource_limits=SMALL)
    reply = ws.api.post(ws.path + "/snapshot", {})
    assert reply.status in (400, 422) and "does not support snapshots" in reply.body.decode(), reply


def stop_keeps_the_files_and_says_that_processes_end(make):
    ws = make(resource_limits=SMALL)
    ws.sh("echo one > one; echo two > /root/two")
    start_background(ws)
    reply = ws.api.post(ws.path + "/stop", {})
    assert reply.status == 200 and "Docker cannot keep processes" in reply.body.decode(), reply
    assert not docker.container(ws)["State"]["Running"]
    assert ws.api.post(ws.path + "/resume", {}).status == 200
    assert ws.sh("cat one /root/two") == "one\ntwo\n"


def a_container_that_is_removed_comes_back_with_its_volume(make):
    ws = make(resource_limits=SMALL)
    ws.write("kept.txt", "kept")
    assert docker.ask("DELETE", "/containers/%s?force=1" % docker.name_of(ws))[0] == 204
    wait_until(lambda: ws.call("bash", command="true").status == 200, 30, "it is made anew")
    assert ws.read_bytes("kept.txt") == b"kept"
    with open(os.path.join(os.environ["EW_STATE_DIR"], "log", "gvisord.log")) as log:
        assert "its container was gone from Docker" in log.read()


def a_container_that_dies_is_started_again(make):
    ws = make(resource_limits=SMALL)
    ws.write("kept.txt", "kept")
    ws.sh("echo outside > /root/outside")
    assert docker.ask("POST", "/containers/%s/kill" % docker.name_of(ws))[0] == 204
    wait_until(lambda: ws.call("bash", command="true").status == 200, 30, "it is started again")
    assert ws.read_bytes("kept.txt") == b"kept" and ws.sh("cat /root/outside") == "outside\n"


def a_restart_of_the_docker_daemon_brings_workspaces_back(make):
    workspaces = [make(resource_limits=SMALL) for _ in range(2)]
    for ws in workspaces:
        ws.sh("echo kept > kept; echo outside > /root/outside")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "docker.sh")
    subprocess.run(["sh", script, "restart", docker.DIR], check=True, stdin=subprocess.DEVNULL)
    for ws in workspaces:
        wait_until(lambda: ws.call("bash", command="true").status == 200, 60, "it is started again")
        assert ws.sh("cat kept /root/outside") == "kept\noutside\n"


def leftovers_are_found_by_their_label(api, make):
    ws = make(resource_limits=SMALL)
    found = docker.container(ws)
    stray = "agent-workspace-00000000-0000-4000-8000-00000000aaaa"
    labels = dict(found["Config"]["Labels"], **{"emergent.workspaces.sandbox": stray[len("agent-workspace-"):]})
    foreign = dict(labels, **{"emergent.workspaces.instance": "another"})
    for name, own in ((stray, labels), ("foreign", foreign)):
        assert docker.ask("POST", "/volumes/create", {"Name": name, "Labels": own})[0] == 201
        status, reply = docker.ask("POST", "/containers/create?name=" + name, {"Image": found["Config"]["Image"], "Cmd": ["true"], "Labels": own})
        assert status == 201, reply
    kill("gvisord")
    suite("up")
    restarted_api(api)
    wait_until(lambda: stray not in docker.everything(), 20, "the leftovers are removed")
    assert "foreign" in docker.everything(), "what is another daemon's is left alone"
    docker.ask("DELETE", "/containers/foreign?force=1")
    docker.ask("DELETE", "/volumes/foreign")


def load(ws, is_over):
    """Whole and cut frames towards the agent all the time; what a kill cuts is no failure."""
    number = 0
    while not is_over.is_set():
        number += 1
        try:
            ws.api.post("%s/bash" % ws.path, {"command": "wc -c", "stdin": "y" * random.randrange(200000)})
            ws.api.post("%s/write" % ws.path, {"file_path": "f%d" % (number % 7), "content": "x" * random.randrange(3000000)})
        except OSError:
            time.sleep(0.02)


def kills_under_load_tear_no_frame(api, make):
    """The attach connection is cut in the middle of frames; the next daemon is understood at once and processes go on."""
    print("seed %d" % SEED)
    rng = random.Random(SEED)
    ws = make(resource_limits=dict(SMALL, memory="512M"))
    number = start_background(ws)
    pid = docker.container(ws)["State"]["Pid"]
    is_over = threading.Event()
    threads = [threading.Thread(target=load, args=(ws, is_over)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            time.sleep(0.3 + rng.random())
            kill("gvisord")
            suite("up")
            wait_until(lambda: ws.call("bash", command="true").status == 200, 20, "it answers after the kill")
            assert {p["process_id"]: p["state"] for p in ws.processes()}.get(number) == "running"
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    found = docker.container(ws)
    assert found["State"]["Pid"] == pid and found["RestartCount"] == 0, "it was adopted, not started anew"
    for name in range(7):
        assert set(ws.sh("test ! -f f%d || cat f%d" % (name, name))[:50]) <= {"x"}


def a_start_that_fails_is_one_sentence_and_leaks_nothing(api):
    """gVisor without --network=none cannot start in Docker here: the runtime leaves processes behind."""
    before = docker.everything()
    with own_suite(is_ready=False, GVISORD_DOCKER_RUNTIME="runsc-bare") as other:
        row = refused(other, "make docker-runtime")
        assert "--network=none" in row["message"] and "\n" not in row["message"], row
        wait_until(lambda: not leaked(), 5, "no process is left of it")
    assert docker.everything() <= before, docker.everything()


def refused(api, words):
    def row():
        found = gvisor(api)
        return words in found.get("message", "") and found

    found = wait_until(row, 30, "health says why")
    assert not found["healthy"] and api.get("/ready").status == 503, found
    return found


def leaked():
    """Shims and sandboxes of containers that are not there."""
    known = {one["Id"] for one in docker.ask("GET", "/containers/json?all=1")[1]}
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if docker.DIR + "/" in line and ("shim" in line or "runsc" in line) and not any(ident in line for ident in known):
            lines.append(line)
    return lines


def without_gvisor_only_by_the_flag(api):
    with own_suite(is_ready=False, GVISORD_DOCKER_RUNTIME="none") as other:
        assert "daemon.json" in refused(other, "lists no runtime 'none'")["message"]
    with own_suite(GVISORD_DOCKER_RUNTIME="none", GVISORD_ALLOW_PLAIN_RUNTIME="true") as other:
        row = gvisor(other)
        assert row["message"] == "Docker daemon healthy, standard runtime (no gVisor)", row
        assert any(text.startswith("SECURITY") for text in row["warnings"]), row
        ws = other.create(resource_limits=SMALL)
        assert any(text.startswith("SECURITY") for text in ws.show()["warnings"]), ws.row
        assert ws.sh("echo hello") == "hello\n"
        found = docker.container(ws)["HostConfig"]
        assert "CAP_SYS_ADMIN" not in str(found["CapAdd"]) and "SYS_ADMIN" not in str(found["CapAdd"]), found["CapAdd"]
        assert ws.api.post(ws.path + "/stop", {}).status == 200 and ws.api.post(ws.path + "/resume", {}).status == 200
        assert ws.sh("echo again") == "again\n"


TESTS = [a_container_is_labelled_and_confined, health_names_docker_and_what_it_cannot, stop_keeps_the_files_and_says_that_processes_end,
         a_container_that_is_removed_comes_back_with_its_volume, a_container_that_dies_is_started_again,
         a_restart_of_the_docker_daemon_brings_workspaces_back, leftovers_are_found_by_their_label,
         kills_under_load_tear_no_frame, a_start_that_fails_is_one_sentence_and_leaks_nothing, without_gvisor_only_by_the_flag]
if docker.IS_USED:
    globals().update({"test_" + test.__name__: test for test in TESTS})
