"""Rows C of the scenarios, with real polecats and refineries in real worktrees."""

from __future__ import annotations

import datetime as dt

import pytest

from agents.models import Agent, Mail, Run
from beads.errors import Conflict
from beads.models import Bead, Convoy, Escalation
from refinery.core import stages
from refinery.decisions import towns, work
from refinery.models import ReviewEntry
from refinery.pages import boards
from tests.acceptance.conftest import WHO, Stage


def write(name: str, text: str = "x") -> str:
    return f"echo {text} > {name}"


def phase(stage: Stage, convoy: Convoy) -> str:
    return boards.Board(stage.town).convoy(Convoy.objects.select_related("bead").get(pk=convoy.pk))[0]


def reviewing(convoy: bool | None = None) -> int:
    """How many reviews are running at this moment."""
    runs = Run.objects.filter(kind="refinery", state="running")
    if convoy is not None:
        runs = runs.exclude(agent__convoy=None) if convoy else runs.filter(agent__convoy=None)
    return runs.count()


@pytest.mark.long
def test_c1_convoys_are_reviewed_side_by_side(stage: Stage) -> None:
    stage.open(gates=[], code_review=True, max_reviews=2)
    convoys = [stage.convoy(f"Convoy {n}", {k: (write(f"{n}{k}"), []) for k in "abc"}) for n in range(3)]
    stage.until(lambda: reviewing() == 6)  # nobody has been approved yet: two of each wait in parallel
    for convoy in convoys:
        assert Run.objects.filter(kind="refinery", agent__convoy=convoy).count() == 2
    stage.release.touch()
    for convoy in convoys:
        assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    assert {f"{n}{k}" for n in range(3) for k in "abc"} <= set(
        stage.git("ls-tree", "--name-only", "main", cwd=stage.remote).split()
    )


def spans() -> list[tuple[dt.datetime, dt.datetime]]:
    """When each review began and when it ended."""
    found = Run.objects.filter(purpose="review", outcome="done", agent__convoy__isnull=False)
    return [(r.claimed_at, r.ended_at) for r in found if r.claimed_at and r.ended_at]


def at_once(found: list[tuple[dt.datetime, dt.datetime]]) -> int:
    """The most of these at one moment."""
    return max(sum(1 for begin, end in found if begin <= moment < end) for moment, _ in found)


@pytest.mark.long
@pytest.mark.parametrize(("most", "expected"), [(1, 1), (3, 3)])
def test_six_beads_of_one_convoy_are_reviewed_by_one_agent_as_many_at_once_as_may_be(
    stage: Stage, most: int, expected: int
) -> None:
    stage.open(gates=[], code_review=True, max_reviews=most)
    convoy = stage.convoy("Six", {f"b{n}": (write(f"b{n}"), []) for n in range(6)})
    stage.until(lambda: ReviewEntry.objects.count() == 6 and reviewing() == expected)  # nobody has been approved yet
    for _ in range(3):
        stage.step()
    assert reviewing() == expected
    stage.release.touch()
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    found = spans()
    assert (len(found), at_once(found)) == (6, expected)
    assert Agent.objects.filter(role="refinery", convoy=convoy).count() == 1
    assert {f"b{n}" for n in range(6)} <= set(stage.git("ls-tree", "--name-only", "main", cwd=stage.remote).split())


def test_c1_a_limit_of_one_serialises(stage: Stage) -> None:
    stage.open(gates=[], code_review=True, max_convoy_concurrency=1)
    convoys = [stage.convoy(f"Convoy {n}", {"a": (write(f"{n}a"), [])}) for n in range(2)]
    stage.until(lambda: ReviewEntry.objects.count() == 2 and reviewing() == 1)
    stage.step()
    assert reviewing() == 1
    assert ReviewEntry.objects.filter(admitted_at=None).count() == 1
    stage.release.touch()
    for convoy in convoys:
        assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"


@pytest.mark.long
def test_c2_three_convoy_refineries_and_the_rig_refinery_work_at_once(stage: Stage) -> None:
    stage.open(gates=[], code_review=True, max_reviews=1)
    convoys = [stage.convoy(f"Convoy {n}", {"a": (write(f"{n}a"), [])}) for n in range(4)]
    alone = stage.sling("Alone", write("alone"))
    stage.until(lambda: ReviewEntry.objects.count() == 5 and reviewing() == 4)
    assert reviewing(convoy=True) == 3
    assert reviewing(convoy=False) == 1
    assert ReviewEntry.objects.filter(state="active", admitted_at=None).count() == 1
    stage.release.touch()
    for bead in [alone, *(c.bead for c in convoys)]:
        assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert Agent.objects.filter(role="refinery", convoy__isnull=False).count() == 4
    stage.until(lambda: not Agent.objects.filter(role="refinery", convoy__isnull=False, retired_at=None).exists())


@pytest.mark.long
def test_c3_a_convoy_with_a_failed_bead_does_not_land_until_it_is_retried_or_dropped(stage: Stage) -> None:
    stage.open()
    stage.rig.refresh_from_db()
    convoy = stage.convoy("Mixed", {"good": (write("good"), []), "bad": ("exit 1", [])})
    bad = convoy.beads.get(plan_key="bad")
    stage.await_bead(bad, "failed")
    stage.until(
        lambda: phase(stage, convoy) == "needs_attention" and convoy.beads.get(plan_key="good").status == "closed"
    )
    assert not ReviewEntry.objects.filter(kind="landing").exists()
    assert Escalation.objects.filter(about=convoy.bead, closed_at=None).exists()
    work.retry_bead(Bead.objects.get(pk=bad.pk), by=WHO)
    stage.until(lambda: Bead.objects.get(pk=bad.pk).status != "failed")
    work.cancel_bead(Bead.objects.get(pk=bad.pk), by=WHO, reason="dropped")
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    assert Bead.objects.get(pk=bad.pk).resolution == "cancelled"
    assert stage.file("good") == "x"


