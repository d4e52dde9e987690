"""When will it land: a world and a history go in, ranges and words come out."""

from __future__ import annotations

import datetime as dt
import random
import re
from dataclasses import replace
from typing import Any

import pytest

from refinery.core.beadviews import BeadView, Blocker, RunView
from refinery.core.convoyviews import BranchView, ConvoyView, TrackedBead
from refinery.core.entryviews import CandidateView, EntryView, GateView, LandingView, LaneView
from refinery.core.estimates import Estimate, of_convoy, of_entries, pace
from refinery.core.outageviews import OutageView
from refinery.core.pace import NOTHING, History, Span, What, due, exactly, history, lasting
from refinery.core.relations import Ground
from refinery.core.trains import couple
from refinery.core.world import RigView, World
from tests.unit.test_rules import NOW, config

RIG = RigView(1, "proj", "main", config(code_review=False))
ENTRY = EntryView("gt-0", 1, "b0", "h0", "main", NOW)
GATES, LANDING = Span(500, 600, 900), Span(5, 10, 20)
KNOWN = History({(1, ("test", "test")): GATES, (1, "landing"): LANDING, (1, "work"): Span(800, 1000, 2000)})
AWAY = OutageView("host:git.example.org:443", "silent", "no answer", NOW, NOW)
REVIEWED = replace(KNOWN, spans={**KNOWN.spans, (1, "review"): Span(200, 300, 400)})


def ago(seconds: float) -> dt.datetime:
    """So long before now."""
    return NOW - dt.timedelta(seconds=seconds)


def queue(count: int) -> list[EntryView]:
    """So many entries, the oldest first."""
    return [
        replace(ENTRY, id=f"gt-{n}", branch=f"b{n}", head=f"h{n}", created_at=NOW + dt.timedelta(seconds=n))
        for n in range(count)
    ]


def cars(count: int, **more: Any) -> list[EntryView]:
    """So many cars, each built on the one ahead."""
    made = []
    for n, entry in enumerate(queue(count)):
        built = CandidateView(n + 1, 1, "built", entry.head, "base", f"c{n}", f"t{n}", on=n or None)
        made.append(replace(entry, admitted_at=NOW, slot=float(n), build_no=1, candidate=built, **more))
    return made


def passed(entry: EntryView, *gates: str) -> EntryView:
    """The same car, of which these gates have passed."""
    tree = entry.candidate.tree if entry.candidate else ""
    return replace(entry, gates=tuple(GateView(g, g, tree, "pass") for g in gates or ("test",)))


def at_work(entry: EntryView, since: float, kind: str = "gates", purpose: str = "") -> EntryView:
    """The same car, with a live run that was asked for so many seconds ago."""
    sha = entry.candidate.sha if entry.candidate else ""
    run = RunView(f"run-{entry.id}", entry.id, kind, "running", 1, ago(since), purpose=purpose or kind, start_sha=sha)
    return replace(entry, runs=(run,))


def told(entries: list[EntryView], rig: RigView = RIG, known: History = KNOWN, **more: Any) -> list[Estimate]:
    """Each entry's estimate."""
    world = World(NOW, "main", rigs={1: rig}, entries=tuple(couple(entries, {1: rig})), **more)
    found = of_entries(world, known)
    return [found[e.id] for e in entries]


def seconds(*given: Any, **more: Any) -> list[float | None]:
    """Each entry's usual seconds to landing."""
    return [e.seconds for e in told(*given, **more)]


# -- entries --------------------------------------------------------------------------------------------------------


def test_the_queue_is_played_forward_by_windows() -> None:
    assert seconds(queue(6)) == [610, 610, 610, 610, 1220, 1220]
    serial = replace(RIG, config=config(code_review=False, train={"window": 1}))
    assert seconds(queue(3), serial) == [610, 1220, 1830]
    assert seconds(queue(3), lanes={(1, "main"): LaneView(window=2)}) == [610, 610, 1220]
    first, *_, last = told(queue(6))
    assert (first.low, first.late, last.low, last.late) == (505, 920, 1010, 1840)
    assert (first.words, last.words) == ("in 8 to 16 min", "in 16 to 31 min")


def test_a_car_that_is_being_gated_has_less_before_it_and_one_behind_lands_no_sooner_than_the_one_ahead() -> None:
    first, second = cars(2)
    found = told([at_work(first, 400), passed(second)])
    assert [(e.low, e.seconds, e.late) for e in found] == [(105, 210, 520)] * 2


