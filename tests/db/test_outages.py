"""What does not work outside is met once, said everywhere, told once with its remedy, and goes on by itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agents.models import Run
from beads import ledger, outages, room, secrets
from beads.errors import LostRace
from beads.models import Bead, Effect, Escalation, Outage
from refinery.models import LostDecision, ReviewEntry
from refinery.pages import boards
from refinery.store import entries
from tests.db.conftest import SHA, Place

SAID = "git ls-remote: fatal: Could not resolve host: git.example.org"


def away(place: Place, kind: str = "unreachable", *, whole_host: bool = True, error: str = SAID) -> None:
    """The remote of the place's rig does not work."""
    outages.failed(place.rig, outages.Trouble(kind, error, whole_host), place.now)


def needs(place: Place) -> list[str]:
    """What is told to people, and open."""
    found = Escalation.objects.filter(town=place.town, closed_at=None).select_related("bead").order_by("pk")
    return [f"{e.bead.title}\n{e.bead.body}" for e in found]


def test_o1_while_the_remote_is_away_nothing_is_begun_and_everybody_says_why(place: Place) -> None:
    away(place)
    entry, bead = place.entry(), place.bead()
    place.tick()
    assert not Run.objects.exists() and not Effect.objects.exists()
    board = boards.Board(place.town)
    assert SAID in board.bead(bead) and "looked at again" in board.bead(bead)
    assert SAID in board.entry(entry).reason and "since " in board.entry(entry).reason
    assert outages.worked(place.rig)
    place.tick()
    assert Run.objects.filter(bead=bead).exists() and Effect.objects.filter(kind="build").exists()


def test_o4_a_landing_says_since_when_what_and_when_next(place: Place) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    place.gated()
    (push,) = place.effects("land")
    assert push.rig_id == place.rig.pk
    away(place)
    assert "its remote does not work since" in boards.Board(place.town).entry(entry).reason


def test_people_are_told_once_by_name_with_the_remedy_and_no_longer_when_it_is_over(place: Place) -> None:
    away(place, "auth", whole_host=False, error="git fetch: fatal: Authentication failed")
    place.entry()
    place.tick()
    (need,) = needs(place)
    assert "Rig proj: the remote does not work: git fetch: fatal: Authentication failed" in need
    assert "What to do: gastown secret set NAME" in need
    place.later(hours=1)
    away(place, "auth", whole_host=False)
    place.tick()
    assert len(needs(place)) == 1
    outages.worked(place.rig)
    place.tick()
    assert needs(place) == []


def test_what_may_go_by_itself_is_told_only_when_it_stays(place: Place) -> None:
    away(place)
    place.tick()
    assert needs(place) == []
    for _ in range(2):
        place.later(minutes=2)
        away(place)
        place.tick()
    (need,) = needs(place)
    assert "looked at again by itself" in need


def test_an_outage_of_a_host_is_of_all_its_rigs_and_of_no_other(place: Place) -> None:
    url = "https://git.example.org/{}.git"
    rigs = [ledger.create_rig(place.town, slug, url.format(slug), "main") for slug in ("one", "two")]
    outages.failed(rigs[0], outages.Trouble("unreachable", SAID, whole_host=True), place.now)
    world = boards.Board(place.town).world
    assert {rig.slug for rig in world.rigs.values() if rig.outage} == {"one", "two"}
    outages.failed(rigs[1], outages.Trouble("auth", "no"), place.now)
    assert outages.worked(rigs[0])
    world = boards.Board(place.town).world
    assert {rig.slug: rig.outage.kind for rig in world.rigs.values() if rig.outage} == {"two": "auth"}


def test_the_remedy_names_the_branch_that_the_remote_names(place: Place) -> None:
    outages.failed(place.rig, outages.Trouble("missing_target", "no branch main", branch="trunk"), place.now)
    place.tick()
    (need,) = needs(place)
    assert "gastown rig set-default-branch proj trunk" in need


def test_looks_become_rarer_and_work_begun_before_counts_for_nothing(place: Place) -> None:
    for _ in range(3):
        away(place)  # three pieces of work met it at once
    (outage,) = Outage.objects.all()
    assert outage.failures == 1
    waits = []
    for _ in range(7):
        (outage,) = Outage.objects.all()
        waits.append(round((outage.next_look_at - place.now).total_seconds()))
        place.now = outage.next_look_at
        away(place)
    assert waits == [5, 10, 20, 40, 60, 60, 60]


