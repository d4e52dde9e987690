"""JUnit reports: collected by the shim from a gate's worktree, read by the server, never trusted by either.

Standard library only. The collector follows no links, opens only regular files, and has bounds; reports travel
compressed. The reader refuses entities (no bombs, nothing from elsewhere), has bounds of its own, and never raises:
what cannot be read is a note beside the counts of what can.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from beads import globs

MAX_FILES = 200
MAX_FILE = 8 << 20
MAX_READ = 16 << 20
MAX_SENT = 192 << 10
MAX_LOOKED_AT = 20_000
MAX_DEPTH = 64
MAX_FAILURES = 50
MAX_TEXT = 2000

Mark = tuple[int, int, int, int]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


# -- the shim's side ------------------------------------------------------------------------------------------------


def marks(worktree: Path, pattern: str) -> dict[str, Mark]:
    """The reports that are there now, and by what a newly written one can be told from them."""
    return {path: _mark(os.fstat(file)) for path, file in _found(worktree, pattern)}


def collect(
    worktree: Path, pattern: str, before: Mapping[str, Mark], clean: Callable[[bytes], bytes] = bytes
) -> tuple[list[dict[str, str]], str]:
    """The reports written since `before`: `[{path, data}]`, and a note on what was left out.

    `clean` takes secrets out.
    """
    reports: list[dict[str, str]] = []
    note, room, left = "", MAX_SENT, MAX_READ
    for path, file in _found(worktree, pattern):
        status = os.fstat(file)
        if before.get(path) == _mark(status):
            continue
        left -= status.st_size
        if len(reports) >= MAX_FILES or status.st_size > MAX_FILE or left < 0:
            note = f"{path}: more than {MAX_FILES} reports, or larger than {MAX_FILE >> 20} MiB: not read"
            continue
        with open(file, "rb", closefd=False) as handle:
            data = base64.b64encode(zlib.compress(clean(handle.read(MAX_FILE)))).decode()
        if len(data) > room:
            note = f"{path}: the reports are too large to be sent: not read"
            continue
        room -= len(data)
        reports.append({"path": path.encode("utf-8", "replace").decode()[:500], "data": data})
    return reports, note or ("" if reports else f"no new report matches {pattern}")


def _mark(status: os.stat_result) -> Mark:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _found(worktree: Path, pattern: str) -> Iterator[tuple[str, int]]:
    """Regular files below the worktree that match, each with an open descriptor, closed when the next is asked for."""
    parts = pattern.strip("/").split("/")
    fixed = []
    for part in parts[:-1]:
        if "*" in part or "?" in part:
            break
        fixed.append(part)
    try:
        at = os.open(worktree, _DIRECTORY)
    except OSError:
        return
    for part in fixed:
        try:
            below = os.open(part, _DIRECTORY, dir_fd=at)
        except OSError:
            return
        finally:
            os.close(at)
        at = below
    wanted = ["/" + "/".join(parts)]
    left = MAX_LOOKED_AT
    waiting = [("/".join(fixed), at)]
    try:
        while waiting:
            where, at = waiting.pop()
            try:
                with os.scandir(at) as rows:
                    names = sorted((row.name, row.is_dir(follow_symlinks=False)) for row in rows)
                for name, directory in names:
                    path = f"{where}/{name}" if where else name
                    left -= 1
                    if left < 0:
                        return
                    if directory and path.count("/") < MAX_DEPTH and name != ".git" and len(waiting) < 500:
                        if len(parts) > path.count("/") + 1 or "**" in parts:
                            waiting.append((path, os.open(name, _DIRECTORY, dir_fd=at)))
                    elif not directory and globs.matches(wanted, path):
                        yield from _opened(path, name, at)
            except OSError:
                continue
            finally:
                os.close(at)
    finally:
        for _, at in waiting:
            os.close(at)


def _opened(path: str, name: str, at: int) -> Iterator[tuple[str, int]]:
    try:
        file = os.open(name, _FILE, dir_fd=at)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            yield path, file
    finally:
        os.close(file)


# -- the server's side ----------------------------------------------------------------------------------------------


class _Refused(Exception):
    """A report that is not read, and why."""


class _Reader:
    """Counts the test cases of reports, and keeps what is said of those that failed."""

    def __init__(self) -> None:
        self.total = self.failed = self.skipped = 0
        self.failures: list[dict[str, Any]] = []
        self.flaky: list[str] = []
        self.case: dict[str, Any] | None = None
        self.text: list[str] | None = None
        self.room = self.depth = 0

    def read(self, data: bytes) -> None:
        """One report. Raises _Refused."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler = self.characters
        parser.EntityDeclHandler = self.refuse
        self.case, self.text, self.depth = None, None, 0
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise _Refused(f"not well-formed: {error}") from None
        except (ValueError, LookupError) as error:
            raise _Refused(f"cannot be read: {error}") from None

    def refuse(self, *_: object) -> None:
        """An entity is declared."""
        raise _Refused("declares entities: not read")

    def start(self, name: str, given: dict[str, str]) -> None:
        """An element begins."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused("is nested too deeply: not read")
        kind = name.rpartition("}")[2].rpartition(":")[2]
        if kind == "testcase":
            line = given.get("line", "")
            self.case = {
                "name": _name(given),
                "how": "passed",
                "file": given.get("file", "")[:300],
                "line": int(line) if line.isascii() and line.isdigit() and len(line) < 8 else None,
            }
        elif self.case is not None and kind in ("failure", "error"):
            if self.case["how"] != "failed":
                self.case |= {"how": "failed", "message": given.get("message", "")[:MAX_TEXT]}
                self.text, self.room = [], MAX_TEXT
        elif self.case is not None and kind == "skipped" and self.case["how"] == "passed":
            self.case["how"] = "skipped"
        elif self.case is not None and kind in ("flakyFailure", "flakyError") and len(self.flaky) < MAX_FAILURES:
            self.flaky.append(self.case["name"])

    def end(self, name: str) -> None:
        """An element ends."""
        self.depth -= 1
        kind = name.rpartition("}")[2].rpartition(":")[2]
        if self.case is None:
            return
        if kind in ("failure", "error") and self.text is not None:
            self.case["text"], self.text = "".join(self.text)[:MAX_TEXT], None
        elif kind == "testcase":
            case, self.case = self.case, None
            self.total += 1
            self.skipped += case["how"] == "skipped"
            self.failed += case["how"] == "failed"
            if case.pop("how") == "failed" and len(self.failures) < MAX_FAILURES:
                self.failures.append({k: _clean(v) if isinstance(v, str) else v for k, v in case.items()})

    def characters(self, text: str) -> None:
        """What a failure says."""
        if self.text is not None and self.room > 0:
            self.text.append(text[: self.room])
            self.room -= len(text)  # counted and not summed up: a text may come in a million pieces


def _name(given: Mapping[str, str]) -> str:
    name, group = given.get("name", "").strip(), given.get("classname", "").strip()
    return _clean(name if not group or name.startswith(group) else f"{group}.{name}")[:300] or "(no name)"


def _clean(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


@dataclass
class _Room:
    """How many more bytes of XML are read."""

    left: int = MAX_READ


def read(reports: Sequence[Mapping[str, str]], note: str = "", room: _Room | None = None) -> dict[str, Any]:
    """What reports say: `{total, failed, skipped, failures: [{name, message, text, file, line}], flaky, notes}`.

    Empty when there is neither a report nor a note.
    """
    room = room or _Room()
    if not reports and not note:
        return {}
    reader, notes = _Reader(), [note] if note else []
    for report in reports[:MAX_FILES]:
        path = report["path"]
        try:
            data = _unpacked(report["data"], room)
            reader.read(data)
        except _Refused as refused:
            notes.append(f"{path}: {refused}"[:300])
    return {
        "total": reader.total,
        "failed": reader.failed,
        "skipped": reader.skipped,
        "failures": reader.failures,
        "flaky": sorted(set(reader.flaky)),
        "notes": notes[:10],
    }


def _unpacked(data: str, room: _Room) -> bytes:
    try:
        opened = zlib.decompressobj()
        found = opened.decompress(base64.b64decode(data, validate=True), max(min(room.left, MAX_FILE), 1))
    except (zlib.error, binascii.Error, ValueError):
        raise _Refused("arrived damaged: not read") from None
    room.left -= len(found)
    if opened.unconsumed_tail or not opened.eof:
        raise _Refused("is too large: not read")
    return found


def read_steps(steps: Sequence[dict[str, Any]]) -> None:
    """Replace the reports in the results of a run's steps by what they say."""
    room = _Room()
    for step in steps:
        for attempt in step.get("tries") or []:
            reports, note = attempt.pop("reports", []), attempt.pop("note", "")
            attempt["tests"] = read(reports, note, room)
