"""What is finished goes after its time, from disk and remote; what has not landed stays."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.utils import timezone

from agents.models import Run
from agents.runtime import gitcmd, mirrors
from beads.models import Bead, Effect, Fact
from refinery.executor import housekeeping
from refinery.git.mirror import repo_of
from tests.acceptance.conftest import Stage


@pytest.mark.long
def test_finished_work_leaves_nothing_behind_and_unlanded_work_stays(stage: Stage) -> None:
    stage.open(git={"publish": "always"})
    twice = "test -f one.txt || { echo 1 > one.txt; git add -A; git commit -qm one; exit 7; }; echo 2 > two.txt"
    landed = stage.await_bead(stage.sling("Lands at the second attempt", twice), "closed", "failed")
    lost = stage.sling("Never lands", "echo 3 > three.txt; git add -A; git commit -qm three; exit 7")
    lost = stage.await_bead(lost, "closed", "failed")
    assert (landed.resolution, lost.resolution) == ("merged", "gave_up")
    runs = list(Run.objects.filter(bead=landed))
    branches = stage.git("branch", "--list", "gt/*", cwd=stage.remote)
    assert runs[0].branch in branches

    def logs() -> set[str]:
        return {p.name for p in (Path(stage.runner.home) / "runs").iterdir()}

    assert {r.pk for r in runs} <= logs()
    housekeeping.collect(timezone.now())  # nothing is old enough
    assert stage.git("branch", "--list", "gt/*", cwd=stage.remote) == branches
    facts = Fact.objects.count()

    later = timezone.now() + dt.timedelta(days=100)
    gone = housekeeping.collect(later)
    assert gone["branches"] >= 1 and gone["facts"] == facts and gone["effects"] > 0
    left = stage.git("branch", "--list", "--format=%(refname:short)", "gt/*", cwd=stage.remote).splitlines()
    assert left and all(f"/{lost.pk}/" in name for name in left)
    assert not {r.pk for r in runs} & logs()
    kept = ["--format=%(refname)", "refs/gastown/runs", "refs/gastown/candidates"]
    refs = stage.git("for-each-ref", *kept, cwd=repo_of(stage.rig).path)
    assert {r.pk for r in Run.objects.filter(bead=lost, kind="polecat")} == {x.rpartition("/")[2] for x in refs.split()}
    assert not Effect.objects.filter(state="done").exists()
    assert Bead.objects.get(pk=landed.pk).status == "closed"
    assert housekeeping.collect(later)["branches"] == 0


@pytest.mark.long
def test_what_piles_up_in_the_mirror_is_packed_and_work_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.open(agents=False)
    stage.commit("before", {"before.txt": "1\n"})
    before = stage.await_phase(stage.submit("before"), "merged")
    stage.commit("after", {"after.txt": "2\n"})
    stage.hold.add("land")
    after = stage.submit("after")
    stage.until(lambda: Effect.objects.filter(kind="land", state="pending").exists())
    repo = repo_of(stage.rig)
    young = b"nothing reaches this, and it is young"
    gitcmd.run_git(["hash-object", "-w", "--stdin"], cwd=repo.path, input=young)
    assert housekeeping.collect(timezone.now())["loose objects"] == 0
    monkeypatch.setattr(mirrors, "LOOSE", 3)
    assert housekeeping.collect(timezone.now())["loose objects"] > 3
    assert stage.git("count-objects", cwd=repo.path).split()[0] == "0"
    assert repo.has(before.merge_sha) and repo.known_branch("main") is not None
    stage.hold.clear()
    stage.await_phase(after, "merged")
    assert stage.git("show", "main:after.txt", cwd=stage.remote) == "2"
