"""Rows R of the scenarios that live between facts, ticks and rows. (Those of processes: tests/acceptance.)"""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from agents import roster, runs
from agents.lifecycle import RunKind
from agents.models import Run
from beads import inbox, ledger
from beads.errors import LostRace, Superseded
from beads.models import Bead, BeadEvent, Escalation, Fact
from refinery.models import Landing, ReviewEntry, Verdict
from tests.db.conftest import SHA, Place


def review(place: Place, branch: str, head: str) -> tuple[ReviewEntry, Run, str]:
    """An entry whose review is running."""
    entry = place.entry(branch, head)
    place.tick()
    place.built(entry)
    run, token = place.running(kind="refinery")
    return entry, run, token


def test_r1_r4_r15_a_late_gt_done_is_refused_and_changes_no_other_entry(reviewed: Place) -> None:
    first, old, _ = review(reviewed, "one", SHA["a"])
    reviewed.say(old, "run.request_changes", feedback="no", items=[])
    reviewed.exit(old)
    reviewed.tick()
    _second, new, _ = review(reviewed, "two", SHA["d"])
    assert old.agent == new.agent  # the same refinery, now busy with another review
    with pytest.raises(Superseded), transaction.atomic():
        runs.hold(old.pk)
    inbox.record(reviewed.town, "run.done", old.pk, {})  # even a fact of it that slipped through
    reviewed.tick()
    assert [(v.entry_id, v.decision) for v in Verdict.objects.all()] == [(first.pk, "request_changes")]


def test_r2_no_second_review_while_a_verdict_is_on_its_way(reviewed: Place) -> None:
    entry, run, _ = review(reviewed, "one", SHA["a"])
    reviewed.say(run, "run.done", summary="fine")
    reviewed.exit(run)
    reviewed.tick()
    assert Run.objects.filter(kind="refinery").count() == 1
    assert Verdict.objects.get().entry_id == entry.pk
    reviewed.say(run, "run.done", summary="fine")
    reviewed.tick()
    assert Verdict.objects.count() == 1


def test_r3_a_stuck_refinery_holds_up_no_other_lane(reviewed: Place) -> None:
    review(reviewed, "stuck", SHA["a"])
    other = ledger.create_rig(reviewed.town, "other", "/other.git", "main")
    reviewed.rig = other
    elsewhere = reviewed.entry("free", SHA["d"])
    reviewed.tick()
    elsewhere.refresh_from_db()
    assert elsewhere.admitted_at is not None


def test_r5_r22_r24_one_claim_wins_and_a_late_one_is_refused(place: Place) -> None:
    place.bead()
    place.tick()
    picked = runs.pick("runner", place.now)
    assert picked is not None
    run, secret = picked
    assert Run.objects.get().state == "starting"
    runs.claim(run.pk, secret, place.now)
    with pytest.raises(Superseded):
        runs.claim(run.pk, secret, place.now)


def test_r5_a_claim_after_the_deadline_is_refused_and_a_new_attempt_starts(place: Place) -> None:
    bead = place.bead()
    place.tick()
    picked = runs.pick("runner", place.now)
    assert picked is not None
    run, secret = picked
    place.later(seconds=run.start_seconds + 1)
    with pytest.raises(Superseded):
        runs.claim(run.pk, secret, place.now)
    place.tick()
    tried = list(Run.objects.filter(bead=bead).order_by("attempt"))
    assert [(r.state, r.outcome) for r in tried] == [("ended", "start_failed"), ("queued", "")]
    with pytest.raises(Superseded):
        runs.claim(run.pk, secret, place.now)


def test_r6_an_older_head_never_pops_again(place: Place) -> None:
    old = place.entry("feature", SHA["a"])
    new = place.entry("feature", SHA["d"])
    place.tick()
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.reason, old.admitted_at) == ("superseded", None)
    assert new.admitted_at is not None


def test_r7_r12_a_review_that_waits_for_a_person_blocks_nobody_and_never_times_out(db: None) -> None:
    place = Place(auto_merge=False)
    waiting = place.entry("one", SHA["a"])
    place.tick()
    place.built(waiting)
    place.gated()
    other = place.entry("two", SHA["d"])
    place.tick()
    other.refresh_from_db()
    assert other.admitted_at is not None
    events = BeadEvent.objects.count()
    place.later(days=30)
    place.tick()
    waiting.refresh_from_db()
    assert (waiting.state, waiting.held) == ("active", "")
    assert BeadEvent.objects.count() == events


