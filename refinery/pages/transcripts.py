"""A run's transcript for people: a part of it, in bounded work, whatever stands in the file.

The file is lines of JSON (`agents.runtime.transcript`). A place in it is a count of bytes, so a part is found without
reading the rest; only a search reads all of it, which is `MOST_FILE` at most. A line that is none is passed over, and
everything shown was written by an agent: it goes through `ansi.spans`, `reveal_hidden` or `sanitize`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.lifecycle import RunState
from agents.models import Run
from agents.presets.base import money
from agents.runtime.transcript import MOST_FILE, MOST_TEXT, NAME
from beads import budget
from refinery.core.telling import short
from refinery.core.text import sanitize
from refinery.pages import ansi

WINDOW = 256 << 10  # bytes that are read for one page
SHOWN = 100  # events on one page, or hits of a search
LONGEST_QUESTION = 200
HINT = 160  # characters of a call on one line
_LINE = 4 * MOST_TEXT  # characters of a line of text that are shown: all


@dataclass(frozen=True)
class Look:
    """What a person looks at. `before`, `after`: a place in the file; None: its end. `log`: the raw log."""

    log: bool = False
    question: str = ""
    before: int | None = None
    after: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Look:
        """From a query string; what is no place is the end."""
        question = given.get("q", "").strip()[:LONGEST_QUESTION]
        return cls(given.get("view") == "log", question, _place(given.get("before")), _place(given.get("after")))


END = Look()


def _place(text: str | None) -> int | None:
    if text and text.isascii() and text.isdigit() and len(text) < 12:
        return int(text)
    return None


@dataclass(frozen=True)
class Row:
    """One event, at its place in the file."""

    at: int
    kind: str
    time: str = ""
    text: str = ""
    tool: str = ""
    call: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    failed: bool = False
    more: bool = False
    session: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    sum: Mapping[str, Any] = field(default_factory=dict)

    def says(self, word: str) -> bool:
        """True where this word, in lower case, stands in it."""
        texts = (self.text, self.tool, *self.arguments.values(), *self.paths)
        return any(word in text.lower() for text in texts)


@dataclass(frozen=True)
class Part:
    """Rows of a file, and where they begin and end in it. `size`: of the whole lines of the file."""

    rows: tuple[Row, ...]
    start: int
    end: int
    size: int


def files(run: Run) -> tuple[Path, ...]:
    """What grows while a run is at work: its log and its transcript."""
    if not run.log_path:
        return ()
    return Path(run.log_path), Path(run.log_path).with_name(NAME)


def file_of(run: Run) -> Path | None:
    """A run's transcript; None where there is none, or none any more."""
    path = next(iter(files(run)[1:]), None)
    if path is not None and path.is_file() and path.stat().st_size:
        return path
    return None


FILES = {"transcript": ("application/x-ndjson", "jsonl"), "log": ("text/plain; charset=utf-8", "txt")}
_MOST = 32 << 20  # bytes of a file that is handed out: a log ends before that


def whole(run: Run, name: str) -> bytes | None:
    """A run's file of that name (a key of `FILES`); None where it is not here."""
    path = dict(zip(("log", "transcript"), files(run), strict=False)).get(name)
    if path is None or not path.is_file():
        return None
    with path.open("rb") as handle:
        return handle.read(_MOST)


# -- reading ----------------------------------------------------------------------------------------------------------


def part(path: Path, look: Look) -> Part:
    """What is to be shown of a transcript."""
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        if look.after is not None and look.after < size and not look.question:
            start = max(look.after, 0)
            handle.seek(max(start - 1, 0))
            found = list(_lines(handle.read(WINDOW), max(start - 1, 0), start > 0))[:SHOWN]
        else:
            end = size
            if look.before is not None:
                end = min(look.before, size)
            reach = WINDOW
            if look.question:
                reach = MOST_FILE
            start = max(end - reach, 0)
            handle.seek(start)
            lines = list(_lines(handle.read(end - start), start, start > 0))
            found = list(_matching(lines, look.question))[-SHOWN:]
    if not found:
        return Part((), start, start, size)
    rows = tuple(row for at, line in found if (row := _row(at, line)) is not None)
    last, line = found[-1]
    return Part(rows, found[0][0], last + len(line) + 1, size)


def _lines(data: bytes, at: int, cut: bool) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a piece that begins at this place, each with its own. `cut`: it may begin within a line."""
    *lines, _ = data.split(b"\n")
    for number, line in enumerate(lines):
        if number or not cut:
            yield at, line
        at += len(line) + 1


def _matching(lines: list[tuple[int, bytes]], question: str) -> Iterator[tuple[int, bytes]]:
    """Those in which a question's words stand, in whatever case; all where nothing is asked."""
    word = question.lower()
    written = json.dumps(word, ensure_ascii=False)[1:-1]  # as a line of JSON has it: most lines need not be read
    for at, line in lines:
        if word:
            if written not in line.decode("utf-8", "replace").lower():
                continue
            row = _row(at, line)
            if row is None or not row.says(word):
                continue
        yield at, line


