# SPDX-License-Identifier: Apache-2.0
"""The daemons of the suite under test as children of the driver: started, killed -9, started again. And a client that finds the gateway's port anew."""

import http.client
import json
import os
import signal
import subprocess
import time

import api as rest

DAEMONS = ("gateway", "gvisord")
ANSWER_SECONDS = 60  # no call of the driver may take longer, kills or not


class Unknown(Exception):
    """No answer, or one that leaves open what was done."""


class ChaosApi(rest.Api):
    """Each request on a connection of its own, never repeated by itself: the model must know what was sent how often."""

    def __init__(self):
        super().__init__("http://127.0.0.1:1", os.environ["EW_TEST_KEY"])

    def connect(self, timeout=ANSWER_SECONDS):
        with open(os.path.join(os.environ["EW_STATE_DIR"], "gateway.port")) as file:
            port = int(file.read() or 1)
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, raw=None, timeout=ANSWER_SECONDS):
        headers = self.headers(headers)
        if body is not None:
            raw = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = None
        try:
            connection = self.connect(timeout)
            connection.request(method, path, body=raw, headers=headers)
            reply = connection.getresponse()
            return rest.Reply(reply.status, reply.headers, reply.read())
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unknown("%s" % type(error).__name__) from error
        finally:
            if connection is not None:
                connection.close()


class Daemons:
    def __init__(self):
        self.children = {}
        self.kills = 0

    def pid_of(self, name):
        try:
            with open(os.path.join(os.environ["EW_RUN_DIR"], name + ".pid")) as file:
                pid = int(file.read())
            with open("/proc/%d/comm" % pid) as file:
                return pid if file.read().strip() == name else None
        except (OSError, ValueError):
            return None

    def start(self, name):
        with open(os.path.join(os.environ["EW_STATE_DIR"], "log", name + ".log"), "ab") as log:
            self.children[name] = subprocess.Popen([os.path.join(os.environ["EW_TEST_BIN"], name)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                   start_new_session=True)

    def kill(self, name):
        """-9, at whatever it is doing; it may be just starting."""
        child = self.children.get(name)
        if child is not None:
            child.kill()
            child.wait()
            self.children[name] = None
            self.kills += 1
            return
        pid = self.pid_of(name)  # started by suite.sh, not our child
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            while self.pid_of(name) == pid:
                time.sleep(0.01)

    def ensure(self):
        """Starts what is down. Returns the names of daemons that ended by themselves since the last call."""
        ended = []
        for name in DAEMONS:
            child = self.children.get(name)
            if child is not None and child.poll() is not None:
                ended.append("%s ended by itself with %d" % (name, child.returncode))
                child = self.children[name] = None
            if child is None and self.pid_of(name) is None:
                self.start(name)
        return ended
