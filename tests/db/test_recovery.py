"""What gets lost comes back, what falls silent is looked after, what cannot be used stops only itself."""

from __future__ import annotations

import pytest

from agents import runs
from agents.models import Nudge, Run
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Invalid
from beads.models import Bead, Effect, Escalation, Fact
from refinery.decisions import merge_queue, reviews, towns, work
from refinery.models import Landing
from refinery.tick import reconciler
from tests.db.conftest import SHA, Place


def answer(place: Place, kind: str) -> Effect:
    """The executor did it and its answer got lost: the effect is done, no fact remains."""
    effect = place.effects(kind)[-1]
    Effect.objects.filter(pk=effect.pk).update(state="done")
    return effect


def test_a_lost_build_is_built_again(place: Place) -> None:
    entry = place.entry()
    place.tick()
    answer(place, "build")
    place.tick()
    entry.refresh_from_db()
    assert (entry.build_no, entry.land_retries) == (2, 0)
    place.built(entry)
    assert Run.objects.filter(kind="gates").count() == 1


def test_a_lost_push_is_looked_at_again_and_not_a_second_landing(place: Place) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    place.gated()
    effect = answer(place, "land")
    place.tick()
    effect.refresh_from_db()
    assert effect.state == "pending"
    assert Landing.objects.count() == 1


def test_cars_that_are_carried_by_anothers_push_wait_for_that_one(db: None) -> None:
    place = Place(gates=[], allow_no_gates=True, auto_merge=False)
    entries = [place.entry(name, head) for name, head in (("one", SHA["a"]), ("two", SHA["d"]))]
    place.tick()
    for entry in entries:
        reviews.approve(entry, by=Actor("", "alice"))
    base, on = SHA["b"], None
    for number, entry in enumerate(entries):
        place.tick()
        entry.refresh_from_db()
        told = {"build_no": entry.build_no, "result": "built", "head": entry.head_sha, "base": base, "on": on}
        base = f"{number + 7:040x}"
        inbox.record(place.town, "candidate.built", entry.pk, told | {"sha": base, "tree": SHA["8"]})
        if not number:
            merge_queue.freeze(place.rig, by=Actor("", "alice"), reason="until both are built")
        place.tick()
        on = entry.candidates.get(build_no=entry.build_no).pk
    merge_queue.thaw(place.rig, by=Actor("", "alice"))
    place.tick()
    assert [bool(x.push_id) for x in Landing.objects.order_by("pk")] == [False, True]
    for _ in range(3):
        place.later(minutes=1)
        place.tick()
    assert len(place.effects("land")) == 1


def test_nothing_is_taken_for_lost_while_facts_wait(place: Place) -> None:
    entry = place.entry()
    place.tick()
    answer(place, "build")
    inbox.record(place.town, "no.such.kind", "x", {})  # it is tried three times: until then the inbox is not read out
    reconciler.tick(place.town, place.now)
    entry.refresh_from_db()
    assert entry.build_no == 1


def test_a_lost_look_at_a_feature_branch_is_asked_for_again(place: Place) -> None:
    plan = [{"key": "a", "rig": place.rig, "title": "A", "body": "", "priority": 2, "after": []}]
    convoy = ledger.create_convoy(place.rig, "C", "review-then-land", plan, actor="test")
    work.start_convoy(convoy, by=Actor("", "alice"))
    place.tick()
    answer(place, "create_branch")
    place.tick()
    assert [e.state for e in place.effects("create_branch")] == ["done", "pending"]
    Effect.objects.filter(kind="create_branch", state="pending").update(state="failed", error="no such remote")
    place.tick()
    assert len(place.effects("create_branch")) == 2  # given up: a person is needed, and told why
    found = next(d for d in reconciler.explain(place.town, place.now) if d.subject == f"convoy {convoy.pk}")
    assert "no such remote" in found.why


