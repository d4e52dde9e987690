"""P: what people, reviewers and authors say reaches whoever is to act on it, once, whatever state it was said in."""

from __future__ import annotations

import pytest
from django.core.management import call_command

from agents.models import Mail, Run
from beads import inbox
from beads.errors import Conflict
from beads.models import Bead, Escalation
from refinery.decisions import merge_queue, operators, reviews, work
from refinery.models import Landing, ReviewEntry
from refinery.store import comments
from tests.db.conftest import SHA, Place
from tests.db.words import (
    OLAF,
    RITA,
    call,
    hand_in,
    held_at_the_limit,
    now,
    prompt,
    review,
    reworked,
    reworking,
    to_review,
)


@pytest.fixture
def town(db: None) -> Place:
    """Gates and a reviewing refinery, one round of rework."""
    return Place(code_review=True, max_rework_cycles=1)


def test_p1_what_a_person_asks_for_of_a_held_entry_is_in_the_next_round(town: Place) -> None:
    entry = held_at_the_limit(town)
    assert f"mq request-changes {entry.pk} --body" in Escalation.objects.get(about=entry.pk).bead.body
    reviews.request_changes(entry, by=RITA, body="put gate.sh back")
    town.tick()
    merge_queue.retry_entry(now(entry), by=RITA)  # it goes on already, by the request, beyond the limit of rounds
    town.tick()
    run = reworking(town)
    assert "put gate.sh back" in prompt(run)
    told = call(town, run, "gt_prime")
    assert told["rework"]["round"] == 2
    assert "put gate.sh back" in told["rework"]["feedback"]
    reworked(town, run, "it is back", SHA["f"])
    assert now(entry).head_sha == SHA["f"]
    reviewer = to_review(town, entry, SHA["7"])
    text = prompt(reviewer)
    assert "put gate.sh back" in text and "it is back" in text  # and its answer is the reviewer's to read


@pytest.mark.parametrize("code", ["gate_error", "build_error", "conflict", "push_refused", "review_gave_up"])
def test_p1_whatever_it_is_held_for(town: Place, code: str) -> None:
    entry = hand_in(town)
    ReviewEntry.objects.filter(pk=entry.pk).update(held=code, held_text="x", admitted_at=None, slot=None)
    reviews.request_changes(now(entry), by=RITA, body="another way, please")
    town.tick()
    assert "another way, please" in prompt(reworking(town))


@pytest.mark.parametrize("where", ["queued", "building", "gating", "reviewing", "red"])
def test_p1_wherever_it_stands(town: Place, where: str) -> None:
    ahead = town.entry("ahead", SHA["9"]) if where == "queued" else None
    entry = hand_in(town)
    if where == "queued":
        assert ahead is not None
        ReviewEntry.objects.filter(pk=entry.pk).update(admitted_at=None, slot=None)
    elif where != "building":
        town.built(entry)
        if where == "reviewing":
            town.gated(0)
        elif where == "red":
            reviews.request_changes(now(entry), by=RITA, body="rename it")  # in the same tick as the gates' end
            town.gated(1)
    if where != "red":
        reviews.request_changes(now(entry), by=RITA, body="rename it")
        town.tick()
    run = reworking(town)
    assert "rename it" in prompt(run)
    left = (
        Run.objects.filter(kind__in=["gates", "refinery"])
        .exclude(state="ended")
        .exclude(bead=ahead.pk if ahead else "")
    )
    assert all(r.stop_requested_at for r in left)  # what is being changed is neither gated nor reviewed


def test_p1_two_people_and_their_remarks_at_once(town: Place) -> None:
    entry = hand_in(town)
    remark = comments.Remark("a.py", "new", 3, quote="x = 1", body="why one?")
    comments.post(entry, remark, head=SHA["a"], by="web:ann")
    reviews.request_changes(entry, by=RITA, body="shorter")
    reviews.request_changes(entry, by=OLAF, body="", items=[{"file": "b.py", "line": 7, "problem": "typo"}])
    town.tick()
    text = prompt(reworking(town))
    assert "shorter" in text and "b.py:7: typo" in text
    assert "a.py:3: why one?" in text


def test_p1_said_during_a_round_it_is_told_at_once_and_makes_another_one(town: Place) -> None:
    entry = hand_in(town)
    review(town, to_review(town, entry), feedback="no tests")
    run = reworking(town)
    reviews.request_changes(entry, by=RITA, body="and a change log")
    town.tick()
    told = call(town, run, "gt_prime")
    assert [m["body"] for m in told["mail"] if m["kind"] == "CHANGES_REQUESTED"] == ["and a change log"]
    assert "gt_mail_check" in told["nudges"][0]
    reworked(town, run, "added tests", SHA["d"])
    again = reworking(town)
    text = prompt(again)
    assert text.count("and a change log") == 1
    assert "added tests" in text  # what was tried
    reworked(town, again, "and a change log", SHA["e"])
    assert Bead.objects.filter(purpose="rework").count() == 2  # heard, done: nobody asks again


def test_p1_words_for_a_round_whose_prompt_is_not_written_yet_are_in_it(town: Place) -> None:
    entry = hand_in(town)
    review(town, to_review(town, entry), feedback="no tests")
    reviews.request_changes(entry, by=RITA, body="and a change log")
    town.tick()
    run = reworking(town)
    assert "and a change log" in prompt(run)
    reworked(town, run, "both done", SHA["d"])
    assert not Run.objects.filter(purpose="rework", state="queued").exists()


