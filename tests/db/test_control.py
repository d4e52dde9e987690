"""The emergency lane, and the closed set of reasons: whoever leaves comes back in one step."""

from __future__ import annotations

import datetime as dt
import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents.api.tools import Call
from agents.api.toolset.convoys import ConvoyArgs, convoy_status
from agents.models import Run
from beads import config as configs
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Conflict, Invalid, LostRace
from beads.models import BeadEvent, Escalation
from refinery import agent_tools
from refinery.core.reasons import RE_ENTRY, Exit, Held
from refinery.decisions import merge_queue, work
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, Waiver
from refinery.pages import boards, town_context, ways
from refinery.store import entries, landings, verdicts
from refinery.tick import invariants
from tests.db.conftest import SHA, Place

WHO = Actor("cli", "olga")
WHY = "the shop is down"


def again(entry: ReviewEntry) -> ReviewEntry:
    """As it is now."""
    return ReviewEntry.objects.select_related("bead", "rig__town", "source").get(pk=entry.pk)


def train() -> list[str]:
    """The cars' branches, in order."""
    return list(ReviewEntry.objects.filter(slot__isnull=False).order_by("slot").values_list("branch", flat=True))


def broken(place: Place) -> set[int]:
    """The numbers of broken promises."""
    return {b.invariant.number for b in invariants.look(place.town, place.now)}


def test_land_now_goes_ahead_of_all_that_is_not_being_pushed_and_is_gated_as_ever(place: Place) -> None:
    for n, name in enumerate(("one", "two")):
        place.entry(name, f"{n + 1:040x}", priority=0)
    last = place.entry("last", SHA["a"], priority=4)
    place.tick()
    assert train() == ["one", "two", "last"]
    assert merge_queue.land_now(last, by=WHO, reason=WHY)
    place.tick()
    assert train() == ["last", "one", "two"]
    assert again(last).attempts == 1
    assert not merge_queue.land_now(again(last), by=WHO, reason=WHY)
    place.built(last)
    assert not Landing.objects.exists()
    place.gated()
    assert Landing.objects.get().entry_id == last.pk
    assert [e["outcome"] for e in Landing.objects.get().evidence] == ["pass"]
    event = BeadEvent.objects.get(kind="land_now")
    assert (event.actor, event.reason, event.data["skip_gates"]) == (str(WHO), WHY, False)


def skipped(place: Place) -> tuple[ReviewEntry, Landing]:
    """An entry that landed without its gates, in olga's name."""
    entry = place.entry()
    merge_queue.land_now(entry, by=WHO, reason=WHY, skip_gates=True)
    place.tick()
    place.built(entry)
    landing = Landing.objects.get()
    inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed"})
    place.tick()
    return again(entry), Landing.objects.get()


def test_gates_are_skipped_only_in_a_persons_name_which_the_landing_keeps(place: Place) -> None:
    entry, landing = skipped(place)
    assert entry.state == "merged"
    waiver = Waiver.objects.get()
    told = {"waiver": waiver.pk, "by": str(WHO), "because": WHY}
    tree = landing.candidate.tree_sha
    assert landing.evidence == [{"gate": "*", "outcome": "skipped", "tree": tree, **told}]
    detail = boards.entry_detail(boards.Board(place.town), entry)
    assert detail["landings"][0]["waived"] == f"; gates skipped by {WHO} because {WHY}"
    assert broken(place) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"waiver": 0},
        {"by": "web:mallory"},
        {"because": "no reason at all"},
        {"outcome": "fail"},
        {"outcome": None},
        {"tree": SHA["f"]},
        {"tree": None},
    ],
)
def test_the_invariant_accepts_exactly_the_recorded_waiver_and_nothing_else(
    place: Place, change: dict[str, Any]
) -> None:
    _, landing = skipped(place)
    assert broken(place) == set()
    Landing.objects.update(evidence=[landing.evidence[0] | change])
    assert broken(place) == {2}


def test_a_waiver_of_another_head_or_entry_excuses_nothing(place: Place) -> None:
    entry, _ = skipped(place)
    Waiver.objects.update(head_sha=SHA["f"])
    assert broken(place) == {2}
    other = place.entry("other", SHA["d"])
    Waiver.objects.update(head_sha=entry.head_sha, entry=other)
    assert broken(place) == {2}


def test_an_intent_names_no_waiver_that_was_not_given_for_its_head(place: Place) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    verdicts.waive_gates(entry, SHA["f"], str(WHO), WHY)
    candidate = Candidate.objects.get()
    with pytest.raises(LostRace, match="nobody has waived"):
        landings.intend([(candidate, [])], {candidate.pk: Waiver.objects.get().pk})


