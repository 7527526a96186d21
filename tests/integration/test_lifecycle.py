# SPDX-License-Identifier: Apache-2.0
"""Creating, listing, limits and destroying of workspaces; which provider is chosen."""

import os
import subprocess
import threading
import time
import uuid

import docker
from api import WORKSPACES, Workspace, provider, wait_until


def has_kvm():
    return os.path.exists("/dev/kvm")


def test_S001_S110_defaults_are_applied_and_auto_chooses(api, make):
    ws = make(provider=None, resource_limits=None)
    row = ws.show()
    assert row["resource_limits"] == {"cpu": "2", "memory": "4G", "disk": "10G"}, row
    assert row["status"] == "ready" and row["lifecycle"] == "ephemeral" and row["container_type"] == "agent_workspace", row
    assert row["provider"] in ("gvisor", "firecracker"), row
    assert row["expires_at"] > row["created_at"], row
    assert uuid.UUID(row["id"]).version == 4
    assert ws.sh("echo hello") == "hello\n"


def test_S107_S109_without_kvm_and_without_e2b_key_auto_is_gvisor(api, make):
    if has_kvm() or os.environ.get("E2B_API_KEY"):
        return
    for mode in ("self-hosted", "managed"):
        assert make(provider="auto", deployment_mode=mode).show()["provider"] == "gvisor"


def test_S113_an_explicit_provider_never_falls_back(api):
    reply = api.post(WORKSPACES + "?wait=20", {"container_type": "agent_workspace", "provider": "e2b"})
    if reply.status == 201:
        ws = Workspace(api, reply.json())
        ws.wait_for("error", 30)
        assert ws.row["provider"] == "e2b" and "e2b" in ws.row["failure_reason"], ws.row
        ws.delete()
    else:
        assert reply.status == 503 and reply.code == "provider_unavailable", reply
        assert "e2b" in reply.message, reply


def failure_of(api, **fields):
    """The reason of a create that cannot succeed, whichever way it is told."""
    reply = api.post(WORKSPACES + "?wait=30", dict({"container_type": "agent_workspace"}, **fields))
    if reply.status != 201:
        return reply.message
    ws = Workspace(api, reply.json())
    ws.wait_for("error", 40)
    ws.delete()
    return ws.row["failure_reason"]


def test_S114_S119_S120_when_all_fail_each_provider_is_named_in_its_order(api):
    text = failure_of(api, image="no-such-image")
    where = [text.index(name) for name in ("firecracker", "gvisor", "e2b")]
    assert where == sorted(where), text
    assert "no-such-image" in text, text
    text = failure_of(api, image="no-such-image", container_type="mcp_server", mcp_config={"name": "x", "image": "no-such-image"})
    where = [text.index(name) for name in ("gvisor", "firecracker", "e2b")]
    assert where == sorted(where), text


def test_S118_S105_providers_tell_health_room_and_abilities(api):
    rows = {row["name"]: row for row in api.get(WORKSPACES + "/providers").json()}
    assert {"gvisor", "firecracker", "e2b"} <= set(rows), list(rows)
    row = rows[provider()]
    assert row["healthy"] is True and row["state"] in ("healthy", "degraded"), row
    assert abs(row["last_checked_at_ms"] / 1000 - time.time()) < 120, row
    assert row["free_memory_bytes"] > 0 and row["free_disk_bytes"] > 0 and row["cpu_count"] > 0, row
    assert row["active_count"] >= 0 and "base" in row["images"], row
    abilities = row["capabilities"]
    assert abilities["provider_type"] == provider() and abilities["estimated_startup_ms"] > 0, abilities
    assert "none" in abilities["network_modes"], abilities


def test_S137_without_kvm_the_providers_say_why_firecracker_is_not_there(api):
    rows = {row["name"]: row for row in api.get(WORKSPACES + "/providers").json()}
    assert rows["firecracker"]["healthy"] is False and rows["firecracker"]["message"], rows["firecracker"]


