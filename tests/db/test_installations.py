"""O13: which installation works on a database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from beads import installations, upkeep
from beads.channels import listen_parameters
from beads.errors import Refused
from beads.installations import Identity
from beads.models import Installation

pytestmark = pytest.mark.django_db
HERE = Identity("key-here", "boot-here", "alpha", "/srv/gastown")
THERE = Identity("key-there", "boot-there", "beta", "/home/bob/gastown")


def seen(who: Identity, seconds_ago: float) -> None:
    Installation.objects.create(
        home_key=who.home_key, boot=who.boot, host=who.host, home=who.home, since=timezone.now(),
        at=timezone.now() - dt.timedelta(seconds=seconds_ago),
    )  # fmt: skip


def test_o13_another_one_that_works_is_named_with_its_host_home_and_since_when() -> None:
    seen(THERE, 2)
    with pytest.raises(Refused) as refused:
        installations.check(HERE)
    since = Installation.objects.get().since
    for word in ("beta", "/home/bob/gastown", f"{since:%Y-%m-%d %H:%M:%S} UTC", "stop that one first", "DATABASE_URL"):
        assert word in refused.value.message
    assert refused.value.details["host"] == "beta"


def test_o13_one_that_says_once_more_that_it_works_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(THERE, 50)
    monkeypatch.setattr("beads.installations.time.sleep", lambda seconds: installations.beat(THERE))
    with pytest.raises(Refused, match="beta"):
        installations.take(HERE, patience=60)
    assert Installation.objects.get().host == "beta"


def test_o13_one_that_does_nothing_any_more_is_not_in_the_way() -> None:
    seen(THERE, 20)
    told: list[str] = []
    installations.take(HERE, patience=0.6, say=told.append)
    assert Installation.objects.get().host == "alpha"
    assert told == ["the installation on host beta with the home /home/bob/gastown was at work here a moment ago: "
                    "looking whether it still is"]  # fmt: skip
    assert "alpha" in installations.beat(THERE)  # and when it was not dead, it hears who took over
    assert installations.beat(HERE) == ""


def test_o13_one_that_was_last_seen_long_ago_is_not_even_waited_for() -> None:
    seen(THERE, 61)
    installations.take(HERE, patience=600)
    installations.check(HERE)


def test_o13_a_renamed_host_and_a_moved_home_are_still_the_same() -> None:
    installations.take(HERE)
    renamed = replace(HERE, host="gamma", home="/srv/moved")
    installations.check(renamed)
    installations.take(renamed, patience=600)
    installations.leave(renamed)
    assert not Installation.objects.exists()


def test_o13_a_machine_that_was_booted_anew_takes_over_from_itself_once_that_is_seen_to_be_gone() -> None:
    seen(HERE, 30)
    installations.take(replace(HERE, boot="boot-after"), patience=0.6)
    assert Installation.objects.get().boot == "boot-after"


def test_o13_a_database_that_was_restored_is_taken_again() -> None:
    installations.take(HERE)
    Installation.objects.all().delete()
    assert installations.beat(HERE) == ""
    assert Installation.objects.get().host == "alpha"


def test_o13_housekeeping_and_backups_at_work_keep_no_installation_waiting() -> None:
    with psycopg.connect(**listen_parameters(), autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", [upkeep._KEY])
        with connection.cursor() as cursor:
            cursor.execute("set local lock_timeout = '5s'")
        installations.take(HERE)
    assert Installation.objects.get().host == "alpha"
