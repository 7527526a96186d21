# SPDX-License-Identifier: Apache-2.0
"""What the workers do. Each operation tells the model what may be before it calls, and what is when the answer comes."""

import os
import signal
import threading
import time
import uuid

import host
from daemons import Unknown
from model import Content, Counter, Snap

WORKSPACES = "/api/v1/agent/workspaces"
SMALL = {"cpu": "1", "memory": "128M", "disk": "256M"}
MOST_BOXES = 7
MOST_SNAPS = 5
# The number lives in the shell's memory only; nothing is forked for a tick.
TICKER = "coproc sleep infinity; n=0; while :; do n=$((n+1)); echo %s $n; read -t 0.3 -u ${COPROC[0]}; done"


def call(world, box, method, path, body=None, key=None):
    """The answer when it is a definite one; else Unknown."""
    try:
        reply = world.api.request(method, path, body=body, headers={"Idempotency-Key": key} if key else None)
    except TimeoutError:
        world.check(False, "%s %s is answered in time" % (method, path), box)
        raise Unknown("hung") from None
    if reply.status >= 500 or reply.status in (408, 429):
        if reply.code == "internal_error":
            world.check(False, "no internal error: %s %s: %s" % (method, path, reply), box)
        raise Unknown("%d %s" % (reply.status, reply.code))
    return reply


def keyed(world, box, method, path, body, key, tries):
    """Repeats an unanswered call with its key: what it did it must not do twice."""
    for attempt in range(tries):
        try:
            reply = call(world, box, method, path, body, key)
            if attempt == 0 or reply.status != 409:
                return reply, attempt + 1
            error = Unknown("still runs: 409")
        except Unknown as unknown:
            error = unknown
        if attempt + 1 < tries:
            time.sleep(0.25)
    raise error


def refused(world, box, reply, *states):
    """A refusal is right only when the state may be another one."""
    sure = any(box.is_surely(state) for state in states)
    world.check(not sure, "%s is allowed in state %s, but: %s" % (box.history[-1], box.states, reply), box)


def op_write(world, box, rng, token):
    path = "f%d.txt" % rng.randrange(5)
    content = (token + " ") * rng.choice((1, 40, 3000))
    before = box.files.get(path, {None})
    box.files[path] = before | {content}
    reply = call(world, box, "POST", box.path + "/write", {"file_path": path, "content": content})
    if reply.status == 200:
        box.files[path] = {content}
    else:
        box.files[path] = before
        refused(world, box, reply, "ready")


def op_append(world, box, rng, token):
    line = [token, 0, 3]
    box.lines.append(line)
    tries = rng.choice((1, 3, 8))
    reply, attempts = keyed(world, box, "POST", box.path + "/bash", {"command": "echo %s >> log.txt" % token}, token, tries)
    line[2] = attempts
    if reply.status == 200 and reply.json()["exit_code"] == 0:
        line[1] = 1
    elif reply.status == 200:
        world.check(bool(box.may_lose_processes), "echo >> log.txt succeeds: %s" % reply, box)
    elif attempts == 1:
        box.lines.remove(line)
        refused(world, box, reply, "ready")


def op_counter(world, box, rng, token):
    if len(box.counters) >= 2:
        return op_write(world, box, rng, token)
    counter = box.counters[token] = Counter(token)
    body = {"argv": ["bash", "-c", TICKER % token], "tag": token}
    reply, attempts = keyed(world, box, "POST", box.path + "/processes", body, token, rng.choice((1, 3)))
    if reply.status == 201:
        counter.is_sure, counter.process_id = True, reply.json()["process_id"]
    elif attempts == 1:
        del box.counters[token]
        refused(world, box, reply, "ready")
    return None


def op_read(world, box, rng, _token):
    """An acknowledged write is seen at once, not only when all is quiet."""
    paths = [path for path in box.files if len(box.files[path]) == 1]
    if not paths:
        return
    path = rng.choice(sorted(paths))
    wanted = next(iter(box.files[path]))
    reply = call(world, box, "GET", box.path + "/files?path=" + path)
    if reply.status == 200:
        world.check(reply.body.decode() == wanted, "%s holds what was written" % path, box)
    elif reply.status == 404 and not reply.message.startswith("workspace "):
        world.check(wanted is None, "%s is there: %s" % (path, reply), box)
    else:
        refused(world, box, reply, "ready")


