# SPDX-License-Identifier: Apache-2.0
"""The Docker daemon under the suite, when it has one (EW_TEST_BACKEND): asked directly, past gvisord."""

import http.client
import json
import os
import socket

DIR = os.environ.get("EW_TEST_DOCKER_DIR", "")
IS_USED = bool(DIR)


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.path.join(DIR, "docker.sock"))


def ask(method, path, body=None):
    """(status, decoded answer)"""
    connection = Connection("docker", timeout=60)
    connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, json.loads(text) if text[:1] in b"{[" and text else text


def name_of(ws):
    return "agent-workspace-" + ws.id


def container(ws):
    status, found = ask("GET", "/containers/%s/json" % name_of(ws))
    assert status == 200, found
    return found


def names(path, key):
    found = ask("GET", path)[1]
    found = found["Volumes"] or [] if isinstance(found, dict) else found
    return {one[key] if isinstance(one[key], str) else one[key][0].lstrip("/") for one in found}


def everything():
    return names("/containers/json?all=1", "Names") | names("/volumes", "Name")


def has_no_disk_limit(test):
    """Docker's volumes have no size: what the warning says there is tested by test_docker."""
    return nothing if IS_USED else test


def keeps_no_processes(test):
    """A stop ends them there: test_docker."""
    return nothing if IS_USED else test


def nothing():
    pass
