"""Every action of the ops console opens its door, wants a reason, and is recorded with its actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from beads.models import Fact
from refinery.console.actions import ACTIONS
from tests.db.conftest import Place
from tests.web.consoles import (
    CONSOLES,
    WHY,
    act,
    admitted_entry,
    capped,
    drained_fact,
    escalation,
    failed_bead,
    failed_convoy,
    failed_effect,
    filed_bead,
    frozen_lane,
    held_entry,
    live_run,
    nothing_changed,
    of_place,
    page,
    parked,
    paused,
    quarantined,
    staged,
    started,
    superseded_entry,
)

CASES: dict[str, tuple[Callable[[Place], Any], dict[str, Any] | str]] = {
    # action: (a row it is meant for, the kind of fact it records, or what the row must hold afterwards)
    "cancel_bead": (lambda p: p.bead(), "bead.cancel"),
    "release_bead": (filed_bead, "bead.release"),
    "retry_bead": (failed_bead, "bead.retry"),
    "confirm_bead": (nothing_changed, "bead.confirm"),
    "hold_bead": (lambda p: p.bead(), "bead.hold"),
    "save_run": (live_run, {}),
    "retry_entry": (held_entry, "entry.retry"),
    "reject_entry": (lambda p: p.entry(), "entry.reject"),
    "requeue_entry": (admitted_entry, "entry.requeue"),
    "promote_entry": (lambda p: p.entry(), "entry.promote"),
    "land_now_entry": (lambda p: p.entry(), "entry.land_now"),
    "skip_gates_entry": (lambda p: p.entry(), "entry.land_now"),
    "stop_run": (live_run, "run.stop"),
    "fence_run": (live_run, "run.fence"),
    "pause_town": (of_place("town"), {"paused_reason": WHY}),
    "resume_town": (paused, {"paused_at": None, "paused_reason": ""}),
    "park_rig": (of_place("rig"), {"parked_at__isnull": False}),
    "unpark_rig": (parked, {"parked_at": None}),
    "freeze_lane": (of_place("rig"), {"lanes__frozen_by": "admin:olga", "lanes__frozen_reason": WHY}),
    "thaw_lane": (frozen_lane, {"frozen_at": None, "frozen_reason": ""}),
    "start_convoy": (staged, "convoy.start"),
    "close_convoy": (started, "convoy.close"),
    "retry_convoy": (failed_convoy, "convoy.retry"),
    "release_fact": (quarantined, {"quarantined_at": None, "attempts": 0}),
    "replay_fact": (drained_fact, {"processed_at__isnull": False}),
    "run_effect_again": (failed_effect, {"state": "pending", "attempts": 0}),
    "acknowledge": (escalation, "escalation.ack"),
    "close_escalation": (escalation, "escalation.close"),
    "budget_bead": (capped(lambda p: p.bead()), "budget.set"),
    "budget_convoy": (capped(staged), "budget.set"),
    "budget_town": (capped(of_place("town")), {}),
}


def test_every_listed_action_is_walked() -> None:
    assert set(CASES) == set(ACTIONS)


def test_every_action_is_offered_by_exactly_one_console_and_described() -> None:
    offered = [a for _, console in CONSOLES for a in console.actions or ()]
    assert sorted(a.__name__ for a in offered) == sorted(ACTIONS)  # type: ignore[union-attr]
    assert all(a.short_description for a in offered)  # type: ignore[union-attr]


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_action_opens_its_door_and_names_its_actor(place: Place, operator: Client, name: str) -> None:
    make, wanted = CASES[name]
    row = make(place)
    answer = act(operator, name, row)
    assert answer.status_code == 200
    assert f"{ACTIONS[name].short_description}: recorded for 1" in answer.content.decode()
    if isinstance(wanted, str):
        fact = Fact.objects.get(kind=wanted, subject=row.pk, processed_at=None)
        assert (fact.actor, fact.town_id) == ("admin:olga", place.town.pk)
        assert fact.payload["reason"] == WHY
        place.tick()
        fact.refresh_from_db()
        assert (fact.processed_at is not None, fact.error) == (True, "")
    else:
        assert type(row).objects.filter(pk=row.pk, **wanted).exists()
        assert any(WHY in str(f.payload) for f in Fact.objects.filter(actor="admin:olga"))
    log = LogEntry.objects.get()
    assert (log.user.get_username(), log.object_id) == ("olga", str(row.pk))
    assert WHY in log.get_change_message()


@pytest.mark.django_db
@pytest.mark.parametrize("reason", [None, "", "   "])
@pytest.mark.parametrize("name", sorted(CASES))
def test_without_a_reason_nothing_is_done(place: Place, operator: Client, name: str, reason: str | None) -> None:
    row = CASES[name][0](place)
    before = Fact.objects.count(), type(row).objects.filter(pk=row.pk).values().get()
    form = {"action": name, "_selected_action": [str(row.pk)]} | ({} if reason is None else {"reason": reason})
    answer = operator.post(page(row), form)
    assert answer.status_code == (200 if reason is None else 400)
    text = answer.content.decode()
    assert "Why?" in text
    assert ("Say why" in text) == (reason is not None)
    assert (Fact.objects.count(), type(row).objects.filter(pk=row.pk).values().get()) == before
    assert not LogEntry.objects.exists()


REFUSED: dict[str, tuple[Callable[[Place], Any], str]] = {
    "cancel_bead": (failed_bead, "is failed already"),
    "release_bead": (lambda p: p.bead(), "waits for no release"),
    "retry_bead": (lambda p: p.bead(), "only a failed issue"),
    "retry_entry": (lambda p: p.entry(), "is not held"),
    "reject_entry": (superseded_entry, "has left the queue"),
    "start_convoy": (started, "was started before"),
    "retry_convoy": (staged, "nothing that failed"),
    "requeue_entry": (lambda p: p.entry(), "is in no train"),
    "promote_entry": (held_entry, "has left the queue"),
    "replay_fact": (quarantined, "was not drained yet"),
    "release_fact": (drained_fact, "is not in quarantine"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_door_refuses_is_said_and_not_recorded(place: Place, operator: Client, name: str) -> None:
    make, said = REFUSED[name]
    row = make(place)
    before = Fact.objects.count()
    answer = act(operator, name, row)
    assert said in answer.content.decode()
    assert "recorded for" not in answer.content.decode()
    assert Fact.objects.count() == before


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(CASES))
def test_who_is_not_staff_opens_no_door(place: Place, reviewer: Client, name: str) -> None:
    row = CASES[name][0](place)
    before = Fact.objects.count()
    answer = reviewer.post(page(row), {"action": name, "_selected_action": [str(row.pk)]})
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")
    assert Fact.objects.count() == before
