"""A command's output on its way: without secrets into the run's log and its tail, and an agent's into its transcript.

Standard library only: the shim imports it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from agents.runtime.orders import Log
from agents.runtime.redact import Redactor
from agents.runtime.transcript import Transcript

FAILED_TAIL = 60 << 10  # where it fails, the first lines that say so are wanted
LINE = 64 << 10


@dataclass
class Pump:
    """Reads `source` to its end, in a thread of its own. `heard`: called when something came; `mark`: what begins each
    line in the log, where several commands write into it."""

    source: IO[bytes]
    redactor: Redactor
    log: Log
    heard: Callable[[], None]
    mark: bytes = b""
    transcript: Transcript | None = None
    _tail: deque[bytes] = field(default_factory=deque)
    _kept: int = 0
    _rest: bytes = b""

    def run(self) -> None:
        """Until nobody can write any more."""
        while data := os.read(self.source.fileno(), 65536):
            self.heard()
            self._pass_on(self.redactor.feed(data))
        self._pass_on(self.redactor.flush())
        if self._rest:
            self.log.write(self.mark + self._rest + b"\n")
        if self.transcript is not None:
            self.transcript.end()

    def tail(self) -> bytes:
        """The last of what has come."""
        return b"".join(self._tail)

    def words(self) -> str:
        """An agent's last words; empty for anybody else."""
        if self.transcript is None:
            return ""
        return self.transcript.words()

    def _pass_on(self, data: bytes) -> None:
        self._tail.append(data)
        self._kept += len(data)
        while self._tail and self._kept - len(self._tail[0]) > FAILED_TAIL:
            self._kept -= len(self._tail.popleft())
        if self.transcript is not None:  # before the log: a page is drawn anew when that has grown
            self.transcript.feed(data)
        if self.mark:
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > LINE:
                lines, self._rest = [*lines, self._rest], b""
            data = b"".join(self.mark + line + b"\n" for line in lines)
        self.log.write(data)
