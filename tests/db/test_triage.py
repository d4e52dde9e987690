"""A refinery agent looks at red gates first and writes the request; a look that fails or takes long holds up nobody."""

from __future__ import annotations

from typing import Any

import pytest

from agents.api import tools as registry
from agents.models import Mail, Run
from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.errors import Forbidden
from beads.models import Bead
from refinery.decisions import merge_queue, reviews
from refinery.models import GateResult, ReviewEntry, Verdict
from refinery.store import entries
from tests.db.conftest import SHA, Place
from tests.db.words import hand_in, now, prompt, reworked, reworking, to_review

FOUND = [{"file": "a.py", "line": 4, "problem": "the sum is off by one", "suggestion": "start at 0"}]


@pytest.fixture
def town(db: None) -> Place:
    return Place(code_review=True, triage="auto")


def red(place: Place, entry: ReviewEntry) -> None:
    """Built, and its gate fails, saying where; on the target it is known to pass."""
    place.vouch()
    place.built(entry)
    run, _ = place.running(kind="gates")
    raw = {"exit_code": 1, "signal": None, "timed_out": False}
    place.exit(run, 1, steps=[{"name": "true", "outcome_raw": raw, "output": "test_a.py:11: assert 8 == 7\n"}])
    place.tick()


def looking(place: Place) -> Run:
    return place.running(purpose="triage")[0]


def test_what_the_refinery_finds_is_the_request_beside_the_output(town: Place) -> None:
    entry = hand_in(town)
    red(town, entry)
    assert now(entry).admitted_at is None  # who is behind goes on
    look = looking(town)
    text = prompt(look)
    assert "test_a.py:11" in text and "assert 8 == 7" in text and f"git diff {SHA['b']}..HEAD" in text
    assert "Write gate.sh." in text
    town.say(look, "run.request_changes", feedback="you count from one", items=FOUND)
    town.exit(look)
    town.tick()
    run = reworking(town)
    told = prompt(run)
    assert "you count from one" in told and "a.py:4: the sum is off by one Suggestion: start at 0" in told
    assert "assert 8 == 7" in told
    assert "you count from one" in Mail.objects.get(kind="REWORK_REQUEST").body
    assert not Verdict.objects.exists()  # it judged nothing
    reworked(town, run, "counted from zero", SHA["d"])
    reviewer = to_review(town, entry, SHA["e"])
    assert "counted from zero" in prompt(reviewer)


@pytest.mark.parametrize("end", ["done", "dies", "lost", "never starts", "late"])
def test_whatever_else_comes_of_it_the_output_is_sent_and_it_is_not_tried_twice(town: Place, end: str) -> None:
    entry = hand_in(town)
    red(town, entry)
    queued = Run.objects.get(purpose="triage")
    if end == "never starts":
        town.later(minutes=11)
    else:
        look = looking(town)
        if end == "done":
            town.say(look, "run.done", summary="looks fine to me")
            town.exit(look)
        elif end == "dies":
            town.exit(look, 1)
        elif end == "lost":
            town.later(minutes=5)
        else:
            Run.objects.filter(pk=look.pk).update(lease_until=town.now.replace(year=town.now.year + 1))
            town.later(minutes=9)
            town.tick()
            assert not Bead.objects.filter(purpose="rework").exists()
            town.later(minutes=2)
    town.tick()
    run = reworking(town)
    assert "assert 8 == 7" in prompt(run) and "looks fine to me" not in prompt(run)
    queued.refresh_from_db()
    assert queued.state == "ended" or queued.stop_requested_at is not None
    assert Run.objects.filter(purpose="triage").count() == 1
    assert GateResult.objects.get(entry=entry).outcome == "fail"
    assert now(entry).state == "active"


def test_a_look_makes_no_red_gate_green(town: Place) -> None:
    entry = hand_in(town)
    red(town, entry)
    look = looking(town)
    with pytest.raises(Forbidden):
        registry.call("gt_run_gates", look, {"again": True}, town.now)
    assert registry.call("gt_run_gates", look, {}, town.now)[1]["gates"][0]["outcome"] == "fail"
    town.say(look, "run.done", summary="approved")
    town.exit(look)
    town.tick()
    reworked(town, reworking(town), "it is green for me")
    assert now(entry).held == "nothing_committed"  # nor is it reviewed


def test_a_busy_refinery_is_not_waited_for(db: None) -> None:
    town = Place(code_review=True, triage="auto", max_reviews=1)
    told: dict[str, Any] = {"branch": "fix", "head": SHA["9"], "target": "release", "title": "Fix", "author": "test"}
    other = entries.submit(town.rig, entries.NewEntry(**told))[0]  # another lane of the same refinery
    town.tick()
    to_review(town, other, SHA["7"])
    entry = hand_in(town)
    red(town, entry)
    assert not Run.objects.filter(purpose="triage").exists()
    assert "assert 8 == 7" in prompt(reworking(town))


@pytest.mark.parametrize("why", ["off", "no refinery", "no round left", "no polecat"])
def test_where_no_look_is_wanted_none_is_made(town: Place, why: str) -> None:
    entry = hand_in(town)
    config: dict[str, Any] = {
        "refinery": {"code_review": False, "gates": ["true"], "triage": "off" if why == "off" else "auto"},
        "agents": {"polecat": {"command": ["p"]}, "refinery": {"command": ["r"]}},
    }
    if why in ("no refinery", "no polecat"):
        del config["agents"][why.removeprefix("no ")]
    if why == "no round left":
        config["refinery"]["max_rework_cycles"] = 0
    ledger.set_config(town.town, configs.validate(config))
    red(town, entry)
    assert not Run.objects.filter(purpose="triage").exists()
    after = now(entry)
    assert (after.held == "rework_limit", after.state == "failed") == (why == "no round left", why == "no polecat")


@pytest.mark.parametrize("what", ["request", "reject", "waive", "new head"])
def test_what_a_person_does_meanwhile_counts(town: Place, what: str) -> None:
    entry = hand_in(town)
    red(town, entry)
    look = looking(town)
    if what == "request":
        reviews.request_changes(now(entry), by=Actor("cli", "rita"), body="leave it out")
    elif what == "reject":
        merge_queue.reject(now(entry), by=Actor("cli", "rita"), reason="no")
    elif what == "waive":
        assert merge_queue.land_now(now(entry), by=Actor("cli", "olga"), reason="fire", skip_gates=True)
    else:
        ReviewEntry.objects.filter(pk=entry.pk).update(observed_head=SHA["d"])
    town.tick()
    after, tasks = now(entry), Bead.objects.filter(purpose="rework")
    assert after.state == ("failed" if what == "reject" else "active")
    if what == "request":
        assert "leave it out" in prompt(reworking(town))
    else:
        assert not tasks.exists()
    if what in ("waive", "new head"):
        assert after.admitted_at is not None
    if what == "new head":
        town.built(entry)
    look.refresh_from_db()
    assert look.stop_requested_at is not None or what == "waive"
