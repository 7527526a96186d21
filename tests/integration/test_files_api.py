# SPDX-License-Identifier: Apache-2.0
"""Raw files: upload, download, ranges, stat, list, mkdir, move, remove, watch."""

import hashlib
import os
import threading
import time
import urllib.parse

from api import wait_until


def put(ws, path, data, **query):
    reply = ws.api.request("PUT", ws.files(path, **query), raw=data, headers={"Content-Type": "application/octet-stream"})
    assert reply.status in (200, 201), reply
    return reply.json()


def sub(ws, name, **query):
    return "%s/files/%s?%s" % (ws.path, name, urllib.parse.urlencode(query))


def test_ten_megabytes_up_and_down(ws):
    data = os.urandom(10 * 1024 * 1024 + 17)
    result = put(ws, "big.bin", data)
    assert result["size"] == len(data) and result["sha256"] == hashlib.sha256(data).hexdigest(), result
    assert ws.sh("sha256sum < big.bin").split()[0] == hashlib.sha256(data).hexdigest()
    reply = ws.api.get(ws.files("big.bin"))
    assert reply.body == data and reply.headers["Content-Length"] == str(len(data))


def test_an_upload_in_chunks_of_unknown_length(ws):
    parts = [os.urandom(70000) for _ in range(20)]
    reply = ws.api.request("PUT", ws.files("made/chunked.bin"), raw=iter(parts), headers={"Transfer-Encoding": "chunked"})
    assert reply.status in (200, 201), reply
    assert ws.read_bytes("made/chunked.bin") == b"".join(parts)


def test_empty_files_modes_and_replacement(ws):
    assert put(ws, "empty", b"")["size"] == 0
    assert ws.read_bytes("empty") == b""
    put(ws, "script.sh", b"#!/bin/sh\n", mode=0o755)
    assert ws.sh("stat -c %a script.sh") == "755\n"
    put(ws, "script.sh", b"new")
    assert ws.read_bytes("script.sh") == b"new" and ws.sh("stat -c %a script.sh") == "755\n"


def test_an_upload_cut_short_changes_nothing(ws):
    put(ws, "kept.txt", b"kept")
    connection = ws.api.connect(10)
    connection.putrequest("PUT", ws.files("kept.txt"))
    for name, value in ws.api.headers({"Content-Length": "1000000"}).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"x" * 1000)
    connection.close()
    wait_until(lambda: ws.sh("find . -name '.ew-tmp-*' | wc -l").strip() == "0", 10, "temporary file is gone")
    assert ws.read_bytes("kept.txt") == b"kept"


def test_ranges(ws):
    put(ws, "range.txt", b"0123456789")
    for header, status, body, shown in (
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"), ("bytes=7-", 206, b"789", "bytes 7-9/10"), ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-100", 206, b"56789", "bytes 5-9/10"), ("lines=1-2", 200, b"0123456789", None),
    ):
        reply = ws.api.get(ws.files("range.txt"), headers={"Range": header})
        assert (reply.status, reply.body, reply.headers.get("Content-Range")) == (status, body, shown), (header, reply)
    reply = ws.api.get(ws.files("range.txt"), headers={"Range": "bytes=10-"})
    assert reply.status == 416 and reply.code == "range_not_satisfiable", reply


def test_head_and_entity_tags(ws):
    put(ws, "tag.txt", b"content")
    head = ws.api.request("HEAD", ws.files("tag.txt"))
    assert head.status == 200 and head.body == b"" and head.headers["Content-Length"] == "7", head.headers
    tag = head.headers["ETag"]
    reply = ws.api.get(ws.files("tag.txt"), headers={"If-None-Match": tag})
    assert reply.status == 304 and reply.body == b"", reply
    time.sleep(0.01)
    put(ws, "tag.txt", b"changed")
    assert ws.api.get(ws.files("tag.txt"), headers={"If-None-Match": tag}).body == b"changed"


def test_what_is_no_regular_file_is_refused(ws):
    ws.sh("mkdir -p adir; mkfifo afifo 2>/dev/null || true")
    assert ws.api.get(ws.files("missing")).status == 404
    assert ws.api.get(ws.files("adir")).status == 400
    assert ws.api.get(ws.files("/dev/zero")).status == 400
    assert ws.api.get(ws.path + "/files").status == 400


