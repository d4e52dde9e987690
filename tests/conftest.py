"""One PostgreSQL for the whole run, shared by all workers; a database per worker; one cast of characters."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_KEPT = os.environ.get("GASTOWN_TEST_HOME")
if _KEPT is None:
    _KEPT = tempfile.mkdtemp(prefix="gastown-test-")
    os.chmod(_KEPT, 0o755)
    os.environ["GASTOWN_TEST_HOME"] = _KEPT
    os.environ["GASTOWN_TEST_OWNER"] = str(os.getpid())
os.environ["GASTOWN_HOME"] = _KEPT
# not in pyproject.toml: from there it is read before this file, and the settings would see another home
os.environ["DJANGO_SETTINGS_MODULE"] = "gastown_site.settings"
os.environ["GASTOWN_TEST_FAST_DB"] = "1"
os.environ.setdefault("GASTOWN_LOG_LEVEL", "ERROR")
for _name in ("GASTOWN_URL", "GASTOWN_DEBUG", "GASTOWN_SECRET_KEY"):
    os.environ.pop(_name, None)

import django  # noqa: E402 - the environment comes first

from gastown_site import database  # noqa: E402 - the environment comes first

database.ensure_running()
django.setup()


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last process stops the server; the owner removes its files."""
    database.stop()
    if os.environ.get("GASTOWN_TEST_OWNER") == str(os.getpid()):
        shutil.rmtree(Path(_KEPT or ""), ignore_errors=True)
