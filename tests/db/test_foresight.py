"""Who stands on whom lands after it; who would conflict waits; git is asked once, and again only for news."""

from __future__ import annotations

from typing import Any

import pytest

from beads import inbox
from beads.actors import Actor
from beads.models import Bead, Effect, Fact
from refinery.decisions import merge_queue, work
from refinery.models import Forecast, Landing, ReviewEntry, Stack
from refinery.pages import boards
from refinery.store import forecasts
from refinery.tick import reconciler
from tests.db.conftest import SHA, Place

WHO = Actor("test", "alice")
LOW, HIGH, OTHER = SHA["a"], SHA["d"], SHA["e"]


def train(*entries: ReviewEntry) -> list[bool]:
    """Who is a car."""
    found = dict(ReviewEntry.objects.values_list("pk", "admitted_at"))
    return [found[e.pk] is not None for e in entries]


def why(place: Place, entry: ReviewEntry) -> str:
    """What the pages say."""
    return boards.Board(place.town).entry(ReviewEntry.objects.select_related("bead").get(pk=entry.pk)).reason


@pytest.fixture
def lane(db: None) -> Place:
    """A lane of one car, whose forecasts the test answers."""
    place = Place(train={"window": 1})
    place.foresees = False
    return place


def test_git_is_asked_once_and_again_only_for_new_heads_or_a_moved_target(lane: Place) -> None:
    lane.entry("low", LOW)
    lane.tick()
    assert not lane.effects("foresee")  # alone: nothing to compare
    lane.entry("high", HIGH)
    lane.tick()
    lane.entry("other", OTHER)
    for _ in range(3):
        lane.tick()
    assert len(lane.effects("foresee")) == 1  # one at a time
    lane.foreseen()
    lane.tick()
    assert len(lane.effects("foresee")) == 2
    assert Forecast.objects.get().asked == [LOW, HIGH, OTHER]
    lane.foreseen()
    for _ in range(3):
        lane.later(minutes=1)
        lane.tick()
    assert len(lane.effects("foresee")) == 2
    lane.built(ReviewEntry.objects.get(branch="low"), base=SHA["9"])  # somebody pushed to the target
    assert len(lane.effects("foresee")) == 3


def test_a_lost_or_doubled_answer_changes_nothing(lane: Place) -> None:
    lane.entry("low", LOW)
    lane.entry("high", HIGH)
    lane.tick()
    Effect.objects.filter(kind="foresee").update(state="done")  # done, and its answer lost
    lane.tick()
    assert [e.state for e in lane.effects("foresee")] == ["done", "pending"]
    old = {"number": 1, "base": SHA["b"], "heads": [LOW, HIGH], "stacks": [[HIGH, LOW]]}
    for _ in range(2):
        inbox.record(lane.town, "lane.foreseen", str(Forecast.objects.get().pk), old)  # the first answer, late
        lane.tick()
    assert (Stack.objects.count(), Forecast.objects.get().answered) == (1, 0)  # what git has shown stays shown
    lane.foreseen()
    lane.tick()
    assert (Stack.objects.count(), Forecast.objects.get().answered) == (1, 2)
    assert not Fact.objects.filter(quarantined_at__isnull=False).exists()


def test_a_question_that_git_cannot_answer_is_not_repeated_until_there_is_news(lane: Place) -> None:
    lane.entry("low", LOW)
    lane.entry("high", HIGH)
    lane.tick()
    Effect.objects.filter(kind="foresee").update(state="failed", error="no such remote")
    for _ in range(3):
        lane.later(minutes=5)
        lane.tick()
    assert len(lane.effects("foresee")) == 1
    lane.entry("other", OTHER)
    lane.tick()
    assert len(lane.effects("foresee")) == 2


def test_a_stack_lands_bottom_up_whatever_the_priorities(db: None) -> None:
    place = Place(train={"window": 2})
    place.foresees = False
    high = place.entry("high", HIGH, priority=0)
    low = place.entry("low", LOW, priority=4)
    plain, more = place.entry("plain", OTHER, priority=1), place.entry("more", SHA["7"], priority=1)
    place.tick()
    assert train(high, low, plain, more) == [True, False, True, True]  # git was not asked yet
    place.foreseen([(HIGH, LOW)])
    place.tick()
    assert train(high, low, plain, more) == [True, True, True, False]
    high.refresh_from_db()
    low.refresh_from_db()
    assert (high.slot or 0) > (low.slot or 0)
    assert high.attempts == 1  # having left did not count
    rows = [boards.entry_data(boards.Board(place.town), e) for e in ReviewEntry.objects.select_related("bead", "rig")]
    assert {r["branch"]: r["stands_on"] for r in rows} == {"high": [low.pk], "low": [], "plain": [], "more": []}


