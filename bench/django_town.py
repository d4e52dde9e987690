"""A throw-away installation for benches: its own home, its own embedded PostgreSQL with fsync on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def installation() -> Iterator[Path]:
    """Django, set up on an empty database that is removed afterwards."""
    home = tempfile.mkdtemp(prefix="gastown-bench-")
    os.chmod(home, 0o755)
    os.environ["GASTOWN_HOME"] = home
    os.environ["GASTOWN_LOG_LEVEL"] = "ERROR"
    os.environ["DJANGO_SETTINGS_MODULE"] = "gastown_site.settings"
    from gastown_site import database

    database.ensure_running()
    try:
        import django

        django.setup()
        database.ensure_migrated()
        yield Path(home)
    finally:
        from django.db import connections

        connections.close_all()
        database.stop()
        shutil.rmtree(home, ignore_errors=True)
