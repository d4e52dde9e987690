"""What a provider's answer says of its usage, read while it is passed on. Pure.

A meter is fed with an answer's bytes as they come, and keeps none of the content: of a stream of events only the line
that is being read, of a whole answer as much as `WHOLE`. What is longer, half, absurd or missing is *not known*, which
is never taken for nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from agents.model_door.apis import Kind
from beads.budget import Spent

LINE = 4 << 20  # of one event
WHOLE = 32 << 20  # of an answer that is no stream
MOST = 100_000_000  # tokens that one call can use


@dataclass
class Seen:
    """What an answer has said so far. `ended`: it has said all that it used."""

    model: str = ""
    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    cost: Decimal | None = None
    told: bool = False
    ended: bool = False
    absurd: bool = False

    def spent(self) -> Spent:
        """One call, and what it used as far as it is known."""
        known = self.told and not self.absurd
        counts = (self.input, self.cached, self.written, self.output) if known else (0, 0, 0, 0)
        return Spent(1, *counts, uncounted=0 if known and self.ended else 1)

    def number(self, told: Mapping[str, Any], *path: str) -> int | None:
        """A count of tokens; None when it is not said. What no count can be makes the whole answer absurd."""
        value: Any = told
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
            self.absurd = True
            return None
        return value


def _anthropic(seen: Seen, told: Mapping[str, Any]) -> None:
    message = told.get("message") if told.get("type") == "message_start" else told
    if not isinstance(message, Mapping) or told.get("type") not in ("message_start", "message_delta", "message"):
        return
    seen.model = str(message.get("model") or seen.model)
    usage = message.get("usage")
    if not isinstance(usage, Mapping):
        return
    seen.told = True
    for name, key in (
        ("input", "input_tokens"),
        ("cached", "cache_read_input_tokens"),
        ("written", "cache_creation_input_tokens"),
        ("output", "output_tokens"),
    ):
        if (count := seen.number(usage, key)) is not None:
            setattr(seen, name, count)
    seen.ended = told.get("type") != "message_start"


def _openai(seen: Seen, told: Mapping[str, Any], input: str, output: str) -> None:
    seen.model = str(told.get("model") or seen.model)
    usage = told.get("usage")
    if not isinstance(usage, Mapping):
        return
    whole = seen.number(usage, f"{input}_tokens")
    made = seen.number(usage, f"{output}_tokens")
    if whole is None and made is None:
        return
    cached = min(seen.number(usage, f"{input}_tokens_details", "cached_tokens") or 0, whole or 0)
    seen.input, seen.cached, seen.output = (whole or 0) - cached, cached, made or 0
    seen.told = seen.ended = True
    if isinstance(cost := usage.get("cost"), int | float) and not isinstance(cost, bool):
        try:
            seen.cost = Decimal(str(cost))
        except InvalidOperation:
            seen.cost = None
        if seen.cost is None or not seen.cost.is_finite() or not 0 <= seen.cost <= 100_000:
            seen.cost, seen.absurd = None, True


def _chat(seen: Seen, told: Mapping[str, Any]) -> None:
    _openai(seen, told, "prompt", "completion")


def _responses(seen: Seen, told: Mapping[str, Any]) -> None:
    answer = told.get("response") if "response" in told else told
    if isinstance(answer, Mapping):
        _openai(seen, answer, "input", "output")


def _google(seen: Seen, told: Mapping[str, Any]) -> None:
    seen.model = str(told.get("modelVersion") or seen.model)
    usage = told.get("usageMetadata")
    if isinstance(usage, Mapping):
        seen.told = True
        whole = seen.number(usage, "promptTokenCount") or 0
        cached = min(seen.number(usage, "cachedContentTokenCount") or 0, whole)
        tools = seen.number(usage, "toolUsePromptTokenCount") or 0
        made = (seen.number(usage, "candidatesTokenCount") or 0) + (seen.number(usage, "thoughtsTokenCount") or 0)
        seen.input, seen.cached, seen.output = whole - cached + tools, cached, made
    candidates = told.get("candidates")
    stopped = isinstance(candidates, list) and any(isinstance(c, Mapping) and c.get("finishReason") for c in candidates)
    feedback = told.get("promptFeedback")
    blocked = isinstance(feedback, Mapping) and feedback.get("blockReason")
    seen.ended = seen.ended or bool(stopped or blocked)


_READERS = {Kind.MESSAGES: _anthropic, Kind.CHAT: _chat, Kind.RESPONSES: _responses, Kind.GENERATE: _google}
_MARKS = {
    Kind.MESSAGES: (b'"usage"',),
    Kind.CHAT: (b'"usage"',),
    Kind.RESPONSES: (b'"usage"',),
    Kind.GENERATE: (b'"usageMetadata"', b'"finishReason"', b'"blockReason"'),
}


class Meter:
    """Reads one answer of a kind. `stream`: it is one of server-sent events."""

    def __init__(self, kind: Kind, *, stream: bool, encoding: str = "") -> None:
        self.kind, self.stream = kind, stream
        self.seen = Seen()
        self._rest = bytearray()
        self._lost = encoding not in ("", "identity", "gzip", "deflate")
        self._unpack = zlib.decompressobj(47) if encoding in ("gzip", "deflate") else None

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer."""
        if self._lost:
            return
        if self._unpack is not None:
            try:
                data = self._unpack.decompress(data, WHOLE)
            except zlib.error:
                self._lost = True
                return
        self._rest += data
        if not self.stream:
            if len(self._rest) > WHOLE:
                self._lost = True
                self._rest.clear()
            return
        *lines, rest = self._rest.split(b"\n")
        for line in lines:
            self._line(bytes(line))
        self._rest = rest if len(rest) <= LINE else bytearray()

    def end(self) -> Seen:
        """No more bytes come; what is known."""
        if self.stream:
            self._line(bytes(self._rest))
        elif not self._lost:
            told = _json(bytes(self._rest))
            for one in told if isinstance(told, list) else [told]:
                self._take(one)
        self._rest.clear()
        return self.seen

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:") and any(mark in line for mark in _MARKS[self.kind]):
            self._take(_json(line[5:]))

    def _take(self, told: object) -> None:
        if isinstance(told, Mapping):
            _READERS[self.kind](self.seen, told)


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class WithoutUsage:
    """Takes the event of the usage out of a stream of chat completions whose caller had not asked for it.

    Events are passed on whole, as they came; what has no end yet waits for it, up to `LINE` bytes.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on."""
        self._rest += data
        kept = b"".join(event for event in self._events() if not _only_usage(event))
        if len(self._rest) > LINE:
            kept, self._rest = kept + self._rest, b""
        return kept

    def end(self) -> bytes:
        """The last bytes, which are no event."""
        rest, self._rest = self._rest, b""
        return b"" if _only_usage(rest) else rest

    def _events(self) -> Iterator[bytes]:
        while True:
            ends = [at + len(gap) for gap in (b"\n\n", b"\r\n\r\n") if (at := self._rest.find(gap)) >= 0]
            if not ends:
                return
            event, self._rest = self._rest[: min(ends)], self._rest[min(ends) :]
            yield event


def _only_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    told = _json(b"".join(lines))
    return isinstance(told, Mapping) and told.get("choices") == [] and isinstance(told.get("usage"), Mapping)
