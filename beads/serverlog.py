"""The embedded PostgreSQL's log: files of a bounded size in `log/` beside its data, of which the newest are kept.

The server rotates them by itself (its logging collector); what it says before that is at work goes to `server.log`.
How many are kept is seen to at each start and by the hourly housekeeping. Standard library only.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

MOST_FILES = 20
EARLY_BYTES = 1 << 20  # of server.log; what was said before goes
OPTIONS = {
    "logging_collector": "on",
    "log_directory": "../log",
    "log_filename": "postgresql-%Y%m%d-%H%M%S.log",
    "log_rotation_size": "10MB",
    "log_rotation_age": "1d",
    "log_file_mode": "0600",
}


def tidy(data: Path) -> int:
    """Remove all but the newest files of the server whose data are in `data`; returns how many went."""
    gone = 0
    for file in _files(data)[:-MOST_FILES]:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
            gone += 1
    early = data.parent / "server.log"
    with contextlib.suppress(FileNotFoundError):
        if early.stat().st_size > EARLY_BYTES:
            early.replace(early.with_suffix(".log.1"))
    return gone


def last_line(data: Path) -> tuple[str, Path]:
    """What the server has said last, and in which file."""
    early = data.parent / "server.log"
    last = max([early, *_files(data)[-1:]], key=lambda file: file.stat().st_mtime_ns if file.exists() else 0)
    lines = last.read_text(errors="replace").strip().splitlines() if last.exists() else []
    return (lines[-1] if lines else ""), last


def _files(data: Path) -> list[Path]:
    """Its log files, oldest first: their names begin with their times."""
    return sorted((data.parent / "log").glob("postgresql-*.log"))
