"""The processes of `up`: started in order, restarted when they die or hang, taken down together.

The supervisor loads everything once and forks its parts (ADR 14). Each part has a session of its own, so that a part's
whole process group can be killed: a dead `qcluster` leaves orphans that go on working. Parts also die with the
supervisor (PDEATHSIG), whatever kills it. The supervisor itself waits for nothing: whatever may last is asked aside
(`gastown_site.parts.forks`), so that it restarts what dies and obeys SIGTERM while the database is away (ADR 19).
"""

from __future__ import annotations

import argparse
import gc
import http.client
import importlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from beads.errors import Refused
from gastown_site.parts import forks, watch
from gastown_site.parts.database_watch import Keeper
from gastown_site.parts.forks import Errand

if TYPE_CHECKING:
    from beads.installations import Identity

STOP_SECONDS = 10.0
LONGEST_PAUSE = 2.0  # before a part that keeps dying is forked again
ANSWER_SECONDS = 15.0  # for one look at all parts
ASK_SECONDS = 20.0  # so often the cluster is given a task to show that it works
# What the parts import, and what they import only when they are asked.
LOADED = (
    "django_q.cluster", "gastown_site.asgi", "gastown_site.urls", "gastown_site.parts.web", "refinery.tasks",
    "refinery.management.commands.reconciler", "refinery.management.commands.executor",
    "agents.management.commands.runner",
)  # fmt: skip


@dataclass
class Part:
    """One supervised process: its name, and what it does until it is told to stop."""

    name: str
    serve: Callable[[], object]
    process: BaseProcess | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    def start(self) -> None:
        """Fork it, into a session of its own."""
        self.process = forks.fork(self.name, self.serve)

    def kill_group(self, number: int) -> None:
        """Signal the whole group, orphans included."""
        forks.kill_group(self.process, number)


@dataclass(frozen=True)
class Seen:
    """What one look has shown: each part's sign of life, and who else has taken the database over."""

    signs: dict[str, str]
    rival: str = ""


class Supervisor:
    """Runs parts until told to stop. `me`: the installation that this is; None keeps nobody off the database."""

    def __init__(
        self,
        parts: Sequence[Part],
        url: str,
        say: Callable[[str], None],
        me: Identity | None = None,
    ) -> None:
        self.parts = list(parts)
        self.url = url
        self.say = say
        self.me = me
        self.stopping = False
        self.ready = False
        self.watch = watch.Watch(second=os.sysconf("SC_CLK_TCK"))
        self.database = Keeper(say)
        self._look = Errand("look", ANSWER_SECONDS)
        self._looked = self._asked = 0.0
        self._away = ""  # why the database cannot be asked, as it was said
        self._rival = ""

    def run(self) -> None:
        """Start all, watch, restart; returns when stopped. Raises Refused when another installation has taken the
        database over meanwhile."""
        for number in forks.STOPS:
            signal.signal(number, self._stop)
        gc.collect()
        gc.freeze()  # what is loaded stays, and its pages stay shared
        try:
            while not self.stopping:
                self.database.step()
                self._watch()
                self._announce()
                self._watchdog()
                signal.sigtimedwait([signal.SIGCHLD], 0.2)
        finally:
            self._take_down()
        if self._rival:
            raise Refused(self._rival, code="conflict")

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _watch(self) -> None:
        """Start what does not run; of what died the orphans are killed first."""
        for part in self.parts:
            if part.process is not None and (code := part.process.exitcode) is not None:
                part.kill_group(signal.SIGKILL)
                self._put_off(part, f"ended with {code}")
            if part.process is None and time.monotonic() >= part.not_before:
                part.started = time.monotonic()
                try:
                    part.start()
                    self.say(f"started {part.name}")
                except OSError as error:  # no memory, no room for a process: not now
                    self._put_off(part, f"cannot be started: {error}")

    def _put_off(self, part: Part, why: str) -> None:
        """Start it again after a pause, which grows when it keeps failing."""
        now = time.monotonic()
        part.failures = part.failures + 1 if now - part.started < 10 else 1
        part.not_before = now + min(0.2 * 2 ** (part.failures - 1), LONGEST_PAUSE)
        part.process = None
        self.say(f"{part.name} {why}")

    def _announce(self) -> None:
        """Say once that the web server answers."""
        if self.ready:
            return
        if healthy(self.url):
            self.ready = True
            self.say(f"ready: {self.url}/")

    def _watchdog(self) -> None:
        """Every few seconds: look for signs of life, kill what has shown none for too long."""
        now = time.monotonic()
        if self._look.under_way:
            answer = self._look.answer()
            if answer is not None and answer.error:
                self._lost(answer.error)
            elif answer is not None:
                self._judge(answer.value, now)
        elif now - self._looked >= watch.LOOK_SECONDS:
            self._looked = now
            ask = now - self._asked >= ASK_SECONDS
            self._asked = now if ask else self._asked
            try:
                self._look.begin(partial(look, self.url, ask, self.me))
            except OSError as error:
                self._lost(f"cannot be looked for: {error}")

    def _lost(self, why: str) -> None:
        """The database cannot be asked: said once, and nobody is judged."""
        self.watch.lost()
        if not self._away:
            self._away = why
            self.say(f"database cannot be asked: {why}")

    def _judge(self, seen: Seen, now: float) -> None:
        """Kill what hangs; `_watch` starts it again."""
        if self._away:
            self._away = ""
            self.say("database answers again")
        if seen.rival:
            self._rival, self.stopping = seen.rival, True
            return
        running = {part.name: part for part in self.parts if part.process is not None}
        leaders = {name: part.process.pid or 0 for name, part in running.items() if part.process is not None}
        self.watch.see(seen.signs, watch.groups(leaders), {n: p.started for n, p in running.items()}, now)
        for name, why in self.watch.hung(now).items():
            if name in running:
                self.say(f"{name} {why}: killing it")
                running[name].kill_group(signal.SIGKILL)

    def _take_down(self) -> None:
        """SIGTERM to all (the web server first), SIGKILL to what is left; then whatever is left of the groups."""
        for part in self.parts:
            if part.process is not None:
                part.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        self._look.end()
        for part in self.parts:
            if part.process is not None:
                part.process.join(max(end - time.monotonic(), 0.1))
                part.kill_group(signal.SIGKILL)
                part.process.join()
                self.say(f"stopped {part.name}")
        if self.me is not None and not self._rival:  # who comes next need not wait to see that we are gone
            farewell = Errand("farewell", STOP_SECONDS)
            farewell.begin(partial(leave, self.me))
            farewell.end(STOP_SECONDS)
        self.database.end()


