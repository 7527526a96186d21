# SPDX-License-Identifier: Apache-2.0
"""read, write and edit (S-128: through the agent on every provider)."""

import base64
import hashlib


def test_S044_a_small_file_comes_with_line_numbers(ws):
    ws.write("small.txt", "alpha\nbeta\n\ngamma")
    result = ws.ok("read", file_path="small.txt")
    assert result["content"].splitlines() == ["1: alpha", "2: beta", "3: ", "4: gamma"], result
    assert result["total_lines"] == 4 and result["file_size"] == 17, result
    assert ws.ok("read", file_path="/workspace/small.txt")["content"] == result["content"]


def test_S045_offset_and_limit(ws):
    ws.write("lines.txt", "".join("line %d\n" % i for i in range(1, 301)))
    result = ws.ok("read", file_path="lines.txt", offset=100, limit=50)
    assert result["content"].splitlines() == ["%d: line %d" % (i, i) for i in range(100, 150)], result
    assert result["total_lines"] == 300, result
    assert ws.ok("read", file_path="lines.txt", offset=299)["content"].splitlines() == ["299: line 299", "300: line 300"]
    assert ws.ok("read", file_path="lines.txt", offset=1000)["content"] == ""
    assert ws.ok("read", file_path="lines.txt", offset=-5, limit=0)["content"].splitlines()[0] == "1: line 1"


def test_S046_a_missing_file_is_a_404(ws):
    reply = ws.call("read", file_path="no/such/file.txt")
    assert reply.status == 404 and reply.code == "not_found" and reply.message.startswith("file not found: "), reply
    assert "no/such/file.txt" in reply.message


def test_S047_a_directory_lists_its_entries(ws):
    ws.sh("mkdir -p listed/sub && touch listed/file listed/.hidden")
    result = ws.ok("read", file_path="listed")
    assert result["is_dir"] is True and result["content"].splitlines() == [".hidden", "file", "sub/"], result


def test_S048_a_binary_file_tells_only_size_and_type(ws):
    ws.write("binary.dat", b"\x7fELF\0\0\0" + bytes(range(256)) * 10)
    result = ws.ok("read", file_path="binary.dat")
    assert result["is_binary"] is True and result["file_size"] == 2567, result
    assert "ELF" not in result["content"] and len(result["content"]) < 200, result
    exact = ws.ok("read", file_path="binary.dat", output_encoding="base64")
    assert exact.get("is_binary") is True or base64.b64decode(exact["content_base64"])[:4] == b"\x7fELF", exact


def test_read_cuts_large_files_and_tells_where_to_go_on(ws):
    ws.sh("seq 1 200000 > large.txt")
    lines, offset = [], 1
    while offset:
        result = ws.ok("read", file_path="large.txt", offset=offset)
        lines += result["content"].splitlines()
        assert bool(result.get("truncated")) == ("next_offset" in result), result.keys()
        offset = result.get("next_offset")
    assert lines == ["%d: %d" % (i, i) for i in range(1, 200001)]


def test_S049_S051_write_makes_the_file_and_its_parents(ws):
    result = ws.ok("write", file_path="made/a/b/c.txt", content="hello")
    assert result["success"] is True and result["file_path"] == "made/a/b/c.txt" and result["bytes_written"] == 5, result
    assert ws.sh("cat made/a/b/c.txt; stat -c %a made/a/b/c.txt made/a") == "hello644\n755\n"


def test_S050_write_replaces_everything_and_keeps_the_mode(ws):
    ws.sh("echo a much longer old content > old.sh; chmod 750 old.sh; ln -s old.sh link.sh")
    ws.write("old.sh", "new")
    assert ws.sh("cat old.sh; stat -c %a old.sh") == "new750\n"
    ws.write("link.sh", "through")
    assert ws.sh("cat old.sh; test -L link.sh && echo still a link") == "throughstill a link\n"
    ws.write("old.sh", "")
    assert ws.sh("wc -c < old.sh").strip() == "0"


def test_write_is_atomic_for_readers(fresh):
    fresh.write("whole.txt", "a" * 500000)
    fresh.sh("cat > watch.sh <<'END'\nwhile [ ! -e stop ]; do cp whole.txt seen; n=$(wc -c < seen); "
             "k=$(fold -w 1 seen | sort -u | wc -l); [ $n = 500000 ] && [ $k = 1 ] || echo torn >> torn; done\nEND\nnohup bash watch.sh > /dev/null 2>&1 &")
    for letter in "bcdefgh":
        fresh.write("whole.txt", letter * 500000)
    fresh.sh("touch stop")
    assert fresh.call("read", file_path="torn").status == 404


