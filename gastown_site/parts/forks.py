"""Forks of the supervisor: its parts, and errands, which are calls that may wait long for something, made aside so that
the supervisor itself never waits: it restarts what dies and obeys SIGTERM whatever the database does.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import setproctitle

from gastown_site import database, home

STOPS = {signal.SIGTERM, signal.SIGINT}
_context = multiprocessing.get_context("fork")
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child: SIGTERM when the parent goes, whatever kills it."""
    _libc.prctl(1, signal.SIGTERM)


def fork(name: str, serve: Callable[[], object]) -> BaseProcess:
    """A process in a session of its own that does `serve` and ends, and ends with us. Raises OSError."""
    from django.db import connections

    connections.close_all()  # no two processes on one connection
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the fork has handlers of its own
    try:
        process = _context.Process(target=_run, args=(os.getpid(), held, name, serve), name=name)
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return process


def _run(parent: int, mask: set[signal.Signals], name: str, serve: Callable[[], object]) -> None:
    """In the fork."""
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:
        return  # it was killed meanwhile
    database.leave_to_parent()
    home.leave_to_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    setproctitle.setproctitle(f"gastown {name}")
    serve()


def kill_group(process: BaseProcess | None, number: int) -> None:
    """Signal a fork's whole group, orphans included."""
    if process is not None and process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


@dataclass(frozen=True)
class Answer:
    """What came of an errand: its value, or why there is none."""

    value: Any = None
    error: str = ""


class Errand:
    """A call that is made aside, one at a time; without an answer after `seconds` it is killed."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._began = 0.0

    @property
    def under_way(self) -> bool:
        """True from `begin` until the answer was fetched."""
        return self._process is not None

    def begin(self, call: Callable[[], Any]) -> None:
        """Start it. Raises OSError when there is no room for a process."""
        reader, writer = _context.Pipe(duplex=False)
        try:
            self._process = fork(self.name, lambda: _tell(writer, call))
        except BaseException:
            reader.close()
            raise
        finally:
            writer.close()
        self._pipe, self._began = reader, time.monotonic()

    def answer(self) -> Answer | None:
        """What came of it, once; None while it is under way."""
        if self._process is None or self._pipe is None:
            return None
        found = None
        if self._pipe.poll():
            with contextlib.suppress(EOFError, OSError):
                found = self._pipe.recv()
            if found is None:
                self._process.join(1)
                found = Answer(error=f"ended with {self._process.exitcode}")
        elif time.monotonic() - self._began > self.seconds:
            found = Answer(error=f"no answer within {self.seconds:.0f} s")
        if found is not None:
            self._bury()
        return found

    def end(self, seconds: float = 0.0) -> None:
        """Give it so much time to finish, then end it."""
        if self._process is not None:
            self._process.join(seconds)
            self._bury()

    def _bury(self) -> None:
        assert self._process is not None and self._pipe is not None
        if self._process.exitcode is None:
            self._process.join(0.2)
        kill_group(self._process, signal.SIGKILL)
        self._process.join()
        self._pipe.close()
        self._process = self._pipe = None


def _tell(writer: Connection, call: Callable[[], Any]) -> None:
    """In the fork: make the call, send what came of it."""
    try:
        said = Answer(call())
    except Exception as error:
        lines = str(error).strip().splitlines()
        said = Answer(error=lines[0] if lines else type(error).__name__)
    with contextlib.suppress(OSError):
        writer.send(said)