def test_stat_and_list(ws):
    ws.sh("mkdir -p l/b/c && echo 12345 > l/a.txt && ln -s a.txt l/link && chmod 640 l/a.txt")
    entry = ws.api.get(sub(ws, "stat", path="l/a.txt")).json()
    assert (entry["path"], entry["name"], entry["type"], entry["size"], entry["mode"] & 0o7777) == (
        "/workspace/l/a.txt", "a.txt", "file", 6, 0o640), entry
    assert entry["owner"] == "root" and abs(entry["modified_at_ms"] / 1000 - time.time()) < 60, entry
    link = ws.api.get(sub(ws, "stat", path="l/link")).json()
    assert link["type"] == "symlink" and link["symlink_target"] == "a.txt", link
    listed = ws.api.get(sub(ws, "list", path="l")).json()["entries"]
    assert [(e["name"], e["type"]) for e in listed] == [("a.txt", "file"), ("b", "directory"), ("link", "symlink")], listed
    deep = ws.api.get(sub(ws, "list", path="l", depth=3)).json()["entries"]
    assert [e["path"] for e in deep] == ["/workspace/l/" + p for p in ("a.txt", "b", "b/c", "link")], deep
    cut = ws.api.get(sub(ws, "list", path="l", depth=3, limit=2)).json()
    assert len(cut["entries"]) == 2 and cut["truncated"] is True, cut
    assert ws.api.get(sub(ws, "stat", path="l/none")).status == 404
    assert ws.api.get(sub(ws, "list", path="l/none")).status == 404


def test_mkdir_move_and_remove(ws):
    reply = ws.api.post(ws.path + "/files/mkdir", {"path": "m/one/two", "mode": 0o700})
    assert reply.status in (200, 201) and reply.json()["type"] == "directory", reply
    put(ws, "m/file", b"x")
    put(ws, "m/other", b"y")
    reply = ws.api.post(ws.path + "/files/move", {"source": "m/file", "destination": "m/other"})
    assert reply.status == 409 and reply.code == "conflict", reply
    assert ws.api.post(ws.path + "/files/move", {"source": "m/file", "destination": "m/other", "overwrite": True}).status == 200
    assert ws.api.post(ws.path + "/files/move", {"source": "m/other", "destination": "m/new/deep/name"}).status == 200
    assert ws.read_bytes("m/new/deep/name") == b"x"
    reply = ws.api.delete(ws.files("m"))
    assert 400 <= reply.status < 500, "a directory that is not empty needs recursive"
    reply = ws.api.delete(ws.files("m", recursive="true"))
    assert reply.status in (200, 204), reply
    assert ws.api.get(sub(ws, "stat", path="m")).status == 404
    assert ws.api.delete(ws.files("m")).status in (200, 204), "a missing path is a success"


def test_removing_a_link_keeps_its_target(ws):
    ws.sh("mkdir -p t/target && printf x > t/target/f && mkdir t/dir && ln -s ../target t/dir/link")
    assert ws.api.delete(ws.files("t/dir", recursive="true")).status in (200, 204)
    assert ws.read_bytes("t/target/f") == b"x"


def test_watch_tells_what_happens(fresh):
    fresh.sh("mkdir -p watched")
    seen = []

    def listen():
        with fresh.api.stream("GET", sub(fresh, "watch", path="watched", recursive="true"), timeout=30) as stream:
            for event in stream:
                if isinstance(event.data, dict) and "path" in event.data:
                    seen.append((event.data["type"], event.data["path"]))
                if ("remove", "a.txt") in seen:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    # The watch is on once a first file is reported; files made before that moment are not.
    count = [0]

    def poke():
        count[0] += 1
        fresh.sh("touch watched/poke%d" % count[0])
        return bool(seen)

    wait_until(poke, 15, "watch is on")
    fresh.sh("cd watched; echo x > a.txt; mkdir sub; sleep 0.3; echo y > sub/b.txt; mv a.txt c.txt; mv c.txt a.txt; rm a.txt")
    thread.join(20)
    assert not thread.is_alive(), seen
    assert ("create", "a.txt") in seen and ("create", "sub") in seen, seen
    assert any(path == "sub/b.txt" for _, path in seen), seen


def test_a_download_that_is_not_read_blocks_only_itself(fresh):
    fresh.sh("head -c 50000000 /dev/zero > zeros")
    connection = fresh.api.connect(60)
    connection.request("GET", fresh.files("zeros"), headers=fresh.api.headers())
    reply = connection.getresponse()
    assert reply.read(10) == b"\0" * 10
    for _ in range(5):
        assert fresh.sh("echo quick") == "quick\n"
    total = 10 + len(reply.read())
    assert total == 50000000
    connection.close()


def test_an_upload_larger_than_the_disk_is_refused_and_leaves_nothing(make):
    ws = make(resource_limits={"cpu": "1", "memory": "512M", "disk": "128M"})
    try:
        reply = ws.api.request("PUT", ws.files("huge"), raw=b"\1" * 200000000)
        assert reply.status == 507 and reply.code == "no_space", reply
    except (BrokenPipeError, ConnectionResetError):
        pass  # the gateway may end the connection once it has answered
    assert ws.api.get(sub(ws, "stat", path="huge")).status == 404
    assert ws.sh("echo fine > small && cat small") == "fine\n"
