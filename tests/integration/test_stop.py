# SPDX-License-Identifier: Apache-2.0
"""Stop keeps everything on disk and frees the memory; resume goes on where it was."""

import os
import signal
import subprocess
import threading
import time
import uuid

import host
from api import WORKSPACES, Workspace, provider, wait_until
from test_restart import kill, pid_of, restarted_api, suite
from ticker import Ticker, keeps_processes

SMALL = {"cpu": "1", "memory": "256M", "disk": "256M"}
MARKER = "swordfish-%s" % uuid.uuid4().hex


def warnings_of(row):
    return " ".join(row.get("warnings", []))


def test_the_provider_keeps_processes(api):
    assert keeps_processes(api), "the tests below would show less than they say"


def test_S011_S012_S033_processes_go_on_after_a_stop_with_memory_descriptors_and_environment(api, make):
    ws = make(resource_limits=SMALL, env={"GREETING": "hello world"})
    number = ws.start("bash", "-c", "exec 5>>fd.txt; coproc sleep infinity; n=0; while :; do n=$((n+1)); echo $n >&5; echo \"$MARK $GREETING $n\"; "
                      "read -t 0.1 -u ${COPROC[0]}; done", env={"MARK": MARKER})
    ticker = Ticker(ws)
    ticker.wait_more()
    before = ws.show()
    row = ws.stop()
    assert row["last_used_at"] >= before["last_used_at"], (before, row)
    assert host.what_runs_of(ws.id) == [], "its memory and devices are free once stop is answered"
    assert ws.show()["status"] == "stopped"
    seen = ticker.seen
    ws.resume()
    assert host.kernel_of(ws.id), "it runs again"
    ticker.wait_more(5)
    assert ticker.seen > seen and ticker.is_running()
    lines = ws.output(number, limit=1000000)["stdout"].splitlines()
    assert lines == ["%s hello world %d" % (MARKER, i + 1) for i in range(len(lines))], lines[-3:]
    wait_until(lambda: len(ws.read_bytes("fd.txt").split()) > len(lines), 20, "the open file is written on")
    numbers = [int(word) for word in ws.read_bytes("fd.txt").split()]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    assert ws.sh("echo $GREETING") == "hello world\n", "its own environment is kept, too"
    assert not [w for w in ws.show().get("warnings", []) if "process" in w], ws.row


