#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random operations from several threads, kill -9 of the daemons meanwhile, then a comparison with the model: round after round.

usage: chaos.py KILLS     (run.sh starts the suite and looks for leaks afterwards)
The environment: EW_STATE_DIR, EW_RUN_DIR, EW_TEST_KEY, EW_TEST_BIN, EW_CHAOS_SEED. The last line is `N passed, N failed`.
"""

import collections
import os
import random
import sys
import threading
import time
import traceback

import checks
import operations
from daemons import ChaosApi, Daemons
from model import Model

WORKERS = 4
KILLS_OF_ROUND = 10
PAUSE_SECONDS = 0.05  # operations may be many, but the daemons need the processor, too
GIVE_UP_AT = 12
VICTIMS = (("gateway",), ("gvisord",), ("gateway", "gvisord"))
WEIGHTS = (5, 6, 2)


class World:
    def __init__(self, seed):
        self.seed = seed
        self.api = ChaosApi()
        self.daemons = Daemons()
        self.model = Model()
        self.lock = threading.Lock()
        self.passed = self.failed = self.lost = self.lost_by_kill = 0
        self.counts = collections.Counter()
        self.routes = set()
        self.round = 0

    def check(self, is_true, text, box=None):
        with self.lock:
            if is_true:
                self.passed += 1
                return True
            if box is not None and box.is_bad:
                return False
            self.failed += 1
            print("FAILED round %d: %s" % (self.round, text))
            if box is not None:
                box.is_bad = True
                print("       workspace %s, its last operations:" % box.id)
                for line in list(box.history)[-14:]:
                    print("         " + line)
            sys.stdout.flush()
            return False

    def count(self, name, how):
        with self.lock:
            self.counts[name, how] += 1

    def find_routes(self):
        paths = self.api.get("/openapi.json").json()["paths"]
        self.routes = {"/" + path.rsplit("/", 1)[1] for path in paths}


def worker(world, rng, stop):
    while not stop.is_set():
        try:
            operations.do_one(world, rng)
            time.sleep(rng.uniform(0, PAUSE_SECONDS))
        except Exception:
            world.check(False, traceback.format_exc())
            return


def kill_some(world, rng, number):
    """The moment, the victim and the pause before its return are what is varied."""
    target = world.daemons.kills + number
    tempo = rng.choice((0.5, 0.5, 2))  # in calmer rounds long operations come to their end, too
    while world.daemons.kills < target:
        time.sleep(rng.choice((0.02, 0.1, 0.3, 0.6, 1.0)) * rng.uniform(0.5, 1.5) * tempo)
        for name in rng.choices(VICTIMS, WEIGHTS)[0]:
            world.daemons.kill(name)
        time.sleep(rng.choice((0, 0, 0, 0.05, 0.3)))
        world.daemons.ensure()


def play_round(world, number):
    world.round += 1
    began, before = time.monotonic(), sum(world.counts.values())
    stop = threading.Event()
    threads = []
    for i in range(WORKERS):
        rng = random.Random("%d/%d/%d" % (world.seed, world.round, i))
        threads.append(threading.Thread(target=worker, args=(world, rng, stop)))
    for thread in threads:
        thread.start()
    try:
        kill_some(world, random.Random("%d/%d/kills" % (world.seed, world.round)), number)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    played = time.monotonic() - began
    checks.check_all(world)
    print("round %-3d %4d kills, %5d operations, %d workspaces, %d snapshots, %d checks, %d failed; %.1f s + %.1f s" % (
        world.round, world.daemons.kills, sum(world.counts.values()) - before, len(world.model.boxes), len(world.model.snaps), world.passed, world.failed,
        played, time.monotonic() - began - played), flush=True)


def wake_all(world):
    """What is stopped at the end was never compared: it is resumed and compared now."""
    if "/resume" not in world.routes:
        return
    for box in list(world.model.boxes.values()):
        box.note("resume at the end")
        reply = world.api.post(box.path + "/resume")
        if world.check(reply.status == 200, "every workspace can be resumed: %s" % reply, box):
            box.states = {"ready"}
    checks.check_all(world)


def end(world):
    wake_all(world)
    for box in list(world.model.boxes.values()):
        reply = world.api.delete(box.path)
        world.check(reply.status == 204, "every workspace can be deleted: %s" % reply, box)
    for snap in list(world.model.snaps.values()):
        reply = world.api.delete(snap.path)
        world.check(reply.status == 204, "every snapshot can be deleted: %s" % reply)
    world.model.boxes.clear()
    world.model.snaps.clear()
    checks.check_host(world)


def main(kills):
    seed = int(os.environ.get("EW_CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    print("seed %d (EW_CHAOS_SEED=%d replays its choices)" % (seed, seed), flush=True)
    world = World(seed)
    world.find_routes()
    try:
        for i in range(3):
            operations.op_create(world, None, random.Random(i), "t%d" % i)
        while world.daemons.kills < kills and world.failed < GIVE_UP_AT:
            play_round(world, min(KILLS_OF_ROUND, kills - world.daemons.kills))
        end(world)
    except (Exception, KeyboardInterrupt):
        world.daemons.ensure()
        world.check(False, traceback.format_exc())
    names = sorted({name for name, _ in world.counts})
    print("operations: " + ", ".join("%s %d+%d" % (n, world.counts[n, "answered"], world.counts[n, "unanswered"]) for n in names) + " (answered + not)")
    print("%d kills; counters lost: %d on purpose, %d otherwise with a warning; seed %d" % (world.daemons.kills, world.lost, world.lost_by_kill, seed))
    print("%d passed, %d failed" % (world.passed, world.failed))
    return 1 if world.failed or not world.passed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
