# SPDX-License-Identifier: Apache-2.0
"""The bash tool: results, limits, deadlines, streaming, hang-ups (S-127: through the agent on every provider)."""

import base64
import time

from api import wait_until


def test_S039_result_has_streams_exit_code_and_duration(ws):
    result = ws.bash("echo out; echo err >&2")
    assert result["stdout"] == "out\n" and result["stderr"] == "err\n" and result["exit_code"] == 0, result
    assert isinstance(result["duration_ms"], int) and "truncated" not in result, result
    assert result["stdout_total_bytes"] == 4 and result["stderr_total_bytes"] == 4, result


def test_S069_echo_hello(ws):
    result = ws.bash("echo hello")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("hello\n", "", 0), result


def test_exec_is_the_same_as_bash(ws):
    assert ws.ok("exec", command="echo same")["stdout"] == "same\n"


def test_S040_a_failing_command_is_a_success_of_the_call(ws):
    result = ws.bash("echo partial; echo why >&2; exit 7")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("partial\n", "why\n", 7), result
    assert ws.bash("kill -9 $$")["exit_code"] == 137
    assert ws.bash("no-such-program")["exit_code"] == 127


def test_S041_a_timeout_kills_the_whole_tree_and_keeps_partial_output(fresh):
    began = time.monotonic()
    result = fresh.bash("echo before; (setsid sleep 4321 &) ; (trap '' TERM; sleep 4322) & sleep 4323", timeout_ms=1000)
    took = time.monotonic() - began
    assert result["timed_out"] is True and result["exit_code"] == -1, result
    assert result["stdout"] == "before\n" and "command timed out after 1000ms" in result["stderr"], result
    assert 0.9 < took < 15, took
    assert fresh.bash("pgrep -f 'sleep 432[123]'")["stdout"] == "", "something of the tree is left"


def test_S042_workdir(ws):
    ws.sh("mkdir -p 'dir with space'")
    assert ws.sh("pwd") == "/workspace\n"
    assert ws.sh("pwd", workdir="/tmp") == "/tmp\n"
    assert ws.sh("pwd", workdir="dir with space") == "/workspace/dir with space\n"
    reply = ws.call("bash", command="pwd", workdir="/no/such/place")
    assert reply.status == 400 and "/no/such/place" in reply.message, reply


def test_S043_long_output_is_cut_and_counted(ws):
    result = ws.bash("head -c 100000 /dev/zero | tr '\\0' x; head -c 70000 /dev/zero | tr '\\0' y >&2")
    assert result["truncated"] is True, result.keys()
    assert result["stdout"] == "x" * 51200 and result["stderr"] == "y" * 51200
    assert result["stdout_total_bytes"] == 100000 and result["stderr_total_bytes"] == 70000
    result = ws.bash("printf 'é%.0s' $(seq 1 40000)")
    assert set(result["stdout"]) == {"é"} and len(result["stdout"].encode()) in (51199, 51200), len(result["stdout"])


def test_output_that_is_no_text_is_marked_or_carried(ws):
    result = ws.bash("printf 'a\\377b'")
    assert result["stdout_lossy"] is True and result["stdout"] == "a\ufffdb", result
    result = ws.bash("printf 'a\\377\\0b'", output_encoding="base64")
    assert base64.b64decode(result["stdout_base64"]) == b"a\xff\x00b", result


def test_env_stdin_and_user(ws):
    assert ws.sh("echo $A-$B", env={"A": "1", "B": "two words"}) == "1-two words\n"
    assert ws.sh("cat", stdin="from stdin") == "from stdin"
    assert ws.sh("wc -c", stdin_base64=base64.b64encode(b"\0" * 100000).decode()).strip() == "100000"
    assert ws.sh("cat") == "", "standard input is /dev/null unless given"
    assert ws.sh("id -u") == "0\n"
    assert ws.sh("id -un; echo $HOME", user="user").split() == ["user", "/home/user"]
    assert ws.sh("id -u; id -g", user="1234:2345").split() == ["1234", "2345"]
    reply = ws.call("bash", command="true", user="nobody-by-that-name")
    assert reply.status == 400 and "nobody-by-that-name" in reply.message, reply


