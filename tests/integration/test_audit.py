# SPDX-License-Identifier: Apache-2.0
"""Every tool call leaves one line in the gateway's log that says who did what to which workspace, and never what was in it."""

import json
import os
import sqlite3
import subprocess

from api import Api, wait_until
from test_cli import run
from test_restart import kill, restarted_api, suite

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


# ---- kb.workspace_audit ----

AUDIT = "/api/v1/agent/audit"


def lines(api, path, **filters):
    reply = api.get(path + "?" + "&".join("%s=%s" % pair for pair in filters.items()))
    assert reply.status == 200, reply
    return reply.json()


def operations(api, path, **filters):
    return [line["operation"] for line in lines(api, path, **filters)]


def verified(api, *args):
    result = run(api, "audit", "verify", *args)
    return json.loads(run(api, "audit", "verify", "--json", *args).stdout), result


def test_the_life_of_a_workspace_is_in_the_database_after_its_end(api, make):
    ws = make()
    ws.sh("true " + SECRET)
    assert ws.call("read", file_path="no-such-file-audited").status == 404
    path = ws.path + "/audit"
    failed = lines(api, path, status="4xx")[0]
    assert failed["operation"] == "read" and failed["error_code"] == "not_found" and "no-such-file" in failed["summary"], failed
    assert failed["status"] == 404 and failed["workspace_id"] == ws.id and failed["caller"] and failed["request_id"], failed
    assert operations(api, path, operation="bash") == ["bash"]
    assert api.delete(ws.path).status == 204
    assert api.get(ws.path).status == 404
    seen = operations(api, path, limit=1000)
    assert seen[-1] == "create" and "delete" in seen and "destroyed" in seen, seen
    assert SECRET not in json.dumps(lines(api, path))
    assert api.get("/api/v1/agent/workspaces/00000000-0000-4000-8000-000000000000/audit").status == 404


def test_pages_and_times(api, fresh):
    for _ in range(5):
        fresh.sh("true")
    path = fresh.path + "/audit"
    whole = [line["sequence"] for line in lines(api, path, operation="bash")]
    first = api.get(path + "?operation=bash&limit=3")
    rest = api.get(path + "?operation=bash&limit=3&cursor=" + first.headers["X-Next-Cursor"])
    assert [line["sequence"] for line in first.json() + rest.json()] == whole and len(whole) == 5
    assert "X-Next-Cursor" not in rest.headers
    assert lines(api, path, to="2020-01-01T00:00:00Z") == [] and lines(api, path, to="2999-01-01T00:00:00Z")


def test_only_ones_own_lines_are_shown(api, fresh):
    made = api.post("/api/v1/admin/api-keys", {"name": "auditor", "owner": "somebody-else", "scopes": ["admin:read"]})
    assert made.status == 201, made
    other = Api(api.url, made.json()["key"])
    assert other.get(fresh.path + "/audit").status == 404
    assert other.get(AUDIT + "?all_owners=true").status == 403
    assert all(line["owner"] == "somebody-else" for line in lines(other, AUDIT))
    key = lines(api, AUDIT, operation="api_key_create")[0]
    assert "auditor" in key["summary"] and made.json()["key"] not in json.dumps(key), key
    assert api.delete("/api/v1/admin/api-keys/" + made.json()["id"]).status == 204


def test_killing_the_gateway_breaks_no_chain(api, fresh):
    for _ in range(3):
        fresh.sh("true")
    before = lines(api, AUDIT, limit=1)[0]["sequence"]
    kill("gateway")
    suite("up")
    restarted_api(api)
    wait_until(lambda: fresh.call("bash", command="true").status == 200, 30, "workspace answers again")
    assert lines(api, AUDIT, limit=1)[0]["sequence"] > before
    result, said = verified(api, "--all-owners")
    assert result["good"] and result["whole"] and result["lines"] >= before, (result, said)
    assert verified(api)[0]["good"]


def change_line(sequence, by):
    """By hand, as somebody with access to the database would."""
    statement = "UPDATE %%s SET duration_ms = duration_ms + %d WHERE sequence = %d" % (by, sequence)
    if os.environ.get("EW_TEST_DATABASE") == "postgres":
        command = ["psql", "-qXv", "ON_ERROR_STOP=1", "-c", statement % "kb.workspace_audit", os.environ["DATABASE_URL"]]
        subprocess.run(command, check=True)
        return
    with sqlite3.connect(os.path.join(os.environ["EW_STATE_DIR"], "gateway.db"), timeout=10) as db:
        db.execute(statement % "kb_workspace_audit")


def test_a_changed_line_is_found(api, fresh):
    fresh.sh("true")
    sequence = lines(api, fresh.path + "/audit", operation="bash")[0]["sequence"]
    change_line(sequence, 1)
    broken = run(api, "audit", "verify", "--all-owners", expect=1).stderr.decode()
    change_line(sequence, -1)
    assert "line %d of chain" % sequence in broken and "does not fit its hash" in broken, broken
    assert verified(api, "--all-owners")[0]["good"]