def op_stop(world, box, rng, _token):
    without = rng.random() < 0.1
    if without:
        box.may_lose_processes = "stopped without processes"
    box.states = box.states | {"stopped"}
    reply = call(world, box, "POST", box.path + "/stop", {"without_processes": True} if without else {})
    if reply.status == 200:
        world.check(reply.json()["status"] == "stopped", "stop answers with status stopped: %s" % reply, box)
        box.states = {"stopped"}
    else:
        refused(world, box, reply, "ready", "stopped")


def op_resume(world, box, _rng, _token):
    box.states = box.states | {"ready"}
    reply = call(world, box, "POST", box.path + "/resume", {})
    if reply.status == 200:
        world.check(reply.json()["status"] == "ready", "resume answers with status ready: %s" % reply, box)
        box.states = {"ready"} | (box.states & {"restarting"})
    else:
        refused(world, box, reply, "stopped", "ready")


def op_delete(world, box, _rng, _token):
    was_unsure = box.may_be_gone
    box.may_be_gone = True
    reply = call(world, box, "DELETE", box.path)
    if reply.status in (204, 404):
        world.check(reply.status == 204 or was_unsure, "only an unanswered delete can have deleted it: %s" % reply, box)
        with world.model.lock:
            world.model.gone.add(box.id)
            world.model.boxes.pop(box.id, None)
    else:
        refused(world, box, reply)


def add_boxes(world, rows, content, token, note):
    for row in rows:
        box = world.model.add(row["id"], content, note)
        if row["status"] != "ready":
            box.states = {"ready", row["status"]}
        world.check(row.get("metadata", {}).get("chaos") == token, "its metadata is kept: %s" % row, box)


def make_boxes(world, source, path, body, content, token, tries, note):
    """Create, from-snapshot and fork: without an answer they are known by their metadata."""
    world.model.new_boxes[token] = (content, body.get("count", 1))
    reply, _ = keyed(world, source, "POST", path, dict(body, metadata={"chaos": token}), token, tries)
    if reply.status == 201:
        del world.model.new_boxes[token]
        rows = reply.json()
        add_boxes(world, rows["workspaces"] if "workspaces" in rows else [rows], content, token, note)
    return reply


def op_create(world, _box, rng, token):
    body = {"container_type": "agent_workspace", "provider": "gvisor", "warm_start": False, "resource_limits": SMALL}
    path = WORKSPACES + "?wait=%d" % rng.choice((0, 20))
    reply = make_boxes(world, None, path, body, Content(), token, rng.choice((1, 5)), "create %s" % token)
    world.check(reply.status == 201, "create is allowed: %s" % reply)


def op_fork(world, box, rng, token):
    reply = make_boxes(world, box, box.path + "/fork", {"count": rng.choice((1, 2))}, box.content(), token, rng.choice((1, 3)), "fork of " + box.id)
    if reply.status != 201:
        refused(world, box, reply, "ready", "stopped")


def op_snapshot(world, box, rng, token):
    content = box.content()
    world.model.new_snaps[token] = content
    reply, _ = keyed(world, box, "POST", box.path + "/snapshot", {"name": token}, token, rng.choice((1, 3)))
    if reply.status == 201:
        with world.model.lock:
            ident = reply.json()["snapshot_id"]
            world.model.snaps[ident] = Snap(ident, content)
            del world.model.new_snaps[token]
    else:
        refused(world, box, reply, "ready", "stopped")


def a_snapshot(world, rng):
    with world.model.lock:
        snaps = sorted((s for s in world.model.snaps.values() if not s.may_be_gone), key=lambda s: s.id)
    return rng.choice(snaps) if snaps else None


def op_from_snapshot(world, _box, rng, token):
    snap = a_snapshot(world, rng)
    if snap is None:
        return op_create(world, _box, rng, token)
    body = {"snapshot_id": snap.id}
    reply = make_boxes(world, None, WORKSPACES + "/from-snapshot?wait=20", body, snap.content, token, rng.choice((1, 3)), "from snapshot " + snap.id)
    world.check(reply.status == 201 or snap.may_be_gone, "from-snapshot of %s is allowed: %s" % (snap.id, reply))
    return None


def op_delete_snapshot(world, _box, rng, _token):
    snap = a_snapshot(world, rng)
    if snap is None:
        return
    snap.may_be_gone = True
    reply = call(world, None, "DELETE", snap.path)
    world.check(reply.status in (204, 404, 409), "snapshot %s can be deleted: %s" % (snap.id, reply))
    if reply.status == 204:
        with world.model.lock:
            world.model.snaps.pop(snap.id, None)