def test_stop_and_resume_again_and_again(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    for number in range(4):
        ticker.wait_more()
        ws.sh("echo %d >> rounds.txt" % number)
        ws.stop()
        ws.resume()
    ticker.wait_more()
    assert ws.sh("cat rounds.txt").split() == ["0", "1", "2", "3"]


def test_S026_S034_S130_files_survive_and_nothing_is_sourced_by_itself(make):
    ws = make(resource_limits=SMALL)
    ws.sh("mkdir -p deep/er /usr/local/lib/pack && echo one > deep/er/file && echo installed > /usr/local/lib/pack/x && ln -s deep/er/file link && "
          "chmod 0640 deep/er/file && echo 'export LEAKED=yes' | tee .bashrc > .env")
    before = ws.sh("stat -c '%a %s %Y' deep/er/file")
    ws.stop(without_processes=True)
    ws.resume()
    assert ws.sh("cat link /usr/local/lib/pack/x") == "one\ninstalled\n"
    assert ws.sh("stat -c '%a %s %Y' deep/er/file") == before
    assert ws.sh("echo ${LEAKED:-clean}; cat .bashrc .env | wc -l") == "clean\n2\n"


def test_stop_without_processes_ends_them_and_keeps_files(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ticker.wait_more()
    ws.sh("echo kept > kept.txt")
    ws.stop(without_processes=True)
    assert host.what_runs_of(ws.id) == []
    ws.resume()
    assert ws.sh("cat kept.txt") == "kept\n"
    assert not ticker.is_running(), "its processes ended"
    assert ws.sh("pgrep -c sleep || true") == "0\n"


def test_stop_and_resume_are_idempotent(make):
    ws = make(resource_limits=SMALL)
    ws.resume()
    ticker = Ticker(ws)
    ws.stop()
    ws.stop()
    ws.resume()
    ws.resume()
    ticker.wait_more()


def test_two_stops_at_once_are_one(api, make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(api.post(ws.path + "/stop"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 4 and all(r.status == 200 or (r.status == 409 and "stopping" in r.message) for r in replies), replies
    assert any(r.status == 200 for r in replies), replies
    ws.resume()
    ticker.wait_more()


def test_G02_a_wrong_transition_names_the_state(api, make):
    reply = api.post(WORKSPACES + "?wait=30", {"container_type": "agent_workspace", "provider": provider(), "image": "no-such-image"})
    if reply.status == 201:
        broken = Workspace(api, reply.json())
        broken.wait_for("error", 40)
        for verb in ("stop", "snapshot", "fork"):
            reply = api.post("%s/%s" % (broken.path, verb))
            assert reply.status == 409 and reply.code == "conflict" and "error" in reply.message, (verb, reply)
        # Resume may try again from the files, if there ever were any.
        assert api.post(broken.path + "/resume").status >= 400 and broken.show()["status"] == "error"
        reply = api.post(broken.path + "/attach", {"agent_session_id": str(uuid.uuid4())})
        assert reply.status == 409 and "error" in reply.message, reply
        broken.delete()
    ws = make(resource_limits=SMALL)
    ws.stop()
    for tool, fields in (("bash", {"command": "true"}), ("read", {"file_path": "x"}), ("write", {"file_path": "x", "content": "y"})):
        reply = ws.call(tool, **fields)
        assert reply.status in (400, 409) and "stopped" in reply.message, (tool, reply)
    assert ws.show()["status"] == "stopped", "a refused call changes nothing"


def test_G02_a_stop_while_it_is_created_never_ends_in_the_wrong_state(api):
    for _ in range(3):
        reply = api.post(WORKSPACES, {"container_type": "agent_workspace", "provider": provider(), "resource_limits": SMALL, "warm_start": False})
        assert reply.status == 201, reply
        ws = Workspace(api, reply.json())
        reply = api.post(ws.path + "/stop")
        if reply.status == 409:
            assert "creating" in reply.message, reply
            ws.wait_for("ready")
        else:
            assert reply.status == 200 and reply.json()["status"] == "stopped", reply
            assert ws.show()["status"] == "stopped", "a create that ends later does not make it ready"
        ws.delete()


def test_stop_and_resume_of_unknown_and_malformed_ids(api):
    for verb in ("stop", "resume", "snapshot", "fork", "attach", "detach"):
        reply = api.post("%s/%s/%s" % (WORKSPACES, uuid.uuid4(), verb), {"agent_session_id": str(uuid.uuid4())})
        assert reply.status == 404 and reply.code == "not_found", (verb, reply)
        assert api.post("%s/nonsense/%s" % (WORKSPACES, verb)).status == 400, verb


def test_a_running_command_goes_on_after_resume_and_its_key_gets_the_true_result(api, make):
    ws = make(resource_limits=SMALL)
    ended = {}

    def call():
        return ws.call("bash", command="echo ran >> runs.txt; sleep 3; echo done", headers={"Idempotency-Key": "stop-me"})

    thread = threading.Thread(target=lambda: ended.update(reply=call()))
    thread.start()
    wait_until(lambda: ws.call("read", file_path="runs.txt").status == 200, 20, "the command runs")
    ws.stop()
    thread.join(30)
    assert not thread.is_alive(), "the call of a workspace that stops is answered"
    assert ended["reply"].status in (409, 503), ended
    ws.resume()
    reply = wait_until(lambda: (lambda r: r.status == 200 and r)(call()), 30, "the repetition gets the result")
    assert reply.json()["stdout"] == "done\n" and reply.json()["exit_code"] == 0, reply
    assert ws.sh("cat runs.txt") == "ran\n", "it ran once"


def test_a_reader_of_a_processs_output_goes_on_after_resume(api, make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ticker.wait_more()
    lines, last = [], None
    with api.stream("GET", "%s/processes/%d/output" % (ws.path, ticker.number)) as stream:
        for event in stream:
            if event.data and "data" in event.data:
                lines.append(event.data["data"])
                last = event.id
            if len(lines) > 2:
                break
    ws.stop()
    ws.resume()
    with api.stream("GET", "%s/processes/%d/output" % (ws.path, ticker.number), headers={"Last-Event-ID": last}) as stream:
        for event in stream:
            if event.data and "data" in event.data:
                lines.append(event.data["data"])
            if len(lines) > 6:
                break
    assert len(lines) > 6, lines
    words = "".join(lines).split()
    numbers = [int(word) for word in words[1::2]]
    assert numbers == list(range(1, len(numbers) + 1)), numbers


def files_of(ws):
    return [os.path.join(top, name) for top, _, names in os.walk(host.provider_dir("sandboxes", ws.id)) for name in names]


def test_what_a_stop_keeps_is_closed_to_others_and_goes_with_the_workspace(api, make):
    ws = make(resource_limits=SMALL, env={"API_TOKEN": MARKER})
    ws.start("bash", "-c", "held=%s; exec sleep 1000" % MARKER)
    ws.stop()
    base = host.provider_dir("sandboxes", ws.id)
    assert os.stat(base).st_mode & 0o777 == 0o700, oct(os.stat(base).st_mode)
    large = [path for path in files_of(ws) if os.path.isfile(path) and os.path.getsize(path) > 4096]
    assert large, "something is kept"
    assert [path for path in large if os.stat(path).st_mode & 0o077] == [], "files are for root only"
    directories = {os.path.dirname(path) for path in large}
    assert [d for d in directories if os.stat(d).st_mode & 0o077] == [], "and directories, too"
    logs = subprocess.run(["grep", "-rl", MARKER, os.path.join(host.state_dir(), "log")], stdout=subprocess.PIPE, text=True, check=False).stdout
    assert logs == "", "no secret in a log: %s" % logs
    assert api.delete(ws.path).status == 204
    assert not os.path.exists(base) and host.what_runs_of(ws.id) == []
    assert api.get(ws.path).status == 404


def test_resume_uses_up_what_was_kept(make):
    ws = make(resource_limits=SMALL)
    ws.start("bash", "-c", "x=$(head -c 30000000 /dev/urandom | base64); sleep 1000")
    wait_until(lambda: int(ws.sh("ps -o rss= -C bash | sort -n | tail -n 1")) > 30000, 60, "memory is dirty")
    ws.stop()
    kept = {path for path in files_of(ws) if os.path.getsize(path) > (8 << 20) and not path.endswith("disk.img")}
    assert kept, "an image of the memory is there: %s" % files_of(ws)
    ws.resume()
    assert not [path for path in kept if os.path.exists(path)], "a secret that is used up is not left on the disk"


def edit_version(ws):
    """As if the runtime had been replaced: every place that names its version names another one."""
    version = subprocess.run(["runsc", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[0].split()[-1]
    changed = 0
    for path in files_of(ws):
        if os.path.getsize(path) > (1 << 20) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            data = file.read()
        if version.encode() in data:
            with open(path, "r+b") as file:
                file.write(data.replace(version.encode(), version.encode()[:-1] + b"X"))
            changed += 1
    assert changed, "no file of the stopped workspace names the runtime's version %s: %s" % (version, files_of(ws))


def test_an_image_of_another_runtime_is_not_used_but_its_files_are(api, make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ticker.wait_more()
    ws.sh("echo kept > kept.txt")
    ws.stop()
    daemon = os.environ.get("EW_TEST_DAEMON", "gvisord")
    pid = pid_of(daemon)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not os.path.exists("/proc/%d" % pid), 20, "%s has ended" % daemon)
    edit_version(ws)
    suite("up")
    reply = wait_until(lambda: (lambda r: r.status != 503 and r)(api.post(ws.path + "/resume")), 30, "the provider is back")
    assert reply.status == 200 and reply.json()["status"] == "ready", reply
    assert "process" in warnings_of(reply.json()), "it says that processes were lost: %s" % reply
    assert "process" in warnings_of(ws.show()), ws.row
    assert ws.sh("cat kept.txt") == "kept\n" and not ticker.is_running()


def stop_amid_a_kill(api, ws, verb, delay, daemon):
    """The call's answer, None when the kill cut it."""
    ended = {}

    def call():
        try:
            ended["reply"] = api.post("%s/%s" % (ws.path, verb))
        except OSError:
            pass

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(delay)  # the moment of the kill is what is varied
    kill(daemon)
    suite("up")
    restarted_api(api)
    thread.join(60)
    assert not thread.is_alive(), "no call hangs"
    return ended.get("reply")


def test_a_kill_amid_stop_and_resume_loses_no_process(api, make):
    """Both daemons, at several moments: whatever was reached, it ends in a state that goes on from where it was."""
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    for daemon in ("gateway", os.environ.get("EW_TEST_DAEMON", "gvisord")):
        for delay in (0.01, 0.08, 0.2):
            for verb, good in (("stop", "stopped"), ("resume", "ready")):
                reply = stop_amid_a_kill(api, ws, verb, delay, daemon)
                at = (daemon, delay, verb, reply)
                status = wait_until(lambda: ws.show()["status"] in ("ready", "stopped") and ws.row["status"], 60, "it comes to rest")
                assert reply is None or reply.status in (200, 503) or reply.status == 409, at
                assert reply is None or reply.status != 200 or status == good, (at, status)
            reply = wait_until(lambda: (lambda r: r.status == 200 and r)(api.post(ws.path + "/resume")), 60, "it can be resumed: %s" % (at,))
            ticker.wait_more()
    assert not [w for w in ws.show().get("warnings", []) if "process" in w], ws.row


test_a_kill_amid_stop_and_resume_loses_no_process.seconds = 300


def test_a_stopped_workspace_lives_through_a_restart_of_all(api, make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ticker.wait_more()
    ws.stop()
    kill("gateway")
    kill(os.environ.get("EW_TEST_DAEMON", "gvisord"))
    suite("up")
    restarted_api(api)
    assert ws.show()["status"] == "stopped"
    wait_until(lambda: api.post(ws.path + "/resume").status == 200, 30, "it is resumed")
    ticker.wait_more()


def test_the_clock_is_right_after_resume(make):
    ws = make(resource_limits=SMALL)
    ws.stop()
    time.sleep(2)
    ws.resume()
    assert abs(int(ws.sh("date +%s")) - time.time()) < 2


def test_events_tell_of_stop_and_resume(api, make):
    ws = make(resource_limits=SMALL)
    with api.stream("GET", ws.path + "/events", timeout=60) as stream:
        thread = threading.Thread(target=lambda: (ws.stop(), ws.resume()))
        thread.start()
        seen = ""
        for event in stream:
            seen += "%s %s\n" % (event.name, event.data)
            if "stopped" in seen and "ready" in seen.split("stopped", 1)[1]:
                break
    thread.join(30)
    assert "stopping" in seen, seen