def test_the_upper_waits_in_words_while_the_lower_waits_for_people(db: None) -> None:
    place = Place(auto_merge=False, gates=[], allow_no_gates=True)
    place.foresees = False
    low, high = place.entry("low", LOW), place.entry("high", HIGH)
    place.tick()
    place.foreseen([(HIGH, LOW)])
    place.tick()
    place.built(low)
    shown = boards.Board(place.town).entry(ReviewEntry.objects.get(pk=high.pk))
    assert (shown.phase, f"stands on {low.pk}" in shown.reason) == ("blocked", True)


def test_what_is_not_compared_yet_does_not_land_ahead(db: None) -> None:
    place = Place(gates=[], allow_no_gates=True)
    place.foresees = False
    high = place.entry("high", HIGH)
    low = place.entry("low", LOW)
    place.tick()
    place.built(high)
    assert not Landing.objects.exists()
    assert "git is asked" in next(d.why for d in _explain(place) if d.subject == f"entry {high.pk}")
    place.foreseen([(HIGH, LOW)])
    place.tick()
    place.built(low)
    assert Landing.objects.get().entry_id == low.pk


def _explain(place: Place) -> list[Any]:
    return reconciler.explain(place.town, place.now)


def test_when_the_lower_leaves_for_good_so_does_the_upper_and_one_step_brings_it_back(lane: Place) -> None:
    low, high = lane.entry("low", LOW), lane.entry("high", HIGH)
    lane.later(minutes=1)
    lane.tick()
    lane.foreseen([(HIGH, LOW)])
    lane.tick()
    merge_queue.reject(low, by=WHO, reason="no")
    lane.tick()
    high.refresh_from_db()
    assert (high.state, high.reason) == ("failed", "stacked_on_failed")
    assert low.pk in high.reason_text
    merge_queue.retry_entry(high, by=WHO)
    lane.tick()
    assert train(high) == [True]


def test_a_fix_on_top_of_what_failed_before_is_no_stack(lane: Place) -> None:
    low = lane.entry("low", LOW)
    lane.tick()
    merge_queue.reject(low, by=WHO, reason="no")
    lane.tick()
    lane.later(minutes=-5)  # rows are made by the real clock: it failed before these were made
    ReviewEntry.objects.filter(pk=low.pk).update(closed_at=lane.now)
    high = lane.entry("high", HIGH)
    Stack.objects.create(rig=lane.rig, upper=HIGH, lower=LOW)
    lane.later(minutes=10)
    lane.tick()
    assert train(high) == [True]


def test_a_new_head_of_the_lower_is_looked_at_again(lane: Place) -> None:
    low, high = lane.entry("low", LOW), lane.entry("high", HIGH)
    lane.tick()
    lane.foreseen([(HIGH, LOW)])
    lane.tick()
    assert "stands on" in why(lane, high)
    newer = lane.entry("low", SHA["7"])
    lane.tick()
    assert len(lane.effects("foresee")) == 2
    lane.foreseen()
    lane.tick()
    assert ReviewEntry.objects.get(pk=low.pk).reason == "superseded"
    assert ReviewEntry.objects.get(pk=high.pk).state == "active"
    assert newer.pk not in why(lane, high)


def test_a_dependency_goes_before_a_stack_that_contradicts_it(lane: Place) -> None:
    upper = lane.bead("Upper")
    low = lane.entry("low", LOW, lane.bead("Lower", upper))
    high = lane.entry("high", HIGH, upper)
    lane.tick()
    lane.foreseen([(HIGH, LOW)])
    lane.tick()
    assert train(low, high) == [False, True]


def test_the_second_of_a_conflicting_pair_waits_while_the_first_is_in_the_train(db: None) -> None:
    place = Place(train={"window": 8})
    place.foresees = False
    first = place.entry("first", LOW)
    place.tick()
    merge_queue.freeze(place.rig, by=WHO, reason="until git was asked")
    second, third = place.entry("second", HIGH), place.entry("third", OTHER)
    place.tick()
    place.foreseen(clashes=[(LOW, HIGH, "signs.txt"), (HIGH, OTHER, "signs.txt"), (OTHER, "", "x")])
    place.tick()
    merge_queue.thaw(place.rig, by=WHO)
    place.tick()
    assert train(first, second, third) == [True, False, False]
    assert f"would conflict with {first.pk}, which is in the train, in signs.txt" in why(place, second)
    assert f"would conflict with {second.pk}, which comes first" in why(place, third)  # nobody overtakes for ever
    (lane,) = boards.Board(place.town).lanes.values()
    told = {r["id"]: r["conflicts_with"] for r in (boards.view_data(boards.Board(place.town), v) for v in lane)}
    assert [c["id"] for c in told[third.pk]] == [second.pk, ""]
    urgent = place.entry("urgent", SHA["7"], priority=0)
    place.tick()
    place.foreseen(clashes=[(SHA["7"], LOW, "signs.txt")])
    place.tick()
    assert train(urgent, first, second) == [True, True, True]  # it goes ahead of its rival; nothing holds the second


