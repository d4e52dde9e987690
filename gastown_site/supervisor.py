"""The processes of `up`: started in order, restarted when they die, taken down together.

Each part has a session of its own, so that a part's whole process group can be killed: a dead `qcluster` leaves
orphans that go on working. Parts also die with the supervisor (PDEATHSIG), whatever kills it. A cluster that hangs (its
heartbeat task is not answered) is killed and restarted.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from beads.errors import Refused

log = structlog.get_logger(__name__)
STOP_SECONDS = 10.0
WATCHDOG_SECONDS = 20.0
HUNG_SECONDS = 75.0
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child: SIGTERM when the parent goes, whatever kills it."""
    _libc.prctl(1, signal.SIGTERM)


@dataclass
class Part:
    """One supervised process."""

    name: str
    argv: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    def start(self, env: dict[str, str]) -> None:
        """Start it in a session of its own."""
        self.process = subprocess.Popen(
            self.argv,
            env={**env, **self.env},
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.started = time.monotonic()

    def kill_group(self, number: int) -> None:
        """Signal the whole group, orphans included."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """Runs parts until told to stop."""

    def __init__(self, parts: Sequence[Part], env: dict[str, str], url: str, say: Callable[[str], None]) -> None:
        self.parts = list(parts)
        self.env = env
        self.url = url
        self.say = say
        self.stopping = False
        self.ready = False
        self.asked_at = 0.0

    def run(self) -> None:
        """Start all, watch, restart; returns when stopped."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            for part in self.parts:
                part.start(self.env)
                self.say(f"started {part.name}")
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
        """Restart what died, its orphans killed first, with a growing pause when it keeps dying."""
        now = time.monotonic()
        for part in self.parts:
            if part.process is not None and part.process.poll() is not None:
                code = part.process.returncode
                part.kill_group(signal.SIGKILL)
                part.failures = part.failures + 1 if now - part.started < 10 else 1
                part.not_before = now + min(0.2 * 2 ** (part.failures - 1), 10.0)
                part.process = None
                self.say(f"{part.name} ended with {code}: restarting")
            if part.process is None and now >= part.not_before:
                part.start(self.env)

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
            if part.process is not None and part.process.poll() is None:
                part.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for part in self.parts:
            if part.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.process.wait(max(end - time.monotonic(), 0.1))
                part.kill_group(signal.SIGKILL)
                part.process.wait()
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


def parts(host: str, port: int) -> list[Part]:
    """The parts of an installation."""
    manage = [sys.executable, str(Path(__file__).resolve().parent.parent / "manage.py")]
    web = [sys.executable, "-m", "gastown_site.web", "--host", host, "--port", str(port)]
    return [
        Part("web", web, {"GASTOWN_DB_POOL": "1"}),
        Part("cluster", [*manage, "qcluster"]),
        Part("reconciler", [*manage, "reconciler"]),
        Part("runner", [*manage, "runner"]),
    ]
