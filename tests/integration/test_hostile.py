# SPDX-License-Identifier: Apache-2.0
"""Hostile input over REST: every row must be refused with a 4xx that names its reason, and the gateway must go on."""

import json
import re
import socket
import tempfile
import time

from api import WORKSPACES, wait_until

CREATE = {"container_type": "agent_workspace", "provider": "gvisor"}


def alive(api):
    assert api.get("/health").status == 200


def test_create_refuses_bad_fields_by_name(api):
    rows = (
        ({}, "container_type must be 'agent_workspace' or 'mcp_server'"), ({"container_type": "vm"}, "container_type must be"),
        ({"container_type": 7}, "container_type"), (dict(CREATE, provider="docker"), "provider"), (dict(CREATE, network="host"), "network"),
        (dict(CREATE, deployment_mode="cloud"), "deployment_mode"), (dict(CREATE, resource_limits="big"), "resource_limits"),
        (dict(CREATE, resource_limits={"cpu": "many"}), "cpu"), (dict(CREATE, resource_limits={"cpu": "-1"}), "cpu"),
        (dict(CREATE, resource_limits={"cpu": 2}), "cpu"), (dict(CREATE, resource_limits={"memory": "4X"}), "memory"),
        (dict(CREATE, resource_limits={"memory": "1K"}), "memory"), (dict(CREATE, resource_limits={"disk": "-5G"}), "disk"),
        (dict(CREATE, resource_limits={"disk": "99999999999999999999G"}), "disk"), (dict(CREATE, env={"A=B": "c"}), "env"),
        (dict(CREATE, env={"": "c"}), "env"), (dict(CREATE, env=["A=b"]), "env"), (dict(CREATE, env={"A": 1}), "env"),
        (dict(CREATE, warm_start="yes"), "warm_start"), (dict(CREATE, agent_session_id="not-a-uuid"), "agent_session_id"),
        (dict(CREATE, image="../../etc"), "image"), (dict(CREATE, image="a" * 300), "image"), (dict(CREATE, metadata="text"), "metadata"),
        ({"container_type": "mcp_server", "repository_url": "https://example.org/r.git"}, "repository_url"),
        ({"container_type": "mcp_server", "branch": "main"}, "branch"),
    )
    for body, word in rows:
        reply = api.post(WORKSPACES, body)
        assert reply.status in (400, 413, 422), (body, reply)
        assert word in reply.message, (body, reply)
    for query in ("status=nonsense", "provider=nonsense", "container_type=x", "agent_session_id=x", "limit=x", "limit=-1", "cursor=%00%ff"):
        reply = api.get("%s?%s" % (WORKSPACES, query))
        assert reply.status == 400, (query, reply)
    for wait in ("x", "-1", "1e9"):
        assert api.post("%s?wait=%s" % (WORKSPACES, wait), {"container_type": "x"}).status == 400


