# SPDX-License-Identifier: Apache-2.0
"""Many clients at once, every reply compared with a model.

EW_SOAK_CLIENTS × EW_SOAK_CALLS calls over EW_SOAK_WORKSPACES workspaces; the full size is 50 × 200 over 10, `make test` runs less.
"""

import base64
import hashlib
import os
import random
import threading
import time

CLIENTS = int(os.environ.get("EW_SOAK_CLIENTS", "20"))
CALLS = int(os.environ.get("EW_SOAK_CALLS", "40"))
WORKSPACES = int(os.environ.get("EW_SOAK_WORKSPACES", "10"))
BIG = 10 * 1024 * 1024


class Model:
    """What one client's directory must hold. Each client has its own, so that the model is exact while the workspace is shared."""

    def __init__(self, ws, number):
        self.ws = ws
        self.dir = "/workspace/client%d" % number
        self.random = random.Random(number)
        self.files = {}
        self.commits = 0
        ws.sh("git init -q -b main %s && cd %s && git config user.name c && git config user.email c@example.org" % (self.dir, self.dir))

    def path(self, name):
        return "%s/%s" % (self.dir, name)

    def any_file(self):
        return self.random.choice(sorted(self.files)) if self.files else None

    def write(self):
        name = "f%d.txt" % self.random.randrange(20)
        text = "".join("line %d %d\n" % (i, self.random.randrange(10**6)) for i in range(self.random.randrange(1, 60)))
        assert self.ws.write(self.path(name), text)["bytes_written"] == len(text)
        self.files[name] = text

    def read(self):
        name = self.any_file()
        if name is None:
            return self.write()
        result = self.ws.ok("read", file_path=self.path(name))
        expected = ["%d: %s" % (i + 1, line) for i, line in enumerate(self.files[name].splitlines())]
        assert result["content"].splitlines() == expected, (name, result)
        return None

    def edit(self):
        name = self.any_file()
        if name is None:
            return self.write()
        old = self.random.choice(self.files[name].splitlines()) + "\n"
        if self.files[name].count(old) != 1:
            return self.read()
        new = "edited %d\n" % self.random.randrange(10**9)
        result = self.ws.ok("edit", file_path=self.path(name), old_string=old, new_string=new)
        self.files[name] = self.files[name].replace(old, new)
        assert result["sha256"] == hashlib.sha256(self.files[name].encode()).hexdigest(), result
        return None

    def glob(self):
        result = self.ws.ok("glob", pattern="f*.txt", path=self.dir)
        assert sorted(result["matches"]) == sorted(self.path(n) for n in self.files), result

    def grep(self):
        result = self.ws.ok("grep", pattern="^line 3 ", path=self.dir, include="*.txt")
        expected = sorted((self.path(n), i + 1, line) for n, text in self.files.items() for i, line in enumerate(text.splitlines()) if line.startswith("line 3 "))
        assert sorted((m["file_path"], m["line_number"], m["line"]) for m in result["matches"]) == expected, result

    def bash(self):
        number = self.random.randrange(10**9)
        result = self.ws.bash("cd %s && ls f*.txt 2>/dev/null | wc -l; echo %d >&2; exit %d" % (self.dir, number, number % 100))
        assert (int(result["stdout"]), result["stderr"], result["exit_code"]) == (len(self.files), "%d\n" % number, number % 100), result

    def git(self):
        if not self.files:
            return self.write()
        result = self.ws.ok("git", action="commit", message="commit %d" % self.commits, workdir=self.dir)
        if result["exit_code"] == 0:
            self.commits += 1
        status = self.ws.ok("git", action="status", workdir=self.dir)["status"]
        assert status["branch"] == "main" and not status["untracked"] and not status["staged"] and not status["unstaged"], status
        return None

    def stream(self):
        count = self.random.randrange(100, 3000)
        text, end = "", None
        with self.ws.api.stream("POST", self.ws.path + "/bash", {"command": "seq 1 %d" % count}) as stream:
            for event in stream:
                if event.name == "stdout":
                    text += event.data["data"]
                elif event.name in ("result", "error"):
                    end = event
                    break
        assert stream.status == 200 and end is not None and end.name == "result" and end.data["exit_code"] == 0, (stream.status, end)
        assert text == "".join("%d\n" % i for i in range(1, count + 1)), "streamed text differs: %d bytes, seq %d" % (len(text), count)

    def big_file(self):
        seed = self.random.randbytes(1024)
        data = seed * (BIG // len(seed))
        reply = self.ws.api.request("PUT", self.ws.files(self.path("big.bin")), raw=data)
        assert reply.status in (200, 201) and reply.json()["sha256"] == hashlib.sha256(data).hexdigest(), reply
        back = self.ws.read_bytes(self.path("big.bin"))
        assert back == data, "a large file came back different: %d bytes" % len(back)
        part = self.ws.api.get(self.ws.files(self.path("big.bin")), headers={"Range": "bytes=1000-1999"})
        assert part.status == 206 and part.body == data[1000:2000], "a range is wrong: %d, %d bytes" % (part.status, len(part.body))
        self.ws.api.delete(self.ws.files(self.path("big.bin")))

    def binary(self):
        data = self.random.randbytes(5000)
        self.ws.write(self.path("b.bin"), data)
        result = self.ws.bash("base64 -w0 < %s" % self.path("b.bin"))
        assert base64.b64decode(result["stdout"]) == data, "a binary file came back different: %s" % str(result)[:200]
        self.ws.api.delete(self.ws.files(self.path("b.bin")))


MIX = (("write", 22), ("read", 24), ("edit", 14), ("glob", 8), ("grep", 8), ("bash", 12), ("git", 4), ("stream", 4), ("binary", 3), ("big_file", 1))


def client(number, ws, times, errors):
    try:
        model = Model(ws, number)
        names = [name for name, weight in MIX for _ in range(weight)]
        # Each kind at least once, then by weight.
        plan = [name for name, _ in MIX][: max(0, CALLS)] + [model.random.choice(names) for _ in range(CALLS)]
        for name in plan[:CALLS]:
            began = time.monotonic()
            getattr(model, name)()
            times.append((time.monotonic() - began, name))
    except BaseException as error:  # a thread must hand its failure over
        errors.append("client %d: %s: %s" % (number, type(error).__name__, str(error)[:600]))


def test_S127_S128_many_clients_get_what_the_model_says(make):
    spaces = [make(resource_limits={"cpu": "1", "memory": "512M", "disk": "1G"}) for _ in range(WORKSPACES)]
    times, errors = [], []
    began = time.monotonic()
    threads = [threading.Thread(target=client, args=(i, spaces[i % WORKSPACES], times, errors)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    durations = sorted(t for t, _ in times)
    assert durations, errors
    print("       %d clients, %d workspaces, %d calls in %.1f s (%.0f/s); p50 %.1f ms, p99 %.1f ms, max %.1f ms" % (
        CLIENTS, WORKSPACES, len(times), took, len(times) / took, durations[len(durations) // 2] * 1000,
        durations[min(len(durations) - 1, int(len(durations) * 0.99))] * 1000, durations[-1] * 1000))
    for name, _ in MIX:
        mine = sorted(t for t, n in times if n == name)
        if mine:
            print("         %-9s %5d  p50 %8.1f ms  p99 %8.1f ms" % (name, len(mine), mine[len(mine) // 2] * 1000, mine[min(len(mine) - 1, int(len(mine) * 0.99))] * 1000))
    assert not errors, "%d clients failed:\n%s" % (len(errors), "\n".join(errors[:10]))
    assert len(times) == CLIENTS * CALLS


test_S127_S128_many_clients_get_what_the_model_says.seconds = 3600