def test_list_filters_pages_and_is_a_bare_array(api, make):
    made = [make() for _ in range(3)]
    ids = [ws.id for ws in made]
    rows = api.get(WORKSPACES).json()
    assert isinstance(rows, list)
    listed = [row["id"] for row in rows]
    assert [i for i in listed if i in ids] == ids[::-1], "newest first"
    assert all(row["provider"] == provider() for row in api.get(WORKSPACES + "?provider=" + provider()).json())
    assert api.get(WORKSPACES + "?status=stopped").json() == []
    assert api.get(WORKSPACES + "?agent_session_id=" + str(uuid.uuid4())).json() == []
    seen, path = [], WORKSPACES + "?limit=1"
    while path:
        reply = api.get(path)
        seen += [row["id"] for row in reply.json()]
        cursor = reply.headers.get("X-Next-Cursor")
        path = "%s?limit=1&cursor=%s" % (WORKSPACES, cursor) if cursor else None
    assert seen == [row["id"] for row in api.get(WORKSPACES).json()]


def test_S010_unknown_and_malformed_ids(api):
    unknown = str(uuid.uuid4())
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/bash"), ("GET", "/processes"), ("GET", "/files?path=x")):
        reply = api.request(method, "%s/%s%s" % (WORKSPACES, unknown, rest), body={"command": "true"} if method == "POST" else None)
        assert reply.status == 404 and reply.code == "not_found", (method, rest, reply)
        assert reply.message == "workspace '%s' not found" % unknown, reply
    for bad in ("x", "1234", unknown.replace("-", ""), "{%s}" % unknown, "urn:uuid:" + unknown, unknown + "0"):
        reply = api.get("%s/%s" % (WORKSPACES, bad))
        assert reply.status == 400 and reply.message == "invalid workspace id format", (bad, reply)


def test_S008_destroy_leaves_nothing_and_confirms(api, make):
    ws = make()
    ws.sh("sleep 1000 & echo data > file")
    assert api.delete(ws.path).status == 204
    assert api.get(ws.path).status == 404
    assert api.delete(ws.path).status == 404
    shown = subprocess.run(["grep", "-c", ws.id, "/proc/self/mounts"], stdout=subprocess.PIPE, text=True, check=False).stdout
    assert shown.strip() == "0", "a mount is left"


def test_S009_destroy_while_a_command_runs_ends_it_within_the_grace(api, make):
    ws = make()
    ended = {}

    def run():
        ended["reply"] = ws.call("bash", command="trap '' TERM; echo started > started; while :; do sleep 1; done")

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: ws.call("read", file_path="started").status == 200, 20, "command started")
    began = time.monotonic()
    assert api.delete(ws.path).status == 204
    took = time.monotonic() - began
    thread.join(20)
    assert not thread.is_alive(), "the call of a destroyed workspace must end"
    assert took < 15, took
    assert ended["reply"].status >= 400 or ended["reply"].json()["exit_code"] != 0, ended


def test_delete_while_creating_leaves_nothing(api):
    reply = api.post(WORKSPACES, {"container_type": "agent_workspace", "provider": provider(), "resource_limits": {"memory": "256M", "disk": "256M"}})
    assert reply.status == 201, reply
    ws = Workspace(api, reply.json())
    assert api.delete(ws.path).status == 204
    assert api.get(ws.path).status == 404


BUSY = "i=0; end=$(($(date +%s%N) + 3000000000)); while [ $(date +%s%N) -lt $end ]; do j=0; while [ $j -lt 3000 ]; do j=$((j+1)); done; i=$((i+1)); done; echo $i"


def test_S016_cpu_overuse_is_throttled_not_killed(make):
    slow = make(resource_limits={"cpu": "0.2", "memory": "512M", "disk": "256M"})
    fast = make(resource_limits={"cpu": "1", "memory": "512M", "disk": "256M"})
    few, many = int(slow.sh(BUSY, timeout_ms=60000)), int(fast.sh(BUSY, timeout_ms=60000))
    assert few < many * 0.6, (few, many)
    assert slow.sh("echo alive") == "alive\n"