def test_what_takes_longer_than_usual_says_so_and_who_is_behind_it_too() -> None:
    first, second, third = told([at_work(cars(3)[0], 1000), *cars(3)[1:]])
    assert first.words == "longer than usual: gating was to take 8 to 15 min, at it for 16 min"
    assert (first.overdue, first.seconds, first.late, first.at) == (True, None, None, None)
    assert {second.words, third.words} == {"after gt-0, which takes longer than usual"}
    reviewer = replace(RIG, config=config())
    (entry,) = cars(1)
    (late,) = told([at_work(passed(entry), 401, "refinery", "review")], reviewer, REVIEWED)
    assert late.words == "longer than usual: its review was to take 3 to 7 min, at it for 6 min"
    pushed = replace(passed(entry), landing=LandingView(1, 1, "pushing", asked_at=ago(21)))
    assert told([pushed])[0].words == "longer than usual: its landing was to take 5 to 20 s, at it for 21 s"
    recent = replace(pushed, landing=LandingView(1, 1, "pushing", asked_at=ago(4)))
    assert told([recent])[0].words == "within 20 s"


@pytest.mark.parametrize(
    ("most", "expected"),
    [(1, [910, 1210, 1510, 1810, 2110]), (2, [910, 910, 1210, 1210, 1510]), (3, [910, 910, 910, 1210, 1210])],
)
def test_reviews_come_as_many_at_once_as_may_be(most: int, expected: list[float]) -> None:
    rig = replace(RIG, config=config(max_reviews=most, train={"window": 8}))
    assert seconds(queue(5), rig, REVIEWED) == expected


def test_a_review_that_is_under_way_takes_a_place_until_it_has_ended() -> None:
    rig = replace(RIG, config=config(max_reviews=1))
    first, second = (passed(e) for e in cars(2))
    assert seconds([first, at_work(second, 100, "refinery", "review")], rig, REVIEWED) == [510, 510]
    assert seconds([at_work(first, 100, "refinery", "review"), second], rig, REVIEWED) == [210, 510]


def gated(*gates: Any, **refinery: Any) -> RigView:
    """A rig with these gates, each a name or a table."""
    rows = [g if isinstance(g, dict) else {"name": g, "run": g} for g in gates]
    return replace(RIG, config=config(code_review=False, gates=rows, **refinery))


P10 = History(
    {(1, ("unit", "unit")): Span(9, 10, 12), (1, ("e2e", "e2e")): Span(23, 25, 28), (1, "around"): Span(1, 1, 2),
     (1, "landing"): Span(1, 1, 2)}
)  # fmt: skip


def test_p10_a_landing_takes_as_long_as_its_gates_one_after_the_other_or_the_longest_of_them() -> None:
    rig = gated("unit", "e2e")
    (entry,) = told(queue(1), rig, P10)
    assert ((entry.low, entry.seconds, entry.late), entry.words) == ((34, 37, 44), "in 30 to 45 s")
    assert pace(rig, P10) == "a landing takes 30 to 45 s"
    at_once = gated("unit", "e2e", parallel_gates=True)
    (entry,) = told(queue(1), at_once, P10)
    assert (entry.low, entry.seconds, entry.late) == (25, 27, 32)
    assert pace(at_once, P10) == "a landing takes 25 to 35 s"


def test_p10_only_the_gates_that_are_needed_and_left_count() -> None:
    rig = gated({"name": "unit", "run": "unit", "paths": ["src/**"]}, "e2e")
    (entry,) = cars(1)
    assert entry.candidate is not None
    spared = replace(entry, candidate=replace(entry.candidate, untouched=frozenset({("src/**",)})))
    assert seconds([entry], rig, P10) == [37]
    assert seconds([spared], rig, P10) == [27]
    assert seconds([passed(entry, "e2e")], rig, P10) == [12]
    assert seconds([passed(spared, "e2e")], rig, P10) == [1]  # only its push
    (unbuilt,) = told(queue(1), rig, P10)
    assert (unbuilt.low, unbuilt.seconds) == (25, 37)  # nobody knows yet what it touches
    waived = replace(entry, ties=replace(entry.ties, waiver=1, waived="by ann because"))
    assert seconds([waived], rig, P10) == [1]