def op_attach(world, box, _rng, _token):
    """Several sessions at once: one at most gets it, and the others are told who."""
    sessions = [str(uuid.uuid4()) for _ in range(3)]
    answers = {}

    def attach(session):
        try:
            answers[session] = call(world, box, "POST", box.path + "/attach", {"agent_session_id": session, "reason": "chaos"})
        except Unknown as error:
            answers[session] = error

    before = set(box.holders)
    may_be_stopped = "stopped" in box.states
    box.states = box.states | {"ready"}
    threads = [threading.Thread(target=attach, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [s for s in sessions if not isinstance(answers[s], Unknown) and answers[s].status == 200]
    unsure = {s for s in sessions if isinstance(answers[s], Unknown)}
    box.note("attach: winners %s, without answer %s" % (winners, sorted(unsure)))
    world.check(len(winners) <= 1, "one session gets it: %s" % winners, box)
    # The contract: the next session takes over a stopped one.
    world.check(not winners or None in before or may_be_stopped, "only a free one is given away: %s, was %s" % (winners, before), box)
    box.holders = set(winners) if winners else before | unsure | ({None} if may_be_stopped and unsure else set())
    for session in sessions:
        answer = answers[session]
        if not isinstance(answer, Unknown) and answer.status == 409 and "in use" in answer.message:
            named = [s for s in box.holders if s and s in answer.message]
            world.check(named, "the conflict names the holder: %s of %s" % (answer, box.holders), box)
    if winners and answers[winners[0]].json()["status"] == "ready":
        box.states = {"ready"} | (box.states & {"restarting"})


def op_detach(world, box, _rng, _token):
    before = box.holders
    box.holders = before | {None}
    reply = call(world, box, "POST", box.path + "/detach", {})
    if reply.status == 200:
        box.holders = {None}
    else:
        box.holders = before
        refused(world, box, reply, "ready", "stopped")


def op_murder(world, box, _rng, _token):
    """The sandbox itself dies: its files stay, its processes cannot."""
    pid = host.kernel_of(box.id)
    if pid is None or len(box.murders) >= 2 or world.round in box.murders or not box.is_surely("ready"):
        return
    box.murders.add(world.round)  # one that has not come back yet is left alone
    box.may_lose_processes = "its sandbox was killed"
    box.states = {"ready", "restarting"}
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# operation: weight, path of the route that it needs, what of: ready (it may be ready), any, none
OPERATIONS = (
    (op_write, 14, None, "ready"),
    (op_append, 14, None, "ready"),
    (op_counter, 6, None, "ready"),
    (op_read, 8, None, "ready"),
    (op_stop, 10, "/stop", "any"),
    (op_resume, 12, "/resume", "any"),
    (op_snapshot, 5, "/snapshot", "any"),
    (op_fork, 2, "/fork", "any"),
    (op_attach, 4, "/attach", "any"),
    (op_detach, 4, "/detach", "any"),
    (op_murder, 1, "/stop", "ready"),
    (op_delete, 3, None, "any"),
    (op_create, 3, None, "none"),
    (op_from_snapshot, 3, "/from-snapshot", "none"),
    (op_delete_snapshot, 3, "/from-snapshot", "none"),
)


def is_useful(world, row):
    operation = row[0]
    boxes, snaps = len(world.model.boxes) + len(world.model.new_boxes), len(world.model.snaps)
    if operation in (op_create, op_from_snapshot):
        return boxes < MOST_BOXES
    if operation is op_fork:
        return boxes < MOST_BOXES - 1
    if operation is op_delete:
        return sum(not box.may_be_gone for box in list(world.model.boxes.values())) > 3
    if operation is op_snapshot:
        return snaps + len(world.model.new_snaps) < MOST_SNAPS
    if operation is op_delete_snapshot:
        return snaps > 2
    return True


def do_one(world, rng):
    """Chooses an operation and does it; the choice depends on the random numbers and the model only."""
    rows = [row for row in OPERATIONS if (row[2] is None or row[2] in world.routes) and is_useful(world, row)]
    operation, _, _, kind = rng.choices(rows, [row[1] for row in rows])[0]
    token = "t%08x" % rng.getrandbits(32)
    box = world.model.take(rng) if kind != "none" else None
    if kind != "none" and box is None:
        return
    try:
        if kind == "ready" and "ready" not in box.states:
            operation = op_resume if "/resume" in world.routes else op_write
        name = operation.__name__[3:]
        if box is not None:
            box.note("%s %s in %s" % (name, token, "|".join(sorted(box.states))))
        began = time.monotonic()
        try:
            operation(world, box, rng, token)
            world.count(name, "answered")
        except Unknown as error:
            world.count(name, "unanswered")
            if box is not None:
                box.note("  no answer after %.2f s: %s" % (time.monotonic() - began, error))
    finally:
        if box is not None:
            box.lock.release()
