"""Batches over a real remote: one run of the gates for several entries, bisection, nobody innocent punished.

Semantics: bors' batches. After every story the incident invariant: each first-parent commit on the target has exactly
the tree that its green gates saw, and no change that counts as merged is missing there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.utils import timezone

from agents.models import Run
from beads.models import BeadEvent
from refinery.core.keys import land_key
from refinery.models import GateResult, Landing, ReviewEntry
from refinery.pages import boards
from refinery.tick import invariants, reconciler
from tests.acceptance.conftest import Stage
from tests.acceptance.railway import HELD, Train
from tests.acceptance.test_installation import until as wait_until

BAD = "! ls bad* 2>/dev/null"  # it fails with any of these


@pytest.fixture
def batch(stage: Stage) -> Iterator[Train]:
    """A lane that batches four."""
    made = Train(stage, batch={"max": 4, "wait": "1h"})
    yield made
    made.incident()
    assert not invariants.look(stage.town, timezone.now())


def gate_runs() -> int:
    return Run.objects.filter(kind="gates", purpose="gates").count()


def parents(stage: Stage, commit: str) -> list[str]:
    return stage.git("show", "-s", "--format=%P", commit, cwd=stage.remote).split()


def test_a_batch_is_gated_once_and_lands_as_one_commit_of_exactly_the_gated_tree(batch: Train) -> None:
    a, b, c, d = batch.submit("a", "b", "c", "d")
    batch.gating(d)
    assert "gated in one batch with" in batch.told(b)
    shown = boards.entry_detail(boards.Board(batch.stage.town), batch.now(b))["batch"]
    assert shown is not None and shown["entries"] == [e.pk for e in (a, b, c, d)] and "batch of 4" in shown["why"]
    batch.say(d, 0)
    batch.merged(a, b, c, d)
    assert gate_runs() == 1
    stage = batch.stage
    assert stage.log()[:2] == ["Merge a batch of 4 changes", "Change README.md, signs.txt"]
    first, second = parents(stage, stage.sha())
    assert first == batch.begin
    inside = stage.git("log", "--first-parent", "--format=%s", f"{first}..{second}", cwd=stage.remote).splitlines()
    assert inside == ["Change d.txt", "Change c.txt", "Change b.txt", "Change a.txt"]
    assert len(batch.pushes.read_text().splitlines()) == 1
    assert {e.merge_sha for e in (batch.now(x) for x in (a, b, c, d))} <= set(
        stage.git("rev-list", "main", cwd=stage.remote).split()
    )
    why = BeadEvent.objects.get(bead_id=a.pk, kind="batched").reason
    assert "batch of 4" in why and "refinery.batch.max is 4" in why


def test_a_batch_that_is_not_full_waits_for_company_and_then_goes(stage: Stage) -> None:
    batch = Train(stage, batch={"max": 4, "wait": "3s"})
    a, b = batch.submit("a", "b")
    stage.step()
    if batch.now(a).admitted_at is None:
        lane = next(d for d in reconciler.explain(stage.town) if d.subject.startswith("lane"))
        assert lane.rule == "gather" and "gather for a batch until" in lane.why
    batch.gating(b)
    batch.say(b, 0)
    batch.merged(a, b)
    assert gate_runs() == 1
    batch.incident()


def test_a_red_batch_is_cut_in_half_the_good_half_lands_and_only_the_guilty_is_blamed(stage: Stage) -> None:
    batch = Train(stage, gates=[BAD], batch={"max": 4, "wait": "1h"})
    a, b, bad, d = batch.submit("a", "b", "bad", "d")
    batch.merged(a, b, d)
    assert stage.await_phase(bad, "failed").reason == "gates_failed"
    assert [batch.now(e).rework_count for e in (a, b, d)] == [0, 0, 0]
    assert "bad.txt" not in stage.git("ls-tree", "--name-only", "main", cwd=stage.remote)
    blamed = GateResult.objects.filter(candidate__entry=bad, outcome="fail", tree_sha=batch.blamed(bad))
    assert blamed.count() >= 2  # a single is blamed only for what fails twice
    cut = BeadEvent.objects.filter(bead_id=d.pk, kind="batch_cut").first()
    assert cut is not None and "cut in half" in cut.reason
    batch.incident()


def test_a_pair_that_fails_only_together_is_found_and_one_of_the_two_lands(stage: Stage) -> None:
    batch = Train(stage, gates=["! test -e left.txt || ! test -e right.txt"], batch={"max": 4, "wait": "1h"})
    left, b, right, d = batch.submit("left", "b", "right", "d")
    batch.merged(b, d)
    ends = {batch.stage.await_phase(e, "merged", "failed").state for e in (left, right)}
    assert ends == {"merged", "failed"}
    batch.incident()


@pytest.mark.long
def test_a_batch_is_cut_in_the_very_tick_that_admits_the_next_one(batch: Train) -> None:
    a, b, c, d = batch.submit("a", "b", "c", "d")
    ended = Run.objects.filter(pk__in=batch.word(d, 1), exited_at__isnull=False)
    wait_until(ended.exists)  # nobody ticks meanwhile
    e, f, g, h = batch.submit("e", "f", "g", "h")
    report = reconciler.tick(batch.stage.town)
    assert report.failed == report.lost_races == 0
    assert {"Regroup", "Admit"} <= set(report.actions)
    numbers = [batch.now(x).batch for x in (a, b, c, d, e, f, g, h)]
    assert numbers == [numbers[0]] * 2 + [numbers[2]] * 2 + [numbers[4]] * 4 and len(set(numbers)) == 3
    batch.say(b, 0)
    batch.merged(a, b)
    for single in (c, d):  # known red as it stood: each by itself
        batch.say(single, 0)
    batch.say(h, 0)
    batch.merged(c, d, e, f, g, h)


@pytest.mark.long
def test_a_flaky_failure_of_a_batch_costs_nobody_anything(batch: Train) -> None:
    a, b, c, d = batch.submit("a", "b", "c", "d")
    batch.say(d, 1)  # by chance
    batch.gating(b)
    batch.say(b, 0)
    batch.merged(a, b)
    batch.say(c, 0)  # the other half is known red as it stands: cut once more, then each by itself
    batch.say(d, 0)
    batch.merged(c, d)
    assert [batch.now(e).rework_count for e in (a, b, c, d)] == [0, 0, 0, 0]


def test_a_single_that_fails_once_is_gated_again_before_it_is_blamed(stage: Stage) -> None:
    batch = Train(stage, batch={"max": 4, "wait": "1ms"})
    (a,) = batch.submit("a")
    batch.say(a, 1)
    batch.gating(a)
    assert batch.now(a).state == "active"
    batch.say(a, 0)
    batch.merged(a)
    batch.incident()


def test_trains_of_batches_stand_on_one_another(stage: Stage) -> None:
    batch = Train(stage, window=2, batch={"max": 2, "wait": "1h"})
    a, b, c, d, e, f = batch.submit("a", "b", "c", "d", "e", "f")
    batch.gating(b, d)
    assert batch.base(c) == batch.sha(b)
    assert [batch.now(x).admitted_at for x in (e, f)] == [None, None]  # two batches are two cars
    batch.say(d, 0)
    batch.say(b, 0)
    batch.merged(a, b, c, d)
    assert stage.log()[:2] == ["Merge a batch of 2 changes"] * 2
    batch.say(f, 0)
    batch.merged(e, f)
    assert gate_runs() == 3
    batch.incident()


def test_a_new_head_of_a_member_takes_it_out_and_the_rest_is_gated_without_it(batch: Train) -> None:
    a, b, c, d = batch.submit("a", "b", "c", "d")
    batch.gating(d)
    batch.stage.commit("b", {"b.txt": "better\n"}, force=True)
    newer = batch.stage.submit("b")
    batch.gating(d)
    batch.say(d, 0)
    batch.merged(a, c, d)
    assert batch.now(b).reason == "superseded" and batch.now(newer).state == "active"
    assert "b.txt" not in batch.stage.git("ls-tree", "--name-only", "main", cwd=batch.stage.remote)


def test_a_branch_that_moves_while_its_batch_is_pushed_keeps_the_whole_batch_back(batch: Train) -> None:
    stage = batch.stage
    a, b, c, d = batch.submit("a", "b", "c", "d")
    batch.gating(d)
    stage.hold.add("land")
    batch.say(d, 0)
    stage.until(lambda: Landing.objects.count() == 4)
    stage.commit("c", {"c.txt": "moved\n"}, force=True)
    stage.hold.clear()
    assert land_key(1)
    stage.until(lambda: batch.now(c).head_sha != c.head_sha)  # the new head is taken in, the batch is gated anew
    assert stage.sha() == batch.begin
    batch.gating(d)
    batch.say(d, 0)
    batch.merged(a, b, c, d)
    assert stage.file("c.txt") == "moved"


def test_a_member_that_conflicts_falls_out_and_the_others_go_on(stage: Stage) -> None:
    batch = Train(stage, gates=["true"], batch={"max": 3, "wait": "1h"})
    (a,) = batch.submit("a")
    stage.commit("rival", {"a.txt": "mine\n"})
    rival = stage.submit("rival")
    (c,) = batch.submit("c")
    batch.merged(a, c)
    assert stage.await_phase(rival, "failed").reason == "conflict"
    batch.incident()


def test_the_last_of_a_batch_conflicts_while_what_is_ahead_is_still_gated(stage: Stage) -> None:
    batch = Train(stage, window=2, batch={"max": 2, "wait": "1h"})
    a, b, c = batch.submit("a", "b", "c")
    stage.commit("rival", {"c.txt": "mine\n"})
    rival = stage.submit("rival")
    batch.gating(b, c)  # c is gated by itself: who conflicts with it is not in its way
    builds = [batch.now(e).build_no for e in (c, rival)]
    for _ in range(20):
        stage.step()
    assert [batch.now(e).build_no for e in (c, rival)] == builds  # and nobody is built to and fro
    batch.say(c, 0)
    batch.say(b, 0)
    batch.merged(a, b, c)
    assert stage.await_phase(rival, "failed").reason == "conflict"
    batch.incident()


def test_gates_of_an_entry_alone_come_before_its_turn_and_the_same_tree_is_not_gated_twice(stage: Stage) -> None:
    gate = {"name": "all", "run": HELD, "when": "both"}
    train = Train(stage, window=4, gates=[gate])
    a, b = train.submit("a", "b")
    train.gating(a, b)
    assert train.base(a) == train.base(b) == train.begin  # each by itself
    assert [train.now(x).admitted_at for x in (a, b)] == [None, None]
    train.say(b, 1)
    assert stage.await_phase(b, "failed").reason == "gates_failed"  # its own fault: nobody is ahead of it
    train.say(a, 0)
    train.merged(a)
    assert gate_runs() == 2
    train.incident()


def test_what_passed_alone_is_gated_again_on_what_lands(stage: Stage) -> None:
    gate = {"name": "all", "run": "! test -e left.txt || ! test -e right.txt", "when": "both"}
    train = Train(stage, window=4, gates=[gate])
    left, right = train.submit("left", "right")
    stage.until(lambda: "active" not in {train.now(x).state for x in (left, right)})
    assert {train.now(x).state for x in (left, right)} == {"merged", "failed"}
    assert all(GateResult.objects.filter(entry=x, outcome="pass", candidate__on=None).exists() for x in (left, right))
    train.incident()


def test_a_gate_that_only_entries_need_does_not_guard_what_lands_and_is_refused_alone(stage: Stage) -> None:
    from beads import config

    told = config.usable({"refinery": {"gates": [{"name": "x", "run": "true", "when": "entry"}]}}, {})[1]
    assert told and "nothing would check what lands" in told[0]
    assert ReviewEntry.objects.count() == 0
