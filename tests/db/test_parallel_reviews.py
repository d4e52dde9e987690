"""Several reviews of one lane at once: limits and races, and who is told what when one agent has several runs."""

from __future__ import annotations

import threading

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from agents import mail, roster, runs
from agents.api.tools import Call
from agents.api.toolset import talk
from agents.lifecycle import RunKind, RunOutcome
from agents.models import Agent, Run
from beads import config as configs
from beads import inbox
from beads.errors import LostRace
from beads.models import Bead, Effect, Town
from refinery.models import ReviewEntry, Verdict
from refinery.tick import invariants, reconciler
from tests.db.conftest import SHA, Place


def build(place: Place) -> None:
    """Git answers what was asked for, until nothing is: each candidate is another commit, with another tree."""
    while asked := [e for e in place.effects("build") if e.state == "pending"]:
        for effect in asked:
            told = {key: effect.payload[key] for key in ("build_no", "head", "on")} | {"result": "built"}
            told |= {"base": SHA["b"], "sha": f"{effect.pk + 100:040x}", "tree": f"{effect.pk + 5000:040x}"}
            inbox.record(place.town, "candidate.built", effect.payload["entry"], told)
        Effect.objects.filter(pk__in=[e.pk for e in asked]).update(state="done")
        place.tick()


def lane(place: Place, count: int) -> list[ReviewEntry]:
    """So many entries of the default branch, each built as far as the window reaches."""
    entries = [place.entry(f"b{n}", f"{n + 1:040x}") for n in range(count)]
    place.tick()
    build(place)
    return entries


def reviews() -> list[str]:
    """The entries that are being reviewed, in the order in which that began."""
    live = Run.objects.filter(kind="refinery").exclude(state="ended")
    return [r.bead_id for r in live.order_by("created_at", "pk")]


def test_three_are_reviewed_at_once_by_one_agent_and_each_verdict_reaches_its_own_entry(reviewed: Place) -> None:
    entries = lane(reviewed, 5)
    assert reviews() == [e.pk for e in entries[:3]]
    assert Agent.objects.filter(role="refinery").count() == 1
    live = [Run.objects.get(kind="refinery", bead=e.bead) for e in entries[:3]]
    while picked := runs.pick("runner", reviewed.now):
        runs.claim(picked[0].pk, picked[1], reviewed.now)
    reviewed.say(live[1], "run.request_changes", feedback="no", items=[])
    reviewed.exit(live[1])
    reviewed.tick()
    assert [(v.entry_id, v.decision, v.run_id) for v in Verdict.objects.all()] == [
        (entries[1].pk, "request_changes", live[1].pk)
    ]
    assert reviews() == [entries[0].pk, entries[2].pk]  # whose car ahead was sent back goes on
    assert not Run.objects.filter(stop_requested_at__isnull=False).exists()
    build(reviewed)
    assert reviews() == [entries[0].pk, entries[2].pk, entries[3].pk]
    reviewed.say(live[2], "run.done", summary="fine")
    reviewed.exit(live[2])
    reviewed.tick()
    assert Verdict.objects.get(entry=entries[2]).decision == "approve"
    assert reviews() == [entries[0].pk, entries[3].pk, entries[4].pk]
    assert invariants.look(reviewed.town, reviewed.now) == []


def test_a_limit_of_one_reviews_one_after_the_other(db: None) -> None:
    place = Place(code_review=True, gates=[], max_reviews=1)
    entries = lane(place, 3)
    assert reviews() == [entries[0].pk]
    found = {d.subject: d for d in reconciler.explain(place.town, place.now)}
    assert "refinery.max_reviews is 1" in found[f"entry {entries[1].pk}"].why
    run, _ = place.running(kind="refinery")
    place.say(run, "run.done", summary="fine")
    place.exit(run)
    place.tick()
    assert reviews() == [entries[1].pk]


def test_a_lower_limit_stops_nobody_and_starts_nobody_until_there_is_room(reviewed: Place) -> None:
    entries = lane(reviewed, 4)
    town = reviewed.town.config
    Town.objects.update(config=configs.validate({**town, "refinery": {**town["refinery"], "max_reviews": 1}}))
    reviewed.town.refresh_from_db()
    for entry in entries[:2]:
        run = Run.objects.get(kind="refinery", bead=entry.bead)
        runs.end(run.pk, "queued", RunOutcome.LOST, "gone", reviewed.now)
        reviewed.tick()
    assert reviews() == [entries[2].pk]
    runs.end(Run.objects.get(state="queued").pk, "queued", RunOutcome.LOST, "gone", reviewed.now)
    reviewed.tick()
    assert reviews() == [entries[0].pk]
    assert not Run.objects.filter(stop_requested_at__isnull=False).exists()


