"""Results of one tree that contradict one another, across runs; and what the exit door makes of reports."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agents.models import Run
from beads import inbox
from refinery.models import GateResult
from refinery.store import flakiness
from tests.db.conftest import SHA, Place


@pytest.fixture
def place(db: None) -> Place:
    """A town in which a person approves, so that nothing lands meanwhile."""
    return Place(auto_merge=False)


def report(cases: str) -> list[dict[str, str]]:
    xml = f"<testsuite>{cases}</testsuite>".encode()
    return [{"path": "r.xml", "data": base64.b64encode(zlib.compress(xml)).decode()}]


def gated(place: Place, client: Client, code: int, cases: str = "", name: str = "true") -> Run:
    """The live gates run ends through the door, as a shim's report has it."""
    run, token = place.running(kind="gates")
    secret = place.secrets[token]
    raw = {"exit_code": code, "signal": None, "timed_out": False}
    tries = [{"outcome_raw": raw, "duration_ms": 5, "reports": report(cases) if cases else []}]
    body: dict[str, Any] = {"exit_code": code, "steps": [{"name": name, "outcome_raw": raw, "tries": tries}]}
    told = client.post(
        f"/api/runs/{run.pk}/exit", body, content_type="application/json", headers={"Authorization": f"Bearer {secret}"}
    )
    assert told.status_code == 200, told.content
    place.tick()
    return run


def again(place: Place, entry: str) -> None:
    """An agent asks for the gates to be run once more."""
    place.now = timezone.now()  # results are dated by the real clock
    inbox.record(place.town, "entry.retry", entry, {"reason": "once more"}, actor="test")
    place.tick()


FINE, BAD = "<testcase name='a'/>", "<testcase name='a'><failure message='no'/></testcase>"


def test_a_pass_and_a_failure_of_one_tree_in_two_runs_are_flaky_and_named_by_test(place: Place, client: Client) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    gated(place, client, 0, FINE)
    assert not GateResult.objects.get().flaky
    again(place, entry.pk)
    place.built(entry)
    gated(place, client, 1, BAD)
    first, second = GateResult.objects.order_by("pk")
    assert (first.flaky, second.flaky, second.flaky_tests) == (False, True, ["a"])
    (row,) = flakiness.recent(place.town, place.now)
    assert (row["gate"], row["times"], row["of"], row["tests"]) == ("true", 1, 2, ["a"])
    assert entry.bead.events.filter(kind="flaky_gate").count() == 1


def test_the_same_outcome_twice_or_another_tree_is_not_flaky(place: Place, client: Client) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    gated(place, client, 0, FINE)
    again(place, entry.pk)
    place.built(entry)
    gated(place, client, 0, FINE)
    other = place.entry("other", head=SHA["d"])
    place.tick()
    place.built(other, tree=SHA["f"])
    gated(place, client, 1, BAD)
    assert GateResult.objects.count() == 3
    assert not GateResult.objects.filter(flaky=True).exists()
    assert flakiness.recent(place.town, place.now) == []


def test_a_bomb_in_a_report_is_a_note_on_a_result_that_stands(place: Place, client: Client) -> None:
    entry = place.entry()
    place.tick()
    place.built(entry)
    bomb = "<!DOCTYPE x [<!ENTITY a 'ha'>]>"
    run = gated(place, client, 0, bomb)
    result = GateResult.objects.get()
    assert (result.outcome, result.tests["total"]) == ("pass", 0)
    assert result.tests["notes"][0].startswith("r.xml: ")
    run.refresh_from_db()
    assert "reports" not in run.step_results[0]["tries"][0]
