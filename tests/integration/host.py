# SPDX-License-Identifier: Apache-2.0
"""What the host sees of a sandbox: processes, mounts, loop devices, control groups, files. Only gvisord's layout is known here."""

import os
import re
import subprocess

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def state_dir():
    return os.environ["EW_STATE_DIR"]


def provider_dir(*parts):
    return os.path.join(state_dir(), "gvisord", *parts)


def names(path):
    return set(os.listdir(path)) if os.path.isdir(path) else set()


def sandbox_ids():
    return names(provider_dir("sandboxes"))


def snapshot_names():
    """Half made ones have other names than a UUID; they count, too."""
    return names(provider_dir("snapshots"))


def command_line(pid):
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def runtime_processes():
    """(pid, id of the sandbox, command line) of every process of the runtime that works for a sandbox of this suite."""
    found = []
    inside = re.compile(re.escape(provider_dir("sandboxes")) + "/(%s)" % UUID)
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            line = command_line(pid)
            match = inside.search(line)
            if match and "runsc" in line.split(" ", 1)[0]:
                found.append((int(pid), match.group(1), line))
    return found


def processes_of(ident):
    return [(pid, line) for pid, owner, line in runtime_processes() if owner == ident]


def kernel_of(ident):
    """Pid of the process that is the sandbox: its end is the sandbox's end."""
    for pid, line in processes_of(ident):
        if line.startswith("runsc-sandbox"):
            return pid
    return None


def mounts():
    with open("/proc/self/mounts") as file:
        return [line.split(" ")[1] for line in file]


def mounts_of(ident):
    prefix = provider_dir("sandboxes", ident)
    return [path for path in mounts() if path.startswith(prefix)]


def loop_files():
    shown = subprocess.run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return [line.strip() for line in shown.splitlines() if line.startswith(provider_dir())]


def loops_of(ident):
    return [path for path in loop_files() if ident in path]


def cgroups():
    """{id: directories} of the control groups of this suite's sandboxes."""
    found = {}
    parent = os.environ.get("EW_CGROUP_PARENT", "emergent-workspaces")
    for top in ["/sys/fs/cgroup"] + ["/sys/fs/cgroup/" + name for name in names("/sys/fs/cgroup")]:
        base = os.path.join(top, parent)
        for path, directories, _ in os.walk(base):
            for name in directories:
                if re.fullmatch(UUID, name):
                    found.setdefault(name, []).append(os.path.join(path, name))
    return found


def what_runs_of(ident):
    """Everything of a sandbox that costs memory or devices; empty for one that is stopped."""
    return ["process %d" % pid for pid, _ in processes_of(ident)] + ["mount " + path for path in mounts_of(ident)] + \
        ["loop device of " + path for path in loops_of(ident)] + cgroups().get(ident, [])


def open_to_others(path):
    """Files and directories below (and with) path that group or others may touch."""
    found = []
    for top, directories, files in os.walk(path):
        for name in [top] + [os.path.join(top, f) for f in files]:
            mode = os.lstat(name).st_mode
            if mode & 0o077 and not os.path.islink(name):
                found.append("%s %o" % (name, mode & 0o777))
    return found