def test_bodies_that_are_no_json_objects(api, ws):
    for raw in (b"{", b"[]", b"null", b'"x"', b"1", b"{\"command\":\"true\"", b"{\"command\": tru}", b"\xff\xfe", b"{\"a\":1}{}", b"<xml/>",
                b'{"command":"\xff"}', b"[" * 100000, b'{"a":' * 50000):
        reply = ws.api.request("POST", ws.path + "/bash", raw=raw, headers={"Content-Type": "application/json"})
        assert reply.status == 400 and reply.message.startswith("invalid request body"), (raw[:30], reply)
    reply = ws.api.request("POST", ws.path + "/bash", raw=b"command=true", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status == 400 and reply.message.startswith("invalid request body"), reply
    alive(api)


def test_fields_of_wrong_type_or_range_are_named(ws):
    rows = (
        ("bash", {"command": 5}, "command must be a string"), ("bash", {"command": ["ls"]}, "command must be a string"),
        ("bash", {"command": "true", "timeout_ms": "5"}, "timeout_ms must be a whole number"),
        ("bash", {"command": "true", "timeout_ms": 1.5}, "timeout_ms must be a whole number"),
        ("bash", {"command": "true", "timeout_ms": 10**12}, "timeout_ms"), ("bash", {"command": "true", "env": {"A": 5}}, "env"),
        ("bash", {"command": "true", "env": "A=5"}, "env"), ("bash", {"command": "true\0false"}, "command"),
        ("bash", {"command": "x" * 140000}, "command"), ("bash", {"command": "true", "run_in_background": "yes"}, "run_in_background must be true or false"),
        ("bash", {"command": "cat", "stdin": "a", "stdin_base64": "YQ=="}, "stdin"), ("bash", {"command": "cat", "stdin_base64": "!!!"}, "base64"),
        ("bash", {"command": "true", "output_encoding": "latin1"}, "output_encoding"),
        ("read", {"file_path": {}}, "file_path must be a string"), ("read", {"file_path": "a\0b"}, "file_path"),
        ("read", {"file_path": "a" * 5000}, "file_path"), ("read", {"file_path": "x", "offset": "one"}, "offset"),
        ("write", {"file_path": "x", "content": 5}, "content"), ("write", {"file_path": "x", "content_base64": "a"}, "base64"),
        ("write", {"file_path": "x", "mode": 70000}, "mode"), ("write", {"file_path": "x", "mode": -1}, "mode"),
        ("edit", {"file_path": "x", "old_string": 1}, "old_string"), ("edit", {"file_path": "x", "old_string": "a", "replace_all": 1}, "replace_all"),
        ("glob", {"pattern": ["*"]}, "pattern"), ("glob", {"pattern": "*", "limit": 10**9}, "limit"), ("grep", {"pattern": "x", "limit": -1}, "limit"),
        ("grep", {"pattern": "x" * 10000}, "pattern"), ("git", {"action": "add", "files": "x"}, "files"), ("git", {"action": "add", "files": [1]}, "files"),
    )
    for tool, fields, word in rows:
        reply = ws.call(tool, **fields)
        assert reply.status in (400, 413) and word in reply.message, (tool, str(fields)[:80], reply)


def test_unknown_fields_are_skipped_and_named(ws):
    reply = ws.call("bash", command="echo hi", colour="blue", stream=True)
    assert reply.status == 200 and reply.json()["stdout"] == "hi\n", reply
    assert set(reply.headers["X-Unknown-Fields"].replace(" ", "").split(",")) == {"colour", "stream"}, reply.headers


def test_a_body_over_the_limit_is_refused_before_it_is_read(api):
    connection = api.connect(10)
    connection.putrequest("POST", WORKSPACES)
    for name, value in api.headers({"Content-Type": "application/json", "Content-Length": str(10**12)}).items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 413 and json.loads(reply.read())["error"]["code"] == "payload_too_large"
    connection.close()


def test_no_credential_no_body(api):
    connection = api.connect(10)
    connection.putrequest("POST", WORKSPACES)
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    assert connection.getresponse().status == 401, "judged before one byte of the body"
    connection.close()


def raw_exchange(api, data, seconds=10):
    """Everything that comes back until the server closes or is silent."""
    with socket.create_connection((api.host, api.port), seconds) as sock:
        sock.sendall(data)
        sock.settimeout(2)
        out = b""
        try:
            while True:
                part = sock.recv(65536)
                if not part:
                    return out, True
                out += part
        except socket.timeout:
            return out, False
        except ConnectionResetError:
            return out, True


def test_http_that_breaks_the_rules(api):
    auth = ("X-API-Key: %s\r\n" % api.key).encode()
    head = b"POST /api/v1/agent/workspaces HTTP/1.1\r\nHost: x\r\n" + auth
    rows = (
        head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        head + b"Content-Length: -1\r\n\r\n", head + b"Content-Length: 5x\r\n\r\nhello", head + b"Content-Length: 99999999999999999999999\r\n\r\n",
        head + b"Transfer-Encoding: gzip, chunked, x\r\n\r\n", head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello", head + b"X-Fold: a\r\n b: c\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\x00x HTTP/1.1\r\nHost: x\r\n\r\n", b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70000 + b"\r\n\r\n", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    )
    for data in rows:
        answer, closed = raw_exchange(api, data)
        line = answer.split(b"\r\n", 1)[0]
        assert answer == b"" or line.split(b" ")[1][:1] in (b"4", b"5"), (data[:80], answer[:200])
        assert closed, ("the connection must be closed", data[:80], answer[:100])
        assert answer.count(b"HTTP/1.1 ") <= 1, ("smuggled", data[:80], answer)
    alive(api)


def test_pipelined_requests_are_answered_in_order(api):
    one = ("GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n\r\n" % api.key).encode()
    answer, _ = raw_exchange(api, one + b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    codes = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
    assert codes == [b"200", b"404", b"200"], answer


def test_paths_that_try_to_leave_the_route(api):
    for path in ("/api/v1/agent/workspaces/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", WORKSPACES + "/%00", WORKSPACES + "/%", "//", "/api//v1"):
        assert api.get(path).status in (400, 401, 404, 405), path
    alive(api)


def test_the_host_cannot_be_reached_through_file_names(ws):
    """The sandbox is the caller's, whole; what is not in it cannot be named."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("only on the host")
        file.flush()
        ws.sh("ln -sf /proc/1/root escape")
        for path in ("/../../../.." + file.name, "escape" + file.name, "/proc/1/root" + file.name):
            reply = ws.call("read", file_path=path)
            assert reply.status in (400, 403, 404) and "only on the host" not in reply.body.decode(), (path, reply)


def test_what_a_sandbox_cannot_do(ws):
    rows = ("mount -t tmpfs none /mnt", "mknod /tmp/sda b 8 0 && head -c 1 /tmp/sda", "insmod /lib/x.ko", "echo 1 > /proc/sys/kernel/panic",
            "swapon /x", "chroot /proc/1/root /bin/true", "umount /proc", "mount -o remount,rw /sys", "ip link add x type dummy",
            "echo 0 > /proc/1/oom_score_adj && sysctl -w kernel.panic=1", "head -c 10 /proc/kcore")
    for command in rows:
        result = ws.bash(command, timeout_ms=10000)
        assert result["exit_code"] != 0, (command, result)
        assert ws.sh("echo alive") == "alive\n", command
    for path in ("/proc/1/cmdline", "/proc/self/mountinfo", "/proc/self/cgroup"):
        assert "/gvisord/" not in ws.sh("tr '\\0' ' ' < %s" % path), "nothing of the host's paths in " + path


def test_a_sandbox_that_ends_itself_comes_back_with_its_files(make):
    """Its root may kill its first process; that is the end of its processes and of nothing else."""
    other, ending = make(), make()
    ending.sh("echo kept > kept.txt")
    reply = ending.call("bash", command="kill -9 1; sleep 5; echo survived", timeout_ms=10000)
    if reply.status == 200:
        assert reply.json()["stdout"] == "survived\n", reply
    else:
        assert reply.status == 500 and reply.code == "sandbox_failed", reply
        wait_until(lambda: ending.call("bash", command="true").status == 200, 30, "it is started anew")
        assert ending.sh("cat kept.txt") == "kept\n"
        assert ending.show()["metadata"]["restarts"] == 1 and any("started anew" in text for text in ending.row["warnings"]), ending.row
    assert other.sh("echo fine") == "fine\n"


def test_a_fork_bomb_hurts_only_its_own_workspace(make):
    other, bomb = make(), make(resource_limits={"cpu": "0.5", "memory": "1G", "disk": "256M"})
    reply = bomb.call("bash", command=":(){ :|:& };:; sleep 5", timeout_ms=4000)
    assert reply.status == 200 or reply.code in ("sandbox_failed", "deadline_exceeded"), reply
    began = time.monotonic()
    assert other.sh("echo fine") == "fine\n"
    assert time.monotonic() - began < 5
    assert other.api.delete(bomb.path).status == 204, "it can be destroyed"


def test_output_floods_are_bounded(ws):
    result = ws.bash("timeout 3 yes", timeout_ms=20000)
    assert len(result["stdout"]) <= 51200 and result["truncated"] is True
    assert result["stdout_total_bytes"] > 51200


def test_idle_and_slow_connections_hold_nobody_up(api):
    held = [socket.create_connection((api.host, api.port)) for _ in range(200)]
    for sock in held[:100]:
        sock.sendall(b"GET /health HT")
    alive(api)
    for sock in held:
        sock.close()
    alive(api)
