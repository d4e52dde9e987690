"""What an operator's decisions do when the tick carries them out, and what the history keeps of them."""

from __future__ import annotations

import json

import pytest
from django.core.management import call_command
from django.utils import timezone

from agents import runs
from agents.lifecycle import RunOutcome
from agents.models import Run
from beads import inbox, ledger, outbox
from beads.actors import Actor
from beads.errors import Conflict, Superseded
from beads.models import Bead, Effect, Fact
from refinery.console import why
from refinery.decisions import merge_queue, operators, reviews, towns, work
from refinery.management.commands import wait
from refinery.models import ReviewEntry
from refinery.pages import boards
from refinery.store import landings
from tests.db.conftest import SHA, Place

WHO, WHY = Actor("admin", "olga"), "the host hangs"


def history(bead: Bead | str, kind: str) -> tuple[str, str]:
    """Who and why of the one event of a kind."""
    key = bead if isinstance(bead, str) else bead.pk
    event = Bead.objects.get(pk=key).events.get(kind=kind)
    return event.actor, event.reason


@pytest.mark.django_db
def test_a_fenced_run_says_nothing_any_more_and_its_work_goes_on(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    operators.fence_run(run, by=WHO, reason=WHY)
    place.tick()
    run.refresh_from_db()
    assert (run.state, run.outcome, run.reason) == ("ended", "lost", f"fenced by {WHO}: {WHY}")
    assert run.token_hash is None
    with pytest.raises(Superseded):
        place.exit(run, 0, SHA["a"])
    assert history(bead, "run_fenced") == (str(WHO), WHY)
    assert Run.objects.get(bead=bead, state="queued").attempt == 2
    assert Run.objects.exclude(state="ended").count() == 1
    with pytest.raises(Conflict):
        operators.fence_run(run, by=WHO, reason=WHY)


@pytest.mark.django_db
def test_a_run_that_ended_meanwhile_is_not_fenced(place: Place) -> None:
    place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    operators.fence_run(run, by=WHO, reason=WHY)
    runs.end(run.pk, "running", RunOutcome.FAILED, "by itself", place.now)
    place.tick()
    run.refresh_from_db()
    assert (run.outcome, run.reason) == ("failed", "by itself")
    assert not Fact.objects.exclude(error="").exists()


@pytest.mark.django_db
def test_a_stopped_runs_bead_tells_who_and_why(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    operators.stop_run(run, by=WHO, reason=WHY)
    place.tick()
    assert history(bead, "run_stop_requested") == (str(WHO), WHY)


@pytest.mark.django_db
def test_a_requeued_entry_gets_on_again_behind_the_others_built_and_gated_anew() -> None:
    place = Place(train={"window": 1})
    first = place.entry("one")
    place.tick()
    second = place.entry("two", SHA["d"])
    place.built(first)
    place.gated(0)
    ledger.set_priority(second.bead, 1)  # the next in the queue
    place.now = timezone.now()  # gate results carry the real time
    merge_queue.requeue(ReviewEntry.objects.get(pk=first.pk), by=WHO, reason=WHY)
    place.tick()
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.admitted_at, second.admitted_at is not None) == (None, True)
    assert history(first.pk, "requeued") == (str(WHO), WHY)
    assert first.landings.get().state == "abandoned"
    inbox.record(place.town, "entry.reject", second.pk, {"reason": "no"}, actor="test")
    place.tick()
    first.refresh_from_db()
    assert first.admitted_at is not None
    assert first.build_no == 2
    place.built(first)
    assert Run.objects.filter(bead=first.pk, kind="gates", state="queued").exists()


@pytest.mark.django_db
def test_what_waits_or_is_being_pushed_is_not_requeued() -> None:
    place = Place(train={"window": 1})
    first = place.entry("one")
    place.tick()
    waiting = place.entry("two", SHA["d"])
    with pytest.raises(Conflict, match="waits in the queue already"):
        merge_queue.requeue(waiting, by=WHO, reason=WHY)
    place.built(first)
    place.gated(0)
    first.refresh_from_db()
    assert first.landings.get().state == "intent"
    landing = first.landings.get()
    merge_queue.requeue(first, by=WHO, reason=WHY)
    assert landings.begin_push(landing.pk)  # between the click and the tick
    place.tick(rounds=12)
    first.refresh_from_db()
    assert first.admitted_at is not None
    assert first.landings.get().state == "pushing"
    with pytest.raises(Conflict, match="being pushed"):
        merge_queue.requeue(first, by=WHO, reason=WHY)


@pytest.mark.django_db
def test_a_promoted_entry_is_next() -> None:
    place = Place(train={"window": 1})
    busy = place.entry("busy")
    place.tick()
    place.entry("second", SHA["d"])
    third = place.entry("third", SHA["e"])
    merge_queue.promote(third, by=WHO, reason=WHY)
    place.tick()
    lane = next(iter(boards.Board(place.town).lanes.values()))
    assert [view.branch for view in lane] == ["third", "busy", "second"]  # urgent: ahead of what is not pushed
    assert history(third.pk, "promoted") == (str(WHO), WHY)
    with pytest.raises(Conflict, match="has priority 0 already"):
        merge_queue.promote(ReviewEntry.objects.get(pk=third.pk), by=WHO, reason=WHY)
    assert busy.pk == lane[1].id


@pytest.mark.django_db
def test_a_replayed_observation_changes_nothing_that_stands(place: Place) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    fact = Fact.objects.get(kind="candidate.built")
    operators.replay_fact(fact, by=WHO, reason=WHY)
    place.tick()
    again = Fact.objects.get(kind="candidate.built", actor=str(WHO))
    assert (again.processed_at is not None, again.error, again.payload["replay_of"]) == (True, "", fact.pk)
    assert entry.candidates.count() == 1


@pytest.mark.django_db
def test_a_decision_is_not_replayed_in_anothers_name(place: Place) -> None:
    entry = place.entry()
    reviews.approve(entry, by=Actor("web", "rita"))
    place.tick()
    with pytest.raises(Conflict, match="take the decision again"):
        operators.replay_fact(Fact.objects.get(kind="entry.verdict"), by=WHO, reason=WHY)
    assert entry.verdicts.count() == 1


@pytest.mark.django_db
def test_pausing_and_parking_leave_a_trace_of_who_and_why(place: Place) -> None:
    towns.pause(place.town, by=WHO, reason=WHY)
    towns.park(place.rig, by=WHO, reason=WHY)
    towns.resume(place.town, by=WHO, reason="it is back")
    towns.unpark(place.rig, by=WHO, reason="it is back")
    place.tick()
    told = [(f.kind, f.actor, f.payload["reason"]) for f in Fact.objects.all()]
    assert told == [
        ("town.pause", str(WHO), WHY),
        ("rig.park", str(WHO), WHY),
        ("town.resume", str(WHO), "it is back"),
        ("rig.unpark", str(WHO), "it is back"),
    ]
    assert not Fact.objects.filter(processed_at=None).exists()


# -- why is this stuck? ---------------------------------------------------------------------------------------------


def said(sentences: list[why.Sentence]) -> str:
    return "\n".join(f"{s.subject}: {s.text}" for s in sentences)


@pytest.mark.django_db
def test_why_goes_from_a_bead_to_what_it_waits_for(place: Place) -> None:
    first = place.bead("First")
    second = place.bead("Second", first)
    place.tick()
    run = Run.objects.get(bead=first)
    told = why.of_bead(second)
    assert told[0].subject == f"bead {second.pk}"
    assert told[0].text == f"waits for {first.pk} (in_progress)"
    assert f"bead {first.pk}: run {run.pk} is queued" in said(told)
    assert told[1].link.endswith(f"/{first.pk}/change/")
    assert f"run {run.pk}: waits for a runner to pick it" in said(why.of_bead(first))


@pytest.mark.django_db
def test_why_names_the_entry_in_front_the_rework_and_the_pause() -> None:
    place = Place(train={"window": 1})
    front = place.entry("front")
    place.tick()
    behind = place.entry("behind", SHA["d"])
    place.tick()
    text = said(why.of_entry(ReviewEntry.objects.get(pk=behind.pk)))
    assert "lane proj main: 1 of 1 cars; 1 more wait" in text
    assert f"entry {front.pk}: the candidate is being built" in text
    ledger.pause_town(place.town, "lunch")
    place.town.refresh_from_db()
    assert "town main: paused: lunch" in said(why.of_entry(ReviewEntry.objects.get(pk=behind.pk)))
    place.built(front)
    place.gated(1)
    rework = Bead.objects.get(purpose="rework")
    text = said(why.of_entry(ReviewEntry.objects.get(pk=front.pk)))
    assert f"entry {front.pk}: waits for rework {rework.pk}" in text
    assert f"bead {rework.pk}: " in text


@pytest.mark.django_db
def test_why_shows_failing_effects_quarantined_facts_and_escalations_about_it(place: Place) -> None:
    entry = place.entry()
    place.tick()
    effect = Effect.objects.get(kind="build")
    for _ in range(4):
        with outbox.holding(effect.pk) as held:
            assert held is not None
            outbox.retry_later(held, place.now, "the remote is away")
    inbox.record(place.town, "no.such.kind", entry.pk)
    for _ in range(inbox.MAX_TRIES):
        place.tick()
    ledger.escalate(place.town, ledger.Problem("k", "Somebody look", about=entry.bead), actor="test")
    text = said(why.of_entry(ReviewEntry.objects.get(pk=entry.pk)))
    assert f"effect {effect.pk}: build keeps failing: the remote is away" in text
    assert "no.such.kind is quarantined: Invalid" in text
    assert ": Somebody look" in text


@pytest.mark.django_db
def test_why_of_what_has_ended_says_how(place: Place) -> None:
    bead = place.bead()
    work.cancel_bead(bead, by=WHO, reason="not wanted")
    place.tick()
    bead.refresh_from_db()
    assert said(why.of_bead(bead)).startswith(f"bead {bead.pk}: {bead.status} (cancelled): ")
    entry = place.entry()
    merge_queue.reject(entry, by=WHO, reason="no")
    place.tick()
    entry.refresh_from_db()
    assert said(why.of_entry(entry)).startswith(f"entry {entry.pk}: failed (rejected): no")


def test_nothing_is_idle_between_two_ticks_of_which_the_second_has_something_to_do(place: Place) -> None:
    assert wait._idle()[0] is True
    place.bead()  # its run is started by the next tick
    good, busy = wait._idle()
    assert (good, busy["planned"]) == (None, 1)
    assert not any(count for name, count in busy.items() if name != "planned")
    place.tick()
    assert wait._idle()[1]["runs"] == 1


def test_a_list_shows_as_many_as_were_asked_for_the_newest_first(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [place.bead().pk for _ in range(3)]

    def ids(limit: int) -> list[str]:
        call_command("bead", "list", "--limit", str(limit), "--json")
        return [row["id"] for row in json.loads(capsys.readouterr().out)["data"]]

    assert ids(2) == made[:0:-1]
    assert ids(100_000) == made[::-1]
    assert ids(0) == made[::-1]  # all
    with pytest.raises(SystemExit, match="2"):
        ids(-1)