@pytest.mark.parametrize("lasts", [36, 40, 44, 60, 300])
def test_p10_no_estimate_ever_stands_behind_the_clock_nor_ahead_of_what_has_passed(lasts: int) -> None:
    """Four cars are gated at once; whatever the clock says, nothing told is in the past, nor more than is known."""
    rig, begin = gated("unit", "e2e"), NOW
    for passed_by in range(lasts):
        now = begin + dt.timedelta(seconds=passed_by, milliseconds=437)
        entries = [replace(e, runs=(replace(e.runs[0], created_at=begin),)) for e in (at_work(c, 0) for c in cars(4))]
        world = World(now, "main", rigs={1: rig}, entries=tuple(couple(entries, {1: rig})))
        found = of_entries(world, P10)
        for number, entry in enumerate(entries):
            said = found[entry.id]
            if passed_by < 42:  # within what gates and all around them have taken
                assert said.at is not None and said.at >= now and said.at.microsecond == 0
                assert said.low is not None and said.seconds is not None and said.late is not None
                assert 0 <= said.low <= said.seconds <= said.late
                assert passed_by + said.late + 0.437 == pytest.approx(44)
                assert min(v for k, v in said.as_dict().items() if k in ("eta_seconds", "eta_p80_seconds")) >= 1
            elif not number:
                whole = int(passed_by)
                at_it = f"{whole} s" if whole < 90 else f"{whole // 60} min"
                assert said.words == f"longer than usual: gating was to take 30 to 45 s, at it for {at_it}"
                assert (said.seconds, said.at, said.overdue) == (None, None, True)
            else:
                assert said.words == "after gt-0, which takes longer than usual"


def test_p10_what_was_timed_too_seldom_or_not_since_the_gates_changed_is_unknown_and_says_so() -> None:
    def of(*samples: tuple[What, int]) -> History:
        return history([(1, what, 5.0) for what, count in samples for _ in range(count)])

    unit, old, lint, land = ("unit", "unit"), ("unit", "make unit"), ("lint", "lint"), "landing"
    both = [{"name": name, "run": name} for name in ("lint", "unit")]
    cases: list[tuple[History, dict[str, Any], str]] = [
        (of(), {}, "unknown: gate 'unit' was timed 0 of 3 times"),
        (of((land, 2), (unit, 9)), {}, "unknown: a landing was timed 2 of 3 times"),
        (of((land, 3)), {}, "unknown: gate 'unit' was timed 0 of 3 times"),
        (of((land, 3), (unit, 2)), {}, "unknown: gate 'unit' was timed 2 of 3 times"),
        (of((land, 3), (old, 9)), {}, "unknown since the gates changed: gate 'unit' was timed 0 of 3 times"),
        (of((land, 3), (old, 9), (unit, 1)), {}, "unknown since the gates changed: gate 'unit' was timed 1 of 3 times"),
        (of((land, 3), (lint, 9), (unit, 1)), {"gates": both}, "unknown: gate 'unit' was timed 1 of 3 times"),
        (of((land, 3), (unit, 3)), {"code_review": True}, "unknown: a review was timed 0 of 3 times"),
        (of((land, 3), (old, 9), (unit, 3)), {}, "in 5 to 15 s"),
    ]
    for known, settings, words in cases:
        rig = replace(
            RIG, config=config(**{"gates": [{"name": "unit", "run": "unit"}], "code_review": False, **settings})
        )
        first, second = told(queue(2), rig, known)
        assert first.words == words
        assert second.words == words  # who comes after it knows no more
        assert (first.seconds is None) is words.startswith("unknown")
        if words.startswith("unknown"):
            assert pace(rig, known) == f"how long a landing takes is {words}"


def test_results_of_an_older_command_count_for_nothing_also_where_another_rig_runs_it() -> None:
    known = history([(rig, what, 5.0) for rig, what in ((1, "landing"), (2, ("test", "test"))) for _ in range(5)])
    assert told(queue(1), known=known)[0].words == "unknown: gate 'test' was timed 0 of 3 times"


