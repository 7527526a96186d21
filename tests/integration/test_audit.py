# SPDX-License-Identifier: Apache-2.0
"""Every tool call leaves one line in the gateway's log that says who did what to which workspace, and never what was in it."""

import os

from api import wait_until

SECRET = "hunter2-must-not-be-logged"


def log_lines(*words):
    with open(os.path.join(os.environ["EW_STATE_DIR"], "log", "gateway.log"), errors="replace") as file:
        return [line for line in file if all(word in line for word in words)]


def test_S067_a_tool_call_is_audited_without_its_contents(ws):
    ws.sh("true " + SECRET)
    ws.call("write", file_path="audited.txt", content=SECRET)
    ws.call("edit", file_path="audited.txt", old_string=SECRET, new_string=SECRET + "2")
    ws.call("grep", pattern=SECRET)
    wait_until(lambda: log_lines(ws.id, "edit", "audited.txt"), 10, "the edit is in the log")
    assert log_lines(ws.id, "bash")
    assert log_lines(SECRET) == []


def test_S068_a_failed_tool_call_is_audited_with_its_error(ws):
    assert ws.call("read", file_path="no-such-file-audited").status == 404
    wait_until(lambda: log_lines(ws.id, "no-such-file-audited", "not_found"), 10, "the failure is in the log")
