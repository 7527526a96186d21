# SPDX-License-Identifier: Apache-2.0
"""A small REST client for the tests: standard library only, one kept connection per thread, every reply with its request id."""

import base64
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse

WORKSPACES = "/api/v1/agent/workspaces"
SNAPSHOTS = "/api/v1/agent/snapshots"


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The error code, None when the reply is no error."""
        return self.json()["error"]["code"] if self.status >= 400 else None

    @property
    def message(self):
        return self.json()["error"]["message"]

    def __repr__(self):
        return "HTTP %d %s (request %s)" % (self.status, self.body[:400], self.headers.get("X-Request-Id"))


class Event:
    def __init__(self, name, ident, data):
        self.name = name
        self.id = ident
        self.data = json.loads(data) if data else None

    def __repr__(self):
        return "Event(%s, %s, %s)" % (self.name, self.id, str(self.data)[:200])


class Stream:
    """Server-sent events of one request; iterate it; close() hangs up."""

    def __init__(self, connection, reply):
        self.connection = connection
        self.reply = reply
        self.status = reply.status
        self.comments = 0

    def __iter__(self):
        name, ident, data = "message", None, []
        while True:
            line = self.reply.readline()
            if not line:
                return
            line = line.rstrip(b"\r\n")
            if not line:
                if data:
                    yield Event(name, ident, b"\n".join(data))
                name, data = "message", []
            elif line.startswith(b":"):
                self.comments += 1
            else:
                key, _, value = line.partition(b":")
                value = value[1:] if value.startswith(b" ") else value
                if key == b"event":
                    name = value.decode()
                elif key == b"id":
                    ident = value.decode()
                elif key == b"data":
                    data.append(value)

    def close(self):
        # The reply holds the socket too: shutdown tells the other side now.
        if self.connection.sock is not None:
            try:
                self.connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.reply.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Api:
    def __init__(self, url, key):
        parts = urllib.parse.urlsplit(url)
        self.url = url
        self.host, self.port = parts.hostname, parts.port
        self.key = key
        self.local = threading.local()

    def connect(self, timeout=180):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def headers(self, extra=None):
        headers = {"Authorization": "Bearer " + self.key} if self.key else {}
        headers.update(extra or {})
        return {name: value for name, value in headers.items() if value is not None}

    def request(self, method, path, body=None, headers=None, raw=None, timeout=180):
        """body: a value sent as JSON; raw: bytes or an iterable, sent as they are."""
        headers = self.headers(headers)
        if body is not None:
            raw = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = getattr(self.local, "connection", None)
        for is_last in (connection is None, True):
            if connection is None:
                connection = self.connect(timeout)
            try:
                connection.request(method, path, body=raw, headers=headers, encode_chunked=headers.get("Transfer-Encoding") == "chunked")
                reply = connection.getresponse()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A kept connection may have been closed while it was idle.
                connection.close()
                connection = None
                if is_last:
                    self.local.connection = None
                    raise
        data = reply.read()
        result = Reply(reply.status, reply.headers, data)
        if reply.will_close:
            connection.close()
            connection = None
        self.local.connection = connection
        return result

    def stream(self, method, path, body=None, headers=None, timeout=60):
        connection = self.connect(timeout)
        headers = self.headers(dict({"Accept": "text/event-stream"}, **(headers or {})))
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body=raw, headers=headers)
        return Stream(connection, connection.getresponse())

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body={} if body is None else body, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)

    def create(self, wait=60, expect="ready", **fields):
        """A workspace of the provider under test, small unless the fields say otherwise."""
        body = {"container_type": "agent_workspace", "provider": provider(), "resource_limits": {"cpu": "1", "memory": "512M", "disk": "1G"}}
        body.update(fields)
        body = {name: value for name, value in body.items() if value is not None}
        reply = self.post("%s?wait=%d" % (WORKSPACES, wait), body)
        assert reply.status == 201, reply
        workspace = Workspace(self, reply.json())
        if expect is not None:
            workspace.wait_for(expect)
        return workspace


class Workspace:
    def __init__(self, api, row):
        self.api = api
        self.row = row
        self.id = row["id"]
        self.path = "%s/%s" % (WORKSPACES, self.id)

    def show(self):
        reply = self.api.get(self.path)
        assert reply.status == 200, reply
        self.row = reply.json()
        return self.row

    def wait_for(self, status, seconds=90):
        def reached():
            if self.show()["status"] == "error" and status != "error":
                raise AssertionError("workspace failed: %s" % self.row.get("failure_reason"))
            return self.row["status"] == status

        if self.row["status"] != status:
            wait_until(reached, seconds, "workspace becomes %s" % status)

    def call(self, tool, headers=None, **fields):
        return self.api.post("%s/%s" % (self.path, tool), fields, headers=headers)

    def ok(self, tool, **fields):
        reply = self.call(tool, **fields)
        assert reply.status == 200, reply
        return reply.json()

    def bash(self, command, **fields):
        return self.ok("bash", command=command, **fields)

    def sh(self, command, **fields):
        """Output of a command that must succeed."""
        result = self.bash(command, **fields)
        assert result["exit_code"] == 0, result
        return result["stdout"]

    def write(self, path, content):
        if isinstance(content, bytes):
            return self.ok("write", file_path=path, content_base64=base64.b64encode(content).decode())
        return self.ok("write", file_path=path, content=content)

    def read_bytes(self, path):
        reply = self.api.get(self.files(path))
        assert reply.status == 200, reply
        return reply.body

    def files(self, path, **query):
        query["path"] = path
        return "%s/files?%s" % (self.path, urllib.parse.urlencode(query))

    def processes(self):
        reply = self.api.get(self.path + "/processes")
        assert reply.status == 200, reply
        return reply.json()["processes"]

    def delete(self):
        reply = self.api.delete(self.path)
        assert reply.status in (204, 404), reply

    def does(self, verb, status=200, **fields):
        """A verb of the lifecycle that must succeed: its reply."""
        reply = self.api.post("%s/%s" % (self.path, verb), fields)
        assert reply.status == status, (verb, reply)
        return reply.json()

    def stop(self, **fields):
        self.row = self.does("stop", **fields)
        assert self.row["id"] == self.id and self.row["status"] == "stopped", self.row
        return self.row

    def resume(self):
        self.row = self.does("resume")
        assert self.row["id"] == self.id and self.row["status"] == "ready", self.row
        return self.row

    def start(self, *argv, **fields):
        """A background process: its number."""
        reply = self.api.post(self.path + "/processes", dict(fields, argv=list(argv)))
        assert reply.status in (200, 201), reply
        return reply.json()["process_id"]

    def output(self, number, **query):
        reply = self.api.get("%s/processes/%d/output?%s" % (self.path, number, urllib.parse.urlencode(query)))
        assert reply.status == 200, reply
        return reply.json()


def wait_until(condition, seconds=30, what="condition"):
    """Polls a condition with a deadline; never a bare sleep."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("%s: not within %d s" % (what, seconds))
        time.sleep(0.05)


def provider():
    return os.environ.get("EW_TEST_PROVIDER", "gvisor")
