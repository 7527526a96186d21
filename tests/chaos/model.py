# SPDX-License-Identifier: Apache-2.0
"""What must be true of each workspace. What an unanswered call may have done is kept as a set of possibilities; a check narrows it to what is."""

import collections
import copy
import threading


class Counter:
    """A background process that prints `token n` with growing n, which it holds in its memory only."""

    def __init__(self, token):
        self.token = token
        self.process_id = None
        self.is_sure = False  # its start was acknowledged or seen
        self.next_offset = 0
        self.next_tick = 1


class Box:
    """A workspace."""

    def __init__(self, ident):
        self.id = ident
        self.lock = threading.Lock()
        self.states = {"ready"}
        self.may_be_gone = False  # a delete got no answer
        self.files = {}           # path: set of possible contents, None = missing
        self.lines = []           # of log.txt, in order: [text, fewest, most]
        self.counters = {}        # token: Counter
        self.may_lose_processes = None  # why
        self.holders = {None}
        self.murders = set()  # rounds
        self.is_bad = False   # it failed a check: reported once, then thrown away
        self.history = collections.deque(maxlen=40)

    @property
    def path(self):
        return "/api/v1/agent/workspaces/" + self.id

    def is_surely(self, state):
        return self.states == {state} and not self.may_be_gone

    def note(self, text):
        self.history.append(text)

    def content(self):
        """A copy of what a snapshot of it holds."""
        return Content(copy.deepcopy(self.files), copy.deepcopy(self.lines), copy.deepcopy(self.counters), self.may_lose_processes)

    def fill(self, content):
        self.files = copy.deepcopy(content.files)
        self.lines = copy.deepcopy(content.lines)
        self.counters = copy.deepcopy(content.counters)
        self.may_lose_processes = content.may_lose_processes


class Content:
    def __init__(self, files=None, lines=None, counters=None, may_lose_processes=None):
        self.files = files or {}
        self.lines = lines or []
        self.counters = counters or {}
        self.may_lose_processes = may_lose_processes


class Snap:
    def __init__(self, ident, content):
        self.id = ident
        self.content = content
        self.may_be_gone = False
        self.history = collections.deque(maxlen=40)

    @property
    def path(self):
        return "/api/v1/agent/snapshots/" + self.id


class Model:
    def __init__(self):
        self.lock = threading.Lock()
        self.boxes = {}      # id: Box
        self.snaps = {}      # id: Snap
        self.new_boxes = {}  # token in the metadata: (Content, most there may be); creates without an answer
        self.new_snaps = {}  # name: Content; snapshots without an answer
        self.gone = set()    # ids whose delete was acknowledged

    def add(self, ident, content, note):
        box = Box(ident)
        box.fill(content)
        box.note(note)
        with self.lock:
            self.boxes[ident] = box
        return box

    def take(self, rng):
        """A workspace that nobody works on, locked; None if there is none."""
        with self.lock:
            boxes = list(self.boxes.values())
        rng.shuffle(boxes)
        for box in boxes:
            if box.lock.acquire(blocking=False):
                if box.id in self.boxes:
                    return box
                box.lock.release()
        return None
