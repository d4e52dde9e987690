"""The supervisor of `up`, with parts that behave badly, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.acceptance.test_installation import ROOT, until
from tests.seed import environment

PARTS = """
import errno, os, signal, sys, time
from pathlib import Path
import django
django.setup()
from gastown_site.parts import supervisor

there = Path(sys.argv[1])

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "600"])
    (there / "stubborn").write_text(f"{os.getpid()} {os.getsid(0)} {os.environ['TOLD']} {sys.stdin.read()!r}")
    time.sleep(600)

def broken():
    with (there / "broken").open("a") as tries:
        tries.write(f"{time.monotonic()}\\n")
    sys.exit(3)

class Unstartable(supervisor.Part):
    def start(self):
        if not (there / "room").exists():
            raise OSError(errno.EAGAIN, "no room for a process")
        super().start()

class Late(supervisor.Supervisor):
    def _announce(self):
        if len(self.parts) == 2:
            self.parts.append(Unstartable("late", lambda: (there / "late").touch() or time.sleep(600)))

supervisor.STOP_SECONDS = 0.5
parts = [supervisor.Part("stubborn", stubborn), supervisor.Part("broken", broken)]
Late(parts, "http://127.0.0.1:9", lambda line: print(line, flush=True)).run()
"""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor whose parts leave their traces in `tmp_path`."""
    env = environment(tmp_path, DJANGO_SETTINGS_MODULE="gastown_site.settings", TOLD="so")
    command = [sys.executable, "-c", PARTS, str(tmp_path)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=said, text=True)
    yield process
    process.kill()
    process.communicate()


def test_parts_that_fail_are_put_off_and_what_ignores_the_end_is_killed_with_all_it_started(
    supervised: subprocess.Popen[str], tmp_path: Path
) -> None:
    told = (tmp_path / "stubborn", tmp_path / "broken", tmp_path / "said")
    until(lambda: all(path.exists() and path.read_text() for path in told))
    pid, session, environ, stdin = told[0].read_text().split()
    assert (session, environ, stdin) == (pid, "so", "''")  # a session of its own, our environment, nothing to read
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    until(lambda: len(told[1].read_text().splitlines()) >= 4)
    tries = [float(line) for line in told[1].read_text().splitlines()]
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[2] > 0.8 > 0.2 < pauses[0]  # 0.2, 0.4, 0.8 s at least
    assert told[2].read_text().count("broken ended with 3") >= 3
    until(lambda: "late cannot be started: [Errno 11] no room for a process" in told[2].read_text())
    (tmp_path / "room").touch()
    until(lambda: (tmp_path / "late").exists())
    supervised.send_signal(signal.SIGTERM)
    assert supervised.wait(30) == 0
    assert {"stopped stubborn", "stopped late"} <= set(told[2].read_text().splitlines())
    until(lambda: not [p for p in (pid, *children) if _lives(p)])


def _lives(pid: str) -> bool:
    """False for one that only waits to be buried, too."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text() != ""
    except OSError:
        return False
