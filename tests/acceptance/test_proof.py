"""The worker's word is not proof: a bead closes when git shows its change on the target, and for nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.models import Run
from beads import ledger
from beads.models import Bead, Escalation
from refinery.decisions import work
from refinery.models import ReviewEntry
from refinery.pages import boards
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.test_runs import play

SAYS = "from tool import call\nimport json\n"
COMMIT = "subprocess.run('git add -A && git commit -qm work', shell=True, check=True)\n"
KEEP = "open('answer.json', 'w').write(json.dumps(told))\n"


def answered(stage: Stage, bead: Bead) -> Run:
    """The bead's last run, when the bead has ended."""
    stage.await_bead(bead, "closed", "failed")
    run = Run.objects.filter(bead=bead).last()
    assert run is not None
    return run


def test_g2_nothing_is_closed_for_a_word_and_a_person_may_confirm_it(stage: Stage) -> None:
    later = "import os\n"
    bead = play(stage, SAYS + later + "told = call('gt_done', summary='it is all there already')\nprint(told)\n")
    after = work.sling(stage.rig, ledger.Draft("What comes after"), by=WHO, after=[bead])
    run = answered(stage, bead)
    found = Bead.objects.get(pk=bead.pk)
    assert (found.status, found.resolution, found.merge_sha) == ("failed", "nothing_changed", "")
    assert "it is all there already" in found.reason
    assert "nothing_changed" in Path(run.log_path).read_text()  # the agent was told at once
    assert not ReviewEntry.objects.filter(source=bead).exists()
    assert Run.objects.filter(bead=bead).count() == 1 and not Run.objects.filter(bead=after).exists()
    asked = Escalation.objects.get(about=bead, closed_at=None)
    assert f"bead confirm {bead.pk}" in asked.bead.body
    work.confirm_bead(found, by=WHO, reason="looked at it")
    found = stage.await_bead(bead, "closed")
    assert (found.resolution, found.merge_sha) == ("nothing_changed", "")
    stage.until(lambda: Run.objects.filter(bead=after).exists())
    assert not Escalation.objects.filter(about=bead, closed_at=None).exists()


def test_g2_what_was_not_committed_is_a_failed_attempt_that_says_so_and_is_saved(stage: Stage) -> None:
    script = "open('work.txt', 'w').write('precious')\nopen('.git/index.lock', 'w').close()\n"
    script += "subprocess.run('git add -A && git commit -qm work', shell=True)\ncall('gt_done', summary='done')\n"
    bead = play(stage, SAYS + script, max_attempts=1)
    run = answered(stage, bead)
    assert (run.outcome, run.work) == ("failed", "uncommitted")
    assert "not committed" in Bead.objects.get(pk=bead.pk).reason
    mirror = Path(stage.runner.home) / "repos" / f"{stage.rig.pk}.git"
    assert stage.git("show", f"{run.salvage_ref}:work.txt", cwd=mirror) == "precious"


@pytest.mark.parametrize("named", ["feature/x", ""])
def test_g1_commits_on_another_branch_are_taken(stage: Stage, named: str) -> None:
    script = "subprocess.run('git checkout -qb feature/x', shell=True)\nopen('work.txt', 'w').write('work')\n"
    script += COMMIT + f"subprocess.run('git checkout -q -', shell=True)\ncall('gt_done', branch={named!r})\n"
    bead = play(stage, SAYS + script)
    assert answered(stage, bead).work == "new"
    assert Bead.objects.get(pk=bead.pk).resolution == "merged"
    assert stage.file("work.txt") == "work"


def test_g1_a_branch_that_is_not_there_is_refused_to_the_agents_face(stage: Stage) -> None:
    script = "open('work.txt', 'w').write('work')\n" + COMMIT
    script += "import urllib.error\ntry:\n    call('gt_done', branch='feature/y')\n"
    script += "except urllib.error.HTTPError as error:\n    told = json.load(error)\n"
    script += KEEP + COMMIT + "call('gt_done')\n"
    bead = play(stage, SAYS + script)
    answered(stage, bead)
    error = json.loads(stage.file("answer.json"))["error"]
    assert (error["code"], error["details"]["field"]) == ("invalid", "branch")
    assert stage.file("work.txt") == "work"


def test_g1_commits_that_cancel_out_are_no_work(stage: Stage) -> None:
    script = "open('work.txt', 'w').write('work')\n" + COMMIT + "subprocess.run('git rm -q work.txt', shell=True)\n"
    bead = play(stage, SAYS + script + COMMIT + "call('gt_done')\n")
    answered(stage, bead)
    found = Bead.objects.get(pk=bead.pk)
    assert (found.status, found.resolution) == ("failed", "nothing_changed")
    assert ReviewEntry.objects.get(source=bead).reason == "nothing_changed"


def test_a_convoy_does_not_land_what_nobody_did(stage: Stage) -> None:
    stage.open()
    convoy = stage.convoy("Two", {"a": ("echo a > a.txt", []), "b": ("true", [])})
    stage.until(lambda: Bead.objects.filter(convoy=convoy, status__in=["closed", "failed"]).count() == 2)
    done = {bead.plan_key: bead for bead in Bead.objects.filter(convoy=convoy)}
    assert (done["a"].resolution, done["b"].resolution) == ("merged", "nothing_changed")
    assert boards.Board(stage.town).convoy(convoy)[0] == "needs_attention"
    work.confirm_bead(done["b"], by=WHO)
    stage.until(lambda: Bead.objects.get(pk=convoy.pk).status == "closed")
    assert stage.file("a.txt") == "a"


def test_s7_a_runs_git_directory_is_inside_its_workspace(stage: Stage) -> None:
    """Agents with a sandbox of their own (codex) may write what is below their workspace, and nothing else."""
    script = "import pathlib\ntold = {p: str(pathlib.Path(p).resolve()) for p in ('.', '.git')}\n"
    script += "told['common'] = subprocess.getoutput('git rev-parse --git-common-dir')\n"
    bead = play(stage, SAYS + script + KEEP + COMMIT + "call('gt_done')\n")
    answered(stage, bead)
    told = json.loads(stage.file("answer.json"))
    assert told[".git"] == f"{told['.']}/.git" and told["common"].strip() == ".git"
