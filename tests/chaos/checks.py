# SPDX-License-Identifier: Apache-2.0
"""When all is quiet again: is everything as the model says, and nothing else there?"""

import re
import time

import host
from daemons import Unknown
from model import Snap

WORKSPACES = "/api/v1/agent/workspaces"
SNAPSHOTS = "/api/v1/agent/snapshots"
QUIET_SECONDS = 60


def get(world, path):
    """Quiet now: an answer is due."""
    deadline = time.monotonic() + 20
    while True:
        try:
            reply = world.api.get(path)
            if reply.status < 500:
                return reply
            what = repr(reply)
        except Unknown as error:
            what = str(error)
        if time.monotonic() > deadline:
            raise AssertionError("GET %s: %s" % (path, what))
        world.daemons.ensure()
        time.sleep(0.1)


def until(condition, seconds):
    """The last value of a condition that should come true; an empty one after the time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.05)


def wait_quiet(world):
    """Daemons up, every row at rest, every ready workspace answers."""
    for text in world.daemons.ensure():
        world.check(False, text)

    def is_ready():
        world.daemons.ensure()
        return get(world, "/ready").status == 200

    def at_rest():
        rows = get(world, WORKSPACES).json()
        moving = [row for row in rows if row["status"] in ("creating", "stopping")]
        return (rows, True) if not moving else None

    world.check(until(lambda: safely(is_ready), QUIET_SECONDS), "the suite is ready again after kills")
    found = until(at_rest, QUIET_SECONDS)
    rows = found[0] if found else get(world, WORKSPACES).json()
    world.check(bool(found), "every row comes to rest: %s" % {row["id"]: row["status"] for row in rows})
    return rows


def safely(condition):
    try:
        return condition()
    except (AssertionError, Unknown):
        return None


def adopt_unanswered(world, rows):
    """Creates, forks and snapshots that got no answer: either not there, or there and right."""
    model = world.model
    seen = {}
    for row in rows:
        token = row.get("metadata", {}).get("chaos") if row["id"] not in model.boxes else None
        if row["id"] in model.gone:
            world.check(False, "an acknowledged delete does not come back: %s" % row)
        elif token in model.new_boxes:
            seen[token] = seen.get(token, 0) + 1
            box = model.add(row["id"], model.new_boxes[token][0], "made by %s without an answer" % token)
            box.states = {"ready", "error"}
        elif row["id"] not in model.boxes:
            world.check(False, "nobody asked for this workspace: %s" % row)
    for token, number in seen.items():
        world.check(number <= model.new_boxes[token][1], "%s made %d workspaces, asked for %d" % (token, number, model.new_boxes[token][1]))
    model.new_boxes.clear()


def check_snapshots(world):
    model = world.model
    if "/from-snapshot" not in world.routes:
        return

    def moving():
        """One that got no answer and that no daemon has is kept a while, for its caller to come back with its key."""
        on_disk = host.snapshot_names()
        return {row["snapshot_id"]: row["status"] for row in get(world, SNAPSHOTS).json() if row["status"] == "deleting" or (row["status"] == "creating" and (
            row["snapshot_id"] in model.snaps or on_disk & {row["snapshot_id"], ".new-" + row["snapshot_id"]}))}

    until(lambda: not moving(), QUIET_SECONDS)
    world.check(not moving(), "every snapshot comes to rest: %s" % moving())
    rows = {row["snapshot_id"]: row for row in get(world, SNAPSHOTS).json()}
    for snap in list(model.snaps.values()):
        if snap.id not in rows:
            world.check(snap.may_be_gone, "acknowledged snapshot %s is listed" % snap.id)
            del model.snaps[snap.id]
        else:
            world.check(rows[snap.id]["status"] == "ready", "an acknowledged snapshot is complete: %s" % rows[snap.id])
            snap.may_be_gone = False
    names = {}
    for ident, row in rows.items():
        if ident in model.snaps:
            continue
        name = row.get("name")
        world.check(name in model.new_snaps, "nobody asked for this snapshot: %s" % row)
        names[name] = names.get(name, 0) + 1
        if row["status"] == "ready" and name in model.new_snaps:
            model.snaps[ident] = Snap(ident, model.new_snaps[name])
        else:
            reply = world.api.delete(SNAPSHOTS + "/" + ident)
            world.check(reply.status == 204, "a snapshot that was not made can be deleted: %s" % reply)
    world.check(all(number == 1 for number in names.values()), "each call made one snapshot: %s" % names)
    model.new_snaps.clear()
    wanted = set(model.snaps)
    found = until(lambda: host.snapshot_names() == wanted, 20)
    world.check(found, "snapshots on disk are those of the rows: more %s, fewer %s" % (host.snapshot_names() - wanted, wanted - host.snapshot_names()))


def at_rest(world, box):
    """Its row once it agrees with the host: a resume that got no answer goes on while the status is still `stopped`."""
    seen = {}

    def agrees():
        reply = get(world, box.path)
        row = reply.json() if reply.status == 200 else None
        is_same = row is not None and seen.get("status") == row["status"]
        seen.clear()
        seen.update(row or {})
        if row is None or row["status"] == "error":
            return True
        runs = bool(host.what_runs_of(box.id))
        if len(box.states) > 1 and not is_same:
            time.sleep(0.3)  # its second look
            return False
        return row["status"] in ("ready", "stopped") and runs == (row["status"] == "ready")

    until(agrees, 20)
    return seen or None


def check_box(world, box):
    """Returns False when it is to be forgotten."""
    row = at_rest(world, box)
    if row is None:
        world.check(box.may_be_gone or "error" in box.states, "an acknowledged workspace is there", box)
        return False
    box.may_be_gone = False
    status = row["status"]
    if status == "error" and "error" in box.states:
        return False  # its create got no answer and failed: it is deleted
    allowed = box.states & {"ready", "stopped"}
    if not world.check(status in allowed, "its status is %s, should be of %s: %s" % (status, allowed, row.get("failure_reason")), box):
        return False
    box.states = {status}
    holder = row.get("agent_session_id")
    if not world.check(holder in box.holders, "held by %s, should be of %s" % (holder, box.holders), box):
        return False
    box.holders = {holder}
    if status == "stopped":
        left = until(lambda: not host.what_runs_of(box.id), 10)
        return world.check(left, "nothing of a stopped one runs: %s" % host.what_runs_of(box.id), box)
    return check_files(world, box) and check_lines(world, box) and check_counters(world, box, row)


def content_of(world, box, path):
    reply = get(world, "%s/files?path=%s" % (box.path, path))
    if reply.status == 404:
        return None
    return reply.body.decode(errors="replace") if reply.status == 200 else repr(reply)


def check_files(world, box):
    good = True
    for path, possible in sorted(box.files.items()):
        content = content_of(world, box, path)
        good = world.check(content in possible, "%s holds %.60r (%s), should be one of %s" % (
            path, content, len(content or ""), [p and "%.20s (%d)" % (p, len(p)) for p in possible]), box) and good
        box.files[path] = {content}
    return good


def check_lines(world, box):
    if not box.lines:
        return True
    found = (content_of(world, box, "log.txt") or "").splitlines()
    kept = []
    for text, fewest, most in box.lines:
        number = found.count(text)
        allowed = most if box.may_lose_processes else 1  # without its memory the agent cannot know the key
        if not world.check(fewest <= number <= allowed, "%s ran %d times, should be %d to %d" % (text, number, fewest, allowed), box):
            return False
        kept += [[text, number, number]] if number else []
    known = [text for text, _, _ in box.lines]
    if not world.check(all(text in known for text in found), "log.txt holds only what was written: %s" % found[-3:], box):
        return False
    sure = [text for text, fewest, _ in box.lines if fewest]
    order = [text for text in dict.fromkeys(found) if text in sure]
    box.lines = kept
    return world.check(order == sure, "acknowledged lines stand in their order", box)


def lost(world, box, counter, row, what):
    """A counter is not there: somebody must have said so."""
    told = [w for w in row.get("warnings", []) if re.search("process", w)]
    if not counter.is_sure:
        return True
    if box.may_lose_processes:
        world.lost += 1
        return True
    if told:
        world.lost_by_kill += 1
        print("lost   round %d: counter %s of %s: %s" % (world.round, counter.token, box.id, "; ".join(told)))
        for line in list(box.history)[-6:]:
            print("         " + line)
    return world.check(told, "counter %s: %s, and no warning tells of lost processes: %s" % (
        counter.token, what, row.get("warnings")), box)


def check_counters(world, box, row):
    reply = get(world, box.path + "/processes")
    if not world.check(reply.status == 200, "its processes can be listed: %s" % reply, box):
        return False
    rows = {p.get("tag"): p for p in reply.json()["processes"] if p.get("tag")}
    good = world.check(set(rows) <= set(box.counters) or bool(box.may_lose_processes), "processes are those started: %s, %s" % (
        sorted(rows), sorted(box.counters)), box)
    for token, counter in list(box.counters.items()):
        process = rows.get(token)
        if process is None or process["state"] != "running":
            good = lost(world, box, counter, row, process or "is gone") and good
            del box.counters[token]
            continue
        counter.is_sure, counter.process_id = True, process["process_id"]
        good = check_counter(world, box, counter) and good
    box.may_lose_processes = None
    return good


def check_counter(world, box, counter):
    """Its output goes on where it was, without a gap, and it is still counting."""
    path = "%s/processes/%d/output?limit=200000&stdout_offset=%d&wait_ms=3000" % (box.path, counter.process_id, counter.next_offset)
    reply = get(world, path)
    if not world.check(reply.status == 200, "output of a counter can be read: %s" % reply, box):
        return False
    text = reply.json()["stdout"]
    lines = text.splitlines()
    wanted = ["%s %d" % (counter.token, counter.next_tick + i) for i in range(len(lines))]
    if not world.check(lines == wanted and lines, "counter %s goes on from %d: %s … %s" % (counter.token, counter.next_tick, lines[:2], lines[-2:]), box):
        return False
    counter.next_tick += len(lines)
    counter.next_offset += len(text.encode())
    return True


def check_host(world):
    """Rows and sandboxes are the same set, and nothing belongs to neither."""
    def wrong():
        rows = {row["id"]: row["status"] for row in get(world, WORKSPACES).json()}
        ready = {ident for ident, status in rows.items() if status == "ready"}
        kinds = {"sandbox": host.sandbox_ids() ^ set(rows), "process": {owner for _, owner, _ in host.runtime_processes()} ^ ready,
                 "cgroup": set(host.cgroups()) - ready,
                 "mount": {m.group(1) for m in (re.search("/sandboxes/(%s)" % host.UUID, path) for path in host.mounts()
                                                if path.startswith(host.provider_dir())) if m} ^ ready,
                 "loop device": {m.group(1) for m in (re.search("/sandboxes/(%s)/" % host.UUID, path) for path in host.loop_files()) if m} - ready}
        return {kind: sorted(ids) for kind, ids in kinds.items() if ids}

    found = {}

    def is_right():
        found.clear()
        found.update(wrong())
        return not found

    until(is_right, 20)
    for kind in ("sandbox", "process", "cgroup", "mount", "loop device"):
        world.check(kind not in found, "a %s belongs to no row or is missing: %s" % (kind, found.get(kind)))


def forget(world, box):
    with world.model.lock:
        world.model.boxes.pop(box.id, None)
        world.model.gone.add(box.id)
    until(lambda: safely(lambda: world.api.delete(box.path).status in (204, 404)), 30)


def check_all(world):
    rows = wait_quiet(world)
    adopt_unanswered(world, rows)
    for box in list(world.model.boxes.values()):
        try:
            keep = not box.is_bad and check_box(world, box)
        except (AssertionError, KeyError, ValueError) as error:
            keep = world.check(False, "%s: %s" % (type(error).__name__, error), box)
        if not keep:
            forget(world, box)
    check_snapshots(world)
    check_host(world)