def rows(path: Path) -> Iterator[Row]:
    """All of a transcript."""
    with path.open("rb") as handle:
        data = handle.read(2 * MOST_FILE)
    return (row for at, line in _lines(data, 0, False) if (row := _row(at, line)) is not None)


def _row(at: int, line: bytes) -> Row | None:
    """A line of the file; None for one that is no event."""
    try:
        told = json.loads(line)
        if isinstance(told, dict) and isinstance(told.get("kind"), str):
            return _read(at, told)
    except (ValueError, RecursionError):
        return None
    return None


def _read(at: int, told: Mapping[str, Any]) -> Row:
    texts = {name: str(told.get(name) or "") for name in ("text", "tool", "call", "session")}
    paths = told.get("paths")
    if not isinstance(paths, list):
        paths = []
    return Row(
        at,
        told["kind"],
        str(told.get("at") or "")[:30],
        **texts,
        arguments={str(k): str(v) for k, v in _table(told.get("arguments")).items()},
        paths=tuple(str(path) for path in paths),
        failed=told.get("failed") is True,
        more=told.get("more") is True,
        usage=_table(told.get("usage")),
        sum=_table(told.get("sum")),
    )


def _table(value: object) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    return {}


# -- drawing ----------------------------------------------------------------------------------------------------------


def shown(run: Run, look: Look) -> dict[str, Any]:
    """What a run's page shows of its transcript: empty where it has none. `entries_shown`: rather than the log."""
    path = file_of(run)
    if path is None:
        return {}
    told: dict[str, Any] = {"transcript": True, "question": look.question, "entries_shown": not look.log}
    if look.log:
        return told
    found = part(path, look)
    ended = run.state == RunState.ENDED
    at_end = found.end >= found.size or (not found.rows and look.after is None)
    return told | {
        "entries": list(entries(found.rows, ended=ended or not at_end)),
        "earlier": found.start,
        "later": not at_end and not look.question and found.end,
        "follows": not look.question and look.before is None and look.after is None,
        "at_end": look.before is None and look.after is None,
    }


@dataclass
class _Group:
    """What is drawn as one: pieces of a text, or a call with its result."""

    row: Row
    texts: list[str]
    result: Row | None = None


def entries(found: Sequence[Row], *, ended: bool) -> Iterator[dict[str, Any]]:
    """What is drawn of rows. `ended`: what has no result by now gets none any more, or has it elsewhere."""
    groups: list[_Group] = []
    calls: dict[str, _Group] = {}
    for row in found:
        if row.kind == "text" and row.more and groups and groups[-1].row.kind == "text":
            groups[-1].texts.append(row.text)
        elif row.kind == "result" and row.call in calls:
            calls.pop(row.call).result = row
        else:
            groups.append(_Group(row, [row.text]))
            if row.kind == "call" and row.call:
                calls[row.call] = groups[-1]
    return (_entry(group, ended) for group in groups)


def _entry(group: _Group, ended: bool) -> dict[str, Any]:
    """One of them, to be drawn."""
    row = group.row
    made: dict[str, Any] = {
        "id": row.at,
        "kind": row.kind,
        "time": row.time[11:19],
        "text": _spans("".join(group.texts)),
        "tool": row.tool,
        "failed": row.failed,
        "session": row.session,
    }
    if row.kind == "call":
        made |= {"paths": row.paths, "hint": _hint(row), "running": not ended and group.result is None}
        made["arguments"] = [(name, _spans(text)) for name, text in row.arguments.items()]
    if group.result is not None:
        made |= {"result": _spans(group.result.text) or None, "answered": True, "failed": group.result.failed}
    if row.kind == "usage":
        made |= {"used": used(row.usage), "sum": used(row.sum)}
    return made


def _spans(text: str) -> list[ansi.Span]:
    return ansi.spans(text.rstrip(), _LINE)


def _hint(row: Row) -> str:
    """What a call is about, on one line."""
    if row.paths:
        return short(", ".join(row.paths), HINT)
    return short(next((text for text in row.arguments.values() if text.strip()), ""), HINT)


def used(told: Mapping[str, Any]) -> str:
    """Usage in words; empty where there is none."""
    numbers = [told.get(name) for name in ("input", "cached", "output")]
    if not all(isinstance(number, int) for number in numbers):
        return ""
    words = "{} in, {} from the cache, {} out".format(*numbers)
    if (cost := money(told.get("cost"))) is not None:
        words += f", {budget.money(cost)}"
    if told.get("model"):
        words += f" ({told['model']})"
    return words


def plain(row: Row) -> str:
    """A row as a line or more of plain text, for a terminal."""
    mark = {"error": "! ", "call": "> ", "result": "< ", "note": "# ", "usage": "$ "}.get(row.kind, "")
    said = row.text
    if row.kind == "call":
        said = f"{row.tool} {_hint(row)}"
    if row.kind == "usage":
        said = used(row.usage) or used(row.sum)
    if row.kind == "session":
        said = f"session {row.session}"
    return f"{row.time[11:19]} {mark}{sanitize(said.rstrip())}"
