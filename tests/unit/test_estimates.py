"""When will it land: a world and a history go in, times and words come out."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from refinery.convoyviews import BranchView, ConvoyView, TrackedBead
from refinery.estimates import UNKNOWN, History, Times, about, history, of_convoy, of_entries
from refinery.trains import couple
from refinery.world import BeadView, Blocker, CandidateView, EntryView, GateView, LaneView, RigView, RunView, World
from tests.unit.test_rules import NOW, config

RIG = RigView(1, "proj", "main", config(code_review=False))
ENTRY = EntryView("gt-0", 1, "b0", "h0", "main", NOW)
KNOWN = History({(1, "gates"): Times(600, 900), (1, "landing"): Times(10, 20), (1, "work"): Times(1000, 2000)})


def queue(count: int) -> list[EntryView]:
    """So many entries, the oldest first."""
    return [
        replace(ENTRY, id=f"gt-{n}", branch=f"b{n}", head=f"h{n}", created_at=NOW + dt.timedelta(seconds=n))
        for n in range(count)
    ]


def seconds(entries: list[EntryView], rig: RigView = RIG, known: History = KNOWN, **more: Any) -> list[float | None]:
    """Each entry's seconds to landing."""
    world = World(NOW, "main", rigs={1: rig}, entries=tuple(couple(entries, {1: rig})), **more)
    found = of_entries(world, known)
    return [found[e.id].seconds for e in entries]


def test_the_queue_is_played_forward_by_windows() -> None:
    assert seconds(queue(6)) == [610, 610, 610, 610, 1220, 1220]
    serial = replace(RIG, config=config(code_review=False, train={"window": 1}))
    assert seconds(queue(3), serial) == [610, 1220, 1830]
    assert seconds(queue(3), lanes={(1, "main"): LaneView(window=2)}) == [610, 610, 1220]


def test_a_car_that_is_being_gated_has_less_before_it_and_one_behind_lands_no_sooner_than_the_one_ahead() -> None:
    first, second = queue(2)
    run = RunView("run-1", first.id, "gates", "running", 1, NOW - dt.timedelta(seconds=400), start_sha="c")
    built = CandidateView(1, 1, "built", first.head, "base", "c", "t")
    first = replace(first, admitted_at=NOW, slot=1.0, build_no=1, candidate=built, runs=(run,))
    above = CandidateView(2, 1, "built", second.head, "c", "d", "u", on=1)
    passed = GateView("test", "test", "u", "pass")
    second = replace(second, admitted_at=NOW, slot=2.0, build_no=1, candidate=above, gates=(passed,))
    assert seconds([first, second]) == [210, 210]
    late = replace(run, created_at=NOW - dt.timedelta(hours=5))
    assert seconds([replace(first, runs=(late,))]) == [70]


def test_reviews_come_one_after_the_other() -> None:
    rig = replace(RIG, config=config())
    known = History({**KNOWN.times, (1, "review"): Times(300, 300)})
    assert seconds(queue(3), rig, known) == [910, 1210, 1510]


def test_what_was_never_measured_is_unknown_and_what_waits_for_people_says_so() -> None:
    assert seconds(queue(1), known=History()) == [None]
    by_hand = replace(RIG, config=config(code_review=False, auto_merge=False))
    cases: list[tuple[EntryView, RigView, dict[str, Any], str]] = [
        (ENTRY, RIG, {}, "about 10 min"),
        (ENTRY, by_hand, {}, "waits for a person"),
        (replace(ENTRY, held="conflict", held_text="x"), RIG, {}, "waits for a person"),
        (replace(ENTRY, blockers=(Blocker("gt-r", "open"),)), RIG, {}, "waits for gt-r"),
        (replace(ENTRY, after=(Blocker("gt-b", "in_review"),)), RIG, {}, "waits for gt-b"),
        (ENTRY, RIG, {"lanes": {(1, "main"): LaneView(frozen="no")}}, "the lane is frozen"),
        (ENTRY, RIG, {"paused": True}, "the town is paused"),
        (ENTRY, replace(RIG, parked=True), {}, "the rig is parked"),
    ]
    for entry, rig, more, words in cases:
        told = of_entries(World(NOW, "main", rigs={1: rig}, entries=(entry,), **more), KNOWN)[entry.id]
        assert (told.words, told.at is None) == (words, not words.startswith("about"))
    told = of_entries(World(NOW, "main", rigs={1: RIG}, entries=(ENTRY,)), KNOWN)[ENTRY.id]
    assert told.as_dict() == {
        "estimate": "about 10 min",
        "eta_seconds": 610,
        "eta_p80_seconds": 920,
        "eta": "2026-11-21T12:10:10+00:00",
    }


