"""What is looked after: promises that no constraint can keep, what ticks did, and what old facts would do again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from agents.models import Run
from beads import inbox, ledger
from beads.actors import Actor
from beads.models import Bead, Convoy, Effect, Fact, Town
from refinery.decisions import towns, work
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, TickRecord, TickTotal, Violation
from refinery.tick import invariants, reconciler
from tests.db.conftest import SHA, Place


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    return client


PLAN = {"title": "A", "body": "", "priority": 2, "after": []}


def landed(place: Place) -> ReviewEntry:
    """A bead whose change has landed, the honest way."""
    bead = place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    place.say(run, "run.done", summary="done")
    place.exit(run, 0, SHA["a"])
    place.tick()
    entry = ReviewEntry.objects.get(source=bead)
    place.built(entry)
    place.gated()
    conclude(place)
    return ReviewEntry.objects.get(pk=entry.pk)


def conclude(place: Place) -> None:
    landing = Landing.objects.get(state="intent")
    inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed", "message": ""})
    place.tick()


def convoy(place: Place) -> Convoy:
    plan = [{"key": "a", "rig": place.rig, **PLAN}]
    return ledger.create_convoy(place.rig, "C", "review-and-merge", plan, actor="test")


def broken(place: Place) -> set[int]:
    return {b.invariant.number for b in invariants.look(place.town, place.now)}


def old(**more: Any) -> dict[str, Any]:
    return {"updated_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), **more}


def b1(place: Place) -> None:
    landed(place)
    Landing.objects.update(state="refused")


def b2(place: Place) -> None:
    landed(place)
    Landing.objects.update(evidence=[{"gate": "true", "outcome": "pass", "tree": SHA["f"], "result": 1}])


def b3(place: Place) -> None:
    landed(place)
    ReviewEntry.objects.update(state="failed", reason="rejected")


def b4(place: Place) -> None:
    entry = place.entry()
    Bead.objects.filter(pk=entry.pk).update(status="failed", resolution="gave_up", reason="x")


def b5(place: Place) -> None:
    landed(place)
    Bead.objects.filter(type="issue").update(status="in_review", resolution="")


def b6(place: Place) -> None:
    made = convoy(place)
    Bead.objects.filter(pk=made.pk).update(status="closed", resolution="merged", merge_sha=SHA["a"])


def b7(place: Place) -> None:
    made = convoy(place)
    Bead.objects.filter(pk=made.pk).update(status="closed", resolution="cancelled")


def b8(place: Place) -> None:
    Bead.objects.filter(pk=place.bead().pk).update(status="in_progress", **old())


def b9(place: Place) -> None:
    Bead.objects.filter(pk=place.bead().pk).update(status="in_review", **old())


def b10(place: Place) -> None:
    bead = place.bead()
    place.tick()
    gone = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    Bead.objects.filter(pk=bead.pk).update(status="closed", resolution="done", closed_at=gone)


def b11(place: Place) -> None:
    place.bead()
    place.tick()
    place.running()
    Run.objects.update(lease_until=None)


def b12(place: Place) -> None:
    place.entry()
    place.tick()
    ReviewEntry.objects.update(held="gate_error", held_text="x")


def b13(place: Place) -> None:
    bead = place.bead()
    Bead.objects.filter(pk=bead.pk).update(purpose="rework", **old())


def b14(place: Place) -> None:
    Bead.objects.filter(pk=place.bead().pk).update(status="failed", resolution="gave_up")


def b15(place: Place) -> None:
    place.entry()
    place.tick()
    Effect.objects.update(next_try_at=place.now - dt.timedelta(hours=1))


def b16(place: Place) -> None:
    inbox.record(place.town, "bead.cancel", "gt-x", {})
    Fact.objects.update(recorded_at=place.now - dt.timedelta(hours=1))


def b17(place: Place) -> None:
    landed(place)
    ReviewEntry.objects.update(head_sha=SHA["e"])


def b18(place: Place) -> None:
    bead = place.bead()
    place.tick()
    Bead.objects.filter(pk=bead.pk).update(filed_by="run-x")


BREAKS = (b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18)


def test_each_invariant_has_a_test() -> None:
    assert [i.number for i in invariants.INVARIANTS] == [int(b.__name__[1:]) for b in BREAKS]


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_promise_is_found(place: Place, how: Callable[[Place], None]) -> None:
    assert broken(place) == set()
    how(place)
    assert int(how.__name__[1:]) in broken(place)


def test_a_violation_is_a_row_and_a_metric_until_it_holds_again(place: Place, operator: Client) -> None:
    landed(place)
    Landing.objects.update(state="refused")
    invariants.check(place.town, place.now)
    found = Violation.objects.get()
    assert (found.number, found.cleared_at, bool(found.remedy)) == (1, None, True)
    assert "gastown_violations_open 1.0" in operator.get("/metrics").content.decode()
    assert found.subject in operator.get("/admin/refinery/violation/").content.decode()
    invariants.check(place.town, place.now)
    assert Violation.objects.count() == 1
    Landing.objects.update(state="landed")
    place.bead()
    place.tick()  # a tick looks again at what is open, whatever it touched
    found.refresh_from_db()
    assert found.cleared_at is not None


def test_waiting_is_no_violation_however_long(db: None) -> None:
    place = Place(merge_strategy="pr", allow_no_gates=True, gates=[])
    waits = place.entry()
    place.tick()
    place.built(waits)
    held = place.entry("held", SHA["d"])
    place.tick()
    held.refresh_from_db()
    inbox.record(
        place.town, "candidate.built", held.pk, {"build_no": held.build_no, "result": "error", "head": SHA["d"]}
    )
    place.tick()
    convoy(place)  # staged
    place.later(days=30)
    towns.pause(place.town, by=Actor("", "alice"), reason="holiday")
    place.bead("while paused")
    place.town.refresh_from_db()
    place.tick()
    ReviewEntry.objects.get(pk=held.pk, held="build_error")
    Effect.objects.update(state="done")  # nobody runs them here
    assert broken(place) == set()


def test_each_tick_that_did_something_is_measured(place: Place, operator: Client) -> None:
    landed(place)
    ticks = TickRecord.objects.count()
    assert ticks > 3
    sums = TickTotal.objects.get().sums
    assert sums["ticks"] == ticks
    assert sums["facts"] == Fact.objects.exclude(processed_at=None).count()
    assert sums["actions"]["Land"] == 1
    assert sums["milliseconds"] > 0
    place.tick()
    assert TickRecord.objects.count() == ticks  # a look that changes nothing leaves nothing
    page = operator.get("/metrics").content.decode()
    assert 'gastown_tick_actions_total{action="Land",town="main"} 1.0' in page
    assert f'gastown_tick_facts_total{{town="main"}} {float(sums["facts"])}' in page


def test_a_replay_shows_what_past_facts_would_do_and_changes_nothing(place: Place) -> None:
    began = place.now - dt.timedelta(minutes=1)
    entry = landed(place)
    work.cancel_bead(place.bead("later cancelled"), by=Actor("", "alice"))
    place.tick()
    before = [list(m.objects.order_by("pk").values()) for m in (Bead, ReviewEntry, Run, Landing, Candidate, GateResult)]
    rows = reconciler.replay(Town.objects.get(), began)
    kinds = [row["kind"] for row in rows]
    assert {"run.done", "run.exited", "candidate.built", "landing.concluded", "bead.cancel"} <= set(kinds)
    assert all(row["actions"] == {} for row in rows)  # facts are observations: twice is as good as once
    after = [list(m.objects.order_by("pk").values()) for m in (Bead, ReviewEntry, Run, Landing, Candidate, GateResult)]
    assert before == after
    assert entry.state == "merged"
