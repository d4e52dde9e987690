"""The train over a real remote: gates that the test holds, lets pass and lets fail (semantics: Zuul's pipelines).

After every story the incident invariant: each commit on the target has exactly the tree that its green gates saw, and
no change that counts as merged is missing there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agents.models import Run
from beads import ledger
from refinery.core.keys import land_key
from refinery.decisions import merge_queue
from refinery.git.mirror import repo_of
from refinery.models import GateResult, Landing, Lane
from refinery.pages import boards
from refinery.store import landings
from refinery.tick import reconciler
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.railway import Train


@pytest.fixture
def train(stage: Stage) -> Iterator[Train]:
    """The usual train."""
    made = Train(stage)
    yield made
    made.incident()


def test_gates_of_all_cars_run_at_once_each_on_the_one_before_and_they_land_with_one_push(train: Train) -> None:
    a, b, c = train.submit("a", "b", "c")
    train.gating(a, b, c)
    assert [train.base(b), train.base(c)] == [train.sha(a), train.sha(b)]
    train.say(c, 0)
    train.say(b, 0)
    assert train.stage.sha() == train.begin  # nothing lands before what it stands on
    train.say(a, 0)
    train.merged(a, b, c)
    assert train.stage.log()[:3] == ["Change c.txt", "Change b.txt", "Change a.txt"]
    assert len(train.pushes.read_text().splitlines()) == 1
    assert Run.objects.filter(kind="gates").count() == 3


@pytest.mark.long
def test_cars_that_are_only_still_pushed_take_no_place_in_the_window(stage: Stage) -> None:
    train = Train(stage, window=2)
    stage.hold.add("land")
    a, b, c, d = train.submit("a", "b", "c", "d")
    train.gating(a, b)
    train.say(b, 0)  # green, but what it stands on may still fail: it keeps its place
    assert train.runs_of(c, d) == 0
    train.say(a, 0)
    train.gating(c, d)  # while nothing has landed yet
    assert [train.base(c), train.base(d)] == [train.sha(b), train.sha(c)] and stage.sha() == train.begin
    stage.hold.clear()
    train.say(c, 0)
    train.say(d, 0)
    train.merged(a, b, c, d)
    assert Run.objects.filter(kind="gates").count() == 4
    train.incident()


@pytest.mark.long
def test_one_car_is_built_ahead_and_gated_the_moment_that_there_is_a_place(stage: Stage) -> None:
    train = Train(stage, window=2)
    a, b, c, d = train.submit("a", "b", "c", "d")
    train.gating(a, b)
    stage.until(lambda: train.sha(c))
    assert train.base(c) == train.sha(b)
    assert train.now(d).admitted_at is None
    said = {x.subject: x.why for x in reconciler.explain(stage.town)}
    assert said[f"entry {c.pk}"].endswith("2 cars are gated before it")
    assert said["lane proj main"] == "2 of 2 cars, 1 built ahead; 1 more wait"
    train.say(a, 0)
    train.gating(b, c)
    built = train.sha(c)
    train.say(b, 1)  # what was built on it is built again
    stage.until(lambda: train.sha(c) not in ("", built))
    train.say(c, 0)
    train.say(d, 0)
    train.merged(a, c, d)
    train.incident()


def test_a_serial_lane_builds_nothing_ahead(stage: Stage) -> None:
    train = Train(stage, window=1)
    a, b = train.submit("a", "b")
    train.gating(a)
    assert train.now(b).build_no == 0
    train.say(a, 0)
    train.say(b, 0)
    train.merged(a, b)
    train.incident()


def test_the_head_fails_and_those_behind_are_built_and_gated_without_it(train: Train) -> None:
    a, b, c = train.submit("a", "b", "c")
    train.gating(a, b, c)
    old = train.sha(b)
    train.say(a, 1)
    assert train.stage.await_phase(a, "failed").reason == "gates_failed"
    train.gating(b, c)
    assert train.base(b) == train.begin and train.sha(b) != old
    train.say(b, 0)
    train.say(c, 0)
    train.merged(b, c)
    assert train.stage.log()[:2] == ["Change c.txt", "Change b.txt"]


def test_the_middle_fails_and_is_judged_only_when_what_it_stood_on_has_landed(train: Train) -> None:
    a, b, c = train.submit("a", "b", "c")
    train.gating(a, b, c)
    train.say(b, 1)
    train.stage.until(lambda: train.base(c) == train.sha(a) if train.sha(c) else False)  # c no longer waits for b
    assert train.now(b).state == "active"
    shown = boards.Board(train.stage.town).entry(train.now(b))
    assert "judged once what is ahead has landed" in shown.reason
    train.say(a, 0)
    train.merged(a)
    assert train.stage.await_phase(b, "failed").reason == "gates_failed"
    train.say(c, 0)
    train.merged(c)
    assert train.stage.log()[:2] == ["Change c.txt", "Change a.txt"]


def test_two_fail_and_who_failed_only_because_of_the_other_lands(train: Train) -> None:
    a, b = train.submit("a", "b")
    train.gating(a, b)
    train.say(b, 1)  # because of what a brings
    train.say(a, 1)
    assert train.stage.await_phase(a, "failed").reason == "gates_failed"
    train.say(b, 0)  # without a it is fine
    train.merged(b)
    assert train.now(b).rework_count == 0
    assert train.stage.log()[0] == "Change b.txt"


def test_two_fail_in_order_and_both_leave(train: Train) -> None:
    a, b, c = train.submit("a", "b", "c")
    train.gating(a, b, c)
    train.say(a, 1)
    train.stage.await_phase(a, "failed")
    train.say(b, 1)
    train.stage.await_phase(b, "failed")
    train.say(c, 0)
    train.merged(c)


def test_a_new_head_in_the_train_is_gated_anew_and_those_behind_stand_on_it(train: Train) -> None:
    a, b, c = train.submit("a", "b", "c")
    train.gating(a, b, c)
    head = train.stage.commit("b", {"b.txt": "better\n"}, force=True)
    train.say(a, 0)
    train.merged(a)
    newer = train.stage.submit("b")
    assert newer.pk != b.pk and newer.head_sha == head
    train.say(c, 0)
    train.say(newer, 0)
    train.merged(newer, c)
    assert train.stage.file("b.txt") == "better"


def test_an_outside_push_to_the_target_means_that_the_whole_train_is_built_and_gated_again(train: Train) -> None:
    a, b = train.submit("a", "b")
    train.gating(a, b)
    outside = train.stage.commit("main", {"outside.txt": "o\n"})
    train.say(b, 0)
    train.say(a, 0)
    train.gating(a, b)
    train.say(a, 0)
    train.say(b, 0)
    train.merged(a, b)
    assert train.stage.git("merge-base", "main", outside, cwd=train.stage.remote) == outside


def test_what_a_remote_refuses_together_is_offered_one_by_one_and_the_innocent_land(train: Train) -> None:
    hook = train.stage.remote / "hooks" / "pre-receive"
    hook.write_text(
        "#!/bin/sh\nwhile read old new ref; do\n"
        "if git ls-tree --name-only $new | grep -q '^b.txt$'; then echo 'no b here' >&2; exit 1; fi\ndone\n"
    )
    train.stage.remote.joinpath("hooks/pre-receive").chmod(0o644)
    a, b, c = train.submit("a", "b", "c")
    train.gating(a, b, c)
    hook.chmod(0o755)
    for entry in (c, b, a):
        train.say(entry, 0)
    train.merged(a)
    held = train.stage.await_phase(b, "awaiting_human")
    assert (held.held, "no b here" in held.held_text) == ("push_refused", True)
    train.say(c, 0)
    train.merged(c)
    assert train.stage.log()[:2] == ["Change c.txt", "Change a.txt"]


def test_m10_a_push_of_a_whole_train_whose_record_was_lost_is_recognised(train: Train) -> None:
    stage = train.stage
    a, b = train.submit("a", "b")
    train.gating(a, b)
    stage.hold.add("land")
    train.say(b, 0)
    train.say(a, 0)
    stage.until(lambda: Landing.objects.count() == 2)
    push = Landing.objects.get(push=None)
    landings.begin_push(push.pk)
    repo_of(stage.rig).land(str(stage.remote), "main", push.expected_sha, push.candidate.sha)
    stage.hold.clear()
    assert land_key(push.pk)
    train.merged(a, b)
    assert stage.log()[:2] == ["Change b.txt", "Change a.txt"]
    assert Landing.objects.count() == 2


def test_the_urgent_go_ahead_and_the_train_starts_again_behind(train: Train) -> None:
    a, b = train.submit("a", "b")
    train.gating(a, b)
    train.stage.commit("urgent", {"urgent.txt": "u\n"})
    urgent = merge_queue.submit(train.stage.rig, merge_queue.Submission("urgent", priority=0), by=WHO)[0]
    train.gating(urgent, a, b)
    assert [train.base(urgent), train.base(a)] == [train.begin, train.sha(urgent)]
    for entry in (urgent, a, b):
        train.say(entry, 0)
    train.merged(urgent, a, b)
    assert train.stage.log()[:3] == ["Change b.txt", "Change a.txt", "Change urgent.txt"]


def test_a_conflict_with_a_car_ahead_is_a_conflict_only_once_that_has_landed(train: Train) -> None:
    stage = train.stage
    a = train.submit("a")[0]
    stage.commit("rival", {"a.txt": "mine\n"})
    rival = stage.submit("rival")
    c = train.submit("c")[0]
    train.gating(a, c)
    assert train.base(c) == train.sha(a)  # nobody stands on what conflicts
    assert train.now(rival).state == "active"
    train.say(a, 1)
    stage.await_phase(a, "failed")
    train.say(rival, 0)  # without a there is no conflict
    train.say(c, 0)
    train.merged(rival, c)
    assert stage.file("a.txt") == "mine"


def test_the_window_halves_on_failure_and_grows_by_one_on_success(stage: Stage) -> None:
    train = Train(stage, window=4)
    cars = train.submit("a", "b", "c", "d", "e")
    train.gating(*cars[:4])
    assert train.runs_of(cars[4]) == 0
    train.say(cars[0], 1)
    stage.await_phase(cars[0], "failed")
    assert Lane.objects.get().window == 2
    train.gating(cars[1], cars[2])
    stage.until(lambda: train.runs_of(*cars[3:]) == 0)
    train.say(cars[1], 0)
    train.merged(cars[1])
    stage.until(lambda: Lane.objects.get().window == 3)
    train.gating(*cars[2:])
    for car in cars[2:]:
        train.say(car, 0)
    train.merged(*cars[2:])
    assert Lane.objects.get().window == 4
    train.incident()


def test_the_same_tree_is_gated_once(train: Train) -> None:
    stage = train.stage
    stage.commit("one", {"same.txt": "same\n"})
    stage.commit("two", {"same.txt": "same\n"}, start="main")
    lane = stage.submit("one")
    train.say(lane, 1)
    stage.await_phase(lane, "failed")
    again = stage.submit("two")
    found = stage.await_phase(again, "failed")
    assert found.reason == "gates_failed"
    assert Run.objects.filter(kind="gates", purpose="gates").count() == 1


def test_a_frozen_lane_admits_and_lands_nothing_and_says_why(train: Train) -> None:
    stage = train.stage
    a = train.submit("a")[0]
    train.gating(a)
    merge_queue.freeze(stage.rig, by=WHO, reason="release day")
    b = train.submit("b")[0]
    train.say(a, 0)
    stage.step()
    shown = boards.Board(stage.town)
    assert "release day" in shown.entry(train.now(b)).reason
    assert (train.now(a).state, stage.sha()) == ("active", train.begin)
    merge_queue.thaw(stage.rig, by=WHO)
    train.say(b, 0)
    train.merged(a, b)


@pytest.mark.long
def test_m12_m16_rivals_in_a_wide_train_all_land_and_nobody_is_lost(stage: Stage) -> None:
    stage.open(gates=["test -s signs.txt"], train={"window": 8})
    beads = [stage.sling(f"Sign {n}", f"sed -i '2s/.*/sign {n}/' signs.txt") for n in "abcde"]
    for bead in beads:
        assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert {f"sign {n}" for n in "abcde"} <= set(stage.file("signs.txt").splitlines())
    trees = stage.git("log", "--first-parent", "--format=%T", "-5", "main", cwd=stage.remote).split()
    assert set(trees) <= set(GateResult.objects.filter(outcome="pass").values_list("tree_sha", flat=True))


def test_a_parked_rig_still_lands_what_is_in_its_train(train: Train) -> None:
    a = train.submit("a")[0]
    train.gating(a)
    ledger.park_rig(train.stage.rig)
    train.say(a, 0)
    train.merged(a)
