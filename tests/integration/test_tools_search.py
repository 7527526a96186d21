# SPDX-License-Identifier: Apache-2.0
"""glob and grep."""


def tree(ws):
    """A tree with known times, made once for the shared workspace."""
    if ws.call("read", file_path="/workspace/tree").status == 404:
        ws.sh("""mkdir -p tree/src/deep/er tree/docs tree/.git/objects tree/empty && cd tree
printf 'export const a = 1;\\n// TODO first\\n' > src/a.ts
printf 'import a from "./a";\\n' > src/deep/b.ts
printf 'const todo = /TODO second/;\\n' > src/deep/er/c.ts
printf 'def main():\\n    pass  # TODO third\\n' > src/main.py
printf '# Title\\nTODO in docs\\n' > docs/README.md
printf 'TODO hidden\\n' > .git/objects/x.ts
printf 'bin\\0TODO' > src/blob.ts
touch -d '2024-01-01' src/a.ts; touch -d '2024-01-03' src/deep/b.ts; touch -d '2024-01-02' src/deep/er/c.ts; touch -d '2023-01-01' src/blob.ts""")
    return "/workspace/tree"


def test_S056_double_star_finds_all_newest_first(ws):
    top = tree(ws)
    result = ws.ok("glob", pattern="**/*.ts", path=top)
    assert result["matches"] == [top + p for p in ("/src/deep/b.ts", "/src/deep/er/c.ts", "/src/a.ts", "/src/blob.ts")], result
    assert result["count"] == 4, result


def test_S057_no_match_is_an_empty_list(ws):
    assert ws.ok("glob", pattern="*.nothing", path=tree(ws)) == {"matches": [], "count": 0}


def test_S058_path_limits_the_search(ws):
    top = tree(ws)
    result = ws.ok("glob", pattern="**/*.ts", path=top + "/src/deep")
    assert sorted(result["matches"]) == [top + "/src/deep/b.ts", top + "/src/deep/er/c.ts"], result


def test_glob_braces_classes_and_single_stars(ws):
    top = tree(ws)
    for pattern, names in (
        ("src/*.ts", ["/src/a.ts", "/src/blob.ts"]), ("src/*.{py,ts}", ["/src/a.ts", "/src/blob.ts", "/src/main.py"]),
        ("**/[bc].ts", ["/src/deep/b.ts", "/src/deep/er/c.ts"]), ("**/[!a-b].ts", ["/src/deep/er/c.ts"]), ("src/?.ts", ["/src/a.ts"]),
        ("*.md", ["/docs/README.md"]), ("src/**/er/*", ["/src/deep/er/c.ts"]),
    ):
        result = ws.ok("glob", pattern=pattern, path=top)
        assert sorted(result["matches"]) == [top + n for n in names], (pattern, result)


def test_glob_git_and_limit(ws):
    top = tree(ws)
    assert len(ws.ok("glob", pattern="**/*.ts", path=top, include_git=True)["matches"]) == 5
    result = ws.ok("glob", pattern="**/*.ts", path=top, limit=2)
    assert result["count"] == 2 and result["truncated"] is True and result["total"] == 4, result


def test_S059_grep_tells_file_line_number_and_line(ws):
    top = tree(ws)
    result = ws.ok("grep", pattern="TODO", path=top)
    found = {(m["file_path"], m["line_number"], m["line"]) for m in result["matches"]}
    assert found == {
        (top + "/docs/README.md", 2, "TODO in docs"), (top + "/src/a.ts", 2, "// TODO first"),
        (top + "/src/deep/er/c.ts", 1, "const todo = /TODO second/;"), (top + "/src/main.py", 2, "    pass  # TODO third"),
    }, result
    assert result["count"] == 4 and result["binary_files_skipped"] == 1, result


def test_S060_include_limits_the_files(ws):
    top = tree(ws)
    result = ws.ok("grep", pattern="TODO", path=top, include="*.py")
    assert [m["file_path"] for m in result["matches"]] == [top + "/src/main.py"], result
    assert len(ws.ok("grep", pattern="TODO", path=top, include="*.{py,md}")["matches"]) == 2


def test_S061_pattern_is_a_regular_expression(ws):
    top = tree(ws)
    result = ws.ok("grep", pattern=r"^\s*(import|export)\b.*;$", path=top)
    assert len(result["matches"]) == 2, result
    assert len(ws.ok("grep", pattern="todo (first|third)", path=top, ignore_case=True)["matches"]) == 2
    reply = ws.call("grep", pattern="a(b", path=top)
    assert reply.status == 400 and reply.code == "bad_request" and "3" in reply.message, reply


def test_grep_of_one_file_of_nothing_and_of_many(ws):
    top = tree(ws)
    assert [m["line_number"] for m in ws.ok("grep", pattern="TODO", path=top + "/src/a.ts")["matches"]] == [2]
    assert ws.ok("grep", pattern="not there at all", path=top)["matches"] == []
    ws.sh("seq 1 5000 > many.txt")
    result = ws.ok("grep", pattern="^", path="many.txt", limit=100)
    assert result["count"] == 100 and result["truncated"] is True, result["count"]


def test_a_pattern_from_hell_ends(ws):
    ws.write("a.txt", "a" * 40 + "b\n")
    reply = ws.call("grep", pattern="^(a+)+$", path="a.txt")
    assert reply.status in (200, 400), reply
