"""JUnit reports, the server's side: what a run's reports say, and nothing of it trusted.

Never raises: what cannot be read is a note beside the counts of what can. defusedxml refuses entities, declared ones
and those from elsewhere. Cases are counted by hand, as the parser meets them: junitparser builds the tree of a whole
report first, and a hostile one of 8 MiB is 200 MiB then.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from agents.runtime import junit

MAX_FAILURES = 50
MAX_TEXT = 2000


class _Refused(Exception):
    """A report that is not read, and why."""


class _Reader:
    """Counts the test cases of reports, and keeps what is said of those that failed: the target of an XML parser."""

    def __init__(self) -> None:
        self.total = self.failed = self.skipped = 0
        self.failures: list[dict[str, Any]] = []
        self.flaky: list[str] = []
        self.case: dict[str, Any] | None = None
        self.text: list[str] | None = None
        self.room = self.depth = 0

    def read(self, data: bytes) -> None:
        """One report. Raises _Refused."""
        self.case, self.text, self.depth = None, None, 0
        parser = DefusedXMLParser(target=self)
        try:
            parser.feed(data)
            parser.close()
        except ParseError as error:
            raise _Refused(f"not well-formed: {error}") from None
        except DefusedXmlException:
            raise _Refused("declares entities: not read") from None
        except (ValueError, LookupError) as error:
            raise _Refused(f"cannot be read: {error}") from None

    def close(self) -> None:
        """The report has ended: the parser asks for its result here, and all is kept in the reader."""

    def start(self, name: str, given: dict[str, str]) -> None:
        """An element begins."""
        self.depth += 1
        if self.depth > junit.MAX_DEPTH:
            raise _Refused("is nested too deeply: not read")
        kind = name.rpartition("}")[2]
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
        kind = name.rpartition("}")[2]
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

    def data(self, text: str) -> None:
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

    left: int = junit.MAX_READ


def read(reports: Sequence[Mapping[str, str]], note: str = "", room: _Room | None = None) -> dict[str, Any]:
    """What reports say: `{total, failed, skipped, failures: [{name, message, text, file, line}], flaky, notes}`.

    Empty when there is neither a report nor a note.
    """
    room = room or _Room()
    if not reports and not note:
        return {}
    reader, notes = _Reader(), [note] if note else []
    for report in reports[: junit.MAX_FILES]:
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
        found = opened.decompress(base64.b64decode(data, validate=True), max(min(room.left, junit.MAX_FILE), 1))
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
