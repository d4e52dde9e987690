"""The embedded PostgreSQL as a part of `up`: when it dies it is started again, when it was stopped it goes on.

Promises: started is under the lock that every user of the server starts it under, so there are never two; what is the
matter is said once, and tried again with a growing pause; the supervisor never waits for it. Of an external database
nothing is watched here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from gastown_site import database
from gastown_site.parts import watch
from gastown_site.parts.forks import Errand

START_SECONDS = 2.5 * database.START_SECONDS
LONGEST_PAUSE = 30.0
STOPPED_SECONDS = 5.0


class Keeper:
    """Keeps the server running; `step` is called again and again and never waits."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._files = database.data_directory() if database.used() else None
        self._errand = Errand("database", START_SECONDS)
        self._looked = self._scanned = 0.0
        self._not_before = 0.0
        self._failures = 0
        self._told = ""
        self._stopped: dict[int, float] = {}

    def step(self) -> None:
        """Look, at most once a second, and do what is to be done."""
        now = time.monotonic()
        if self._errand.under_way:
            self._fetch(now)
        elif self._files is not None and now - self._looked >= 1:
            self._looked = now
            server = database.postmaster(self._files)
            if server is not None:
                self._let_go_on(server, now)
            elif now >= self._not_before:
                self._begin()

    def end(self) -> None:
        """A start under way is ended, or has ended: nothing starts a server after this."""
        self._errand.end(10.0)

    def _begin(self) -> None:
        if not self._failures:
            self.say("database has ended: starting it again")
        try:
            self._errand.begin(database.revive)
        except OSError as error:
            self._put_off(f"cannot be started: {error}")

    def _fetch(self, now: float) -> None:
        answer = self._errand.answer()
        if answer is None:
            return
        if answer.error:
            self._put_off(answer.error)
            return
        self._failures, self._told = 0, ""
        self.say("started database")

    def _put_off(self, why: str) -> None:
        """Try again after a pause that grows; the same reason is said once."""
        self._failures += 1
        self._not_before = time.monotonic() + min(2.0 ** (self._failures - 1), LONGEST_PAUSE)
        if why != self._told:
            self._told = why
            self.say(f"database is down: {why}; it is tried again, for as long as it takes")

    def _let_go_on(self, server: int, now: float) -> None:
        """A server or a session that somebody has stopped holds up everybody, and its locks outlive whoever it was
        for. It has done nothing wrong: it is told to go on."""
        if now - self._scanned < watch.LOOK_SECONDS:
            return
        self._scanned = now
        ours = [p for p in watch.processes() if server in (p.pid, p.parent) and p.state == "T"]
        self._stopped = {p.pid: self._stopped.get(p.pid, now) for p in ours}
        for pid, since in self._stopped.items():
            if now - since >= STOPPED_SECONDS:
                self.say(f"database process {pid} was stopped by a signal: telling it to go on")
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
