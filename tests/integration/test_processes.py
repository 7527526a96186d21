# SPDX-License-Identifier: Apache-2.0
"""Background processes: start, list, output by offset, input, signals, waiting, following by SSE."""

import base64
import time

from api import wait_until


def start(ws, *argv, **fields):
    reply = ws.api.post(ws.path + "/processes", dict(fields, argv=list(argv)))
    assert reply.status in (200, 201), reply
    return reply.json()["process_id"]


def at(ws, number, rest):
    return "%s/processes/%d/%s" % (ws.path, number, rest)


def wait(ws, number, timeout_ms=20000):
    reply = ws.api.post(at(ws, number, "wait"), {"timeout_ms": timeout_ms})
    assert reply.status == 200, reply
    return reply.json()


def output(ws, number, **query):
    reply = ws.api.get(at(ws, number, "output?" + "&".join("%s=%s" % pair for pair in query.items())))
    assert reply.status == 200, reply
    return reply.json()


def test_a_process_is_started_listed_and_waited_for(ws):
    number = start(ws, "sh", "-c", "echo out; echo err >&2; exit 4", tag="mine")
    end = wait(ws, number)
    assert end["running"] is False and end["exit_code"] == 4, end
    shown = output(ws, number)
    assert shown["stdout"] == "out\n" and shown["stderr"] == "err\n", shown
    row = next(p for p in ws.processes() if p["process_id"] == number)
    assert row["state"] == "exited" and row["exit_code"] == 4 and row["tag"] == "mine", row
    assert abs(row["started_at_ms"] / 1000 - time.time()) < 60, row


def test_arguments_are_exact_words(ws):
    number = start(ws, "printf", "%s|", "a b", "$HOME", "'", "*", "")
    wait(ws, number)
    assert output(ws, number)["stdout"] == "a b|$HOME|'|*||"


def test_output_by_offset_loses_and_repeats_nothing(ws):
    number = start(ws, "sh", "-c", "for i in $(seq 1 3000); do echo line $i; done")
    text, offset = "", 0
    while True:
        part = output(ws, number, stdout_offset=offset, limit=1000, wait_ms=2000)
        assert part["stdout_offset"] == offset, part
        text += part["stdout"]
        offset = part["stdout_next"]
        if not part["running"] and not part["stdout"]:
            break
    assert text == "".join("line %d\n" % i for i in range(1, 3001))


def test_waiting_for_output_returns_as_soon_as_there_is_some(ws):
    number = start(ws, "sh", "-c", "sleep 1; echo now; sleep 60")
    began = time.monotonic()
    part = output(ws, number, wait_ms=20000)
    assert part["stdout"] == "now\n" and 0.5 < time.monotonic() - began < 10, part
    ws.api.post(at(ws, number, "signal"), {"signal": "KILL", "tree": True})
    assert wait(ws, number)["signal"] == "SIGKILL"


def test_input_reaches_the_process_and_ends_it(ws):
    number = start(ws, "cat", stdin=True)
    for text in ("first\n", "second\n"):
        reply = ws.api.post(at(ws, number, "input"), {"data": text})
        assert reply.status == 200 and reply.json()["bytes_written"] == len(text), reply
    ws.api.post(at(ws, number, "input"), {"data_base64": base64.b64encode(b"\xff\n").decode(), "eof": True})
    assert wait(ws, number)["exit_code"] == 0
    shown = output(ws, number, output_encoding="base64")
    assert base64.b64decode(shown["stdout_base64"]) == b"first\nsecond\n\xff\n", shown
    reply = ws.api.post(at(ws, number, "input"), {"data": "late"})
    assert 400 <= reply.status < 500, reply


def test_signals_by_name_and_number_to_one_or_to_the_tree(ws):
    for name, shown in (("SIGTERM", "SIGTERM"), ("KILL", "SIGKILL"), ("2", "SIGINT")):
        number = start(ws, "sleep", "600")
        assert ws.api.post(at(ws, number, "signal"), {"signal": name}).status in (200, 204)
        assert wait(ws, number)["signal"] == shown
    number = start(ws, "sh", "-c", "(setsid sleep 7654 &); sleep 7655")
    wait_until(lambda: ws.bash("pgrep -fc 'sleep 765[45]'")["stdout"].strip() >= "2", 10, "tree is up")
    ws.api.post(at(ws, number, "signal"), {"signal": "KILL", "tree": True})
    wait_until(lambda: ws.bash("pgrep -f 'sleep 765[45]'")["stdout"] == "", 10, "tree is gone")
    reply = ws.api.post(at(ws, number, "signal"), {"signal": "SIGNONSENSE"})
    assert reply.status == 400, reply


def test_a_deadline_ends_a_process(ws):
    number = start(ws, "sleep", "600", timeout_ms=500)
    end = wait(ws, number)
    assert end["timed_out"] is True and end["running"] is False, end


def test_waiting_shorter_than_the_process_says_running(ws):
    number = start(ws, "sleep", "600")
    assert wait(ws, number, 300)["running"] is True
    ws.api.post(at(ws, number, "signal"), {"signal": "KILL"})


def test_unknown_processes_and_programs(ws):
    for rest in ("output", "wait", "signal", "input"):
        method = "GET" if rest == "output" else "POST"
        reply = ws.api.request(method, at(ws, 999999, rest), body=None if method == "GET" else {"signal": "TERM", "data": "x"})
        assert reply.status == 404, (rest, reply)
    reply = ws.api.post(ws.path + "/processes", {"argv": ["no-such-program"]})
    assert 400 <= reply.status < 500 and "no-such-program" in reply.message, reply
    for body in ({}, {"argv": []}, {"argv": "ls"}, {"argv": [1]}):
        assert ws.api.post(ws.path + "/processes", body).status == 400, body


def follow(ws, number, last_id=None, most=None):
    """Text of both streams, the last id and the result; ends after `most` events."""
    text, result, events = "", None, 0
    with ws.api.stream("GET", at(ws, number, "output"), headers={"Last-Event-ID": last_id}) as stream:
        assert stream.status == 200
        for event in stream:
            if event.name in ("stdout", "stderr"):
                text += event.data["data"]
                last_id = event.id
                events += 1
            elif event.name == "result":
                result = event.data
                break
            if most and events >= most:
                break
    return text, last_id, result


def test_following_goes_on_where_a_broken_connection_stopped(ws):
    number = start(ws, "sh", "-c", "for i in $(seq 1 40); do echo line $i; sleep 0.05; done")
    text, last_id, result = "", None, None
    for _ in range(100):
        part, last_id, result = follow(ws, number, last_id, most=5)
        text += part
        if result is not None:
            break
    assert text == "".join("line %d\n" % i for i in range(1, 41)), text
    assert result["exit_code"] == 0, result


def test_following_a_finished_process_gives_all_and_the_end(ws):
    number = start(ws, "sh", "-c", "seq 1 1000; exit 9")
    wait(ws, number)
    text, _, result = follow(ws, number)
    assert text == "".join("%d\n" % i for i in range(1, 1001)) and result["exit_code"] == 9
