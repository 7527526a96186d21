# SPDX-License-Identifier: Apache-2.0
"""The emergent command line against the same suite, and the README's examples (docs/tour.sh)."""

import json
import os
import signal
import stat
import subprocess
import tempfile
import time

from api import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def environment(api):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("EMERGENT_", "STANDALONE_"))}
    return dict(env, EMERGENT_URL=api.url, EMERGENT_API_KEY=api.key)


def command():
    return os.path.join(os.environ["EW_TEST_BIN"], "emergent")


def run(api, *args, data=None, expect=0, env=None):
    result = subprocess.run([command(), *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env or environment(api), timeout=120, check=False)
    if expect is not None:
        assert result.returncode == expect, (args, result)
    return result


def text(api, *args, **kw):
    return run(api, *args, **kw).stdout.decode()


def test_a_life_on_the_command_line(api):
    ws = text(api, "workspace", "create", "--memory", "512M", "--disk", "1G", "-e", "GREETING=hi", "--network", "none").strip()
    assert ws in text(api, "workspace", "list") and ws in text(api, "workspace", "list", "--quiet").split()
    assert "512M" in text(api, "workspace", "show", ws)
    assert json.loads(text(api, "workspace", "show", ws, "--json"))["id"] == ws
    assert text(api, "workspace", "exec", ws, "echo $GREETING") == "hi\n"
    text(api, "workspace", "delete", ws)
    assert ws not in text(api, "workspace", "list")
    assert b"not found" in run(api, "workspace", "show", ws, expect=1).stderr


def test_exec_passes_streams_words_and_the_exit_code(api, ws):
    result = run(api, "workspace", "exec", ws.id, "echo out; echo err >&2; exit 42", expect=42)
    assert result.stdout == b"out\n" and result.stderr == b"err\n", result
    assert text(api, "workspace", "exec", ws.id, "--", "printf", "%s|", "a b", "$HOME", "it's") == "a b|$HOME|it's|"
    assert text(api, "workspace", "exec", ws.id, "echo", "-n", "x") == "x", "options after the command are the command's"
    assert run(api, "workspace", "exec", "-i", ws.id, "cat", data=b"\0\xffbinary").stdout == b"\0\xffbinary"
    assert text(api, "workspace", "exec", "-C", "/tmp", "-e", "A=1 2", ws.id, "pwd; echo $A") == "/tmp\n1 2\n"
    assert b"killed at its timeout" in run(api, "workspace", "exec", "-t", "1", ws.id, "sleep 60", expect=124).stderr
    run(api, "workspace", "exec", "00000000-0000-4000-8000-000000000000", "true", expect=125)
    assert json.loads(text(api, "workspace", "exec", "--json", ws.id, "echo x"))["stdout"] == "x\n"
    big = run(api, "workspace", "exec", ws.id, "head -c 3000000 /dev/zero").stdout
    assert big == b"\0" * 3000000, len(big)


def test_json_options_of_create(api):
    result = run(api, "workspace", "create", "--type", "mcp_server", "--mcp-config", '{"name":"m"}', "--metadata", '{"a":1}', "--no-wait")
    ident = result.stdout.decode().strip()
    row = json.loads(text(api, "workspace", "show", ident, "--json"))
    assert row["mcp_config"]["name"] == "m" and row["metadata"]["a"] == 1, row
    text(api, "workspace", "delete", ident)
    assert b"--mcp-config is not JSON" in run(api, "workspace", "create", "--mcp-config", "{", expect=2).stderr


def test_ctrl_c_cancels_the_command(api, fresh):
    process = subprocess.Popen([command(), "workspace", "exec", fresh.id, "echo go; exec sleep 6543"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(api))
    assert process.stdout.readline() == b"go\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130 and time.monotonic() - began < 3
    wait_until(lambda: fresh.bash("pgrep -f 'sleep 654[3]'")["stdout"] == "", 20, "command is gone")
    process.stdout.close()
    process.stderr.close()


def test_file_tools(api, ws):
    assert "5 bytes" in text(api, "workspace", "write", ws.id, "cli.txt", data=b"a\nb\nc")
    assert text(api, "workspace", "read", ws.id, "cli.txt") == "1: a\n2: b\n3: c\n"
    assert text(api, "workspace", "edit", ws.id, "cli.txt", "--old", "b", "--new", "B") == "1 replaced\n"
    assert text(api, "workspace", "read", ws.id, "cli.txt", "--raw") == "a\nB\nc"
    assert text(api, "workspace", "glob", ws.id, "cli*.txt") == "/workspace/cli.txt\n"
    assert text(api, "workspace", "grep", ws.id, "^B$", "-p", "cli.txt") == "/workspace/cli.txt:2:B\n"
    run(api, "workspace", "grep", ws.id, "nowhere", "-p", "cli.txt", expect=1)
    ws.sh("git init -q -b main g && echo x > g/x")
    text(api, "workspace", "git", ws.id, "commit", "-m", "first", "-C", "/workspace/g")
    assert "first" in text(api, "workspace", "git", ws.id, "log", "-C", "/workspace/g")


def test_cp_both_ways(api, ws):
    data = os.urandom(5 * 1024 * 1024 + 3)
    with tempfile.TemporaryDirectory() as top:
        local = os.path.join(top, "in.bin")
        with open(local, "wb") as file:
            file.write(data)
        os.chmod(local, 0o750)
        text(api, "workspace", "cp", local, ws.id + ":up/")
        assert ws.sh("stat -c %a up/in.bin") == "750\n"
        back = os.path.join(top, "out.bin")
        text(api, "workspace", "cp", ws.id + ":up/in.bin", back)
        with open(back, "rb") as file:
            assert file.read() == data
        text(api, "workspace", "cp", ws.id + ":up/in.bin", top)
        run(api, "workspace", "cp", ws.id + ":none", os.path.join(top, "never"), expect=1)
        assert sorted(os.listdir(top)) == ["in.bin", "out.bin"], "a failed download leaves nothing"
        run(api, "workspace", "cp", top, ws.id + ":x", expect=1)
    run(api, "workspace", "cp", "-", ws.id + ":piped.txt", data=b"piped")
    assert run(api, "workspace", "cp", ws.id + ":piped.txt", "-").stdout == b"piped"


def test_processes(api, fresh):
    number = text(api, "workspace", "exec", "-d", fresh.id, "echo begun; sleep 1; echo over; exit 3").strip()
    assert number in text(api, "workspace", "ps", fresh.id)
    assert text(api, "workspace", "logs", "-f", fresh.id, number, expect=3) == "begun\nover\n"
    assert text(api, "workspace", "logs", fresh.id, number) == "begun\nover\n"
    number = text(api, "workspace", "exec", "-d", fresh.id, "sleep 600").strip()
    text(api, "workspace", "kill", fresh.id, number)
    assert text(api, "workspace", "logs", "-f", fresh.id, number, expect=143) == ""


def test_providers_health_version_and_keys(api):
    assert "gvisor" in text(api, "providers") and json.loads(text(api, "providers", "--json"))
    assert json.loads(text(api, "health")) and text(api, "version").startswith("emergent ")
    key = text(api, "key", "create", "from-cli", "-s", "admin:read").strip()
    env = dict(environment(api), EMERGENT_API_KEY=key)
    assert run(api, "workspace", "list", env=env).returncode == 0
    assert b"admin:write" in run(api, "workspace", "create", env=env, expect=1).stderr
    rows = json.loads(text(api, "key", "list", "--json"))
    rows = rows if isinstance(rows, list) else next(v for v in rows.values() if isinstance(v, list))
    ident = next(row["id"] for row in rows if row["name"] == "from-cli")
    text(api, "key", "delete", ident)
    run(api, "workspace", "list", env=env, expect=1)


def test_errors_say_what_to_do(api):
    env = dict(environment(api), EMERGENT_API_KEY="wrong")
    result = run(api, "workspace", "list", env=env, expect=1)
    assert b"Invalid or expired token" in result.stderr and b"invalid_token" in result.stderr and b"api-key" in result.stderr, result
    result = run(api, "--url", "http://127.0.0.1:1", "workspace", "list", expect=3)
    assert b"make up" in result.stderr, result
    assert b"unknown command" in run(api, "workspace", "dance", expect=2).stderr
    assert b"unknown option" in run(api, "workspace", "list", "--wrong", expect=2).stderr
    assert b"usage" in run(api, expect=2).stderr
    assert b"workspace exec" in run(api, "--help").stdout


def test_keygen_writes_private_files_and_overwrites_nothing(api):
    with tempfile.TemporaryDirectory() as top:
        text(api, "keygen", "node1", "--dir", top)
        assert sorted(os.listdir(top)) == ["node1.secret", "node1.txt"]
        for name in os.listdir(top):
            assert stat.S_IMODE(os.stat(os.path.join(top, name)).st_mode) == 0o600, name
        with open(os.path.join(top, "node1.txt")) as file:
            assert "secret-key" not in file.read()
        run(api, "keygen", "node1", "--dir", top, expect=1)
        run(api, "keygen", "../evil", "--dir", top, expect=2)


def test_completion_scripts_are_valid(api):
    script = text(api, "completion", "bash")
    check = 'COMP_WORDS=(emergent workspace ex); COMP_CWORD=2; _emergent; echo "${COMPREPLY[*]}"'
    result = subprocess.run(["bash", "-c", script + "\n" + check], stdout=subprocess.PIPE, check=True)
    assert result.stdout.split() == [b"exec"], result
    assert "compinit" in text(api, "completion", "zsh") and "complete -c emergent" in text(api, "completion", "fish")
    run(api, "completion", "tcsh", expect=2)


def test_the_tour_of_the_readme(api):
    tour = os.path.join(ROOT, "docs", "tour.sh")
    path = os.environ["EW_TEST_BIN"] + os.pathsep + os.environ["PATH"]
    result = subprocess.run(["sh", tour], env=dict(environment(api), PATH=path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
