# SPDX-License-Identifier: Apache-2.0
"""One session at a time has a workspace; who had it when is kept."""

import threading
import uuid

from api import WORKSPACES, Api
from ticker import Ticker

SMALL = {"cpu": "1", "memory": "256M", "disk": "256M"}


def attach(ws, session, status=200, **fields):
    reply = ws.api.post(ws.path + "/attach", dict(fields, agent_session_id=session))
    assert reply.status == status, reply
    return reply


def detach(ws, status=200, **fields):
    reply = ws.api.post(ws.path + "/detach", fields)
    assert reply.status == status, reply
    return reply


def history(ws):
    reply = ws.api.get(ws.path + "/assignments")
    assert reply.status == 200, reply
    return reply.json()


def new_session():
    return str(uuid.uuid4())


def test_S028_G03_of_100_attaches_at_once_one_wins(api, make):
    ws = make(resource_limits=SMALL)
    sessions = [new_session() for _ in range(100)]
    replies = {}
    gate = threading.Barrier(len(sessions))

    def run(session):
        client = Api(api.url, api.key)
        gate.wait()
        replies[session] = client.post(ws.path + "/attach", {"agent_session_id": session})

    threads = [threading.Thread(target=run, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 100, len(replies)
    winners = [session for session in sessions if replies[session].status == 200]
    assert len(winners) == 1, winners
    assert replies[winners[0]].json()["agent_session_id"] == winners[0]
    assert ws.show()["agent_session_id"] == winners[0]
    for session in sessions:
        if session != winners[0]:
            reply = replies[session]
            assert reply.status == 409 and reply.code == "conflict", reply
            assert reply.message == "workspace is currently in use by session %s; detach first or wait for session to end" % winners[0], reply
    assert [row["agent_session_id"] for row in history(ws)] == winners


def test_S025_S027_S038_a_second_session_sees_the_exact_state_and_the_history_names_both(make):
    ws = make(resource_limits=SMALL)
    first, second = new_session(), new_session()
    row = attach(ws, first, reason="first task").json()
    assert row["agent_session_id"] == first and row["status"] == "ready", row
    ws.sh("echo a > a; echo b > b; echo c > c; rm b; echo more >> c")
    assert "agent_session_id" not in detach(ws, agent_session_id=first, reason="done").json()
    attach(ws, second)
    assert ws.sh("cat a c; ls") == "a\nc\nmore\na\nc\n"
    rows = sorted(history(ws), key=lambda entry: entry["attached_at"])
    assert [entry["agent_session_id"] for entry in rows] == [first, second], rows
    assert rows[0]["reason"] == "first task" and rows[0]["detach_reason"] == "done" and rows[0]["detached_at"] >= rows[0]["attached_at"], rows
    assert "detached_at" not in rows[1], rows


def test_attach_of_the_holder_itself_and_detach_twice_change_nothing(make):
    ws = make(resource_limits=SMALL)
    session = new_session()
    attach(ws, session)
    attach(ws, session)
    assert len(history(ws)) == 1
    detach(ws)
    detach(ws)
    assert len(history(ws)) == 1 and "agent_session_id" not in ws.show()


def test_detach_of_another_session_is_refused(make):
    ws = make(resource_limits=SMALL)
    session = new_session()
    attach(ws, session)
    reply = detach(ws, 409, agent_session_id=new_session())
    assert session in reply.message, reply
    assert ws.show()["agent_session_id"] == session


def test_attach_needs_a_session(make):
    ws = make(resource_limits=SMALL)
    for body in ({}, {"agent_session_id": ""}):
        reply = ws.api.post(ws.path + "/attach", body)
        assert reply.status == 400 and reply.message == "agent_session_id is required", reply
    for bad in ("x", "1234", 7):
        reply = ws.api.post(ws.path + "/attach", {"agent_session_id": bad})
        assert reply.status == 400, (bad, reply)


def test_attach_of_a_stopped_one_resumes_it_with_its_processes(make):
    ws = make(resource_limits=SMALL)
    ticker = Ticker(ws)
    ticker.wait_more()
    ws.stop()
    row = attach(ws, new_session()).json()
    assert row["status"] == "ready", row
    assert ws.sh("echo alive") == "alive\n"
    ticker.wait_more()


def test_a_session_keeps_its_workspace_over_stop_and_resume(make):
    ws = make(resource_limits=SMALL)
    session = new_session()
    attach(ws, session)
    assert ws.stop()["agent_session_id"] == session
    assert ws.resume()["agent_session_id"] == session
    attach(ws, new_session(), 409)


def test_S038_of_many_that_take_over_a_stopped_one_one_wins_and_the_previous_is_logged(api, make):
    ws = make(resource_limits=SMALL)
    first = new_session()
    attach(ws, first)
    ws.stop()
    sessions = [new_session() for _ in range(20)]
    replies = {}
    gate = threading.Barrier(len(sessions))

    def run(session):
        client = Api(api.url, api.key)
        gate.wait()
        replies[session] = client.post(ws.path + "/attach", {"agent_session_id": session})

    threads = [threading.Thread(target=run, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    winners = [session for session in sessions if replies[session].status == 200]
    assert len(winners) == 1 and ws.show()["agent_session_id"] == winners[0], winners
    assert all(winners[0] in replies[session].message for session in sessions if session != winners[0]), replies
    rows = sorted(history(ws), key=lambda entry: entry["attached_at"])
    assert [row["agent_session_id"] for row in rows] == [first, winners[0]] and rows[0]["detached_at"], rows


def test_a_session_given_at_create_stands_in_the_history(api, make):
    session = new_session()
    ws = make(resource_limits=SMALL, agent_session_id=session)
    assert [row["agent_session_id"] for row in history(ws)] == [session]
    assert [row["id"] for row in api.get(WORKSPACES + "?agent_session_id=" + session).json()] == [ws.id]
    attach(ws, new_session(), 409)


def test_patch_merges_metadata_and_sets_the_time_to_live(make):
    ws = make(resource_limits=SMALL, metadata={"a": 1, "b": {"c": 2}})

    def patch(status=200, **fields):
        reply = ws.api.request("PATCH", ws.path, body=fields)
        assert reply.status == status, reply
        return reply.json()

    row = patch(metadata={"a": None, "d": [3]})
    assert "a" not in row["metadata"] and row["metadata"]["b"] == {"c": 2} and row["metadata"]["d"] == [3], row
    assert ws.show()["metadata"] == row["metadata"]
    default = ws.row["expires_at"]
    short = patch(ttl_seconds=3600)["expires_at"]
    assert short < default, (short, default)
    ws.sh("true")
    assert ws.show()["expires_at"] < default, "use extends by its own time to live"
    assert patch(ttl_seconds=0)["expires_at"] >= default[:10], "0 is the default again"
    assert patch(400, metadata=[1])["error"]["code"] == "bad_request"
    assert patch(400, ttl_seconds=-1)["error"]["code"] == "bad_request"
    assert ws.api.request("PATCH", "%s/%s" % (WORKSPACES, uuid.uuid4()), body={}).status == 404


def test_patch_of_a_stopped_one_leaves_it_stopped(make):
    ws = make(resource_limits=SMALL)
    ws.stop()
    reply = ws.api.request("PATCH", ws.path, body={"metadata": {"note": "later"}, "ttl_seconds": 7200})
    assert reply.status == 200 and reply.json()["status"] == "stopped" and reply.json()["metadata"]["note"] == "later", reply
