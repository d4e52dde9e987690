"""An installation that is upgraded in the midst of work loses nothing and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_database() -> Iterator[str]:
    """The URL of a fresh database of this test's own, so that any number of workers may run it."""
    at = settings.DATABASES["default"]
    name = f"upgrade_{uuid.uuid4().hex[:12]}"
    place = {"host": at["HOST"], "user": at["USER"], "password": at["PASSWORD"], "port": at["PORT"] or None}
    with psycopg.connect(dbname="postgres", autocommit=True, **place) as server:
        server.execute(f"create database {name}")
        try:
            secret, host = quote(at["PASSWORD"], safe=""), quote(at["HOST"], safe="")
            port = f":{at['PORT']}" if at["PORT"] else ""
            yield f"postgres://{at['USER']}:{secret}@{host}{port}/{name}"
        finally:
            server.execute(f"drop database {name} with (force)")


@pytest.mark.long
def test_an_upgrade_in_the_midst_of_work_loses_nothing_and_the_town_goes_on(empty_database: str) -> None:
    env = {**os.environ, "DATABASE_URL": empty_database, "DJANGO_SETTINGS_MODULE": "gastown_site.settings"}
    command = [sys.executable, "-m", "tests.db.old_town"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["empty"] == []  # every table of the first migrations was filled
    assert found["lost"] == []
    assert [(t["failed"], t["lost_races"]) for t in found["ticks"]] == [(0, 0)] * len(found["ticks"]), done.stderr[
        -2000:
    ]
    assert found["ticks"][-1]["actions"] == {}
    assert (found["live"], found["runs"]["run-live0000"]) == ("run-live0000", "running")
    assert (found["pending"], found["priority"]) == (0, 1)  # what was in the inbox is taken in
    assert found["landing"] in ("intent", "pushing")  # what was approved is still on its way


def test_the_models_and_the_migrations_say_the_same() -> None:
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "gastown_site.settings"}
    command = [sys.executable, str(ROOT / "manage.py"), "makemigrations", "--check", "--dry-run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
