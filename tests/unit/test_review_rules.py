"""Several reviews of one lane at once: a world goes in, who is reviewed comes out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from refinery.core.actions import Decision, StartRun
from refinery.core.beadviews import RunView
from refinery.core.entryviews import EntryView
from refinery.core.rules import plan
from refinery.core.trains import couple
from refinery.core.world import RigView, World
from tests.unit.test_rules import BUILT, ENTRY, NOW, config, world


def rig(**refinery: Any) -> RigView:
    """A rig without gates, whose refinery reviews."""
    return RigView(1, "proj", "main", config(gates=[], train={"window": 8}, **refinery))


def cars(count: int, target: str = "main", **more: Any) -> list[EntryView]:
    """So many cars of a lane, built on one another, the first in front."""
    made = []
    for n in range(count):
        key, on = f"{target}-{n}", f"{target}-{n - 1}"
        number = 100 * len(target) + n
        built = replace(BUILT, id=number, head=key, sha=f"sha-{key}", tree=f"tree-{key}", on=number - 1 if n else None)
        fields: dict[str, Any] = {"id": key, "branch": key, "head": key, "target": target, "slot": float(n), **more}
        made.append(replace(ENTRY, candidate=replace(built, base=f"sha-{on}" if n else "base"), **fields))
    return made


def told(entries: Sequence[EntryView], rig: RigView, at: Mapping[tuple[int, str | None], tuple[str, ...]]) -> World:
    """A world in which refineries are at these runs."""
    coupled = tuple(couple(entries, {1: rig}))
    return replace(world(entries=coupled), rigs={1: rig}, refinery_runs=at)


def started(found: Sequence[Decision]) -> list[str]:
    """Who is reviewed, or has its conflict resolved, next."""
    return [a.bead for d in found for a in d.actions if isinstance(a, StartRun) and a.kind == "refinery"]


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (2, 2), (3, 3), (100, 5)])
def test_at_most_so_many_reviews_are_started_in_the_queues_order(most: int, expected: int) -> None:
    entries = cars(5)
    found = plan(told(entries, rig(max_reviews=most), {}))
    assert started(found) == [e.id for e in entries[:expected]]
    assert all(a.at_most == most for d in found for a in d.actions if isinstance(a, StartRun))


@pytest.mark.parametrize(("live", "starts"), [(0, 3), (1, 2), (2, 1), (3, 0), (5, 0)])
def test_any_live_run_of_the_refinery_counts(live: int, starts: int) -> None:
    """Also one that is being stopped, one for another lane, or, since the limit was lowered, one too many."""
    at = tuple(f"run-{n}" for n in range(live))
    found = plan(told(cars(4), rig(), {(1, None): at}))
    assert len(started(found)) == starts
    waits = [d.why for d in found if d.rule == "refinery-busy"]
    assert len(waits) == 4 - starts
    assert all("refinery.max_reviews is 3" in why and all(run in why for run in at) for why in waits)


def test_each_convoys_refinery_has_a_limit_of_its_own() -> None:
    one = cars(2, "convoy/a/head", convoy="gt-a", onto_convoy=True)
    two = cars(2, "convoy/bb/head", convoy="gt-b", onto_convoy=True)
    found = plan(told([*one, *two, *cars(2)], rig(max_reviews=1), {(1, "gt-b"): ("run-1",)}))
    assert sorted(started(found)) == ["convoy/a/head-0", "main-0"]


def test_of_two_lanes_with_one_refinery_the_one_that_has_less_is_served_first() -> None:
    main, release = cars(4), cars(1, "release/1.0")
    run = RunView("run-1", main[0].id, "refinery", "running", 1, NOW, rig=1, start_sha=f"sha-{main[0].id}")
    main[0] = replace(main[0], runs=(run,))
    for entries in ([*main, *release], [*release, *main]):
        found = plan(told(entries, rig(max_reviews=2), {(1, None): ("run-1",)}))
        assert started(found) == ["release/1.0-0"]


def test_resolving_a_conflict_counts_among_the_reviews() -> None:
    first, *others = cars(3)
    conflict = replace(first, candidate=replace(BUILT, result="conflict", head=first.head, files=("a",)))
    behind = [replace(e, car=None) for e in others]
    setting = rig(max_reviews=1, require_clean_merge=False)
    found = plan(told([conflict, *behind], setting, {}))
    assert started(found) == [first.id]
    found = plan(told([conflict, *behind], setting, {(1, None): ("run-1",)}))
    assert started(found) == []


def test_a_review_starts_once_its_gates_have_passed() -> None:
    gated = RigView(1, "proj", "main", config(train={"window": 8}))
    found = plan(told(cars(2), gated, {}))
    assert started(found) == []
    assert [d.rule for d in found if d.subject.startswith("entry")] == ["run-gates", "run-gates"]


def test_a_review_goes_on_when_the_car_ahead_was_sent_back_and_ends_with_its_head() -> None:
    (entry,) = cars(1)
    run = RunView("run-1", entry.id, "refinery", "running", 1, NOW, rig=1, purpose="review", start_sha="sha-before",
                  lease_until=NOW + dt.timedelta(minutes=1))  # fmt: skip
    at: dict[tuple[int, str | None], tuple[str, ...]] = {(1, None): ("run-1",)}
    for seen, purpose, rule in (
        (frozenset({"sha-before"}), "review", "working"),
        (frozenset({"sha-before"}), "resolve", "stop-unwanted"),  # what it resolves is no longer so
        (frozenset(), "review", "stop-unwanted"),
    ):
        at_work = replace(run, purpose=purpose)
        found = told([replace(entry, built_as=seen, runs=(at_work,))], rig(), at)
        (decision,) = [d for d in plan(replace(found, runs=(at_work,))) if d.subject == "run run-1"]
        assert decision.rule == rule