@docker.has_no_disk_limit
def test_S018_a_full_disk_refuses_writes_and_still_reads(make):
    ws = make(resource_limits={"cpu": "1", "memory": "512M", "disk": "128M"})
    ws.write("keep.txt", "kept")
    result = ws.bash("head -c 300000000 /dev/zero > big")
    assert result["exit_code"] != 0 and "No space left" in result["stderr"], result
    reply = ws.call("write", file_path="more.bin", content="x" * 4000000)
    assert reply.status == 507 and reply.code == "no_space", reply
    assert ws.read_bytes("keep.txt") == b"kept"
    ws.sh("rm big")
    ws.write("more.bin", "x" * 1000)


def limits_of_host(ws, names):
    """Values of the host's cgroup files of this sandbox, whichever cgroup version."""
    parent, name_of_it = os.environ.get("EW_CGROUP_PARENT", "emergent-workspaces"), ws.id
    if docker.IS_USED:
        parent, name_of_it = os.path.basename(docker.DIR), docker.container(ws)["Id"]
    for top, _, files in os.walk("/sys/fs/cgroup"):
        if parent in top and name_of_it in top:
            for name in names:
                if name in files:
                    with open(os.path.join(top, name)) as file:
                        return name, file.read().split()
    raise AssertionError("no cgroup of %s with one of %s" % (ws.id, names))


def test_S132_cpu_limit_is_the_hosts_quota(make):
    ws = make(resource_limits={"cpu": "2", "memory": "512M", "disk": "256M"})
    name, value = limits_of_host(ws, ("cpu.max", "cpu.cfs_quota_us"))
    quota = int(value[0])
    period = int(value[1]) if name == "cpu.max" else int(limits_of_host(ws, ("cpu.cfs_period_us",))[1][0])
    assert quota == 2 * period, (quota, period)


def test_S133_memory_limit_is_budget_plus_overhead(make):
    ws = make(resource_limits={"cpu": "1", "memory": "4G", "disk": "256M"})
    _, value = limits_of_host(ws, ("memory.max", "memory.limit_in_bytes"))
    assert 4 << 30 <= int(value[0]) <= int(1.2 * (4 << 30)), value


@docker.has_no_disk_limit
def test_S134_disk_limit_is_the_size_of_the_file_system(make):
    ws = make(resource_limits={"cpu": "1", "memory": "512M", "disk": "10G"})
    total = int(ws.sh("df -B1 --output=size /workspace | tail -n 1"))
    assert 9 << 30 < total <= 10 << 30, total


def test_S017_memory_overuse_ends_the_process_not_the_workspace(make):
    ws = make(resource_limits={"cpu": "1", "memory": "256M", "disk": "256M"})
    result = ws.bash("python3 -c 'b = bytearray(1)\nwhile True: b += bytes(8 << 20)'", timeout_ms=60000)
    assert result["exit_code"] != 0, result
    assert ws.sh("echo alive") == "alive\n"


def test_use_moves_last_used_and_expiry(fresh):
    before = fresh.show()
    time.sleep(0.01)
    fresh.sh("true")
    after = wait_until(lambda: fresh.show() if fresh.show()["last_used_at"] > before["last_used_at"] else None, 10, "last_used_at moves")
    assert after["expires_at"] > before["expires_at"], after


def test_environment_metadata_and_session_are_kept(api, make):
    session = str(uuid.uuid4())
    ws = make(env={"GREETING": "hello world"}, metadata={"ticket": 42}, agent_session_id=session)
    assert ws.sh("echo $GREETING") == "hello world\n"
    row = ws.show()
    assert row["agent_session_id"] == session and row["metadata"]["ticket"] == 42, row
    assert "hello world" not in str(row), "values of env are secret"
    assert [r["id"] for r in api.get(WORKSPACES + "?agent_session_id=" + session).json()] == [ws.id]


def test_network_none_reaches_nothing(fresh):
    result = fresh.bash("curl -s --max-time 3 http://169.254.169.254/ http://1.1.1.1/")
    assert result["exit_code"] != 0, result
    assert fresh.show()["network"] == "none"


def test_events_tell_the_life_of_a_workspace(api, make):
    ws = make()
    with api.stream("GET", ws.path + "/events", timeout=30) as stream:
        assert stream.status == 200
        threading.Timer(0.5, ws.delete).start()
        text = ""
        for event in stream:
            text += "%s %s\n" % (event.name, event.data)
            if "stopping" in text:
                break
    assert "stopping" in text, text