def test_a_new_secret_lets_the_remote_be_looked_at_at_once(place: Place, settings: Any, tmp_path: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    place.later(minutes=-5)
    away(place, "auth", whole_host=False)
    Outage.objects.update(next_look_at=place.now + dt.timedelta(hours=1))
    secrets.set_secret(place.town, "DEPLOY", "ann:word", "ann")
    (outage,) = Outage.objects.all()
    assert outage.next_look_at < place.now + dt.timedelta(hours=1)


def test_o10_a_full_disk_pauses_what_writes_says_so_and_goes_on(place: Place, monkeypatch: Any) -> None:
    entry, bead = place.entry(), place.bead()
    monkeypatch.setattr(room, "LEAST", 1 << 62)
    monkeypatch.setattr(room, "SMALL", 1)  # more than is free on any disk
    place.tick()
    assert not Run.objects.exists() and not Effect.objects.exists()
    assert "is full" in boards.Board(place.town).bead(bead)
    (need,) = needs(place)
    assert "A disk is full" in need and "What to do: make room" in need
    monkeypatch.undo()
    place.tick()
    assert needs(place) == [] and Run.objects.filter(bead=bead).exists()
    assert ReviewEntry.objects.get(pk=entry.pk).admitted_at is not None


def test_g3_a_decision_that_is_lost_again_and_again_is_held_with_its_reason(place: Place, monkeypatch: Any) -> None:
    def lost(*_: Any, **__: Any) -> int:
        raise LostRace("it is not as it was decided on")

    entry = place.entry()
    place.tick()
    place.built(entry)
    place.gated()
    place.effects("land")
    monkeypatch.setattr(entries, "rebuild", lost)
    ReviewEntry.objects.filter(pk=entry.pk).update(build_no=7)  # what is built is another one's
    Effect.objects.all().delete()
    entry.landings.all().delete()
    for _ in range(12):
        place.later(seconds=5)
        place.tick()
    entry.refresh_from_db()
    assert entry.held == "stuck" and "it is not as it was decided on" in entry.held_text
    (need,) = needs(place)
    assert "proj" in need and f"gastown mq retry {entry.pk}" in need
    monkeypatch.undo()
    place.tick()
    assert not LostDecision.objects.exists()


def test_a_lost_decision_that_is_carried_out_the_next_time_is_forgotten(place: Place, monkeypatch: Any) -> None:
    def lost(*_: Any, **__: Any) -> int:
        raise LostRace("no")

    place.entry()
    monkeypatch.setattr(entries, "admit", lost)
    place.tick()
    assert LostDecision.objects.get().times == 1
    monkeypatch.undo()
    place.tick()
    assert not LostDecision.objects.exists() and needs(place) == []


@pytest.mark.parametrize("patience", [9, 11])
def test_a_build_that_fails_for_long_by_itself_gives_up_its_place(place: Place, patience: int) -> None:
    first, second = place.entry("one"), place.entry("two", SHA["d"])
    place.tick()
    since = place.now
    Effect.objects.filter(kind="build", payload__entry=first.pk).update(
        attempts=3, failing_since=since, error="git fetch: something", next_try_at=since + dt.timedelta(minutes=1)
    )
    assert "building it failed (3 times since" in boards.Board(place.town).entry(first).reason
    place.later(minutes=patience)
    place.tick()
    first.refresh_from_db()
    assert first.held == ("build_error" if patience == 11 else "")
    assert ReviewEntry.objects.get(pk=second.pk).held == ""


def test_g13_a_branch_that_the_remote_refuses_goes_back_once_and_then_to_a_person(place: Place) -> None:
    place.town.config["git"] = {"publish": "always"}
    place.town.save()
    bead = place.bead()
    place.tick()
    refused = "git push: remote: error: GH001: Large files detected"
    for head in (SHA["a"], SHA["d"]):
        run, token = place.running(kind="polecat")
        del token
        place.say(run, "run.done", summary="it is done")
        place.exit(run, head=head, work="new")
        place.tick()
        effect = Effect.objects.get(key=f"publish:{run.pk}")
        from beads import inbox, outbox

        outbox.give_up(effect, place.now, refused)
        told = {"kind": "publish", "key": effect.key, "error": refused, "payload": effect.payload}
        inbox.record(place.town, "effect.failed", effect.key, told)
        place.tick()
        assert refused in Run.objects.get(pk=run.pk).work_text
    bead.refresh_from_db()
    assert bead.status == "failed" and refused in bead.reason
    (need,) = needs(place)
    assert "proj" in need and f"gastown bead retry {bead.pk}" in need and "git.branch_prefix" in need
    inbox.record(place.town, "bead.retry", bead.pk, {}, actor="ann")
    place.tick()
    assert Run.objects.filter(bead=bead, state="queued").exists() and needs(place) == []


def test_p5_a_silent_run_that_ends_needs_nobody_any_more(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    place.later(hours=1, seconds=5)
    Run.objects.filter(pk=run.pk).update(
        lease_until=place.now + dt.timedelta(minutes=1), activity_at=place.now - dt.timedelta(hours=1, seconds=1)
    )
    place.tick()
    (need,) = needs(place)
    assert "Silent run" in need
    place.exit(run, 1)
    place.tick()
    assert needs(place) == []
    closed = Bead.objects.get(type="escalation")
    assert closed.status == "closed" and "ended without gt_done" in closed.reason, bead
