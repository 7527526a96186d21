#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stop, resume, snapshot and fork over REST against `runsc checkpoint` and `runsc restore` of the same bundle (lifecycle.sh starts the suite).

The bare side has the sandbox's own config.json, layers and flags, only with a process of its own that holds the same amount of memory. A stop is
answered when all of it is on disk, so the bare checkpoint is followed by fsync of what it wrote.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

import host
from api import SNAPSHOTS, WORKSPACES, Api, Workspace, wait_until

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
LIMITS = {"cpu": "2", "memory": "1G", "disk": "1G"}
HOLD = "import os, sys, time\nheld = os.urandom(int(sys.argv[1]) << 20)\nopen('/held', 'w').close()\ntime.sleep(100000)"


def timed(function, *args, **fields):
    began = time.monotonic()
    value = function(*args, **fields)
    return (time.monotonic() - began) * 1000, value


def run(*argv):
    # No pipe: what is started keeps it open.
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


class Bare:
    """What gvisord starts, without gvisord."""

    def __init__(self, ws, megabytes):
        base = host.provider_dir("sandboxes", ws.id)
        words = host.command_line(host.kernel_of(ws.id)).split(" ")
        flags = [word for word in words[1:words.index("boot")] if word.startswith(("--overlay2", "--network", "--platform", "--ignore-cgroups", "--directfs",
                                                                                    "--file-access"))]
        self.dir = tempfile.mkdtemp(prefix="bare-", dir=os.environ["EW_STATE_DIR"])
        self.runsc = ["runsc", "--root", os.path.join(self.dir, "root")] + flags
        with open(os.path.join(base, "config.json")) as file:
            config = json.load(file)
        for name in ("upper", "work", "rootfs", "bundle", "root"):
            os.mkdir(os.path.join(self.dir, name))
        with open("/proc/self/mounts") as file:
            line = next(line for line in file if line.split(" ")[1] == os.path.join(base, "rootfs"))
        lower = next(option for option in line.split(" ")[3].split(",") if option.startswith("lowerdir="))
        run("mount", "-t", "overlay", "overlay", "-o", "%s,upperdir=%s/upper,workdir=%s/work" % (lower, self.dir, self.dir), os.path.join(self.dir, "rootfs"))
        config["root"]["path"] = os.path.join(self.dir, "rootfs")
        config["process"]["args"] = ["/usr/bin/python3", "-c", HOLD, str(megabytes)]
        config["linux"].pop("cgroupsPath", None)
        with open(os.path.join(self.dir, "bundle", "config.json"), "w") as file:
            json.dump(config, file)
        run(*self.runsc, "run", "--detach", "--bundle", self.dir + "/bundle", "first")
        wait_until(lambda: os.path.exists(self.dir + "/upper/held"), 60, "the bare sandbox holds its memory")

    def checkpoint(self, name, image, *options):
        image = os.path.join(self.dir, image)
        os.mkdir(image)
        run(*self.runsc, "checkpoint", "--image-path", image, *options, name)
        for path in [os.path.join(image, each) for each in os.listdir(image)] + [image]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def restore(self, name, image):
        run(*self.runsc, "restore", "--detach", "--image-path", os.path.join(self.dir, image), "--bundle", self.dir + "/bundle", name)

    def delete(self, name):
        subprocess.run(self.runsc + ["delete", "-force", name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def measure(self, options):
        stops, resumes, copies = [], [], []
        name = "first"
        for i in range(ROUNDS):
            copies.append(timed(self.checkpoint, name, "copy%d" % i, "--leave-running", *options)[0])
            stops.append(timed(self.checkpoint, name, "image%d" % i, *options)[0])
            self.delete(name)
            name = "next%d" % i
            resumes.append(timed(self.restore, name, "image%d" % i)[0])
            for image in ("copy%d" % i, "image%d" % i):
                shutil.rmtree(os.path.join(self.dir, image))
        self.delete(name)
        return statistics.median(stops), statistics.median(resumes), statistics.median(copies)

    def close(self):
        for name in ["first"] + ["next%d" % i for i in range(ROUNDS)]:
            self.delete(name)
        subprocess.run(["umount", os.path.join(self.dir, "rootfs")], check=False)


def checkpoint_options():
    """Whatever gvisord gives to checkpoint: the peer gets the same."""
    return os.environ.get("BENCH_CHECKPOINT_OPTIONS", "--compression=none").split()


@contextlib.contextmanager
def holding(api, megabytes):
    ws = api.create(resource_limits=LIMITS, warm_start=False)
    ws.start("/usr/bin/python3", "-c", HOLD, str(megabytes))
    wait_until(lambda: ws.bash("test -e /held")["exit_code"] == 0, 60, "memory is held")
    yield ws
    ws.delete()


def measure_ours(api, ws):
    stops, resumes, copies, forks, stalls = [], [], [], [], []
    for _ in range(ROUNDS):
        took, row = timed(ws.does, "snapshot", 201)
        copies.append(took)
        stalls.append(row.get("stall_ms", 0))
        assert api.delete("%s/%s" % (SNAPSHOTS, row["snapshot_id"])).status == 204
        stops.append(timed(ws.stop)[0])
        resumes.append(timed(ws.resume)[0])

        def fork():
            reply = api.post(ws.path + "/fork?wait=60", {"count": 1})
            assert reply.status == 201, reply
            copy = Workspace(api, reply.json()["workspaces"][0])
            copy.wait_for("ready")
            return copy

        took, copy = timed(fork)
        forks.append(took)
        copy.delete()
    return [statistics.median(values) for values in (stops, resumes, copies, forks, stalls)]


def row(what, ours, peer, target):
    ratio = "%.2f" % (ours / peer) if peer else "-"
    print("| %s | %s | %s | %s | %s |" % (what, "%.1f" % ours if ours < 20 else "%.0f" % ours, "%.0f" % peer if peer else "-", ratio, target), flush=True)


POOLS = "/api/v1/admin/warm-pools"
POOL = 50


def fill(api):
    reply = api.request("PUT", POOLS, {"pools": [{"disk": LIMITS["disk"], "network": "none", "size": POOL}]})
    assert reply.status == 200, reply

    def is_full():
        nodes = api.get(POOLS).json()["nodes"]
        return nodes and nodes[0]["pools"] and nodes[0]["pools"][0]["ready"] == POOL

    wait_until(is_full, 300, "the pool is full")


def create_warm(api):
    row_of = api.post(WORKSPACES + "?wait=30", {"container_type": "agent_workspace", "resource_limits": LIMITS})
    assert row_of.status == 201 and row_of.json()["metadata"].get("warm") and row_of.json()["status"] == "ready", row_of
    return row_of.json()["id"]


def measure_warm(api):
    """One after another, then a burst of as many as the pool has."""
    fill(api)
    times, ids = [], []
    for _ in range(POOL):
        took, ident = timed(create_warm, api)
        times.append(took)
        ids.append(ident)
        time.sleep(0.05)
    for ident in ids:
        api.delete("%s/%s" % (WORKSPACES, ident))
    fill(api)
    slowest, ids = [], []

    def one():
        took, ident = timed(create_warm, Api(api.url, api.key))
        slowest.append(took)
        ids.append(ident)

    threads = [threading.Thread(target=one) for _ in range(POOL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == POOL, "%d of %d creates came from the pool" % (len(ids), POOL)
    for ident in ids:
        api.delete("%s/%s" % (WORKSPACES, ident))
    api.request("PUT", POOLS, {"pools": []})
    times.sort()
    row("warm create over REST, p50, against 2 ms", statistics.median(times), 2, "<= 1.00")
    row("warm create over REST, p99, against 10 ms", times[-1], 10, "<= 1.00")
    row("burst of %d creates with a pool of %d: the slowest, against 250 ms" % (POOL, POOL), max(slowest), 250, "<= 1.00")


def main():
    api = Api(os.environ["EW_TEST_URL"], os.environ["EW_TEST_KEY"])
    version = subprocess.run(["runsc", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[0]
    print("## Lifecycle, measured %s, %d CPUs, %s, kernel %s" % (time.strftime("%Y-%m-%d", time.gmtime()), os.cpu_count(), version, os.uname().release))
    print("\nMedians of %d in milliseconds, over REST. Peers are `runsc checkpoint %s` with fsync, and `runsc restore`. Command: `tests/bench/lifecycle.sh`.\n" % (
        ROUNDS, " ".join(checkpoint_options())))
    print("| what | ours | peer | ratio | target |\n|---|---|---|---|---|")
    creates = []
    for _ in range(ROUNDS):
        took, ws = timed(api.create, resource_limits=LIMITS, warm_start=False)
        creates.append(took)
        ws.delete()
    row("cold create, for comparison", statistics.median(creates), 0, "-")
    for megabytes in (0, 100):
        with holding(api, megabytes) as ws:
            bare = Bare(ws, megabytes)
            try:
                stop, resume, copy = bare.measure(checkpoint_options())
            finally:
                bare.close()
            stops, resumes, copies, forks, stalls = measure_ours(api, ws)
            row("stop, %d MB dirty, against checkpoint" % megabytes, stops, stop, "<= 1.20")
            row("resume, %d MB dirty, against restore" % megabytes, resumes, resume, "<= 1.20")
            row("snapshot while running, %d MB dirty, against checkpoint --leave-running" % megabytes, copies, copy, "<= 1.20")
            row("fork, %d MB dirty, against checkpoint --leave-running and restore" % megabytes, forks, copy + resume, "<= 1.20")
            row("stall of a snapshot, %d MB dirty" % megabytes, stalls, 0, "-")
    measure_warm(api)


if __name__ == "__main__":
    main()
