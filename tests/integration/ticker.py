# SPDX-License-Identifier: Apache-2.0
"""A background process whose whole state is in its memory, and how to see that it is the same one that goes on."""

import os
import random

from api import wait_until

# No fork for a tick: the wait is a read from a pipe that stays silent. The mark is an environment variable of the process.
SCRIPT = "coproc sleep infinity; n=0; while :; do n=$((n+1)); echo \"$MARK $n\"; read -t 0.1 -u ${COPROC[0]}; done"


class Ticker:
    def __init__(self, ws):
        self.ws = ws
        self.mark = "mark%08x" % random.SystemRandom().getrandbits(32)
        self.number = ws.start("bash", "-c", SCRIPT, env={"MARK": self.mark}, tag=self.mark)
        self.offset = 0
        self.seen = 0

    def of(self, ws):
        """The same process in a copy of its workspace."""
        copy = Ticker.__new__(Ticker)
        copy.__dict__.update(self.__dict__, ws=ws)
        return copy

    def read(self, wait_ms=5000):
        """New output, which goes on without a gap: how many ticks there are so far."""
        part = self.ws.output(self.number, stdout_offset=self.offset, limit=1000000, wait_ms=wait_ms)
        assert part["stdout_offset"] == self.offset, part
        lines = part["stdout"].splitlines()
        wanted = ["%s %d" % (self.mark, self.seen + 1 + i) for i in range(len(lines))]
        assert lines == wanted, "goes on after %d with %s … %s" % (self.seen, lines[:3], lines[-3:])
        self.offset += len(part["stdout"].encode())
        self.seen += len(lines)
        return self.seen

    def wait_more(self, ticks=3):
        target = self.seen + ticks
        wait_until(lambda: self.read() >= target, 30, "%d more ticks" % ticks)

    def is_running(self):
        return {p["process_id"]: p["state"] for p in self.ws.processes()}.get(self.number) == "running"


def keeps_processes(api):
    """Can this provider keep processes at all? Docker's plain runtime, for example, cannot."""
    rows = {row["name"]: row for row in api.get("/api/v1/agent/workspaces/providers").json()}
    return rows[os.environ.get("EW_TEST_PROVIDER", "gvisor")]["capabilities"]["keeps_processes"]
