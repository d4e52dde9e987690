"""What a fresh installation starts with: a clean environment, and a database that was made and migrated once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Ours, without what is this test run's own, for processes on `home`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GASTOWN_", "DATABASE_", "DJANGO_"))}
    return {**kept, "GASTOWN_HOME": str(home), "GASTOWN_TEST_FAST_DB": "1", **more}


def seed(home: Path) -> None:
    """Put the database into `home`, which no server uses yet. Workers that come first together make one. Outside of
    pytest nothing is done: `up` makes its own."""
    if "GASTOWN_TEST_HOME" not in os.environ:
        return
    kept = Path(os.environ["GASTOWN_TEST_HOME"])
    template = kept / "template"
    with (kept / "template.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            fresh = kept / "template.new"
            fresh.mkdir(mode=0o755)
            command = [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"]
            subprocess.run(command, env=environment(fresh), check=True, timeout=600)  # machines differ
            fresh.rename(template)
    for name in ("pg", "pg_password"):
        subprocess.run(["cp", "-a", "--", str(template / name), str(home / name)], check=True)
