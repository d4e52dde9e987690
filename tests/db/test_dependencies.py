"""What comes after something lands after it, in whatever rig; and nobody waits for what will not come."""

from __future__ import annotations

import pytest

from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Conflict, Invalid
from beads.models import Bead, Rig
from refinery.decisions import merge_queue, work
from refinery.models import ReviewEntry
from refinery.pages import boards
from tests.db.conftest import SHA, Place

WHO = Actor("test", "alice")


def shown(place: Place, entry: ReviewEntry) -> boards.Shown:
    """How the pages show it."""
    return boards.Board(place.town).entry(ReviewEntry.objects.select_related("bead").get(pk=entry.pk))


def end(place: Place, bead: Bead, status: str, resolution: str) -> None:
    """It ends in some way."""
    bead.refresh_from_db()
    old = bead.status
    ledger.move(
        bead, old, ledger.Transition(status, resolution=resolution, merge_sha=SHA["f"]), actor=str(WHO), now=place.now
    )


@pytest.fixture
def pair(place: Place) -> tuple[Place, Bead, Bead, ReviewEntry]:
    """A bead in another rig, and an entry of a bead that comes after it."""
    other = Rig.objects.get(pk=ledger.create_rig(place.town, "api", "/nowhere-else.git", "main").pk)
    first = ledger.create_bead(place.town, other, ledger.Draft("First"), actor="test")
    later = place.bead("Later", first)
    entry = place.entry(source=later)
    place.later(minutes=1)  # rows are made by the real clock
    place.tick()
    return place, first, later, entry


def test_an_entry_waits_until_the_other_rigs_change_is_on_its_target(
    pair: tuple[Place, Bead, Bead, ReviewEntry],
) -> None:
    place, first, _, entry = pair
    entry.refresh_from_db()
    told = shown(place, entry)
    assert (entry.admitted_at, told.phase, told.position) == (None, "blocked", None)
    assert first.pk in told.reason and "another rig" in told.reason
    end(place, first, "closed", "merged")
    place.tick()
    entry.refresh_from_db()
    assert entry.admitted_at is not None


def test_a_failed_blocker_takes_its_entries_out_and_each_comes_back_in_one_step(
    pair: tuple[Place, Bead, Bead, ReviewEntry],
) -> None:
    place, first, later, entry = pair
    end(place, first, "failed", "gave_up")
    place.tick()
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == ("failed", "blocker_failed")
    assert first.pk in entry.reason_text
    assert Bead.objects.get(pk=later.pk).status == "failed"
    merge_queue.retry_entry(entry, by=WHO)  # before the other one is retried: it waits, in words
    place.tick()
    entry.refresh_from_db()
    assert (entry.state, shown(place, entry).phase) == ("active", "blocked")
    first.refresh_from_db()
    work.retry_bead(first, by=WHO)
    place.tick()
    assert shown(place, entry).phase == "blocked"
    end(place, first, "closed", "merged")
    place.tick()
    assert shown(place, entry).phase == "gating"


def test_a_cancelled_blocker_did_not_land_and_a_retry_goes_on_without_it(
    pair: tuple[Place, Bead, Bead, ReviewEntry],
) -> None:
    place, first, _, entry = pair
    work.cancel_bead(first, by=WHO, reason="not wanted")
    place.tick()
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == ("failed", "blocker_failed")
    merge_queue.retry_entry(entry, by=WHO)
    place.tick()
    entry.refresh_from_db()
    assert entry.admitted_at is not None


def test_what_was_cancelled_before_is_waited_for_by_nobody(place: Place) -> None:
    first = place.bead("First")
    end(place, first, "closed", "cancelled")
    entry = place.entry(source=place.bead("Later", first))
    place.tick()
    entry.refresh_from_db()
    assert entry.admitted_at is not None


def test_a_car_that_is_made_to_wait_leaves_the_train_as_an_innocent(place: Place) -> None:
    later, first = place.bead("Later"), place.bead("First")
    entry = place.entry(source=later)
    place.tick()
    entry.refresh_from_db()
    assert entry.admitted_at is not None
    work.block_bead(later, by=WHO, on=first, reason="the schema first")
    place.tick()
    assert list(ReviewEntry.objects.values_list("admitted_at", "attempts")) == [(None, 0)]
    work.unblock_bead(later, by=WHO, on=first)
    place.tick()
    entry.refresh_from_db()
    assert entry.admitted_at is not None


def test_whoever_is_waited_for_is_as_urgent_as_who_waits(db: None) -> None:
    place = Place(train={"window": 1})
    first = place.bead("First")
    urgent = place.entry("urgent", SHA["a"], place.bead("Later", first), priority=0)
    plain = place.entry("plain", SHA["d"], priority=1)
    lower = place.entry("lower", SHA["e"], first, priority=3)
    board = boards.Board(place.town)
    (lane,) = board.lanes.values()
    assert [v.id for v in lane] == [lower.pk, urgent.pk, plain.pk]
    place.tick()
    assert [e.admitted_at is not None for e in ReviewEntry.objects.order_by("created_at")] == [False, False, True]


def test_a_task_of_its_own_is_nobodys_blocker(place: Place) -> None:
    bead = place.bead()
    entry = place.entry(source=bead)
    task = ledger.create_bead(place.town, place.rig, ledger.Draft("Rework", parent=entry.bead), actor="test")
    ledger.block(entry.bead, [task])
    ledger.block(bead, [task])
    end(place, task, "closed", "done")
    place.tick()
    entry.refresh_from_db()
    assert entry.admitted_at is not None


def test_what_cannot_wait_for_one_another_is_refused(place: Place) -> None:
    a, b = place.bead("A"), place.bead("B")
    work.block_bead(b, by=WHO, on=a)
    place.tick()
    with pytest.raises(Invalid, match="cycle"):
        work.block_bead(a, by=WHO, on=b)
    with pytest.raises(Invalid, match="cycle"):
        work.block_bead(a, by=WHO, on=a)
    with pytest.raises(Conflict, match="does not wait"):
        work.unblock_bead(a, by=WHO, on=b)
    entry = place.entry(source=a)
    with pytest.raises(Invalid, match="no planned work"):
        work.block_bead(b, by=WHO, on=entry.bead)
    inbox.record(place.town, "bead.block", a.pk, {"on": b.pk})  # two doors at once
    place.tick()
    assert not a.blocked_by.exists()
