"""One sentence for each subject: `tick --explain`, its page, its command and its console page say the same.

Each stage is reached by real facts. What is looked at is also the moment after facts are taken in and before the plan
is carried out, for many stages last no longer.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agents import runs
from beads import config as configs
from beads import inbox, ledger, outages, room
from beads.models import Bead
from refinery.core.readiness import convoy_phase
from refinery.core.stages import Stage
from refinery.core.standing import stands
from refinery.core.world import World
from refinery.decisions import gatechecks, merge_queue, work
from refinery.models import ReviewEntry
from refinery.tick import snapshot
from tests.db.conftest import SHA, Place
from tests.web.sentences import _SUBJECTS, Reader, agree, text
from tests.web.stages import STAGES, WHO, Make, answer, gates_end, green_behind, hear, tick


@pytest.fixture
def make(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the usual town. From then on its clock is everybody's: sentences tell of moments."""

    def made(**refinery: Any) -> Place:
        place = Place(**refinery)

        class Clock(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
                return place.now

        monkeypatch.setattr(timezone, "datetime", Clock)  # defaults of columns hold `timezone.now` itself
        return place

    yield made


@pytest.fixture
def reader(operator: Client) -> Reader:
    """Sees everything."""
    return Reader(operator)


def test_each_stage_is_looked_at() -> None:
    assert set(STAGES) == set(Stage)


def world(place: Place) -> World:
    return snapshot.load(place.town, place.now)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_in_each_stage_everybody_says_what_the_plan_says(stage: Stage, make: Make, reader: Reader) -> None:
    place, entry = STAGES[stage](make)
    look = world(place)
    assert stands(look, look.entry[entry.pk]).stage == stage
    agree(place, reader, f"entry {entry.pk}")


def test_a_green_car_behind_another_lands_after_the_cars_ahead(make: Make, reader: Reader) -> None:
    place, second = green_behind(make)
    assert agree(place, reader)[f"entry {second.pk}"].why == "green; lands after the cars ahead"
    assert "It lands next." not in reader.page(f"/reviews/{second.pk}/")


@pytest.mark.parametrize("moment", ["asked", "fetched", "gated", "broken"])
def test_of_a_check_of_the_target_everybody_says_the_same(moment: str, make: Make, reader: Reader) -> None:
    place = make()
    asked = gatechecks.ask(place.rig, by=WHO)
    assert asked is not None
    place.tick()
    if moment != "asked":
        answer(place, asked.entry, "built", sha=SHA["b"], tree=SHA["9"])
        hear(place)
    if moment in ("gated", "broken"):
        place.tick()
    if moment == "broken":
        gates_end(place, asked.entry, 1)
        place.tick()
    why = agree(place, reader)[f"entry {asked.entry.pk}"].why
    assert why


# -- beads and runs -------------------------------------------------------------------------------------------------


def test_whatever_a_bead_waits_for_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    first = place.bead("First")
    place.bead("Second", first)
    assert agree(place, reader)[f"bead {first.pk}"].why == "ready: attempt 1 starts"
    place.tick()
    agree(place, reader)
    run, _ = place.running(bead=first)
    told = agree(place, reader)
    assert told[f"run {run.pk}"].why == "is working"
    place.exit(run, 1)
    tick(place)
    agree(place, reader)  # it has failed, and nothing is decided about that yet
    place.tick()
    assert "attempt 2 starts at" in agree(place, reader)[f"bead {first.pk}"].why
    place.later(minutes=1)
    place.tick()
    run, _ = place.running(bead=first)
    place.say(run, "run.done", summary="painted it")
    place.exit(run, head=SHA["a"], work="new")
    tick(place)
    agree(place, reader)
    place.tick()
    entry = ReviewEntry.objects.get(source=first)
    told = agree(place, reader)
    assert told[f"bead {first.pk}"].why == f"gating: {told[f'entry {entry.pk}'].why}"
    ledger.pause_town(place.town, "lunch")
    place.town.refresh_from_db()
    agree(place, reader)


def test_the_fifth_bead_of_a_rig_whose_polecats_are_busy_says_so(make: Make, reader: Reader) -> None:
    place = make()
    for number in range(5):
        place.bead(f"Bead {number}")
        place.later(seconds=1)
    place.tick()
    fifth = Bead.objects.get(title="Bead 4")
    assert agree(place, reader, f"bead {fifth.pk}")[f"bead {fifth.pk}"].why == "all 4 polecats of the rig are busy"
    assert "all 4 polecats of the rig are busy" in text(reader.page("/towns/main/"))


def test_what_has_ended_keeps_its_own_reason(make: Make, reader: Reader) -> None:
    place = make()
    bead = place.bead()
    place.tick()
    run, _ = place.running(bead=bead)
    work.cancel_bead(bead, by=WHO, reason="not wanted")
    place.exit(run, 1)
    place.tick()
    bead.refresh_from_db()
    run.refresh_from_db()
    entry = place.entry()
    merge_queue.reject(entry, by=WHO, reason="we shall not")
    place.tick()
    for kind, key, reason in (
        ("bead", bead.pk, bead.reason),
        ("run", run.pk, run.reason),
        ("entry", entry.pk, "we shall not"),
    ):
        path, mark, words, name, model = _SUBJECTS[kind]
        assert reason and reason in reader.lead(path.format(key), mark)
        assert reason in reader.command(*words, key)[name]
        assert reason in reader.console(model, key)[0]


# -- convoys --------------------------------------------------------------------------------------------------------


def test_in_each_phase_of_a_convoy_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    plan = [
        {"key": "one", "rig": place.rig, "title": "One", "body": "", "priority": 2, "after": []},
        {"key": "two", "rig": place.rig, "title": "Two", "body": "", "priority": 2, "after": ["one"]},
    ]
    convoy = ledger.create_convoy(place.rig, "C", "review-then-land", plan, actor="test")
    phases: list[str] = []

    def look(phase: str) -> str:
        view = world(place).convoy[convoy.pk]
        assert convoy_phase(view) == phase
        phases.append(phase)
        return agree(place, reader)[f"convoy {convoy.pk}"].why

    assert look("staged") == "nothing is dispatched until it is started"
    work.start_convoy(convoy, by=WHO)
    place.tick()
    assert look("active") == "its feature branch is being cut"
    branch = convoy.branches.get()
    assert branch.asked_at is not None
    seen = {"sha": SHA["b"], "asked_at": branch.asked_at.isoformat()}
    inbox.record(place.town, "branch.seen", str(branch.pk), seen)
    place.tick()
    assert look("active") == "0 of 2 beads closed"
    run, _ = place.running(bead=convoy.beads.get(plan_key="one"))
    place.say(run, "run.done", summary="nothing to do")
    place.exit(run, work="nothing")
    place.tick()
    assert "Retry it, cancel it, or close the convoy" in look("needs_attention")
    assert set(phases) == {"staged", "active", "needs_attention"}


# -- what holds up more than one ------------------------------------------------------------------------------------


def test_of_a_remote_that_does_not_work_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    bead, entry = place.bead(), place.entry()
    met = outages.Trouble("unreachable", "fatal: Could not resolve host", whole_host=True)
    outages.failed(place.rig, met, place.now)
    place.tick()
    told = agree(place, reader)
    words = next(d.why for d in told.values() if d.rule == "outage" and d.subject.startswith("outage:"))
    said_of = words.partition(": ")[2]
    assert said_of in told[f"bead {bead.pk}"].why and said_of in told[f"entry {entry.pk}"].why


def test_of_a_full_disk_everybody_says_the_same(make: Make, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make()
    place.bead()
    place.entry()
    full = room.lacking  # how much is free changes from one look to the next
    monkeypatch.setattr(room, "LEAST", 1 << 62)
    monkeypatch.setattr(room, "SMALL", 1)  # more than is free on any disk
    words = full()
    monkeypatch.setattr(room, "lacking", lambda: words)
    place.tick()
    told = agree(place, reader)
    assert told["no-room"].why == words and words in told["lane proj main"].why


def test_of_an_open_breaker_and_a_rig_without_polecats_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    for n in range(4):
        place.bead(f"Bead {n}")
    while not world(place).breaker_open:
        place.tick()
        while picked := runs.pick("runner", place.now):
            runs.start_failed(picked[0].pk, "broken host")
        place.later(minutes=1)
    place.tick()
    assert agree(place, reader)["town main"].rule == "breaker"
    place.later(minutes=40)
    ledger.set_config(place.town, configs.validate({"refinery": {"gates": ["true"], "code_review": False}}))
    place.town.refresh_from_db()
    place.rig.refresh_from_db()
    place.tick()
    assert agree(place, reader)["rig proj"].rule == "unmanned"