def test_c4_it_lands_once_with_one_message(stage: Stage) -> None:
    stage.open()
    convoy = stage.convoy("Both", {"a": (write("a"), []), "b": (write("b"), [])})
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    convoy.refresh_from_db()
    assert convoy.landed_sha == stage.sha()
    assert Mail.objects.filter(kind="CONVOY_LANDED").count() == 1
    assert ReviewEntry.objects.filter(kind="landing").count() == 1
    stage.until(lambda: "convoy/" not in stage.git("branch", "--list", cwd=stage.remote))


def test_c5_a_landing_that_conflicts_with_a_moved_default_branch_is_resolved_and_lands(stage: Stage) -> None:
    stage.open()
    convoy = stage.convoy("Late", {"a": ("sed -i '2s/.*/convoy/' signs.txt", [])})
    stage.until(lambda: convoy.branches.get().base_sha)
    stage.commit("main", {"signs.txt": "one\noutside\nthree\n"})
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    assert Bead.objects.filter(purpose="conflict", status="closed").count() == 1
    assert {"convoy", "outside"} <= set(stage.file("signs.txt").splitlines())


def test_c6_review_and_merge_takes_each_bead_through_the_rig_refinery(stage: Stage) -> None:
    stage.open(gates=["true"], code_review=True)
    stage.release.touch()
    beads: dict[str, tuple[str, list[str]]] = {"a": (write("a"), []), "b": (write("b"), [])}
    convoy = stage.convoy("Each", beads, "review-and-merge")
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "done"
    assert {e.target for e in ReviewEntry.objects.all()} == {"main"}
    assert not Agent.objects.filter(role="refinery", convoy__isnull=False).exists()
    assert sorted(stage.log()[:2]) == ["a", "b"]


def test_c7_a_staged_convoy_waits_and_does_not_start_on_a_parked_rig(stage: Stage) -> None:
    stage.open()
    convoy = stage.convoy("Staged", {"a": (write("a"), [])}, staged=True)
    stage.step()
    assert not Run.objects.exists()
    assert phase(stage, convoy) == "staged"
    towns.park(stage.rig, by=WHO)
    convoy = Convoy.objects.select_related("rig", "bead").get(pk=convoy.pk)
    with pytest.raises(Conflict, match="parked"):
        work.start_convoy(convoy, by=WHO)
    stage.step()
    assert phase(stage, convoy) == "staged"
    towns.unpark(stage.rig, by=WHO)
    work.start_convoy(Convoy.objects.select_related("rig", "bead").get(pk=convoy.pk), by=WHO)
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"


def test_c8_a_beads_worktree_holds_the_merged_work_of_its_blockers(stage: Stage) -> None:
    stage.open()
    plan = {"first": (write("first", "1"), []), "second": ('test "$(cat first)" = 1 && cp first second', ["first"])}
    convoy = stage.convoy("Waves", plan)
    assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    assert stage.file("second") == "1"


def test_c9_a_convoy_closed_midway_stops_its_runs_and_keeps_its_branch(stage: Stage) -> None:
    stage.open(gates=[], code_review=True)
    convoy = stage.convoy("Midway", {"a": (write("a"), []), "b": (write("b"), ["a"])})
    stage.until(lambda: reviewing() == 1)
    work.close_convoy(Convoy.objects.select_related("bead").get(pk=convoy.pk), by=WHO)
    assert stage.await_bead(convoy.bead, "closed").resolution == "cancelled"
    stage.until(lambda: not Run.objects.exclude(state="ended").exists())
    assert {b.resolution for b in convoy.beads.all()} == {"cancelled"}
    assert {e.reason for e in ReviewEntry.objects.all()} == {"cancelled"}
    assert stage.sha(convoy.branches.get().name)
    assert stage.log() == ["Change README.md, signs.txt"]


def test_a_convoy_whose_landing_changes_nothing_fails_and_says_so(stage: Stage) -> None:
    """A person says of its only bead that nothing was needed: so nothing is there to land."""
    stage.open()
    convoy = stage.convoy("Empty", {"a": ("true", [])})
    bead = stage.await_bead(Bead.objects.get(convoy=convoy), "closed", "failed")
    assert (bead.status, bead.resolution) == ("failed", "nothing_changed")
    work.confirm_bead(bead, by=WHO)
    bead = stage.await_bead(convoy.bead, "closed", "failed")
    assert bead.status == "failed"
    assert "nothing to land" in bead.reason


def test_a_reviewers_rework_reaches_the_polecat_and_then_lands(stage: Stage) -> None:
    stage.open(code_review=True)
    stage.release.touch()
    bead = stage.sling("Sloppy", "echo 'reject: say please' > a.txt\n---rework---\necho please > a.txt")
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    entry = ReviewEntry.objects.get(source=bead)
    assert [v.decision for v in entry.verdicts.all()] == ["request_changes", "approve"]
    assert "a.txt:1" in Mail.objects.get(kind="REWORK_REQUEST").body
    assert stages.phase(stages.Stage.GREEN, admitted=True) == "landing"
    body = stage.git("log", "-1", "--format=%B", "main", cwd=stage.remote)
    assert f"Bead: {bead.pk}" in body
    assert "Reviewed-by: proj-refinery" in body