def test_a_batch_is_gated_once_and_takes_one_place_of_the_window() -> None:
    rig = replace(RIG, config=config(code_review=False, batch={"max": 2}, train={"window": 1}))
    entries = [replace(e, batch=1) for e in cars(2)]
    last = entries[1].candidate
    assert last is not None
    entries[1] = at_work(replace(entries[1], candidate=replace(last, seal="base")), 100)
    waiting = replace(queue(3)[2])
    assert seconds([*entries, waiting], rig) == [510, 510, 1120]


def test_what_is_gated_by_itself_first_takes_that_time_too() -> None:
    rig = gated({"name": "lint", "run": "lint", "when": "entry"}, "unit")
    known = replace(P10, spans={**P10.spans, (1, ("lint", "lint")): Span(100, 100, 100)})
    assert seconds(queue(1), rig, known) == [100 + 1 + 10 + 1 + 1]
    alone = replace(ENTRY, build_no=1, candidate=CandidateView(1, 1, "built", "h0", "base", "c", "t"))
    assert seconds([at_work(alone, 60)], rig, known) == [41 + 12]
    proven = replace(alone, gates=(GateView("lint", "lint", "t", "pass", head="h0", alone=True),))
    assert seconds([proven], rig, known) == [12]


def test_what_was_never_measured_is_unknown_and_what_waits_for_people_says_so() -> None:
    assert seconds(queue(1), known=History()) == [None]
    by_hand = replace(RIG, config=config(code_review=False, auto_merge=False))
    built = cars(1)[0]
    red, sound = GateView("test", "test", "t0", "fail"), Ground({("test", "test"): 0})
    cases: list[tuple[EntryView, RigView, dict[str, Any], str]] = [
        (ENTRY, RIG, {}, "in 8 to 16 min"),
        (ENTRY, by_hand, {}, "waits for a person"),
        (replace(ENTRY, held="conflict", held_text="x"), RIG, {}, "waits for a person"),
        (replace(ENTRY, blockers=(Blocker("gt-r", "open"),)), RIG, {}, "waits for gt-r"),
        (replace(ENTRY, after=(Blocker("gt-b", "in_review"),)), RIG, {}, "waits for gt-b"),
        (ENTRY, RIG, {"lanes": {(1, "main"): LaneView(frozen="no")}}, "the lane is frozen"),
        (ENTRY, RIG, {"paused": True}, "the town is paused"),
        (ENTRY, replace(RIG, parked=True), {}, "the rig is parked"),
        (ENTRY, replace(RIG, outage=AWAY), {}, AWAY.words(NOW)),
        (replace(built, candidate=None, build_error="no"), RIG, {}, "unknown: building it failed, and is tried again"),
        (replace(built, gates=(red,)), RIG, {}, "unknown: its gates have failed"),
        (replace(built, gates=(red,), ground=sound), RIG, {}, "unknown: its gates have failed"),
    ]
    for entry, rig, more, words in cases:
        (said,) = told([entry], rig, **more)
        assert (said.words, said.at is None) == (words, not words.startswith("in "))
    (said,) = told([ENTRY])
    assert said.as_dict() == {
        "estimate": "in 8 to 16 min",
        "eta_seconds": 610,
        "eta_p80_seconds": 920,
        "eta": "2026-11-21T12:10:10+00:00",
        "eta_low_seconds": 505,
        "overdue": False,
    }


def test_who_falls_out_of_the_train_holds_up_nobodys_estimate() -> None:
    first, second = cars(2)
    failed = replace(first, gates=(GateView("test", "test", "t0", "fail"),))
    assert seconds([failed, second]) == [None, 610]


# -- ranges and words -----------------------------------------------------------------------------------------------


def test_history_is_of_the_latest_and_of_enough() -> None:
    samples: list[tuple[int, What, float]] = [(1, ("t", "t"), float(n)) for n in (10, 20, 30, 40, 100)]
    found = history([*samples, (2, ("t", "t"), 1.0), (2, ("t", "t"), 1.0), *[(1, "work", 5.0)] * 3])
    assert found.spans[1, ("t", "t")] == Span(10 / 1.2, 30, 100 * 1.2)
    few = found.spans[1, "work"]
    assert (few.low, few.usual, round(few.high, 2)) == (3.75, 5, 6.67)
    assert (2, ("t", "t")) not in found.spans and found.counts[2, ("t", "t")] == 2
    many = history([*[(1, "landing", 1.0)] * 30, *[(1, "landing", 99.0)] * 99])
    assert many.spans[1, "landing"].high < 1.1
    odd = history([(1, "landing", 1000.0), *[(1, "landing", 10.0)] * 29])
    assert odd.spans[1, "landing"].high < 11  # one of thirty does not make a range of minutes