def test_a_silent_run_is_reminded_told_of_and_stopped_and_a_reported_tool_is_activity(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run, _ = place.running()

    def silent(minutes: int) -> None:
        for _ in range(minutes):
            place.later(minutes=1)
            runs.heartbeat(run.pk, place.now)
            reconciler.tick(place.town, place.now)

    silent(14)
    assert not Nudge.objects.exists()
    silent(2)
    assert Nudge.objects.count() == 1
    runs.heartbeat(run.pk, place.now, active_tool="cargo build")
    silent(180)
    assert (Nudge.objects.count(), Escalation.objects.count()) == (1, 0)
    runs.heartbeat(run.pk, place.now, activity_at=place.now, active_tool="")
    silent(61)
    assert (Nudge.objects.count(), Escalation.objects.filter(about=bead).count()) == (2, 1)
    silent(60)
    run.refresh_from_db()
    assert run.stop_requested_at is not None
    place.exit(run, 0)
    place.tick()
    run.refresh_from_db()
    assert (run.outcome, run.reason) == ("failed", "stopped by the patrol: no activity for 2h")


def test_the_breaker_pauses_dispatch_lets_one_run_through_and_the_first_success_closes_it(place: Place) -> None:
    for n in range(4):
        place.bead(f"Bead {n}")
    while not Escalation.objects.filter(key="breaker").exists():
        place.tick()
        while picked := runs.pick("runner", place.now):
            runs.start_failed(picked[0].pk, "broken host")
        place.later(minutes=1)
    place.later(minutes=3)
    place.tick()
    assert Escalation.objects.filter(key="breaker", closed_at=None).count() == 1
    assert not Run.objects.exclude(state="ended").exists()
    place.later(minutes=1)
    place.tick()
    run, _ = place.running()  # the probe: one, and no other
    assert Run.objects.exclude(state="ended").count() == 1
    place.say(run, "run.done", summary="fine")
    place.exit(run, 0, SHA["a"])
    place.tick()
    assert not Escalation.objects.filter(key="breaker", closed_at=None).exists()
    assert Run.objects.filter(state="queued", kind="polecat").count() == 3


def test_what_keeps_runs_from_starting_is_one_need_until_one_runs_and_another_one_the_next_time(place: Place) -> None:
    bead = place.bead()

    def cannot_start() -> None:
        place.later(hours=1)
        place.tick()
        while picked := runs.pick("runner", place.now):
            runs.start_failed(picked[0].pk, "no sandbox", "sandbox")
        place.tick()

    def needs() -> list[bool]:
        return [e.closed_at is None for e in Escalation.objects.filter(about=bead).order_by("bead__created_at")]

    cannot_start()
    cannot_start()
    assert needs() == [True]
    place.later(hours=1)
    place.tick()
    run, _ = place.running(bead=bead)
    place.tick()  # until it is quiet: what is settled is not settled again while its bead lives
    assert needs() == [False]
    place.exit(run, 1)
    place.tick()
    cannot_start()
    assert needs() == [False, True]


def test_a_config_that_cannot_be_used_with_a_rigs_is_refused_at_the_door(place: Place) -> None:
    towns.set_config(place.rig, by=Actor("", "alice"), text='dispatch.heartbeat = "20s"')
    with pytest.raises(Invalid, match=r"rig proj could not be used any more: .*lease must be at least twice the"):
        towns.set_config(place.town, by=Actor("", "alice"), text='dispatch.lease = "30s"')
    place.town.refresh_from_db()
    assert "lease" not in place.town.config.get("dispatch", {})


def test_a_config_that_became_unusable_holds_its_own_rig_and_no_other(place: Place) -> None:
    ledger.set_config(place.rig, {"refinery": {"no_such_key": 1}})  # as an older version may have left it
    place.bead()
    held = place.entry()
    other = ledger.create_rig(place.town, "other", "/other.git", "main")
    place.rig = other
    free = place.entry("free", SHA["d"])
    place.town.refresh_from_db()
    place.tick()
    held.refresh_from_db()
    free.refresh_from_db()
    assert (held.admitted_at, free.admitted_at is None) == (None, False)
    assert not Run.objects.exists()
    told = {d.subject: d.why for d in reconciler.explain(place.town, place.now)}
    assert "no_such_key" in told[f"entry {held.pk}"]
    assert any("no_such_key" in why for subject, why in told.items() if subject.startswith("bead"))


def test_a_cancelled_bead_of_a_broken_rig_still_ends(place: Place) -> None:
    bead = place.bead()
    ledger.set_config(place.rig, {"refinery": {"no_such_key": 1}})
    work.cancel_bead(bead, by=Actor("", "alice"), reason="not wanted")
    place.tick()
    assert Bead.objects.get(pk=bead.pk).resolution == "cancelled"
    assert not Fact.objects.filter(processed_at=None).exists()


def test_facts_are_kept_in_order_over_a_long_inbox(place: Place) -> None:
    beads = [place.bead(f"Bead {n}") for n in range(3)]
    for n in range(1100):
        inbox.record(place.town, "run.start_failed", f"{n}", {})
    work.cancel_bead(beads[0], by=Actor("", "alice"))
    place.tick()
    assert Bead.objects.get(pk=beads[0].pk).resolution == "cancelled"
