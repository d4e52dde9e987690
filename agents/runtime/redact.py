"""Secrets are taken out of whatever is recorded: logs, outputs, reports. Standard library only: the shim imports it.

Taken out is a value as it is, each long line of one that has several, and what base64, URL quoting and JSON make of it,
also where a value is split between two chunks. Values shorter than six characters stay: they would take out half of
every text, and are no secrets.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Iterable, Iterator

MARK = b"[secret]"
SHORTEST = 6
_LINE = 16  # a line of a longer secret, such as a key in PEM, counts from this length on


class Redactor:
    """Takes `values` out of a stream of bytes: `feed` each chunk, `flush` at its end; or `clean` a text that is whole.

    A chunk's end is kept back for as long as it may be the beginning of a secret. One redactor is for one stream;
    `clean` may be called by anybody at any time.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms))) if forms else None
        self._rest = b""
        self._lock = threading.Lock()

    def again(self) -> Redactor:
        """A redactor of the same values for another stream."""
        twin = Redactor(())
        twin._forms, twin._pattern = self._forms, self._pattern
        return twin

    def clean(self, data: bytes) -> bytes:
        """A whole text, with MARK in place of each secret."""
        if self._pattern:
            return self._pattern.sub(MARK, data)
        return data

    def text(self, words: str) -> str:
        """The same for a string."""
        return self.clean(words.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def feed(self, data: bytes) -> bytes:
        """Take in the stream's next chunk; returns as much of the stream as is known to hold no secret, redacted."""
        if self._pattern is None:
            return data
        with self._lock:
            data = self._rest + data
            done: list[bytes] = []
            at = 0
            for found in self._pattern.finditer(data):
                if self._longer(data, found.start(), found.end()):
                    break  # a longer one may begin here: the next chunk tells
                done += [data[at : found.start()], MARK]
                at = found.end()
            end = max(at, len(data) - self._open(data[at:]))
            done.append(data[at:end])
            self._rest = data[end:]
            return b"".join(done)

    def flush(self) -> bytes:
        """The stream has ended: returns what was kept back, redacted."""
        with self._lock:
            rest, self._rest = self._rest, b""
        return self.clean(rest)

    def _longer(self, data: bytes, start: int, end: int) -> bool:
        rest = data[start:]
        return any(len(form) > end - start and len(form) > len(rest) and form.startswith(rest) for form in self._forms)

    def _open(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a secret: the most that any of them could have."""
        most = 0
        for form in self._forms:
            at = data.find(form[:1], max(0, len(data) - len(form) + 1))
            while at >= 0 and len(data) - at > most:
                if form.startswith(data[at:]):
                    most = len(data) - at
                at = data.find(form[:1], at + 1)
        return most


def _forms(value: str) -> Iterator[bytes]:
    """What a secret may look like in an output."""
    raw = value.encode("utf-8", "surrogateescape")
    parts = [raw, raw.strip(), *(line.strip() for line in raw.splitlines() if len(line.strip()) >= _LINE)]
    for part in parts:
        if len(part) < SHORTEST:
            continue
        yield part
        text = part.decode("utf-8", "replace")
        yield urllib.parse.quote(part, safe="").encode()
        yield json.dumps(text)[1:-1].encode()
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
        yield from _base64(part)


def _base64(part: bytes) -> Iterator[bytes]:
    """Base64 of it, wherever in the encoded text it begins: without the characters that its neighbours share."""
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + part)
        first = (offset * 8 + 5) // 6
        last = len(coded.rstrip(b"="))
        if (offset + len(part)) % 3:
            last -= 1
        inner = coded[first:last]
        if len(inner) >= SHORTEST:
            yield inner
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))