def test_what_is_left_is_never_less_than_nothing_nor_more_than_before() -> None:
    span = Span(10, 12, 30)
    left = [span.after(passed) for passed in (0, 5, 10, 12, 20, 29)]
    assert left[0] == span
    assert [x.low for x in left] == [10, 5, 0, 0, 0, 0]
    assert [x.high for x in left] == [30, 25, 20, 18, 10, 1]
    assert all(x.low <= x.usual <= x.high for x in left)
    assert NOTHING + span == span == span.beside(NOTHING)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0, 0.2, "within 5 s"), (2, 4, "within 5 s"), (5, 5, "in 5 to 10 s"), (34, 44, "in 30 to 45 s"),
     (40, 280, "in 40 s to 5 min"), (3, 280, "within 5 min"), (120, 290, "in 2 to 5 min"), (300, 300, "in 5 to 6 min"),
     (1800, 7300, "in 30 min to 3 h"), (7300, 90_000, "in 2 to 25 h"), (100_000, 200_000, "in 1 to 3 days"),
     (7300, 200_000, "in 2 h to 3 days")],
)  # fmt: skip
def test_ranges_in_words(low: float, high: float, words: str) -> None:
    assert due(low, high) == words
    assert lasting(low, high) == words.removeprefix("in ").replace("within", "up to")


def test_ranges_are_rounded_outwards() -> None:
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    chance = random.Random(4)
    for _ in range(2000):
        low = chance.expovariate(1) * 10 ** chance.randrange(6)
        high = low * (1 + chance.random() * 5)
        found = re.fullmatch(r"(?:(\d+)(?: (s|min|h|days))? to |up to )(\d+) (s|min|h|days)", lasting(low, high))
        assert found is not None
        start = int(found[1] or 0) * units[found[2] or found[4]]
        assert start <= low <= high <= int(found[3]) * units[found[4]], lasting(low, high)


@pytest.mark.parametrize(
    ("length", "words"),
    [(0.5, "0 s"), (59.9, "59 s"), (89, "89 s"), (550, "9 min"), (7300, "2 h"), (200_000, "2 days")],
)
def test_what_has_passed_is_never_said_to_be_more(length: float, words: str) -> None:
    assert exactly(length) == words


# -- convoys --------------------------------------------------------------------------------------------------------


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
    assert (told.low, told.seconds, told.late) == (2 * 1305 + 505, 2 * 1610 + 610, 2 * 2920 + 920)
    assert told.words == "in 51 min to 2 h"
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
    assert of_convoy(world, History(), convoy(bead), {}).words == "unknown: a piece of work was timed 0 of 3 times"
    assert of_convoy(world, KNOWN, convoy(bead, started_at=None), {}).words == "not started"
    failed = convoy(bead, beads=(TrackedBead("gt-1", 1, "failed"),))
    assert of_convoy(world, KNOWN, failed, {}).words == "waits for a person"
    entry = replace(ENTRY, source="gt-1", held="conflict", held_text="x")
    held = replace(world, entries=(entry,))
    assert of_convoy(held, KNOWN, convoy(bead), of_entries(held, KNOWN)).words == "waits for a person"


def test_a_convoy_of_which_one_is_late_says_which() -> None:
    run = RunView("run-1", "gt-1", "polecat", "running", 1, ago(3 * 3600), purpose="work")
    bead = BeadView("gt-1", "in_progress", NOW, 1, convoy="gt-c", runs=(run,))
    world = World(NOW, "main", rigs={1: RIG}, beads=(bead,))
    told = of_convoy(world, KNOWN, convoy(bead), {})
    assert told.words == "longer than usual: the work on gt-1 was to take 13 to 34 min, at it for 3 h"
    assert told.overdue and told.at is None
    late = replace(bead, runs=())
    entry = at_work(replace(cars(1)[0], source="gt-1"), 3600)
    world = World(NOW, "main", rigs={1: RIG}, beads=(late,), entries=tuple(couple([entry], {1: RIG})))
    told = of_convoy(world, KNOWN, convoy(late), of_entries(world, KNOWN))
    assert told.words == "longer than usual: gating was to take 8 to 15 min, at it for 60 min"
