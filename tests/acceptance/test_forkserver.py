"""Shims are forked, not started: by a server that may die at any time, and takes nothing with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from agents.models import Run
from agents.runner import Runner
from agents.runtime.forkserver import ForkServer, alive
from tests.acceptance.conftest import Stage
from tests.acceptance.test_runs import HANG, ended, play, running

FINISH = """
from tool import call
open('done.txt', 'w').write('done')
subprocess.run('git add -A && git commit -qm work', shell=True, check=True)
open('ready', 'w').close()
while not os.path.exists({release!r}):
    time.sleep(0.05)
call('gt_done', summary='done')
"""


def server(stage: Stage) -> int:
    """The process that forks shims."""
    process = stage.runner.forks._process
    assert process is not None
    return process.pid


def test_a_killed_server_takes_no_shim_with_it_and_the_next_run_gets_another_one(stage: Stage) -> None:
    bead = play(stage, FINISH.format(release=str(stage.release)))
    run = running(stage)
    first = server(stage)
    os.kill(first, signal.SIGKILL)
    stage.release.touch()
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    again = Run.objects.get(bead=bead)
    assert (again.pk, again.outcome) == (run.pk, "done")
    stage.until(lambda: run.pk not in stage.runner.shims)  # nobody says how it ended: it is looked for
    assert Run.objects.filter(kind="gates", outcome="done").exists()
    assert server(stage) != first


def test_the_end_of_a_shim_whose_server_was_killed_is_noticed_long_before_its_lease(stage: Stage) -> None:
    play(stage, HANG, lease="600s", heartbeat="10s")
    run = running(stage)
    os.kill(server(stage), signal.SIGKILL)
    os.kill(stage.runner.shims[run.pk].pid, signal.SIGKILL)
    run = ended(stage, run)
    assert (run.outcome, run.reason) == ("lost", "its shim ended; how is not known")


def test_a_shim_has_nothing_of_the_servers_environment_and_ends_in_a_session_of_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("GASTOWN_SECRET_KEY", "secret")
    stage.runner = Runner()
    play(stage, HANG)
    shim = stage.runner.shims[running(stage).pk].pid
    seen = Path(f"/proc/{shim}/environ").read_bytes()
    assert b"PATH=" in seen and b"secret" not in seen
    assert os.getsid(shim) == shim
    assert Path(f"/proc/{shim}/comm").read_text() == "gastown-shim\n"


def test_the_server_ends_with_its_runner(tmp_path: Path) -> None:
    forks = ForkServer(os.environ)
    child = forks.start(tmp_path / "no such spec", tmp_path / "log")
    assert child.wait(20) == 1
    assert "no such spec" in (tmp_path / "log").read_text()
    process = forks._process
    assert process is not None and alive(process.pid)
    forks.close()
    assert process.poll() == 0
    with pytest.raises(OSError, match=r"does not answer|cannot be started"):
        forks.start(tmp_path / ("x" * (1 << 20)), tmp_path / "log")  # more than a message may be
    assert forks.start(tmp_path / "again", tmp_path / "log").wait(20) == 1
    forks.close()