def look(url: str, ask: bool, me: Identity | None) -> Seen:
    """In a fork: say that we work, see who else does. `ask`: the cluster is given a task. Raises DatabaseError."""
    from django_q.tasks import async_task

    from beads import installations, ops

    rival = ""
    if me is not None:
        rival = installations.beat(me)
    signs = {name: at.isoformat() for name, at in ops.heartbeats().items()}
    if ask:
        async_task("refinery.tasks.heartbeat", save=False)  # type: ignore[no-untyped-call]
    if healthy(url, timeout=ANSWER_SECONDS / 2):
        signs[watch.WEB] = str(time.monotonic())
    return Seen(signs, rival)


def leave(me: Identity) -> None:
    """In a fork: say that we have ended."""
    from beads import installations

    installations.leave(me)


def healthy(url: str, timeout: float = 2) -> bool:
    """True when `/healthz` answers 200."""
    host = url.removeprefix("http://").split("/")[0]
    try:
        connection = http.client.HTTPConnection(host, timeout=timeout)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
        connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def check_port(host: str, port: int) -> None:
    """Refuse a port that is in use, before anything is started."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Refused(
                f"port {port} on {host} cannot be used: {error.strerror}", details={"field": "port"}
            ) from None


def _usual_port() -> int:
    """The port of a GASTOWN_URL that is ours without anything in front of it; else 8000."""
    try:
        given = urlsplit(os.environ.get("GASTOWN_URL", ""))
        ours = given.scheme == "http" and given.hostname in ("127.0.0.1", "localhost", "::1")
        if ours and given.port:
            return given.port
        return 8000
    except ValueError:
        return 8000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where the web server listens."""
    parser.add_argument(
        "--port", type=int, default=_usual_port(), help="default: of GASTOWN_URL on this machine, or 8000"
    )
    parser.add_argument("--host", default="127.0.0.1")


def local_url(host: str, port: int) -> str:
    """Where this machine reaches the web server that listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - read, not bound
        return f"http://127.0.0.1:{port}"
    if ":" in host:
        return f"http://[{host}]:{port}"
    return f"http://{host}:{port}"


def parts(host: str, port: int) -> list[Part]:
    """The parts of an installation, for which everything is loaded now."""
    from django.core.management import call_command

    for module in LOADED:
        importlib.import_module(module)
    return [
        Part("web", partial(call_command, "web", host=host, port=port)),
        Part("cluster", partial(call_command, "qcluster")),
        Part("reconciler", partial(call_command, "reconciler")),
        Part("executor", partial(call_command, "executor")),
        Part("runner", partial(call_command, "runner")),
    ]
