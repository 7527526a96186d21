# SPDX-License-Identifier: Apache-2.0
"""Clients that hang up, stall or talk nonsense at every point of every kind of request; the gateway goes on, and nothing of theirs is left.

Bounded: EW_CHAOS_SECONDS (12) of random hang-ups from EW_CHAOS_SEED (printed, so that a failure can be repeated).
"""

import json
import os
import random
import socket
import struct
import threading
import time

from api import WORKSPACES, wait_until

SECONDS = float(os.environ.get("EW_CHAOS_SECONDS", "12"))
SEED = int(os.environ.get("EW_CHAOS_SEED", str(random.randrange(10**6))))
THREADS = 8


def head(api, method, path, *more):
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: x", "Authorization: Bearer " + api.key] + list(more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(api, path, body, *more):
    data = json.dumps(body).encode()
    return head(api, "POST", path, "Content-Type: application/json", "Content-Length: %d" % len(data), *more) + data


def chunked(data, size):
    parts = [data[i:i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def requests_of(api, ws, number):
    """Every kind of route, as bytes: plain calls, long ones, streams, uploads, downloads, pipelines, and some that are refused late."""
    big = b"x" * 700000
    sse = "Accept: text/event-stream"
    key = "Idempotency-Key: chaos-%d" % number
    file = ws.files("/workspace/chaos-%d" % (number % 20))
    return {
        "bash": post(api, ws.path + "/bash", {"command": "echo hi; sleep 0.2"}),
        "bash long": post(api, ws.path + "/bash", {"command": "sleep 60"}),
        "bash kept": post(api, ws.path + "/bash", {"command": "sleep 0.3; echo kept"}, key),
        "bash big reply": post(api, ws.path + "/bash", {"command": "head -c 400000 /dev/zero | tr '\\0' 'a'"}),
        "bash big stdin": post(api, ws.path + "/bash", {"command": "cat > /dev/null; sleep 0.1", "stdin": "y" * 600000}),
        "bash stream": post(api, ws.path + "/bash", {"command": "yes | head -c 3000000"}, sse),
        "bash slow stream": post(api, ws.path + "/bash", {"command": "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.1; done"}, sse),
        "write": post(api, ws.path + "/write", {"file_path": "/workspace/w%d" % (number % 20), "content": "z" * 300000}),
        "read": post(api, ws.path + "/read", {"file_path": "/etc/passwd"}),
        "glob": post(api, ws.path + "/glob", {"pattern": "**/*.py", "path": "/usr"}),
        "grep": post(api, ws.path + "/grep", {"pattern": "import", "path": "/usr/lib", "include": "*.py"}),
        "put": head(api, "PUT", file, "Content-Length: %d" % len(big)) + big,
        "put chunked": head(api, "PUT", file, "Transfer-Encoding: chunked") + chunked(big, 50000),
        "put expect": head(api, "PUT", file, "Content-Length: %d" % len(big), "Expect: 100-continue") + big,
        "put nowhere": head(api, "PUT", ws.files("/proc/nope/x"), "Content-Length: %d" % len(big)) + big,
        "get": head(api, "GET", ws.files("/workspace/chaos-big")),
        "get range": head(api, "GET", ws.files("/workspace/chaos-big"), "Range: bytes=100-2000000", 'If-Range: "x"'),
        "head": head(api, "HEAD", ws.files("/workspace/chaos-big")),
        "list": head(api, "GET", ws.path + "/files/list?path=/usr&depth=5"),
        "watch": head(api, "GET", ws.path + "/files/watch?path=/workspace"),
        "events": head(api, "GET", ws.path + "/events"),
        "output": head(api, "GET", ws.path + "/processes/1/output", sse),
        "process": post(api, ws.path + "/processes", {"argv": ["sleep", "0.2"]}),
        "wait": post(api, ws.path + "/processes/1/wait", {"timeout_ms": 30000}),
        "workspaces": head(api, "GET", WORKSPACES),
        "providers": head(api, "GET", WORKSPACES + "/providers"),
        "metrics": head(api, "GET", "/metrics"),
        "openapi": head(api, "GET", "/openapi.json"),
        "refused create": post(api, WORKSPACES, {"container_type": "agent_workspace", "provider": "firecracker"}),
        "pipeline": b"".join(post(api, ws.path + "/bash", {"command": "echo %d" % i}) for i in range(5)) + head(api, "GET", "/health"),
        "pipelined streams": head(api, "GET", ws.path + "/events") * 3,
        "key made": post(api, "/api/v1/admin/api-keys", {"name": "chaos", "scopes": ["admin:read"], "expires_at": "2099-01-01T00:00:00Z"}),
    }


def hang_up(sock, rng):
    """By FIN, by half close and then FIN, or by RST."""
    way = rng.randrange(3)
    try:
        if way == 1:
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(0.05)
            sock.recv(65536)
        elif way == 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


def one_chaos(api, rng, data):
    """Sends a part or all, in one or several pieces, reads nothing, something or slowly, and leaves."""
    cut = rng.choice((len(data), len(data), rng.randrange(len(data) + 1), min(len(data), rng.randrange(400))))
    sock = socket.create_connection((api.host, api.port), 5)
    try:
        if rng.random() < 0.2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(2)
        at = 0
        while at < cut:
            size = rng.choice((1, 7, 1000, 70000, cut))
            sock.sendall(data[at:at + size] if at + size <= cut else data[at:cut])
            at += size
            if size < 1000 and at > 2000:
                break
        for _ in range(rng.choice((0, 0, 1, 3))):
            sock.settimeout(rng.choice((0.02, 0.1, 0.4)))
            if not sock.recv(rng.choice((1, 100, 65536))):
                break
    except OSError:
        pass
    hang_up(sock, rng)


def gauge(api, name):
    for line in api.get("/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError("no metric " + name)


def drop_keys(api):
    for key in api.get("/api/v1/admin/api-keys").json():
        if key["name"] == "chaos":
            assert api.delete("/api/v1/admin/api-keys/" + key["id"]).status == 204


def test_hang_ups_in_every_phase_of_every_route_leave_nothing(api, make):
    ws = make()
    ws.sh("head -c 8000000 /dev/urandom > /workspace/chaos-big")
    print("       seed %d, %.0f s" % (SEED, SECONDS))
    counts, errors = {}, []
    end = time.monotonic() + SECONDS

    def storm(thread):
        rng = random.Random(SEED * 100 + thread)
        number = thread
        while time.monotonic() < end:
            number += THREADS
            kinds = requests_of(api, ws, number)
            kind = rng.choice(sorted(kinds))
            try:
                one_chaos(api, rng, kinds[kind])
            except OSError as error:
                errors.append("%s: %s" % (kind, error))
                return
            counts[kind] = counts.get(kind, 0) + 1

    threads = [threading.Thread(target=storm, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        began = time.monotonic()
        assert api.get("/health").status == 200
        assert time.monotonic() - began < 5, "others are served all the while"
        time.sleep(0.2)
    for thread in threads:
        thread.join(30)
    assert not errors, errors[:3]
    print("       %d requests of %d kinds were left alone" % (sum(counts.values()), len(counts)))
    drop_keys(api)
    assert ws.sh("echo fine") == "fine\n"
    wait_until(lambda: gauge(api, "ew_http_event_streams") == 0, 20, "no event stream is left")
    wait_until(lambda: gauge(api, "ew_http_connections") <= 4, 20, "no connection is left")
    wait_until(lambda: gauge(api, "ew_calls_in_flight") == 0, 75, "no call is left")
    wait_until(lambda: not [p for p in ws.processes() if p["state"] == "running"], 30, "no process is left")


test_hang_ups_in_every_phase_of_every_route_leave_nothing.seconds = 240


def create_and_leave(api, rng):
    """POST that the client leaves at a random moment; what came of it is found by its metadata and deleted."""
    mark = "%d" % rng.randrange(10**12)
    body = {"container_type": "agent_workspace", "provider": os.environ.get("EW_TEST_PROVIDER", "gvisor"), "metadata": {"chaos": mark},
            "resource_limits": {"cpu": "1", "memory": "256M", "disk": "256M"}}
    sock = socket.create_connection((api.host, api.port), 5)
    sock.sendall(post(api, WORKSPACES + rng.choice(("", "?wait=30")), body))
    time.sleep(rng.choice((0, 0.001, 0.005, 0.02, 0.1, 0.5)))
    hang_up(sock, rng)
    return mark


def test_delete_during_create_and_create_without_a_client(api):
    rng = random.Random(SEED)
    for _ in range(2):
        marks = [create_and_leave(api, rng) for _ in range(4)]
        # Deleted at whatever stage each is now, some by two clients at once.
        rows = [row for row in api.get(WORKSPACES).json() if row.get("metadata", {}).get("chaos") in marks]
        replies = []

        def delete(row):
            replies.append((row["id"], api.delete("%s/%s" % (WORKSPACES, row["id"])).status))

        threads = [threading.Thread(target=delete, args=(row,)) for row in rows + rows[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert len(replies) == len(threads) and all(status in (204, 404) for _, status in replies), replies
        for row in rows:
            assert (row["id"], 204) in replies, replies
            assert api.get("%s/%s" % (WORKSPACES, row["id"])).status == 404

        def rest():
            left = [row for row in api.get(WORKSPACES).json() if row.get("metadata", {}).get("chaos") in marks]
            for row in left:
                assert api.delete("%s/%s" % (WORKSPACES, row["id"])).status in (204, 404)
            return not left

        wait_until(rest, 60, "creates that came true late are deleted too")


def test_a_create_that_waits_is_told_that_it_was_deleted(api):
    result = {}
    mark = "waits-%d" % SEED
    body = {"container_type": "agent_workspace", "metadata": {"chaos": mark}, "warm_start": False}
    thread = threading.Thread(target=lambda: result.update(reply=api.post(WORKSPACES + "?wait=60", body)))
    thread.start()

    def mine():
        return [row for row in api.get(WORKSPACES).json() if row.get("metadata", {}).get("chaos") == mark]

    row = wait_until(mine, 10, "the row is there")[0]
    assert api.delete("%s/%s" % (WORKSPACES, row["id"])).status == 204
    thread.join(20)
    assert not thread.is_alive(), "the creator has an answer"
    assert result["reply"].status == 409 or (result["reply"].status == 201 and row["status"] == "ready"), result


def test_creates_with_the_same_idempotency_key_make_one_workspace(api):
    body = {"container_type": "agent_workspace", "provider": os.environ.get("EW_TEST_PROVIDER", "gvisor"), "metadata": {"chaos": "key-%d" % SEED},
            "resource_limits": {"cpu": "1", "memory": "256M", "disk": "256M"}}
    key = {"Idempotency-Key": "create-%d" % SEED}
    replies = []

    def create(wait):
        replies.append(api.post("%s?wait=%d" % (WORKSPACES, wait), body, headers=key))

    threads = [threading.Thread(target=create, args=(i % 2 * 30,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    idents = {reply.json()["id"] for reply in replies if reply.status == 201}
    try:
        assert len(replies) == 6 and all(reply.status == 201 for reply in replies) and len(idents) == 1, replies
        assert len([row for row in api.get(WORKSPACES).json() if row.get("metadata", {}).get("chaos") == "key-%d" % SEED]) == 1
        assert api.post(WORKSPACES, dict(body, metadata={"chaos": "other"}), headers=key).status == 422, "another body"
        again = api.post(WORKSPACES + "?wait=30", body, headers=key)
        assert again.status == 201 and again.json()["status"] == "ready" and again.json()["id"] in idents, again
    finally:
        for ident in idents:
            assert api.delete("%s/%s" % (WORKSPACES, ident)).status == 204