def test_bytes_of_every_kind_survive_write_and_read(ws):
    for content in (b"", b"\n", b"no newline", "ünïcödé 🎉\r\n".encode(), bytes(range(256)) * 100, b"'\"$`\\ ${x} %s\n"):
        ws.write("bytes.bin", content)
        assert ws.read_bytes("bytes.bin") == content, content[:20]


def test_names_of_every_kind(ws):
    for name in ("with space.txt", "-dash.txt", "quote'\".txt", "$dollar`tick.txt", "uml\u00e4ut.txt", "new\nline.txt", "a" * 200):
        ws.write("names/" + name, name)
        assert ws.read_bytes("names/" + name) == name.encode(), name


def test_S052_edit_replaces_a_unique_text(ws):
    ws.write("edit.txt", "one\ntwo\nthree\n")
    result = ws.ok("edit", file_path="edit.txt", old_string="two", new_string="2a\n2b")
    assert (result["success"], result["lines_changed"], result["replacements"]) == (True, 2, 1), result
    content = ws.read_bytes("edit.txt")
    assert content == b"one\n2a\n2b\nthree\n" and result["sha256"] == hashlib.sha256(content).hexdigest()


def test_S053_edit_without_a_match(ws):
    ws.write("edit.txt", "content")
    reply = ws.call("edit", file_path="edit.txt", old_string="other", new_string="x")
    assert reply.status == 400 and reply.message == "oldString not found in content", reply


def test_S054_edit_with_several_matches(ws):
    ws.write("edit.txt", "x y x")
    reply = ws.call("edit", file_path="edit.txt", old_string="x", new_string="z")
    assert reply.status == 400, reply
    assert reply.message == ("Found multiple matches for oldString. Provide more surrounding lines in oldString to identify "
                             "the correct match."), reply
    assert ws.read_bytes("edit.txt") == b"x y x"


def test_S055_edit_replaces_all(ws):
    ws.write("edit.txt", "x y x y xx")
    result = ws.ok("edit", file_path="edit.txt", old_string="x", new_string="long", replace_all=True)
    assert result["replacements"] == 4 and result["lines_changed"] == 4, result
    assert ws.read_bytes("edit.txt") == b"long y long y longlong"


def test_edit_is_exact_about_bytes_modes_and_preconditions(ws):
    ws.write("edit.bin", b"\xff\xfe\r\nkeep\r\n\0end")
    ws.sh("chmod 700 edit.bin")
    ws.ok("edit", file_path="edit.bin", old_string_base64=base64.b64encode(b"\xfe\r\n").decode(), new_string="|")
    assert ws.read_bytes("edit.bin") == b"\xff|keep\r\n\0end"
    assert ws.sh("stat -c %a edit.bin") == "700\n"
    good = hashlib.sha256(b"\xff|keep\r\n\0end").hexdigest()
    reply = ws.call("edit", file_path="edit.bin", old_string="keep", new_string="kept", expected_sha256="0" * 64)
    assert reply.status == 412 and reply.code == "precondition_failed", reply
    ws.ok("edit", file_path="edit.bin", old_string="keep", new_string="kept", expected_sha256=good)
    assert ws.call("edit", file_path="gone.txt", old_string="a", new_string="b").message.startswith("file not found: ")


def test_edit_of_a_large_file_loses_nothing(ws):
    ws.sh("(seq 1 500000; echo needle; seq 1 500000) > huge.txt")
    ws.ok("edit", file_path="huge.txt", old_string="needle", new_string="found")
    assert ws.sh("(seq 1 500000; echo found; seq 1 500000) | cmp - huge.txt && echo same") == "same\n"


def test_required_fields_have_their_messages(ws):
    for tool, fields, message in (
        ("read", {}, "file_path is required"), ("write", {"content": "x"}, "file_path is required"),
        ("edit", {"old_string": "x"}, "file_path is required"), ("edit", {"file_path": "x"}, "old_string is required"),
        ("edit", {"file_path": "x", "old_string": ""}, "old_string is required"), ("glob", {}, "pattern is required"),
        ("grep", {"path": "/"}, "pattern is required"), ("git", {}, "action is required"),
    ):
        reply = ws.call(tool, **fields)
        assert reply.status == 400 and reply.message == message, (tool, fields, reply)
