"""The processes of `up`: started in order, restarted when they die, taken down together.

The supervisor loads everything once and forks its parts (ADR 14). Each part has a session of its own, so that a part's
whole process group can be killed: a dead `qcluster` leaves orphans that go on working. Parts also die with the
supervisor (PDEATHSIG), whatever kills it. A cluster that hangs (its heartbeat task is not answered) is killed and
restarted.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import http.client
import importlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from urllib.parse import urlsplit

import setproctitle
import structlog

from beads.errors import Refused
from gastown_site import database

log = structlog.get_logger(__name__)
STOPS = {signal.SIGTERM, signal.SIGINT}
STOP_SECONDS = 10.0
WATCHDOG_SECONDS = 20.0
HUNG_SECONDS = 75.0
# What the parts import, and what they import only when they are asked.
LOADED = (
    "django_q.cluster", "gastown_site.asgi", "gastown_site.urls", "gastown_site.web", "refinery.tasks",
    "refinery.management.commands.reconciler", "refinery.management.commands.executor",
    "agents.management.commands.runner",
)  # fmt: skip
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child: SIGTERM when the parent goes, whatever kills it."""
    _libc.prctl(1, signal.SIGTERM)


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
        from django.db import connections

        connections.close_all()  # no two processes on one connection
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the fork has handlers of its own
        try:
            process = multiprocessing.get_context("fork").Process(
                target=self._run, args=(os.getpid(), held), name=self.name
            )
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        self.process = process

    def _run(self, supervisor: int, mask: set[signal.Signals]) -> None:
        """In the fork."""
        os.setsid()
        die_with_parent()
        if os.getppid() != supervisor:
            return  # it was killed meanwhile
        database.leave_to_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        setproctitle.setproctitle(f"gastown {self.name}")
        self.serve()

    def kill_group(self, number: int) -> None:
        """Signal the whole group, orphans included."""
        if self.process is not None and self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """Runs parts until told to stop."""

    def __init__(self, parts: Sequence[Part], url: str, say: Callable[[str], None]) -> None:
        self.parts = list(parts)
        self.url = url
        self.say = say
        self.stopping = False
        self.ready = False
        self.asked_at = 0.0

    def run(self) -> None:
        """Start all, watch, restart; returns when stopped."""
        for number in STOPS:
            signal.signal(number, self._stop)
        gc.collect()
        gc.freeze()  # what is loaded stays, and its pages stay shared
        try:
            while not self.stopping:
                self._watch()
                self._announce()
                self._watchdog()
                signal.sigtimedwait([signal.SIGCHLD], 0.2)
        finally:
            self._take_down()

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
        part.not_before = now + min(0.2 * 2 ** (part.failures - 1), 10.0)
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
        """Ask the cluster for a heartbeat task; kill it when no answer has come for long."""
        now = time.monotonic()
        if now - self.asked_at < WATCHDOG_SECONDS:
            return
        self.asked_at = now
        from django.db import DatabaseError, close_old_connections
        from django.utils import timezone
        from django_q.tasks import async_task

        from beads import ops

        cluster = next((p for p in self.parts if p.name == "cluster"), None)
        if cluster is None:
            return
        try:
            close_old_connections()
            seen = ops.heartbeats().get("cluster")
            async_task("refinery.tasks.heartbeat", save=False)  # type: ignore[no-untyped-call]
        except DatabaseError as error:
            log.warning("watchdog.database", error=str(error))
            return
        silent = (timezone.now() - seen).total_seconds() if seen else now - cluster.started
        if silent > HUNG_SECONDS and now - cluster.started > HUNG_SECONDS:
            self.say(f"cluster hangs ({silent:.0f} s without a heartbeat): killing it")
            cluster.kill_group(signal.SIGKILL)

    def _take_down(self) -> None:
        """SIGTERM to all (the web server first), SIGKILL to what is left; then whatever is left of the groups."""
        for part in self.parts:
            if part.process is not None:
                part.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for part in self.parts:
            if part.process is not None:
                part.process.join(max(end - time.monotonic(), 0.1))
                part.kill_group(signal.SIGKILL)
                part.process.join()
                self.say(f"stopped {part.name}")


def healthy(url: str) -> bool:
    """True when `/healthz` answers 200."""
    host = url.removeprefix("http://").split("/")[0]
    try:
        connection = http.client.HTTPConnection(host, timeout=2)
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
        return given.port if ours and given.port else 8000
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
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
