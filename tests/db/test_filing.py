"""Budgets hold when many calls come at once: of one run, and of a whole town's day."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from agents.api import tools
from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.models import Bead, Fact
from tests.db.conftest import Place


def limits(place: Place, **keys: Any) -> None:
    """Set `[limits]` of the rig."""
    ledger.set_config(place.rig, configs.validate({"limits": keys}))


def at_once(calls: list[tuple[str, dict[str, Any], Run, str | None]]) -> list[str]:
    """Makes all calls at one moment, each on a connection of its own; returns what came of each."""
    gate = threading.Barrier(len(calls))
    told: list[str] = []

    def speak(tool: str, body: dict[str, Any], run: Run, key: str | None) -> None:
        try:
            gate.wait(30)
            tools.call(tool, run, body, timezone.now(), key)
            told.append("done")
        except tools.LimitReached as error:
            told.append(error.limit)
        finally:
            connection.close()

    threads = [threading.Thread(target=speak, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return sorted(told)


def runs(place: Place, count: int) -> list[Run]:
    """So many polecats at work."""
    beads = [place.bead(f"Work {n}") for n in range(count)]
    place.tick()
    return [place.running(bead=bead)[0] for bead in beads]


@pytest.mark.django_db(transaction=True)
def test_s9_calls_in_parallel_do_not_pass_a_runs_budget() -> None:
    place = Place()
    limits(place, beads_per_run=2, escalations_per_run=2, mail_per_run=2)
    (run,) = runs(place, 1)
    for tool, body, key in (
        ("gt_bead_create", {"title": "More"}, "limits.beads_per_run"),
        ("gt_escalate", {"title": "Fire"}, "limits.escalations_per_run"),
        ("gt_mail_send", {"to": "overseer", "subject": "Fire"}, "limits.mail_per_run"),
    ):
        assert at_once([(tool, body, run, None)] * 6) == ["done"] * 2 + [key] * 4
    assert Bead.objects.exclude(filed_by="").count() == 2
    assert Fact.objects.filter(kind="limit.reached").count() == 3


@pytest.mark.django_db(transaction=True)
def test_s9_calls_in_parallel_do_not_pass_the_towns_day() -> None:
    place = Place()
    limits(place, beads_per_day=3)
    both = runs(place, 4)
    told = at_once([("gt_bead_create", {"title": "More"}, run, None) for run in both * 2])
    assert told == ["done"] * 3 + ["limits.beads_per_day"] * 5


@pytest.mark.django_db(transaction=True)
def test_a_repeat_in_parallel_counts_once() -> None:
    place = Place()
    limits(place, beads_per_run=1)
    (run,) = runs(place, 1)
    assert at_once([("gt_bead_create", {"title": "Once"}, run, "key")] * 6) == ["done"] * 6
    assert Bead.objects.filter(title="Once").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_tick_at_work_does_not_lock_up_with_a_call_that_files() -> None:
    """The tick holds the town's row while an agent's call has taken its run and the town's day."""
    place = Place()
    (run,) = runs(place, 1)
    done = threading.Event()

    def speak() -> None:
        try:
            tools.call("gt_bead_create", run, {"title": "More"}, timezone.now())
            done.set()
        finally:
            connection.close()

    thread = threading.Thread(target=speak)
    with transaction.atomic():
        ledger.lock_town(place.town)
        thread.start()
        place.bead("Meanwhile")
    thread.join(60)
    assert done.is_set()