def test_a_new_head_needs_a_waiver_of_its_own(place: Place) -> None:
    entry = place.entry()
    merge_queue.land_now(entry, by=WHO, reason=WHY, skip_gates=True)
    inbox.record(place.town, "entry.head_seen", entry.pk, {"head": SHA["d"]})
    place.tick()
    place.built(entry)
    assert not Landing.objects.exists()
    assert boards.Board(place.town).entry(again(entry)).stage == "gating"


def test_gates_that_did_pass_are_the_evidence_all_the_same(place: Place) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    merge_queue.freeze(place.rig, by=WHO, reason="wait")
    place.gated()
    merge_queue.land_now(again(entry), by=WHO, reason=WHY, skip_gates=True)
    place.tick()
    merge_queue.thaw(place.rig, by=WHO)
    place.tick()
    assert [e["outcome"] for e in Landing.objects.get().evidence] == ["pass"]


def test_an_emergency_lifts_a_hold_and_says_why(place: Place) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    place.gated(127)
    assert again(entry).held == "gate_error"
    with pytest.raises(Invalid, match="reason"):
        merge_queue.land_now(again(entry), by=WHO, reason=" ", skip_gates=True)
    merge_queue.land_now(again(entry), by=WHO, reason=WHY, skip_gates=True)
    place.tick()
    place.built(entry)
    assert Landing.objects.get().evidence[0]["outcome"] == "skipped"
    assert not Escalation.objects.filter(closed_at=None).exists()


# -- reasons --------------------------------------------------------------------------------------------------------


def test_every_reason_is_of_the_closed_set(place: Place) -> None:
    entry = place.entry()
    with pytest.raises(ValueError, match="because"):
        entries.close(entry, "failed", "because", "", now=place.now)
    with pytest.raises(ValueError, match="because"):
        entries.hold(entry.pk, "because", "")
    assert set(RE_ENTRY) == set(Exit)
    assert len({*Held, *Exit}) > 15


@pytest.mark.parametrize("reason", [e for e in Exit if RE_ENTRY[e].startswith("mq retry")])
def test_whoever_left_comes_back_with_the_one_command_that_is_named(place: Place, reason: Exit) -> None:
    bead = place.bead()
    entry = place.entry(source=bead)
    task = ledger.create_bead(place.town, place.rig, ledger.Draft("Rework", parent=entry.bead), actor="test")
    if reason == Exit.REWORK_FAILED:
        ledger.block(entry.bead, [task])
    ledger.move(task, "open", ledger.Transition("failed", resolution="gave_up"), actor="test")
    ledger.move(bead, "open", ledger.Transition("failed", resolution="gave_up"), actor="test", now=place.now)
    entries.close(entry, "failed", reason, "so it was", now=place.now)
    detail = boards.entry_detail(boards.Board(place.town), again(entry))
    assert detail["again"] == f"mq retry {entry.pk}"
    place.later(minutes=1)
    merge_queue.retry_entry(again(entry), by=WHO)
    place.tick()
    found = again(entry)
    assert (found.state, found.admitted_at is not None) == ("active", True)


def test_the_other_ends_name_another_command(place: Place) -> None:
    entry = place.entry()
    entries.close(entry, "failed", "superseded", "so it was", now=place.now)
    assert ways.again(again(entry)) == "mq submit proj --branch feature --target main"
    with pytest.raises(Conflict):
        merge_queue.land_now(again(entry), by=WHO, reason=WHY)
    ReviewEntry.objects.update(reason="merged")
    assert ways.again(again(entry)) == ""


# -- what is said of it ---------------------------------------------------------------------------------------------


def test_the_queue_and_a_convoy_tell_the_mayor_when_they_land(place: Place) -> None:
    plan = [{"key": "a", "rig": place.rig, "title": "A", "body": "", "priority": 2, "after": []}]
    convoy = ledger.create_convoy(place.rig, "C", "review-and-merge", plan, actor="test")
    work.start_convoy(convoy, by=WHO)
    first, second = place.entry("first", SHA["a"]), place.entry("second", SHA["d"], priority=1)
    place.tick()
    call = Call(Run.objects.filter(kind="polecat").select_related("town").get(), place.now)
    told = agent_tools.queue(call, agent_tools.QueueArgs())["entries"]
    assert [row["id"] for row in told] == [second.pk, first.pk]
    assert {row["estimate"] for row in told} == {"unknown: gate 'true' was timed 0 of 3 times"}
    json.dumps(told)
    status = convoy_status(call, ConvoyArgs(convoy=convoy.pk))
    assert (status["estimate"], status["eta_seconds"]) == ("unknown: a piece of work was timed 0 of 3 times", None)