def test_history_is_of_the_latest_and_of_enough() -> None:
    samples = [(1, "gates", float(n)) for n in (10, 20, 30, 40, 100)] + [(2, "gates", 1.0)] * 2
    found = history([*samples, *[(1, "work", 5.0)] * 3])
    assert found.of(1, "gates", late=False) == 30
    assert found.of(1, "gates", late=True) == 40
    assert found.of(2, "gates", late=False) is None
    many = history([*[(1, "gates", 1.0)] * 30, *[(1, "gates", 99.0)] * 99])
    assert many.times[1, "gates"] == Times(1.0, 1.0)


@pytest.mark.parametrize(
    ("length", "words"),
    [(2, "about 5 s"), (42, "about 40 s"), (720, "about 12 min"), (5300, "about 88 min"), (7300, "about 2 h"),
     (200_000, "about 2 days")],
)  # fmt: skip
def test_lengths_in_words(length: float, words: str) -> None:
    assert about(length) == words


def convoy(*beads: BeadView, **more: Any) -> ConvoyView:
    """A started convoy of these beads."""
    tracked = tuple(TrackedBead(b.id, 1, b.status) for b in beads)
    branch = BranchView(1, 1, "convoy/c/gt-c/head", "base")
    values: dict[str, Any] = {"started_at": NOW, "beads": tracked, "branches": (branch,), **more}
    return ConvoyView("gt-c", 1, "in_progress", "review-then-land", **values)


def test_a_convoy_lands_after_its_longest_chain_and_its_own_landing() -> None:
    first = BeadView("gt-1", "open", NOW, 1, convoy="gt-c")
    second = replace(first, id="gt-2", blockers=(Blocker("gt-1", "open"),))
    third = replace(first, id="gt-3")
    world = World(NOW, "main", rigs={1: RIG}, beads=(first, second, third))
    told = of_convoy(world, KNOWN, convoy(first, second, third), {})
    assert told.seconds == 2 * (1000 + 610) + 610
    assert told.words == "about 64 min"
    narrow = replace(RIG, config=replace_polecats(1))
    crowded = [replace(first, id=f"gt-{n}") for n in range(9)]
    told = of_convoy(replace(world, rigs={1: narrow}, beads=tuple(crowded)), KNOWN, convoy(*crowded), {})
    assert told.seconds == 9 * 1000 + 610


def replace_polecats(most: int) -> Any:
    """A config of so many polecats."""
    plain = RIG.config
    return plain.model_copy(update={"dispatch": plain.dispatch.model_copy(update={"max_polecats": most})})


def test_a_convoy_that_waits_for_people_or_has_no_history_says_so() -> None:
    bead = BeadView("gt-1", "open", NOW, 1, convoy="gt-c")
    world = World(NOW, "main", rigs={1: RIG}, beads=(bead,))
    assert of_convoy(world, History(), convoy(bead), {}) == UNKNOWN
    assert of_convoy(world, KNOWN, convoy(bead, started_at=None), {}).words == "not started"
    failed = convoy(bead, beads=(TrackedBead("gt-1", 1, "failed"),))
    assert of_convoy(world, KNOWN, failed, {}).words == "waits for a person"
    entry = replace(ENTRY, source="gt-1", held="conflict", held_text="x")
    held = replace(world, entries=(entry,))
    assert of_convoy(held, KNOWN, convoy(bead), of_entries(held, KNOWN)).words == "waits for a person"
