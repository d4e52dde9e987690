"""What a killed shim leaves behind: nothing of it goes on, and nothing of its work is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from django.utils import timezone

from agents import runs
from agents.lifecycle import RunOutcome
from agents.models import Run
from tests.acceptance.conftest import Stage
from tests.acceptance.test_runs import DAEMON, HANG, alive, ended, play, running


def kill_shim(stage: Stage, run: Run) -> None:
    shim = stage.runner.shims[run.pk]
    os.kill(shim.pid, signal.SIGKILL)
    shim.wait(10)


def test_a_killed_shim_ends_its_run_at_once_its_daemons_die_and_its_draft_is_kept(stage: Stage) -> None:
    mark = f"96{os.getpid()}.5"
    script = f"MARK = {mark!r}\n{DAEMON}\nopen('draft.txt', 'w').write('half')\n{HANG}"
    play(stage, script, lease="600s", heartbeat="10s")
    run = running(stage)
    stage.until(lambda: alive(f"sleep\0{mark}"))
    kill_shim(stage, run)
    run = ended(stage, run)  # long before its lease
    assert (run.outcome, run.reason) == ("lost", "its shim ended with signal 9")
    assert alive(mark) == [] and alive(str(stage.root / "agent.py")) == []
    repo = Path(stage.runner.home) / "repos" / f"{stage.rig.pk}.git"
    assert stage.git("show", f"{run.salvage_ref}:draft.txt", cwd=repo) == "half"
    stage.runner.leftovers.clean()
    assert not (Path(stage.runner.home) / "workspaces" / run.pk).exists()


def test_work_that_was_reported_before_its_shim_was_killed_lands_without_another_attempt(stage: Stage) -> None:
    script = (
        "from tool import call\n"
        "open('done.txt', 'w').write('done')\n"
        "subprocess.run('git add -A && git commit -qm work', shell=True, check=True)\n"
        "call('gt_done', summary='done')\n" + HANG
    )
    bead = play(stage, script, lease="600s", heartbeat="10s")
    run = running(stage)
    kill_shim(stage, run)
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert stage.file("done.txt") == "done"
    told = Run.objects.get(bead=bead)
    assert (told.pk, told.outcome, told.published) == (run.pk, "done", True)


def test_processes_that_outlive_an_ended_run_are_found_by_their_mark(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner was restarted meanwhile, so nobody's child ended: the next round of cleaning finds them. In a sandbox
    nothing outlives its shim, and in a control group of its own not for long."""
    monkeypatch.setenv("GASTOWN_SANDBOX", "off")
    mark = f"95{os.getpid()}.5"
    play(stage, f"MARK = {mark!r}\n{DAEMON}\n{HANG}", lease="600s", heartbeat="10s")
    run = running(stage)
    stage.until(lambda: alive(f"sleep\0{mark}"))
    kill_shim(stage, run)
    stage.runner.shims.clear()
    assert alive(f"sleep\0{mark}")
    runs.end(run.pk, "running", RunOutcome.LOST, "its lease ran out", timezone.now())
    stage.runner.leftovers.clean()
    assert alive(mark) == []
