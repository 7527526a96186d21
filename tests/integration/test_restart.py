# SPDX-License-Identifier: Apache-2.0
"""Killing any daemon loses nothing; a suite without runsc says so. These tests stop and start the daemons of the suite."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

import docker
from api import WORKSPACES, Api, wait_until

RUN_DIR = os.environ.get("EW_RUN_DIR", "")


def pid_of(daemon):
    with open(os.path.join(RUN_DIR, daemon + ".pid")) as file:
        return int(file.read())


def is_alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def kill(daemon):
    pid = pid_of(daemon)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), 10, "%s is gone" % daemon)


def suite(verb):
    result = subprocess.run(["sh", os.environ["EW_TEST_SUITE"], verb], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
    return result.stdout


def restarted_api(api):
    """The gateway takes another free port when it starts again."""
    with open(os.path.join(os.environ["EW_STATE_DIR"], "gateway.port")) as file:
        port = int(file.read())
    api.__init__("http://127.0.0.1:%d" % port, api.key)


def start_background(ws):
    return ws.bash("for i in $(seq 1 100000); do echo tick $i; sleep 0.1; done", run_in_background=True)["process_id"]


def check_same(ws, number):
    assert ws.show()["status"] == "ready", ws.row
    assert ws.sh("cat kept.txt") == "kept\n"
    running = {p["process_id"]: p["state"] for p in ws.processes()}
    assert running.get(number) == "running", running
    text = ws.api.get("%s/processes/%d/output?limit=1000" % (ws.path, number)).json()["stdout"]
    assert text.startswith("tick 1\ntick 2\n"), text[:100]


def survive(api, ws, *daemons):
    ws.sh("echo kept > kept.txt")
    number = start_background(ws)
    for daemon in daemons:
        kill(daemon)
    suite("up")
    restarted_api(api)
    wait_until(lambda: ws.call("bash", command="true").status == 200, 30, "workspace answers again")
    check_same(ws, number)


def test_kill_of_the_provider_daemon_loses_nothing(api, fresh):
    survive(api, fresh, os.environ.get("EW_TEST_DAEMON", "gvisord"))


def test_kill_of_the_gateway_loses_nothing(api, fresh):
    survive(api, fresh, "gateway")


def test_kill_of_all_daemons_loses_nothing(api, fresh):
    survive(api, fresh, "gateway", os.environ.get("EW_TEST_DAEMON", "gvisord"))


def sandbox_ids():
    """What the provider daemon has on disk; only gvisord's layout is known here."""
    path = os.path.join(os.environ["EW_STATE_DIR"], "gvisord", "sandboxes")
    return set(os.listdir(path)) if os.path.isdir(path) else set()


