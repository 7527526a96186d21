# SPDX-License-Identifier: Apache-2.0
"""The commands about the life of workspaces, snapshots and the audit: what they send and what they print. A small server in this
process answers, so that every command is tested whatever the provider can do; test_audit.py and test_lifecycle.py use the real gateway."""

import hashlib
import http.server
import json
import threading

from test_cli import environment, run

WS, SNAP, SESSION = "11111111-2222-4333-8444-555555555555", "22222222-2222-4333-8444-555555555555", "33333333-2222-4333-8444-555555555555"
AGENT = "/api/v1/agent"
WORKSPACE = {"id": WS, "status": "stopped", "provider": "gvisor", "warnings": ["only files were kept"]}
SNAPSHOT = {"snapshot_id": SNAP, "workspace_id": WS, "status": "ready", "name": "before", "size_bytes": 2048, "has_processes": True}


class Server:
    """Gives the answers in turn (status, JSON, headers) and keeps what it was asked (method, path, body)."""

    def __init__(self, *answers):
        self.asked, left = [], list(answers)
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append((self.command, self.path, json.loads(body) if body else None))
                status, reply, *headers = left.pop(0)
                data = b"" if reply is None else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in headers[0].items() if headers else ():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def run(self, api, *args, **kw):
        return run(api, *args, env=dict(environment(api), EMERGENT_URL="http://127.0.0.1:%d" % self.server.server_port), **kw)


def check(api, args, expected, reply, printed, status=200):
    with Server((status, reply)) as server:
        result = server.run(api, *args)
        assert server.asked == [expected], (args, server.asked)
        assert printed in result.stdout.decode(), (args, result)
    return result


def test_stop_resume_attach_detach_and_set(api):
    one = AGENT + "/workspaces/" + WS
    result = check(api, ["workspace", "stop", WS], ("POST", one + "/stop", {}), WORKSPACE, "stopped")
    assert b"only files were kept" in result.stderr, result
    check(api, ["workspace", "stop", WS, "--without-processes"], ("POST", one + "/stop", {"without_processes": True}), WORKSPACE, "stopped")
    check(api, ["workspace", "resume", WS, "--json"], ("POST", one + "/resume", None), WORKSPACE, '"status": "stopped"')
    check(api, ["workspace", "attach", WS, SESSION, "--reason", "work"], ("POST", one + "/attach", {"agent_session_id": SESSION, "reason": "work"}), WORKSPACE, WS)
    check(api, ["workspace", "detach", WS, "--session", SESSION], ("POST", one + "/detach", {"agent_session_id": SESSION}), WORKSPACE, WS)
    check(api, ["workspace", "set", WS, "--ttl", "60", "--metadata", '{"a":null}'], ("PATCH", one, {"ttl_seconds": 60, "metadata": {"a": None}}), WORKSPACE, WS)
    rows = [{"agent_session_id": SESSION, "attached_at": "2026-11-26T00:00:00.000Z", "reason": "work"}]
    check(api, ["workspace", "sessions", WS, "-n", "5"], ("GET", one + "/assignments?limit=5", None), rows, "work")


def test_fork_prints_the_ids_of_the_copies(api):
    body = {"count": 2, "env": {"A": "1"}, "without_processes": True}
    args = ["workspace", "fork", WS, "-n", "2", "-e", "A=1", "--without-processes"]
    result = check(api, args, ("POST", AGENT + "/workspaces/" + WS + "/fork", body), {"workspaces": [{"id": "a"}, {"id": "b"}]}, "", 201)
    assert result.stdout == b"a\nb\n", result


