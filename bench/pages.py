"""Pages on the server: a convoy of 200 beads, a queue of 500 entries; and 200 browsers that hear of one commit."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.django_town import installation

SMALL, BEADS, ENTRIES, ROUNDS = 20, 200, 500, 15
PAGE_MS = 150
BROWSERS, REACH_SECONDS, IDLE_SECONDS, IDLE_SHARE = 200, 1.0, 10, 0.1


def main() -> None:
    """Print each figure with its target."""
    with installation() as home:
        from django.conf import settings

        from gastown_site.parts import web

        settings.ALLOWED_HOSTS.append("testserver")
        web.settle()
        _pages()
        _browsers(home)


def _pages() -> None:
    """Render through the whole stack, with the test client."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client()
    client.force_login(User.objects.create_superuser("bench"))

    def measure(path: str) -> tuple[float, float, float, int, int]:
        times, busy = [], []
        client.get(path)
        for _ in range(ROUNDS):
            began, worked = time.perf_counter(), time.process_time()
            answer = client.get(path)
            times.append((time.perf_counter() - began) * 1000)
            busy.append((time.process_time() - worked) * 1000)
            assert answer.status_code == 200, path
        with CaptureQueriesContext(connection) as caught:
            client.get(path)
        return statistics.median(times), max(times), statistics.median(busy), len(caught), len(answer.content)

    small, large = _convoy("few", SMALL), _convoy("many", BEADS)
    heads = f"{'page':<24}{'median ms':>10}{'max':>8}{'cpu':>7}{'queries':>9}{'kB':>6}"
    print(f"{heads}   (target ≤ {PAGE_MS} ms, as many queries)")
    for label, path in (
        (f"convoy, {SMALL} beads", f"/convoys/{small}/"),
        (f"convoy, {BEADS} beads", f"/convoys/{large}/"),
        ("town", "/towns/many/"),
    ):
        _print(label, measure(path))
    rig = _rig("queue")
    _queue(rig, 0, SMALL)
    _print(f"queue, {SMALL} entries", measure("/queue/?town=queue"))
    _queue(rig, SMALL, ENTRIES)
    _print(f"queue, {ENTRIES} entries", measure("/queue/?town=queue"))


def _print(label: str, told: tuple[float, float, float, int, int]) -> None:
    median, most, busy, queries, size = told
    print(f"{label:<24}{median:>10.1f}{most:>8.1f}{busy:>7.1f}{queries:>9}{size / 1000:>6.0f}")


def _rig(slug: str) -> Any:
    from beads import ledger

    config = {"agents": {"polecat": {"command": ["x"]}}, "refinery": {"gates": ["true"]}}
    return ledger.create_rig(ledger.create_town(slug, config), slug, "/none.git", "main")