def tasks() -> list[str]:
    """The titles of the tasks to resolve a conflict, in the order in which they were opened."""
    found = Bead.objects.filter(purpose="conflict").order_by("created_at")
    return [title.removeprefix("Resolve merge conflicts: ") for title in found.values_list("title", flat=True)]


def resolve(place: Place, entry: ReviewEntry, head: str) -> None:
    """A polecat has resolved the entry's conflict."""
    task = Bead.objects.get(purpose="conflict", title__endswith=entry.branch, status="in_progress")
    run, _ = place.running(bead=task)
    place.say(run, "run.done", summary="resolved", head_sha=head)
    place.exit(run, head=head)
    place.tick()
    entry.refresh_from_db()
    assert entry.head_sha == head


def test_of_those_that_conflict_with_the_target_one_at_a_time_is_resolved_and_landed(place: Place) -> None:
    a, b, c, other = (place.entry(name, SHA[name]) for name in "abce")
    place.tick()
    for entry in (a, b, c):
        place.conflicts(entry, "signs.txt")
    place.conflicts(other, "other.txt")
    assert tasks() == ["a", "e"]  # what does not touch the same place is nobody's rival
    assert train(a, b, c) == [False, False, False]
    for entry in (b, c):
        shown = boards.Board(place.town).entry(ReviewEntry.objects.select_related("bead").get(pk=entry.pk))
        assert shown.phase == "blocked"
        assert f"conflicts with main in signs.txt, and so did {a.pk}, which is being resolved" in shown.reason
        assert ReviewEntry.objects.get(pk=entry.pk).attempts == 0  # to have made room does not count
    resolve(place, a, SHA["1"])
    assert train(a, b, c) == [True, False, False]
    assert f"and so did {a.pk}, which comes first" in why(place, b)
    place.built(a)
    merge_queue.reject(a, by=WHO, reason="no")
    place.tick()
    assert train(b, c) == [True, True]  # nobody is in their way any more
    place.conflicts(b, "signs.txt", base=SHA["2"])
    place.conflicts(c, "signs.txt", base=SHA["2"])
    assert tasks() == ["a", "e", "b"]


def test_whoever_is_more_urgent_does_not_wait_until_a_rival_is_resolved(place: Place) -> None:
    slow = place.entry("slow", LOW, priority=3)
    place.tick()
    place.conflicts(slow, "signs.txt")
    urgent = place.entry("urgent", HIGH, priority=1)
    place.tick()
    place.conflicts(urgent, "signs.txt")
    assert tasks() == ["slow", "urgent"]


def test_whoever_is_waited_for_by_the_one_that_is_resolved_does_not_wait_for_it(place: Place) -> None:
    task, needed = place.bead("Work"), place.bead("Needed")
    first = place.entry("first", LOW, source=task)
    place.tick()
    place.conflicts(first, "signs.txt")
    work.block_bead(task, by=WHO, on=needed)
    place.tick()
    second = place.entry("second", HIGH, source=needed)
    place.tick()
    place.conflicts(second, "signs.txt")
    assert tasks() == ["first", "second"]


def test_a_conflict_by_itself_is_of_the_present_target(db: None) -> None:
    place = Place(gates=[{"name": "unit", "run": "true", "when": "both"}])
    first, second = place.entry("first", LOW), place.entry("second", HIGH)
    place.tick()
    place.conflicts(first, "signs.txt")
    place.conflicts(second, "signs.txt")
    assert tasks() == ["first"]
    resolve(place, first, SHA["1"])
    place.built(first, base=SHA["2"])  # somebody else has pushed to the target
    merge_queue.reject(first, by=WHO, reason="no")
    place.tick()
    second.refresh_from_db()
    assert (tasks(), second.build_no) == (["first"], 2)  # it may not conflict any more
    place.conflicts(second, "signs.txt", base=SHA["2"])
    assert tasks() == ["first", "second"]


def test_what_nobody_needs_any_more_is_forgotten(lane: Place) -> None:
    low, high = lane.entry("low", LOW), lane.entry("high", HIGH)
    lane.tick()
    lane.foreseen([(HIGH, LOW)])
    lane.tick()
    assert forecasts.prune(lane.rig) == 0
    for entry in (low, high):
        merge_queue.reject(entry, by=WHO, reason="no")
    lane.tick()
    assert forecasts.prune(lane.rig) == 2