@pytest.mark.django_db(transaction=True)
def test_ticks_at_once_never_start_two_reviews_of_one_candidate_nor_more_than_may_be() -> None:
    place = Place(code_review=True, gates=[], max_reviews=2, train={"window": 8})
    entries = lane(place, 6)
    Run.objects.all().delete()  # as if nobody had started any
    gate, reports = threading.Barrier(4), []

    def tick() -> None:
        """What a reconciler of its own does."""
        try:
            gate.wait(30)
            reports.append(reconciler.tick(place.town, timezone.now()).actions.get("StartRun", 0))
        finally:
            connection.close()

    threads = [threading.Thread(target=tick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(reports) == [0, 0, 0, 2]
    assert sorted(reviews()) == sorted(e.pk for e in entries[:2])


def test_what_a_plan_did_not_see_is_refused_when_it_is_carried_out(reviewed: Place) -> None:
    """Whatever started a run since the world was looked at: the decision is lost, and nothing of it stays."""
    first, second = lane(reviewed, 2)
    agent = Agent.objects.get(role="refinery")
    other = reviewed.bead("Another")

    def queue(bead: Bead, at_most: int) -> Run:
        """A run of the refinery."""
        return runs.queue_run(
            bead,
            runs.Assignment(RunKind.REFINERY, "review", target="main", steps=[], brief={}),
            agent=agent,
            at_most=at_most,
        )

    with pytest.raises(LostRace, match="2 live runs, and may have 2"):
        queue(other, 2)
    with pytest.raises(LostRace):  # the same candidate
        queue(first.bead, 9)
    assert sorted(reviews()) == sorted([first.pk, second.pk])
    assert queue(other, 3).agent == agent


def test_only_a_refinery_may_have_several(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run = Run.objects.get(bead=bead)
    other = place.bead("Other")
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.create(
            town=place.town, rig=place.rig, bead=other, agent=run.agent, kind="polecat", purpose="work", attempt=1
        )


def test_a_hint_for_a_refinery_reaches_each_of_its_runs_once_and_a_reminder_only_the_silent_one(
    reviewed: Place,
) -> None:
    lane(reviewed, 2)
    while picked := runs.pick("runner", reviewed.now):
        runs.claim(picked[0].pk, picked[1], reviewed.now)
    agent = Agent.objects.get(role="refinery")
    silent, busy = Run.objects.select_related("town", "agent", "bead").filter(agent=agent).order_by("created_at", "pk")
    talk.nudge(Call(busy, reviewed.now), talk.NudgeArgs(to=agent.name, message="the docs moved"))
    for run in (silent, busy):
        assert mail.take_nudges(run, reviewed.now) == [f"{agent.name}: the docs moved"]
        assert mail.take_nudges(run, reviewed.now) == []
    reviewed.later(minutes=16)
    for run in (silent, busy):
        runs.heartbeat(run.pk, reviewed.now, activity_at=reviewed.now if run == busy else None)
    reviewed.tick()
    assert mail.take_nudges(busy, reviewed.now) == []
    (told,) = mail.take_nudges(silent, reviewed.now)
    assert told.startswith("patrol: no activity for 16m")


def test_a_convoys_refinery_retires_when_the_last_of_its_runs_has_ended(reviewed: Place) -> None:
    lane(reviewed, 2)
    agent = Agent.objects.get(role="refinery")
    first, second = Run.objects.filter(agent=agent)
    runs.end(first.pk, "queued", RunOutcome.LOST, "gone", reviewed.now)
    assert not roster.retire(agent, reviewed.now)
    runs.end(second.pk, "queued", RunOutcome.LOST, "gone", reviewed.now)
    assert roster.retire(agent, reviewed.now)


def test_whatever_a_refinery_is_at_counts(reviewed: Place) -> None:
    """A run for another purpose, of an entry that is no car, takes a place as well."""
    agent = roster.refinery_for(reviewed.rig, None)
    for number in range(2):
        runs.queue_run(
            reviewed.bead(f"Odd {number}"),
            runs.Assignment(RunKind.REFINERY, "triage", target="main", steps=[], brief={}),
            agent=agent,
            at_most=3,
        )
    entries = lane(reviewed, 3)
    assert Run.objects.filter(purpose="review").get().bead_id == entries[0].pk