def test_snapshots(api):
    body = {"name": "before", "ttl_seconds": 60}
    result = check(api, ["snapshot", "create", WS, "--name", "before", "--ttl", "60"], ("POST", AGENT + "/workspaces/" + WS + "/snapshot", body), SNAPSHOT, SNAP, 201)
    assert result.stdout.decode().strip() == SNAP
    check(api, ["snapshot", "list", "-w", WS], ("GET", AGENT + "/snapshots?workspace_id=" + WS, None), [SNAPSHOT], "2.0 KiB")
    check(api, ["snapshot", "list", "--quiet"], ("GET", AGENT + "/snapshots", None), [SNAPSHOT], SNAP + "\n")
    check(api, ["snapshot", "show", SNAP], ("GET", AGENT + "/snapshots/" + SNAP, None), SNAPSHOT, "before")
    check(api, ["snapshot", "delete", SNAP], ("DELETE", AGENT + "/snapshots/" + SNAP, None), None, "", 204)
    body = {"snapshot_id": SNAP, "resource_limits": {"memory": "2G"}, "env": {"A": "b=c"}}
    check(api, ["snapshot", "restore", SNAP, "-m", "2G", "-e", "A=b=c"], ("POST", AGENT + "/workspaces/from-snapshot", body), WORKSPACE, WS, 201)


def test_refusals_of_the_gateway_and_of_the_command_line_differ(api):
    with Server((409, {"error": {"code": "conflict", "message": "held by another session"}})) as server:
        assert b"held by another" in server.run(api, "workspace", "attach", WS, SESSION, expect=1).stderr
    with Server() as server:
        for args in (["workspace", "set", WS], ["workspace", "set", WS, "--ttl", "soon"], ["workspace", "fork", WS, "-n", "two"], ["workspace", "stop"],
                     ["snapshot", "create", WS, "--ttl", "x"], ["snapshot", "restore", SNAP, "-e", "=x"], ["workspace", "create", "-w", "x"],
                     ["audit", "check"], ["audit", "verify", "-n", "3"]):
            server.run(api, *args, expect=2)
        assert server.asked == []


# ---- audit verify: lines hashed here, after the documentation ----

FIELDS = "owner workspace_id operation method status duration_ms caller agent_session_id request_id summary error_code error".split()


def entry_hash(line, previous):
    values = ["emergent-audit-1", previous, line["chain"], line["sequence"], line["at"]] + [line.get(name) for name in FIELDS]
    texts = ["-," if value in (None, "") else "%d:%s," % (len(str(value).encode()), value) for value in values]
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def chain(count, first=1, name="c"):
    lines, previous = [], None
    for sequence in range(1, first + count):
        line = {"chain": name, "sequence": sequence, "at": "2026-11-26T00:00:00.%03dZ" % sequence, "owner": "me", "operation": "bash", "method": "POST",
                "status": 200, "duration_ms": 0, "summary": "path=\"€\""}
        line["hash"] = entry_hash(line, previous)
        line.update({"previous_hash": previous} if previous else {})
        previous = line["hash"]
        lines.append(line)
    lines = lines[first - 1 :]
    lines[0].pop("previous_hash", None)
    return lines[::-1]


def verify(api, lines, *args, expect=0):
    with Server((200, lines[:2], {"X-Next-Cursor": "abc"}), (200, lines[2:])) as server:
        result = server.run(api, "audit", "verify", *args, expect=expect)
        assert [path for _, path, _ in server.asked][1].endswith("cursor=abc"), server.asked
    return (result.stdout + result.stderr).decode()


def test_audit_verify_follows_the_chain_over_pages(api):
    assert "5 lines of 1 chains are good" in verify(api, chain(5))
    assert "5 lines of 1 chains are good, and none is missing" in verify(api, chain(5, first=90), "--all-owners")
    lines = chain(5)
    del lines[2]
    assert "are good" in verify(api, lines), "an owner does not see the lines of others"
    assert "line 4 of chain c: lines before it are missing" in verify(api, lines, "--all-owners", expect=1)


def test_audit_verify_names_the_first_broken_line(api):
    lines = chain(6)
    lines[1]["summary"] = "path=\"x\""
    lines[3]["status"] = 201
    assert "line 3 of chain c: its content does not fit its hash" in verify(api, lines, expect=1)
    lines = chain(6)
    lines[3]["status"] = 201
    lines[3]["hash"] = entry_hash(lines[3], lines[3]["previous_hash"])
    assert "line 4 of chain c: it does not follow the line before" in verify(api, lines, expect=1)


def test_audit_sends_its_filters(api):
    path = AGENT + "/workspaces/" + WS + "/audit?operation=bash&status=4xx&limit=7"
    check(api, ["audit", "-w", WS, "-o", "bash", "-s", "4xx", "-n", "7"], ("GET", path, None), chain(1), "bash")
