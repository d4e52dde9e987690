"""What is removed from the database is kept before: one gzip file of JSON lines for each month and town.

`GASTOWN_HOME/archive/<town>/2026-11.jsonl.gz` (0600); what is of no town is under `_installation`. A line is
`{"table", "id", "archived_at", "row"}`. A batch is one gzip member, on the disk before its rows are deleted. Where it
begins is noted beside the file first: a batch that was cut off is taken away before the next one. Whoever is killed
between a batch and its deletion archives it again: a reader takes the last line of each table and id.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import gzip
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from agents.runtime.crashpoints import crashpoint
from beads import private

INSTALLATION = "_installation"  # no town is called so
NOTED = ".at"


class Archive:
    """Where `keep` writes to, at one moment."""

    def __init__(self, now: dt.datetime, root: Path | None = None) -> None:
        self.root = root or folder()
        self.now = now

    def keep(self, town: str, rows: Iterable[Model]) -> int:
        """Write these rows to the disk, all or none; returns how many there were. Raises OSError."""
        place = self.root / town
        _make(place)
        file = place / f"{self.now:%Y-%m}.jsonl.gz"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b") as raw:
            fcntl.flock(raw, fcntl.LOCK_EX)
            mend(file)
            begin = raw.seek(0, os.SEEK_END)
            note = _note(file)
            private.write(note, f"{begin}\n")
            private.folder_to_disk(place)
            crashpoint("archive.noted")
            count = 0
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb") as packed:
                for row in rows:
                    packed.write(self._line(row))
                    count += 1
                    if count == 1:
                        packed.flush()
                        crashpoint("archive.begun")
            if not count:
                raw.truncate(begin)
            raw.flush()
            os.fsync(raw.fileno())
            note.unlink()
            private.folder_to_disk(place)
        crashpoint("archive.kept")
        return count

    def _line(self, row: Model) -> bytes:
        told = {
            "table": row._meta.db_table,
            "id": row.pk,
            "archived_at": self.now,
            "row": {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields},
        }
        return (json.dumps(told, cls=DjangoJSONEncoder, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def folder() -> Path:
    """Where the archive is."""
    return Path(settings.GASTOWN_HOME) / "archive"


def mend(file: Path) -> bool:
    """Take away the end of a batch that was cut off; True when there was one."""
    try:
        begin = int(_note(file).read_text())
    except FileNotFoundError:
        return False
    os.truncate(file, begin)
    _note(file).unlink()
    return True


def read(file: Path) -> dict[tuple[str, Any], dict[str, Any]]:
    """What a file has kept: (table, id) → row, each once. What was cut off at its end is no part of it."""
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    with file.open("rb") as raw:
        whole = int(_note(file).read_text()) if _note(file).exists() else file.stat().st_size
        with gzip.GzipFile(fileobj=io.BufferedReader(_Part(raw, whole))) as packed:
            for line in packed:
                told = json.loads(line)
                found[told["table"], told["id"]] = told["row"]
    return found


def prune(before: dt.datetime) -> int:
    """Remove the files of months that had ended before then; returns how many."""
    gone = 0
    for file in folder().glob("*/????-??.jsonl.gz"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            year, month = map(int, file.name.split(".")[0].split("-"))
            ended = dt.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
            if ended < before:
                file.unlink()
                _note(file).unlink(missing_ok=True)
                gone += 1
    return gone


class _Part(io.RawIOBase):
    """The first bytes of a file, as a file."""

    def __init__(self, raw: IO[bytes], length: int) -> None:
        self._raw, self._left = raw, length

    def readable(self) -> bool:
        """It is read."""
        return True

    def readinto(self, target: Any) -> int:
        """As a raw file does."""
        data = self._raw.read(min(len(target), self._left))
        self._left -= len(data)
        target[: len(data)] = data
        return len(data)


def _note(file: Path) -> Path:
    return file.with_name(file.name + NOTED)


def _make(place: Path) -> None:
    for path in (place.parent, place):
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            private.folder_to_disk(path.parent)
