"""The embedded PostgreSQL's log: files of a bounded size in `log/` beside its data, of which the newest are kept.

The server rotates them by itself (its logging collector); what it says before that is at work goes to `server.log`.
How many are kept is seen to at each start and by the hourly housekeeping. Standard library only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
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
    early = _early(data)
    with contextlib.suppress(FileNotFoundError):
        if early.stat().st_size > EARLY_BYTES:
            early.replace(early.with_suffix(".log.1"))
    return gone


def sizes(data: Path) -> dict[Path, int]:
    """How long each of its files is now, for `telling_line`."""
    return {file: file.stat().st_size for file in (_early(data), *_files(data)) if file.exists()}


def telling_line(data: Path, before: Mapping[Path, int]) -> tuple[str, Path]:
    """Why the server has not started: the last fatal line since the files were as long as `before`, else the last line,
    and in which file."""
    found: list[tuple[bool, str, Path]] = []
    for file in (_early(data), *_files(data)):
        with contextlib.suppress(OSError), file.open("rb") as handle:
            handle.seek(before.get(file, 0))
            for line in handle.read().decode(errors="replace").strip().splitlines():
                kind = next((kind for kind in ("FATAL:", "PANIC:") if kind in line), "")
                found.append((bool(kind), f"{kind}{line.split(kind, 1)[1]}" if kind else line, file))
    fatal = [one for one in found if one[0]]
    _, said, where = (fatal or found or [(False, "", _early(data))])[-1]
    return said, where


def _early(data: Path) -> Path:
    return data.parent / "server.log"


def _files(data: Path) -> list[Path]:
    """Its log files, oldest first: their names begin with their times."""
    return sorted((data.parent / "log").glob("postgresql-*.log"))
