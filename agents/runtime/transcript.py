"""What an agent's output means, as it comes: the events of its preset, one line of JSON each, in `run_dir/transcript`.

A line: `n` (its number), `at` (UTC), `kind` (`agents.presets.EventKind`), and what the event has of `text`, `tool`,
`call`, `arguments`, `paths`, `usage`, `sum` (what the run has taken so far), `session`, `failed`, `more`. What is no
event is in the log alone, and nothing of an agent's output is believed to be more than its word.

Bounded: texts are cut, the file ends at `MOST_FILE`; from there on usage, errors and the last words still count. An
output that a parser cannot bear is said once, and never ends the run. Secrets are taken out once more, for what JSON
had escaped is plain here. Standard library only: the shim imports it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from agents.presets import Bill, Event, EventKind, Preset, Usage
from agents.presets.base import LONGEST
from agents.presets.telling import speaks_of_trouble

NAME = "transcript"  # of the file, beside the run's log
MOST_FILE = 8 << 20
RESERVED = 64 << 10  # of that, for what is said at the end of a full one
MOST_TEXT = 16 << 10  # characters of an event's text, and of its arguments
MOST_ARGUMENTS = 30
MOST_PATHS = 50
MOST_NAME = 200
MOST_NOTES = 20
MOST_WORDS = 1000  # of the last words
# what the server takes (`agents.api.views`); more is no usage of one run
MOST_MODELS = 20
MOST_TOKENS = 10**10
MOST_USD = Decimal(100_000)
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")  # it becomes a word of a command
_NANO = Decimal("1e-9")


class Lines:
    """Bytes → lines, without their ends. None stands for one that is longer than `LONGEST` bytes: it is passed over,
    and never kept as a whole."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._over = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that this chunk ends."""
        parts = data.split(b"\n")
        for number, part in enumerate(parts):
            self._over = self._over or len(self._rest) + len(part) > LONGEST
            if self._over:
                self._rest.clear()
            else:
                self._rest += part
            if number < len(parts) - 1:
                yield self._whole()

    def rest(self) -> bytes | None:
        """What has no end of line; empty: nothing."""
        return self._whole()

    def _whole(self) -> bytes | None:
        over, line = self._over, bytes(self._rest)
        self._rest.clear()
        self._over = False
        if over:
            return None
        return line


