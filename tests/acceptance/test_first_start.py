"""O3: a first start that is killed, at whatever moment, leaves a home that starts.

And what may have data is not touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_installation import ROOT, fresh, home, manage, postmasters, until
from tests.seed import environment

__all__ = ["fresh", "home"]


def _beside(pg: Path, name: str) -> bool:
    return any(pg.glob(f"data.initdb-*/{name}"))


def _ours(pg: Path) -> bool:
    return any("gastown.conf" in p.read_text(errors="replace") for p in pg.glob("data*/postgresql.conf"))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "initdb begins": lambda pg: any(pg.glob("data.initdb-*")),
    "its control file is written": lambda pg: _beside(pg, "global/pg_control"),
    "our settings are appended, or it is in its place": lambda pg: _ours(pg) or (pg / "data").exists(),
    "the server runs, perhaps without our database": lambda pg: (pg / "data" / "postmaster.pid").exists(),
}


@pytest.fixture
def killed(fresh: Path) -> Iterator[Callable[[Callable[[Path], bool]], None]]:
    """A first start that is killed with all that it has started as soon as something is there."""

    def kill_when(there: Callable[[Path], bool]) -> None:
        fresh.mkdir(exist_ok=True)
        command = [sys.executable, str(ROOT / "manage.py"), "town", "list"]
        start = subprocess.Popen(
            command, env=environment(fresh), start_new_session=True, stderr=subprocess.PIPE, text=True
        )
        try:
            while start.poll() is None and not there(fresh / "pg"):
                time.sleep(0.005)  # it is a race that is to be won by us, and the machine may be busy
        finally:
            ended = start.returncode
            with contextlib.suppress(ProcessLookupError):
                os.killpg(start.pid, signal.SIGKILL)
            said = start.communicate()[1]
        assert ended is None, said

    yield kill_when
    for server in postmasters(fresh):
        os.kill(server, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_o3_a_first_start_that_is_killed_is_followed_by_one_that_works(
    killed: Callable[[Callable[[Path], bool]], None], fresh: Path, moment: str
) -> None:
    killed(MOMENTS[moment])
    for _ in range(2):
        done = manage(fresh, "town", "list")
        assert done.returncode == 0, done.stderr
    left = [p.name for p in (fresh / "pg").iterdir() if p.name.startswith(("data.", "pwfile"))]
    assert left == []
    until(lambda: not postmasters(fresh))


def test_o3_a_server_that_a_killed_start_left_without_our_database_gets_it(home: Path) -> None:
    """Between the server's start and `create database`."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from gastown_site import database\n"
        "database._ensure_database = lambda: (print('up', flush=True), time.sleep(600))\n"
        "database.NAME = 'another'\n"
        "database.ensure_running()"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    first = subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "up\n"
    finally:
        first.kill()
        first.communicate()
    again = code.replace("database._ensure_database = lambda: (print('up', flush=True), time.sleep(600))\n", "")
    done = subprocess.run(
        [sys.executable, "-c", f"{again}\nprint(database._alive('another'))", str(ROOT)],
        env=environment(home), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
    until(lambda: not postmasters(home))


@pytest.mark.long
def test_o3_what_an_older_release_left_half_made_is_put_aside(fresh: Path) -> None:
    """It ran initdb in place: PG_VERSION is there, and nothing that could start."""
    data = fresh / "pg" / "data"
    (data / "base" / "1").mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    (data / "postgresql.conf").write_text("# as initdb writes it\n")
    done = manage(fresh, "town", "list")
    assert done.returncode == 0, done.stderr
    (aside,) = (fresh / "pg").glob("data.unfinished-*")
    assert (aside / "PG_VERSION").exists()


@pytest.mark.long
@pytest.mark.parametrize("lost", ["PG_VERSION", "postgresql.conf"])
def test_o3_a_cluster_that_has_data_is_never_taken_for_a_half_made_one(home: Path, lost: str) -> None:
    assert manage(home, "town", "create", "main").returncode == 0
    kept = home / "kept"
    shutil.move(home / "pg" / "data" / lost, kept)
    refused = manage(home, "town", "list")
    assert refused.returncode == 1 and "has data" in refused.stderr and refused.stderr.count("\n") == 1
    shutil.move(kept, home / "pg" / "data" / lost)
    assert "main" in manage(home, "town", "list").stdout