def test_shell_is_bash_and_has_no_terminal(ws):
    assert ws.sh("[[ x == x ]] && echo $0") == "/bin/bash\n"
    assert ws.bash("test -t 0 || test -t 1 || test -t 2")["exit_code"] == 1
    assert ws.bash("ls /dev/ptmx /dev/pts/0")["exit_code"] != 0 or ws.bash("true > /dev/tty")["exit_code"] != 0


def test_a_command_ends_with_its_shell_not_with_its_pipes(fresh):
    began = time.monotonic()
    result = fresh.bash("sleep 300 & echo done")
    assert time.monotonic() - began < 10 and result["stdout"] == "done\n", result
    assert result["process_id"] > 0, result
    running = [p for p in fresh.processes() if p["state"] == "running"]
    assert [p["process_id"] for p in running] == [result["process_id"]], running


def test_run_in_background(fresh):
    result = fresh.bash("echo begun; sleep 1; echo over; exit 3", run_in_background=True)
    number = result["process_id"]
    reply = fresh.api.post("%s/processes/%d/wait" % (fresh.path, number), {"timeout_ms": 20000})
    assert reply.status == 200 and reply.json()["running"] is False and reply.json()["exit_code"] == 3, reply
    output = fresh.api.get("%s/processes/%d/output" % (fresh.path, number)).json()
    assert output["stdout"] == "begun\nover\n", output


def test_missing_and_empty_command(ws):
    for fields in ({}, {"command": ""}, {"command": None}):
        reply = ws.call("bash", **fields)
        assert reply.status == 400 and reply.message == "command is required", reply


def gather(stream):
    out = {"stdout": "", "stderr": ""}
    result = None
    for event in stream:
        if event.name in out:
            out[event.name] += event.data["data"]
        elif event.name in ("result", "error"):
            result = event
            break
    return out, result


def test_stream_sends_output_as_it_comes_then_the_result(ws):
    with ws.api.stream("POST", ws.path + "/bash", {"command": "echo one; sleep 1; echo two >&2; exit 5"}) as stream:
        assert stream.status == 200 and stream.reply.headers["Content-Type"].startswith("text/event-stream")
        began = time.monotonic()
        first = next(event for event in stream if event.name == "stdout")
        assert first.data["data"] == "one\n" and first.id, first
        assert time.monotonic() - began < 0.9, "the first line came only with the end"
        out, end = gather(stream)
    assert end.name == "result" and end.data["exit_code"] == 5 and out["stderr"] == "two\n", (out, end)


def test_stream_carries_more_than_the_cut_and_splits_no_character(ws):
    with ws.api.stream("POST", ws.path + "/bash", {"command": "printf 'aé%.0s' $(seq 1 200000)"}) as stream:
        out, end = gather(stream)
    assert out["stdout"] == "aé" * 200000 and end.data["exit_code"] == 0
    assert end.data["stdout_total_bytes"] == 600000, end


def test_hanging_up_cancels_the_command(fresh):
    stream = fresh.api.stream("POST", fresh.path + "/bash", {"command": "echo go; exec sleep 5432"})
    next(event for event in stream if event.name == "stdout")
    stream.close()
    wait_until(lambda: fresh.bash("pgrep -f 'sleep 543[2]'")["stdout"] == "", 20, "command of the client that hung up is gone")


def test_a_slow_client_blocks_only_itself(fresh):
    stream = fresh.api.stream("POST", fresh.path + "/bash", {"command": "yes | head -c 30000000"})
    next(event for event in stream if event.name == "stdout")
    began = time.monotonic()
    for _ in range(5):
        assert fresh.sh("echo quick") == "quick\n"
    assert time.monotonic() - began < 5
    out, end = gather(stream)
    assert end is not None and end.data["exit_code"] == 0 and end.data["stdout_total_bytes"] == 30000000, end
    stream.close()


def test_many_commands_at_once(ws):
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda i: ws.sh("sleep 0.2; echo %d" % i), range(32)))
    assert results == ["%d\n" % i for i in range(32)]


def test_idempotency_key_runs_a_command_once(fresh):
    headers = {"Idempotency-Key": "once-and-only-once"}
    first = fresh.call("bash", headers=headers, command="echo x >> log; wc -l < log")
    second = fresh.call("bash", headers=headers, command="echo x >> log; wc -l < log")
    assert first.status == second.status == 200 and first.json()["stdout"] == second.json()["stdout"], (first, second)
    assert fresh.sh("wc -l < log").strip() == "1"
