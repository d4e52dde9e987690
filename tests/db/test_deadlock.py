"""A tool call and a tick that wait for one another: the call is done all the same."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from agents import runs
from agents.api import tools
from agents.api.calls import insisted
from agents.models import Run
from beads import ledger
from tests.db.conftest import Place
from tests.db.test_filing import runs as polecats_of


def waits(of: int) -> bool:
    """True when the session of a backend waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_locks where pid = %s and not granted", [of])
        row = cursor.fetchone()
    return bool(row and row[0])


@pytest.mark.django_db(transaction=True)
def test_a_call_that_a_deadlock_has_undone_is_made_again() -> None:
    place = Place()
    (run,) = polecats_of(place, 1)
    told: list[Any] = []
    backend: list[int] = []

    def speak() -> None:
        """The agent's call, as the door makes it."""
        try:
            with connection.cursor() as cursor:
                cursor.execute("select pg_backend_pid()")
                row = cursor.fetchone()
                assert row is not None
                backend.append(row[0])
            told.append(insisted(lambda: tools.call("gt_escalate", run, {"title": "help"}, timezone.now()))[0])
        finally:
            connection.close()

    caller = threading.Thread(target=speak)
    with transaction.atomic():
        ledger.lock_town(place.town)
        caller.start()
        while not (backend and waits(backend[0])):  # it holds its run, and asks for the town
            caller.join(0.02)
        with transaction.atomic():
            try:
                runs.request_stop(run.pk, "enough", timezone.now())
            except OperationalError:
                told.append("the tick was undone")  # it ticks again
                transaction.set_rollback(True)
    caller.join(30)
    assert 200 in told
    assert Run.objects.get(pk=run.pk).stop_requested_at is not None or "the tick was undone" in told


def test_what_is_no_deadlock_is_not_tried_again() -> None:
    tries = []

    def act() -> None:
        """The database is away."""
        tries.append(1)
        raise OperationalError("the connection is closed")

    with pytest.raises(OperationalError):
        insisted(act)
    assert len(tries) == 1