def test_r10_nothing_is_repeated_that_makes_no_progress(place: Place) -> None:
    ledger.park_rig(place.rig)
    place.bead()
    place.entry()
    place.tick()
    for _ in range(5):
        place.later(minutes=10)
        place.tick(rounds=1)
    assert not Run.objects.exists()


def test_r14_a_finished_bead_is_not_reopened_by_a_late_roll_back(place: Place) -> None:
    bead = place.bead()
    place.tick()
    ledger.move(bead, "in_progress", ledger.Transition("closed", resolution="done"), actor="test")
    with pytest.raises(LostRace):
        ledger.move(bead, "in_progress", ledger.Transition("open"), actor="late")
    assert Bead.objects.get(pk=bead.pk).status == "closed"


def test_r16_r25_a_run_that_heartbeats_is_never_taken_over_and_silence_fences_only_after_the_lease(
    place: Place,
) -> None:
    place.bead()
    place.tick()
    run, _ = place.running()
    for _ in range(60):
        place.later(seconds=30)
        runs.heartbeat(run.pk, place.now, activity_at=place.now)
        place.tick(rounds=1)
    assert Run.objects.get().state == "running"
    place.later(seconds=60)
    place.tick(rounds=1)
    assert Run.objects.get().state == "running"
    place.later(seconds=20)
    place.tick()
    run.refresh_from_db()
    assert (run.state, run.outcome, run.token_hash) == ("ended", "lost", None)
    with pytest.raises(Superseded):
        runs.heartbeat(run.pk, place.now)


def test_r17_r26_host_faults_retry_at_once_and_use_up_no_attempt(place: Place) -> None:
    bead = place.bead()
    place.tick()
    picked = runs.pick("runner", place.now)
    assert picked is not None
    runs.start_failed(picked[0].pk, "no space left on device")
    place.tick()
    assert Run.objects.get(state="queued").bead_id == bead.pk
    assert Run.objects.get(outcome="start_failed").reason == "no space left on device"
    assert not Run.objects.filter(outcome="failed").exists()


def test_r18_a_refused_transition_leaves_no_event_and_no_effect(place: Place) -> None:
    bead = place.bead()
    before = BeadEvent.objects.count()
    with pytest.raises(LostRace), transaction.atomic():
        ledger.move(bead, "in_review", ledger.Transition("closed", resolution="done"), actor="test")
    assert BeadEvent.objects.count() == before


def test_r20_each_run_keeps_its_own_error(place: Place) -> None:
    for n in range(2):
        place.bead(f"Bead {n}")
    place.tick()
    picked = [runs.pick("runner", place.now) for _ in range(2)]
    for n, pair in enumerate(picked):
        assert pair is not None
        runs.start_failed(pair[0].pk, f"error {n}")
    place.tick()
    assert set(Run.objects.filter(outcome="start_failed").values_list("reason", flat=True)) == {"error 0", "error 1"}


def test_r21_history_keeps_failed_as_failed(place: Place) -> None:
    old = place.entry("feature", SHA["a"])
    new = place.entry("feature", SHA["d"])
    place.tick()
    place.built(new)
    place.gated()
    landing = Landing.objects.get()
    inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed", "message": ""})
    place.tick()
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.state, old.bead.resolution, new.state) == ("failed", "superseded", "merged")


def test_r27_a_convoy_has_at_most_one_active_landing(place: Place) -> None:
    convoy = ledger.create_convoy(place.rig, "C", "review-then-land", [], actor="test")
    place.entry("convoy/c/head", SHA["a"], convoy=convoy, kind="landing")
    with pytest.raises(IntegrityError), transaction.atomic():
        place.entry("convoy/c/other", SHA["d"], convoy=convoy, kind="landing")