def test_p1_a_request_for_a_head_that_was_replaced_meanwhile_still_counts(town: Place) -> None:
    entry = hand_in(town)
    reviews.request_changes(entry, by=RITA, body="not like this")
    inbox.record(town.town, "entry.head_seen", entry.pk, {"head": SHA["d"]}, actor="gastown")
    town.tick()
    assert now(entry).head_sha == SHA["d"]
    assert "not like this" in prompt(reworking(town))


def test_p1_too_late_is_said_and_an_approval_takes_a_request_back(town: Place) -> None:
    entry = hand_in(town)
    review(town, to_review(town, entry))
    landing = Landing.objects.get(entry=entry)
    Landing.objects.update(state="pushing")
    with pytest.raises(Conflict, match="too late"):
        reviews.request_changes(now(entry), by=RITA, body="wait")
    Landing.objects.update(state="intent")
    reviews.request_changes(now(entry), by=RITA, body="wait")
    reviews.approve(now(entry), by=RITA)
    town.tick()
    assert not Bead.objects.filter(purpose="rework").exists()
    reviews.request_changes(now(entry), by=OLAF, body="wait")
    Landing.objects.update(state="pushing")  # between the door and the tick
    town.tick()
    inbox.record(town.town, "landing.concluded", str(landing.pk), {"state": "landed"})
    town.tick()
    assert now(entry).state == "merged"
    assert "wait" in Mail.objects.get(kind="TOO_LATE", recipient="overseer").body


def test_p1_an_intent_to_land_is_withdrawn_for_a_persons_request(town: Place) -> None:
    entry = hand_in(town)
    review(town, to_review(town, entry))
    reviews.request_changes(now(entry), by=RITA, body="wait")
    town.tick()
    assert Landing.objects.get(entry=entry).state == "abandoned"
    assert "wait" in prompt(reworking(town))


def test_p1_reasons_given_with_reject_and_retry_reach_the_next_attempt(town: Place) -> None:
    entry = hand_in(town)
    merge_queue.reject(entry, by=RITA, reason="wrong file altogether")
    town.tick()
    with pytest.raises(Conflict, match="mq retry"):
        reviews.request_changes(now(entry), by=RITA, body="again")
    source = Bead.objects.get(pk=entry.source_id)
    work.retry_bead(source, by=RITA, reason="write tools/gate.sh instead")
    town.tick()
    run = town.running(purpose="work")[0]
    text = prompt(run)
    assert "wrong file altogether" in text and "write tools/gate.sh instead" in text
    assert "Write gate.sh." in text
    assert {"REJECTED", "RETRIED"} == {m["kind"] for m in call(town, run, "gt_prime")["mail"]}
    town.say(run, "run.done", summary="there")
    town.exit(run, head=SHA["d"], work="new")
    town.tick()
    again = ReviewEntry.objects.get(source=source, state="active")
    reviewer = to_review(town, again, SHA["e"])
    assert "write tools/gate.sh instead" in prompt(reviewer)  # who judges it knows what was wished
    review(town, reviewer, feedback="no")
    assert "write tools/gate.sh instead" not in prompt(reworking(town))  # told once


def test_a_note_changes_nothing_and_is_in_the_next_prompt_of_the_author(
    town: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = hand_in(town)
    state = ReviewEntry.objects.filter(pk=entry.pk).values().get()
    assert reviews.note(entry, by=RITA, text="the API is frozen until Monday")
    assert not reviews.note(entry, by=RITA, text="the API is frozen until Monday")  # a double click
    town.tick()
    assert {**state, "updated_at": 0} == {**ReviewEntry.objects.filter(pk=entry.pk).values().get(), "updated_at": 0}
    call_command("mq", "show", entry.pk)
    assert "noted by cli:rita: the API is frozen until Monday" in capsys.readouterr().out
    reviewer = to_review(town, entry)
    assert "the API is frozen" in prompt(reviewer)
    review(town, reviewer, feedback="no tests")
    run = reworking(town)
    assert "the API is frozen until Monday" in prompt(run)
    reworked(town, run, "added", SHA["d"])
    assert not Mail.objects.filter(kind="NOTED", read_at=None).exists()  # told once


def test_a_note_on_what_has_left_the_queue_waits_for_its_retry_and_nobody_reads_one_on_what_landed(town: Place) -> None:
    entry = hand_in(town)
    merge_queue.reject(entry, by=RITA, reason="too early")
    town.tick()
    call_command("mq", "note", entry.pk, "now it is time")
    town.tick()
    work.retry_bead(Bead.objects.get(pk=entry.source_id), by=RITA)
    town.tick()
    assert "now it is time" in prompt(town.running(purpose="work")[0])
    ReviewEntry.objects.filter(pk=entry.pk).update(state="merged", merge_sha=SHA["f"])
    with pytest.raises(Conflict, match="nothing left to decide"):
        reviews.note(now(entry), by=RITA, text="too late")


def test_p1_an_answer_to_an_agents_call_for_help_reaches_its_next_attempt(town: Place) -> None:
    bead = town.bead("Ask")
    town.tick()
    run, _ = town.running(bead=bead)
    call(town, run, "gt_escalate", title="Which port?")
    town.exit(run, 1)
    town.tick()
    operators.close_escalation(Escalation.objects.get(about=bead), by=RITA, reason="8080")
    town.later(minutes=5)
    town.tick()
    text = prompt(town.running(bead=bead)[0])
    assert "8080" in text and "ended without gt_done" in text