def _convoy(slug: str, size: int) -> str:
    """A started convoy in five waves, half of it in review, in a town of its own."""
    from django.utils import timezone

    from beads import ledger
    from refinery.store import entries

    rig = _rig(slug)
    wave = size // 5
    plan = [
        {"key": f"b{n}", "title": f"Bead number {n} of the plan", "body": "", "priority": 2, "rig": rig,
         "after": [f"b{n - wave}", f"b{n - wave - 1}"] if n > wave else []}
        for n in range(size)
    ]  # fmt: skip
    convoy = ledger.create_convoy(rig, f"A convoy of {size}", "review-then-land", plan, actor="bench")
    ledger.start_convoy(convoy, timezone.now(), actor="bench")
    for bead in convoy.beads.select_related("convoy")[: size // 2]:
        ledger.move(bead, "open", ledger.Transition("in_review"), actor="bench")
        entries.submit(
            rig,
            entries.NewEntry(
                branch=f"gt/a/{bead.pk}/1",
                head="a" * 40,
                target=f"convoy/{slug}/head",
                title=bead.title,
                author="bench",
                source=bead,
                convoy=convoy,
            ),
        )
    return str(convoy.pk)


def _queue(rig: Any, first: int, end: int) -> None:
    from refinery.store import entries

    for n in range(first, end):
        title = f"Change number {n}"
        change = entries.NewEntry(f"feature/number-{n}", f"{n:040x}", "main", title=title, author="bench")
        entries.submit(rig, change)


def _browsers(home: Path) -> None:
    """One web process, 200 open streams, one commit."""
    from django.conf import settings
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import connection

    from beads import inbox
    from beads.models import Town
    from gastown_site import database

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "DATABASE_URL": database.url()}
    root = Path(__file__).parents[1]
    with (home / "web.log").open("wb") as log:
        command = [sys.executable, str(root / "manage.py"), "web", "--port", str(port)]
        web = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        cookie = f"{settings.SESSION_COOKIE_NAME}={_session(SessionStore)}"
        _await(port)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
        began = time.perf_counter()
        streams = [_Stream(port, cookie) for _ in range(BROWSERS)]
        for stream in streams:
            assert stream.heard.acquire(timeout=60), "a browser heard nothing"
        print(f"\n{BROWSERS} browsers watch a town, connected in {time.perf_counter() - began:.1f} s")
        town = Town.objects.get(slug="many")
        reached = []
        for _ in range(5):
            inbox.changed(town.slug)
            began = time.perf_counter()
            for stream in streams:
                assert stream.heard.acquire(timeout=10)
            reached.append(max(s.at for s in streams) - began)
        print(f"one commit reaches all: median {statistics.median(reached) * 1000:.0f} ms, "
              f"max {max(reached) * 1000:.0f} ms (target ≤ {REACH_SECONDS * 1000:.0f})")  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from pg_stat_activity where query = 'listen gastown_changed'")
            print(f"listening connections: {cursor.fetchone()[0]} (target 1)")
        before = _cpu(web.pid)
        time.sleep(IDLE_SECONDS)
        share = (_cpu(web.pid) - before) / IDLE_SECONDS
        print(f"idle: {100 * share:.1f} % of a core (target < {100 * IDLE_SHARE:.0f})")
        _fetch_all(port, cookie, town, streams)
        began = time.perf_counter()
        web.send_signal(signal.SIGTERM)
        web.wait(30)
        print(f"stopped in {time.perf_counter() - began:.1f} s while all were watching")
    finally:
        if web.poll() is None:
            web.kill()
            web.wait()


def _fetch_all(port: int, cookie: str, town: Any, streams: list[_Stream]) -> None:
    """As live.js does: every browser fetches its page's live part when it hears of the change."""
    from beads import inbox

    done = threading.Barrier(BROWSERS + 1)

    def fetch(stream: _Stream) -> None:
        stream.heard.acquire(timeout=10)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/towns/many/", headers={"Cookie": cookie, "X-Gastown-Live": "1"})
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        done.wait(120)

    threads = [threading.Thread(target=fetch, args=(s,), daemon=True) for s in streams]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    inbox.changed(town.slug)
    done.wait(120)
    print(f"all {BROWSERS} have fetched the page anew after {time.perf_counter() - began:.2f} s")


def _session(store: Any) -> str:
    """A session of the bench's operator."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User

    user = User.objects.get(username="bench")
    session = store()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


class _Stream(threading.Thread):
    """One browser: releases `heard` for each event, and notes when the latest came."""

    def __init__(self, port: int, cookie: str) -> None:
        super().__init__(daemon=True)
        self.heard = threading.Semaphore(0)
        self.at = 0.0
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.connection.request("GET", "/events/many/", headers={"Cookie": cookie})
        self.start()

    def run(self) -> None:
        """Read until the server closes."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = self.connection.getresponse()
            while line := answer.readline():
                if line.startswith(b"data:"):
                    self.at = time.perf_counter()
                    self.heard.release()


def _await(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < end, "the web process does not answer"
        time.sleep(0.1)


def _cpu(pid: int) -> float:
    """Seconds of processor time used by a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
