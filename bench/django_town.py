"""A throw-away installation for benches: its own home, its own embedded PostgreSQL with fsync on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
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


@contextmanager
def running(home: Path) -> Iterator[None]:
    """`up` on the installation's database, ready; all its processes are ended."""
    from gastown_site import database

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "DATABASE_URL": database.url()}
    env.pop("GASTOWN_URL", None)
    command = [sys.executable, str(Path(__file__).parents[1] / "manage.py"), "up", "--port", str(port)]
    log = home / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 60
        while "ready: " not in log.read_text() and time.monotonic() < end:
            time.sleep(0.1)
        yield
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)
