"""O5: `/readyz` and `doctor` tell the truth, with reasons and since when."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone

from beads import ops
from beads.models import Heartbeat
from gastown_site import health
from gastown_site.parts.watch import WATCHED

pytestmark = pytest.mark.django_db
BEATING = [row.key for row in WATCHED if row.beats]


def ask(settings: Any) -> tuple[int, dict[str, Any]]:
    answer = Client().get("/readyz", headers={"Authorization": f"Bearer {settings.GASTOWN_METRICS_TOKEN}"})
    return answer.status_code, json.loads(answer.content)


@pytest.fixture(autouse=True)
def all_alive() -> None:
    for part in BEATING:
        ops.beat(part)


def test_all_is_well(settings: Any) -> None:
    status, told = ask(settings)
    assert status == 200 and told["ok"] and told["reasons"] == []
    assert told["data"] == dict.fromkeys(["database", "migrations", *BEATING], "ok")


@pytest.mark.parametrize("part", BEATING)
def test_o5_a_heartbeat_that_is_old_or_missing_is_named(settings: Any, part: str) -> None:
    at = timezone.now() - dt.timedelta(seconds=100)
    Heartbeat.objects.filter(name=part).update(at=at)
    status, told = ask(settings)
    assert status == 503 and not told["ok"] and "last seen 10" in told["data"][part]
    assert [(r["part"], dt.datetime.fromisoformat(r["since"])) for r in told["reasons"]] == [
        (part, at.replace(microsecond=at.microsecond // 1000 * 1000))
    ]
    Heartbeat.objects.filter(name=part).delete()
    assert ask(settings)[1]["reasons"] == [{"part": part, "reason": "never seen", "since": None}]


def test_o11_tables_that_are_missing_are_named(settings: Any) -> None:
    MigrationRecorder(connection).record_unapplied("beads", "0001_initial")
    status, told = ask(settings)
    assert status == 503 and told["data"] == {"database": "ok", "migrations": "1 are missing"}


def test_o2_without_a_database_a_scraper_hears_why_and_a_page_says_come_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(health, "missing_migrations", away)
    status, told = ask(settings)
    assert status == 503
    assert told["reasons"] == [{"part": "database", "reason": "cannot be asked: connection refused", "since": None}]
    said = health.Away(lambda request: HttpResponse()).process_exception(
        RequestFactory().get("/"), OperationalError("gone")
    )
    assert said is not None and said.status_code == 503 and said["Retry-After"] == "5"
