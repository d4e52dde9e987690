"""The form of a backup: one tar file of parts, told by a manifest at its end. Written and read as a stream.

The first member says what it is, the last one (`manifest.json`) names each part with its length and SHA-256: a file
that was cut off has none. No part is held in memory, and nothing is staged: a part's header is written after it.
Standard library only: `restore` reads it before there are any settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from beads.errors import Refused

FORMAT = 1
MARK, MANIFEST = "gastown-backup", "manifest.json"
DATABASE = "database.dump"
FILES = ("secret_key", "admin_password", "keys", "salvage", "archive")  # of the home, as they are
CHUNK = 1 << 20
_BLOCK = 512
_NAME = re.compile(r"[A-Za-z0-9_@+=,][A-Za-z0-9._@+=,-]*(?:/[A-Za-z0-9_@+=,][A-Za-z0-9._@+=,-]*)*")


class Part:
    """One part while it is written."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name, self.size = name, 0
        self._file, self._sum = file, hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._sum.update(data)
        self.size += len(data)

    def copy(self, source: IO[bytes]) -> None:
        """Append all that `source` still gives."""
        while data := source.read(CHUNK):
            self.write(data)

    def told(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"name": self.name, "bytes": self.size, "sha256": self._sum.hexdigest()}


class Writer:
    """Writes a backup to a file that can be sought in. Without `finish` it is none."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.parts: list[dict[str, Any]] = []
        self._member(MARK, f"{FORMAT}\n".encode())

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[Part]:
        """Add a part, of a length that is known only afterwards."""
        if not _NAME.fullmatch(name) or name in (MARK, MANIFEST):
            raise Refused(f"a backup cannot hold a file named {name!r}: rename it, or remove it")
        header = self.file.tell()
        self.file.write(bytes(_BLOCK))
        part = Part(self.file, name)
        yield part
        self._close(name, header, part.size)
        self.parts.append(part.told())

    def finish(self, told: Mapping[str, Any]) -> None:
        """Write the manifest, the tar's end, and all of it to the disk."""
        manifest = {"format": FORMAT, **told, "parts": self.parts}
        self._member(MANIFEST, json.dumps(manifest, indent=1, default=str).encode())
        self.file.write(bytes(2 * _BLOCK))
        self.file.flush()
        os.fsync(self.file.fileno())

    def _member(self, name: str, data: bytes) -> None:
        header = self.file.tell()
        self.file.write(bytes(_BLOCK) + data)
        self._close(name, header, len(data))

    def _close(self, name: str, header: int, size: int) -> None:
        """Fill up to a whole block, and write the header."""
        self.file.write(bytes(-size % _BLOCK))
        end = self.file.tell()
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(time.time())
        block = info.tobuf(tarfile.GNU_FORMAT)
        if len(block) != _BLOCK:
            raise Refused(f"a backup cannot hold a file with so long a name: {name!r}")
        self.file.seek(header)
        self.file.write(block)
        self.file.seek(end)


class Reader:
    """Reads a backup. Raises Refused for a file that is none, or not whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - until `close`
            self._members = {member.name: member for member in self._tar}
            first = next(iter(self._members), "")
        except FileNotFoundError:
            raise Refused(f"there is no file {path}") from None
        except tarfile.TarError:
            raise Refused(f"{path} is no backup of Gastown, or was cut off") from None
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror or error}") from None
        if first != MARK:
            raise Refused(f"{path} is no backup of Gastown")
        if MANIFEST not in self._members:
            raise Refused(f"{path} was cut off: the backup was not finished, or not copied whole")
        self.manifest = self._told()
        self.parts: dict[str, dict[str, Any]] = {part["name"]: part for part in self.manifest["parts"]}

    def close(self) -> None:
        """Let the file go."""
        self._tar.close()

    def _told(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads(self._open(MANIFEST).read())
            known = isinstance(told["format"], int) and all(
                _NAME.fullmatch(part["name"]) and isinstance(part["sha256"], str) for part in told["parts"]
            )
        except (ValueError, KeyError, TypeError):
            known, told = False, {}
        if not known:
            raise Refused(f"{self.path} is damaged: its manifest cannot be read")
        if told["format"] > FORMAT:
            raise Refused(f"{self.path} was made by a newer Gastown ({told.get('gastown')}): restore it with that one")
        return told

    def verify(self) -> None:
        """Compare each part with the manifest; Refused names the first that is not as it was written."""
        for name, part in self.parts.items():
            member = self._members.get(name)
            found = hashlib.sha256()
            if member is not None and member.isreg():
                with self._open(name) as source:
                    while data := source.read(CHUNK):
                        found.update(data)
            if member is None or member.size != part["bytes"] or found.hexdigest() != part["sha256"]:
                raise Refused(f"{self.path} is damaged: its part {name} is not as it was written")

    def open(self, name: str) -> IO[bytes]:
        """A part, to be read."""
        if name not in self.parts:
            raise Refused(f"{self.path} has no part {name}")
        return self._open(name)

    def _open(self, name: str) -> IO[bytes]:
        opened = self._tar.extractfile(self._members[name])
        if opened is None:
            raise Refused(f"{self.path} is damaged: its part {name} is no file")
        return opened

    def names(self, under: str) -> Iterator[str]:
        """The parts below a folder."""
        return (name for name in self.parts if name.startswith(f"{under}/"))
