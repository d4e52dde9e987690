"""The emergency lane on the review page."""

from __future__ import annotations

import pytest
from django.test import Client

from agents.models import Run
from beads import inbox
from beads.actors import Actor
from beads.errors import Conflict
from beads.models import Bead, Fact
from refinery.decisions import merge_queue, reviews
from refinery.models import Landing, ReviewEntry, Waiver
from refinery.store import entries
from tests.db.conftest import SHA, Place

WHY = "the shop is down"


def test_only_an_operator_lands_now_on_the_review_page(place: Place, reviewer: Client, operator: Client) -> None:
    entry = place.entry()
    form = {"head": entry.head_sha, "reason": WHY, "skip_gates": "on"}
    assert reviewer.post(f"/reviews/{entry.pk}/land-now/", form).status_code == 403
    assert not Fact.objects.exists()
    assert b"Land now" not in reviewer.get(f"/reviews/{entry.pk}/").content
    assert b"Land now" in operator.get(f"/reviews/{entry.pk}/").content
    stale = operator.post(f"/reviews/{entry.pk}/land-now/", form | {"head": SHA["f"]})
    assert stale.status_code == 409
    assert operator.post(f"/reviews/{entry.pk}/land-now/", form).status_code == 302
    fact = Fact.objects.get(kind="entry.land_now")
    assert (fact.actor, fact.payload["skip_gates"]) == ("web:olga", True)


# -- S17: the answer is what happens, in whatever order the facts arrive -----------------------------------------------


def fails(place: Place) -> None:
    """The gates' run ends red, and on the target they pass; no tick yet takes it in."""
    place.vouch()
    run, _ = place.running(kind="gates")
    raw = {"exit_code": 1, "signal": None, "timed_out": False}
    place.exit(run, 1, steps=[{"name": "true", "outcome_raw": raw, "output": ""}])


def gating(place: Place) -> ReviewEntry:
    """An entry that a person has to approve, just approved, with its gates at work."""
    entry = place.entry()
    assert reviews.approve(entry, by=Actor("web", "rita"))
    place.tick()
    place.built(entry)
    assert Run.objects.filter(kind="gates").exists()
    return fresh(entry)


def fresh(entry: ReviewEntry) -> ReviewEntry:
    return ReviewEntry.objects.select_related("bead", "rig__town", "source").get(pk=entry.pk)


def lands(place: Place, entry: ReviewEntry) -> None:
    """It has an intent that names the waiver, and nothing else stands against it."""
    landing = Landing.objects.get(entry=entry)
    assert [e["outcome"] for e in landing.evidence] == ["skipped"]
    inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed"})
    place.tick()
    assert fresh(entry).state == "merged"


@pytest.mark.parametrize("first", ["waiver", "failure"])
@pytest.mark.parametrize("ticks", [1, 2])
def test_s17_a_waiver_and_a_failing_gate_in_either_order_in_one_tick_or_in_two(
    place: Place, first: str, ticks: int
) -> None:
    entry = gating(place)

    def waive() -> None:
        assert merge_queue.land_now(fresh(entry), by=Actor("cli", "olga"), reason=WHY, skip_gates=True)

    def fail() -> None:
        fails(place)

    steps = [waive, fail]
    for step in steps if first == "waiver" else reversed(steps):
        step()
        if ticks == 2:
            place.tick()
    place.tick()
    if not Landing.objects.exists():  # it had left the train for its rework: it is built anew, and gated no more
        place.built(entry)
    assert Run.objects.filter(kind="gates", bead=entry.pk).count() == 1
    lands(place, entry)
    task = Bead.objects.filter(purpose="rework").first()
    assert (task is not None) == (first == "failure" and ticks == 2)
    if task is not None:  # opened because of the gate, and needed no more
        assert task.status == "closed" and task.resolution == "cancelled"


def test_s17_a_change_that_its_gate_has_failed_for_good_is_refused_and_not_promised(place: Place) -> None:
    entry = gating(place)
    seen = fresh(entry)
    fails(place)
    place.tick()
    entries.close(fresh(entry), "failed", "gates_failed", "gate 'true' failed", now=place.now)
    with pytest.raises(Conflict, match="failed"):
        merge_queue.land_now(seen, by=Actor("cli", "olga"), reason=WHY, skip_gates=True, head=seen.head_sha)
    assert not Waiver.objects.exists()


def test_s17_a_waiver_does_not_promise_anything_of_a_head_that_has_moved(place: Place) -> None:
    entry = gating(place)
    inbox.record(place.town, "entry.head_seen", entry.pk, {"head": SHA["d"]})
    with pytest.raises(Conflict, match="the head moved"):
        merge_queue.land_now(entry, by=Actor("cli", "olga"), reason=WHY, skip_gates=True)
    place.tick()
    assert merge_queue.land_now(fresh(entry), by=Actor("cli", "olga"), reason=WHY, skip_gates=True)
    assert Waiver.objects.get().head_sha == SHA["d"]


def test_s17_what_no_waiver_lifts_is_said_at_once(place: Place) -> None:
    entry = gating(place)
    reviews.request_changes(entry, by=Actor("web", "rita"), body="not like this")
    place.gated()
    assert Bead.objects.get(purpose="rework").status != "closed"
    with pytest.raises(Conflict, match="wished changes"):
        merge_queue.land_now(fresh(entry), by=Actor("cli", "olga"), reason=WHY, skip_gates=True)


def test_s17_a_wish_recorded_by_an_older_release_is_carried_out_when_it_is_taken_in(place: Place) -> None:
    entry = gating(place)
    told = {"reason": WHY, "skip_gates": True, "head": entry.head_sha}
    inbox.record(place.town, "entry.land_now", entry.pk, told, actor="cli:olga")
    fails(place)
    place.tick()
    lands(place, entry)