def in_threads(functions):
    """Runs them at once; a connection that the kill cuts is no failure."""
    def quietly(function):
        try:
            function()
        except (OSError, http.client.HTTPException, ValueError):
            pass

    threads = [threading.Thread(target=quietly, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def kill_amid_creates_and_deletes(api, delay, daemons):
    small = {"container_type": "agent_workspace", "provider": os.environ.get("EW_TEST_PROVIDER", "gvisor"), "warm_start": False,
             "resource_limits": {"cpu": "1", "memory": "256M", "disk": "256M"}}
    doomed = [api.create(**small) for _ in range(2)]
    made, deleted = [], []

    def create():
        reply = api.post(WORKSPACES + "?wait=%d" % (len(made) % 2 * 20), small)
        if reply.status == 201:
            made.append(reply.json()["id"])

    def delete(ws):
        if api.delete(ws.path).status == 204:
            deleted.append(ws.id)

    threads = in_threads([create] * 3 + [lambda ws=ws: delete(ws) for ws in doomed])
    time.sleep(delay)  # the moment of the kill is what is varied
    for daemon in daemons:
        kill(daemon)
    for thread in threads:
        thread.join(60)
    suite("up")
    restarted_api(api)

    def settled():
        rows = {row["id"]: row["status"] for row in api.get(WORKSPACES).json()}
        return not set(rows.values()) & {"creating", "stopping"} and rows

    rows = wait_until(lambda: settled() or api.get(WORKSPACES).json() == [], 90, "every row comes to rest")
    rows = rows if isinstance(rows, dict) else {}
    assert set(made) <= set(rows), "an acknowledged create is not forgotten: %s of %s" % (made, rows)
    assert not set(deleted) & set(rows), "an acknowledged delete does not come back"
    assert all(rows[i] == "ready" for i in made), rows
    wait_until(lambda: sandbox_ids() == set(rows), 60, "the sandboxes are those of the rows: %s, %s" % (rows, sandbox_ids()))
    for ident in rows:
        if rows[ident] == "ready":
            reply = api.post("%s/%s/bash" % (WORKSPACES, ident), {"command": "echo alive"})
            assert reply.status == 200 and reply.json()["stdout"] == "alive\n", reply
        assert api.delete("%s/%s" % (WORKSPACES, ident)).status == 204
    wait_until(lambda: not sandbox_ids(), 30, "nothing is orphaned")


def test_kill_of_the_gateway_amid_creates_and_deletes_leaves_true_rows(api):
    for delay in (0.02, 0.15, 0.6):
        kill_amid_creates_and_deletes(api, delay, ["gateway"])


test_kill_of_the_gateway_amid_creates_and_deletes_leaves_true_rows.seconds = 400


def test_kill_of_all_daemons_amid_creates_and_deletes_leaves_true_rows(api):
    for delay in (0.1, 0.4):
        kill_amid_creates_and_deletes(api, delay, ["gateway", os.environ.get("EW_TEST_DAEMON", "gvisord")])


test_kill_of_all_daemons_amid_creates_and_deletes_leaves_true_rows.seconds = 400


def test_a_call_with_an_idempotency_key_runs_once_though_the_gateway_dies(api, fresh):
    def call():
        return fresh.call("bash", command="echo ran >> runs.txt; sleep 2; echo done", headers={"Idempotency-Key": "once"})

    threads = in_threads([call])
    wait_until(lambda: fresh.call("read", file_path="runs.txt").status == 200, 10, "the command runs")
    kill("gateway")
    threads[0].join(20)
    suite("up")
    restarted_api(api)
    reply = wait_until(lambda: (lambda r: r.status == 200 and r)(call()), 30, "the repetition is answered")
    assert reply.json()["stdout"] == "done\n", reply
    assert fresh.sh("cat runs.txt") == "ran\n", "it ran once"


def test_a_running_call_gets_a_retryable_error_when_its_provider_goes(api, fresh):
    ended = {}
    thread = threading.Thread(target=lambda: ended.update(reply=fresh.call("bash", command="touch go; sleep 30")))
    thread.start()
    wait_until(lambda: fresh.call("read", file_path="go").status == 200, 10, "command runs")
    kill(os.environ.get("EW_TEST_DAEMON", "gvisord"))
    thread.join(20)
    assert not thread.is_alive() and ended["reply"].status == 503 and ended["reply"].code == "provider_gone", ended
    reply = fresh.call("bash", command="true")
    assert reply.status == 503 and reply.headers.get("Retry-After"), reply
    suite("up")
    wait_until(lambda: fresh.call("bash", command="true").status == 200, 30, "workspace answers again")


def test_up_is_idempotent_and_down_keeps_workspaces(api, fresh):
    fresh.sh("echo kept > kept.txt")
    number = start_background(fresh)
    before = (pid_of("gateway"), pid_of("gvisord"))
    suite("up")
    assert (pid_of("gateway"), pid_of("gvisord")) == before, "what runs is left alone"
    assert "live on" in suite("down")
    suite("up")
    restarted_api(api)
    wait_until(lambda: fresh.call("bash", command="true").status == 200, 30, "workspace answers again")
    check_same(fresh, number)


@docker.keeps_no_processes
def test_a_drain_keeps_processes_over_the_end_of_the_daemon(api, fresh):
    fresh.sh("echo kept > kept.txt")
    number = start_background(fresh)
    wait_until(lambda: "tick 2" in fresh.output(number, limit=1000)["stdout"], 20, "it counts")
    pid = pid_of("gvisord")
    os.kill(pid, signal.SIGUSR2)
    wait_until(lambda: not is_alive(pid), 60, "gvisord has drained and ended")
    reply = fresh.call("bash", command="true")
    assert reply.status == 503 and reply.headers.get("Retry-After"), reply
    suite("up")
    restarted_api(api)
    wait_until(lambda: fresh.call("bash", command="true").status == 200, 60, "the next use resumes it")
    check_same(fresh, number)
    assert fresh.row["metadata"]["processes"] == "kept" or "processes" not in fresh.row["metadata"], fresh.row


def test_S125_without_runsc_the_provider_says_so_and_creates_name_it(api):
    """A second suite beside this one, with its own state directory and port."""
    with tempfile.TemporaryDirectory(prefix="ew-norunsc-") as state:
        env = dict(os.environ, EW_STATE_DIR=state, EW_RUN_DIR=state + "/run", RUNSC_BIN="/nonexistent/runsc", GVISORD_BACKEND="runsc", SERVER_PORT="0", STANDALONE_API_KEY="k" * 40,
                   EW_CGROUP_PARENT="ew-norunsc")
        daemons = [subprocess.Popen([os.path.join(os.environ["EW_TEST_BIN"], name)], env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                   for name in ("gateway", "gvisord")]
        try:
            port = wait_until(lambda: os.path.exists(state + "/gateway.port") and open(state + "/gateway.port").read(), 10, "gateway is up")
            other = Api("http://127.0.0.1:" + port.strip(), "k" * 40)

            def gvisor():
                rows = {row["name"]: row for row in other.get(WORKSPACES + "/providers").json()}
                return "gVisor runtime not available" in rows["gvisor"].get("message", "") and rows["gvisor"]

            row = wait_until(gvisor, 20, "gvisor says that runsc is missing")
            assert row["healthy"] is False and "runsc" in row["message"], row
            reply = other.post(WORKSPACES + "?wait=10", {"container_type": "agent_workspace"})
            assert "gVisor runtime not available" in json.dumps(reply.json()), reply
            assert other.get("/ready").status == 503
        finally:
            for daemon in daemons:
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(20)


def test_up_does_not_wait_for_a_provider_that_has_refused(api):
    with tempfile.TemporaryDirectory(prefix="ew-refused-") as state:
        env = dict(os.environ, EW_STATE_DIR=state, EW_RUN_DIR=state + "/run", RUNSC_BIN="/nonexistent/runsc", GVISORD_BACKEND="runsc", SERVER_PORT="0", STANDALONE_API_KEY="",
                   EW_CGROUP_PARENT="ew-refused", EW_REFUSED_WAIT_S="2")
        began = time.monotonic()
        result = subprocess.run(["sh", os.environ["EW_TEST_SUITE"], "up"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        took = time.monotonic() - began
        subprocess.run(["sh", os.environ["EW_TEST_SUITE"], "down"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        assert result.returncode == 1 and "runsc was not found" in result.stdout, result.stdout
        assert took < 60, took


def test_daemons_stop_quickly_on_a_signal(api):
    began = time.monotonic()
    suite("down")
    assert time.monotonic() - began < 15
    suite("up")
    restarted_api(api)
    assert api.get("/health").status == 200