def test_r28_two_agents_cannot_have_one_bead_nor_one_agent_two(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run = Run.objects.get()
    with pytest.raises(LostRace):
        runs.queue_run(bead, runs.Assignment(RunKind.POLECAT, "work", target="main", steps=[], brief={}), agent=None)
    second = ledger.create_bead(place.town, place.rig, ledger.Draft("Other"), actor="test")
    with pytest.raises(LostRace):
        runs.queue_run(
            second, runs.Assignment(RunKind.POLECAT, "work", target="main", steps=[], brief={}), agent=run.agent
        )
    assert roster.polecat_for(place.rig) != run.agent


def test_r29_an_exit_without_gt_done_is_a_failed_attempt_and_its_work_is_kept(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run, _ = place.running()
    place.exit(run, 0, SHA["a"])
    place.tick()
    assert Bead.objects.get(pk=bead.pk).status == "open"
    assert Run.objects.get(pk=run.pk).outcome == "failed"
    place.later(minutes=1)
    place.tick()
    again = Run.objects.get(state="queued")
    assert (again.attempt, again.start_sha) == (2, SHA["a"])
    assert not ReviewEntry.objects.exists()


def test_g1_gt_done_without_a_commit_is_never_merged_and_waits_for_a_person(place: Place) -> None:
    bead = place.bead()
    place.tick()
    run, _ = place.running()
    place.say(run, "run.done", summary="it was fine as it was")
    place.exit(run, 0, work="nothing")
    place.later(minutes=1)
    place.tick()
    bead.refresh_from_db()
    assert (bead.status, bead.resolution) == ("failed", "nothing_changed")
    assert "it was fine as it was" in bead.reason
    assert Escalation.objects.get().severity == "medium"
    assert not ReviewEntry.objects.exists()
    assert Run.objects.count() == 1


def test_r31_observations_are_stored_once(place: Place) -> None:
    place.bead()
    place.tick()
    run, _ = place.running()
    facts = Fact.objects.count()
    for _ in range(10):
        runs.heartbeat(run.pk, place.now)
        place.tick(rounds=1)
    assert Fact.objects.count() == facts


def test_r32_a_bad_fact_is_tried_three_times_then_quarantined_and_the_rest_go_on(place: Place) -> None:
    inbox.record(place.town, "no.such.kind", "x", {})
    inbox.record(place.town, "candidate.built", "gt-missing", {"build_no": "many"})
    bead = place.bead()
    inbox.record(place.town, "bead.cancel", bead.pk, {"reason": "changed my mind"}, actor="alice")
    for _ in range(4):
        place.tick(rounds=2)
    bad = Fact.objects.filter(quarantined_at__isnull=False)
    assert [(f.attempts, bool(f.error)) for f in bad] == [(3, True), (3, True)]
    assert Bead.objects.get(pk=bead.pk).resolution == "cancelled"
    inbox.release(bad[0])
    assert Fact.objects.filter(quarantined_at=None, processed_at=None).count() == 1


def test_attempts_end_and_a_person_is_told(place: Place) -> None:
    bead = place.bead()
    for _ in range(5):
        place.tick()
        run, _ = place.running()
        place.exit(run, 1)
        place.tick()
        place.later(hours=1)
    bead.refresh_from_db()
    assert (bead.status, bead.resolution) == ("failed", "gave_up")
    assert Escalation.objects.get(closed_at=None).about_id == bead.pk
    inbox.record(place.town, "bead.retry", bead.pk, {}, actor="alice")
    place.tick()
    assert Run.objects.filter(bead=bead, state="queued").count() == 1


def test_a_dry_run_and_explain_change_nothing(place: Place) -> None:
    from refinery.tick import reconciler

    place.bead()
    report = reconciler.tick(place.town, place.now, dry_run=True)
    assert report.actions == {"StartRun": 1}
    assert not Run.objects.exists()
    assert [d.rule for d in reconciler.explain(place.town, place.now)] == ["dispatch"]


def test_the_tick_needs_a_fixed_number_of_queries(place: Place) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from refinery.tick import snapshot

    def count() -> int:
        with CaptureQueriesContext(connection) as caught:
            snapshot.load(place.town, place.now)
        return len(caught)

    place.entry("one", SHA["a"])
    place.bead()
    place.tick()
    few = count()
    for n in range(30):
        place.bead(f"Bead {n}")
        place.entry(f"branch-{n}", f"{n:040x}")
    place.tick()
    assert count() == few


def test_pr_strategy_waits_for_a_person_and_lands_the_head_they_approved(db: None) -> None:
    place = Place(merge_strategy="pr")
    entry = place.entry(head=SHA["a"])
    place.tick()
    place.built(entry)
    place.gated()
    entry.refresh_from_db()
    assert entry.admitted_at is None
    verdict = {"head": SHA["a"], "decision": "approve"}
    inbox.record(place.town, "entry.verdict", entry.pk, verdict, actor="web:rita")
    place.tick()
    assert not Landing.objects.exists()  # it merges by itself only after auto_merge_delay
    place.later(minutes=6)
    place.tick()
    place.built(entry)
    assert Landing.objects.get().candidate.head_sha == SHA["a"]
    assert Run.objects.filter(kind="gates").count() == 1  # the same tree is not gated twice
