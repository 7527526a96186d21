# SPDX-License-Identifier: Apache-2.0
"""git through its tool."""


def repository(ws, name):
    """A repository with one commit; returns its directory."""
    ws.sh("git init -q -b main %s && cd %s && git config user.name T && git config user.email t@example.org && "
          "printf 'one\\n' > tracked.txt && printf 'x\\n' > moved.txt && git add . && git commit -q -m first" % (name, name))
    return "/workspace/" + name


def test_S062_status_is_structured_and_text(ws):
    top = repository(ws, "status")
    ws.sh("cd status && echo more >> tracked.txt && echo new > staged.txt && git add staged.txt && git mv moved.txt 'new name.txt' && echo u > 'un tracked.txt'")
    result = ws.ok("git", action="status", workdir=top)
    status = result["status"]
    assert result["exit_code"] == 0 and status["branch"] == "main" and len(status["head"]) == 40, result
    assert {(f["path"], f["status"]) for f in status["staged"]} == {("staged.txt", "A"), ("new name.txt", "R")}, status
    assert [f["old_path"] for f in status["staged"] if f["status"] == "R"] == ["moved.txt"], status
    assert [(f["path"], f["status"]) for f in status["unstaged"]] == [("tracked.txt", "M")], status
    assert status["untracked"] == ["un tracked.txt"], status
    assert "tracked.txt" in result["output"] and "?? " in result["output"], result


def test_S063_commit_stages_the_named_files(ws):
    top = repository(ws, "commit")
    ws.sh("cd commit && echo a > a.txt && echo b > b.txt")
    result = ws.ok("git", action="commit", message="add a\n\nwith 'quotes' $and `ticks`", files=["a.txt"], workdir=top)
    assert result["exit_code"] == 0 and len(result["commit"]) == 40, result
    assert ws.sh("git log -1 --format=%B --name-only", workdir=top).split("\n")[:3] == ["add a", "", "with 'quotes' $and `ticks`"]
    assert ws.ok("git", action="status", workdir=top)["status"]["untracked"] == ["b.txt"]
    assert ws.ok("git", action="commit", message="all", workdir=top)["exit_code"] == 0
    assert ws.ok("git", action="status", workdir=top)["status"]["untracked"] == []
    reply = ws.call("git", action="commit", workdir=top)
    assert reply.status == 400 and reply.message == "message is required for commit action", reply


def test_commit_without_an_identity_uses_the_fallback_and_says_so(ws):
    ws.sh("git init -q nobody && echo x > nobody/x")
    result = ws.ok("git", action="commit", message="m", workdir="/workspace/nobody")
    assert result["exit_code"] == 0 and result["warnings"], result
    assert ws.sh("git log -1 --format='%an <%ae>'", workdir="/workspace/nobody") == "Emergent Agent <agent@emergent.local>\n"


def test_S064_diff_has_unstaged_then_staged(ws):
    top = repository(ws, "diff")
    ws.sh("cd diff && echo staged > new.txt && git add new.txt && echo unstaged >> tracked.txt")
    output = ws.ok("git", action="diff", workdir=top)["output"]
    unstaged, staged = output.split("---STAGED---")
    assert "+unstaged" in unstaged and "+staged" not in unstaged and "+staged" in staged, output


def test_S066_checkout_makes_a_branch_or_switches(ws):
    top = repository(ws, "checkout")
    assert ws.ok("git", action="checkout", branch="feature/x", workdir=top)["exit_code"] == 0
    assert ws.ok("git", action="status", workdir=top)["status"]["branch"] == "feature/x"
    assert ws.ok("git", action="checkout", branch="main", workdir=top)["exit_code"] == 0
    assert ws.ok("git", action="status", workdir=top)["status"]["branch"] == "main"
    assert "feature/x" in ws.ok("git", action="branch", workdir=top)["output"]
    reply = ws.call("git", action="checkout", workdir=top)
    assert reply.status == 400 and reply.message == "branch is required for checkout action", reply


def test_log_add_and_reset(ws):
    top = repository(ws, "log")
    ws.sh("cd log && for i in 2 3 4; do echo $i > f$i && git add . && git commit -q -m commit-$i; done; echo n > n1; echo n > n2")
    output = ws.ok("git", action="log", limit=2, workdir=top)["output"]
    assert "commit-4" in output and "commit-3" in output and "commit-2" not in output, output
    ws.ok("git", action="add", files=["n1", "n2"], workdir=top)
    ws.ok("git", action="reset", files=["n2"], workdir=top)
    status = ws.ok("git", action="status", workdir=top)["status"]
    assert [f["path"] for f in status["staged"]] == ["n1"] and status["untracked"] == ["n2"], status


def test_gits_own_failures_are_results(ws):
    ws.sh("mkdir -p plain")
    result = ws.ok("git", action="status", workdir="/workspace/plain")
    assert result["exit_code"] == 128 and "not a git repository" in result["stderr"], result


def test_unknown_actions_are_named(ws):
    reply = ws.call("git", action="rebase")
    assert reply.status == 400 and reply.message.startswith("unsupported git action: rebase (supported: "), reply
    reply = ws.call("git", action="push")
    assert reply.status == 400, reply


def test_a_hostile_repository_runs_nothing(fresh):
    top = repository(fresh, "hostile")
    fresh.sh("""cd hostile && trap_cmd='touch /tmp/pwned'
git config core.fsmonitor "$trap_cmd"; git config core.pager "$trap_cmd"; git config diff.external "$trap_cmd"
git config core.sshCommand "$trap_cmd"; git config core.editor "$trap_cmd"; git config filter.evil.clean "$trap_cmd"; git config filter.evil.smudge "$trap_cmd"
git config diff.evil.textconv "$trap_cmd"; git config gpg.program "$trap_cmd"; git config commit.gpgSign true
echo '*.txt filter=evil diff=evil' > .gitattributes
mkdir -p hooks; for h in pre-commit post-commit post-checkout commit-msg post-index-change; do printf '#!/bin/sh\\ntouch /tmp/pwned\\n' > hooks/$h; chmod +x hooks/$h; done
git config core.hooksPath hooks; cp hooks/* .git/hooks/; echo change >> tracked.txt""")
    fresh.sh("rm -f /tmp/pwned")
    for fields in ({"action": "status"}, {"action": "diff"}, {"action": "log"}, {"action": "add", "files": ["tracked.txt"]},
                   {"action": "commit", "message": "m"}, {"action": "checkout", "branch": "other"}, {"action": "branch"},
                   {"action": "reset", "files": ["tracked.txt"]}):
        fresh.ok("git", workdir=top, **fields)
        assert fresh.bash("test -e /tmp/pwned")["exit_code"] == 1, fields


def test_arguments_that_look_like_options_are_data(ws):
    top = repository(ws, "dashes")
    ws.sh("cd dashes && echo x > --output=stolen")
    ws.ok("git", action="add", files=["--output=stolen"], workdir=top)
    assert [f["path"] for f in ws.ok("git", action="status", workdir=top)["status"]["staged"]] == ["--output=stolen"]
    reply = ws.call("git", action="checkout", branch="--detach", workdir=top)
    assert reply.status == 400 or reply.json()["exit_code"] != 0, reply
