#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of this directory against a suite that is up (run.sh starts one).

usage: suite.py [name …]     names of files or parts of test names; none = all but what needs a suite of its own order
A test is a function `test_…` of a file `test_*.py`; its parameters say what it gets:
  api     the client                   ws     a workspace that the tests of the file share
  fresh   a workspace of its own       make   a function that creates workspaces which are deleted after the test
The last line is `N passed, N failed`. The environment: EW_TEST_URL, EW_TEST_KEY, EW_TEST_PROVIDER, EW_TEST_BIN, EW_TEST_SUITE (suite.sh).
"""

import glob
import importlib
import inspect
import os
import signal
import sys
import time
import traceback

import api as client

TEST_SECONDS = 180
LAST = ["test_soak", "test_restart", "test_database"]  # heavy ones, and those that stop daemons


class TooLong(Exception):
    pass


def on_alarm(_signal, _frame):
    raise TooLong("the test took too long")


class Runner:
    def __init__(self):
        self.api = client.Api(os.environ["EW_TEST_URL"], os.environ["EW_TEST_KEY"])
        self.shared = None
        self.passed = 0
        self.failed = []

    def arguments(self, function, made):
        def make(**fields):
            workspace = self.api.create(**fields)
            made.append(workspace)
            return workspace

        given = {}
        for name in inspect.signature(function).parameters:
            if name == "api":
                given[name] = self.api
            elif name == "ws":
                self.shared = self.shared or self.api.create()
                given[name] = self.shared
            elif name == "fresh":
                given[name] = make()
            elif name == "make":
                given[name] = make
            else:
                raise TypeError("unknown test parameter %s" % name)
        return given

    def run(self, name, function):
        made = []
        began = time.monotonic()
        signal.alarm(getattr(function, "seconds", TEST_SECONDS))
        try:
            function(**self.arguments(function, made))
            error = None
        except (Exception, TooLong):
            error = traceback.format_exc()
        finally:
            signal.alarm(0)
        for workspace in made:
            try:
                workspace.delete()
            except Exception:
                error = error or traceback.format_exc()
        took = time.monotonic() - began
        if error is None:
            self.passed += 1
            print("ok     %-70s %6.2f s" % (name, took), flush=True)
        else:
            self.failed.append(name)
            print("FAILED %-70s %6.2f s\n%s" % (name, took, error), flush=True)

    def end_file(self):
        if self.shared is not None:
            try:
                self.shared.delete()
            except Exception:
                self.failed.append("delete of the shared workspace")
                traceback.print_exc()
            self.shared = None


def order(path):
    name = os.path.basename(path)[:-3]
    return (LAST.index(name) + 1 if name in LAST else 0, name)


def main(wanted):
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, here)
    signal.signal(signal.SIGALRM, on_alarm)
    runner = Runner()
    for path in sorted(glob.glob(os.path.join(here, "test_*.py")), key=order):
        name = os.path.basename(path)[:-3]
        module = importlib.import_module(name)
        tests = [(n, f) for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
        for test_name, function in tests:
            if not wanted or any(part == name or part in test_name for part in wanted):
                runner.run("%s.%s" % (name[5:], test_name[5:]), function)
        runner.end_file()
    for name in runner.failed:
        print("failed: %s" % name)
    print("%d passed, %d failed" % (runner.passed, len(runner.failed)))
    return 1 if runner.failed or runner.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
