"""Each compare-and-swap, constraint and fence by itself: what it is there for. `tests/mutations/` removes them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from agents import runs, tokens
from agents.lifecycle import RunKind, RunOutcome
from agents.models import Run
from beads import ledger, outbox
from beads.errors import LostRace, Superseded
from beads.lifecycle import BeadType
from beads.models import Effect
from refinery.core.entryviews import NotNeeded
from refinery.models import Candidate, GateResult, Landing, ReviewEntry
from refinery.store import entries, landings
from tests.db.conftest import SHA, Place


def test_a_run_is_ended_only_from_the_state_that_was_decided_on(place: Place) -> None:
    place.bead()
    place.tick()
    run, token = place.running()
    with pytest.raises(LostRace):
        runs.end(run.pk, "starting", RunOutcome.START_FAILED, "late", place.now)
    live = tokens.live_run(token)
    assert live is not None and live.pk == run.pk


def test_a_claim_needs_the_secret_that_its_runner_was_given(place: Place) -> None:
    place.bead()
    place.tick()
    picked = runs.pick("runner", place.now)
    assert picked is not None
    with pytest.raises(Superseded):
        runs.claim(picked[0].pk, "guessed", place.now)


def test_a_runs_first_word_counts(place: Place) -> None:
    place.bead()
    place.tick()
    run, _ = place.running()
    assert runs.set_result(run.pk, "done", "first", place.now)
    assert not runs.set_result(run.pk, "request_changes", "second", place.now)
    assert Run.objects.get(pk=run.pk).summary == "first"


def test_one_bead_has_one_live_agent_run(place: Place) -> None:
    bead = place.bead()
    place.tick()
    with pytest.raises(LostRace):
        runs.queue_run(bead, runs.Assignment(RunKind.POLECAT, "work", target="main", steps=[], brief={}), agent=None)


def test_a_branch_has_one_active_entry_for_a_target(place: Place) -> None:
    entry = place.entry()
    other = place.entry("other", SHA["d"])
    with pytest.raises(IntegrityError), transaction.atomic():
        ReviewEntry.objects.filter(pk=other.pk).update(branch=entry.branch)


def test_an_entry_moves_only_from_what_was_decided_on(place: Place) -> None:
    entry = place.entry()
    place.tick()
    entry.refresh_from_db()
    for act in (
        lambda: entries.admit(entry.pk, entry.build_no, 9.0, place.now),  # it is admitted already
        lambda: entries.rebuild(entry.pk, entry.build_no - 1, counts=True),
        lambda: entries.new_head(entry.pk, SHA["f"], SHA["e"], "feature"),
    ):
        with pytest.raises(LostRace), transaction.atomic():
            act()
    entries.close(entry, "failed", "rejected", "no", now=place.now)
    with pytest.raises(LostRace), transaction.atomic():
        entries.hold(entry.pk, "gate_error", "too late")


def green(place: Place) -> tuple[ReviewEntry, Candidate, list[int]]:
    """An entry whose gates have passed, and which has not landed yet: the rest of the plan is kept back."""
    entry = place.entry()
    place.tick()
    place.built(entry)
    run, _ = place.running(kind="gates")
    raw = {"exit_code": 0, "signal": None, "timed_out": False}
    place.exit(run, 0, steps=[{"name": "true", "outcome_raw": raw, "output": ""}])
    place.tick()
    Landing.objects.all().delete()
    entry.refresh_from_db()
    return entry, Candidate.objects.get(), list(GateResult.objects.values_list("pk", flat=True))


def test_only_the_present_candidate_is_pushed(place: Place) -> None:
    entry, candidate, evidence = green(place)
    entries.rebuild(entry.pk, entry.build_no, counts=False)
    with pytest.raises(LostRace):
        landings.intend([(candidate, evidence)])


def test_only_what_passed_on_exactly_its_tree_is_pushed(place: Place) -> None:
    _, candidate, evidence = green(place)
    GateResult.objects.update(outcome="fail")
    with pytest.raises(LostRace):
        landings.intend([(candidate, evidence)])
    GateResult.objects.update(outcome="pass", tree_sha=SHA["e"])
    with pytest.raises(LostRace):
        landings.intend([(candidate, evidence)])


def chained(entry: ReviewEntry, base: Candidate, letter: str, **more: str) -> Candidate:
    """A car that stands on `base`, of an entry of its own."""
    bead = ledger.create_bead(
        entry.rig.town, entry.rig, ledger.Draft(letter, type=BeadType.MERGE_REQUEST), actor="test"
    )
    told = {"branch": letter, "head_sha": SHA["f"], "target": entry.target, "build_no": 1}
    car = ReviewEntry.objects.create(bead=bead, rig=entry.rig, **told)
    shas = {"head_sha": SHA["f"], "base_sha": base.sha, "sha": SHA[letter], "tree_sha": SHA["a"]}
    return Candidate.objects.create(entry=car, build_no=1, result="built", on=base, **shas, **more)


def test_what_was_gated_for_a_batch_counts_only_for_its_members(place: Place) -> None:
    entry, first, evidence = green(place)
    gated = GateResult.objects.get()
    last = chained(entry, first, "e", seal_sha=first.base_sha)
    tip = GateResult.objects.create(
        entry=last.entry,
        candidate=last,
        run=gated.run,
        tree_sha=last.tree_sha,
        gate="all",
        command="all",
        outcome="pass",
    )
    for wrong in (SHA["d"], ""):  # it seals something else, or nothing
        Candidate.objects.filter(pk=last.pk).update(seal_sha=wrong)
        last.refresh_from_db()
        with pytest.raises(LostRace), transaction.atomic():
            landings.intend([(first, [tip.pk]), (last, [tip.pk])])
    Candidate.objects.filter(pk=last.pk).update(seal_sha=first.base_sha)
    last.refresh_from_db()
    with pytest.raises(LostRace), transaction.atomic():
        landings.intend([(first, [tip.pk])])  # its batch is not with it
    with pytest.raises(LostRace), transaction.atomic():
        landings.intend([(first, evidence), (last, evidence)])  # the last one's own tree was not gated
    push = landings.intend([(first, [tip.pk]), (last, [tip.pk])])
    assert [landings.ends(car) for car in landings.cars_of(push)] == [False, True]


def test_a_gate_is_done_without_only_where_the_candidate_says_so(place: Place) -> None:
    _, candidate, evidence = green(place)
    candidate.untouched = [["src/**"]]
    with pytest.raises(LostRace):
        landings.intend([(candidate, [*evidence, NotNeeded("unit", ("lib/**",))])])
    landing = landings.intend([(candidate, [*evidence, NotNeeded("unit", ("src/**",))])])
    assert [e["outcome"] for e in landing.evidence] == ["pass", "not_needed"]


def test_what_is_being_pushed_cannot_be_withdrawn_and_what_was_withdrawn_is_not_pushed(place: Place) -> None:
    _, candidate, evidence = green(place)
    first = landings.intend([(candidate, evidence)])
    assert landings.begin_push(first.pk)
    with pytest.raises(LostRace):
        landings.abandon(first.pk, place.now)
    Landing.objects.all().delete()
    second = landings.intend([(candidate, evidence)])
    landings.abandon(second.pk, place.now)
    assert not landings.begin_push(second.pk)


@pytest.mark.django_db(transaction=True)
def test_an_effect_is_run_by_one_at_a_time() -> None:
    place = Place()
    place.entry()
    place.tick()
    effect = Effect.objects.get(kind="build")
    found: list[Any] = []

    def other() -> None:
        try:
            with outbox.holding(effect.pk) as held:
                found.append(held)
        finally:
            connection.close()

    with outbox.holding(effect.pk) as mine:
        assert mine is not None
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [None]
    with outbox.holding(effect.pk) as again:
        assert again is not None