class Transcript:
    """The transcript of one command. `clean`: takes secrets out of a text; `say`: a line of the log; `root`: below it
    paths are shown as an author knows them."""

    def __init__(
        self, path: Path, preset: Preset, clean: Callable[[str], str], say: Callable[[str], None], root: str = ""
    ) -> None:
        self._preset, self._clean, self._say = preset, clean, say
        self._root = ""
        if root:
            self._root = f"{root}/"
        self._read = preset.reading()
        self._file: BinaryIO | None = None
        self._size = 0
        with contextlib.suppress(OSError):  # a full disk loses the transcript, not the run
            self._file = path.open("ab", buffering=0)
            self._size = self._file.tell()
        self._lines = Lines()
        self._number = self._notes = 0
        self._full = self._failed = False
        self._tools: dict[str, str] = {}
        self._kind = EventKind.NOTE  # of the last event
        self._said = ""  # its last text, or its error where that came later
        self._plain: deque[str] = deque(maxlen=20)  # lines since then that are no events
        self._lock = threading.Lock()
        self._bill = Bill()
        self._session = ""

    # -- what the shim asks --

    def told(self) -> dict[str, Any]:
        """What it has taken so far by model, and its session: as the server takes it. Asked from another thread."""
        with self._lock:
            sums = self._bill.sums()
            return {"session": self._session, "usage": [_usage(one) for one in sums.values() if _any(one)]}

    def words(self) -> str:
        """What the agent has said last: its last text or error, and what its program has said of a trouble since."""
        since = [line for line in self._plain if speaks_of_trouble(line)]
        return "\n".join([self._said, *since[-3:]]).strip()[-MOST_WORDS:]

    # -- what the pump tells --

    def feed(self, data: bytes) -> None:
        """More of the output, without its secrets."""
        for line in self._lines.feed(data):
            self._take(line)

    def end(self) -> None:
        """The output has ended."""
        if (line := self._lines.rest()) != b"":
            self._take(line)
        if self._full:
            sums = list(self._bill.sums().values())
            self._append({"kind": EventKind.TEXT, "text": self.words()}, last=True)
            self._append({"kind": EventKind.USAGE, "sum": _usage(_whole(sums))}, last=True)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, line: bytes | None) -> None:
        if line is None:
            self._note(f"a line of more than {LONGEST >> 20} MiB is left out")
            return
        text = line.decode("utf-8", "replace")
        try:
            events = self._read(text)
            for event in events:
                self._event(event)
        except Exception as error:  # whatever an output makes of a parser: the run goes on
            if not self._failed:
                self._failed = True
                why = f"{type(error).__name__}: {error}"[:200]
                self._say(
                    f"lines of {self._preset.name} could not be read as events ({why}): they are in this log alone"
                )
                self._note(f"lines could not be read as events ({why})")
            return
        if not events and not text.lstrip().startswith("{") and text.strip():
            self._plain.append(self._clean(_text(text[:500])))

    def _event(self, event: Event) -> None:
        if event.kind is EventKind.NOTE:
            self._note(event.text)
            return
        row = self._row(event)
        if event.usage is not None:
            if not _any(event.usage):
                return
            if not self._count(event.usage):
                self._note("usage that cannot be one run's is not counted")
                return
            row |= {"usage": _usage(event.usage), "sum": _usage(_whole(list(self._bill.sums().values())))}
        if event.kind is EventKind.SESSION and SESSION.fullmatch(event.session):
            row["session"] = event.session
            if event.session == self._session:  # opencode says it with every step
                return
            with self._lock:
                self._session = event.session
        if event.kind in (EventKind.TEXT, EventKind.ERROR) and event.text.strip():
            before = ""
            if event.more and self._kind is EventKind.TEXT:
                before = self._said
            self._said = self._clean(before + _text(event.text[-MOST_TEXT:]))[-MOST_WORDS:]
        if event.kind is not EventKind.USAGE:
            self._plain.clear()
            self._kind = event.kind
        self._append(row)

    def _count(self, one: Usage) -> bool:
        """Add to the bill; False for what would make it more than one run can use."""
        one = Usage(one.input, one.cached, one.output, one.cost, self._cut(one.model, MOST_NAME), one.total)
        before = {}
        if not one.total:
            before = self._bill.sums()
        had = before.get(one.model, Usage(0, 0, 0))
        cost = (had.cost or Decimal()) + (one.cost or Decimal())
        most = max(had.input + one.input, had.cached + one.cached, had.output + one.output)
        known = one.model in before or len(self._bill.sums()) < MOST_MODELS
        if most > MOST_TOKENS or cost > MOST_USD or not known:
            return False
        with self._lock:
            self._bill.add(one)
        return True

    # -- lines --

    def _row(self, event: Event) -> dict[str, Any]:
        """What is written of an event; only what it has."""
        if event.kind is EventKind.CALL:
            self._tools[event.call[:MOST_NAME]] = event.tool[:MOST_NAME]  # what is remembered is bounded, too
            if len(self._tools) > 500:
                del self._tools[next(iter(self._tools))]
        row = {
            "kind": event.kind,
            "text": self._cut(event.text),
            "tool": self._cut(event.tool or self._tools.get(event.call[:MOST_NAME], ""), MOST_NAME),
            "call": self._cut(event.call, MOST_NAME),
            "arguments": self._arguments(event.arguments),
            "paths": [self._path(path) for path in event.paths[:MOST_PATHS]],
            "failed": event.failed,
            "more": event.more,
        }
        return {name: value for name, value in row.items() if value}

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Arguments as texts: what is no text is written as JSON."""
        told: dict[str, str] = {}
        room = MOST_TEXT
        for name, value in list(given.items())[:MOST_ARGUMENTS]:
            text = value
            if not isinstance(value, str):
                text = json.dumps(value, ensure_ascii=False)
            told[self._cut(name, MOST_NAME)] = self._cut(text, room)
            room = max(room - len(text), 0)
        if len(given) > MOST_ARGUMENTS:
            told["…"] = f"{len(given) - MOST_ARGUMENTS} more arguments: see the log"
        return told

    def _path(self, path: str) -> str:
        return self._cut(path.removeprefix(self._root), 500)

    def _cut(self, text: str, most: int = MOST_TEXT) -> str:
        """Without secrets and halves of characters, at most so long; what is left out is said."""
        text = self._clean(_text(text))
        if len(text) <= most:
            return text
        return f"{text[:most]}… ({len(text) - most} more characters: see the log)"

    def _note(self, text: str) -> None:
        """A sentence of ours; so many and no more."""
        self._notes += 1
        if self._notes <= MOST_NOTES:
            self._append({"kind": EventKind.NOTE, "text": self._cut(text, MOST_WORDS)})

    def _append(self, row: Mapping[str, Any], *, last: bool = False) -> None:
        """Write a line; where the file is full, nothing but the `last` ones, for which there is room."""
        if self._file is None or (self._full and not last):
            return
        self._number += 1
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        data = json.dumps({"n": self._number, "at": at, **row}, ensure_ascii=False).encode() + b"\n"
        room = MOST_FILE - self._size
        if not last:
            room -= RESERVED
        if len(data) <= room:
            with contextlib.suppress(OSError):
                self._file.write(data)
                self._size += len(data)
        elif not self._full:
            self._full = True
            text = "the transcript is full: what follows is in the log alone, but for the last words and the sum"
            self._append({"kind": EventKind.NOTE, "text": text}, last=True)


def _text(text: str) -> str:
    """Without halves of characters, which JSON can say and no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _any(one: Usage) -> bool:
    """True where something was taken."""
    return bool(one.input or one.cached or one.output or one.cost)


def _whole(sums: list[Usage]) -> Usage:
    """The sum of all models."""
    costs = [one.cost for one in sums if one.cost is not None]
    cost = None
    if costs:
        cost = sum(costs, Decimal())
    return Usage(sum(s.input for s in sums), sum(s.cached for s in sums), sum(s.output for s in sums), cost)


def _usage(one: Usage) -> dict[str, Any]:
    """As the server takes it: a cost is a text, or there is none."""
    cost = None
    if one.cost is not None:
        cost = f"{one.cost.quantize(_NANO):f}"
    return {"model": one.model, "input": one.input, "cached": one.cached, "output": one.output, "cost": cost}