def landed(place: Place, count: int) -> None:
    """So many changes of `mq submit`, each gated for 595 s within ten minutes and pushed in 20 s."""
    for n in range(count):
        entry = place.entry(f"old-{n}", f"{n + 1:040x}")
        place.tick()
        place.built(entry, tree=f"{n + 7:040x}")
        place.later(minutes=10)
        place.gated()
        landing = Landing.objects.get(state="intent")
        inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed"})
        place.tick()
    GateResult.objects.update(duration_ms=595_000)
    Run.objects.update(created_at=F("ended_at") - dt.timedelta(minutes=10))
    Landing.objects.update(created_at=F("concluded_at") - dt.timedelta(seconds=20))


def test_times_of_late_make_estimates_with_three_queries_for_a_whole_town(place: Place) -> None:
    landed(place, 3)
    waiting = [place.entry(f"new-{n}", f"{n + 20:040x}") for n in range(5)]
    board = boards.Board(place.town)
    with CaptureQueriesContext(connection) as caught:
        found = [board.expected[e.pk] for e in waiting]
    assert len(caught) == 3
    assert [round(e.seconds or 0) for e in found] == [620, 620, 620, 620, 1240]
    row = boards.entry_data(board, again(waiting[0]))
    assert (row["estimate"], row["eta_seconds"]) == ("in 7 to 14 min", 620)
    ahead = dt.datetime.fromisoformat(row["eta"]) - board.world.now
    assert dt.timedelta(seconds=620) <= ahead < dt.timedelta(seconds=621)  # never before what is said in seconds


def test_p10_an_estimate_is_unknown_since_the_gates_changed_until_they_have_been_timed(place: Place) -> None:
    landed(place, 3)
    waiting = place.entry("new", f"{20:040x}")
    ledger.set_config(place.rig, configs.validate({"refinery": {"gates": ["make test"]}}))
    row = boards.entry_data(boards.Board(place.town), again(waiting))
    assert row["estimate"] == "unknown since the gates changed: gate 'make test' was timed 0 of 3 times"
    assert [row[key] for key in ("eta", "eta_seconds", "eta_p80_seconds", "overdue")] == [None, None, None, False]
    ledger.set_config(place.rig, configs.validate({"refinery": {"gates": ["true"]}}))  # as it was: it is known again
    assert boards.entry_data(boards.Board(place.town), again(waiting))["eta_seconds"] == 620


def test_what_is_submitted_by_hand_counts_among_what_has_landed(place: Place) -> None:
    landed(place, 2)
    bead = place.bead()
    place.tick()
    ReviewEntry.objects.filter(pk=place.entry("own", SHA["e"], bead).pk).update(
        state="merged", reason="merged", merge_sha=SHA["e"], closed_at=place.now
    )
    convoy = ledger.create_convoy(place.rig, "C", "review-then-land", [], actor="test")
    ReviewEntry.objects.filter(pk=place.entry("c", SHA["f"], convoy=convoy, kind="landing").pk).update(
        state="merged", reason="merged", merge_sha=SHA["f"], closed_at=place.now
    )
    ReviewEntry.objects.filter(state="merged").update(closed_at=timezone.now())
    throughput, lead = town_context.town(place.town)["charts"]
    assert throughput["title"] == "Changes merged by hour"
    assert sum(bar.value for bar in throughput["chart"].bars) == 3  # a convoy's landing brings what was counted
    assert max(bar.value for bar in lead["chart"].bars) > 0


def test_the_commands_say_it_in_words(place: Place) -> None:
    place.foresees = False
    first, second = place.entry("first", SHA["a"]), place.entry("second", SHA["d"], place.bead("B", place.bead("A")))
    place.tick()
    place.foreseen([(SHA["d"], SHA["a"])], [(SHA["a"], SHA["d"], "signs.txt")])
    place.tick()
    call_command("mq", "land-now", first.pk, "--reason", WHY, stdout=StringIO())
    place.tick()
    listed, shown, data = StringIO(), StringIO(), StringIO()
    call_command("mq", "list", stdout=listed)
    call_command("mq", "show", second.pk, stdout=shown)
    call_command("mq", "list", "--json", stdout=data)
    assert "ESTIMATE" in listed.getvalue().splitlines()[0]
    assert f"stands on {first.pk}" in shown.getvalue()
    assert f"would conflict with {first.pk} in signs.txt" in shown.getvalue()
    rows = {row["id"]: row for row in json.loads(data.getvalue())["data"]}
    assert (rows[first.pk]["estimate"][:8], rows[second.pk]["estimate"][:9]) == ("unknown:", "waits for")
    assert rows[first.pk]["land_now"] and rows[second.pk]["waits_for"]
    merge_queue.reject(again(first), by=WHO, reason="no")
    place.later(minutes=1)
    place.tick()
    gone = StringIO()
    call_command("mq", "show", first.pk, stdout=gone)
    assert f"to bring it back: mq retry {first.pk}" in gone.getvalue()
